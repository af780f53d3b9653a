"""The contract of a stream: in memory, over HTTP from the laboratory, and on a server that speaks DynamoDB Streams."""

from __future__ import annotations

import asyncio
import base64
import itertools
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from replicator.adapters.aws.clients import Place
from replicator.adapters.dynamodb.streams import DynamoStreams, whole_listing
from replicator.domain.errors import (
    IteratorExpired,
    RecordsTrimmed,
    ShardGone,
    StreamUnusable,
    TableMissing,
    WorldMismatch,
)
from replicator.domain.identifiers import RegionId, SequenceNumber, ShardId, TableName
from replicator.domain.image import Image
from replicator.domain.progress import BEGINNING, HORIZON, Position, after
from replicator.domain.records import ChangeRecord, Event, ItemKey, changes
from replicator.domain.shards.leases import StreamRef
from replicator.domain.shards.lineage import Shard
from replicator.domain.values import replace
from replicator.laboratory.memory import MemorySource, MemoryStream
from replicator.ports.sources import RecordPage, ShardPage, Stream
from tests.contract.stream_laboratory import Habits, laboratory
from tests.contract.worlds import create_table, fresh, no_fallback, place

ORDERS = TableName("orders")
REF = StreamRef(
    RegionId("eu"), ORDERS, "arn:aws:dynamodb:eu-west-1:000000000000:table/orders/stream/x", 1_700_000_000_000
)
PARENT, LEFT, RIGHT = (
    ShardId("shardId-00000001-parent"),
    ShardId("shardId-00000002-left"),
    ShardId("shardId-00000003-right"),
)
MERGED = ShardId("shardId-00000004-merged")


def key(name: str) -> ItemKey:
    return ItemKey((("pk", "S", name),))


def item(name: str, number: int) -> Image:
    return Image(json.dumps({"pk": {"S": name}, "n": {"N": str(number)}}, separators=(",", ":")).encode())


async def drained(
    stream: Stream, ref: StreamRef, shard_id: ShardId, position: Position, limit: int
) -> list[RecordPage]:
    """Pages up to the end of the shard, or up to the first empty one."""
    pages = []
    iterator: str | None = await stream.iterator(ref, shard_id, position)
    while iterator is not None:
        page = await stream.read(iterator, limit)
        pages.append(page)
        iterator = page.next_iterator if page.records else None
    return pages


def numbers(pages: list[RecordPage]) -> list[int]:
    """The number attribute of every new image, in order."""
    news = (record.new for page in pages for record in changes(page.records))
    return [int(new.attributes["n"]["N"]) for new in news if new is not None]


# -- scripted shards: in memory, and the real client against the laboratory ----------------------------------------


class Script:
    """A memory stream to script, and the stream port to read it through."""

    def __init__(self, memory: MemoryStream, stream: Stream, habits: Habits) -> None:
        self.memory = memory
        self.stream = stream
        self.habits = habits

    async def listing(self) -> list[Shard]:
        """Every shard that is listed now."""
        return await whole_listing(self.stream, REF)

    def write(self, shard_id: ShardId, count: int, *, first: int = 1) -> None:
        """Insert items with rising sequence numbers, of changing width."""
        records = [
            ChangeRecord(
                Event.INSERT, key(f"k{n}"), None, item(f"k{n}", n), SequenceNumber(str(n)), 1_700_000_000.0, n % 2 == 0
            )
            for n in range(first, first + count)
        ]
        self.memory.append(REF, shard_id, records)


@pytest.fixture(params=["memory", "over http", "lean"])
async def script(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Script]:
    memory = MemoryStream()
    memory.enable(REF)
    memory.add_shard(REF, PARENT)
    if request.param == "memory":
        yield Script(memory, memory, Habits())
        return
    habits = Habits()
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "laboratory")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "laboratory")
    lean = no_fallback if request.param == "lean" else None
    async with laboratory(memory, REF, habits) as url, place(url, lean=lean) as opened:
        yield Script(memory, DynamoStreams(opened), habits)


async def test_the_present_stream_of_a_table_is_known(script: Script) -> None:
    assert await script.stream.current(ORDERS) == REF


async def test_every_stream_of_a_table_is_listed_oldest_first(script: Script) -> None:
    older = [replace(REF, arn=f"{REF.arn}-{age}", generation=REF.generation - age) for age in (1, 3, 2)]
    other = replace(REF, table=TableName("bills"), arn="bills")
    for stream in (*older, other, REF):
        script.memory.enable(stream)
    assert await script.stream.streams(ORDERS) == [older[1], older[2], older[0], REF]
    script.memory.drop(older[2])
    assert await script.stream.streams(ORDERS) == [older[1], older[0], REF]
    assert await script.stream.streams(TableName("unknown")) == []


async def test_every_shard_is_listed_with_its_parents_and_whether_it_ended(script: Script) -> None:
    script.memory.split(REF, PARENT, LEFT, RIGHT)
    script.memory.merge(REF, (LEFT, RIGHT), MERGED)
    assert await script.listing() == [
        Shard(PARENT, closed=True),
        Shard(LEFT, (PARENT,), closed=True),
        Shard(RIGHT, (PARENT,), closed=True),
        Shard(MERGED, (LEFT, RIGHT)),
    ]


async def test_a_listing_comes_in_pages_that_follow_each_other(script: Script) -> None:
    script.memory.split(REF, PARENT, LEFT, RIGHT)
    script.memory.shards_per_page = 2
    first = await script.stream.shard_page(REF, None)
    assert first == ShardPage((Shard(PARENT, closed=True), Shard(LEFT, (PARENT,))), LEFT)
    assert await script.stream.shard_page(REF, LEFT) == ShardPage((Shard(RIGHT, (PARENT,)),), None)
    assert await script.stream.shard_page(REF, RIGHT) == ShardPage((), None)
    script.memory.remove_shard(REF, LEFT)
    assert await script.stream.shard_page(REF, LEFT) == ShardPage((Shard(RIGHT, (PARENT,)),), None)
    assert script.memory.describes == 4


async def test_a_shard_that_is_listed_late_can_be_read_before(script: Script) -> None:
    script.memory.split(REF, PARENT, LEFT, RIGHT)
    script.memory.hide(REF, RIGHT)
    script.write(RIGHT, 2)
    assert [shard.shard_id for shard in await script.listing()] == [PARENT, LEFT]
    assert await script.stream.children(REF, PARENT) == [Shard(LEFT, (PARENT,))]
    assert numbers(await drained(script.stream, REF, RIGHT, HORIZON, 10)) == [1, 2]
    script.memory.reveal(REF, RIGHT)
    assert [shard.shard_id for shard in await script.listing()] == [PARENT, LEFT, RIGHT]


async def test_a_listing_that_lies_is_handed_on_as_it_is(script: Script) -> None:
    script.memory.split(REF, PARENT, LEFT)
    script.memory.misreport(REF, Shard(PARENT))
    script.memory.misreport(REF, Shard(LEFT, (RIGHT, MERGED), closed=True))
    assert await script.listing() == [Shard(PARENT), Shard(LEFT, (RIGHT, MERGED), closed=True)]
    script.memory.correct(REF, PARENT, LEFT)
    assert await script.listing() == [Shard(PARENT, closed=True), Shard(LEFT, (PARENT,))]


async def test_children_are_asked_for_by_their_parent(script: Script) -> None:
    assert await script.stream.children(REF, PARENT) == []
    script.memory.split(REF, PARENT, LEFT, RIGHT)
    assert await script.stream.children(REF, PARENT) == [Shard(LEFT, (PARENT,)), Shard(RIGHT, (PARENT,))]
    script.memory.merge(REF, (LEFT, RIGHT), MERGED)
    for parent in (LEFT, RIGHT):
        assert await script.stream.children(REF, parent) == [Shard(MERGED, (LEFT, RIGHT))]
    assert await script.stream.children(REF, MERGED) == []


async def test_an_endpoint_that_ignores_the_filter_is_told_from_one_without_children(script: Script) -> None:
    script.memory.filters_children = False
    assert await script.stream.children(REF, PARENT) is None
    script.memory.split(REF, PARENT, LEFT, RIGHT)
    assert await script.stream.children(REF, PARENT) is None


async def test_an_endpoint_that_refuses_the_filter_can_still_be_listed(script: Script) -> None:
    script.memory.split(REF, PARENT, LEFT)
    script.habits.refuses_filter = True
    script.memory.filters_children = False
    assert await script.stream.children(REF, PARENT) is None
    assert len(await script.listing()) == 2


async def test_a_shard_starts_with_its_first_record_even_when_that_is_gone(script: Script) -> None:
    script.memory.split(REF, PARENT, LEFT)
    script.memory.add_shard(REF, RIGHT, first=SequenceNumber("3"))
    script.write(LEFT, 5, first=7)
    script.memory.trim(REF, LEFT, keep=1)
    assert [shard.first for shard in await script.listing()] == [None, "7", "3"]


async def test_the_first_record_is_asked_for_by_its_number_and_its_loss_is_told(script: Script) -> None:
    script.write(PARENT, 5, first=7)
    first = SequenceNumber("7")
    for position in (HORIZON, BEGINNING):
        iterator = await script.stream.iterator(REF, PARENT, position, first)
        assert numbers([await script.stream.read(iterator, 10)]) == [7, 8, 9, 10, 11]
    iterator = await script.stream.iterator(REF, PARENT, after(SequenceNumber("8")), first)
    assert numbers([await script.stream.read(iterator, 10)]) == [9, 10, 11]
    script.memory.trim(REF, PARENT, keep=2)
    for position in (HORIZON, BEGINNING):
        with pytest.raises(RecordsTrimmed):
            await script.stream.iterator(REF, PARENT, position, first)
        iterator = await script.stream.iterator(REF, PARENT, position)
        assert numbers([await script.stream.read(iterator, 10)]) == [10, 11]


async def test_where_no_first_record_can_be_asked_for_the_horizon_stands_in(script: Script) -> None:
    script.write(PARENT, 2)
    script.habits.refuses_first = True
    iterator = await script.stream.iterator(REF, PARENT, BEGINNING, SequenceNumber("1"))
    assert numbers([await script.stream.read(iterator, 10)]) == [1, 2]
    script.memory.remove_shard(REF, PARENT)
    with pytest.raises(ShardGone):
        await script.stream.iterator(REF, PARENT, BEGINNING, SequenceNumber("1"))


async def test_records_keep_everything_the_stream_said(script: Script) -> None:
    script.write(PARENT, 2)
    (page, *_) = await drained(script.stream, REF, PARENT, HORIZON, 10)
    first, second = changes(page.records)
    assert (first.event, first.key, first.old, first.new) == (Event.INSERT, key("k1"), None, item("k1", 1))
    assert (first.sequence, first.created_at) == ("1", 1_700_000_000.0)
    assert (first.by_ttl, second.by_ttl) == (False, True)


@pytest.mark.parametrize("limit", [1, 3, 100])
async def test_every_page_of_a_closed_shard_comes_before_its_end(script: Script, limit: int) -> None:
    script.write(PARENT, 11)
    script.memory.close(REF, PARENT)
    pages = await drained(script.stream, REF, PARENT, HORIZON, limit)
    assert numbers(pages) == list(range(1, 12))
    assert [page.next_iterator is None for page in pages] == [False] * (len(pages) - 1) + [True]
    assert all(len(page.records) <= limit for page in pages)


async def test_an_open_shard_never_ends_and_goes_on_when_more_is_written(script: Script) -> None:
    iterator: str | None = await script.stream.iterator(REF, PARENT, HORIZON)
    for first in (1, 4):
        assert iterator is not None
        empty = await script.stream.read(iterator, 10)
        assert empty.records == ()
        assert empty.next_iterator is not None
        script.write(PARENT, 3, first=first)
        page = await script.stream.read(empty.next_iterator, 10)
        assert numbers([page]) == [first, first + 1, first + 2]
        iterator = page.next_iterator


async def test_an_empty_closed_shard_ends_at_once(script: Script) -> None:
    script.memory.close(REF, PARENT)
    assert await drained(script.stream, REF, PARENT, HORIZON, 10) == [RecordPage((), None)]


async def test_empty_pages_before_data_are_no_end(script: Script) -> None:
    script.write(PARENT, 1)
    script.memory.close(REF, PARENT)
    script.memory.empty_pages = 2
    iterator: str | None = await script.stream.iterator(REF, PARENT, HORIZON)
    pages = []
    while iterator is not None:
        pages.append(await script.stream.read(iterator, 10))
        iterator = pages[-1].next_iterator
    assert [len(page.records) for page in pages] == [0, 0, 1]


async def test_reading_goes_on_right_behind_a_position(script: Script) -> None:
    script.write(PARENT, 12)
    pages = await drained(script.stream, REF, PARENT, after(SequenceNumber("9")), 100)
    assert numbers(pages) == [10, 11, 12]


async def test_an_expired_iterator_says_so_and_its_position_still_stands(script: Script) -> None:
    script.write(PARENT, 3)
    iterator = await script.stream.iterator(REF, PARENT, after(SequenceNumber("1")))
    script.memory.expire_iterators()
    with pytest.raises(IteratorExpired):
        await script.stream.read(iterator, 10)
    assert numbers(await drained(script.stream, REF, PARENT, after(SequenceNumber("1")), 10)) == [2, 3]


async def test_a_trimmed_position_says_so_and_the_horizon_moves(script: Script) -> None:
    script.write(PARENT, 5)
    iterator = await script.stream.iterator(REF, PARENT, after(SequenceNumber("1")))
    script.memory.trim(REF, PARENT, keep=2)
    with pytest.raises(RecordsTrimmed):
        await script.stream.read(iterator, 10)
    with pytest.raises(RecordsTrimmed):
        await script.stream.iterator(REF, PARENT, after(SequenceNumber("1")))
    assert numbers(await drained(script.stream, REF, PARENT, HORIZON, 10)) == [4, 5]
    assert numbers(await drained(script.stream, REF, PARENT, after(SequenceNumber("4")), 10)) == [5]


async def test_a_shard_that_is_gone_says_so(script: Script) -> None:
    script.write(PARENT, 1)
    iterator = await script.stream.iterator(REF, PARENT, HORIZON)
    script.memory.remove_shard(REF, PARENT)
    with pytest.raises(ShardGone):
        await script.stream.read(iterator, 10)
    with pytest.raises(ShardGone):
        await script.stream.iterator(REF, PARENT, HORIZON)
    assert await script.listing() == []


async def test_a_stream_that_is_gone_says_so(script: Script) -> None:
    script.memory.drop(REF)
    for after_shard in (None, PARENT):
        with pytest.raises(ShardGone):
            await script.stream.shard_page(REF, after_shard)
    with pytest.raises(ShardGone):
        await script.stream.children(REF, PARENT)
    assert await script.stream.streams(ORDERS) == []


async def test_a_table_without_a_stream_is_refused_in_memory() -> None:
    memory = MemoryStream()
    memory.enable(REF)
    memory.disable(ORDERS)
    with pytest.raises(WorldMismatch, match="no stream"):
        await memory.current(ORDERS)


# -- writes: a memory source, and a server -------------------------------------------------------------------------


class Written:
    """A table that the test writes to, and the stream port to read its changes through."""

    async def put(self, name: str, number: int) -> None:
        raise NotImplementedError

    async def delete(self, name: str) -> None:
        raise NotImplementedError

    async def close(self) -> None:
        """Let the shard end."""
        raise NotImplementedError

    stream: Stream
    ref: StreamRef


class MemoryWritten(Written):
    def __init__(self) -> None:
        self.ref = REF
        self.memory = MemoryStream()
        self.memory.enable(REF)
        self.memory.add_shard(REF, PARENT)
        self.stream = self.memory
        self.source = MemorySource(self.memory, REF, shard_of=lambda _key: PARENT, now=lambda: 1_700_000_000.9)

    async def put(self, name: str, number: int) -> None:
        self.source.put(key(name), item(name, number))

    async def delete(self, name: str) -> None:
        self.source.delete(key(name))

    async def close(self) -> None:
        self.memory.close(REF, PARENT)


class ServerWritten(Written):
    def __init__(self, opened: Place, ref: StreamRef) -> None:
        self.dynamodb, self.ref, self.stream = opened.dynamodb, ref, DynamoStreams(opened)

    async def put(self, name: str, number: int) -> None:
        await self.dynamodb.put_item(TableName=self.ref.table, Item={"pk": {"S": name}, "n": {"N": str(number)}})

    async def delete(self, name: str) -> None:
        await self.dynamodb.delete_item(TableName=self.ref.table, Key={"pk": {"S": name}})

    async def close(self) -> None:
        await self.dynamodb.update_table(TableName=self.ref.table, StreamSpecification={"StreamEnabled": False})


@pytest.fixture(params=["memory", pytest.param("server", marks=pytest.mark.servers)])
async def written(request: pytest.FixtureRequest) -> AsyncIterator[Written]:
    if request.param == "memory":
        yield MemoryWritten()
        return
    async with place(request.getfixturevalue("dynamodb_url"), lean=no_fallback) as opened:
        table = TableName(fresh("orders"))
        await create_table(opened.dynamodb, table, {"pk": "S"}, stream=True)
        yield ServerWritten(opened, await DynamoStreams(opened).current(table))


async def only_shard(written: Written) -> ShardId:
    (shard,) = await whole_listing(written.stream, written.ref)
    return shard.shard_id


async def test_writes_arrive_in_order_with_chained_images_and_rising_numbers(written: Written) -> None:
    for number in (1, 2, 2, 3):
        await written.put("a", number)
    await written.delete("a")
    await written.delete("a")
    await written.put("a", 4)
    pages = await drained(written.stream, written.ref, await only_shard(written), HORIZON, 2)
    records = [record for page in pages for record in changes(page.records)]
    assert [record.event.value for record in records] == ["INSERT", "MODIFY", "MODIFY", "REMOVE", "INSERT"]
    assert numbers(pages) == [1, 2, 3, 4]
    assert [record.number for record in records] == sorted({record.number for record in records})
    for before, record in itertools.pairwise(records):
        assert record.old == before.new
    assert {record.key for record in records} == {key("a")}
    assert all(record.created_at == int(record.created_at) > 0 for record in records)


async def test_a_position_behind_every_record_leads_to_the_rest(written: Written) -> None:
    for number in range(5):
        await written.put(f"k{number}", number)
    shard_id = await only_shard(written)
    (page, *_) = await drained(written.stream, written.ref, shard_id, HORIZON, 100)
    for index, record in enumerate(page.records):
        rest = await drained(written.stream, written.ref, shard_id, after(record.sequence), 100)
        assert numbers(rest) == list(range(index + 1, 5))


async def test_a_shard_that_ended_is_read_to_its_last_record(written: Written) -> None:
    for number in range(7):
        await written.put(f"k{number}", number)
    await written.close()
    pages = await drained(written.stream, written.ref, await only_shard(written), HORIZON, 3)
    assert numbers(pages) == list(range(7))
    assert pages[-1].next_iterator is None
    assert (await whole_listing(written.stream, written.ref))[0].closed


async def test_writes_that_race_arrive_once_each(written: Written) -> None:
    await asyncio.gather(*(written.put(f"k{number}", number) for number in range(40)))
    pages = await drained(written.stream, written.ref, await only_shard(written), HORIZON, 7)
    assert sorted(numbers(pages)) == list(range(40))


async def test_a_table_that_is_written_has_one_stream_and_its_shard_no_children(written: Written) -> None:
    await written.put("a", 1)
    assert await written.stream.streams(written.ref.table) == [written.ref]
    shard_id = await only_shard(written)
    assert await written.stream.children(written.ref, shard_id) == []


async def test_the_first_record_of_a_listed_shard_can_be_asked_for(written: Written) -> None:
    for number in range(3):
        await written.put(f"k{number}", number)
    (shard,) = await whole_listing(written.stream, written.ref)
    assert shard.first is not None
    iterator = await written.stream.iterator(written.ref, shard.shard_id, BEGINNING, shard.first)
    assert numbers([await written.stream.read(iterator, 10)]) == [0, 1, 2]


# -- what only a server can be asked -------------------------------------------------------------------------------


@pytest.mark.servers
async def test_a_stream_shows_images_when_its_view_type_is_the_one_that_is_needed(dynamo_place: Place) -> None:
    streams, client = DynamoStreams(dynamo_place), dynamo_place.dynamodb
    table = TableName(fresh("orders"))
    await create_table(client, table, {"pk": "S"}, stream=True)
    right = await streams.current(table)
    await client.update_table(TableName=table, StreamSpecification={"StreamEnabled": False})
    keys_only: Any = {"StreamEnabled": True, "StreamViewType": "KEYS_ONLY"}
    await client.update_table(TableName=table, StreamSpecification=keys_only)
    with pytest.raises(StreamUnusable, match="view type KEYS_ONLY"):
        await streams.current(table)
    wrong = max(await streams.streams(table), key=lambda stream: stream.generation)
    assert (await streams.shows_images(right), await streams.shows_images(wrong)) == (True, False)
    assert not await streams.shows_images(replace(right, arn=f"{right.arn[:-3]}999"))


@pytest.mark.servers
async def test_an_iterator_older_than_its_life_has_expired_on_a_server(dynamo_place: Place) -> None:
    table = TableName(fresh("orders"))
    await create_table(dynamo_place.dynamodb, table, {"pk": "S"}, stream=True)
    streams = DynamoStreams(dynamo_place)
    ref = await streams.current(table)
    (shard,) = await whole_listing(streams, ref)
    iterator = await streams.iterator(ref, shard.shard_id, HORIZON)
    aged = json.loads(base64.b64decode(iterator))
    aged["i"] -= 16 * 60
    with pytest.raises(IteratorExpired):
        await streams.read(base64.b64encode(json.dumps(aged).encode()).decode(), 10)


@pytest.mark.servers
async def test_a_position_that_a_server_no_longer_has_was_trimmed(dynamo_place: Place) -> None:
    table = TableName(fresh("orders"))
    await create_table(dynamo_place.dynamodb, table, {"pk": "S"}, stream=True)
    streams = DynamoStreams(dynamo_place)
    ref = await streams.current(table)
    (shard,) = await whole_listing(streams, ref)
    with pytest.raises(RecordsTrimmed):
        await streams.iterator(ref, shard.shard_id, after(SequenceNumber("1")))


@pytest.mark.servers
async def test_a_shard_a_server_does_not_know_is_gone(dynamo_place: Place) -> None:
    table = TableName(fresh("orders"))
    await create_table(dynamo_place.dynamodb, table, {"pk": "S"}, stream=True)
    streams = DynamoStreams(dynamo_place)
    ref = await streams.current(table)
    with pytest.raises(ShardGone):
        await streams.iterator(ref, ShardId("shardId-00000000000000000000-99999999"), HORIZON)


@pytest.mark.servers
async def test_a_table_without_a_usable_stream_is_refused_with_the_reason(dynamo_place: Place) -> None:
    streams = DynamoStreams(dynamo_place)
    without, keys_only = TableName(fresh("orders")), TableName(fresh("orders"))
    await create_table(dynamo_place.dynamodb, without, {"pk": "S"})
    await create_table(dynamo_place.dynamodb, keys_only, {"pk": "S"})
    await dynamo_place.dynamodb.update_table(
        TableName=keys_only, StreamSpecification={"StreamEnabled": True, "StreamViewType": "KEYS_ONLY"}
    )
    with pytest.raises(WorldMismatch, match="has no stream"):
        await streams.current(without)
    with pytest.raises(WorldMismatch, match="view type KEYS_ONLY"):
        await streams.current(keys_only)
    with pytest.raises(TableMissing, match="missing-table"):
        await streams.current(TableName("missing-table"))
