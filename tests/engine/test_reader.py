"""Reading one shard: pages by position, iterators that die, places that are gone, and the pace of polling."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

import pytest

from replicator.domain.errors import LeaseLost, MalformedRecord, RecordsTrimmed, ShardGone, Unreachable
from replicator.domain.identifiers import SequenceNumber, ShardId
from replicator.domain.progress import BEGINNING, END, HORIZON, Position
from replicator.domain.shards.lineage import Shard
from replicator.domain.values import replace
from replicator.engine.limits import Limits
from replicator.engine.reading.cursors import CURSORS_KEPT, Page
from replicator.engine.reading.memory_budget import ByteBudget
from replicator.engine.reading.reader import ShardReader
from replicator.engine.waiting import Stopped
from replicator.laboratory.memory import Fault, MemoryStream, OpenFence
from replicator.ports.sources import RecordPage
from replicator.ports.targets import Fence
from tests.engine.shard_bench import ListingEnds
from tests.engine.world import LoopClock, Recorder, World, until


@dataclass
class Desk:
    """A reader of shard s0."""

    world: World = field(default_factory=World)
    limits: Limits = field(default_factory=lambda: Limits(page_records=3))
    fence: Fence = field(default_factory=OpenFence)
    budget: ByteBudget = field(default_factory=lambda: ByteBudget(1_000_000))

    def __post_init__(self) -> None:
        self.observer = Recorder()
        self.stop = asyncio.Event()
        self.reader = ShardReader(
            self.world.streams,
            self.world.ref,
            Shard(ShardId("s0"), first=SequenceNumber("1")),
            ends=ListingEnds(self.world),
            budget=self.budget,
            limits=self.limits,
            clock=LoopClock(),
            observer=self.observer,
            fence=self.fence,
            stop=self.stop,
        )

    async def all(self, position: Position = HORIZON) -> list[str]:
        """Sequence numbers of everything behind a position, until the shard ends."""
        numbers: list[str] = []
        while position != END:
            page = await self.reader.read(position)
            numbers += [record.sequence for record in page.records]
            position = page.then
            self.reader.drop(page)
        return numbers

    async def all_but_the_end(self, count: int) -> list[str]:
        """The first sequence numbers of an open shard."""
        numbers: list[str] = []
        position = HORIZON
        while len(numbers) < count:
            page = await self.reader.read(position)
            numbers += [record.sequence for record in page.records]
            position = page.then
            self.reader.drop(page)
        return numbers

    def end(self) -> None:
        self.world.streams.close(self.world.ref, ShardId("s0"))


def numbers(page: Page) -> list[str]:
    return [record.sequence for record in page.records]


async def test_every_record_is_read_once_and_in_order_up_to_the_end_of_the_shard() -> None:
    desk = Desk()
    desk.world.write("abcdefgh")
    desk.end()
    assert await desk.all() == [str(number) for number in range(1, 9)]


async def test_the_last_page_carries_its_records_and_the_end() -> None:
    desk = Desk()
    desk.world.write("ab")
    desk.end()
    page = await desk.reader.read(HORIZON)
    assert (numbers(page), page.then) == (["1", "2"], END)


async def test_empty_pages_before_the_records_are_not_the_end() -> None:
    desk = Desk()
    desk.world.write("ab")
    desk.world.streams.empty_pages = 5
    desk.end()
    assert await desk.all() == ["1", "2"]


async def test_reading_begins_right_behind_a_position() -> None:
    desk = Desk()
    desk.world.write("abcdef")
    desk.end()
    assert await desk.all(Position("4")) == ["5", "6"]


async def test_an_expired_iterator_is_derived_anew_from_the_last_record_that_was_read() -> None:
    desk = Desk()
    desk.world.write("abcdefg")
    desk.end()
    first = await desk.reader.read(HORIZON)
    desk.world.streams.expire_iterators()
    assert await desk.all(first.then) == ["4", "5", "6", "7"]
    assert desk.observer.of("iterator_expired") == [("s0",)]
    assert desk.observer.troubles == {}


async def test_an_iterator_that_expires_while_nothing_happens_loses_nothing() -> None:
    desk = Desk()
    reading = asyncio.create_task(desk.reader.read(HORIZON))
    await asyncio.sleep(60)
    desk.world.streams.expire_iterators()
    await asyncio.sleep(5)
    desk.world.write("ab")
    assert numbers(await reading) == ["1", "2"]


async def test_iterators_that_always_expire_at_once_are_told_and_slowed_down() -> None:
    desk = Desk()
    desk.world.write("a")

    async def expire(call: str) -> None:
        if call == "GetRecords":
            desk.world.streams.expire_iterators()

    desk.world.streams.faults.pause = expire
    reading = asyncio.create_task(desk.reader.read(HORIZON))
    await until(lambda: bool(desk.observer.troubles))
    assert "expires at once" in next(iter(desk.observer.troubles.values())).message
    desk.world.streams.faults.pause = None
    assert numbers(await reading) == ["1"]
    assert desk.observer.troubles == {}


@pytest.mark.parametrize("fault", Fault)
async def test_a_failed_call_is_repeated_and_told(fault: Fault) -> None:
    desk = Desk()
    desk.world.write("abcd")
    desk.end()
    desk.world.streams.faults.script(None, fault, fault, None, fault)
    assert await desk.all() == ["1", "2", "3", "4"]
    assert desk.observer.of("service_failed")
    assert desk.observer.troubles == {}


async def test_a_record_that_cannot_be_understood_is_told_and_never_skipped() -> None:
    desk = Desk()
    desk.world.write("a")
    desk.world.streams.faults.outage = MalformedRecord
    reading = asyncio.create_task(desk.reader.read(HORIZON))
    await asyncio.sleep(300)
    assert desk.observer.troubles
    assert not reading.done()
    desk.world.streams.faults.outage = None
    assert numbers(await reading) == ["1"]


# -- places that are gone ------------------------------------------------------------------------------------------


async def test_a_trimmed_position_is_the_callers_to_decide() -> None:
    desk = Desk()
    desk.world.write("abcdef")
    desk.world.streams.trim(desk.world.ref, ShardId("s0"), keep=2)
    with pytest.raises(RecordsTrimmed):
        await desk.reader.read(Position("2"))
    assert numbers(await desk.reader.read(HORIZON)) == ["5", "6"]


async def test_the_first_record_that_is_left_is_told() -> None:
    desk = Desk()
    desk.world.streams.empty_pages = 3
    desk.world.write("abcdef")
    desk.world.streams.trim(desk.world.ref, ShardId("s0"), keep=2)
    assert not await desk.reader.reaches(BEGINNING)
    assert await desk.reader.first_left() == Position("5")
    desk.world.streams.trim(desk.world.ref, ShardId("s0"), keep=0)
    assert await desk.reader.first_left() is None, "it is open, so something may come"
    desk.world.streams.faults.outage = Unreachable
    with pytest.raises(Unreachable):
        await desk.reader.first_left()
    desk.world.streams.faults.outage = None
    desk.end()
    assert await desk.reader.first_left() == END
    desk.world.streams.remove_shard(desk.world.ref, ShardId("s0"))
    assert await desk.reader.first_left() == END


async def test_behind_a_trimmed_position_the_horizon_is_read_anew_and_not_from_memory() -> None:
    desk = Desk()
    desk.world.write("abcdefghi")
    first = await desk.reader.read(HORIZON)
    second = await desk.reader.read(first.then)
    desk.world.streams.trim(desk.world.ref, ShardId("s0"), keep=1)
    with pytest.raises(RecordsTrimmed):
        await desk.reader.read(second.then)
    assert numbers(await desk.reader.read(HORIZON)) == ["9"]


async def test_a_shard_that_vanished_is_told_as_that() -> None:
    desk = Desk()
    desk.world.streams.remove_shard(desk.world.ref, ShardId("s0"))
    with pytest.raises(ShardGone):
        await desk.reader.read(HORIZON)


async def test_the_reader_knows_whether_a_place_can_still_be_read() -> None:
    desk = Desk()
    desk.world.write("abcdef")
    desk.world.streams.trim(desk.world.ref, ShardId("s0"), keep=2)
    assert not await desk.reader.reaches(Position("3"))
    assert await desk.reader.reaches(Position("5"))
    desk.world.streams.remove_shard(desk.world.ref, ShardId("s0"))
    assert not await desk.reader.reaches(Position("5"))


# -- sharing -------------------------------------------------------------------------------------------------------


async def test_readers_at_the_same_place_share_one_poll() -> None:
    desk = Desk()
    reading = [asyncio.create_task(desk.reader.read(HORIZON)) for _ in range(5)]
    await asyncio.sleep(30)
    desk.world.write("abc")
    pages = await asyncio.gather(*reading)
    assert all(page is pages[0] for page in pages)
    assert len(desk.observer.of("polled")) < 35, "one poll a second, not one for each"


async def test_a_reader_that_stays_behind_reads_for_itself_and_holds_nobody_back() -> None:
    desk = Desk()
    desk.world.write("abcdefghi")
    desk.end()
    ahead = await desk.all()
    behind = await desk.all(Position("1"))
    assert ahead == [str(number) for number in range(1, 10)]
    assert behind == [str(number) for number in range(2, 10)]


async def test_nothing_of_what_was_read_and_dropped_is_kept() -> None:
    desk = Desk(limits=Limits(page_records=1, poll_seconds=0.01))
    desk.world.write([f"k{number}" for number in range(100)])
    assert len(await desk.all_but_the_end(100)) == 100
    assert (len(desk.reader._cursors.pages), len(desk.reader._cursors), desk.budget.used) == (0, 1, 0)


async def test_memory_for_places_that_nobody_reads_any_more_is_bounded() -> None:
    desk = Desk(limits=Limits(poll_seconds=0.01))
    for number in range(100):
        reading = asyncio.create_task(desk.reader.read(Position(str(number))))
        await asyncio.sleep(1)
        reading.cancel()
        await asyncio.wait([reading])
    assert len(desk.reader._cursors) == CURSORS_KEPT
    assert desk.budget.used == 0


async def test_a_page_is_shared_as_long_as_somebody_holds_it() -> None:
    desk = Desk()
    desk.world.write("abc")
    first, second = await asyncio.gather(desk.reader.read(HORIZON), desk.reader.read(HORIZON))
    assert first is second
    desk.reader.drop(first)
    assert await desk.reader.read(HORIZON) is first
    desk.reader.drop(first)
    assert desk.budget.used > 0
    desk.reader.drop(second)
    assert desk.budget.used == 0
    assert await desk.reader.read(HORIZON) is not first


# -- the pace ------------------------------------------------------------------------------------------------------


async def test_a_shard_is_never_polled_more_often_than_the_interval_at_its_foremost_place_and_behind_it() -> None:
    desk = Desk(limits=Limits(page_records=1, poll_seconds=0.25))
    desk.world.write("abcdefgh")
    desk.end()
    began = asyncio.get_running_loop().time()
    await asyncio.gather(desk.all(), desk.all(Position("3")))
    polls = len(desk.observer.of("polled"))
    assert asyncio.get_running_loop().time() - began >= 0.25 * (polls / 2 - 1) - 0.001


async def test_an_idle_shard_is_polled_ever_more_slowly_up_to_the_bound() -> None:
    desk = Desk(limits=Limits(poll_seconds=0.25, idle_seconds=4.0))
    reading = asyncio.create_task(desk.reader.read(HORIZON))
    await asyncio.sleep(8)
    warm = len(desk.observer.of("polled"))
    await asyncio.sleep(40)
    assert len(desk.observer.of("polled")) - warm == 10
    desk.world.write("a")
    await reading


async def test_behind_records_the_shard_is_polled_at_the_interval_again() -> None:
    desk = Desk(limits=Limits(poll_seconds=0.25, idle_seconds=60.0))
    desk.world.write("a")
    page = await desk.reader.read(HORIZON)
    desk.reader.drop(page)
    reading = asyncio.create_task(desk.reader.read(page.then))
    await asyncio.sleep(0.3)
    desk.world.write("b")
    await reading
    assert asyncio.get_running_loop().time() <= 1.0


class Pushing(MemoryStream):
    """Streams that wait for records by themselves, for half a second at a time."""

    async def read(self, iterator: str, limit: int) -> RecordPage:
        for _ in range(50):
            page = await super().read(iterator, limit)
            if page.records or page.next_iterator is None:
                break
            await asyncio.sleep(0.01)
        return replace(page, pushed=True)


async def test_what_is_pushed_is_taken_at_once_and_waits_with_little_memory() -> None:
    desk = Desk(limits=Limits(page_records=1000, poll_seconds=60.0, idle_seconds=60.0))
    desk.world.streams.__class__ = Pushing  # the same streams, which push from now on
    desk.world.write("a")
    page = await desk.reader.read(HORIZON)
    began = asyncio.get_running_loop().time()
    for name in "bcdef":
        desk.reader.drop(page)
        reading = asyncio.create_task(desk.reader.read(page.then))
        await asyncio.sleep(0.2)
        assert 0 < desk.budget.used <= 16 * 1024
        desk.world.write(name)
        page = await reading
    assert asyncio.get_running_loop().time() - began <= 1.2, "no poll interval is waited for"
    desk.reader.drop(page)
    quiet = asyncio.create_task(desk.reader.read(page.then))
    await asyncio.sleep(30)
    assert len(desk.observer.of("polled")) >= 6 + 50, "nor is any pause between two waits"
    desk.stop.set()
    with pytest.raises(Stopped):
        await quiet


# -- the end -------------------------------------------------------------------------------------------------------


async def test_a_stop_ends_the_waiting_for_records() -> None:
    desk = Desk()
    reading = [asyncio.create_task(desk.reader.read(HORIZON)) for _ in range(2)]
    await asyncio.sleep(3)
    desk.stop.set()
    outcomes = await asyncio.gather(*reading, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [Stopped, Stopped]


async def test_a_stop_ends_the_waiting_for_a_service_that_fails() -> None:
    desk = Desk()
    desk.world.streams.faults.outage = Unreachable
    reading = asyncio.create_task(desk.reader.read(HORIZON))
    await asyncio.sleep(100)
    desk.stop.set()
    with pytest.raises(Stopped):
        await reading


async def test_a_stop_ends_the_waiting_for_the_next_turn() -> None:
    desk = Desk(limits=Limits(poll_seconds=30))
    desk.world.write("a")
    page = await desk.reader.read(HORIZON)
    reading = asyncio.create_task(desk.reader.read(page.then))
    await asyncio.sleep(1)
    desk.stop.set()
    with pytest.raises(Stopped):
        await reading


async def test_nothing_is_read_without_the_lease() -> None:
    class Falls:
        """A fence that falls behind the first send."""

        checks = 0

        def check(self) -> None:
            self.checks += 1
            if self.checks > 1:
                raise LeaseLost("The deadline has passed.")

    desk = Desk(fence=Falls())
    desk.world.write("a")
    with pytest.raises(LeaseLost):
        await desk.reader.read(HORIZON)
    assert desk.observer.of("polled") == []


@dataclass
class SilentEnds:
    """Nothing says whether a shard is over."""

    asked: int = 0

    async def is_over(self, shard_id: ShardId) -> bool:
        self.asked += 1
        await asyncio.Event().wait()
        return False

    def known(self, shard_id: ShardId) -> bool:
        return True


async def test_who_waits_to_hear_whether_the_shard_is_over_stops_at_once() -> None:
    desk = Desk()
    ends = desk.reader._ends = SilentEnds()
    desk.world.write("ab")
    desk.end()
    reading = asyncio.create_task(desk.reader.read(HORIZON))
    await until(lambda: ends.asked == 1)
    await asyncio.sleep(100)
    assert not reading.done()
    desk.stop.set()
    with pytest.raises(Stopped):
        await reading
    assert desk.budget.used == 0
    with pytest.raises(Stopped):
        await desk.reader.first_left()


async def test_a_place_that_was_looked_at_is_read_without_another_iterator() -> None:
    desk = Desk()
    desk.world.write("ab")
    iterators = 0

    async def count(call: str) -> None:
        nonlocal iterators
        iterators += call == "GetShardIterator"

    desk.world.streams.faults.pause = count
    assert await desk.reader.reaches(BEGINNING)
    assert numbers(await desk.reader.read(BEGINNING)) == ["1", "2"]
    assert iterators == 1
    assert await desk.reader.reaches(HORIZON)
    assert numbers(await desk.reader.read(HORIZON)) == ["1", "2"]
    assert iterators == 3, "a look at the horizon tells nothing of what stood there before"
