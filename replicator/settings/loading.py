"""From a file to settings: every way in which a configuration can be wrong becomes one sentence that names the place.

Invariant: a sentence names the file or the variable, the key path, the line where there is one, and what is allowed;
it never carries a value, because any value may be a secret.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from msgspec import Struct
from pydantic import ValidationError
from pydantic_settings import EnvSettingsSource, SettingsError

from replicator.domain.errors import DEBUG_VARIABLE, ConfigurationInvalid
from replicator.settings import (
    DEFAULT_PATH,
    ENV_PREFIX,
    NESTED,
    Settings,
    secrets_directory,
)
from replicator.settings.error_messages import Problem, explain, unknown_key
from replicator.settings.sources import SecretsRefused, SecretsSource, same_name
from replicator.settings.yaml_document import Document, NotADocument, read_document

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails


PATH_VARIABLE = f"{ENV_PREFIX}CONFIG"
PLACE_VARIABLES = (f"{ENV_PREFIX}CONFIG_S3", f"{ENV_PREFIX}CONFIG_SSM")
"""Where a function's configuration is, when it is no file."""

_LARGEST = 8 * 2**20
_SENTENCES = re.compile(r"^(?P<path>[a-z_]+(?:[.\[][^:\s]*)?): (?P<text>.+)$")
_OTHER_VARIABLES = {PATH_VARIABLE, DEBUG_VARIABLE, f"{ENV_PREFIX}SECRETS_DIR", *PLACE_VARIABLES}
_KUBERNETES = re.compile(r"_SERVICE_HOST$|_PORT(_.*)?$")
_STEPS = re.compile(r"[^.\[\]]+")

Location = tuple[str | int, ...]


class ConfigurationProblems(ConfigurationInvalid):
    """The configuration cannot be used as it is written; one sentence per problem."""

    def __init__(self, sentences: list[str]) -> None:
        super().__init__("\n".join(sentences), advice="")
        self.sentences = sentences


def configuration_path(option: Path | None) -> Path:
    """The file to read: the option, else REPLICATOR_CONFIG, else the default place."""
    return option or Path(os.environ.get(PATH_VARIABLE) or DEFAULT_PATH)


def load(path: Path) -> Settings:
    """Settings from a file, the secrets directory and the environment; `ConfigurationProblems` names what is wrong."""
    return load_text(_content(path), str(path))


def load_text(content: bytes, place: str) -> Settings:
    """The same from what a file would hold; `place`: where it was found."""
    document = _document(content, place)
    sources = _sources(place)
    unknown = [key for key in document.content if key not in Settings.model_fields]
    if any(key.startswith("_") or key.lower() in Settings.model_fields for key in unknown):
        # The settings class takes `_names` for arguments of its own, and is not strict about capitals.
        problems = [Problem((key,), f"`{key}` {unknown_key((key,))}") for key in unknown]
        raise ConfigurationProblems([_sentence(document, sources, problem) for problem in problems])
    try:
        return Settings(**document.content)
    except ValidationError as error:
        found = [_located(detail) for detail in error.errors(include_url=False, include_input=False)]
        sentences = [_sentence(document, sources, problem) for problems in found for problem in problems]
        raise ConfigurationProblems(list(dict.fromkeys(sentences))) from None
    except SettingsError as error:
        raise ConfigurationProblems([f"{place}: {error}."]) from None


def _content(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            content = file.read(_LARGEST + 1)
    except FileNotFoundError:
        raise ConfigurationProblems(
            [f"{path}: there is no such file; name the configuration with --config PATH or {PATH_VARIABLE}."]
        ) from None
    except OSError as error:
        raise ConfigurationProblems(
            [f"{path}: cannot be read ({error.strerror}); make it a file that this user may read."]
        ) from None
    if len(content) > _LARGEST:
        raise ConfigurationProblems([f"{path}: is longer than 8 MiB, which no configuration is; name another file."])
    return content


def _document(content: bytes, place: str) -> Document:
    try:
        return read_document(content.decode())
    except UnicodeDecodeError as error:
        raise ConfigurationProblems([f"{place}: is not UTF-8 text (byte {error.start}); save it as UTF-8."]) from None
    except NotADocument as error:
        raise ConfigurationProblems([f"{place}{problem}" for problem in error.problems]) from None


# -- where a value came from -----------------------------------------------------------------------------------------


class _Sources(Struct, frozen=True):
    """What overrides the file: (name for readers, its values), strongest first."""

    place: str
    above: tuple[tuple[str, Mapping[str, Any]], ...]

    def origin(self, document: Document, problem: Problem) -> str:
        """Where the value in question was written; of one that is missing, what it is missing from."""
        location = problem.location
        of_list = next((number for number, step in enumerate(location) if isinstance(step, int)), len(location))
        for part in (location, *(location[:length] for length in range(of_list, 0, -1))):
            above = next((name for name, values in self.above if _holds(values, part)), None)
            if above is not None and (len(part) in {of_list, len(location)} or not _holds(document.content, part)):
                return above  # a list of theirs replaces the file's; a mapping is joined with it
            if len(part) < of_list and _holds(document.content, part):
                break
        line = document.line(location)
        return f"{self.place}:{line}" if line else self.place


def _holds(values: object, location: Location) -> bool:
    for step in location:
        if isinstance(values, Mapping):
            match = next((key for key in values if same_name(key, step)), None)
            if match is None:
                return False
            values = values[match]
        elif isinstance(values, list) and isinstance(step, int) and step < len(values):
            values = values[step]
        else:
            return False
    return bool(location)


def _sources(place: str) -> _Sources:
    _refuse_unknown_variables()
    directory = secrets_directory()
    try:
        environment = EnvSettingsSource(Settings)()
    except SettingsError as error:
        raise ConfigurationProblems([_unreadable(error, "the environment")]) from None
    try:
        secrets = SecretsSource(Settings, directory)()
    except SecretsRefused as error:
        raise ConfigurationProblems(error.sentences) from None
    except SettingsError as error:
        raise ConfigurationProblems([_unreadable(error, f"the secrets directory {directory}")]) from None
    return _Sources(
        place,
        ((f"the environment ({ENV_PREFIX}...)", environment), (f"the secrets directory {directory}", secrets)),
    )


def _unreadable(error: Exception, place: str) -> str:
    field = re.search(r'field "(\w+)"', str(error))
    if field is not None:
        parts = "" if field[1] == "rules" else f", or by its parts: {_variable(field[1])}{NESTED}<key>"
        return f"{place}: `{field[1]}` must be written as JSON there{parts}."
    return f"{place}: cannot be read ({type(error).__name__})."


def _variable(field: str) -> str:
    return f"{ENV_PREFIX}{field.upper()}"


def _refuse_unknown_variables() -> None:
    """A nested variable whose first part is no setting would be ignored in silence; it is a slip of the pen."""
    known = {field.lower() for field in Settings.model_fields}
    unknown = [
        name
        for name in sorted(os.environ)
        if name.upper().startswith(ENV_PREFIX)
        and NESTED in name
        and name[len(ENV_PREFIX) :].split(NESTED)[0].lower() not in known
    ]
    if unknown:
        raise ConfigurationProblems(
            [
                f"the environment: {name} names no setting; the first part must be one of: "
                f"{', '.join(_variable(field) for field in Settings.model_fields)}."
                for name in unknown
            ]
        )


def surprising_variables() -> list[str]:
    """Variables with our prefix that mean nothing to us: a slip of the pen, or another program's.

    Kubernetes makes some for a service that has our name; they are no surprise.
    """
    known = {_variable(field) for field in Settings.model_fields} | _OTHER_VARIABLES
    return [
        name
        for name in sorted(os.environ)
        if name.upper().startswith(ENV_PREFIX)
        and NESTED not in name
        and name.upper() not in known
        and not _KUBERNETES.search(name)
    ]


# -- what is wrong with it -------------------------------------------------------------------------------------------


def _located(detail: ErrorDetails) -> list[Problem]:
    """Problems of one validation error; the model's own consistency check reports several at once."""
    if detail["loc"]:
        return [explain(detail)]
    text = str(detail.get("ctx", {}).get("error", detail["msg"]))
    problems = []
    for line in text.splitlines():
        match = _SENTENCES.match(line)
        path, rest = (match["path"], match["text"]) if match else ("", line)
        location = tuple(int(step) if step.isdecimal() else step for step in _STEPS.findall(path))
        problems.append(Problem(location, f"`{path}`: {rest}" if path else rest))
    return problems


def _sentence(document: Document, sources: _Sources, problem: Problem) -> str:
    hint = document.hint(problem.location)
    return f"{sources.origin(document, problem)}: {problem.text}{f'; {hint}' if hint else ''}."
