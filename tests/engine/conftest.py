"""Every test of the engine runs in virtual time: waiting costs nothing, and nothing depends on the machine's speed."""

from __future__ import annotations

import pytest


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.is_relative_to(__file__.rsplit("/", 1)[0]):
            item.add_marker(pytest.mark.looptime(noop_cycles=0))
