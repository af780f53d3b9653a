"""The cache protocol under every interleaving of writes, replays, evictions and readers."""

from __future__ import annotations

import itertools

import pytest

from replicator.domain.cache_keys import CacheVerb
from tests.simulation.cache_world import CacheExplorer, CacheScenario

WRITES = ["".join(word) for length in (2, 3) for word in itertools.product("PD", repeat=length) if word[0] == "P"]
ACTING = [CacheVerb.INVALIDATE, CacheVerb.REFRESH, CacheVerb.WRITE_THROUGH]
VERBS = pytest.mark.parametrize("verb", ACTING, ids=lambda verb: verb.value)


def stale(scenarios: list[CacheScenario], *, at_least: int = 1) -> list[str]:
    """What stays stale; a search that saw fewer states than `at_least` proves nothing."""
    found = []
    states = 0
    for scenario in scenarios:
        seen, complaint = CacheExplorer(scenario).run()
        states += seen
        if complaint is not None:
            found.append(f"{scenario.kinds}: {complaint}")
    print(f"{len(scenarios)} scenarios, {states} states, {len(found)} stale")  # noqa: T201 - shown by `pytest -rP`
    assert states >= at_least
    return found


@VERBS
@pytest.mark.parametrize(("replays", "evictions"), [(1, 0), (1, 1), pytest.param(2, 2, marks=pytest.mark.long)])
def test_lease_readers_never_keep_a_stale_entry(verb: CacheVerb, replays: int, evictions: int) -> None:
    readers = 1 if verb is CacheVerb.WRITE_THROUGH else 2  # what the daemon fills is a reader more each time
    scenarios = [CacheScenario(kinds, verb, readers, replays, evictions) for kinds in WRITES]
    assert stale(scenarios, at_least=4000) == []


MOVES = ["".join(word) for length in (2, 3) for word in itertools.product("DAB", repeat=length) if word[0] != "D"]


@VERBS
@pytest.mark.parametrize(("replays", "evictions"), [(1, 0), pytest.param(1, 1, marks=pytest.mark.long)])
def test_lease_readers_never_keep_an_item_under_a_key_that_it_left(
    verb: CacheVerb, replays: int, evictions: int
) -> None:
    scenarios = [
        CacheScenario(kinds, verb, replays=replays, evictions=evictions, template="order:{pk}:{at}", key="order:k:A")
        for kinds in MOVES
    ]
    assert stale(scenarios, at_least=4000) == []


@VERBS
def test_readers_that_simply_set_what_they_read_keep_a_stale_entry(verb: CacheVerb) -> None:
    assert stale([CacheScenario("PP", verb, leases=False, replays=0, evictions=0)])


@VERBS
def test_acting_before_the_replica_holds_the_write_leaves_a_stale_entry(verb: CacheVerb) -> None:
    assert stale([CacheScenario("PP", verb, after_replica=False)])


@VERBS
def test_readers_that_read_the_replica_without_consistency_keep_a_stale_entry(verb: CacheVerb) -> None:
    assert stale([CacheScenario("PP", verb, consistent_reads=False)])


def test_setting_what_is_absent_lets_a_replay_behind_an_eviction_win() -> None:
    """Why `write_through` fills under a lease what it finds absent."""
    assert stale([CacheScenario("PP", CacheVerb.WRITE_THROUGH, readers=0, sets_absent=True)])


@pytest.mark.parametrize("verb", [CacheVerb.REFRESH, CacheVerb.WRITE_THROUGH])
@pytest.mark.parametrize("kinds", ["PP", "PD", pytest.param("PDP", marks=pytest.mark.long)])
def test_a_mesh_that_fills_what_it_dropped_keeps_nothing_stale(verb: CacheVerb, kinds: str) -> None:
    assert stale([CacheScenario(kinds, verb, readers=1, refills=True)], at_least=100) == []


@pytest.mark.parametrize("verb", [CacheVerb.REFRESH, CacheVerb.WRITE_THROUGH])
def test_a_mesh_that_fills_without_consistency_keeps_a_stale_entry(verb: CacheVerb) -> None:
    assert stale([CacheScenario("PP", verb, readers=1, refills=True, consistent_reads=False)])
