"""Where errors end."""

from __future__ import annotations

import sys

import pytest

from replicator.cli import main as boundary
from replicator.domain.errors import Unreachable


def test_a_fault_names_the_innermost_exception_of_a_group(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    inner = ExceptionGroup("of tasks", [Unreachable("The service sleeps."), KeyError("Items")])

    def fail(**_: object) -> None:
        raise ExceptionGroup("unhandled errors in a TaskGroup", [inner])

    monkeypatch.setattr("replicator.cli.commands.app", fail)
    assert boundary.run() == 1
    assert "An unexpected fault: KeyError: 'Items'." in capsys.readouterr().err


def test_a_caller_that_closed_the_output_gets_the_exit_code(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[bool] = []

    def say(**_: object) -> int:
        with sys.stdout as output, sys.stderr as errors:
            seen.append(output.isatty() or errors.isatty())
            output.write("into nothing")
        return 1

    monkeypatch.setattr("replicator.cli.commands.app", say)
    monkeypatch.setattr(sys, "stdout", None)
    monkeypatch.setattr(sys, "stderr", None)
    assert boundary.run() == 1
    assert seen == [False]
