"""Mode `active-active` behind a source that keeps no order and repeats records."""

from __future__ import annotations

from random import Random

import pytest

from replicator.domain.modes.active_active.mesh import ActivePolicy
from replicator.domain.values import replace
from tests.simulation.active_scenario import Op, Scenario
from tests.simulation.active_unordered import deliver

UNORDERED = ActivePolicy(waits=0, look_ahead=False)


def scenario(dice: Random) -> Scenario:
    writes = [tuple(Op(dice.choice("PUD"), dice.randint(1, 3)) for _ in range(dice.randint(0, 3))) for _ in "ab"]
    start = dice.choice([None, ("seed", 0), ("seed", 1)])
    return Scenario(tuple(writes), start, crashes=dice.randint(0, 1), policy=UNORDERED, checks=frozenset(), bound=60)


@pytest.mark.parametrize("seeds", [range(400), pytest.param(range(400, 1600), marks=pytest.mark.long)])
def test_regions_agree_in_the_end(seeds: range) -> None:
    for seed in seeds:
        dice = Random(seed)
        one = scenario(dice)
        assert deliver(one, dice) is None, f"seed {seed}: {one}"


def test_looking_ahead_would_let_them_differ() -> None:
    def wrong(seed: int) -> bool:
        dice = Random(seed)
        return deliver(replace(scenario(dice), policy=ActivePolicy(waits=0)), dice) is not None

    assert any(wrong(seed) for seed in range(20_000)), "the rule against looking ahead is not missed"
