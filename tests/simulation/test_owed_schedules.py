"""Regions that do not answer: schedules that were written down, and the smallest searches, in the modes of a mesh.

Larger searches are in `test_active.py` and `test_versioned.py`, and in `make prove SET=owed`.
"""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.simulation import ablated, prove
from tests.simulation.ablations import without
from tests.simulation.active_checks import violation
from tests.simulation.active_places import content_number
from tests.simulation.active_scenario import PRODUCTION, Scenario, Variant, ops
from tests.simulation.active_search import explore, move_of, play
from tests.simulation.active_world import State, World

SEED = ("seed", 0)
THIRD_AWAY = Scenario(ops("P1 | D1 | "), SEED, away=(2,))


def ended(scenario: Scenario, schedule: str, variant: Variant = PRODUCTION) -> tuple[World, State]:
    world = World(scenario, variant)
    state, _ = play(world, schedule)
    return world, state


def followed(world: World, schedule: str) -> State:
    """Where a schedule leads, of which every move can happen."""
    state = world.start
    for token in schedule.split():
        state = world.apply(state, move_of(world, token))
    return state


def shown(world: World, state: State) -> list[int | None]:
    """The write that each region shows at the end."""
    items = [world.place(state, region).slot.item for region in range(world.regions)]
    return [None if item is None else content_number(item) for item in items]


MANY = Scenario(ops("P1 P1 U2 | "), SEED, away=(1,))
MANY_SCHEDULE = "a A A A A~ A a A A A A~ A a A A A A~ A"


def test_a_key_that_changes_three_times_costs_one_row_and_one_put() -> None:
    world = World(MANY)
    state = followed(world, MANY_SCHEDULE)
    (row,) = [row for row in world.rows.tables[state[world.owed]] if row is not None]
    assert row.decided.startswith("0000000002000000."), "the greatest version"
    world, state = ended(MANY, MANY_SCHEDULE)
    assert violation(world, state) is None
    assert shown(world, state) == [3, 3]
    assert len(world.place(state, 1).stream) == 1


SCHEDULES = {
    "away after the tombstone": (
        Scenario(ops("D1 | "), SEED, away=(1,)),
        "a A A A A A~ A @AB @ @ @ @ @ @ @",
        [None, None],
    ),
    "away between mark and delete": (
        Scenario(ops("D1 | "), SEED, away=(1,)),
        "a A A A A A A A~ A @AB @ @ @ @ @ @",
        [None, None],
    ),
    "away between the look and the put, and put by its own user meanwhile": (
        Scenario(ops("P1 | P2"), SEED, away=(1,)),
        "a A A A A A~ A b B B B B B B @AB @ @ @",
        [2, 2],
    ),
    "changed while its key is drained": (
        Scenario(ops("P1 U2 | "), SEED, away=(1,)),
        "a A A A A~ A @AB @ a A A A A~ A @ @ @ @",
        [2, 2],
    ),
    "deleted while its key is drained": (
        Scenario(ops("P1 D2 | "), SEED, away=(1,)),
        "a A A A A~ A @AB @ @ @ a A A A A A @ @ B",
        [None, None],
    ),
    "brought directly before its key is drained": (
        Scenario(ops("P1 U2 | "), SEED, away=(1,)),
        "a A A A A~ A a A A A A A @AB @ @ @ @",
        [2, 2],
    ),
    "a drainer that dies behind the put, and another one": (
        Scenario(ops("P1 | "), SEED, away=(1,), stops=True),
        "a A A A A~ A @AB @ @ @ @ @! @AB @ @ @ @",
        [1, 1],
    ),
    "a crash between the row and the position": (
        Scenario(ops("P1 | "), SEED, away=(1,), crashes=1),
        "a A A A A~ A !A1 @AB @ @ @ @ @ A A A~ A",
        [1, 1],
    ),
}


@pytest.mark.parametrize(("scenario", "schedule", "end"), SCHEDULES.values(), ids=SCHEDULES)
def test_a_region_that_was_away_ends_like_the_others(scenario: Scenario, schedule: str, end: list[int | None]) -> None:
    world, state = ended(scenario, schedule)
    assert followed(world, schedule)
    assert world.is_quiescent(state)
    assert violation(world, state) is None
    assert shown(world, state) == end


def test_a_delete_counts_also_where_an_item_stands_that_it_has_still_to_take_away() -> None:
    scenario = Scenario(ops("P1 | D1"), SEED, away=(0, 1))
    schedule = "a b A A A A A B A A B B B~ B B B B @BA @ B B B @ @"
    world, state = ended(scenario, schedule)
    assert (violation(world, state), shown(world, state)) == (None, [None, None])
    with without("owed_delete") as variant:
        world, state = ended(scenario, schedule, variant)
    assert (violation(world, state) or "").startswith("DIVERGENCE")


def test_every_interleaving_with_a_region_that_may_not_answer_at_any_step() -> None:
    result = explore(THIRD_AWAY)
    assert (result.violation, result.complete) == (None, True)
    assert result.states > 20_000
    for scenario in list(prove.owed_two())[5::29]:
        assert explore(scenario).violation is None, scenario


@pytest.mark.parametrize(
    "variant",
    [replace(PRODUCTION, owing=ablated.never_owed), replace(PRODUCTION, may_settle=ablated.always_settled)],
    ids=["done without its row", "settled though it changed"],
)
def test_without_one_of_its_rules_a_region_differs(variant: Variant) -> None:
    assert (explore(Scenario(ops("P1 U2 | "), SEED, away=(1,)), variant).violation or "").startswith("DIVERGENCE")
