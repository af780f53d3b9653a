"""Rows about records that a target refuses: what becomes of them, and of everything behind them."""

from __future__ import annotations

import asyncio
from typing import Any

from replicator.domain.identifiers import ShardId
from replicator.domain.modes.requests import Found, Request, Response
from replicator.domain.owed_keys import OwedKey
from replicator.domain.rules import OnGap, OnRefusal, Rule
from replicator.engine.applying.cache_batcher import CacheFunnel
from replicator.engine.applying.context import TargetPorts
from replicator.engine.applying.parking import ParkingBounds
from replicator.engine.applying.retrying import Retrial, Retried
from replicator.laboratory.memory import OpenFence, Slot
from replicator.ports.targets import Fence
from tests.engine.shard_bench import ShardBench
from tests.engine.world import LoopClock, Recorder, World, eu_rule, hold, key_of
from tests.production.guarantee import eventually, require

BIG = key_of("big")
WHY = "Item size has exceeded the maximum allowed size"
DAY = 86_400.0
OPEN = OpenFence()


def parking(**choices: Any) -> Rule:
    return eu_rule(refused=OnRefusal.PARK, **choices)


def row_of(world: World) -> OwedKey | None:
    return next((row for row in world.owed.rows.values() if row.key == BIG), None)


def sequence_owed(world: World) -> int | None:
    row = row_of(world)
    return None if row is None else int(row.sequence)


class Source:
    """The source's items, as a region that is only read."""

    def __init__(self, world: World) -> None:
        self._world = world

    async def execute(self, request: Request, fence: Fence) -> Response:
        fence.check()
        return Found(item=self._world.source.items.get(request.key))  # type: ignore[union-attr]


async def retry(world: World, row: OwedKey, *, after_days: float = 0.0) -> Retried:
    """An operator's word, so many days later."""
    clock = LoopClock()
    clock.ahead = after_days * DAY
    funnels = {name: CacheFunnel(cache) for name, cache in world.caches.items()}
    rule = parking()

    def unparsed(raw: bytes) -> Any:
        raise AssertionError("no record here is unreadable")

    retrial = Retrial(
        rule,
        rule.targets[0],
        TargetPorts(world.region, funnels, world.conflicts),
        Source(world),
        world.owed,
        unparsed,
        7 * DAY,
        clock,
        Recorder(),
        OPEN,
        "operator",
    )
    return await retrial.retry(row)


async def refused_records() -> None:
    """An item that the replica refuses, changed again and again, with kills between its row and the position."""
    world = World()
    world.region.poison(BIG, WHY)
    world.write(["a", "big", "b"])
    hold(world.owed.faults, "put_owed")
    async with ShardBench(world, parking()) as bench:
        await eventually(lambda: set(world.holds()) == {"a", "b"}, "what is behind a refused record goes on")
        await asyncio.sleep(5)
        require(world.stored() == "1", "no position passes a refused record whose row is not durable")
        await bench.kill()
    world.owed.faults.pause = None
    async with ShardBench(world, parking()) as bench:
        await eventually(lambda: world.stored() == "3", "a refused record holds no position")
        require(sequence_owed(world) == 2, "what was refused is owed")
        world.put("big", 2)
        await eventually(lambda: sequence_owed(world) == 4, "the newest change of a key is owed")
        world.region.cure(BIG)
        hold(world.owed.faults, "settle_owed")
        world.put("big", 3)
        await eventually(world.same, "a change that fits is taken")
        await asyncio.sleep(5)
        require(world.stored() == "4", "no position passes what settles a row before the row is settled")
        await bench.kill()
    world.owed.faults.pause = None
    async with ShardBench(world, parking()):
        await eventually(lambda: world.stored() == "5", "a settled row holds no position")
        require(row_of(world) is None, "a row is settled by what is taken")


async def newest_wins() -> None:
    """An operator tries a row again that has become another one since."""
    world = World()
    world.region.poison(BIG, WHY)
    world.put("big", 1)
    async with ShardBench(world, parking()):
        await eventually(lambda: sequence_owed(world) == 1, "what was refused is owed")
        shown = row_of(world)
        assert shown is not None
        world.put("big", 2)
        await eventually(lambda: world.stored() == "2", "a refused record holds no position")
        world.region.cure(BIG)
        done = await retry(world, shown)
        require(done.how is None, "an operator sees when a row is no longer as it was shown")
        require(sequence_owed(world) == 2, "an older version settles no row")
        newer = row_of(world)
        assert newer is not None
        require((await retry(world, newer)).how is not None, "a row that is tried again as it is, is settled")
        require(world.same() and row_of(world) is None, "the newest change wins")


async def deleted_stays_deleted() -> None:
    """A row that nothing settled is older than the tombstone that would have beaten its image."""
    world = World()
    world.region.poison(BIG, WHY)
    world.put("big", 1)
    world.put("a", 1)
    async with ShardBench(world, parking()) as bench:
        await eventually(lambda: world.stored() == "2", "a refused record holds no position")
        hold(world.owed.faults, "settle_owed")
        world.delete("big")
        await eventually(lambda: world.region.slot(BIG).tombstone is not None, "a removal leaves a tombstone")
        await bench.kill()
    world.owed.faults.pause = None
    world.put("b", 1)
    world.streams.trim(world.ref, ShardId("s0"), keep=1)  # while no worker ran, the removal left the stream
    async with ShardBench(world, parking(on_gap=OnGap.SKIP)):
        await eventually(lambda: world.stored() == "4", "reading goes on behind a loss that the rule skips")
    world.region.slots[BIG] = Slot()  # and its tombstone expired
    world.region.cure(BIG)
    row = row_of(world)
    assert row is not None
    done = await retry(world, row, after_days=8)
    require(world.region.item(BIG) is None, "an image that is older than a tombstone lives is not brought back")
    require(done.how is not None and row_of(world) is None, "what the source no longer holds is owed no more")


async def refusals_without_end() -> None:
    """Everything is refused: it is the table and not the record."""
    world = World()
    world.bounds = ParkingBounds(keys=10)
    names = [f"k{number:02}" for number in range(30)]
    for name in names:
        world.region.poison(key_of(name), WHY)
    world.write(names)
    async with ShardBench(world, parking()) as bench:
        await asyncio.sleep(30)
        require(len(world.owed.rows) <= 10, "a target that refuses everything stops at its bound")
        told = [message for _, _, message in bench.observer.of("blocked")]
        require(any("10 parked keys" in message for message in told), "and says so")
        require(world.stored() == "10", "no position passes what is not owed")
