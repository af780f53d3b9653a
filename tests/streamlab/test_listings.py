from __future__ import annotations

import pytest

from replicator.adapters.dynamodb.streams import DynamoStreams, whole_listing
from replicator.domain.errors import Throttled
from replicator.domain.identifiers import ShardId, TableName
from replicator.domain.shards.leases import StreamRef
from tests.streamlab import Laboratory

ORDERS = TableName("orders")


async def ids(streams: DynamoStreams, stream: StreamRef) -> list[str]:
    return [shard.shard_id for shard in await whole_listing(streams, stream)]


async def test_a_listing_comes_in_pages(lab: Laboratory, streams: DynamoStreams) -> None:
    lab.set(page_size=3, describes_per_second=0)
    lab.reshard(10, "orders")
    stream = await streams.current(ORDERS)
    first = await streams.shard_page(stream, None)
    assert len(first.shards) == 3
    assert first.last == first.shards[-1].shard_id
    assert len(await ids(streams, stream)) == 16


@pytest.mark.parametrize("order", ["creation", "reversed", "shuffled"])
async def test_pages_hold_every_shard_once_in_any_order(lab: Laboratory, streams: DynamoStreams, order: str) -> None:
    lab.set(page_size=4, describes_per_second=0, order=order)
    lab.reshard(10, "orders")
    found = await ids(streams, await streams.current(ORDERS))
    assert len(found) == len(set(found)) == 16
    assert (found == sorted(found)) is (order == "creation")


async def test_a_child_is_listed_late_and_its_parent_open_for_long(lab: Laboratory, streams: DynamoStreams) -> None:
    stream = await streams.current(ORDERS)
    lab.set(child_listed_after=30.0, parent_open_for=60.0)
    children = lab.roll("orders")
    assert not set(children) & set(await ids(streams, stream))
    lab.advance(31)
    listed = await whole_listing(streams, stream)
    assert set(children) <= {shard.shard_id for shard in listed}
    assert not any(shard.closed for shard in listed)
    lab.advance(30)
    assert sum(shard.closed for shard in await whole_listing(streams, stream)) == 4


async def test_a_lost_page_comes_without_its_shards(lab: Laboratory, streams: DynamoStreams) -> None:
    stream = await streams.current(ORDERS)
    lab.set(page_size=2)
    lab.lose_pages(1)
    first = await streams.shard_page(stream, None)
    assert first.shards == ()
    assert len((await streams.shard_page(stream, first.last)).shards) == 2
    assert len(await ids(streams, stream)) == 4


async def test_a_shard_is_hidden_or_has_other_parents_for_some_listings(
    lab: Laboratory, streams: DynamoStreams
) -> None:
    stream = await streams.current(ORDERS)
    one, other = (await ids(streams, stream))[:2]
    lab.hide(one, times=1)
    lab.contradict(other, [one], times=1)
    lied = {shard.shard_id: shard for shard in await whole_listing(streams, stream)}
    assert one not in lied
    assert lied[ShardId(other)].parents == (one,)
    told = {shard.shard_id: shard for shard in await whole_listing(streams, stream)}
    assert one in told
    assert told[ShardId(other)].parents == ()


async def test_a_filter_for_children_can_be_unknown_to_the_endpoint(lab: Laboratory, streams: DynamoStreams) -> None:
    stream = await streams.current(ORDERS)
    parent = ShardId((await ids(streams, stream))[0])
    lab.roll("orders", shard=parent)
    for habit in ("ignored", "refused"):
        lab.set(shard_filter=habit)
        assert await streams.children(stream, parent) is None
    lab.set(shard_filter="honoured")
    children = await streams.children(stream, parent)
    assert children is not None
    assert [child.parents for child in children] == [(parent,)]


async def test_describing_too_often_is_refused(lab: Laboratory, streams: DynamoStreams) -> None:
    stream = await streams.current(ORDERS)
    lab.set(describes_per_second=2)
    for _ in range(2):
        await streams.shard_page(stream, None)
    with pytest.raises(Throttled):
        await streams.shard_page(stream, None)
    assert lab.stats()["refused"] == {"LimitExceededException": 1}
    lab.advance(2)
    await streams.shard_page(stream, None)


async def test_the_children_of_a_gone_shard_still_name_it_or_do_not(lab: Laboratory, streams: DynamoStreams) -> None:
    stream = await streams.current(ORDERS)
    one, other = (await ids(streams, stream))[:2]
    (child,) = lab.roll("orders", shard=one)
    (orphan,) = lab.roll("orders", shard=other)
    lab.vanish(one)
    lab.vanish(other, forget_parents=True)
    listed = {shard.shard_id: shard for shard in await whole_listing(streams, stream)}
    assert not {one, other} & listed.keys()
    assert listed[ShardId(child)].parents == (one,)
    assert listed[ShardId(orphan)].parents == ()
