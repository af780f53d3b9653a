"""The schedules T1-T26 of the protocol's test list, on the real applier and drivers, held wherever a schedule says so.

T24 is about a source that this version has not; T25, about readers of a cache, is complete in the explorer of
tests/simulation/test_cache.py; T27-T35 stand in tests/simulation.
"""

from __future__ import annotations

import asyncio

import pytest

from replicator.domain.identifiers import RegionId, SequenceNumber, ShardId
from replicator.domain.image import Image
from replicator.domain.modes.requests import Request, Response
from replicator.domain.progress import HORIZON, after
from replicator.domain.stamps import NO_ROW, StampKind, held
from replicator.domain.values import replace
from replicator.engine.applying.applier import TargetApplier
from replicator.engine.applying.context import TargetContext, TargetPorts
from replicator.engine.applying.look_ahead import ReadAhead
from replicator.engine.limits import Limits
from replicator.laboratory.memory import MemoryRegion, OpenFence
from replicator.ports.events import Place
from replicator.ports.targets import Fence
from tests.engine.mesh_world import ACTIVE, VERSIONED, MeshWorld, Reader, settle
from tests.engine.world import AP, EU, US, LoopClock, Recorder, World, eu_rule, key_of, until


async def seeded(*regions: RegionId, mode: str = ACTIVE, value: str = "seed") -> tuple[MeshWorld, list[Reader]]:
    """A mesh that agrees on one item, with a reader per region that has nothing left to read."""
    world = MeshWorld(mode, *(regions or (US, EU)))
    readers = world.readers()
    world.at(10)
    world[US].put("k", value, **({"ver": 10} if mode == VERSIONED else {}))
    await settle(*readers)
    assert world.agreed() == {"k": value}
    assert world.losses() == []
    return world, readers


async def at_once(*readers: Reader) -> None:
    """Let all apply at the same time, then come to rest."""
    for reader in readers:
        reader.start()
    for reader in readers:
        await reader.finish()
    await settle(*readers)


def asks(reader: Reader, region: RegionId) -> list[str]:
    """What a reader asked of a region, but for reads."""
    return [call for asked, call in reader.asked if asked == region and not call.startswith("Get")]


def lasting(world: MeshWorld) -> list[tuple[str | None, str | None]]:
    """Winner and loser of the conflicts whose loser is gone for good.

    An earlier write that came over a later one without a stamp yet is logged too, as repaired.
    """
    shown = zip(world.entries(), world.losses(), strict=True)
    return [(winner, loser) for entry, (_, winner, loser) in shown if entry.conflict.outcome != "repaired"]


# -- T1-T3: concurrent writes --------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", ["us first", "eu first", "at once"])
async def test_t01_puts_of_one_second_in_two_regions_end_with_the_greater_region_and_one_entry(order: str) -> None:
    world = MeshWorld(ACTIVE, US, EU)
    us, eu = world.readers()
    world.at(100)
    world[US].put("k", "from us")
    world[EU].put("k", "from eu")
    if order == "at once":
        await at_once(us, eu)
    else:
        await settle(*((us, eu) if order == "us first" else (eu, us)))
    assert world.agreed() == {"k": "from us"}
    assert lasting(world) == [("from us", "from eu")]


@pytest.mark.parametrize("order", ["us first", "eu first", "at once"])
async def test_t02_a_later_put_and_an_earlier_update_cross(order: str) -> None:
    world, (us, eu) = await seeded()
    world.at(22, US)
    world.at(21, EU)
    world[US].put("k", "later put")
    world[EU].update("k", "earlier update")
    if order == "at once":
        await at_once(us, eu)
    else:
        await settle(*((us, eu) if order == "us first" else (eu, us)))
    assert world.agreed() == {"k": "later put"}
    assert lasting(world) == [("later put", "earlier update")]


async def test_t03_two_writes_of_one_second_in_one_region_end_with_the_second_and_no_entry() -> None:
    world, (us, eu) = await seeded()
    world[US].put("k", "first")
    world[US].put("k", "second")
    await settle(us, eu)
    assert world.agreed() == {"k": "second"}
    assert world.losses() == []


# -- T4-T6: deletes, echoes, crashes -------------------------------------------------------------------------------


@pytest.mark.parametrize("order", ["delete first", "put first", "at once"])
async def test_t04_a_delete_beats_an_older_put_that_it_crosses_and_the_put_is_logged(order: str) -> None:
    world, (us, eu) = await seeded()
    world.at(22, US)
    world.at(21, EU)
    world[US].delete("k")
    world[EU].put("k", "older put")
    if order == "at once":
        await at_once(us, eu)
    else:
        await settle(*((us, eu) if order == "delete first" else (eu, us)))
    assert world.agreed() == {}
    assert {(winner, loser) for _, winner, loser in world.losses()} == {(None, "older put")}


async def test_t04_a_put_that_stood_between_look_and_insert_while_the_delete_passed_is_taken_away() -> None:
    world = MeshWorld(ACTIVE, US, EU)
    us, eu = world.readers()
    world.at(21, EU)
    world.at(22, US)
    world[EU].put("k", "older put")
    gate = eu.hold(US, "StampedPut")
    eu.start()
    await gate.reached()  # it saw neither an item nor a tombstone in us
    world[US].put("k", "short-lived")
    world[US].delete("k")
    await us.apply()
    assert world[EU].value("k") is None
    await eu.finish()
    assert world[US].value("k") == "older put", "it slipped in beside its tombstone"
    await settle(us, eu)
    assert world.agreed() == {}
    assert {(winner, loser) for _, winner, loser in world.losses()} == {(None, "older put")}


async def test_t05_a_removal_by_the_daemon_is_not_replicated() -> None:
    world, (us, eu) = await seeded()
    world[US].delete("k")
    await us.apply()
    eu.asked.clear()
    assert await eu.apply()
    assert asks(eu, EU) == ["NoteRemoval"]
    assert asks(eu, US) == []
    assert world.agreed() == {}
    assert world.losses() == []


@pytest.mark.parametrize(
    ("write", "region", "call"),
    [
        ("delete", EU, "DeleteMarked"),  # between mark and delete
        ("delete", EU, "Restamp"),  # between tombstone and mark
        ("delete", EU, "MergeTombstone"),  # between the two tombstones
        ("put", EU, "StampedPut"),  # between stamp-back and put
        ("put", US, "Restamp"),  # before anything
    ],
)
async def test_t06_after_a_crash_between_two_calls_another_daemon_finishes(
    write: str, region: RegionId, call: str
) -> None:
    world, (us, eu) = await seeded()
    world.at(30)
    if write == "put":
        world[US].put("k", "new")
    else:
        world[US].delete("k")
    gate = us.hold(region, call)
    us.start()
    await gate.reached()
    before = us.position
    successor = await us.crash()
    assert us.position == before, "what is not done is not passed"
    await settle(successor, eu)
    assert world.agreed() == ({"k": "new"} if write == "put" else {})
    assert world.losses() == []


async def test_t06_a_crash_between_put_and_log_loses_no_entry() -> None:
    world, (us, eu) = await seeded()
    world.at(22, US)
    world.at(21, EU)
    world[US].put("k", "later")
    world[EU].put("k", "earlier")
    await us.apply()
    gate = eu.hold(None, "LogConflict")
    eu.start()
    await gate.reached()
    assert world.losses() == []
    successor = await eu.crash()
    await settle(us, successor)
    assert world.agreed() == {"k": "later"}
    assert [(winner, loser) for _, winner, loser in world.losses()] == [("later", "earlier")]


# -- T7-T10: causality ---------------------------------------------------------------------------------------------


async def test_t07_what_overwrote_a_version_wins_although_its_clock_is_behind() -> None:
    world, (us, eu) = await seeded()
    world.at(100, US)
    world[US].put("k", "seen")
    await settle(us, eu)
    world.at(50, EU)
    world[EU].put("k", "knew it")
    await settle(us, eu)
    assert world.agreed() == {"k": "knew it"}
    assert world.losses() == []


async def test_t08_two_quick_puts_over_a_version_from_the_future_keep_their_order() -> None:
    world, (us, eu) = await seeded()
    world.at(1000, US)
    world[US].put("k", "future")
    await settle(us, eu)
    world.at(50, EU)
    world[EU].put("k", "one")
    world[EU].put("k", "two")
    await settle(us, eu)
    assert world.agreed() == {"k": "two"}
    assert world.losses() == []


async def test_t09_a_put_that_was_deleted_within_the_lag_never_shows_and_leaves_a_floor() -> None:
    world = MeshWorld(ACTIVE, US, EU)
    us, eu = world.readers()
    world[US].put("k", "short-lived")
    world[US].delete("k")
    await us.apply()
    assert [record.event.value for record in world.records(US)] == ["INSERT", "REMOVE"]
    assert world.records(EU) == [], "nothing ever stood there"
    row = world[US].slot(key_of("k")).row
    assert row.floor is not None
    assert row.tombstone is not None
    assert row.floor < row.tombstone.version
    await settle(us, eu)
    assert world.agreed() == {}
    assert world.losses() == []


@pytest.mark.parametrize("page", [1, None])
async def test_t10_a_delete_and_a_new_item_within_the_lag_end_with_the_new_item(page: int | None) -> None:
    world, (us, eu) = await seeded()
    world[US].put("k", "old")
    world[US].delete("k")
    world[US].put("k", "new")
    for _ in range(3):
        await us.apply(page)
    await settle(us, eu)
    assert world.agreed() == {"k": "new"}
    assert world.losses() == []


# -- T11-T17: stamps that users keep, wipe and put back ------------------------------------------------------------


@pytest.mark.parametrize("region", [US, EU])
async def test_t11_a_zombie_does_not_take_a_wiped_stamp_for_the_one_it_saw(region: RegionId) -> None:
    world, (us, eu) = await seeded()
    world[US].put("k", "one")
    if region == EU:
        world[EU].put("k", "wiped")  # the zombie sees an item without a stamp there, too
    zombie = us.again(behind=2)
    gate = zombie.hold(region, "Restamp" if region == US else "StampedPut")
    zombie.start()
    await gate.reached()
    await settle(us, eu)
    world.at(60)
    world[region].put("k", "two")
    await zombie.finish()
    await settle(us, eu)
    assert world.agreed() == {"k": "two"}


async def test_t11_a_zombie_does_not_take_the_same_version_with_another_nonce_for_the_one_it_saw() -> None:
    world, (us, eu) = await seeded()
    world[US].put("k", "one")
    early = us.again(behind=2)
    early_gate = early.hold(US, "Restamp")
    early.start()
    await early_gate.reached()
    await us.apply()
    first = held(world[US].item(key_of("k")))
    assert first is not None
    world[US].update("k", "two")  # keeps the stamp of "one"
    late = us.again(behind=4)
    late_gate = late.hold(US, "Restamp")
    late.start()
    await late_gate.reached()  # it means to replace the stamp of "one" on "two"
    world[US].put("k", "three")  # wipes it
    await early.finish()  # stamps "three" with the version of "one" again, under a new nonce
    second = held(world[US].item(key_of("k")))
    assert second is not None
    assert (first.version, first.seen) != (None, second.seen)
    assert second.version == first.version
    await late.finish()
    await settle(us, eu)
    assert world.agreed() == {"k": "three"}
    assert world.losses() == []


async def test_t12_a_whole_image_that_is_put_with_its_old_stamp_is_a_users_write() -> None:
    world, (us, eu) = await seeded()
    read = world[EU].item(key_of("k"))
    assert read is not None
    world[US].put("k", "newer")
    await settle(us, eu)
    stale = Image(read.wire.replace(b'"seed"', b'"from a stale read"'))
    world[EU].write("k", stale)
    await settle(us, eu)
    assert world.agreed() == {"k": "from a stale read"}
    assert world.losses() == []


async def test_t13_a_marked_image_that_is_put_back_is_a_users_write() -> None:
    world, (us, eu) = await seeded()
    world[US].delete("k")
    gate = us.hold(EU, "DeleteMarked")
    us.start()
    await gate.reached()
    read = world[EU].item(key_of("k"))
    assert read is not None
    looked = held(read)
    assert looked is not None
    assert looked.kind is StampKind.MARK
    await us.finish()
    world[EU].write("k", Image(read.wire.replace(b'"seed"', b'"put back"')))
    await settle(us, eu)
    assert world.agreed() == {"k": "put back"}
    assert world.losses() == []


async def test_t14_an_update_between_mark_and_delete_comes_back_and_is_logged() -> None:
    world, (us, eu) = await seeded()
    world[US].delete("k")
    gate = us.hold(EU, "DeleteMarked")
    us.start()
    await gate.reached()
    world[EU].update("k", "in between")
    await us.finish()
    assert world[EU].value("k") is None
    await settle(us, eu)
    assert world.agreed() == {"k": "in between"}
    assert world.losses() == [("unversioned", None, "in between")]


async def test_t15_a_put_that_only_wiped_the_stamp_is_stamped_again_and_is_no_conflict() -> None:
    world, (us, eu) = await seeded()
    world[EU].put("k", "seed")
    await settle(us, eu)
    assert world.agreed() == {"k": "seed"}
    assert world.losses() == []
    versions = {held_at.version for region in (US, EU) if (held_at := held(world[region].item(key_of("k"))))}
    assert len(versions) == 1


async def test_t16_a_value_that_changes_there_and_back_before_it_is_read_is_settled_everywhere() -> None:
    world, (us, eu) = await seeded(value="A")
    world[US].put("k", "B")
    world[US].put("k", "A")
    gate = us.hold(EU, "StampedPut")
    us.start()
    await gate.reached()
    assert world[US].value("k") == "A", "the record of B stamped what stood there, and touched nothing"
    await us.finish()
    await settle(us, eu)
    assert world.agreed() == {"k": "A"}
    assert world.losses() == []


@pytest.mark.parametrize("behind", [0, 500])
async def test_t17_a_new_item_right_after_a_replicated_delete_has_seen_it(behind: int) -> None:
    world, (us, eu) = await seeded()
    world.at(600, US)
    world[US].delete("k")
    await us.apply()
    world.at(600 - behind, EU)
    world[EU].put("k", "new")
    await settle(us, eu)
    assert world.agreed() == {"k": "new"}
    assert world.losses() == []


# -- T18-T21: expiry, horizon, counts ------------------------------------------------------------------------------


@pytest.mark.parametrize("order", ["expiry first", "extension first", "at once"])
async def test_t18_an_extension_in_another_region_beats_an_expiry(order: str) -> None:
    world, (us, eu) = await seeded()
    world.at(200, US)
    world.at(150, EU)
    world[US].delete("k", by_ttl=True)
    world[EU].update("k", "extended")
    if order == "at once":
        await at_once(us, eu)
    else:
        await settle(*((us, eu) if order == "expiry first" else (eu, us)))
    assert world.agreed() == {"k": "extended"}


async def test_t19_a_replay_inside_the_horizon_meets_the_tombstone_and_resurrects_nothing() -> None:
    world, (us, eu) = await seeded()
    zombie = us.again()
    gate = zombie.hold(EU, "StampedPut")
    world[EU].delete("k")  # the zombie's put of the first record meets no item, and no tombstone yet
    zombie.start(1)
    await gate.reached()
    await settle(us, eu)
    assert world.agreed() == {}
    await zombie.finish()
    assert world[EU].value("k") == "seed", "inserted beside the tombstone"
    await settle(us, eu)
    assert world.agreed() == {}


async def test_t19_a_replay_behind_an_expired_tombstone_goes_on_to_the_delete() -> None:
    world, (us, eu) = await seeded()
    world[US].delete("k")
    await settle(us, eu)
    for region in (US, EU):
        world[region].slots[key_of("k")] = replace(world[region].slot(key_of("k")), row=NO_ROW)
    shown = len(world.records(EU))
    await settle(us.again(), eu.again())
    assert world.agreed() == {}
    assert len(world.records(EU)) == shown, "the removal ahead in the stream was seen before anything was put"


async def test_t19_a_zombie_beyond_the_horizon_resurrects_which_is_why_tombstones_outlive_every_zombie() -> None:
    world, (us, eu) = await seeded()
    zombie = us.again()
    gate = zombie.hold(EU, "StampedPut")
    world[EU].delete("k")
    zombie.start(1)
    await gate.reached()
    await settle(us, eu)
    for region in (US, EU):
        world[region].slots[key_of("k")] = replace(world[region].slot(key_of("k")), row=NO_ROW)
    await zombie.finish()
    await settle(us, eu)
    assert world[EU].value("k") == "seed"


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 2, 0)])
async def test_t20_with_three_regions_a_loser_is_logged_once(order: tuple[int, ...]) -> None:
    world, readers = await seeded(US, EU, AP)
    world.at(22, US)
    world.at(21, EU)
    world[US].put("k", "winner")
    world[EU].put("k", "loser")
    await settle(*(readers[place] for place in order))
    assert world.agreed() == {"k": "winner"}
    assert lasting(world) == [("winner", "loser")]


@pytest.mark.parametrize("mode", [ACTIVE, VERSIONED])
@pytest.mark.parametrize("regions", [[US, EU], [US, EU, AP]])
async def test_t21_user_writes_cost_their_writes_and_nothing_echoes(mode: str, regions: list[RegionId]) -> None:
    world = MeshWorld(mode, *regions)
    readers = world.readers()
    for number in range(12):
        world[regions[number % len(regions)]].put(f"k{number}", number, ver=1)
        world[regions[number % len(regions)]].put(f"j{number}", number, ver=1)
    await settle(*readers)
    per_write = len(regions) if mode == ACTIVE else len(regions) - 1
    assert sum(world[region].item_writes for region in regions) == 24 * per_write
    assert sum(world[region].row_writes for region in regions) == 0
    assert sum(len(world.records(region)) for region in regions) == 24 + 24 * per_write
    assert len(world.agreed()) == 24
    assert world.losses() == []


# -- T22: ordered --------------------------------------------------------------------------------------------------


class HeldRegion:
    """A replica as a zombie calls it: the first guarded put waits."""

    def __init__(self, region: MemoryRegion) -> None:
        self._region = region
        self.arrived, self.opened = asyncio.Event(), asyncio.Event()

    async def execute(self, request: Request, fence: Fence) -> Response:
        if type(request).__name__ == "GuardedPut":
            self.arrived.set()
            await self.opened.wait()
        return await self._region.execute(request, fence)


def ordered_applier(world: World, region: MemoryRegion | HeldRegion) -> TargetApplier:
    rule = eu_rule()
    return TargetApplier(
        TargetContext(
            rule,
            Place(world.ref, ShardId("s0"), rule.targets[0]),
            TargetPorts(region, {}, world.conflicts),
            ReadAhead(),
            limits=Limits(),
            clock=LoopClock(),
            observer=Recorder(),
            fence=OpenFence(),
            stop=asyncio.Event(),
        ),
        started_at=None,
    )


async def test_t22_ordered_a_zombie_that_holds_an_insert_cannot_undo_the_delete_that_passed_it() -> None:
    world = World()
    world.put("k", "short-lived")
    wire = HeldRegion(world.region)
    zombie = asyncio.ensure_future(ordered_applier(world, wire).apply(world.records(), HORIZON, lambda _: None))
    await wire.arrived.wait()
    main = ordered_applier(world, world.region)
    await main.apply(world.records(), HORIZON, lambda _: None)
    assert world.holds() == {"k": "short-lived"}
    world.delete("k")
    await main.apply(world.records()[1:], after(SequenceNumber("1")), lambda _: None)
    assert world.holds() == {}
    wire.opened.set()
    await zombie
    assert world.holds() == {}


# -- T23: versioned ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", ["us first", "eu first", "at once"])
async def test_t23_versioned_equal_versions_end_with_the_greater_content_and_an_entry(order: str) -> None:
    world, (us, eu) = await seeded(mode=VERSIONED)
    world[US].put("k", "A", ver=11)
    world[EU].put("k", "B", ver=11)
    if order == "at once":
        await at_once(us, eu)
    else:
        await settle(*((us, eu) if order == "us first" else (eu, us)))
    winner = world.agreed()["k"]
    assert {(won, lost) for _, won, lost in world.losses()} == {(winner, "AB".replace(winner or "", ""))}
    assert {entry.conflict.reason for entry in world.entries()} == {"hash_tie"}


@pytest.mark.parametrize("lowered", [{"ver": 9}, {}, {"ver": "not a number"}], ids=["lowered", "lost", "mistyped"])
async def test_t23_versioned_a_lowered_or_lost_version_is_taken_back_and_logged(lowered: dict[str, object]) -> None:
    world, (us, eu) = await seeded(mode=VERSIONED)
    world[EU].put("k", "lower", **lowered)
    await settle(us, eu)
    assert world.agreed() == {"k": "seed"}
    assert world.losses() == [("version_regress", "seed", "lower")]


async def test_t23_versioned_items_without_a_version_are_the_lowest_and_still_agree() -> None:
    world = MeshWorld(VERSIONED, US, EU)
    us, eu = world.readers()
    world[US].put("k", "A")
    world[EU].put("k", "B")
    await settle(us, eu)
    winner = world.agreed()["k"]
    assert {(won, lost) for _, won, lost in world.losses()} == {(winner, "AB".replace(winner or "", ""))}
    world[EU].put("k", "versioned", ver=-5)
    await settle(us, eu)
    assert world.agreed() == {"k": "versioned"}


@pytest.mark.parametrize("version", [9, 10])
async def test_t23_versioned_an_item_created_at_or_below_its_tombstone_is_deleted_again(version: int) -> None:
    world, (us, eu) = await seeded(mode=VERSIONED)
    world[US].delete("k")
    await settle(us, eu)
    world[EU].put("k", "too low", ver=version)
    await settle(us, eu)
    assert world.agreed() == {}
    assert world.losses() == [("stale_create", None, "too low")]
    world[EU].put("k", "above", ver=11)
    await settle(us, eu)
    assert world.agreed() == {"k": "above"}


# -- T26: shards ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", [ACTIVE, VERSIONED])
async def test_t26_a_child_shard_is_not_begun_before_the_end_of_its_parent_is_stored(mode: str) -> None:
    world = MeshWorld(mode, US, EU)
    for number in range(30):
        world[US].put("k", f"old {number}", ver=number)
    world.roll(US, "s0", "s1", "s2")
    world[US].put("k", "new", ver=100)
    async with world.process() as process:
        await until(lambda: world[EU].value("k") == "new")
        await process.drain()
    told = process.observer.told
    ended = told.index(("checkpoint_saved", "s0", {"orders/mesh": "SHARD_END"}))
    assert all(told.index(("shard_started", child, "orders/mesh")) > ended for child in ("s1", "s2"))
    assert world.agreed() == {"k": "new"}
    assert world.losses() == []
