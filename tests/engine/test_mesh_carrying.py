"""Keys of a mesh that wait by themselves, throttled or refused at home: later pages go on without them."""

from __future__ import annotations

import asyncio

import pytest

from replicator.domain.identifiers import RegionId
from replicator.domain.records import change_record
from replicator.domain.rules import OnRefusal
from replicator.engine.applying.look_ahead import ReadAhead
from replicator.engine.limits import Limits
from tests.engine.mesh_world import ACTIVE, MODES, MeshWorld
from tests.engine.world import EU, US, key_of, slow, until

LIMITS = Limits(checkpoint_seconds=0.1, page_records=7)
BEGINNINGS = {None, "TRIM_HORIZON", "SHARD_START"}
HOT = key_of("hot")


async def flows(world: MeshWorld, rounds: int, *, first: int = 0, within: float = 5.0) -> None:
    """Page after page arrives in the other region."""
    for number in range(first, first + rounds):
        names = [f"k{number}-{each}" for each in range(10)]
        for name in names:
            world[US].put(name, number, ver=number)
        await until(lambda names=names: set(names) <= world[EU].holds().keys(), within=within)  # type: ignore[misc]


@pytest.mark.parametrize("region", [US, EU])
@pytest.mark.parametrize("mode", MODES)
async def test_pages_go_on_while_a_key_of_a_mesh_is_throttled_and_its_writes_keep_their_order(
    mode: str, region: RegionId
) -> None:
    world = MeshWorld(mode, US, EU)
    slow(world[region].faults, 0.01)
    world[region].hot = {HOT}
    async with world.process(limits=LIMITS) as process:
        for number in range(6):
            world[US].put("hot", number, ver=number + 1)
            await flows(world, 1, first=number)
        assert world[EU].value("hot") is None
        assert world.stored(US) in BEGINNINGS, "no position passes what is not durable"
        await until(lambda: "pk=hot" in {key for _, key, _ in process.observer.of("blocked")}, within=60)
        world[region].hot = set()
        await until(lambda: world[EU].value("hot") == "5" and world[US].value("hot") == "5", within=60)
        await process.drain()
    assert world.losses() == []


async def test_pages_go_on_while_the_home_region_refuses_an_item_until_a_user_shortens_it() -> None:
    world = MeshWorld(ACTIVE, US, EU)
    for table in world.tables.values():
        table.longest = 400
    rules = [world.rule(region, refused=OnRefusal.PARK) for region in (US, EU)]
    async with world.process(*rules, limits=LIMITS) as process:
        world[US].put("large", "x" * 300)
        await flows(world, 6)
        assert world[EU].value("large") is None
        assert ("pk=large", "Item size has exceeded the maximum allowed size") in {
            (key, why) for _, key, why in process.observer.of("blocked")
        }
        assert world.stored(US) in BEGINNINGS
        world[US].put("large", "shorter")
        await flows(world, 1, first=6)
        await until(lambda: world[EU].value("large") == "shorter", within=60)
        await until(lambda: world.stored(US) not in BEGINNINGS)
        await process.drain()
    assert world.losses() == []


async def test_with_refused_stop_a_refused_item_holds_its_shard() -> None:
    world = MeshWorld(ACTIVE, US, EU)
    for table in world.tables.values():
        table.longest = 400
    rules = [world.rule(region, refused=OnRefusal.STOP) for region in (US, EU)]
    async with world.process(*rules, limits=LIMITS):
        world[US].put("large", "x" * 300)
        for number in range(40):
            world[US].put(f"k{number}", "v")
        await asyncio.sleep(30)
        assert world[EU].value("k39") is None


async def test_what_a_user_deletes_while_its_put_is_carried_over_is_not_put_back_for_a_moment() -> None:
    world = MeshWorld(ACTIVE, US, EU)
    async with world.process(limits=LIMITS) as process:
        world[US].put("hot", "old")
        await until(lambda: world[EU].value("hot") == "old")
        world[US].delete("hot")
        await until(lambda: world[EU].value("hot") is None)
        await flows(world, 1)
        world[US].hot = {HOT}
        slow(world[US].faults, 0.01)
        world[US].put("hot", "again")
        await flows(world, 2, first=1)
        world[US].delete("hot")
        await flows(world, 2, first=3)
        seen = len(world.records(US))
        world[US].hot = set()
        await until(lambda: world.stored(US) == world.records(US)[-1].sequence, within=60)
        await process.drain()
    assert [record for record in world.records(US)[seen:] if record.key == HOT] == []
    assert world[EU].value("hot") is None


def test_what_is_carried_over_lies_behind_a_record_until_it_is_not_carried_any_more() -> None:
    records = [
        change_record(event="MODIFY", key=HOT.wire, old=HOT.wire, new=HOT.wire, sequence=str(number), created_at=1.0)
        for number in range(1, 6)
    ]
    ahead = ReadAhead()
    ahead.add(records[:3])
    assert ahead.behind(HOT, 1) == (records[1], records[2])
    ahead.carry({HOT: records[:3]})
    ahead.drop(records[:3])
    ahead.add(records[3:])
    assert ahead.behind(HOT, 1) == tuple(records[1:])
    ahead.carry({HOT: records})
    assert ahead.behind(HOT, 4) == (records[4],), "what is in both is there once"
    ahead.drop(records[3:])
    ahead.carry({})
    assert ahead.behind(HOT, 1) == ()
