"""The table of kinds of targets."""

from __future__ import annotations

from pathlib import Path

import pytest

from replicator.domain.shards.inheritance import Begins
from replicator.domain.targets import TargetKind
from replicator.engine.applying.kinds import KINDS

ARCHITECTURE = Path(__file__).parents[2] / "docs" / "architecture.md"


def test_every_kind_that_a_target_can_have_is_one_entry() -> None:
    assert KINDS.keys() == set(TargetKind) - {TargetKind.EARLIER}


def test_every_way_to_begin_is_some_kinds() -> None:
    assert {kind.begins for kind in KINDS.values()} == set(Begins)


@pytest.mark.parametrize("module", ["engine/applying/kinds.py", "engine/applying/source_caches_driver.py"])
def test_a_newcomer_is_led_to_the_table_and_to_a_driver(module: str) -> None:
    assert f"`{module}`" in ARCHITECTURE.read_text()
