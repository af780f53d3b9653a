"""Sentences on standard output fit the terminal, and are one line in a pipe."""

from __future__ import annotations

import sys

import pytest

from replicator.cli.output import say

LONG = "1 difference (1 extra) in 211 compared, 2.32 nines; 16 read units, 0 write units, and so on and on."


@pytest.mark.parametrize(("terminal", "lines"), [(True, 2), (False, 1)])
def test_a_sentence_is_wrapped_on_a_terminal_alone(
    terminal: bool, lines: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: terminal)
    say(LONG)
    said = capsys.readouterr().out
    assert " ".join(said.split()) == LONG
    assert len(said.splitlines()) == lines
    assert not terminal or max(map(len, said.splitlines())) <= 80
