"""Rows about a region of a mesh that is away: what becomes of the others, and of what it misses."""

from __future__ import annotations

import asyncio

from replicator.domain.errors import Unreachable
from replicator.domain.identifiers import RegionId
from replicator.engine.limits import Limits
from tests.engine.mesh_world import ACTIVE, MeshWorld
from tests.engine.world import AP, EU, US, hold
from tests.production.guarantee import eventually, require


def dark(world: MeshWorld, region: RegionId, *, is_dark: bool = True) -> None:
    for faults in (world[region].faults, world.streams[region].faults, world.owed[region].faults):
        faults.outage = Unreachable if is_dark else None


def same(world: MeshWorld) -> bool:
    return len({tuple(sorted(world[region].holds().items())) for region in world.names}) == 1


async def region_away() -> None:
    """One of three regions is away; the worker is killed before what it missed is durable."""
    world = MeshWorld(ACTIVE, US, EU, AP)
    async with world.process() as first:
        world[US].put("a", 1)
        await eventually(lambda: same(world) and world.stored(US) is not None, "changes arrive everywhere")
        await asyncio.sleep(5)
        reached = world.stored(US)
        hold(world.owed[US].faults, "put_owed")
        dark(world, AP)
        world[US].put("a", 2)
        took = await eventually(lambda: world[EU].value("a") == "2", "a region that is away holds no other one")
        require(took < 3, "a region that is away holds no other one for long")
        await asyncio.sleep(10)
        require(world.stored(US) == reached, "no position passes a record that a region missed before its row")
        require(not world.missed(US, AP), "the row is not durable yet")
        await first.kill()
    world.owed[US].faults.pause = None
    async with world.process():
        await eventually(lambda: world.missed(US, AP), "what a region missed is owed to it")
        world[EU].put("b", 1)
        await eventually(lambda: world[US].value("b") == "1", "the others go on")
        await eventually(lambda: world.stored(EU) is not None, "positions pass what is owed")
        world[US].put("c", 1)
        await eventually(lambda: world[EU].value("c") == "1", "the others go on")
        dark(world, AP, is_dark=False)
        await eventually(
            lambda: same(world) and world.owes_nothing(), "a region that is back is brought what it missed"
        )
    require(world.agreed() == {"a": "2", "b": "1", "c": "1"}, "all regions end the same")


async def owed_again_while_it_is_drained() -> None:
    """A key changes, and its region goes away again, between what a drain brought and the end of the row."""
    world = MeshWorld(ACTIVE, US, AP)
    async with world.process():
        world[US].put("a", 0)
        await eventually(lambda: same(world), "changes arrive everywhere")
        dark(world, AP)
        world[US].put("a", 1)
        await eventually(lambda: world.missed(US, AP), "what a region missed is owed to it")
        gate = hold(world.owed[US].faults, "settle_owed")
        dark(world, AP, is_dark=False)
        await eventually(lambda: world[AP].value("a") == "1", "a region that is back is brought what it missed")
        first = world.missed(US, AP)["a"]
        dark(world, AP)
        world[US].put("a", 2)
        await eventually(lambda: world.missed(US, AP)["a"].version > first.version, "its newest change is owed")
        world.owed[US].faults.pause = None
        gate.set()
        await asyncio.sleep(10)
        require(world.missed(US, AP), "a row is settled only as it was when its key was looked at")
        dark(world, AP, is_dark=False)
        await eventually(lambda: same(world) and world.owes_nothing(), "the newest change arrives")
    require(world.agreed() == {"a": "2"}, "all regions end the same")


async def away_for_longer_than_tombstones_live() -> None:
    """A region comes back when the deletes that it missed may be forgotten."""
    world = MeshWorld(ACTIVE, US, AP)
    async with world.process(limits=Limits(overdue_seconds=300.0)) as process:
        world[US].put("a", 0)
        await eventually(lambda: same(world), "changes arrive everywhere")
        dark(world, AP)
        world[US].put("a", 1)
        await asyncio.sleep(400)
        before = len(world[AP].effects)
        dark(world, AP, is_dark=False)
        await asyncio.sleep(60)
        require(len(world[AP].effects) == before, "nothing is brought to a region that must be rebuilt")
        require(process.observer.of("region_stands")[-1][1] == "away", "and that is said")
