"""The drivers of a mesh in virtual time: order, retries, looking ahead, waiting, caches, conflicts, and their cost."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from msgspec import structs

from replicator.domain.cache_keys import CacheVerb
from replicator.domain.conflicts import Witness
from replicator.domain.errors import Throttled, Unreachable
from replicator.domain.filters import Filter
from replicator.domain.identifiers import RegionId, SequenceNumber, ShardId
from replicator.domain.image import Image
from replicator.domain.modes.ordered import Effect
from replicator.domain.modes.versioned.own_writes import OwnWrites
from replicator.domain.records import ChangeRecord, Event
from replicator.domain.rules import Start
from replicator.domain.stamps import SideRow, Stamp, StampKind, Tombstone, Version, content_of
from replicator.domain.values import replace
from replicator.engine.limits import Limits
from replicator.engine.waiting import Stopped, found
from replicator.laboratory.memory import Fault
from tests.engine.mesh_world import ACTIVE, MODES, REGIONS, VERSIONED, MeshWorld, Reader, item, settle, value_of
from tests.engine.world import AP, EPOCH_SECONDS, EU, US, cache_rule, key_of, until

US_CACHE = cache_rule("us_main", US)
EU_CACHE = cache_rule("eu_main", EU)


def puts(reader: Reader, region: RegionId) -> list[str]:
    """What a reader asked of a region, but for reads."""
    return [call for asked, call in reader.asked if asked == region and not call.startswith("Get")]


async def finished(task: asyncio.Task[Any]) -> BaseException | None:
    await asyncio.wait([task])
    return task.exception()


class WithoutOldImages(MeshWorld):
    """Its source leaves old images out."""

    def records(self, region: RegionId, shard: str = "s0") -> list[ChangeRecord]:
        return [
            record if record.event is Event.INSERT else structs.replace(record, old=None, partial=True)
            for record in super().records(region, shard)
        ]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("deletes", [False, True])
async def test_a_record_without_its_old_image_stops_its_shard_in_a_mesh_and_is_not_guessed(
    mode: str, deletes: bool
) -> None:
    world = WithoutOldImages(mode, US, EU)
    reader = Reader(world, US)
    world[US].put("k", "first", ver=1)
    await reader.apply(1)
    if deletes:
        world[US].delete("k")
    else:
        world[US].put("k", "second", ver=2)
    applying = asyncio.create_task(reader.apply())
    await until(lambda: bool(reader.observer.of("blocked")))
    assert world[EU].value("k") == "first"
    assert "without its image" in reader.observer.of("blocked")[0][2]
    reader.stop.set()
    assert found(await finished(applying) or ValueError(), Stopped)


# -- bringing records everywhere -----------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [2, 3, 4, 5])
@pytest.mark.parametrize("mode", MODES)
async def test_what_users_write_anywhere_is_everywhere_at_the_end(mode: str, count: int) -> None:
    regions = REGIONS[:count]
    world = MeshWorld(mode, *regions)
    async with world.process() as process:
        for number, region in enumerate(regions):
            world[region].put(f"stays{number}", "old", ver=1)
            world[region].put(f"goes{number}", "old", ver=1)
        await until(lambda: all(len(world[region].holds()) == 2 * count for region in regions))
        for number, region in enumerate(reversed(regions)):
            world[region].update(f"stays{number}", "new", ver=2)
            world[region].delete(f"goes{number}")
        wanted = {f"stays{number}": "new" for number in range(count)}
        await until(lambda: all(world[region].holds() == wanted for region in regions))
        await process.drain()
    assert world.agreed() == wanted
    assert world.losses() == []
    assert process.observer.faults == []


@pytest.mark.parametrize("mode", MODES)
async def test_records_of_one_key_are_brought_one_by_one_in_their_order(mode: str) -> None:
    world = MeshWorld(mode, US, EU)
    reader = Reader(world, US)
    for number in range(4):
        world[US].put("k", number, ver=number)
    await reader.apply()
    brought = [record.new.attributes["value"]["S"] for record in world.records(EU) if record.new is not None]
    assert brought == ["0", "1", "2", "3"]
    assert reader.observer.of("moved")[-1][2] == "4"
    assert [report.effects for report in reader.observer.reports] == [{Effect.APPLIED: 4}]
    assert [report.changes for report in reader.observer.reports] == [4]


@pytest.mark.parametrize("mode", MODES)
async def test_what_one_record_must_repeat_does_not_repeat_the_records_before_it(mode: str) -> None:
    world = MeshWorld(mode, US, EU)
    reader = Reader(world, US)
    world[US].put("k", "one", ver=1)
    world[US].put("k", "two", ver=2)
    brings = "StampedPut" if mode == ACTIVE else "Replace"
    gate = reader.hold(EU, brings)
    second = reader.hold(EU, brings)
    reader.start()
    await gate.reached()
    gate.open()
    await second.reached()
    assert reader.position.text == "1", "each record is done by itself"
    world[EU].faults.script(Fault.BEFORE, Fault.AFTER)
    second.open()
    await reader.finish()
    assert world[EU].value("k") == "two"
    assert [record.new.attributes["value"]["S"] for record in world.records(EU) if record.new] == ["one", "two"]
    assert reader.observer.reports[-1].retries == 2


async def test_a_stored_checkpoint_never_passes_a_record_that_one_region_has_not_answered() -> None:
    world = MeshWorld(ACTIVE, US, EU)
    async with world.process(world.rule(US)) as process:
        world[US].put("a", "1")
        await until(lambda: world.stored(US) == "2")
        world[EU].faults.outage = Throttled
        world[US].put("a", "2")
        await until(lambda: process.observer.blocked_keys == {"s0 in us": "pk=a"})
        await asyncio.sleep(30)
        assert world.stored(US) == "2"
        world[EU].faults.outage = None
        await until(lambda: world[EU].value("a") == "2")
        await process.drain()
    assert process.observer.of("unblocked") == [("us",)]
    assert world.stored(US) == "4"


# -- items that a stamp makes too large ----------------------------------------------------------------------------


async def test_an_item_without_room_for_its_stamp_blocks_with_key_and_reason_and_the_other_keys_go_on() -> None:
    world = MeshWorld(ACTIVE, US, EU)
    for table in world.tables.values():
        table.longest = 400
    reader = Reader(world, US)
    world[US].put("small", "fits")
    world[US].put("large", "x" * 300)
    world[US].put("other", "fits too")
    reader.start()
    await until(lambda: len(reader.observer.of("blocked")) > 1)
    assert world[EU].holds() == {"other": "fits too", "small": "fits"}
    assert reader.position.text == "1"
    assert {(key, why) for _, key, why in reader.observer.of("blocked")} == {
        ("pk=large", "Item size has exceeded the maximum allowed size")
    }
    reader.stop.set()
    assert found(await finished(reader.task) or Stopped(), Stopped)  # type: ignore[arg-type]


@pytest.mark.parametrize("remedy", ["shorter", "deleted"])
async def test_a_later_write_of_a_user_settles_an_item_without_room_for_its_stamp(remedy: str) -> None:
    world = MeshWorld(ACTIVE, US, EU)
    for table in world.tables.values():
        table.longest = 400
    us, eu = world.readers()
    world[US].put("k", "fits")
    await settle(us, eu)
    world[US].put("k", "x" * 300)
    us.start()
    await until(lambda: len(us.observer.of("blocked")) > 1)
    if remedy == "shorter":
        world[US].put("k", "shorter")
    else:
        world[US].delete("k")
    us.fetch()
    await us.finish()
    await settle(us, eu)
    assert world.agreed() == ({"k": "shorter"} if remedy == "shorter" else {})
    assert world.losses() == []


async def test_the_daemons_own_record_settles_no_item_that_one_region_refuses() -> None:
    world = MeshWorld(ACTIVE, US, EU)
    world[EU].longest = 400
    us = Reader(world, US)
    world[US].put("k", "x" * 300)
    us.start()
    await until(lambda: len(us.observer.of("blocked")) > 1)
    us.fetch()  # the stamp that was put on it at home
    await asyncio.sleep(60)
    assert us.position.text == "TRIM_HORIZON"
    world[EU].longest = None
    await us.finish()
    assert world[EU].value("k") == "x" * 300


async def test_versioned_a_later_write_settles_nothing_since_it_may_be_the_lesser_one() -> None:
    world = MeshWorld(VERSIONED, US, EU)
    world[EU].longest = 200
    us = Reader(world, US)
    world[US].put("k", "x" * 300, ver=2)
    world[US].put("k", "shorter", ver=1)
    us.start()
    await asyncio.sleep(60)
    assert us.position.text == "TRIM_HORIZON"
    assert world[EU].holds() == {}
    world[EU].longest = None
    await us.finish()
    await settle(us, Reader(world, EU))
    assert world.agreed() == {"k": "x" * 300}


async def test_a_delete_behind_a_later_removal_keeps_what_the_row_says_and_is_counted() -> None:
    world = MeshWorld(ACTIVE, US, EU)
    reader = Reader(world, US)
    world[US].put("k", "v")
    await settle(reader)
    world[US].delete("k")
    later = SideRow(removed_at=10**53 - 1, removed=Version(10**15 * 9, 0, EU, 1))
    world[US].slots[key_of("k")] = replace(world[US].slot(key_of("k")), row=later)
    await settle(reader)
    row = world[US].slot(key_of("k")).row
    assert (row.removed_at, row.removed) == (later.removed_at, later.removed)
    assert row.deleted is not None
    assert sum(report.kept_removals for report in reader.observer.reports) == 1


# -- looking ahead -------------------------------------------------------------------------------------------------


async def reused(reader: Reader) -> None:
    """Let a tombstone of long ago stand under the key."""
    reader.world[US].put("k", "of before")
    reader.world[US].delete("k")
    await settle(reader)
    reader.asked.clear()


async def test_where_no_tombstone_stands_a_missing_item_was_deleted_by_a_user_however_far_ahead_that_is() -> None:
    world = MeshWorld(ACTIVE, US, EU)
    reader = Reader(world, US)
    world[US].put("k", "short-lived")
    gate = reader.hold(US, "GetItem")
    reader.start()
    await gate.reached()
    world[US].delete("k")  # not fetched, so not to be seen ahead
    began = asyncio.get_running_loop().time()
    await reader.finish()
    assert asyncio.get_running_loop().time() == began, "nothing is waited for"
    assert puts(reader, US) == ["RaiseFloor"]
    assert world.records(EU) == []
    await settle(reader, Reader(world, EU))
    assert world.agreed() == {}
    assert world.losses() == []


async def test_the_first_removal_counts_whatever_was_written_before_it() -> None:
    world = MeshWorld(ACTIVE, US, EU)
    reader = Reader(world, US)
    await reused(reader)
    before = len(world.records(EU))
    world[US].put("k", "one")
    world[US].put("k", "two")
    world[US].delete("k")
    began = asyncio.get_running_loop().time()
    await reader.apply()
    assert asyncio.get_running_loop().time() == began
    assert puts(reader, US) == ["RaiseFloor", "RaiseFloor", "SettleTombstone"]
    assert len(world.records(EU)) == before
    assert reader.observer.reports[-1].effects == {Effect.STALE: 2, Effect.DELETED: 1}


async def test_beside_an_old_tombstone_a_removal_in_a_page_that_was_read_already_is_found() -> None:
    world = MeshWorld(ACTIVE, US, EU)
    reader = Reader(world, US)
    await reused(reader)
    world[US].put("k", "short-lived")
    world[US].delete("k")
    reader.fetch()
    await reader.apply(1)
    assert puts(reader, US) == ["RaiseFloor"]


async def test_beside_an_old_tombstone_a_removal_that_was_not_read_yet_is_not_waited_for() -> None:
    world = MeshWorld(ACTIVE, US, EU)
    reader = Reader(world, US)
    await reused(reader)
    world[US].put("k", "v")
    gate = reader.hold(US, "GetItem")
    reader.start()
    await gate.reached()
    world[US].delete("k")
    began = asyncio.get_running_loop().time()
    await reader.finish()
    assert asyncio.get_running_loop().time() == began
    assert puts(reader, US) == ["StampedPut"], "it stands there again until its delete is read"
    await settle(reader, Reader(world, EU))
    assert world.agreed() == {}


async def a_while(call: str) -> None:
    del call
    await asyncio.sleep(1)


async def test_a_removal_in_the_page_behind_a_full_one_is_found() -> None:
    world = MeshWorld(ACTIVE, US, EU)
    world[US].put("k", "of before")
    world[US].delete("k")
    async with world.process(limits=Limits(page_records=2)) as process:
        await until(lambda: world[US].slot(key_of("k")).row.deleted is not None)
        await asyncio.sleep(10)
        world[US].effects.clear()
        world[US].faults.pause = a_while  # so that the next page is read meanwhile
        world[US].put("k", "short-lived")
        world[US].put("other", "v")
        world[US].delete("k")
        await until(lambda: world[EU].holds() == {"other": "v"})
        await asyncio.sleep(10)
        await process.drain()
    assert sorted(call for call, _ in world[US].effects) == ["RaiseFloor", "Restamp", "SettleTombstone"]
    assert len(world.records(EU)) == 1


async def test_a_removal_by_the_daemon_is_told_from_a_users() -> None:
    world = MeshWorld(ACTIVE, US, EU)
    reader = Reader(world, US)
    world[US].put("k", "v")
    marked = world[US].item(key_of("k"))
    assert marked is not None
    mark = Stamp(Version(1, 0, "eu", 1), StampKind.MARK, content_of(marked), "-").sealed("--------")
    world[US].write("k", item("k", "v", _rep=mark))
    tombstone = SideRow(Tombstone(Version(1, 0, "eu", 1), "-", content_of(marked)))
    world[US].slots[key_of("k")] = replace(world[US].slot(key_of("k")), row=tombstone)
    world[US].write("k", None)
    reader.fetch()
    await reader.apply(1)
    assert puts(reader, US) == ["StampedPut"], "the daemon removed it, so a user's put must come back"


async def test_a_wait_ends_when_the_program_stops() -> None:
    world = MeshWorld(ACTIVE, US, EU)
    reader = Reader(world, US)
    world[US].put("k", "from us")
    world[EU].put("k", "from eu, not stamped yet")
    gate = reader.hold(EU, "GetItem")
    task = reader.start()
    await gate.reached()
    gate.open()
    await asyncio.sleep(0.1)
    began = asyncio.get_running_loop().time()
    reader.stop.set()
    assert found(await finished(task) or ValueError(), Stopped)
    assert asyncio.get_running_loop().time() == began
    assert world[EU].value("k") == "from eu, not stamped yet"
    assert reader.position.text == "TRIM_HORIZON"


async def test_an_old_record_waits_for_nothing() -> None:
    world = MeshWorld(ACTIVE, US, EU)
    reader = Reader(world, US)
    world[US].put("k", "from us")
    world[EU].put("k", "from eu, not stamped yet")
    await asyncio.sleep(30)
    began = asyncio.get_running_loop().time()
    await reader.apply()
    assert asyncio.get_running_loop().time() == began
    assert world[EU].value("k") == "from us"
    await settle(reader, Reader(world, EU))
    assert world.agreed() == {"k": "from us"}


# -- echoes --------------------------------------------------------------------------------------------------------


async def test_versioned_what_this_process_wrote_itself_is_not_looked_after_again() -> None:
    world = MeshWorld(VERSIONED, US, EU, AP)
    shared = OwnWrites(100)
    readers = world.readers(own_writes=shared)
    us, *others = readers
    writes: tuple[Callable[[], None], ...] = (
        lambda: world[US].put("k", "v", ver=1),
        lambda: world[US].put("k", "w", ver=2),
        lambda: world[US].delete("k"),
    )
    for write in writes:
        write()
        await us.apply()
        for reader in readers:
            reader.asked.clear()
        await settle(*readers)
        asked = [(reader.home, *ask) for reader in readers for ask in reader.asked]
        if len(world.records(EU)) == 1:  # an item that appeared is held against its tombstone
            assert asked == [(EU, EU, "GetTombstone"), (AP, AP, "GetTombstone")]
        else:
            assert asked == []
    assert [len(world.records(reader.home)) for reader in others] == [3, 3]


@pytest.mark.parametrize("writes", [["put"], ["put", "delete"]])
async def test_versioned_what_this_process_wrote_itself_comes_back_as_an_echo(writes: list[str]) -> None:
    world = MeshWorld(VERSIONED, US, EU)
    us, eu = world.readers(own_writes=OwnWrites(100))
    for write in writes:
        if write == "put":
            world[US].put("k", "v", ver=1)
        else:
            world[US].delete("k")
        await us.apply()
        await eu.apply()
        assert us.observer.reports[-1].effects.keys() <= {Effect.APPLIED, Effect.DELETED}
        assert eu.observer.reports[-1].effects == {Effect.ECHO: 1}
    world[EU].put("k", "mine", ver=2)
    await eu.apply()
    assert eu.observer.reports[-1].effects == {Effect.APPLIED: 1}, "a user's write is none"


async def test_versioned_what_another_process_wrote_is_looked_after_and_left() -> None:
    world = MeshWorld(VERSIONED, US, EU)
    us, eu = world.readers()
    world[US].put("k", "v", ver=1)
    await us.apply()
    changes = world.changes()
    await eu.apply()
    assert [call for _, call in eu.asked] == ["GetTombstone", "GetItem"]
    assert world.changes() == changes


# -- caches --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", MODES)
async def test_entries_beside_a_table_go_for_writes_of_its_users_and_for_those_that_arrive(mode: str) -> None:
    world = MeshWorld(mode, US, EU)
    us, eu = Reader(world, US, caches=(US_CACHE,)), Reader(world, EU, caches=(EU_CACHE,))
    writes: tuple[Callable[[], None], ...] = (
        lambda: world[US].put("k", "new", ver=1),
        lambda: world[US].update("k", "changed", ver=2),
        lambda: world[US].delete("k"),
    )
    for write in writes:
        for name in ("us_main", "eu_main"):
            world.caches[name].entries["order:k"] = b"stale"
        write()
        await us.apply()
        assert world.caches["us_main"].entries == {}
        assert world.caches["eu_main"].entries == {"order:k": b"stale"}, "its own region's records tell"
        await eu.apply()
        assert world.caches["eu_main"].entries == {}
        await settle(us, eu)


@pytest.mark.parametrize("verb", [CacheVerb.REFRESH, CacheVerb.WRITE_THROUGH])
@pytest.mark.parametrize("remembered", [0, 100], ids=["as of others", "as of its own"])
async def test_a_versioned_mesh_fills_entries_with_what_its_own_region_holds(verb: CacheVerb, remembered: int) -> None:
    world = MeshWorld(VERSIONED, US, EU)
    caches, own = (cache_rule("us_main", US, verb), cache_rule("eu_main", EU, verb)), OwnWrites(remembered)
    us, eu = (Reader(world, at, caches=(of,), own_writes=own) for at, of in zip((US, EU), caches, strict=True))

    def holds(region: RegionId) -> bytes | None:
        return world.caches[f"{region}_main"].entries.get("order:k")

    for value, write in (("new", world[US].put), ("changed", world[EU].put)):
        for name in ("us_main", "eu_main"):
            world.caches[name].entries["order:k"] = b"stale"
        write("k", value, ver={"new": 1, "changed": 2}[value])
        await settle(us, eu)
        for region in (US, EU):
            entry = holds(region)
            assert entry is not None
            assert entry.startswith(b"V:|")
            assert value_of(Image(entry[3:])) == value
    world.caches["us_main"].evict("order:k")
    world[US].put("k", "last", ver=3)
    await settle(us, eu)
    through = verb is CacheVerb.WRITE_THROUGH
    assert (holds(US) is not None) == through
    world[EU].delete("k")
    await settle(us, eu)
    assert holds(EU) == b"T:"


async def test_a_mesh_without_order_only_drops() -> None:
    world = MeshWorld(ACTIVE, US, EU)
    us = Reader(world, US, caches=(cache_rule("us_main", US, CacheVerb.WRITE_THROUGH),))
    world.caches["us_main"].entries["order:k"] = b"stale"
    world[US].put("k", "new")
    await us.apply()
    assert world.caches["us_main"].entries == {}


async def test_a_stamp_that_changes_nothing_else_drops_no_cache_entry() -> None:
    world = MeshWorld(ACTIVE, US, EU)
    us = Reader(world, US, caches=(US_CACHE,))
    world[US].put("k", "v")
    await us.apply()
    world.caches["us_main"].entries["order:k"] = b"filled since"
    assert await us.apply(), "the record of the stamp"
    assert world.caches["us_main"].entries == {"order:k": b"filled since"}
    assert [report.cache_actions for report in us.observer.reports] == [1, 0]


async def test_a_cache_that_is_down_holds_the_record_before_any_region_is_asked() -> None:
    world = MeshWorld(ACTIVE, US, EU)
    us = Reader(world, US, caches=(US_CACHE,))
    world[US].put("k", "v")
    world.caches["us_main"].faults.outage = Unreachable
    us.start()
    await asyncio.sleep(30)
    assert us.asked == []
    world.caches["us_main"].faults.outage = None
    await us.finish()
    assert world[EU].value("k") == "v"


# -- conflicts -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", MODES)
async def test_an_entry_is_durable_before_its_record_is_passed_and_tells_rule_mode_and_witness(mode: str) -> None:
    world = MeshWorld(mode, US, EU)
    us, eu = world.readers()
    world.at(100)
    world[EU].put("k", "loser", ver=1)
    world[US].put("k", "winner", ver=2)
    world.conflicts.faults.outage = Unreachable
    reader = us if mode == VERSIONED else eu
    if mode == ACTIVE:
        await us.apply()
    held_at = reader.position
    reader.start()
    await asyncio.sleep(30)
    records = world.records(reader.home)
    assert reader.position.text in {held_at.text, "1"}, "the record that shows the loss is not passed"
    assert world.entries() == []
    world.conflicts.faults.outage = None
    await reader.finish()
    (entry,) = world.entries()
    witness = records[0] if mode == VERSIONED else records[1]
    assert (entry.rule, entry.mode, entry.table) == ("orders", mode, "orders")
    assert entry.witness == Witness(reader.home, ShardId("s0"), SequenceNumber(witness.sequence))
    assert EPOCH_SECONDS <= entry.detected_at <= world.clock.now()
    await settle(us, eu)
    assert world.agreed() == {"k": "winner"}
    counted = sum((sum(report.conflicts.values()) for each in (us, eu) for report in each.observer.reports), 0)
    assert counted >= 1


# -- filters and starts --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", MODES)
async def test_keys_that_the_filter_leaves_out_are_left_alone(mode: str) -> None:
    world = MeshWorld(mode, US, EU)
    us = Reader(world, US, filter=Filter(key_prefix=(("pk", "in"),)), caches=(US_CACHE,))
    world.caches["us_main"].entries["order:out"] = b"kept"
    world[US].put("out", "v", ver=1)
    world[US].put("inside", "v", ver=1)
    world[US].delete("out")
    world[US].delete("inside")
    world[US].put("inside", "v", ver=2)
    await us.apply()
    assert world[EU].holds() == {"inside": "v"}
    assert world.caches["us_main"].entries == {"order:out": b"kept"}
    assert [(report.skipped, report.changes) for report in us.observer.reports] == [(2, 3)]
    assert all(key.parts[0][2] == "inside" for key in world[EU].slots)


@pytest.mark.parametrize("mode", MODES)
async def test_a_start_at_the_latest_passes_over_what_was_written_before(mode: str) -> None:
    world = MeshWorld(mode, US, EU)
    world.at(-60)
    world[US].put("before", "v", ver=1)
    world.skew = dict.fromkeys(world.names, 0.0)
    rules = [world.rule(region, start=Start.LATEST) for region in world.names]
    async with world.process(*rules) as process:
        await until(lambda: world.stored(US) == "1")
        world[US].put("after", "v", ver=1)
        await until(lambda: world[EU].holds() == {"after": "v"})
        await process.drain()
    starts = await world.registry.starts(world.refs[US])
    assert list(starts) == [world.rule(US).targets[0].target_id]


# -- what it costs -------------------------------------------------------------------------------------------------

Counts = tuple[int, int, int, int]
"""Daemon's item writes and side row writes, at the origin and in each other region."""


@pytest.mark.parametrize("count", [2, 3])
@pytest.mark.parametrize(
    ("mode", "deed", "expected"),
    [
        (ACTIVE, "put existing", (1, 0, 1, 0)),
        (ACTIVE, "update existing", (1, 0, 1, 0)),
        (ACTIVE, "put new", (1, 0, 1, 0)),
        (ACTIVE, "delete", (0, 1, 2, 2)),
        (VERSIONED, "put existing", (0, 0, 1, 0)),
        (VERSIONED, "update existing", (0, 0, 1, 0)),
        (VERSIONED, "put new", (0, 0, 1, 0)),
        (VERSIONED, "delete", (0, 1, 1, 1)),
    ],
)
async def test_the_daemon_writes_for_a_users_write_what_the_protocol_says(
    mode: str, deed: str, expected: Counts, count: int
) -> None:
    world = MeshWorld(mode, *REGIONS[:count])
    async with world.process() as process:
        names = [f"k{number}" for number in range(10)]
        if deed != "put new":
            for name in names:
                world[US].put(name, "old", ver=1)
            await until(lambda: all(len(table.holds()) == 10 for table in world.tables.values()))
            await asyncio.sleep(20)
        for table in world.tables.values():
            table.effects.clear()
            table.reads.clear()
        for name in names:
            match deed:
                case "delete":
                    world[US].delete(name)
                case "update existing":
                    world[US].update(name, "new", ver=2)
                case _:
                    world[US].put(name, "new", ver=2)
        await asyncio.sleep(30)
        await process.drain()
    origin, *others = world.tables.values()
    for other in others:
        counted = (origin.item_writes, origin.row_writes, other.item_writes, other.row_writes)
        assert counted == tuple(10 * each for each in expected)
    if mode == ACTIVE:
        home, away = {
            "delete": ({"GetItem": 10, "GetSideRow": 10}, {"GetItem": 10}),
            "put new": ({"GetItem": 10, "GetSideRow": 10}, {"GetItem": 10, "GetSideRow": 20}),
        }.get(deed, ({"GetItem": 10, "GetSideRow": 10}, {"GetItem": 10}))
        assert dict(origin.reads) == home
        assert [dict(other.reads) for other in others] == [away] * (count - 1)
    assert world.losses() == []


async def test_with_few_workers_refused_keys_leave_room_for_the_others_of_a_page() -> None:
    world = MeshWorld(ACTIVE, US, EU)
    reader = Reader(world, US, limits=Limits(concurrency=3))
    for key in "abcdef":
        world[US].put(key, "v")
    world[EU].poison(key_of("b"), "too large")
    reader.start()
    await until(lambda: len(world[EU].holds()) == 5)
    assert reader.position.text == "1"
    world[EU].cure(key_of("b"))
    await reader.finish()
    assert reader.position.text == "6"
