"""Sets of scenarios about copying in mode `ordered`, as `prove` searches them completely."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import chain, combinations_with_replacement, product

from replicator.domain.modes.ordered import InsertGuard, OrderedPolicy
from replicator.domain.values import replace
from tests.simulation.copying_world import Scenario
from tests.simulation.ordered_world import History, written

FAULTS = ("crashes", "zombies", "stops", "doubles")
STARTS = ("ours", "absent", "older", "foreign")
DAMAGES = ("gone", "changed", "replaced", "extra", "stamped")


def _histories(kinds: str, *lengths: int) -> Iterator[Scenario]:
    """Every sequence of writes, on a source with and without an item from before its stream."""
    for length in lengths:
        for word, imported in product(product(kinds, repeat=length), (False, True)):
            yield Scenario("".join(word), imported=imported)


def _records(scenario: Scenario) -> int:
    return len(History(scenario.kinds, written("P", 0, None) if scenario.imported else None).records)


def _seeds(histories: Iterator[Scenario]) -> Iterator[Scenario]:
    return (replace(scenario, job="seed", replica=start) for scenario, start in product(histories, STARTS))


def _repairs(histories: Iterator[Scenario]) -> Iterator[Scenario]:
    """Every start, every record lost, every damage."""
    for scenario in histories:
        yield from (replace(scenario, replica=start) for start in STARTS)
        yield from (replace(scenario, lost=lost) for lost in range(_records(scenario)))
        yield from (replace(scenario, damage=damage) for damage in DAMAGES)


def _faulty(scenarios: Iterator[Scenario], faults: int) -> Iterator[Scenario]:
    """With so many things that go wrong, of every combination of kinds."""
    every = list(combinations_with_replacement(FAULTS, faults))
    for scenario, some in product(scenarios, every):
        crashes, zombies, stops, doubles = map(some.count, FAULTS)
        yield replace(scenario, crashes=crashes, zombies=zombies, stops=stops, doubles=doubles)


def _jobs(kinds: str, *lengths: int) -> Iterator[Scenario]:
    return chain(_seeds(_histories(kinds, *lengths)), _repairs(_histories(kinds, *lengths)))


def copying_two() -> Iterator[Scenario]:
    """Up to two writes: every start, every record lost, every damage; no fault, or one of each kind."""
    return chain(*(_faulty(_jobs("PUD", 0, 1, 2), faults) for faults in (0, 1)))


def copying_three() -> Iterator[Scenario]:
    """Three puts and deletes, as `copying_two`."""
    return chain(*(_faulty(_jobs("PD", 3), faults) for faults in (0, 1)))


def copying_pairs() -> Iterator[Scenario]:
    """Two puts and deletes with two faults of every kind."""
    return _faulty(_jobs("PD", 2), 2)


def copying_lost_and_damaged() -> Iterator[Scenario]:
    """Two puts and deletes, a record lost and the replica damaged, and one fault."""
    for scenario in _faulty(_histories("PD", 2), 1):
        for lost, damage in product(range(_records(scenario)), DAMAGES):
            yield replace(scenario, lost=lost, damage=damage)


def copying_unseen() -> Iterator[Scenario]:
    """Up to three writes, without damage: while copiers wait, no reader sees older behind newer."""
    for scenario in _histories("PUD", 1, 2, 3):
        for job, start, (stops, doubles) in product(("seed", "repair"), STARTS, ((0, 0), (1, 0), (0, 1))):
            begun = replace(scenario, job=job, replica=start, stops=stops, doubles=doubles)
            yield replace(begun, waits=True, monotone=True)


def copying_honest() -> Iterator[Scenario]:
    """Up to three writes, nothing lost or damaged: while copiers wait, none names a difference."""
    for scenario in _histories("PUD", 1, 2, 3):
        for crashes, stops, doubles in ((1, 0, 0), (0, 1, 0), (0, 0, 1)):
            faulty = replace(scenario, crashes=crashes, stops=stops, doubles=doubles)
            yield replace(faulty, waits=True, honest=True)


def copying_probe() -> Iterator[Scenario]:
    """As `copying_two`, repairs only, of a rule that probes before it inserts; no zombies, as that setting accepts."""
    policy = OrderedPolicy(insert_guard=InsertGuard.PROBE)
    for scenario in copying_two():
        if scenario.job == "repair" and not scenario.zombies:
            yield replace(scenario, policy=policy)


SETS: dict[str, Callable[[], Iterator[Scenario]]] = {
    part.__name__: part
    for part in (
        copying_two,
        copying_unseen,
        copying_honest,
        copying_probe,
        copying_three,
        copying_pairs,
        copying_lost_and_damaged,
    )
}
