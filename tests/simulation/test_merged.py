"""Two sources in one table: apart by their keys under every interleaving, and what is lost where they are not."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from tests.simulation.merged_world import Merge, Merging, by_the_sources_key

WRITES = ["PD", "PU", "DP"]
PAIRS = list(itertools.product(WRITES, WRITES))


def violating(merges: list[Merge]) -> int:
    results = [Merging(merge).run() for merge in merges]
    states = sum(result.states for result in results)
    bad = [result for result in results if result.violation]
    print(f"{len(results)} merges, {states} states, {len(bad)} violating")  # noqa: T201 - shown by `pytest -rP`
    assert all(result.quiescent for result in results if not result.violation), "a search without an end proves nothing"
    return len(bad)


def test_two_sources_whose_keys_are_apart_are_both_there_whatever_happens() -> None:
    assert violating([Merge(pair) for pair in PAIRS]) == 0
    assert (
        violating([Merge(("PD", "DP"), crashes=1), Merge(("PD", "P"), zombies=1), Merge(("P", "PD"), zombies=1)]) == 0
    )


@pytest.mark.parametrize(
    "mutant",
    [
        {"keys": (None, None)},
        {"keys": ({"pk": "all#{pk}"}, {"pk": "all#{pk}"})},
        {"side_key": by_the_sources_key},
    ],
    ids=["no constant", "the same constant", "tombstones by the source's key"],
)
def test_a_merge_whose_keys_or_deletes_may_meet_loses_items(mutant: dict[str, Any]) -> None:
    assert violating([Merge(pair, **mutant) for pair in PAIRS]) > 0


@pytest.mark.long
def test_two_sources_with_a_crash_and_a_zombie_each() -> None:
    assert violating([Merge(pair, crashes=1) for pair in PAIRS]) == 0
    assert violating([Merge(("PD", "PU"), zombies=1), Merge(("PD", "DP"), zombies=1)]) == 0
