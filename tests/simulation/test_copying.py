"""Copying under every interleaving of small scenarios, and what it loses without its rules.

What CI can afford; `make prove SET=copying` searches more. Nothing in a scenario is sampled.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import chain

import pytest

from tests.simulation import prove
from tests.simulation.copying_ablations import ABLATIONS, found
from tests.simulation.copying_sets import SETS
from tests.simulation.copying_world import Explorer, Scenario
from tests.simulation.mesh_copying_ablations import ABLATIONS as MESH_ABLATIONS
from tests.simulation.mesh_copying_ablations import found as found_in_a_mesh
from tests.simulation.mesh_copying_sets import SETS as MESH_SETS
from tests.simulation.mesh_copying_world import MeshExplorer
from tests.simulation.mesh_copying_world import Scenario as MeshScenario


def searched(scenarios: Sequence[Scenario | MeshScenario]) -> int:
    quiescent = 0
    for scenario in scenarios:
        result = Explorer(scenario).run() if isinstance(scenario, Scenario) else MeshExplorer(scenario).run()
        assert result.violation is None, "\n".join([str(scenario), result.violation, *result.trace])
        quiescent += result.quiescent
    assert quiescent >= len(scenarios), "a search without an end proves nothing"
    return quiescent


EVERY: dict[str, Callable[[], Iterator[Scenario | MeshScenario]]] = {**SETS, **MESH_SETS}
LARGE = {
    "copying_mesh_seeds": 12,
    "copying_mesh_seeds_three": 6,
    "copying_mesh_seeds_more": 1,
    "copying_mesh_seeds_crash": 8,
}
"""Sets whose scenarios take long, and how many of them a long test takes."""


@pytest.mark.parametrize("name", sorted(EVERY.keys() - LARGE.keys()))
def test_a_copier_brings_and_mends_whatever_happens_meanwhile(name: str) -> None:
    every = list(EVERY[name]())
    searched(every[len(every) // 7 :: len(every) // 3])


@pytest.mark.long
@pytest.mark.parametrize("name", EVERY)
def test_a_copier_brings_and_mends_whatever_happens_meanwhile_in_more_scenarios(name: str) -> None:
    every = list(EVERY[name]())
    searched(every[3 :: len(every) // LARGE.get(name, 30)])


@pytest.mark.parametrize("share", range(4))
def test_old_items_of_two_regions_come_together_and_what_is_lost_is_logged(share: int) -> None:
    searched([scenario for scenario in MESH_SETS["copying_mesh_seeds"]() if not any(scenario.ops)][share::4])


def test_no_scenario_is_there_twice() -> None:
    every = [str(scenario) for scenario in chain.from_iterable(part() for part in EVERY.values())]
    assert len(set(every)) == len(every)


@pytest.mark.parametrize("name", ABLATIONS)
def test_a_rule_of_copying_that_is_taken_out_is_missed(name: str) -> None:
    assert found(name).violation is not None, f"without {ABLATIONS[name].removed} nothing goes wrong"


@pytest.mark.parametrize("name", MESH_ABLATIONS)
def test_a_rule_of_copying_in_a_mesh_that_is_taken_out_is_missed_and_cures_when_it_is_back(name: str) -> None:
    ablation = MESH_ABLATIONS[name]
    assert found_in_a_mesh(name).violation is not None, f"without {ablation.removed} nothing goes wrong"
    searched([ablation.scenario])


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
