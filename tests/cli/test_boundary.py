"""Where errors end."""

from __future__ import annotations

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
