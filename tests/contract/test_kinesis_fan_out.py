"""Enhanced fan-out of a stream on Kinesis: the laboratory's subscriptions, read by the client as it is.

Whatever becomes of subscriptions, a reader has every record once and in order: what is not pushed is asked for.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from random import Random
from typing import Any

import pytest

from replicator.adapters.aws.clients import Place
from replicator.adapters.dynamodb.streams import whole_listing
from replicator.adapters.kinesis.consumers import register
from replicator.adapters.kinesis.destinations import enable
from replicator.adapters.kinesis.fan_out import Pace
from replicator.adapters.kinesis.streams import KinesisStreams
from replicator.domain.errors import (
    IteratorExpired,
    KeyRefused,
    RecordsTrimmed,
    ReplicatorError,
    StreamUnusable,
    Throttled,
    Unreachable,
)
from replicator.domain.identifiers import ShardId, TableName
from replicator.domain.progress import HORIZON, Position, after
from replicator.domain.records import StreamRecord
from replicator.domain.rules import KinesisSource
from replicator.domain.shards.leases import StreamRef
from replicator.domain.values import replace
from replicator.laboratory.streamlab import Laboratory, laboratory
from replicator.laboratory.streamlab.refusals import Refused
from replicator.ports.sources import RecordPage
from tests.contract.worlds import no_fallback, place
from tests.patience import PATIENT_SECONDS

REGION = "eu-west-1"
ORDERS = TableName("orders")
ARN = f"arn:aws:kinesis:{REGION}:000000000000:stream/changes"
SOURCE = KinesisSource("changes", group="test")
NAME = SOURCE.consumer_of(ORDERS)
PACE = Pace(waits=0.1, taken=0.05, rests=0.2, renewed=60, unread=60, sound=0.1, looks=(3600, 3600))
"""Quick, and a shard is not asked while it is pushed."""


class Reader:
    """One reader of one shard, which goes on where it is."""

    def __init__(self, bench: Bench, shard_id: ShardId, position: Position = HORIZON, pace: Pace = PACE) -> None:
        self.bench = bench
        self.streams = KinesisStreams(bench.place, SOURCE, pace)
        self.shard_id = shard_id
        self.position = position
        self.iterator: str | None = None
        self.records: list[StreamRecord] = []
        self.errors: list[ReplicatorError] = []
        self.pushed = 0
        self.ended = False

    async def page(self) -> RecordPage | None:
        """The next page; None when it cannot be read now."""
        try:
            if self.iterator is None:
                self.iterator = await self.streams.iterator(await self.bench.ref(), self.shard_id, self.position)
            page = await self.streams.read(self.iterator, 1000)
        except ReplicatorError as error:
            self.errors.append(error)
            self.iterator = None
            return None
        self.records += page.records
        if page.records:
            self.position = after(page.records[-1].sequence)
            self.pushed += page.pushed
        self.iterator, self.ended = page.next_iterator, page.next_iterator is None
        return page

    async def until(self, count: int) -> None:
        """Read until so many records came."""
        async with asyncio.timeout(PATIENT_SECONDS):
            while len(self.records) < count and not self.ended:
                await self.page()

    async def subscribed(self) -> None:
        """Read until something is pushed, or may be."""
        async with asyncio.timeout(PATIENT_SECONDS):
            while (page := await self.page()) is None or not page.pushed:
                pass


class Bench:
    """A table that sends its changes to a Kinesis stream of one shard, with a consumer."""

    def __init__(self, lab: Laboratory, opened: Place) -> None:
        self.lab = lab
        self.place = opened

    async def begin(self) -> None:
        client, _ = await self.place.kinesis.opened()
        await client.create_stream(StreamName="changes", ShardCount=1)
        self.lab.make(ORDERS, REGION)
        await enable(self.place, ORDERS, ARN)
        await register(self.place, ARN, NAME)

    async def ref(self) -> StreamRef:
        return await KinesisStreams(self.place, SOURCE).current(ORDERS)

    async def write(self, count: int) -> None:
        await self.lab.generate(ORDERS, count=count, keys=5)
        self.lab.kinesis.settle()

    async def shards(self) -> list[ShardId]:
        listed = await whole_listing(KinesisStreams(self.place, SOURCE), await self.ref())
        return [shard.shard_id for shard in listed]

    async def reader(self, **more: Any) -> Reader:
        return Reader(self, (await self.shards())[0], **more)

    def calls(self, operation: str) -> int:
        return self.lab.counters.calls[operation].total

    def held(self) -> list[str]:
        """The sequence numbers of the first shard, as it has them."""
        stream = self.lab.tables.by_arn[ARN][1]
        return [str(number) for number in next(iter(stream.shards.values())).numbers]


@pytest.fixture
async def bench(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Bench]:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "laboratory")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "laboratory")
    async with (
        laboratory(seed=3, takeover_seconds=0.05, heartbeat_seconds=0.05) as lab,
        place(lab.url, lean=no_fallback) as opened,
    ):
        made = Bench(lab, opened)
        await made.begin()
        yield made


def numbers(records: list[StreamRecord]) -> list[str]:
    return [record.sequence for record in records]


async def test_what_comes_is_pushed_behind_the_first_answer(bench: Bench) -> None:
    await bench.write(10)
    reader = await bench.reader()
    await reader.until(10)
    await reader.subscribed()
    asked = bench.calls("GetRecords")
    for _ in range(3):
        await bench.write(7)
        await reader.until(len(bench.held()))
    assert numbers(reader.records) == bench.held()
    assert (bench.calls("GetRecords"), reader.pushed > 0, bench.calls("SubscribeToShard")) == (asked, True, 1)


async def test_nothing_pushed_is_level_and_a_quiet_shard_is_asked_up_to_when_it_was_read(bench: Bench) -> None:
    reader = await bench.reader(pace=Pace(waits=0.2, looks=(3.0, 3.0)))
    await reader.subscribed()
    levels: list[bool | None] = []
    async with asyncio.timeout(PATIENT_SECONDS):
        while not any(levels):
            page = await reader.page()
            assert page is not None
            assert page.pushed
            levels.append(page.is_level)
    assert levels[0] is False


async def test_a_subscription_is_renewed_and_nothing_is_missed_or_comes_twice(bench: Bench) -> None:
    bench.lab.set(subscription_seconds=0.15)
    reader = await bench.reader()
    await reader.subscribed()
    while bench.calls("SubscribeToShard") < 4:
        await bench.write(3)
        await reader.until(len(bench.held()))
    early = await bench.reader(pace=Pace(waits=0.02, taken=0.05, renewed=0.1))
    bench.lab.set(subscription_seconds=60)
    before = bench.calls("SubscribeToShard")
    while bench.calls("SubscribeToShard") < before + 3:
        await bench.write(3)
        await early.until(len(bench.held()))
    assert numbers(reader.records) == bench.held()[: len(reader.records)]
    assert numbers(early.records) == bench.held()
    assert reader.errors == early.errors == []


@pytest.mark.parametrize("kind", ["truncate", "drop"])
async def test_a_connection_that_breaks_inside_an_event_loses_nothing(bench: Bench, kind: str) -> None:
    reader = await bench.reader()
    await reader.subscribed()
    for _ in range(4):
        bench.lab.fault(kind, operations=["SubscribeToShardEvent"], contains="SequenceNumber", times=1)
        await bench.write(9)
        await reader.until(len(bench.held()))
        await asyncio.sleep(0.06)
        await reader.subscribed()
    assert numbers(reader.records) == bench.held()
    assert bench.lab.counters.broken["SubscribeToShardEvent"] == 4


async def test_a_second_reader_takes_over_and_the_first_one_polls_meanwhile(bench: Bench) -> None:
    bench.lab.set(takeover_seconds=1.0)
    bench.lab.freeze()
    first = await bench.reader(pace=Pace(waits=0.02, taken=0.01, rests=60))
    second = await bench.reader(pace=Pace(waits=0.02, taken=0.01, rests=0.2))
    await first.subscribed()
    await bench.write(5)
    await second.until(5)
    await second.page()
    assert bench.lab.counters.refused["ResourceInUseException"] >= 1
    await first.until(5)
    bench.lab.advance(1)
    await second.subscribed()
    await bench.write(5)
    await first.until(10)
    await second.until(10)
    assert numbers(first.records) == numbers(second.records) == bench.held()
    assert first.errors == second.errors == []
    assert second.pushed > 0


async def test_a_place_that_is_behind_is_asked_for_and_what_it_has_does_not_come_again(bench: Bench) -> None:
    reader = await bench.reader()
    await reader.subscribed()
    first = reader.iterator
    await bench.write(30)
    await reader.until(30)
    assert first is not None
    again = await reader.streams.read(first, 10)
    assert not again.pushed
    assert numbers(list(again.records)) == bench.held()[: len(again.records)]
    assert again.next_iterator is not None
    await bench.write(4)
    rest = await reader.streams.read(again.next_iterator, 1000)
    assert numbers([*again.records, *rest.records]) == bench.held()
    assert rest.next_iterator is not None
    await bench.write(4)
    page = await reader.streams.read(rest.next_iterator, 1000)
    while not page.records:
        assert page.next_iterator is not None
        page = await reader.streams.read(page.next_iterator, 1000)
    assert page.pushed
    assert numbers(list(page.records)) == bench.held()[34 : 34 + len(page.records)]


async def test_a_shard_ends_with_its_children_named(bench: Bench) -> None:
    reader = await bench.reader()
    await reader.subscribed()
    await bench.write(6)
    bench.lab.split(shard=reader.shard_id)
    await bench.write(6)
    await reader.until(100)
    assert (reader.ended, numbers(reader.records)) == (True, bench.held())
    children = [Reader(bench, shard_id) for shard_id in (await bench.shards())[1:]]
    for child in children:
        await child.subscribed()
    assert sum(len(child.records) for child in children) == 6


async def test_a_reader_that_takes_nothing_holds_the_sender_up_and_then_has_everything(bench: Bench) -> None:
    reader = await bench.reader(pace=Pace(waits=0.1, taken=0.05, unread=60, looks=(3600, 3600)))
    await reader.subscribed()
    client, _ = await bench.place.kinesis.opened()
    for _ in range(24):
        await client.put_record(StreamName="changes", Data=b"x" * 500_000, PartitionKey="0")
    await asyncio.sleep(0.5)
    sent = sum(each.place for each in bench.lab.kinesis.fan_out.subscriptions.values())
    assert sent < 20, "events are not read ahead"
    await reader.until(24)
    assert numbers(reader.records) == bench.held()


async def test_a_subscription_that_is_not_read_is_closed(bench: Bench) -> None:
    reader = await bench.reader(pace=replace(PACE, unread=0.3))
    await reader.subscribed()
    (fan_out,) = reader.streams._fan_outs.values()
    async with asyncio.timeout(PATIENT_SECONDS):
        while fan_out.open:  # noqa: ASYNC110 - it ends by a timer of its own
            await asyncio.sleep(0.05)
    await bench.write(3)
    await reader.until(3)
    assert numbers(reader.records) == bench.held()


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("InternalFailureException", Unreachable),
        ("KMSAccessDeniedException", KeyRefused),
        ("KMSInvalidStateException", Unreachable),
    ],
)
async def test_an_error_in_the_events_is_what_it_is_for_polls(
    bench: Bench, code: str, kind: type[ReplicatorError]
) -> None:
    reader = await bench.reader()
    await reader.subscribed()
    bench.lab.fault("error", operations=["SubscribeToShardEvent"], code=code, times=1)
    await bench.write(5)
    await reader.until(5)
    assert [type(error) for error in reader.errors] == [kind]
    assert code in reader.errors[0].message
    assert numbers(reader.records) == bench.held()


async def test_throttles_are_waited_for_and_said_when_they_stay(bench: Bench) -> None:
    reader = await bench.reader()
    bench.lab.fault("throttle", operations=["SubscribeToShard"], code="LimitExceededException")
    await bench.write(5)
    await reader.until(5)
    assert reader.errors == []
    async with asyncio.timeout(PATIENT_SECONDS):
        while not reader.errors:
            await reader.page()
    assert isinstance(reader.errors[0], Throttled)
    bench.lab.clear()
    await reader.subscribed()


async def test_a_consumer_that_is_gone_is_said_while_the_shard_is_polled(bench: Bench) -> None:
    reader = await bench.reader()
    await reader.subscribed()
    client: Any = (await bench.place.kinesis.opened())[0]
    await client.deregister_stream_consumer(StreamARN=ARN, ConsumerName=NAME)
    await bench.write(5)
    await reader.until(5)
    async with asyncio.timeout(PATIENT_SECONDS):
        while not reader.errors:
            await reader.page()
    (error, *_) = reader.errors
    assert isinstance(error, StreamUnusable)
    assert (NAME in error.message, "`replicator init` registers it" in error.advice) == (True, True)
    assert numbers(reader.records) == bench.held()
    await register(bench.place, ARN, NAME)
    await reader.subscribed()


async def test_a_pushed_place_that_was_left_for_long_passes_nothing_that_was_trimmed_meanwhile(bench: Bench) -> None:
    reader = await bench.reader(pace=replace(PACE, lives=0.4))
    await reader.subscribed()
    await bench.write(4)
    await reader.until(4)
    left = reader.iterator
    assert left is not None
    assert reader.pushed > 0
    await asyncio.sleep(0.5)
    await bench.write(6)
    bench.lab.trim(shard=reader.shard_id, keep=2)
    with pytest.raises(IteratorExpired):
        await reader.streams.read(left, 1000)
    reader.iterator = None
    assert await reader.page() is None
    assert isinstance(reader.errors[-1], RecordsTrimmed)


class Family:
    """Readers of every shard of the stream, each begun when its parents are read."""

    def __init__(self, bench: Bench, dice: Random) -> None:
        self.bench = bench
        self.stream = bench.lab.tables.by_arn[ARN][1]
        self.readers: dict[ShardId, Reader] = {}
        self.over = asyncio.Event()
        """Set when nothing is written any more."""
        self._works: list[asyncio.Task[None]] = []
        self._dice = dice
        renewed = dice.choice([0.1, 0.3, 60])
        self._pace = replace(PACE, waits=0.05, renewed=renewed, unread=0.2, sound=0.05, looks=(0.05, 0.2))

    async def read(self) -> None:
        async with asyncio.TaskGroup() as group:
            while self._left() or not self.over.is_set():
                for shard in await whole_listing(KinesisStreams(self.bench.place, SOURCE), await self.bench.ref()):
                    parents = [self.readers.get(parent) for parent in shard.parents]
                    if shard.shard_id not in self.readers and all(one is not None and one.ended for one in parents):
                        self.readers[shard.shard_id] = Reader(self.bench, shard.shard_id, pace=self._pace)
                        self._works.append(group.create_task(self._read(shard.shard_id)))
                await asyncio.sleep(0.1)
            for work in self._works:
                work.cancel()

    async def _read(self, shard_id: ShardId) -> None:
        """Now and then another process goes on where this one is, and now and then nothing is read for a while."""
        one, dice = self.readers[shard_id], self._dice
        while not one.ended:
            if dice.random() < 0.05:
                before, one = one, Reader(self.bench, shard_id, one.position, self._pace)
                one.records, self.readers[shard_id] = before.records, one
            if dice.random() < 0.1:
                await asyncio.sleep(dice.random() * 0.4)
            await one.page()

    def _left(self) -> bool:
        """Whether something is not read."""
        readers = {shard_id: self.readers.get(ShardId(shard_id)) for shard_id in self.stream.shards}
        return any(
            one is None
            or len(one.records) < len(self.stream.shards[shard_id].numbers)
            or not (one.ended or self.stream.shards[shard_id].is_open)
            for shard_id, one in readers.items()
        )

    async def change(self) -> None:
        """Write, split and merge for a while; a slow machine lets the readers subscribe now and then, too."""
        dice = self._dice
        for number in range(30):
            await self.bench.write(dice.randint(1, 15))
            subscribed = self.bench.calls("SubscribeToShard")
            with suppress(Refused):  # two that are no neighbours
                self._reshard()
            if number % 10 == 0:  # the first time nothing is subscribed to, later on more than before
                await self._subscribed(more_than=min(subscribed, number // 10))
            await asyncio.sleep(dice.random() * 0.3)
        self.over.set()

    async def _subscribed(self, more_than: int) -> None:
        for _ in range(int(PATIENT_SECONDS / 0.05)):
            if self.bench.calls("SubscribeToShard") > more_than:
                return
            await asyncio.sleep(0.05)
        raise AssertionError("No reader subscribes.")

    def _reshard(self) -> None:
        lab, dice = self.bench.lab, self._dice
        opened = [shard.shard_id for shard in self.stream.open_shards]
        if dice.random() < 0.3 and len(opened) < 6:
            lab.split(shard=dice.choice(opened))
        elif len(opened) > 1:
            lab.merge(shards=dice.sample(opened, 2))


@pytest.mark.long
@pytest.mark.parametrize("seed", [1, 2, 10])
async def test_shards_that_split_and_merge_under_subscriptions_give_everything_once_and_in_order(
    bench: Bench, seed: int
) -> None:
    dice = Random(seed)
    bench.lab.set(subscription_seconds=dice.choice([0.1, 0.2, 0.5]))
    family = Family(bench, dice)
    async with asyncio.timeout(180), asyncio.TaskGroup() as group:
        group.create_task(family.read())
        group.create_task(family.change())
    assert len(family.stream.shards) > 8
    assert bench.calls("SubscribeToShard") > 1
    for shard in family.stream.shards.values():
        assert numbers(family.readers[ShardId(shard.shard_id)].records) == [str(number) for number in shard.numbers]
