"""Pages at the tip hold a record or two: a target that is slower than the polls takes those that wait together."""

from __future__ import annotations

import asyncio

from replicator.domain.errors import Unreachable
from replicator.domain.identifiers import ShardId
from replicator.engine.limits import Limits
from tests.engine.shard_bench import ShardBench
from tests.engine.world import World, eu_rule, slow, until

ROUND_SECONDS = 0.5
SECONDS = 120
LIMITS = Limits(poll_seconds=0.1, idle_seconds=0.2)


async def test_a_target_that_is_slower_than_the_polls_does_not_fall_behind() -> None:
    world = World()
    slow(world.region.faults, ROUND_SECONDS)
    async with ShardBench(world, eu_rule(), limits=LIMITS):
        loop = asyncio.get_running_loop()
        written: list[float] = []
        lags: list[float] = []
        while len(written) < SECONDS * 10:
            world.put(f"k{len(written)}", 1)
            written.append(loop.time())
            await asyncio.sleep(0.1)
            while len(lags) < len(written) and f"k{len(lags)}" in world.holds():
                lags.append(loop.time() - written[len(lags)])
        assert len(lags) > len(written) - 100, "it is nearly level"
        assert max(lags) < 10 * ROUND_SECONDS


async def test_what_waits_is_taken_up_to_the_records_of_a_full_page() -> None:
    world = World()
    world.region.faults.outage = Unreachable
    async with ShardBench(world, eu_rule(), limits=Limits(poll_seconds=0.1, idle_seconds=0.2, page_records=5)) as bench:
        for number in range(20):
            world.put(f"k{number}", 1)
            await asyncio.sleep(0.3)
        world.region.faults.outage = None
        await until(lambda: world.stored() == "20")
        assert 1 < max(report.records for report in bench.observer.reports) <= 5 + 4


async def test_pages_before_a_record_that_cannot_be_read_are_applied() -> None:
    world = World()
    slow(world.region.faults, ROUND_SECONDS)
    async with ShardBench(world, eu_rule(), limits=LIMITS) as bench:
        for number in range(6):
            if number == 4:
                world.streams.damage(world.ref, ShardId("s0"), number + 1, "It is damaged.")
            world.put(f"k{number}", 1)
            await asyncio.sleep(0.2)
        await until(lambda: world.holds().keys() == {"k0", "k1", "k2", "k3"})
        await asyncio.sleep(10)
        assert bench.observer.troubles != {}
        assert "k4" not in world.holds()
        world.streams.mend(world.ref, ShardId("s0"))
        await until(world.same)
