"""A mesh while one of its regions is away: what waits, what goes on, and what must not be put back."""

from __future__ import annotations

import asyncio

import pytest

from replicator.domain.errors import Unreachable
from replicator.domain.identifiers import RegionId
from replicator.domain.stamps import SideRow, Version
from replicator.domain.values import replace
from replicator.engine.limits import Limits
from tests.engine.mesh_world import ACTIVE, MODES, MeshWorld, Reader, settle
from tests.engine.world import AP, CA, EU, US, cache_rule, key_of, until

US_CACHE = cache_rule("us_main", US)


@pytest.mark.parametrize("mode", MODES)
async def test_a_region_that_is_down_holds_the_checkpoint_while_the_other_keys_get_as_far_as_they_can(
    mode: str,
) -> None:
    world = MeshWorld(mode, US, AP, EU)
    reader = Reader(world, US, caches=(US_CACHE,))
    for key in "abc":
        world.caches["us_main"].entries[f"order:{key}"] = b"stale"
        world[US].put(key, "new", ver=1)
    world[EU].faults.outage = Unreachable
    reader.start()
    await until(lambda: len(world[AP].holds()) == 3)
    await until(lambda: len(reader.observer.of("blocked")) > 3)
    assert world.caches["us_main"].entries == {}, "a dead region keeps no cache entry beside a living one"
    assert world[EU].holds() == {}
    assert reader.position.text == "TRIM_HORIZON"
    world[EU].faults.outage = None
    await reader.finish()
    assert reader.position.text == "3"
    assert reader.observer.blocked_keys == {}
    assert world.agreed() == dict.fromkeys("abc", "new")


@pytest.mark.parametrize("mode", MODES)
async def test_a_dead_region_holds_no_key_of_the_page_from_the_regions_that_answer(mode: str) -> None:
    world = MeshWorld(mode, US, EU, AP, CA)
    reader = Reader(world, US, caches=(US_CACHE,), limits=Limits(concurrency=2))
    names = [f"k{number}" for number in range(30)]
    for name in names:
        world.caches["us_main"].entries[f"order:{name}"] = b"stale"
        world[US].put(name, "new", ver=1)
    world[EU].faults.outage = Unreachable
    reader.start()
    await until(lambda: len(world[AP].holds()) == len(world[CA].holds()) == 30)
    assert world.caches["us_main"].entries == {}
    assert reader.position.text == "TRIM_HORIZON", "the record is done only when every region has answered"
    world[EU].faults.outage = None
    await reader.finish()
    assert reader.position.text == "30"
    assert world.agreed() == dict.fromkeys(names, "new")


@pytest.mark.parametrize("mode", MODES)
async def test_what_a_region_has_answered_is_not_asked_again_while_another_region_is_away(mode: str) -> None:
    world = MeshWorld(mode, US, AP, EU)
    reader = Reader(world, US)
    world[US].put("k", "v", ver=1)
    world[EU].faults.outage = Unreachable
    reader.start()
    await until(lambda: len(reader.observer.of("blocked")) > 3)
    asked = [region for region, _ in reader.asked if region != EU]
    await asyncio.sleep(300)
    assert [region for region, _ in reader.asked if region != EU] == asked
    world[EU].faults.outage = None
    await reader.finish()
    assert world.agreed() == {"k": "v"}


@pytest.mark.parametrize("mode", MODES)
async def test_entries_beside_a_table_go_once_however_long_another_region_is_away(mode: str) -> None:
    world = MeshWorld(mode, US, EU)
    reader = Reader(world, US, caches=(US_CACHE,))
    entries = world.caches["us_main"].entries
    entries["order:k"] = b"stale"
    world[US].put("k", "v", ver=1)
    world[EU].faults.outage = Unreachable
    reader.start()
    await until(lambda: len(reader.observer.of("blocked")) > 2)
    assert entries == {}
    entries["order:k"] = b"filled again by a reader"
    await asyncio.sleep(300)
    assert entries == {"order:k": b"filled again by a reader"}
    world[EU].faults.outage = None
    await reader.finish()
    assert [report.cache_actions for report in reader.observer.reports] == [1]


async def test_what_a_record_did_at_home_counts_once_however_often_another_region_is_tried() -> None:
    world = MeshWorld(ACTIVE, US, EU)
    reader = Reader(world, US)
    world[US].put("k", "v")
    await settle(reader)
    world[US].delete("k")
    later = SideRow(removed_at=10**53 - 1, removed=Version(10**15 * 9, 0, EU, 1))
    world[US].slots[key_of("k")] = replace(world[US].slot(key_of("k")), row=later)
    world[EU].faults.outage = Unreachable
    reader.start()
    await until(lambda: len(reader.observer.of("blocked")) > 2)
    world[EU].faults.outage = None
    await reader.finish()
    assert reader.observer.reports[-1].kept_removals == 1
    assert reader.observer.reports[-1].retries > 2


@pytest.mark.parametrize("deleted_at", [US, AP])
@pytest.mark.parametrize("mode", MODES)
async def test_what_a_user_deletes_while_a_region_is_away_is_not_put_back(mode: str, deleted_at: RegionId) -> None:
    world = MeshWorld(mode, US, AP, EU)
    world[US].put("k", "of before", ver=1)
    world[US].delete("k")
    readers = world.readers()
    await settle(*readers)  # a tombstone stands everywhere
    us, *_ = readers
    world[US].put("k", "v", ver=2)
    world[EU].faults.outage = Unreachable
    us.start()
    await until(lambda: world[AP].value("k") == "v" and len(us.observer.of("blocked")) > 2)
    for _ in range(3):  # its record lies behind the page in hand of its region's reader
        world[deleted_at].delete("k")
        await asyncio.sleep(300)
        assert world[deleted_at].value("k") is None
        if deleted_at == US and mode == ACTIVE:
            break
        world[deleted_at].put("k", "v", ver=2)
    world[deleted_at].delete("k")
    world[EU].faults.outage = None
    await us.finish()
    await settle(*readers)
    assert world.agreed() == {}


FAR = 120
"""So many records lie between a put and its delete: more than pages of 30 are read ahead."""


async def fill(world: MeshWorld) -> None:
    for number in range(FAR):
        world[US].put(f"other{number}", "x", ver=1)


async def stays_deleted(world: MeshWorld, seconds: int = 100) -> None:
    for _ in range(seconds):
        await asyncio.sleep(1)
        assert world[US].value("cart") is None


@pytest.mark.parametrize("memory", [256 * 1024 * 1024, 25_000], ids=["memory", "little memory"])
@pytest.mark.parametrize("used_before", [False, True], ids=["new key", "used key"])
@pytest.mark.parametrize("mode", MODES)
async def test_a_delete_stays_while_another_region_is_away_however_far_ahead_it_lies(
    mode: str, used_before: bool, memory: int
) -> None:
    world = MeshWorld(mode, US, EU, shards=("s0", "s1"))
    async with world.process(limits=Limits(page_records=30, in_flight_bytes=memory)) as process:
        if used_before:
            world[US].put("cart", "of before", ver=1)
            world[US].delete("cart")
        await asyncio.sleep(5)
        world[EU].faults.outage = Unreachable
        world[US].put("cart", "v", ver=2)
        await fill(world)
        await asyncio.sleep(30)
        for _ in range(2):
            world[US].delete("cart")
            await stays_deleted(world)
            world[US].put("cart", "v", ver=3)
            await asyncio.sleep(10)
        world[US].delete("cart")
        world[EU].faults.outage = None
        await until(lambda: world[EU].holds() == world[US].holds() and len(world[EU].holds()) == FAR)
        await process.drain()
    assert "cart" not in world.agreed()
    assert world.losses() == []


@pytest.mark.parametrize("mode", MODES)
async def test_an_item_that_was_deleted_before_its_put_is_read_stays_deleted_while_another_region_is_away(
    mode: str,
) -> None:
    world = MeshWorld(mode, US, EU)
    world[US].put("cart", "v", ver=1)
    await fill(world)
    world[US].delete("cart")
    world[EU].faults.outage = Unreachable
    async with world.process(limits=Limits(page_records=30)) as process:
        await stays_deleted(world)
        world[EU].faults.outage = None
        await until(lambda: world[EU].holds() == world[US].holds() and len(world[EU].holds()) == FAR)
        await process.drain()
    assert "cart" not in world.agreed()
