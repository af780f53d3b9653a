from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from replicator.domain.identifiers import SequenceNumber, ShardId
from replicator.domain.shards.lineage import Graph, Shard, childless, merged, ready, storable, unproven

A, B, C, D = (ShardId(name) for name in "abcd")


def graph(*shards: Shard) -> dict[ShardId, Shard]:
    return merged({}, shards)


# -- what is ready -------------------------------------------------------------------------------------------------


def test_a_child_waits_until_its_parent_is_finished() -> None:
    shards = graph(Shard(A, closed=True), Shard(B, (A,)), Shard(C, (A,)))
    assert ready(shards, set()) == [A]
    assert ready(shards, {A}) == [B, C]
    assert ready(shards, {A, B}) == [C]


def test_production_failure_3_a_merge_waits_for_both_parents() -> None:
    shards = graph(Shard(A, closed=True), Shard(B, closed=True), Shard(C, (A, B)))
    assert ready(shards, set()) == [A, B]
    assert ready(shards, {A}) == [B]
    assert ready(shards, {B}) == [A]
    assert ready(shards, {A, B}) == [C]


def test_a_shard_whose_parent_is_not_in_the_graph_is_ready() -> None:
    assert ready(graph(Shard(B, (A,))), set()) == [B]


def test_a_grandchild_waits_for_its_parent_even_when_the_grandparent_is_gone() -> None:
    assert ready(graph(Shard(B, (A,), closed=True), Shard(C, (B,))), set()) == [B]


def test_closed_shards_are_read_before_open_ones() -> None:
    assert ready(graph(Shard(A), Shard(B, closed=True)), set()) == [B, A]


def test_a_parent_that_becomes_known_later_holds_back_a_child_that_was_ready() -> None:
    first = graph(Shard(C, (A,)))
    assert ready(first, set()) == [C]
    assert ready(merged(first, [Shard(A)]), set()) == [A]


def test_a_shard_that_was_begun_goes_on_whatever_is_told_of_its_parents_since() -> None:
    shards = graph(Shard(A), Shard(B, (A,)), Shard(C, (B,)))
    assert ready(shards, set()) == [A]
    assert ready(shards, set(), {B}) == [A, B]
    assert ready(shards, {B}, {B}) == [A, C]


# -- what is known -------------------------------------------------------------------------------------------------


def test_production_failure_4_a_parent_that_is_still_listed_as_open_is_closed() -> None:
    shards = graph(Shard(A, first=SequenceNumber("5")), Shard(B, (A,)))
    assert shards[A] == Shard(A, closed=True, first=SequenceNumber("5"))
    assert shards[B] == Shard(B, (A,), closed=False)
    assert merged(shards, [Shard(A)])[A].closed


def test_a_closed_shard_stays_closed_and_a_link_or_a_first_record_stays_known() -> None:
    known = graph(Shard(C, (A,), closed=True, first=SequenceNumber("5")))
    grown = merged(known, [Shard(C), Shard(C, (B,), first=SequenceNumber("7"))])
    assert grown == {C: Shard(C, (A, B), closed=True, first=SequenceNumber("5"))}


def test_what_was_known_is_not_changed_in_place() -> None:
    known = graph(Shard(A))
    merged(known, [Shard(B, (A,))])
    assert known == {A: Shard(A)}


# -- contradictions ------------------------------------------------------------------------------------------------


def test_a_shard_is_not_its_own_parent() -> None:
    shards = graph(Shard(A, (A,)))
    assert ready(shards, set()) == [A]
    assert not shards[A].closed
    assert childless(shards, {A}) == [A]
    assert storable(shards, (), ()) == [shards[A]]


@pytest.mark.parametrize(
    "circle",
    [
        [Shard(A, (B,)), Shard(B, (A,))],
        [Shard(A, (B, A)), Shard(B, (A, B))],
    ],
    ids=["two shards", "two shards that are their own parents, too"],
)
def test_of_links_in_a_circle_those_to_greater_ids_count(circle: list[Shard]) -> None:
    shards = graph(*circle)
    assert ready(shards, set()) == [A]
    assert ready(shards, {A}) == [B]
    assert (shards[A].closed, shards[B].closed) == (True, False)
    assert childless(shards, {A, B}) == [B]


def test_production_failure_4_a_long_circle_blocks_nothing_and_ends() -> None:
    ids = [ShardId(f"s{number:04}") for number in range(2000)]
    shards = graph(*(Shard(shard_id, (ids[place - 1],)) for place, shard_id in enumerate(ids)))
    assert ready(shards, set()) == [ids[0]]
    assert ready(shards, {ids[0]}) == [ids[1]]
    assert ready(shards, set(ids)) == []


def test_ids_need_no_order_where_nothing_contradicts() -> None:
    shards = graph(Shard(C), Shard(B, (C,)), Shard(A, (B,)))
    assert ready(shards, set()) == [C]
    assert ready(shards, {C}) == [B]
    assert ready(shards, {C, B}) == [A]


# -- what may be stored --------------------------------------------------------------------------------------------


def test_a_child_is_stored_only_when_each_parent_is_stored_or_proven_gone() -> None:
    merge = Shard(C, (A, B))
    seen = graph(merge)
    assert unproven(seen) == {A, B}
    assert storable(seen, (), {A}) == []
    assert storable(seen, {A}, {B}) == [merge]
    assert unproven(seen, {C}) == set()


def test_a_parent_that_waits_makes_its_descendants_wait() -> None:
    seen = graph(Shard(B, (A,)), Shard(C, (B,)), Shard(D))
    assert storable(seen, (), ()) == [seen[D]]
    assert storable(seen, (), {A}) == [seen[B], seen[C], seen[D]]


def test_parents_are_stored_before_their_children_whatever_their_ids() -> None:
    seen = graph(Shard(C), Shard(B, (C,)), Shard(A, (B,)))
    assert [shard.shard_id for shard in storable(seen, (), ())] == [C, B, A]
    assert [shard.shard_id for shard in storable(seen, {C}, ())] == [B, A]


def test_shards_without_a_known_child_are_told() -> None:
    shards = graph(Shard(A, closed=True), Shard(B, (A,), closed=True), Shard(C, closed=True))
    assert childless(shards, {A, B, C}) == [B, C]
    assert childless(shards, [A]) == []


# -- any graph -----------------------------------------------------------------------------------------------------


@st.composite
def listings(draw: st.DrawFn) -> list[Shard]:
    """Shards with any parents: earlier, later, themselves, or such that are gone; some are listed twice."""
    ids = [ShardId(f"s{number}") for number in range(draw(st.integers(1, 7)))]
    parents = st.lists(st.sampled_from([*ids, ShardId("gone")]), max_size=2, unique=True).map(tuple)
    return [
        Shard(shard_id, draw(parents), closed=draw(st.booleans()))
        for shard_id in draw(st.permutations(ids + draw(st.lists(st.sampled_from(ids), max_size=3))))
    ]


def read_through(shards: Graph) -> list[ShardId]:
    order: list[ShardId] = []
    while batch := ready(shards, order):
        order.append(batch[0])
    return order


@given(listings())
def test_whatever_is_listed_every_shard_is_read_once_and_stored_once(listed: list[Shard]) -> None:
    shards = graph(*listed)
    order = read_through(shards)
    assert sorted(order) == sorted(shards)
    stored = [shard.shard_id for shard in storable(shards, (), {ShardId("gone")})]
    assert sorted(stored) == sorted(shards)
    for shard_id, shard in shards.items():
        for parent in shard.parents:
            if parent in shards and parent < shard_id:
                assert order.index(parent) < order.index(shard_id)
                assert stored.index(parent) < stored.index(shard_id)
                assert shards[parent].closed


@given(listings())
def test_knowledge_only_grows_and_does_not_depend_on_the_way_it_came(listed: list[Shard]) -> None:
    whole = graph(*listed)
    known: dict[ShardId, Shard] = {}
    for shard in listed:
        grown = merged(known, [shard])
        for shard_id, old in known.items():
            assert set(old.parents) <= set(grown[shard_id].parents)
            assert grown[shard_id].closed or not old.closed
        known = grown
    other = graph(*reversed(listed))
    for shard_id, shard in whole.items():
        assert set(shard.parents) == set(known[shard_id].parents) == set(other[shard_id].parents)
        assert shard.closed == other[shard_id].closed
        assert known[shard_id].closed or not shard.closed
    assert read_through(whole) == read_through(other)
