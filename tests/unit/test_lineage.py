from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from replicator.domain.lineage import Shard, merged, ready
from replicator.domain.records import ShardId

A, B, C, D = (ShardId(name) for name in "abcd")


def test_a_child_waits_until_its_parent_is_finished() -> None:
    shards = merged([Shard(A, None, closed=True), Shard(B, A), Shard(C, A)])
    assert ready(shards, set()) == [A]
    assert ready(shards, {A}) == [B, C]
    assert ready(shards, {A, B}) == [C]


def test_a_shard_whose_parent_is_no_longer_listed_is_ready() -> None:
    assert ready(merged([Shard(B, A)]), set()) == [B]


def test_a_grandchild_waits_for_its_parent_even_when_the_grandparent_is_gone() -> None:
    shards = merged([Shard(B, A, closed=True), Shard(C, B)])
    assert ready(shards, set()) == [B]


def test_closed_shards_are_read_before_open_ones() -> None:
    assert ready(merged([Shard(A), Shard(B, None, closed=True)]), set()) == [B, A]


def test_a_parent_that_is_still_listed_as_open_is_closed() -> None:
    shards = merged([Shard(A), Shard(B, A)])
    assert shards[A] == Shard(A, None, closed=True)
    assert shards[B] == Shard(B, A, closed=False)


def test_a_closed_shard_stays_closed() -> None:
    assert merged([Shard(A, None, closed=True)])[A].closed


@st.composite
def forests(draw: st.DrawFn) -> list[Shard]:
    """Shards with parents among the earlier ones, or among shards that are gone."""
    listed: list[Shard] = []
    for number in range(draw(st.integers(1, 8))):
        parent = draw(st.sampled_from([None, ShardId("gone"), *(shard.shard_id for shard in listed)]))
        listed.append(Shard(ShardId(f"s{number}"), parent, closed=draw(st.booleans())))
    return draw(st.permutations(listed))


@given(forests())
def test_reading_what_is_ready_reads_every_shard_once_and_parents_first(listed: list[Shard]) -> None:
    shards = merged(listed)
    order: list[ShardId] = []
    while batch := ready(shards, order):
        assert batch == ready(merged(reversed(listed)), order), "the listing's order does not matter"
        order += batch
    assert sorted(order) == sorted(shards)
    for shard in listed:
        if shard.parent in shards:
            assert order.index(shard.parent) < order.index(shard.shard_id)
