"""Mode `active-active` under every interleaving of small scenarios, and under random ones of larger.

What CI can afford; `make prove` searches more. Nothing in a scenario is sampled.
"""

from __future__ import annotations

from itertools import islice, product
from pathlib import Path
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from replicator.domain.modes.active_active.mesh import ActivePolicy
from replicator.domain.values import replace
from tests.simulation import prove
from tests.simulation.ablations import ABLATIONS, found, without
from tests.simulation.active_checks import violation
from tests.simulation.active_scenario import PRODUCTION, Op, Scenario, Variant, ops
from tests.simulation.active_search import explore, play, schedule_of, walk
from tests.simulation.active_words import narrated
from tests.simulation.active_world import NODES, State, World

SHARES = 4
PART = 6
"""Of the interleavings with a zombie every sixth scenario: `make prove` searches all of them."""


def searched(scenarios: list[Scenario]) -> tuple[int, int]:
    """States and the most daemon writes; no scenario may violate anything."""
    states = most = quiescent = 0
    for scenario in scenarios:
        result = explore(scenario)
        assert result.violation is None, "\n".join([str(scenario), *narrated(World(scenario), result.way)])
        assert result.complete
        states += result.states
        quiescent += result.quiescent
        most = max(most, result.most_writes)
    assert quiescent >= len(scenarios), "a search without an end proves nothing"
    return states, most


def test_every_interleaving_of_one_write_each_with_a_crash() -> None:
    scenarios = list(prove.e1c())
    assert len(scenarios) == 192
    states, most = searched(scenarios)
    assert states > 200_000
    assert most <= 10


@pytest.mark.slow
@pytest.mark.parametrize("share", range(SHARES))
def test_every_interleaving_of_one_write_each_with_a_zombie(share: int) -> None:
    scenarios = list(prove.one_zombie())
    assert len(scenarios) == 400
    _, most = searched(scenarios[share * PART :: SHARES * PART])
    assert most <= 10


@pytest.mark.parametrize("name", ["waiting", "no_look_ahead", "optimistic"])
def test_every_interleaving_of_one_write_each_under_another_policy(name: str) -> None:
    scenarios = [replace(scenario, crashes=1, zombies=0) for scenario in prove.SETS[name]()]
    searched(scenarios[:: len(scenarios) // 32])


def test_every_interleaving_of_three_regions_that_write_in_one_second() -> None:
    same = [Op(kind, 1) for kind in "PUD"]
    scenarios = [Scenario(tuple((op,) for op in writes), ("seed", 0)) for writes in product(same, repeat=3)]
    searched(scenarios[1::18])


def test_a_region_that_joins_agrees_whenever_new_workers_take_over() -> None:
    scenarios = list(prove.joining())
    assert len(scenarios) == 432
    searched([replace(scenario, crashes=0) for scenario in scenarios[3::48]])


def test_a_region_that_joins_differs_when_new_workers_go_on_behind_what_old_ones_did(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def behind(self: World, state: State, region: int) -> State:
        changed = list(state)
        changed[self.worker + region] = self.met.lengths[state[region]] * NODES
        return tuple(changed)

    scenario = Scenario(ops("P1 | | "), joins=True)
    assert explore(scenario).violation is None
    monkeypatch.setattr(World, "take_over", behind)
    assert (explore(scenario).violation or "").startswith("DIVERGENCE")


@pytest.mark.parametrize(
    ("name", "step"),
    [
        ("owed_two", 8),
        ("owed_unheard", 24),
        ("owed_twice", 18),
        ("owed_three", 36),
        ("owed_crash", 48),
        ("owed_zombie", 72),
    ],
)
def test_regions_that_do_not_answer_agree_once_they_were_brought_what_they_are_owed(name: str, step: int) -> None:
    searched(list(prove.SETS[name]())[1::step])


def test_random_runs_of_regions_that_do_not_answer_end_well() -> None:
    for seed in range(120):
        dice = Random(seed)
        base = prove.random_scenario(dice)
        away = tuple(range(len(base.ops)))
        scenario = replace(base, away=away, stops=True, unheard=True, drainers=dice.choice((1, 1, 2)), bound=200)
        found = walk(scenario, dice)
        assert found is None, "\n".join([f"seed {seed}", found.violation, *narrated(World(scenario), found.way)])


def test_tombstones_may_expire_once_nothing_older_can_be_replayed() -> None:
    base = [
        scenario
        for start in (None, ("seed", 0))
        for scenario in prove.scenarios((1, 1), "PUDR", (start,), crashes=1)
        if any(op.kind == "D" for mine in scenario.ops for op in mine)
    ]
    searched([replace(scenario, expiry="safe", checks=frozenset()) for scenario in base])


@pytest.mark.parametrize("share", range(4))
def test_random_runs_end_well(share: int) -> None:
    runs = map(prove.random_run, range(share * 500, (share + 1) * 500))
    wrong = [violation for violation in runs if violation is not None]
    assert wrong == []


def test_random_runs_of_five_regions_end_well() -> None:
    for seed in range(30):
        dice = Random(seed)
        writes = tuple((Op(dice.choice("PUDT"), dice.randint(1, 2)),) for _ in range(5))
        scenario = Scenario(writes, ("seed", 0), crashes=1, bound=200)
        assert walk(scenario, dice) is None, f"seed {seed}: {scenario}"


def test_puts_of_what_is_there_already_converge() -> None:
    for seed in range(500):
        dice = Random(seed)
        writes = [tuple(Op(dice.choice("PUDN"), dice.randint(1, 2)) for _ in range(dice.randint(1, 2))) for _ in "ab"]
        scenario = Scenario(tuple(writes), ("seed", 0), crashes=1, zombies=1, checks=frozenset())
        assert walk(scenario, dice) is None, f"seed {seed}: {scenario}"


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.lists(st.integers(0, 63), max_size=120))
def test_whatever_is_chosen_ends_well(seed: int, choices: list[int]) -> None:
    world = World(prove.random_scenario(Random(seed)))
    state = world.start
    for choice in choices:
        moves = list(world.moves(state))
        if not moves:
            break
        state = moves[choice % len(moves)][1]
    while not world.is_quiescent(state):
        moves = [(move, after) for move, after in world.moves(state) if move[0] in {"user", "step", "die"}]
        state = moves[0][1]
    assert violation(world, state) is None


# -- what a search leaves out ---------------------------------------------------------------------------------------


def ends(scenario: Scenario, variant: Variant, *, every_move: bool) -> set[tuple[object, ...]]:
    """Everything that a search of a scenario can end with: tables, rows, streams, the log, and what really happened."""
    world = World(scenario, variant)
    seen, found, left = {world.start}, set(), [world.start]
    while left:
        state = left.pop()
        if world.is_quiescent(state):
            places = (world.place(state, region) for region in range(world.regions))
            found.add((*places, world.log(state), tuple(sorted(world.truth(state).items()))))
        nexts = [after for _, after in world.moves(state)] if every_move else world.nexts(state)
        fresh = [after for after in nexts if after not in seen]
        seen.update(fresh)
        left += fresh
    return found


def small(name: str, share: int) -> list[Scenario]:
    return [scenario for scenario in prove.SETS[name]() if "T" not in str(scenario)][5::share]


@pytest.mark.parametrize(
    "scenario",
    [
        *small("e1c", 31),
        *small("one_zombie", 61),
        *small("crash_and_zombie", 97),
        *small("reused_keys", 216),
        *small("owed_two", 47),
        *small("owed_crash", 71),
    ],
    ids=str,
)
def test_the_moves_that_a_search_leaves_out_make_no_difference(scenario: Scenario) -> None:
    assert ends(scenario, PRODUCTION, every_move=False) == ends(scenario, PRODUCTION, every_move=True)


@pytest.mark.parametrize("name", ["V10", "put_back", "stamp_back", "mark", "removed_at"])
def test_nor_do_they_where_a_rule_is_taken_out(name: str) -> None:
    scenario = replace(ABLATIONS[name].scenario, zombies=1)
    with without(name) as variant:
        assert ends(scenario, variant, every_move=False) == ends(scenario, variant, every_move=True)


def test_a_step_of_a_search_has_a_name() -> None:
    world = World(replace(Scenario(ops("P1 | U1"), ("seed", 0)), zombies=1, crashes=1))
    dice, state = Random(1), world.start
    for _ in range(200):
        nexts = world.nexts(state)
        if not nexts:
            break
        after = dice.choice(nexts)
        then = state
        for move in world.named(state, after):
            then = world.apply(then, move)
        assert then == after
        state = after
    with pytest.raises(ValueError, match="no move"):
        world.named(world.start, world.start)


# -- rules taken out -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ABLATIONS)
def test_a_rule_that_is_taken_out_is_missed_and_cures_when_it_is_back(name: str) -> None:
    ablation, wrong = ABLATIONS[name], found(name)
    assert wrong is not None, f"without {ablation.removed} nothing goes wrong"
    with without(name, *ablation.without) as variant:
        schedule = schedule_of(World(ablation.scenario, variant), wrong.way)
    with without(*ablation.without) as variant:
        world = World(replace(ablation.scenario, expiry=""), variant)
        state, _ = play(world, schedule)
        assert world.is_quiescent(state)
        assert violation(world, state) is None


@pytest.mark.parametrize("name", [name for name, ablation in ABLATIONS.items() if not ablation.scenario.zombies])
def test_the_scenarios_that_miss_a_rule_are_clean_with_it(name: str) -> None:
    # V5 is large; images that are put back with their stamp may be lost in spite of V6; V7 is about one schedule.
    if name not in {"V5", "V6", "V7"}:
        searched([replace(ABLATIONS[name].scenario, expiry="")])


def test_looking_ahead_and_waiting_make_repairs_less_visible() -> None:
    plain, patient, hasty = (
        prove.regressions(policy, 400)
        for policy in (ActivePolicy(waits=0), ActivePolicy(waits=40), ActivePolicy(waits=0, look_ahead=False))
    )
    assert patient < plain < hasty


# -- the program ---------------------------------------------------------------------------------------------------


def test_a_search_goes_on_where_it_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(prove.EVERY, "e1c", lambda: islice(prove.e1c(), 0, 192, 48))
    results = tmp_path / "results.jsonl"
    assert prove.prove_set("e1c", results, 1)
    assert "4/4 scenarios complete" in capsys.readouterr().out
    kept = results.read_text().splitlines()
    results.write_text("\n".join(kept[:3]) + "\n")
    assert prove.prove_set("e1c", results, 1)
    assert "4 scenarios, 3 already searched" in capsys.readouterr().out
    assert len(results.read_text().splitlines()) == 4


def test_an_endless_exchange_is_a_violation() -> None:
    result = explore(replace(Scenario(ops("P1 | U2"), ("seed", 0)), bound=0))
    assert result.violation is not None
    assert "more than 0 daemon writes" in result.violation


def test_a_search_that_is_cut_short_says_so() -> None:
    assert not explore(Scenario(ops("P1 | U2"), ("seed", 0)), limit=10).complete
