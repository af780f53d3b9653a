"""What replication may take of a region's write units: one bound, however many workers there are."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from replicator.domain.errors import Throttled
from replicator.domain.modes.requests import Done, GetItem, RaiseTombstone, Request, Response
from replicator.domain.pacing import Pace
from replicator.domain.values import replace
from replicator.domain.write_units import UnitBucket, units_of
from replicator.engine.applying.paced_region import PacedRegion
from replicator.engine.applying.write_budget import WriteBudget
from replicator.engine.limits import Limits
from replicator.laboratory.memory import MemoryRegion, OpenFence
from replicator.ports.targets import Fence, Region
from tests.engine.test_coordinator import replace_stream
from tests.engine.world import ORDERS, US, LoopClock, World, key_of, slow, until

UNITS = 100
LIMITS = Limits(checkpoint_seconds=0.2, lease_seconds=4.0, heartbeat_seconds=1.0, watch_seconds=0.25)
BURST = 0.25 * UNITS


class Meter:
    """What a region was asked for, as units and times; `index`: what it says a write took beside what it seems to."""

    def __init__(self, index: float = 0) -> None:
        self.taken: list[tuple[float, float]] = []
        self.by: dict[int, float] = {}
        self.index = index

    def at(self, process: int) -> Callable[[MemoryRegion], Region]:
        return lambda region: _Metered(region, self, process)

    def within(self, since: float, until_: float) -> float:
        return sum(units for at, units in self.taken if since <= at < until_)

    def worst(self, seconds: float = 1.0) -> float:
        """The most that was taken in any such time."""
        return max(self.within(at, at + seconds) for at, _ in self.taken)


class _Metered:
    def __init__(self, region: MemoryRegion, meter: Meter, process: int) -> None:
        self._region, self._meter, self._process = region, meter, process

    async def execute(self, request: Request, fence: Fence) -> Response:
        response = await self._region.execute(request, fence)
        units = float(units_of(request))
        if units and isinstance(response, Done):
            units += self._meter.index
            response = Done(response.item, units)
        self._meter.taken.append((asyncio.get_running_loop().time(), units))
        self._meter.by[self._process] = self._meter.by.get(self._process, 0.0) + units
        return response


def now() -> float:
    return asyncio.get_running_loop().time()


async def test_one_worker_takes_all_that_it_may_and_no_more() -> None:
    world, meter = World("s0", "s1"), Meter()
    slow(world.region.faults, 0.01)
    world.write(f"k{number}" for number in range(1000))
    async with world.process(limits=LIMITS, wire_to=meter.at(0), write_units=UNITS) as process:
        await asyncio.sleep(15)
        since = now()
        await asyncio.sleep(10)
        assert meter.within(since, now()) == pytest.approx(10 * UNITS, rel=0.06)
        assert meter.worst() <= UNITS + BURST + 4
        assert process.paces
        await until(world.same, within=60)


async def test_workers_share_a_bound_by_the_shards_that_they_read() -> None:
    world, meter = World("s0", "s1", "s2", "s3"), Meter()
    slow(world.region.faults, 0.01)
    async with (
        world.process(limits=LIMITS, wire_to=meter.at(0), write_units=UNITS),
        world.process(limits=LIMITS, wire_to=meter.at(1), write_units=UNITS),
    ):
        await until(lambda: len({world.owner(f"s{number}") for number in range(4)}) == 2, within=30)
        await asyncio.sleep(5)
        world.write(f"k{number}" for number in range(1500))
        await asyncio.sleep(5)
        meter.by.clear()
        since = now()
        await asyncio.sleep(10)
        assert meter.within(since, now()) == pytest.approx(10 * UNITS, rel=0.1)
        assert meter.by[0] == pytest.approx(meter.by[1], rel=0.15)
        assert meter.worst() <= UNITS + 2 * BURST + 8


async def test_the_share_of_a_dead_worker_goes_to_those_that_take_its_shards() -> None:
    world, meter = World("s0", "s1", "s2", "s3"), Meter()
    slow(world.region.faults, 0.01)
    async with world.process(limits=LIMITS, wire_to=meter.at(0), write_units=UNITS):
        async with world.process(limits=LIMITS, wire_to=meter.at(1), write_units=UNITS) as second:
            await until(lambda: len({world.owner(f"s{number}") for number in range(4)}) == 2, within=30)
            world.write(f"k{number}" for number in range(4000))
            await asyncio.sleep(5)
            await second.kill()
        await until(lambda: len({world.owner(f"s{number}") for number in range(4)}) == 1, within=30)
        await asyncio.sleep(2)
        meter.by.clear()
        since = now()
        await asyncio.sleep(5)
        assert meter.within(since, now()) == pytest.approx(5 * UNITS, rel=0.1)
        assert meter.by.keys() == {0}
        assert meter.worst() <= UNITS + 2 * BURST + 8, "neither before nor while shards moved"


async def test_a_worker_that_joins_takes_from_the_others_and_the_bound_holds_meanwhile() -> None:
    world, meter = World("s0", "s1", "s2", "s3"), Meter()
    slow(world.region.faults, 0.01)
    world.write(f"k{number}" for number in range(4000))
    async with world.process(limits=LIMITS, wire_to=meter.at(0), write_units=UNITS):
        await asyncio.sleep(5)
        async with world.process(limits=LIMITS, wire_to=meter.at(1), write_units=UNITS):
            await until(lambda: len({world.owner(f"s{number}") for number in range(4)}) == 2, within=60)
            await asyncio.sleep(10)
            assert set(meter.by) == {0, 1}
            assert meter.worst(3.0) <= 3 * UNITS + 2 * BURST + UNITS / 4, "a moment's excess is a fraction of a second"


@pytest.mark.parametrize("index", [3, -2], ids=["indexes take more", "a check takes nothing"])
async def test_what_the_region_tells_counts_and_not_what_was_estimated(index: float) -> None:
    world, meter = World(), Meter(index)
    slow(world.region.faults, 0.01)
    world.write(f"k{number}" for number in range(2000))
    async with world.process(limits=LIMITS, wire_to=meter.at(0), write_units=UNITS):
        await asyncio.sleep(10)
        since = now()
        await asyncio.sleep(10)
        assert meter.within(since, now()) == pytest.approx(10 * UNITS, rel=0.06)


async def test_what_was_thrown_back_took_no_units() -> None:
    clock, memory = LoopClock(), MemoryRegion()
    bucket = UnitBucket(10, clock.monotonic())
    region = PacedRegion(memory, Pace(4, clock.monotonic()), clock, WriteBudget(bucket, lambda: 1.0, clock))
    memory.faults.outage = Throttled
    began = now()
    for _ in range(50):
        with pytest.raises(Throttled):
            await region.execute(RaiseTombstone(key_of("a"), "1"), OpenFence())
    assert now() == began
    assert bucket.taken == 0


async def test_a_replaced_stream_counts_no_more_when_it_is_left() -> None:
    world = World()
    async with world.process(limits=replace(LIMITS, drained_seconds=3), write_units=UNITS) as process:
        world.put("a", 0)
        await until(world.same)
        replace_stream(world)
        world.put("b", 0)
        await until(world.same)
        await until(lambda: len(process.holdings._held) == 1, within=30)
        assert process.holdings.share({(US, ORDERS)}) == pytest.approx(1)
        await process.drain()
        assert not process.holdings._held


async def test_reads_wait_for_no_units_and_writes_behind_them_do() -> None:
    clock, memory = LoopClock(), MemoryRegion()
    bucket = UnitBucket(1, clock.monotonic())
    budget = WriteBudget(bucket, lambda: 1.0, clock)
    region = PacedRegion(memory, Pace(4, clock.monotonic()), clock, budget)
    await budget.take(100, "another")
    began = now()
    await region.execute(GetItem(key_of("a")), OpenFence())
    assert now() == began
    writing = asyncio.ensure_future(region.execute(RaiseTombstone(key_of("a"), "1"), OpenFence()))
    await asyncio.sleep(99)
    assert not writing.done()
    assert (bucket.waiting, bucket.is_slowing(clock.monotonic())) == (1, True)
    await asyncio.sleep(2)
    assert writing.done()
    assert bucket.waiting == 0


async def test_shards_that_wait_for_units_are_served_in_turn_and_cancelled_ones_are_passed_over() -> None:
    clock = LoopClock()
    budget = WriteBudget(UnitBucket(10, clock.monotonic()), lambda: 1.0, clock)
    order: list[str] = []

    async def take(lane: str) -> None:
        await budget.take(10, lane)
        order.append(lane)

    tasks = [asyncio.ensure_future(take("crowded")) for _ in range(20)]
    await asyncio.sleep(0)
    tasks += [asyncio.ensure_future(take("quiet"))]
    await asyncio.sleep(0)
    tasks[2].cancel()
    await asyncio.wait([tasks[-1]])
    assert len(order) <= 4
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
    assert budget.bucket.waiting == 0


async def test_a_share_that_grows_is_used_by_those_that_wait_already() -> None:
    clock, share = LoopClock(), [0.0]
    budget = WriteBudget(UnitBucket(10, clock.monotonic()), lambda: share[0], clock)
    await budget.take(10, "s0")
    waiting = asyncio.ensure_future(budget.take(1, "s0"))
    await asyncio.sleep(60)
    assert not waiting.done()
    share[0] = 1.0
    await asyncio.sleep(2)
    assert waiting.done()
