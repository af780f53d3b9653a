from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from replicator.adapters.dynamodb.streams import DynamoStreams, whole_listing
from replicator.domain.errors import IteratorExpired, RecordsTrimmed, ShardGone, Throttled, Unreachable
from replicator.domain.identifiers import ShardId, TableName
from replicator.domain.progress import HORIZON, after
from replicator.domain.records import ChangeRecord
from replicator.domain.shards.leases import StreamRef
from replicator.laboratory.streamlab.refusals import Refused
from tests.streamlab import Laboratory, parse_script
from tests.streamlab.reader import everything, shard_records

ORDERS = TableName("orders")


@pytest.fixture
async def stream(lab: Laboratory, streams: DynamoStreams) -> StreamRef:
    return await streams.current(ORDERS)


@pytest.fixture
async def shard(lab: Laboratory, streams: DynamoStreams, stream: StreamRef) -> ShardId:
    """The only open shard, with a hundred records."""
    lab.reshard(1, "orders")
    (only,) = [shard for shard in await whole_listing(streams, stream) if not shard.closed]
    await lab.generate("orders", count=100)
    return only.shard_id


async def read(streams: DynamoStreams, stream: StreamRef, shard: ShardId) -> list[ChangeRecord]:
    return await shard_records(streams, stream, shard)


async def test_an_iterator_begins_at_or_behind_a_record(
    streams: DynamoStreams, stream: StreamRef, shard: ShardId
) -> None:
    records = await read(streams, stream, shard)
    page = await streams.read(await streams.iterator(stream, shard, after(records[30].sequence)), 1000)
    assert page.records == tuple(records[31:])
    listed = {one.shard_id: one for one in await whole_listing(streams, stream)}
    first = await streams.read(await streams.iterator(stream, shard, HORIZON, listed[shard].first), 10)
    assert first.records == tuple(records[:10])


async def test_the_last_page_of_a_closed_shard_has_records_and_no_iterator(
    lab: Laboratory, streams: DynamoStreams, stream: StreamRef, shard: ShardId
) -> None:
    lab.roll("orders")
    last = await streams.read(await streams.iterator(stream, shard, HORIZON), 1000)
    assert len(last.records) == 100
    assert last.next_iterator is None
    lab.set(last_page="empty")
    page = await streams.read(await streams.iterator(stream, shard, HORIZON), 1000)
    assert page.next_iterator is not None
    assert (await streams.read(page.next_iterator, 1000)) == type(page)((), None)


async def test_empty_pages_come_before_records(
    lab: Laboratory, streams: DynamoStreams, stream: StreamRef, shard: ShardId
) -> None:
    lab.set(empty_pages=2)
    iterator: str | None = await streams.iterator(stream, shard, HORIZON)
    sizes = []
    for _ in range(4):
        assert iterator is not None
        page = await streams.read(iterator, 1000)
        sizes.append(len(page.records))
        iterator = page.next_iterator
    assert sizes == [0, 0, 100, 0]


async def test_a_page_is_bounded_in_records_and_bytes(
    lab: Laboratory, streams: DynamoStreams, stream: StreamRef, shard: ShardId
) -> None:
    lab.set(most_bytes=10_000)
    page = await streams.read(await streams.iterator(stream, shard, HORIZON), 1000)
    assert 1 < len(page.records) < 50
    lab.set(most_bytes=1)
    page = await streams.read(await streams.iterator(stream, shard, HORIZON), 1000)
    assert len(page.records) == 1


async def test_an_iterator_expires(lab: Laboratory, streams: DynamoStreams, stream: StreamRef, shard: ShardId) -> None:
    iterator = await streams.iterator(stream, shard, HORIZON)
    lab.advance(899)
    following = (await streams.read(iterator, 10)).next_iterator
    assert following is not None
    lab.advance(2)
    with pytest.raises(IteratorExpired):
        await streams.read(iterator, 10)
    assert len((await streams.read(following, 10)).records) == 10


async def test_trimmed_records_and_gone_shards_are_told_apart(
    lab: Laboratory, streams: DynamoStreams, stream: StreamRef, shard: ShardId
) -> None:
    iterator = await streams.iterator(stream, shard, HORIZON)
    records = await read(streams, stream, shard)
    first = next(one.first for one in await whole_listing(streams, stream) if one.shard_id == shard)
    assert lab.trim("orders", keep=40) == 60
    with pytest.raises(RecordsTrimmed):
        await streams.read(iterator, 10)
    with pytest.raises(RecordsTrimmed):
        await streams.iterator(stream, shard, after(records[20].sequence))
    with pytest.raises(RecordsTrimmed):
        await streams.iterator(stream, shard, HORIZON, first)
    assert await read(streams, stream, shard) == records[60:]
    kept = await streams.iterator(stream, shard, after(records[70].sequence))
    lab.roll("orders")
    lab.vanish(shard)
    with pytest.raises(ShardGone):
        await streams.read(kept, 10)
    with pytest.raises(ShardGone):
        await streams.iterator(stream, shard, HORIZON)


async def test_time_trims_records_and_lets_closed_shards_vanish(
    lab: Laboratory, streams: DynamoStreams, stream: StreamRef, shard: ShardId
) -> None:
    lab.advance(80_000)
    (child,) = lab.roll("orders")
    await lab.generate("orders", count=10)
    lab.advance(10_000)
    assert await read(streams, stream, shard) == []
    lab.advance(80_000)
    assert shard not in {one.shard_id for one in await whole_listing(streams, stream)}
    assert await read(streams, stream, ShardId(child)) == []


async def test_faults_strike_the_calls_they_are_meant_for(
    lab: Laboratory, streams: DynamoStreams, stream: StreamRef, shard: ShardId
) -> None:
    iterator = await streams.iterator(stream, shard, HORIZON)
    lab.fault("throttle", operations=["GetRecords"], times=2)
    for _ in range(2):
        with pytest.raises(Throttled):
            await streams.read(iterator, 10)
    for kind in ("error", "drop", "drop_after", "truncate"):
        lab.fault(kind, operations=["GetRecords"], table="orders", times=1)
        with pytest.raises(Unreachable):
            await streams.read(iterator, 10)
    lab.fault("drop", table="customers")
    lab.fault("slow", operations=["GetRecords"], seconds=0.05, times=1)
    assert len((await streams.read(iterator, 10)).records) == 10
    assert lab.stats()["delivered"] == {"-": 10}
    assert lab.stats()["broken"] == {"GetRecords": 3}


async def test_random_faults_come_at_their_rate(
    lab: Laboratory, streams: DynamoStreams, stream: StreamRef, shard: ShardId
) -> None:
    lab.fault("throttle", operations=["GetRecords"], rate=0.5)
    iterator = await streams.iterator(stream, shard, HORIZON)
    failed = 0
    for _ in range(100):
        try:
            await streams.read(iterator, 1)
        except Throttled:
            failed += 1
    assert 30 < failed < 70
    lab.clear()
    await streams.read(iterator, 1)


async def test_a_re_created_stream_leaves_the_old_one_closed_and_readable(
    lab: Laboratory, streams: DynamoStreams, stream: StreamRef, shard: ShardId
) -> None:
    await lab.recreate("orders", off=True)
    await lab.generate("orders", count=5)
    await lab.recreate("orders")
    await lab.generate("orders", count=7)
    old, new = await streams.streams(ORDERS)
    assert old == stream
    assert new == await streams.current(ORDERS)
    assert new.generation > old.generation
    assert all(one.closed for one in await whole_listing(streams, old))
    assert len(await everything(streams, old)) == 100
    assert len(await everything(streams, new)) == 7
    assert lab.stats()["unrecorded"] == 5
    lab.advance(90_000)
    assert await streams.streams(ORDERS) == [new]
    with pytest.raises(ShardGone):
        await streams.shard_page(old, None)


async def test_an_item_of_the_generator_can_expire(
    lab: Laboratory, streams: DynamoStreams, stream: StreamRef, shard: ShardId
) -> None:
    last = {record.key.wire: record for record in await read(streams, stream, shard)}
    key, here = next((key, record) for key, record in last.items() if record.new is not None)
    assert await lab.expire("orders", json.loads(key))
    assert not await lab.expire("orders", json.loads(key))
    expired = (await read(streams, stream, shard))[-1]
    assert expired.by_ttl
    assert (expired.key, expired.old) == (here.key, here.new)


async def test_commands_that_make_no_sense_are_refused(lab: Laboratory, shard: ShardId) -> None:
    lab.make("customers", "eu-west-1")
    lab.roll(shard=shard)
    senseless: list[Callable[[], object]] = [
        lambda: lab.split("nothing"),
        lambda: lab.split(shard=shard),
        lambda: lab.merge("orders"),
        lambda: lab.vanish(lab.tables.chosen("customers", None)[0].open_shards[0].shard_id),
        lambda: lab.set(colour="blue"),
        lambda: lab.set(shard_filter="sometimes"),
        lambda: lab.fault("tantrum"),
        lambda: lab.make("orders", "eu-west-1"),
        lambda: parse_script([{"do": "explode"}]),
    ]
    for refused in senseless:
        with pytest.raises(Refused):
            refused()
