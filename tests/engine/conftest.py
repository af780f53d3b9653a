"""Every test of the engine runs in virtual time: waiting costs nothing, and nothing depends on the machine's speed."""

from __future__ import annotations

from pathlib import Path

import pytest


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent):
            item.add_marker(pytest.mark.looptime(noop_cycles=0))
