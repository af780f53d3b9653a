"""Copying under every interleaving of small scenarios, and what it loses without its rules.

What CI can afford; `make prove SET=copying` searches more. Nothing in a scenario is sampled.
"""

from __future__ import annotations

from itertools import chain

import pytest

from tests.simulation import prove
from tests.simulation.copying_ablations import ABLATIONS, found
from tests.simulation.copying_sets import SETS
from tests.simulation.copying_world import Explorer, Scenario


def searched(scenarios: list[Scenario]) -> int:
    quiescent = 0
    for scenario in scenarios:
        result = Explorer(scenario).run()
        assert result.violation is None, "\n".join([str(scenario), result.violation, *result.trace])
        quiescent += result.quiescent
    assert quiescent >= len(scenarios), "a search without an end proves nothing"
    return quiescent


@pytest.mark.parametrize("name", SETS)
def test_a_copier_brings_and_mends_whatever_happens_meanwhile(name: str) -> None:
    every = list(SETS[name]())
    searched(every[len(every) // 7 :: len(every) // 3])


@pytest.mark.long
@pytest.mark.parametrize("name", SETS)
def test_a_copier_brings_and_mends_whatever_happens_meanwhile_in_more_scenarios(name: str) -> None:
    every = list(SETS[name]())
    searched(every[3 :: len(every) // 60])


def test_no_scenario_is_there_twice() -> None:
    every = [str(scenario) for scenario in chain.from_iterable(part() for part in SETS.values())]
    assert len(set(every)) == len(every)


@pytest.mark.parametrize("name", ABLATIONS)
def test_a_rule_of_copying_that_is_taken_out_is_missed(name: str) -> None:
    assert found(name).violation is not None, f"without {ABLATIONS[name].removed} nothing goes wrong"


@pytest.mark.parametrize("name", [name for name in ABLATIONS if name != "copy_waits"])
def test_the_scenario_that_misses_it_is_clean_with_it(name: str) -> None:
    searched([ABLATIONS[name].scenario])


def test_a_seed_of_a_rule_that_probes_may_bring_a_deleted_item_back_and_a_repair_finds_it() -> None:
    probing = next(scenario for scenario in SETS["copying_probe"]()).policy
    seed = Scenario("D", "seed", imported=True, replica="absent", policy=probing)
    assert Explorer(seed).run().violation is not None
    searched([Scenario("D", "repair", imported=True, damage="extra", policy=probing)])


def test_a_search_of_copying_is_kept_like_any_other() -> None:
    line = prove.search(Scenario("P", crashes=1))
    assert (line.scenario, line.violation) == ("copying repair P ours crash=1 transact adopt", None)
    assert line.states > 40
    assert line.code == prove.code_of(Scenario("D"))
