"""Rows about throttling: what a hot partition, a slow table, a crowded shard or a bound of capacity holds back."""

from __future__ import annotations

import asyncio

from replicator.domain.errors import ReplicatorError, Throttled
from replicator.domain.modes.requests import Put, Request, Response, UnstampedOrStampBelow
from replicator.domain.pacing import Pace
from replicator.domain.write_units import units_of
from replicator.engine.applying.paced_region import PacedRegion
from replicator.engine.limits import Limits
from replicator.laboratory.memory import MemoryRegion, OpenFence
from replicator.ports.targets import Fence, Region
from tests.engine.world import LoopClock, World, image, key_of, slow
from tests.production.guarantee import eventually, require

UNITS = 100
LIMITS = Limits(checkpoint_seconds=0.2, lease_seconds=4.0, heartbeat_seconds=1.0, watch_seconds=0.25)


def put(name: str) -> Put:
    return Put(key_of(name), image(name, 1), "1", UnstampedOrStampBelow("1"))


async def hot_partition() -> None:
    """A throttled partition slows its own keys down, and no others."""
    world = World("s0", "s1")
    cold, hot = [f"k{number}" for number in range(400)], [f"h{number}" for number in range(60)]
    world.region.hot = {key_of(name) for name in hot}
    slow(world.region.faults, 0.05)
    async with world.process() as process:
        world.write([name for pair in zip(hot, cold[: len(hot)], strict=True) for name in pair] + cold[len(hot) :])
        await eventually(lambda: world.holds().keys() >= set(cold), "cold keys do not wait for hot ones", within=5)
        (pace,) = process.paces.values()
        require(pace.throttles >= len(hot), "hot keys were tried")
        require(min(pace.singles.allowed, pace.transactions.allowed) >= 64, "no limit fell")
        retries = [event for event in process.observer.of("retrying") if event[1] == "Throttled"]
        require(not retries, "what only a partition throttles is reported as a matter of its keys")
        world.region.hot = set()
        await eventually(world.same, "hot keys come by themselves once their partition takes them", within=40)


async def hot_key_in_every_page() -> None:
    """Pages go on while a key waits for its partition; no position passes it, and its last write arrives."""
    world = World()
    slow(world.region.faults, 0.01)
    world.region.hot = {key_of("hot")}
    async with world.process(limits=LIMITS):
        for number in range(20):
            names = {f"k{number}-{key}" for key in range(20)}
            world.write(sorted(names))
            world.put("hot", number)
            await eventually(lambda names=names: names <= world.holds().keys(), "the page goes on", within=3)  # type: ignore[misc]
        stored = world.stored()
        require(stored is None or int(stored) <= 20, "no position passes a key that waits")
        world.region.hot = set()
        await eventually(world.same, "the last write of the key arrives", within=30)


async def throttled_table() -> None:
    """A table that throttles everything gets few requests, and soon as many as before when it takes them again."""
    memory, clock = MemoryRegion(), LoopClock()
    latency = slow(memory.faults, 0.05)
    region = PacedRegion(memory, Pace(256, clock.monotonic()), clock)
    fence = OpenFence()

    async def send(name: str) -> None:
        try:
            await region.execute(put(name), fence)
        except ReplicatorError as error:
            require(isinstance(error, Throttled), "it is throttled and nothing else")

    async def rounds(count: int) -> int:
        """So many requests at once, `count` times; returns the most that were in flight in the last of these times."""
        for number in range(count):
            latency.most_under_way = 0
            await asyncio.gather(*(send(f"{number}-{key}") for key in range(300)))
        return latency.most_under_way

    require(await rounds(40) == 256, "what is taken is sent at full speed")
    memory.faults.outage = Throttled
    await asyncio.gather(*(send(f"burst-{key}") for key in range(64)))
    memory.faults.outage = None
    require(await rounds(1) >= 128, "one burst costs one half at most")
    require(await rounds(20) == 256, "the limit grows again")
    memory.faults.outage = Throttled
    await rounds(3)
    require(await rounds(1) <= 2, "a table that throttles all gets little")
    memory.faults.outage = None
    require(await rounds(20) == 256, "a table that recovered gets all again")


async def crowded_shard() -> None:
    """A shard with one record does not wait for the queue of another shard."""
    memory, clock = MemoryRegion(), LoopClock()
    slow(memory.faults, 0.1)
    region = PacedRegion(memory, Pace(4, clock.monotonic()), clock)
    crowded, quiet = OpenFence(), OpenFence()
    many = [asyncio.ensure_future(region.execute(put(f"k{number}"), crowded)) for number in range(200)]
    await asyncio.sleep(0.05)
    one = asyncio.ensure_future(region.execute(put("one"), quiet))
    await eventually(one.done, "it has its turn", within=0.5)
    await asyncio.gather(*many, one)


class _Meter:
    """What a region was asked for, as times and units."""

    def __init__(self, region: Region) -> None:
        self._region = region
        self.taken: list[tuple[float, int]] = []

    async def execute(self, request: Request, fence: Fence) -> Response:
        response = await self._region.execute(request, fence)
        self.taken.append((asyncio.get_running_loop().time(), units_of(request)))
        return response

    def between(self, since: float, until: float) -> int:
        return sum(units for at, units in self.taken if since <= at < until)


async def shared_capacity() -> None:
    """All workers together take what a rule may take of a region, and no more: also when one of them dies."""
    world = World("s0", "s1", "s2", "s3")
    slow(world.region.faults, 0.01)
    meter = _Meter(world.region)
    time = asyncio.get_running_loop().time

    def owners() -> int:
        return len({world.owner(f"s{number}") for number in range(4)} - {None})

    first = world.process(limits=LIMITS, wire_to=lambda _: meter, write_units=UNITS).start()
    second = world.process(limits=LIMITS, wire_to=lambda _: meter, write_units=UNITS).start()
    await eventually(lambda: owners() == 2, "shards are shared")
    world.write(f"k{number}" for number in range(4000))
    await asyncio.sleep(3)
    since = time()
    await asyncio.sleep(8)
    require(0.9 * UNITS <= meter.between(since, time()) / 8 <= 1.1 * UNITS, "workers take the bound together")
    await second.kill()
    died = time()
    await eventually(lambda: owners() == 1, "the shards of the dead worker are taken over", within=20)
    await asyncio.sleep(2)
    since = time()
    await asyncio.sleep(8)
    require(0.9 * UNITS <= meter.between(since, time()) / 8 <= 1.1 * UNITS, "the one that is left takes all of it")
    worst = max(meter.between(at, at + 2) for at, _ in meter.taken if at >= died - 10)
    require(worst <= 2.5 * UNITS, "the bound held while shards moved")
    await first.kill()
