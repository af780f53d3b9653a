"""What a cache is owed, under every interleaving; and that each rule of it is needed."""

from __future__ import annotations

import pytest

from replicator.domain.cache_keys import CacheVerb
from tests.simulation.cache_debt_world import DebtExplorer, Rules
from tests.simulation.cache_world import CacheScenario
from tests.simulation.repair_cache_world import RepairRules, explore

VERBS = pytest.mark.parametrize("verb", [CacheVerb.INVALIDATE, CacheVerb.REFRESH], ids=lambda verb: verb.value)
MUTANTS = {
    "the position moves without a row": Rules(notes=False),
    "a row goes though it was written again": Rules(compares=False),
    "a row goes before its entry, and a takeover comes between": Rules(drops_first=False),
    "what was owed is set over what is newer": Rules(by_drop=False),
    "a row is written before the replica holds the change": Rules(after_replica=False),
}


def scenario(kinds: str, verb: CacheVerb, **choices: int) -> CacheScenario:
    return CacheScenario(kinds, verb, **{"readers": 1, "replays": 0, "evictions": 0, **choices})  # type: ignore[arg-type]


@VERBS
@pytest.mark.parametrize("kinds", ["PP", "PD", "PDP"])
def test_what_a_cache_is_owed_leaves_nothing_stale_whenever_it_is_settled(kinds: str, verb: CacheVerb) -> None:
    states, stale = DebtExplorer(scenario(kinds, verb)).run()
    assert stale is None
    assert states > 1000


@VERBS
def test_the_same_beside_replays_and_evictions(verb: CacheVerb) -> None:
    states, stale = DebtExplorer(scenario("PP", verb, replays=1, evictions=1), failures=1).run()
    assert stale is None
    assert states > 1000


@VERBS
@pytest.mark.parametrize("mutant", MUTANTS)
def test_each_rule_is_needed(mutant: str, verb: CacheVerb) -> None:
    _, stale = DebtExplorer(scenario("PP", verb, readers=2), MUTANTS[mutant]).run()
    assert stale is not None, f"nothing stays stale though {mutant}"


REPAIR_MUTANTS = {
    "a repair notes behind its write": RepairRules(notes_first=False),
    "what a repair noted is settled before its write": RepairRules(holds=False),
    "a repair counts as over while its write may come": RepairRules(outlives=False),
    "the row of a repair goes without a drop": RepairRules(settles_by_drop=False),
}


def test_a_repair_leaves_no_entry_of_what_it_replaced_wherever_it_dies() -> None:
    states, stale = explore()
    assert stale is None
    assert states > 300


@pytest.mark.parametrize("mutant", REPAIR_MUTANTS)
def test_each_rule_of_a_repair_beside_a_cache_is_needed(mutant: str) -> None:
    _, stale = explore(REPAIR_MUTANTS[mutant])
    assert stale is not None, f"nothing stays stale though {mutant}"
