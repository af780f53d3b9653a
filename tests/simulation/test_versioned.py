"""The production mode `versioned` under every interleaving of small scenarios, and what it loses without its parts.

Every search runs to its end or to its first violation; nothing but the last test is sampled.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from random import Random

import pytest

from replicator.domain.image import Image
from replicator.domain.modes.versioned import replicate as versioned
from replicator.domain.modes.versioned.ranks import Rank, VersionAttribute
from replicator.laboratory.memory import answer
from tests.simulation.versioned_machine import Answer, Machine, without_tombstones
from tests.simulation.versioned_owed import Owing, owing_through_rows
from tests.simulation.versioned_search import explore, walk
from tests.simulation.versioned_states import Result, Scenario

STARTS = ("absent", "seeded", "buried")
OPS = ("1", "2", "3", "D", "X", "U", "!z")
Ops = tuple[tuple[str, ...], ...]


def one_and_one(first: tuple[str, ...] = OPS) -> list[Ops]:
    return [((a,), (b,)) for a, b in itertools.product(first, repeat=2)]


def one_and_two() -> list[Ops]:
    return [
        ((a,), (b, c)) for a in ("1", "2", "3", "D") for b in ("1", "2", "D", "X") for c in ("1", "2", "3", "D", "X")
    ]


def explored(scenarios: list[Scenario], machine: Machine) -> list[Result]:
    results = [explore(scenario, machine) for scenario in scenarios]
    kinds = sorted((result.violation or "").partition(":")[0] for result in results if result.violation)
    counts = {kind: kinds.count(kind) for kind in kinds}
    states = sum(result.states for result in results)
    print(f"{len(results)} scenarios complete, {states} states, violations: {counts or 0}")  # noqa: T201 - for `-rP`
    return results


@pytest.fixture(scope="module")
def two() -> Machine:
    return Machine(2)


@pytest.fixture(scope="module")
def three() -> Machine:
    return Machine(3)


def assert_clean(scenarios: list[Scenario], machine: Machine) -> None:
    results = explored(scenarios, machine)
    assert [(scenario, result) for scenario, result in zip(scenarios, results, strict=True) if result.violation] == []
    assert all(result.quiescent for result in results), "a search without an end proves nothing"


# -- what holds ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rising", [True, False], ids=["later writes win ties", "earlier writes win ties"])
@pytest.mark.parametrize("start", STARTS)
def test_one_write_in_each_region_converges_under_a_crash(start: str, rising: bool, two: Machine) -> None:
    assert_clean([Scenario(ops, start, crashes=1, rising=rising) for ops in one_and_one()], two)


@pytest.mark.parametrize("start", STARTS)
def test_one_write_in_each_region_converges_beside_a_zombie(start: str, two: Machine) -> None:
    pairs = itertools.combinations_with_replacement(("1", "2", "D", "X", "!z"), 2)
    assert_clean([Scenario(((a,), (b,)), start, zombies=1) for a, b in pairs], two)


def test_one_and_two_writes_converge_under_a_crash(two: Machine) -> None:
    assert_clean([Scenario(ops, crashes=1) for ops in one_and_two()], two)


@pytest.mark.parametrize("start", STARTS)
def test_records_in_any_order_converge_under_a_crash(start: str, two: Machine) -> None:
    assert_clean([Scenario(ops, start, crashes=1, unordered=True) for ops in one_and_one()], two)


@pytest.mark.parametrize("start", ["seeded", "buried"])
def test_a_memory_of_own_writes_hides_nothing(start: str, two: Machine) -> None:
    pairs = itertools.combinations_with_replacement(("1", "2", "D", "X"), 2)
    assert_clean([Scenario(((a,), (b,)), start, crashes=1, remembers=True) for a, b in pairs], two)
    threes = itertools.product(("1", "2", "D"), ("1", "D"), ("1", "2", "D"))
    assert_clean([Scenario(((a,), (b, c)), start, remembers=True) for a, b, c in threes], two)
    assert_clean([Scenario((("2",), ("D",)), start, zombies=1, remembers=True)], two)


@pytest.mark.parametrize("rising", [True, False], ids=["later writes win ties", "earlier writes win ties"])
def test_three_regions_converge(rising: bool, three: Machine) -> None:
    pairs = itertools.combinations_with_replacement(("1", "2", "D", "X"), 2)
    assert_clean([Scenario(((a,), (b,), ()), "seeded", rising=rising) for a, b in pairs], three)


def test_three_regions_converge_under_a_crash(three: Machine) -> None:
    assert_clean([Scenario(((a,), (b,), ()), "seeded", crashes=1) for a, b in (("2", "2"), ("2", "D"))], three)


# -- regions that do not answer ------------------------------------------------------------------------------------


@pytest.mark.parametrize("start", STARTS)
def test_what_a_region_is_owed_is_brought(start: str, two: Machine) -> None:
    pairs = list(itertools.product(("1", "2", "D", "X"), repeat=2))
    assert_clean([Scenario(((a,), (b,)), start, away=(0, 1)) for a, b in pairs[::3]], two)
    assert_clean([Scenario(((a, b), ()), start, away=(1,), crashes=1) for a, b in pairs[1::3]], two)
    assert_clean([Scenario(((a,), (b,)), start, away=(1,), unheard=True) for a, b in pairs], two)
    assert_clean([Scenario(((a, b), ()), start, away=(1,), remembers=True) for a, b in pairs], two)


@pytest.mark.parametrize("start", STARTS)
def test_a_worker_may_bring_what_is_owed_beside_a_drainer(start: str) -> None:
    machine = Machine(2, owing=Owing(record=owing_through_rows))
    pairs = list(itertools.product(("1", "2", "D", "X"), repeat=2))
    assert_clean([Scenario(((a, b), ()), start, away=(1,)) for a, b in pairs], machine)
    assert_clean([Scenario(((a, b), ()), start, away=(1,), crashes=1) for a, b in pairs[2::14]], machine)
    assert_clean([Scenario(((a,), (b,)), start, away=(1,), logged=True) for a, b in (("2", "3"), ("D", "2"))], machine)


def test_what_is_lost_is_logged_where_a_region_does_not_answer(two: Machine) -> None:
    pairs = [("2", "3"), ("3", "2"), ("2", "D"), ("D", "3")]
    assert_clean([Scenario(((a,), (b,)), "seeded", away=(0, 1), logged=True) for a, b in pairs], two)


# -- the conflict log ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("start", ["absent", "seeded"])
def test_every_lost_write_of_unique_versions_is_logged_whatever_crashes(start: str, two: Machine) -> None:
    threes = [
        ops
        for ops in itertools.product(("2", "3", "4", "D"), repeat=3)
        if len({op for op in ops if op != "D"}) == sum(op != "D" for op in ops)
    ]
    assert_clean([Scenario(((a,), (b, c)), start, crashes=1, logged=True) for a, b, c in threes], two)


@pytest.mark.parametrize("rising", [True, False], ids=["later writes win ties", "earlier writes win ties"])
@pytest.mark.parametrize("start", ["absent", "seeded"])
def test_losers_of_ties_are_logged_where_nothing_crashes(start: str, rising: bool, two: Machine) -> None:
    """V9, and every other schedule of three writes that make equal versions."""
    threes = itertools.product(("1", "2", "D", "U"), repeat=3)
    assert_clean([Scenario(((a,), (b, c)), start, rising=rising, logged=True) for a, b, c in threes], two)


def test_a_loser_of_a_tie_may_go_unlogged_after_a_crash(two: Machine) -> None:
    """The limit that docs/protocol.md states."""
    results = explored([Scenario((("1",), ("1", "2")), "seeded", crashes=1, logged=True)], two)
    assert [(result.violation or "").partition(":")[0] for result in results] == ["UNLOGGED"]


# -- ablations -----------------------------------------------------------------------------------------------------


def _never(*_: object) -> bool:
    return False


def _no_check(*_: object) -> Iterator[None]:
    yield from ()


def _without_content(version: VersionAttribute, image: Image) -> Rank:
    return Rank(version.of(image), deleted=False, content="")


ABLATIONS: dict[str, tuple[Answer, str | None, object, str]] = {
    "tombstones": (without_tombstones, None, None, "WINNER"),
    "tie-break": (answer, "rank_of", _without_content, "DIVERGENCE"),
    "regress repair": (answer, "regressed", _never, "DIVERGENCE"),
    "self-check on INSERT": (answer, "below_tombstone", _no_check, "DIVERGENCE"),
}


@pytest.mark.parametrize(("world", "name", "instead", "kind"), ABLATIONS.values(), ids=ABLATIONS)
def test_without_one_of_its_parts_the_mode_fails(
    world: Answer, name: str | None, instead: object, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if name is not None:
        monkeypatch.setattr(versioned, name, instead)
    scenarios = [Scenario(ops, start) for ops in one_and_one() for start in STARTS]
    violations = [result.violation for result in explored(scenarios, Machine(2, world)) if result.violation]
    assert any(violation.startswith(kind) for violation in violations)


# -- random runs ---------------------------------------------------------------------------------------------------


def random_scenario(dice: Random, regions: int) -> Scenario:
    unordered = dice.random() < 0.2
    return Scenario(
        tuple(tuple(dice.choice((*OPS, "4")) for _ in range(dice.randrange(4))) for _ in range(regions)),
        dice.choice(STARTS),
        crashes=dice.randrange(3),
        zombies=0 if unordered else dice.randrange(3),
        rising=dice.random() < 0.5,
        unordered=unordered,
        remembers=dice.random() < 0.3,
    )


@pytest.mark.parametrize("regions", [2, 3])
def test_random_runs_converge(regions: int) -> None:
    machine = Machine(regions)
    for seed in range(500 if regions == 2 else 200):
        dice = Random(f"versioned {regions} {seed}")
        scenario = random_scenario(dice, regions)
        result = walk(scenario, machine, dice)
        assert result.violation is None, (seed, scenario, result)
