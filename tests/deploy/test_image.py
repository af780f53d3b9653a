"""The Dockerfile: everything pinned by hash, nothing but the program in it, an ordinary user."""

from __future__ import annotations

import fnmatch
import json
import re
from pathlib import Path

import pytest

from tests.deploy import checks

ROOT = Path(__file__).parents[2]
_JOINED = re.sub(r"\\\n\s*", "", (ROOT / "Dockerfile").read_text())
INSTRUCTIONS = [tuple(line.split(maxsplit=1)) for line in _JOINED.splitlines() if line and not line.startswith("#")]
_LAST_FROM = max(index for index, (name, _) in enumerate(INSTRUCTIONS) if name == "FROM")
FINAL_STAGE = INSTRUCTIONS[_LAST_FROM:]


def _values(name: str, instructions: list[tuple[str, ...]] = INSTRUCTIONS) -> list[str]:
    return [instruction[1] for instruction in instructions if instruction[0] == name]


def test_every_installation_is_checked_by_hash_or_comes_from_the_source() -> None:
    commands = [command for run in _values("RUN") for command in run.split("&&") if re.search(r"\binstall\b", command)]
    assert commands
    for command in commands:
        assert "--no-deps --require-hashes -r requirements/" in command or "--no-index --no-deps" in command, command


def test_it_names_no_registry_but_the_builders_own() -> None:
    assert "://" not in _JOINED
    assert not re.search(r"--(?:extra-)?index-url|--trusted-host", _JOINED)


def test_both_stages_stand_on_the_same_python_because_the_environment_is_copied() -> None:
    assert [base.split()[0] for base in _values("FROM")] == ["${BASE}"] * 2
    (default,) = [value for value in _values("ARG") if value.startswith("BASE=")]
    assert re.fullmatch(r"BASE=python:3\.11-slim@sha256:[0-9a-f]{64}", default), "what a tag names changes"


def test_the_final_stage_only_copies_the_environment_and_removes_what_installs() -> None:
    assert [run.split()[0] for run in _values("RUN", FINAL_STAGE)] == ["rm"]
    assert _values("COPY", FINAL_STAGE) == ["--from=build /opt/replicator /opt/replicator"]


def test_it_runs_the_daemon_as_a_numeric_user_without_rights() -> None:
    (user,) = _values("USER", FINAL_STAGE)
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", user)
    assert json.loads(_values("ENTRYPOINT", FINAL_STAGE)[0]) == ["dumb-init", "--single-child", "--", "replicator"]
    assert json.loads(_values("CMD", FINAL_STAGE)[0]) == ["run"]
    assert _values("STOPSIGNAL", FINAL_STAGE) == ["SIGTERM"]


def test_it_writes_nothing_because_its_root_may_be_read_only() -> None:
    environment = dict(variable.split("=", 1) for line in _values("ENV", FINAL_STAGE) for variable in line.split())
    assert environment["PYTHONDONTWRITEBYTECODE"] == "1"
    assert _values("VOLUME", FINAL_STAGE) == []


def test_what_is_copied_exists_and_is_let_into_the_build() -> None:
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    admitted = [line[1:] for line in lines if line.startswith("!")]
    assert "*" in lines
    for copy in _values("COPY"):
        if copy.startswith("--from"):
            continue
        for source in copy.split()[:-1]:
            assert (ROOT / source).exists(), source
            assert any(fnmatch.fnmatch(source, pattern) for pattern in admitted), source


@pytest.mark.skipif(checks.HADOLINT is None, reason="only `make deploy-check` installs hadolint")
def test_hadolint_finds_nothing() -> None:
    assert checks.dockerfile((ROOT / "Dockerfile").read_text()) == []
