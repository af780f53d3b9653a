"""Files that this user may not read or write: of a configuration it is a wrong one (78), and `check` looks before."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from typer.testing import CliRunner

from replicator.checks.file_facts import file_facts
from replicator.cli.commands import app
from replicator.settings.loading import load
from tests.cli.test_configuration import GOOD


def test_whether_a_configuration_can_be_read_is_said_by_what_reads_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The command line asks nothing about the file, as it would end with 2 and a text about usage."""
    path = tmp_path / "replicator.yaml"
    path.write_text(GOOD)
    monkeypatch.setattr(os, "access", lambda _place, _mode: False)
    assert CliRunner().invoke(app, ["check", "--offline", "--config", str(path)]).exit_code == 0


def warned(directory: Path, file: Path) -> list[str]:
    path = directory / "replicator.yaml"
    path.write_text(f"{GOOD}conflicts: {{file: {file}}}\n")
    return [fact.sentence for fact in file_facts(load(path))]


def test_a_conflict_file_that_cannot_be_written_is_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "there.jsonl").touch()
    for fine in ("there.jsonl", "new.jsonl"):
        assert warned(tmp_path, tmp_path / fine) == []
    (told,) = warned(tmp_path, tmp_path / "missing" / "conflicts.jsonl")
    assert "its directory does not exist" in told
    (told,) = warned(tmp_path, tmp_path)
    assert "it is a directory" in told
    monkeypatch.setattr(os, "access", lambda _place, mode: mode != os.W_OK)  # root may write everywhere
    for refused in ("there.jsonl", "new.jsonl"):
        (told,) = warned(tmp_path, tmp_path / refused)
        assert "This user cannot write it: permission denied." in told
