"""One region of a mesh is away: the others go on, what it misses is owed to it, and it is brought when it is back."""

from __future__ import annotations

import asyncio

import pytest

from replicator.domain.errors import AccessRefused, ReplicatorError, TableMissing, Unreachable
from replicator.domain.identifiers import RegionId
from tests.engine.mesh_world import ACTIVE, MODES, MeshWorld
from tests.engine.world import AP, EU, US, until

pytestmark = pytest.mark.looptime(noop_cycles=0)

MEMBERS = (US, EU, AP)
DARK = pytest.mark.parametrize("error", [Unreachable, AccessRefused, TableMissing])


def go_dark(world: MeshWorld, region: RegionId, error: type[ReplicatorError] = Unreachable) -> None:
    """Let nothing of a region answer: neither its table and stream, nor the rows that it keeps."""
    for faults in (world[region].faults, world.streams[region].faults, world.owed[region].faults):
        faults.outage = error


def come_back(world: MeshWorld, region: RegionId) -> None:
    for faults in (world[region].faults, world.streams[region].faults, world.owed[region].faults):
        faults.outage = None


def same_in(world: MeshWorld, *regions: RegionId) -> bool:
    holds = [world[region].holds() for region in regions]
    return all(each == holds[0] for each in holds)


async def lag_of(world: MeshWorld, home: RegionId, region: RegionId, name: str, number: int) -> float:
    """Write an item, and wait until another region has it."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    world[home].put(name, number, ver=number)
    await until(lambda: world[region].value(name) == str(number))
    return loop.time() - began


@DARK
@pytest.mark.parametrize("mode", MODES)
async def test_two_regions_stay_close_while_the_third_is_away_and_all_agree_when_it_is_back(
    mode: str, error: type[ReplicatorError]
) -> None:
    world = MeshWorld(mode, *MEMBERS)
    async with world.process() as process:
        await lag_of(world, US, EU, "canary", 1)
        go_dark(world, AP, error)
        lags = []
        for number in range(2, 60):
            lags.append(await lag_of(world, *((US, EU) if number % 2 else (EU, US)), "canary", number))
            world[US].put(f"k{number}", "us", ver=number)
            await asyncio.sleep(0.5)
        assert max(lags) < 3
        assert "k30" in world.missed(US, AP)
        come_back(world, AP)
        began = asyncio.get_running_loop().time()
        await until(lambda: same_in(world, *MEMBERS))
        assert asyncio.get_running_loop().time() - began < 5
        await until(lambda: world.owes_nothing() and process.observer.owed["orders/ap"].keys == 0)
        await process.drain()
    assert len(world.agreed()) == 59
    assert world.losses() == []
    assert process.observer.faults == []


@pytest.mark.parametrize("mode", MODES)
async def test_a_region_whose_requests_hang_holds_the_others_for_a_moment_only(mode: str) -> None:
    world = MeshWorld(mode, *MEMBERS)
    async with world.process() as process:
        await lag_of(world, US, EU, "canary", 1)
        gate = asyncio.Event()

        async def hang(_: str) -> None:
            await gate.wait()

        world[AP].faults.pause = hang
        lags = [await lag_of(world, US, EU, "canary", number) for number in range(2, 40)]
        assert max(lags) < 3
        world[AP].faults.pause = None
        gate.set()
        await until(lambda: same_in(world, *MEMBERS) and world.owes_nothing(), within=10)
        await process.drain()
    if mode == ACTIVE:  # versioned may log what a region missed in between, when several regions bring it
        assert world.losses() == []


@pytest.mark.parametrize("mode", MODES)
async def test_the_position_passes_what_is_owed_and_another_worker_brings_it(mode: str) -> None:
    world = MeshWorld(mode, *MEMBERS)
    async with world.process() as first:
        await lag_of(world, US, EU, "canary", 1)
        go_dark(world, AP)
        for number in range(2, 30):
            world[US].put(f"k{number}", "v", ver=1)
        await until(lambda: len(world.missed(US, AP)) == 28)
        await until(lambda: world.stored(US) == "29" or len(world.records(US)) > 29, within=20)
        await asyncio.sleep(5)
        await first.kill()
    for number in range(2, 10):
        world[US].delete(f"k{number}")
    async with world.process() as second:
        await asyncio.sleep(30)
        assert same_in(world, US, EU)
        assert set(world.missed(US, AP)) >= {f"k{number}" for number in range(2, 30)}
        come_back(world, AP)
        await until(lambda: same_in(world, *MEMBERS) and world.owes_nothing())
        await second.drain()
    assert world.losses() == []
    assert len(world.agreed()) == 21
    assert second.observer.faults == []
