from __future__ import annotations

from replicator.adapters.dynamodb.streams import DynamoStreams, whole_listing
from replicator.domain.identifiers import ShardId, TableName
from replicator.domain.progress import HORIZON, after
from tests.contract.worlds import place
from tests.streamlab import Laboratory
from tests.streamlab.reader import everything, shard_records

ORDERS = TableName("orders")


async def test_records_that_nobody_was_given_count_as_skipped(lab: Laboratory, streams: DynamoStreams) -> None:
    stream = await streams.current(ORDERS)
    await lab.generate("orders", count=100)
    shards = await whole_listing(streams, stream)
    for shard in shards[:-1]:
        await shard_records(streams, stream, shard.shard_id)
    (lab_stream,) = lab.tables.streams()
    left = lab_stream.shards[shards[-1].shard_id].total
    assert left > 0
    assert lab.stats()["skipped"] == {"-": left}
    await shard_records(streams, stream, shards[-1].shard_id)
    assert lab.stats()["skipped"] == {"-": 0}
    lab.roll("orders")
    lab.vanish(table="orders")
    assert lab.stats()["skipped"] == {"-": 0}


async def test_a_hole_between_two_pages_counts_as_skipped(lab: Laboratory, streams: DynamoStreams) -> None:
    stream = await streams.current(ORDERS)
    await lab.generate("orders", count=100, keys=1)
    records = await everything(streams, stream)
    lab.counters.coverage.clear()
    shard = max((shard for one in lab.tables.streams() for shard in one.shards.values()), key=lambda shard: shard.total)
    await streams.read(await streams.iterator(stream, ShardId(shard.shard_id), HORIZON), 10)
    await streams.read(await streams.iterator(stream, ShardId(shard.shard_id), after(records[19].sequence)), 1000)
    assert lab.stats()["skipped"] == {"-": 10}


async def test_a_child_that_is_read_before_its_parents_end_is_noticed(lab: Laboratory, streams: DynamoStreams) -> None:
    stream = await streams.current(ORDERS)
    await lab.generate("orders", count=100)
    parent = ShardId((await whole_listing(streams, stream))[0].shard_id)
    (child,) = lab.roll("orders", shard=parent)
    await shard_records(streams, stream, ShardId(child))
    assert lab.stats()["read_early"] == 1
    assert lab.stats()["read_early_examples"] == [f"-: {child} before the end of {parent}"]
    await shard_records(streams, stream, parent)
    await shard_records(streams, stream, ShardId(child))
    assert lab.stats()["read_early"] == 1


async def test_readers_count_as_at_once_when_one_reads_between_two_reads_of_another(
    lab: Laboratory, streams: DynamoStreams
) -> None:
    stream = await streams.current(ORDERS)
    await lab.generate("orders", count=100, keys=1)
    shard = max((shard for one in lab.tables.streams() for shard in one.shards.values()), key=lambda shard: shard.total)
    first, second, third = [await streams.iterator(stream, ShardId(shard.shard_id), HORIZON) for _ in range(3)]
    following = (await streams.read(first, 10)).next_iterator
    assert following is not None
    await streams.read(following, 10)
    await streams.read(second, 10)
    assert lab.stats()["most_readers_at_once"] == 1
    await streams.read(third, 10)
    await streams.read(second, 10)
    assert lab.stats()["most_readers_at_once"] == 2


async def test_consumers_are_told_apart_by_the_path_of_their_endpoint(lab: Laboratory) -> None:
    await lab.generate("orders", count=50)
    for name in ("/blue", "/green"):
        async with place(lab.url + name) as opened:
            streams = DynamoStreams(opened)
            await everything(streams, await streams.current(ORDERS))
    assert lab.stats()["delivered"] == {"blue": 50, "green": 50}
    assert lab.stats()["skipped"] == {"blue": 0, "green": 0}


async def test_calls_are_counted_with_their_greatest_rate(lab: Laboratory, streams: DynamoStreams) -> None:
    stream = await streams.current(ORDERS)
    for _ in range(3):
        await streams.shard_page(stream, None)
    lab.advance(5)
    await streams.shard_page(stream, None)
    assert lab.stats()["calls"]["DescribeStream"] == {"total": 4, "most_per_second": 3}
