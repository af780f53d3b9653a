"""Where values come from besides the file: the secrets directory and the environment.

Invariant: a file of the secrets directory that names a setting is used, or refused with its name; every other file is
left alone, whatever it holds. A directory that is mounted by Kubernetes consists of links, so links are followed.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, EnvSettingsSource, PydanticBaseSettingsSource

ENV_PREFIX = "REPLICATOR_"
NESTED = "__"
DEFAULT_SECRETS = Path("/run/secrets/replicator")
_NAMED = ("caches", "secrets")
"""Mappings whose keys are names; the environment cannot write their `-`, and says `_`."""

_LONGEST_SECRET = 2**20


class SecretsRefused(Exception):
    """Files of the secrets directory that cannot be used; one sentence each."""

    def __init__(self, sentences: list[str]) -> None:
        super().__init__("\n".join(sentences))
        self.sentences = sentences


def secrets_directory() -> Path | None:
    """Where secrets are read from: REPLICATOR_SECRETS_DIR, systemd's credentials, or /run/secrets/replicator."""
    if value := os.environ.get(f"{ENV_PREFIX}SECRETS_DIR"):
        return Path(value)
    inherited = Path(os.environ.get("CREDENTIALS_DIRECTORY") or DEFAULT_SECRETS)
    return inherited if inherited.is_dir() else None


def same_name(one: object, other: object) -> bool:
    """Whether two names are one where `-` is written `_`, in any case."""
    return as_variable(str(one)) == as_variable(str(other))


def as_variable(name: str) -> str:
    """A name as the environment writes it, in small letters."""
    return name.lower().replace("-", "_")


def read_secrets(directory: Path | None, settings: Collection[str]) -> dict[str, str]:
    """The files that name one of the settings: name in small letters, and content without white space around it."""
    if directory is None:
        return {}
    found, sentences = _listed(directory, settings)
    contents = {}
    for name, entry in found.items():
        try:
            contents[name] = _content(entry)
        except ValueError as error:
            sentences.append(f"{entry}: {error}.")
    if sentences:
        raise SecretsRefused(sentences)
    return contents


def _listed(directory: Path, settings: Collection[str]) -> tuple[dict[str, Path], list[str]]:
    """The entries that name a setting, and what is wrong with other ones."""
    try:
        entries = sorted(entry for entry in directory.iterdir() if not entry.name.startswith("."))
    except OSError as error:
        raise SecretsRefused([f"the secrets directory {directory}: cannot be read ({error.strerror})."]) from None
    found: dict[str, Path] = {}
    sentences = []
    for entry in entries:
        name = entry.name.lower()
        if name in found:
            sentences.append(f"{entry}: is the same setting as {found[name].name}; keep one of them.")
        elif name.partition(NESTED)[0] in settings:
            found[name] = entry
        elif NESTED in name:
            sentences.append(
                f"{entry}: names no setting; the first part must be one of: {', '.join(settings)}, for example"
                f" caches{NESTED}main{NESTED}password."
            )
    return found, sentences


def _content(entry: Path) -> str:
    """A file's text; `ValueError` says why it cannot be used."""
    try:
        if not entry.is_file():
            kind = "a directory" if entry.is_dir() else "a link that leads nowhere" if entry.is_symlink() else "no file"
            raise ValueError(f"names a setting and is {kind}, where its value is expected")
        if entry.stat().st_size > _LONGEST_SECRET:
            raise ValueError("is longer than 1 MiB, which no value is")
        return entry.read_text(encoding="utf-8").strip()
    except UnicodeDecodeError:
        raise ValueError("is not UTF-8 text, which a value must be") from None
    except OSError as error:
        raise ValueError(f"cannot be read ({error.strerror}); let this user read it") from None


class SecretsSource(EnvSettingsSource):
    """The secrets directory: one file per value, named like its variable without the prefix."""

    def __init__(self, settings_cls: type[BaseSettings], directory: Path | None) -> None:
        self._contents = read_secrets(directory, settings_cls.model_fields)
        super().__init__(settings_cls, env_prefix="", env_nested_delimiter=NESTED)

    def _load_env_vars(self) -> Mapping[str, str | None]:
        return self._contents


class Renaming(PydanticBaseSettingsSource):
    """Another source, whose names mean those that are written in the file: `eu_main` also means `eu-main`."""

    def __init__(self, source: PydanticBaseSettingsSource, written: Mapping[str, Any]) -> None:
        super().__init__(source.settings_cls)
        self._source = source
        self._written = written

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        """As the other source says; values are taken by `__call__` alone."""
        return self._source.get_field_value(field, field_name)

    def __call__(self) -> dict[str, Any]:
        """The other source's values under the names of the file."""
        return dict(self._renamed(self._source()))

    def _renamed(self, values: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
        for section, value in values.items():
            names = self._written.get(section)
            if section in _NAMED and isinstance(value, dict) and isinstance(names, dict):
                meant = {as_variable(str(name)): name for name in names}
                yield section, {meant.get(as_variable(name), name): inner for name, inner in value.items()}
            else:
                yield section, value
