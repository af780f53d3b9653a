"""Nothing stands still in silence: every seed is another history of things that stop (`standstill_world`)."""

from __future__ import annotations

import pytest

from replicator.engine import waiting
from tests.simulation.standstill_world import Standstills

SEEDS = 2
TURNS = 3

pytestmark = pytest.mark.usefixtures("virtual_time")


@pytest.mark.parametrize("seed", range(SEEDS))
async def test_a_rule_that_owes_something_and_does_not_move_is_told_why(seed: int) -> None:
    waiting._JITTER.seed(seed)
    history = Standstills(seed)
    try:
        await history.live(TURNS)
    finally:
        await history.end()
