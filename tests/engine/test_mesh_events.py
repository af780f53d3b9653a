"""Events of a mesh: what users did, once, from where they did it; nothing that was brought there or stamped."""

from __future__ import annotations

import asyncio
from random import Random

import msgspec
import pytest

from replicator.domain.errors import MalformedRecord, Unreachable
from replicator.domain.identifiers import RegionId
from replicator.domain.item_events import is_of_a_user
from replicator.domain.records import ChangeRecord
from replicator.domain.rules import OnRefusal, Rule
from replicator.domain.stamps import held
from replicator.domain.versions import STAMP
from tests.engine.mesh_world import ACTIVE, MeshWorld, Reader, settle
from tests.engine.world import AP, EU, US, until

KEYS = ("a", "b")
SINK = "sqs:orders"


def mesh(world: MeshWorld, home: RegionId) -> Rule:
    return world.rule(home, sinks=(SINK,), refused=OnRefusal.PARK)


def places(records: list[ChangeRecord]) -> list[int]:
    return [record.number for record in records]


def of_users(world: MeshWorld, region: RegionId) -> list[ChangeRecord]:
    rule = world.rule(region)
    return [record for record in world.records(region) if is_of_a_user(rule, record)]


def visible(records: list[ChangeRecord]) -> list[ChangeRecord]:
    """Users' writes that changed more than the stamp."""

    def contents(record: ChangeRecord) -> set[str | None]:
        looks = (held(record.old), held(record.new))
        return {None if look is None else look.content for look in looks}

    return [record for record in records if len(contents(record)) > 1]


def write(world: MeshWorld, dice: Random, number: int) -> None:
    region, name = dice.choice(world.names), dice.choice(KEYS)
    chosen = dice.random()
    if chosen < 0.2:
        world[region].delete(name, by_ttl=chosen < 0.05)
    elif chosen < 0.5:
        world[region].update(name, number)
    else:
        world[region].put(name, dice.choice((number, "same")))


@pytest.mark.parametrize("seed", range(25))
async def test_what_users_did_is_told_from_what_was_brought_whatever_comes_in_between(seed: int) -> None:
    world, dice = MeshWorld(ACTIVE, US, EU, AP), Random(seed)
    readers = [Reader(world, region) for region in world.names]
    for number in range(40):
        world.at(number // 3)
        write(world, dice, number)
        if dice.random() < 0.6:
            await dice.choice(readers).apply(dice.randrange(1, 4))
    await settle(*readers)
    for region in world.names:
        # A user's delete of what is marked for the daemon's delete is not told from that one.
        marked = {record.number for record in world[region].made if _was_marked(record)}
        wanted = [record for record in visible(world[region].made) if record.number not in marked]
        assert places(of_users(world, region)) == places(wanted), region
        assert len(wanted) < len(world.records(region))


def _was_marked(record: ChangeRecord) -> bool:
    old = held(record.old)
    return record.new is None and old is not None and old.kind is not None and old.kind.value == "D"


async def test_a_sink_gets_every_change_of_every_region_in_order_and_no_stamp_though_daemons_die() -> None:
    world, dice = MeshWorld(ACTIVE, US, EU), Random(3)
    world.sink.entries.outage = Unreachable
    for life in range(3):
        process = world.process(*(mesh(world, region) for region in world.names)).start()
        for number in range(12):
            write(world, dice, 100 * life + number)
            await asyncio.sleep(0.3)
        world.sink.entries.outage = None
        await process.kill()

    def complete() -> bool:
        return {event.id for event in world.sink.taken} == {
            f"orders/{label(world, region)}/{record.number}"
            for region in world.names
            for record in of_users(world, region)
        }

    async with world.process(*(mesh(world, region) for region in world.names)):
        await until(complete)
        await asyncio.sleep(30)
        assert complete()
    world.agreed()
    assert all(STAMP.encode() not in bytes(event.data) for event in world.sink.taken)
    for region in world.names:
        firsts = {event.id: None for event in world.sink.taken if label(world, region) in event.id}
        by_key: dict[str, list[int]] = {}
        for event in firsts:
            number = int(event.rpartition("/")[2])
            record = next(each for each in world.records(region) if each.number == number)
            by_key.setdefault(record.key.shown, []).append(number)
        assert all(numbers == sorted(numbers) for numbers in by_key.values())


def label(world: MeshWorld, region: RegionId) -> str:
    """The label of a region's stream, as events write the time of its creation."""
    return "2001-09-09T01:46:40." + str(world.refs[region].generation)[-3:]


async def test_a_write_that_lost_its_conflict_is_an_event_and_what_replaced_it_there_is_none() -> None:
    world = MeshWorld(ACTIVE, US, EU)
    world.at(1)
    world[US].put("a", "lost")
    world.at(2, EU)
    world[EU].put("a", "won")
    async with world.process(*(mesh(world, region) for region in world.names)):
        await until(lambda: world[US].value("a") == "won")
        await asyncio.sleep(10)
    shown = sorted(msgspec.json.decode(event.data)["new"]["value"] for event in world.sink.taken)
    assert (shown, world[US].value("a")) == (["lost", "won"], "won")


async def test_a_sink_of_a_mesh_that_is_away_holds_no_region() -> None:
    world = MeshWorld(ACTIVE, US, EU)
    world.sink.faults.outage = Unreachable
    async with world.process(*(mesh(world, region) for region in world.names)):
        world[US].put("a", 1)
        await until(lambda: world[EU].value("a") == "1")
        await asyncio.sleep(20)
        assert world.sink.taken == []
        world.sink.faults.outage = None
        await until(lambda: len(world.sink.taken) == 1)


async def test_whose_a_change_is_without_its_old_image_is_not_known() -> None:
    world = MeshWorld(ACTIVE, US, EU)
    world[US].put("a", 1)
    (record,) = world.records(US)
    assert is_of_a_user(world.rule(US), record)
    with pytest.raises(MalformedRecord, match="so its writer is not known"):
        is_of_a_user(world.rule(US), msgspec.structs.replace(record, old=None, partial=True))
