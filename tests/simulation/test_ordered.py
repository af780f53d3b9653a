"""The production mode `ordered` under every interleaving of small scenarios, and what it loses without its parts.

Every search runs to its end or to its first violation; nothing is sampled.
"""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from replicator.domain import coalescing
from replicator.domain.filters import Filter
from replicator.domain.modes.ordered import InsertGuard, OrderedPolicy
from tests.simulation.ordered_world import Delivery, Explorer, Result, Scenario, without_conditions, without_tombstones

BUDGETS = {
    "two crashes": (2, 0),
    "a zombie": (0, 1),
    "a crash and a zombie": (1, 1),
    "two zombies": (0, 2),
}
ZOMBIES = [budget for budget in BUDGETS.values() if budget[1]]
PROBE = OrderedPolicy(insert_guard=InsertGuard.PROBE)
HIDES_UNSEEN = Filter(exists=("seen",))


def sequences(kinds: str, *lengths: int) -> list[str]:
    return ["".join(word) for length in lengths for word in itertools.product(kinds, repeat=length)]


TWO_OR_THREE_WRITES = sequences("PUD", 2, 3)


def explored(scenarios: list[Scenario]) -> list[Result]:
    results = [Explorer(scenario).run() for scenario in scenarios]
    states = sum(result.states for result in results)
    violating = sum(result.violation is not None for result in results)
    print(  # noqa: T201 - shown by `pytest -rP`
        f"{len(results)} scenarios, {states} states, {violating} violating"
    )
    assert all(result.states > len(scenario.kinds) for result, scenario in zip(results, scenarios, strict=True))
    return results


def assert_clean(scenarios: list[Scenario]) -> None:
    results = explored(scenarios)
    assert [(result.violation, result.trace) for result in results if result.violation] == []
    assert all(result.quiescent for result in results), "a search without an end proves nothing"


def violating(scenarios: list[Scenario]) -> int:
    return sum(result.violation is not None for result in explored(scenarios))


@pytest.mark.parametrize("budget", BUDGETS.values(), ids=BUDGETS)
def test_every_interleaving_converges_and_never_shows_an_older_image(budget: tuple[int, int]) -> None:
    assert len(TWO_OR_THREE_WRITES) == 36
    assert_clean([Scenario(kinds, *budget) for kinds in TWO_OR_THREE_WRITES])


def test_four_writes_with_a_crash_and_a_zombie_converge() -> None:
    assert_clean([Scenario(kinds, crashes=1, zombies=1) for kinds in sequences("PUD", 4)])


@pytest.mark.parametrize("budget", BUDGETS.values(), ids=BUDGETS)
def test_batches_cut_anywhere_and_coalesced_converge(budget: tuple[int, int]) -> None:
    assert_clean([Scenario(kinds, *budget, batches=True) for kinds in TWO_OR_THREE_WRITES])


@pytest.mark.parametrize("batches", [False, True], ids=["one by one", "in batches"])
def test_a_replica_that_starts_with_an_imported_item_converges(batches: bool) -> None:
    kinds = sequences("PUD", 1, 2, 3)
    assert_clean([Scenario(word, crashes=1, zombies=1, batches=batches, imported=True) for word in kinds])


@pytest.mark.parametrize("imported", [False, True], ids=["empty", "imported"])
@pytest.mark.parametrize("batches", [False, True], ids=["one by one", "in batches"])
def test_a_filtered_replica_holds_exactly_what_the_filter_lets_through(batches: bool, imported: bool) -> None:
    kinds = sequences("PHD", 2, 3)
    assert_clean(
        [
            Scenario(word, crashes=1, zombies=1, filter=HIDES_UNSEEN, batches=batches, imported=imported)
            for word in kinds
        ]
    )


@pytest.mark.parametrize("budget", ZOMBIES)
def test_without_tombstones_a_zombie_brings_a_deleted_item_back(budget: tuple[int, int]) -> None:
    scenarios = [Scenario(kinds, *budget, world=without_tombstones, monotone=False) for kinds in TWO_OR_THREE_WRITES]
    assert violating(scenarios) == 10


def test_without_tombstones_even_a_crash_shows_a_deleted_item_again_for_a_while() -> None:
    scenarios = [Scenario(kinds, crashes=1, world=without_tombstones) for kinds in TWO_OR_THREE_WRITES]
    assert violating(scenarios) == 14


@pytest.mark.parametrize("budget", ZOMBIES)
def test_without_conditions_a_zombie_leaves_an_old_image(budget: tuple[int, int]) -> None:
    scenarios = [Scenario(kinds, *budget, world=without_conditions, monotone=False) for kinds in TWO_OR_THREE_WRITES]
    assert violating(scenarios) == 30


@pytest.mark.parametrize("budget", ZOMBIES)
def test_with_the_probe_a_zombie_that_stalls_before_its_put_brings_a_deleted_item_back(budget: tuple[int, int]) -> None:
    scenarios = [Scenario(kinds, *budget, policy=PROBE, monotone=False) for kinds in TWO_OR_THREE_WRITES]
    assert violating(scenarios) == 10


def test_with_the_probe_crashes_alone_do_no_harm() -> None:
    assert_clean([Scenario(kinds, crashes=2, policy=PROBE) for kinds in TWO_OR_THREE_WRITES])


def test_the_probe_fails_as_documented_between_the_read_and_the_put() -> None:
    result = Explorer(Scenario("PD", zombies=1, policy=PROBE, monotone=False)).run()
    assert result.violation is not None
    probed = result.trace.index("zombie 0+1 GetTombstone -> Found")
    deleted = result.trace.index("worker 1+1 Delete -> Done")
    resurrected = result.trace.index("zombie 0+1 Put -> Done")
    assert probed < deleted < resurrected


# -- a source that keeps no order and repeats records --------------------------------------------------------------


def deliveries(writes: int, *, repeats: bool = True) -> list[tuple[int, ...]]:
    """Every order in which the records of so many writes can come, and each with one of them again at the end."""
    orders = list(itertools.permutations(range(writes)))
    again = [(*order, number) for order in orders for number in range(writes)]
    return orders + again if repeats else orders


def disordered(length: int, *, by_place: bool = False, **more: Any) -> list[Scenario]:
    return [
        Scenario(kinds, batches=True, delivery=Delivery(order, by_place), **more)
        for kinds in sequences("PUD", length)
        for order in deliveries(length, repeats=not more)
    ]


def test_records_in_any_order_and_more_than_once_converge_and_never_show_an_older_image() -> None:
    assert_clean(disordered(3))
    assert_clean(disordered(2, crashes=1, zombies=1))


def test_a_version_by_the_place_of_a_record_lets_an_older_image_win() -> None:
    assert violating(disordered(2, by_place=True, monotone=False)) > 0


def test_a_page_whose_last_record_is_taken_for_the_newest_lets_an_older_image_win(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(coalescing, "in_order", tuple)
    assert violating(disordered(2, monotone=False)) > 0


# -- changes of one millisecond ------------------------------------------------------------------------------------


def tied(length: int, kinds: str = "PUD", *, looks: bool = True, **more: Any) -> list[Scenario]:
    """All within one millisecond, in any order, each on a page of its own or some together."""
    return [
        Scenario(word, batches=True, monotone=False, delivery=Delivery(order, coarse=True, looks=looks), **more)
        for word in sequences(kinds, length)
        for order in deliveries(length, repeats=not more)
    ]


def test_changes_of_one_millisecond_end_as_the_source_whatever_comes_first_or_twice() -> None:
    assert_clean(tied(3))
    assert_clean(tied(2, crashes=1, zombies=1))


def test_changes_of_one_millisecond_that_lead_back_end_as_the_source() -> None:
    assert_clean(tied(3, "SPD"))


@pytest.mark.long
def test_changes_of_one_millisecond_with_a_crash_and_a_zombie() -> None:
    assert_clean(tied(3, crashes=1, zombies=1))


def test_by_what_they_replaced_alone_an_older_change_of_a_millisecond_may_win() -> None:
    assert violating(tied(3, looks=False)) > 0
