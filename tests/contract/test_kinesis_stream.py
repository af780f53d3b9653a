"""The contract of a stream on Kinesis: what the port promises, at the laboratory's Kinesis over both transports."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from replicator.adapters.aws.clients import Place
from replicator.adapters.dynamodb.streams import whole_listing
from replicator.adapters.kinesis.destinations import enable
from replicator.adapters.kinesis.fan_out import Pace
from replicator.adapters.kinesis.streams import KinesisStreams
from replicator.domain.coalescing import coalesce, plan_run
from replicator.domain.errors import IteratorExpired, RecordsTrimmed, ShardGone, StreamUnusable, Throttled
from replicator.domain.identifiers import RegionId, RuleName, SequenceNumber, ShardId, TableName
from replicator.domain.progress import HORIZON, Position, after
from replicator.domain.records import ForeignRecord, StreamRecord, UnreadRecord, changes
from replicator.domain.rules import KinesisSource, Rule
from replicator.domain.shards.leases import StreamRef
from replicator.domain.values import replace
from replicator.laboratory.streamlab import Laboratory, laboratory
from tests.contract.worlds import no_fallback, place

REGION = "eu-west-1"
ORDERS, BILLS = TableName("orders"), TableName("bills")
DAY = 86_400.0
RULE = Rule(RuleName("orders"), RegionId("eu"), ORDERS, targets=())


class Bench:
    """A laboratory whose time stands still, with two tables that send their changes to one Kinesis stream."""

    def __init__(self, lab: Laboratory, opened: Place) -> None:
        self.lab = lab
        self.place = opened
        self.streams = KinesisStreams(opened, KinesisSource("changes"))
        self.arn = f"arn:aws:kinesis:{REGION}:000000000000:stream/changes"

    async def begin(self) -> None:
        client, _ = await self.place.kinesis.opened()
        await client.create_stream(StreamName="changes", ShardCount=2)
        for table in (ORDERS, BILLS):
            self.lab.make(table, REGION)
            await enable(self.place, table, self.arn)

    async def ref(self) -> StreamRef:
        return await self.streams.current(ORDERS)

    async def write(self, count: int, table: TableName = ORDERS) -> None:
        await self.lab.generate(table, count=count, keys=5)
        self.lab.kinesis.settle()

    async def read(self, shard_id: ShardId, position: Position = HORIZON, limit: int = 7) -> list[StreamRecord]:
        """Everything behind a place, to the shard's end or until nothing is left."""
        found: list[StreamRecord] = []
        iterator: str | None = await self.streams.iterator(await self.ref(), shard_id, position)
        while iterator is not None:
            page = await self.streams.read(iterator, limit)
            found += page.records
            iterator = None if page.is_level else page.next_iterator
        return found

    async def everything(self) -> list[StreamRecord]:
        shards = await whole_listing(self.streams, await self.ref())
        return [record for shard in shards for record in await self.read(shard.shard_id)]

    async def first_shard(self) -> ShardId:
        return (await whole_listing(self.streams, await self.ref()))[0].shard_id


@pytest.fixture(params=["lean", "stock"])
async def bench(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Bench]:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "laboratory")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "laboratory")
    lean = no_fallback if request.param == "lean" else None
    async with laboratory(seed=3) as lab, place(lab.url, lean=lean) as opened:
        lab.freeze()
        made = Bench(lab, opened)
        await made.begin()
        yield made


async def test_the_stream_is_its_tables_and_is_known_by_when_it_was_made(bench: Bench) -> None:
    made = round(bench.lab.clock.now() * 1000)
    ref = await bench.ref()
    assert (ref.table, ref.generation) == (ORDERS, made)
    assert await bench.streams.streams(ORDERS) == [ref]
    assert await bench.streams.shows_images(ref)
    other = await bench.streams.current(BILLS)
    assert other.arn != ref.arn, "each table has leases of its own"


async def test_what_is_wrong_with_a_destination_is_one_sentence(bench: Bench) -> None:
    client, _ = await bench.place.kinesis.opened()
    await client.create_stream(StreamName="others", ShardCount=1)

    async def why(stream: str, table: TableName = ORDERS) -> str:
        streams = KinesisStreams(bench.place, KinesisSource(stream))
        with pytest.raises(StreamUnusable) as caught:
            await streams.current(table)
        assert caught.value.advice
        return caught.value.message

    assert "There is no Kinesis stream missing in eu." in await why("missing")
    assert "does not send its changes to Kinesis stream others; it sends them to changes." in await why("others")
    assert "is arn:aws:kinesis" in await why("arn:aws:kinesis:eu-west-1:1:stream/changes")
    dynamodb: Any = bench.place.dynamodb
    await dynamodb.update_kinesis_streaming_destination(
        TableName=ORDERS,
        StreamArn=bench.arn,
        UpdateKinesisStreamingConfiguration={"ApproximateCreationDateTimePrecision": "MILLISECOND"},
    )
    assert "with times in milliseconds, so two writes within one" in await why(bench.arn)
    tolerant = KinesisStreams(bench.place, KinesisSource(bench.arn, in_microseconds=False))
    assert await tolerant.current(ORDERS) == await tolerant.current(ORDERS)
    await dynamodb.disable_kinesis_streaming_destination(TableName=ORDERS, StreamArn=bench.arn)
    assert "as a destination of table orders in eu is DISABLED." in await why("changes")


async def test_shards_are_listed_in_pages_with_both_parents(bench: Bench) -> None:
    ref = await bench.ref()
    one, two = [shard.shard_id for shard in await whole_listing(bench.streams, ref)]
    client, _ = await bench.place.kinesis.opened()
    await client.split_shard(StreamName="changes", ShardToSplit=one, NewStartingHashKey="1")
    left, right = (await whole_listing(bench.streams, ref))[2:]
    await client.merge_shards(StreamName="changes", ShardToMerge=right.shard_id, AdjacentShardToMerge=two)
    bench.lab.set(page_size=2)
    listed = {shard.shard_id: shard for shard in await whole_listing(bench.streams, ref)}
    assert len(listed) == 5
    assert listed[left.shard_id].parents == listed[right.shard_id].parents == (one,)
    (merged,) = [shard for shard in listed.values() if set(shard.parents) == {right.shard_id, two}]
    assert {shard.shard_id for shard in listed.values() if not shard.closed} == {left.shard_id, merged.shard_id}
    assert await bench.streams.children(ref, one) is None


async def test_every_change_comes_and_those_of_other_tables_only_move_the_position(bench: Bench) -> None:
    await bench.write(20)
    await bench.write(11, BILLS)
    records = await bench.everything()
    assert len(changes(records)) == 20
    foreign = [record for record in records if isinstance(record, ForeignRecord)]
    assert ({record.table for record in foreign}, len(foreign)) == ({"bills"}, 11)
    shard_id = await bench.first_shard()
    whole = await bench.read(shard_id)
    for place_, record in enumerate(whole):
        assert await bench.read(shard_id, after(record.sequence)) == whole[place_ + 1 :]


async def test_a_shard_ends_with_its_last_record_and_not_before(bench: Bench) -> None:
    await bench.write(30)
    ref, shard_id = await bench.ref(), await bench.first_shard()
    page = await bench.streams.read(await bench.streams.iterator(ref, shard_id, HORIZON), 1000)
    assert (page.is_level, page.next_iterator is None) == (True, False)
    bench.lab.split(shard=shard_id)
    pages = []
    iterator: str | None = await bench.streams.iterator(ref, shard_id, HORIZON)
    while iterator is not None:
        pages.append(await bench.streams.read(iterator, 4))
        iterator = pages[-1].next_iterator
    assert tuple(record for each in pages for record in each.records) == page.records
    assert [each.is_level for each in pages] == [False] * (len(pages) - 1) + [True]
    end = await bench.streams.iterator(ref, shard_id, after(page.records[-1].sequence))
    assert await bench.streams.read(end, 10) == replace(page, records=(), next_iterator=None)


async def test_an_answers_time_leaves_room_for_what_comes_late(bench: Bench) -> None:
    iterator = await bench.streams.iterator(await bench.ref(), await bench.first_shard(), HORIZON)
    page = await bench.streams.read(iterator, 10)
    assert page.at == int(bench.lab.clock.now()) - 2.0


async def test_repeats_and_disorder_come_as_they_are_and_end_in_the_same_items(bench: Bench) -> None:
    bench.lab.set(kinesis_duplicates=0.5, kinesis_disorder=2.0)
    table = bench.lab.tables.table(ORDERS, REGION)
    for _ in range(40):
        await bench.lab.generate(ORDERS, count=1, keys=3)
        bench.lab.advance(0.1)
    bench.lab.advance(3.0)
    records = changes(await bench.everything())
    assert len(records) > 40
    times = [record.micros for record in records]
    assert times != sorted(times)
    assert len({record.event_id for record in records}) == 40
    held = {}
    for run in coalesce(records):
        planned = plan_run(RULE, run, 1)
        assert planned is not None
        if planned.new is not None:
            held[run.key] = planned.new.attributes
    items = [json.loads(item) for item in bench.lab.generators[table].items.values()]
    assert sorted(map(str, held.values())) == sorted(map(str, items))


async def test_what_is_no_change_comes_as_it_is(bench: Bench) -> None:
    client, _ = await bench.place.kinesis.opened()
    await client.put_record(StreamName="changes", Data=b"no envelope", PartitionKey="0")
    (record,) = await bench.everything()
    assert isinstance(record, UnreadRecord)
    assert record.created_at == pytest.approx(bench.lab.clock.now(), abs=0.01)


async def test_an_iterator_lives_for_five_minutes(bench: Bench) -> None:
    iterator = await bench.streams.iterator(await bench.ref(), await bench.first_shard(), HORIZON)
    bench.lab.advance(301)
    with pytest.raises(IteratorExpired):
        await bench.streams.read(iterator, 10)


async def test_too_many_reads_are_throttled(bench: Bench) -> None:
    bench.lab.set(reads_per_second=1)
    iterator = await bench.streams.iterator(await bench.ref(), await bench.first_shard(), HORIZON)
    await bench.streams.read(iterator, 10)
    with pytest.raises(Throttled) as caught:
        await bench.streams.read(iterator, 10)
    assert "five times a second" in caught.value.advice


# -- what left the retention ---------------------------------------------------------------------------------------


async def test_a_place_whose_record_was_trimmed_says_so_though_kinesis_goes_on(bench: Bench) -> None:
    await bench.write(10)
    ref, shard_id = await bench.ref(), await bench.first_shard()
    first, second, *_ = await bench.read(shard_id)
    bench.lab.trim(shard=shard_id, keep=len(await bench.read(shard_id)) - 1)
    with pytest.raises(RecordsTrimmed, match="left the retention"):
        await bench.streams.iterator(ref, shard_id, after(first.sequence))
    assert (await bench.read(shard_id))[0] == second
    assert (await bench.read(shard_id, after(second.sequence)))[0].number > second.number


async def test_behind_an_old_record_nothing_was_lost_when_everything_was_read_up_to_lately(bench: Bench) -> None:
    await bench.write(4)
    ref, shard_id = await bench.ref(), await bench.first_shard()
    last = (await bench.read(shard_id))[-1]
    bench.lab.advance(2 * DAY)
    now = bench.lab.clock.now()
    with pytest.raises(RecordsTrimmed):
        await bench.streams.iterator(ref, shard_id, after(last.sequence))
    with pytest.raises(RecordsTrimmed):
        await bench.streams.iterator(ref, shard_id, after(last.sequence, through=now - DAY - 60))
    iterator = await bench.streams.iterator(ref, shard_id, after(last.sequence, through=now - 3600))
    await bench.write(6)
    assert len((await bench.streams.read(iterator, 100)).records) == len(await bench.read(shard_id)) > 0


async def test_what_is_trimmed_under_a_slow_reader_is_not_passed_in_silence(bench: Bench) -> None:
    await bench.write(40)
    ref, shard_id = await bench.ref(), await bench.first_shard()
    first = await bench.streams.read(await bench.streams.iterator(ref, shard_id, HORIZON), 2)
    assert first.next_iterator is not None
    bench.lab.advance(DAY - 60)
    iterator = await bench.streams.iterator(ref, shard_id, after(first.records[-1].sequence))
    page = await bench.streams.read(iterator, 2)
    assert page.next_iterator is not None
    with pytest.raises(RecordsTrimmed, match="where records leave its retention"):
        await bench.streams.read(page.next_iterator, 2)
    again = await bench.streams.iterator(ref, shard_id, after(page.records[-1].sequence))
    assert len((await bench.streams.read(again, 2)).records) == 2, "what is there can be read, place by place"


async def test_how_long_records_are_kept_is_the_streams_own_and_may_change(bench: Bench) -> None:
    bench.lab.set(retention_seconds=7 * DAY)
    ref, shard_id = await bench.ref(), await bench.first_shard()
    streams = KinesisStreams(bench.place, KinesisSource("changes"), Pace(described=0))
    assert streams.kept_seconds(ref) is None, "it was not asked yet"
    await bench.write(4)
    last = (await bench.read(shard_id))[-1]
    bench.lab.advance(2 * DAY)
    iterator = await streams.iterator(ref, shard_id, after(last.sequence))
    assert streams.kept_seconds(ref) == 7 * DAY
    bench.lab.set(retention_seconds=365 * DAY)
    page = await streams.read(iterator, 10)
    assert (page.is_level, streams.kept_seconds(ref)) == (True, 365 * DAY)
    client, _ = await bench.place.kinesis.opened()
    await client.delete_stream(StreamName="changes")
    with pytest.raises(ShardGone):
        await streams.read(iterator, 10)
    assert streams.kept_seconds(ref) == 365 * DAY, "what is gone for a moment changes nothing"
    with pytest.raises(ShardGone, match="There is no Kinesis stream"):
        await KinesisStreams(bench.place, KinesisSource("changes")).iterator(ref, shard_id, HORIZON)


# -- what is gone --------------------------------------------------------------------------------------------------


async def test_a_shard_or_a_stream_that_is_gone_says_so(bench: Bench) -> None:
    ref, shard_id = await bench.ref(), await bench.first_shard()
    iterator = await bench.streams.iterator(ref, shard_id, HORIZON)
    with pytest.raises(ShardGone):
        await bench.streams.iterator(ref, ShardId("shardId-000000000009"), HORIZON)
    client, _ = await bench.place.kinesis.opened()
    await client.delete_stream(StreamName="changes")
    with pytest.raises(ShardGone):
        await bench.streams.read(iterator, 10)
    with pytest.raises(ShardGone, match="the stream is gone"):
        await bench.streams.shard_page(ref, None)
    with pytest.raises(StreamUnusable, match="There is no Kinesis stream changes"):
        await bench.streams.current(ORDERS)
    bench.lab.advance(1)
    await client.create_stream(StreamName="changes", ShardCount=1)
    await enable(bench.place, ORDERS, bench.arn)
    with pytest.raises(ShardGone, match="another was created with its name"):
        await bench.streams.shard_page(ref, None)
    again = await bench.ref()
    assert again.generation > ref.generation
    with pytest.raises(RecordsTrimmed):
        await bench.streams.iterator(again, await bench.first_shard(), after(SequenceNumber("17")))
