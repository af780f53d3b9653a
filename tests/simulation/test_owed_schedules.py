"""Regions that do not answer: schedules that were written down, and the smallest searches, in the modes of a mesh.

Larger searches are in `test_active.py` and `test_versioned.py`, and in `make prove SET=owed`.
"""

from __future__ import annotations

import pytest

from replicator.domain.values import replace
from tests.simulation import ablated, prove, versioned_ablations
from tests.simulation.ablations import without
from tests.simulation.active_checks import violation
from tests.simulation.active_places import content_number
from tests.simulation.active_scenario import PRODUCTION, Scenario, Variant, ops
from tests.simulation.active_search import explore, move_of, play
from tests.simulation.active_world import State, World
from tests.simulation.versioned_machine import Machine
from tests.simulation.versioned_search import explore as explore_ranks
from tests.simulation.versioned_states import Scenario as Ranked
from tests.simulation.versioned_states import State as RankedState
from tests.simulation.versioned_world import World as RankedWorld

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


# -- mode `versioned` ----------------------------------------------------------------------------------------------


def test_every_interleaving_in_mode_versioned_with_a_region_that_may_not_answer() -> None:
    machine = Machine(2)
    for scenario in (
        Ranked((("1",), ("D",)), "seeded", away=(1,)),
        Ranked((("2", "1"), ()), "seeded", away=(1,), remembers=True),
        Ranked((("2", "D"), ()), "buried", away=(1,)),
        Ranked((("2", "D"), ()), "seeded", away=(1,), expires=True),
    ):
        result = explore_ranks(scenario, machine)
        assert (result.violation, bool(result.quiescent)) == (None, True), scenario


@pytest.mark.parametrize("name", versioned_ablations.ABLATIONS)
def test_without_one_of_its_rules_a_region_differs_in_mode_versioned(name: str) -> None:
    assert (versioned_ablations.found(name).violation or "").startswith("DIVERGENCE")
    scenario = versioned_ablations.ABLATIONS[name].scenario
    assert explore_ranks(scenario, Machine(len(scenario.ops))).violation is None


def test_a_row_that_is_written_again_with_the_same_rank_outlives_a_drain_that_saw_less() -> None:
    """The key is drained while a lower write of a user stands at home, which is taken back meanwhile."""
    scenario = versioned_ablations.ABLATIONS["versioned_place"].scenario
    world = RankedWorld(scenario, Machine(2))
    us, eu = 0, 1

    def brought_nowhere(state: RankedState) -> RankedState:
        """The next record of us, while eu does not answer."""
        done = state.workers[us].position
        while state.workers[us].position == done:
            moves = set(world.moves(state))
            state = world.after(
                state, next(move for kind in ("away", "step") for move in moves if move[:2] == (kind, us))
            )
        return state

    state = brought_nowhere(world.after(world.start(), ("user", us, 0)))
    first = state.rows[eu]
    for move in (("user", us, 0), ("begins", 0, eu), ("drains", 0, 0)):
        state = world.after(state, move)
    state = brought_nowhere(state)
    second = state.rows[eu]
    assert first is not None
    assert second is not None
    assert (first.decided, first.version < second.version) == (second.decided, True)
    while state.drainer is not None:
        state = world.after(state, ("drains", 0, 0))
    assert state.rows[eu] == second
    while not world.quiescent(state):
        state = world.after(state, next(move for move in world.moves(state) if move[0] not in {"away", "stops"}))
    world.check(state)
