"""A reader that follows the lineage reads every record once and in order, whatever the endpoint shows; and its mutants.

The seeds are fixed, so what a mutant does wrong is always the same.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from replicator.domain.identifiers import ShardId
from replicator.domain.shards.lineage import Graph, Shard, ready, storable
from replicator.domain.values import replace
from tests.simulation.stream_history import Rules, told

SEEDS = range(300)


@settings(max_examples=250)
@given(st.integers(0, 2**32))
def test_every_record_is_read_once_and_parents_first(seed: int) -> None:
    assert told(seed) is None


# -- mutants -------------------------------------------------------------------------------------------------------


def _first_parents(graph: Graph) -> dict[ShardId, Shard]:
    return {shard_id: replace(shard, parents=shard.parents[:1]) for shard_id, shard in graph.items()}


def _ready_after_the_first_parent(
    graph: Graph, finished: Collection[ShardId], begun: Collection[ShardId]
) -> list[ShardId]:
    return ready(_first_parents(graph), finished, begun)


def _ready_with_the_parents(graph: Graph, finished: Collection[ShardId], begun: Collection[ShardId]) -> list[ShardId]:
    return sorted(graph.keys() - frozenset(finished))


def _ready_without_the_begun(graph: Graph, finished: Collection[ShardId], begun: Collection[ShardId]) -> list[ShardId]:
    return ready(graph, finished)


def _all_links_count(graph: Graph, finished: Collection[ShardId], begun: Collection[ShardId]) -> list[ShardId]:
    return sorted(
        shard.shard_id
        for shard in graph.values()
        if shard.shard_id not in finished
        and (shard.shard_id in begun or all(parent in finished for parent in shard.parents if parent in graph))
    )


def _unlisted_is_gone(graph: Graph, stored: Collection[ShardId], gone: Collection[ShardId]) -> list[Shard]:
    return [shard for shard_id, shard in sorted(graph.items()) if shard_id not in stored]


def _parent_seen_is_enough(graph: Graph, stored: Collection[ShardId], gone: Collection[ShardId]) -> list[Shard]:
    return [
        shard
        for shard_id, shard in sorted(graph.items())
        if shard_id not in stored and all(parent in graph or parent in gone for parent in shard.parents)
    ]


def _never_gone(graph: Graph, stored: Collection[ShardId], gone: Collection[ShardId]) -> list[Shard]:
    return storable(graph, stored, ())


def _listing_is_believed(known: Graph, seen: Iterable[Shard]) -> dict[ShardId, Shard]:
    return {**known, **{shard.shard_id: shard for shard in seen}}


def _children_of_false_parents(graph: Graph, ended: Collection[ShardId]) -> list[ShardId]:
    return sorted(ended)


ORDER, SKIPPED = "a child was read before its parent's end", "records were skipped"
MUTANTS = {
    "production failure 2: a shard that appears later is begun at its latest record": (
        Rules(begins_at_latest=True),
        {SKIPPED},
    ),
    "production failure 3: a merge waits for its first parent only": (
        Rules(ready=_ready_after_the_first_parent),
        {ORDER},
    ),
    "production failure 3: parent and child are read in parallel": (Rules(ready=_ready_with_the_parents), {ORDER}),
    "production failure 3: a parent that is listed late counts as gone": (Rules(storable=_unlisted_is_gone), {ORDER}),
    "production failure 3: a child is stored while its parent waits": (
        Rules(storable=_parent_seen_is_enough),
        {ORDER},
    ),
    "production failure 4: the last listing is believed, whatever was known": (
        Rules(merged=_listing_is_believed),
        {"a shard was never finished", SKIPPED},
    ),
    "production failure 4: parents in a circle wait for each other": (Rules(ready=_all_links_count), {SKIPPED}),
    "production failure 4: a shard that is being read waits for a parent that is listed by mistake": (
        Rules(ready=_ready_without_the_begun),
        {SKIPPED},
    ),
    "production failure 4: a parent that is gone is waited for": (Rules(storable=_never_gone), {SKIPPED}),
    "children that are known are sought for ever": (
        Rules(childless=_children_of_false_parents),
        {"children are sought that are known"},
    ),
}


@pytest.mark.parametrize(("rules", "expected"), MUTANTS.values(), ids=MUTANTS)
def test_a_reader_without_the_rule_is_found_out(rules: Rules, expected: set[str]) -> None:
    assert any(told(seed, rules) in expected for seed in SEEDS)


def test_the_same_histories_show_nothing_wrong_with_the_rules_in_place() -> None:
    assert {told(seed) for seed in SEEDS} == {None}
