"""One region of a mesh is away: the others go on, what it misses is owed to it, and it is brought when it is back."""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter

import pytest

from replicator.domain.errors import AccessRefused, ReplicatorError, TableMissing, Throttled, Unreachable
from replicator.domain.identifiers import RegionId, ShardId
from replicator.domain.modes.requests import GetItem
from replicator.domain.owed_keys import OwedTo
from replicator.domain.rules import OnRefusal
from replicator.engine.applying.owing import Owed
from replicator.engine.applying.partner import Partner
from replicator.engine.limits import Limits
from replicator.ports.events import Place
from replicator.ports.targets import OPEN
from tests.engine.mesh_world import ACTIVE, MODES, NAME, MeshWorld, item
from tests.engine.world import AP, EU, ORDERS, US, Recorder, hold, key_of, slow, until

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


async def test_a_region_that_is_rebuilt_is_owed_what_it_had_when_it_was_paused() -> None:
    """Its own writes come back behind the pause: what was copied of another region may be older than these."""
    world = MeshWorld("versioned", *MEMBERS)
    async with world.process() as process:
        await lag_of(world, US, EU, "canary", 1)
        world[US].put("a", "old", ver=1)
        await until(lambda: same_in(world, *MEMBERS) and world[EU].value("a") == "old")
        await until(lambda: world.stored(EU) == world.records(EU)[-1].sequence)
        world.streams[EU].faults.outage = Unreachable
        world[US].put("a", "new", ver=2)
        await until(lambda: same_in(world, *MEMBERS) and world.stored(US) == world.records(US)[-1].sequence)
        world.membership.pause_region(NAME, AP)
        await until(lambda: (AP, "away") in process.observer.of("region_stands"))
        world[AP].write("a", item("a", "old", ver=1))  # the copy of EU began before that had the new one
        world.streams[EU].faults.outage = None
        await until(lambda: world.stored(EU) == world.records(EU)[-1].sequence)
        assert "a" in world.missed(EU, AP)
        world.membership.resume_region(NAME, AP)
        await until(lambda: world[AP].value("a") == "new" and world.owes_nothing(), within=60)
        await process.drain()


async def test_a_doubt_about_what_is_owed_is_answered_for_all_keys_at_once() -> None:
    world = MeshWorld("versioned", *MEMBERS)
    asked: Counter[str] = Counter()

    async def note(call: str) -> None:
        asked[call] += 1

    world.owed[US].faults.pause = note
    for number in range(40):
        world[US].put(f"k{number}", "v", ver=1)
    async with world.process() as process:
        await until(lambda: same_in(world, *MEMBERS) and len(world[AP].holds()) == 40)
        await process.drain()
    assert asked["find_owed"] == 0, asked
    assert 0 < asked["page_owed"] < 20, asked


@pytest.mark.parametrize("mode", MODES)
async def test_a_region_that_an_operator_pauses_is_asked_nothing_and_owed_everything(mode: str) -> None:
    world = MeshWorld(mode, *MEMBERS)
    async with world.process() as process:
        await lag_of(world, US, EU, "canary", 1)
        await until(lambda: same_in(world, *MEMBERS))
        world.membership.pause_region(NAME, AP)
        await until(lambda: (AP, "away") in process.observer.of("region_stands"))
        before = len(world[AP].effects)
        for number in range(20):
            world[US].put(f"k{number}", "v", ver=1)
        world[EU].delete("k0")
        await until(lambda: set(world.missed(US, AP)) == {f"k{number}" for number in range(20)})
        await asyncio.sleep(120)
        assert len(world[AP].effects) == before
        assert same_in(world, US, EU)
        assert process.observer.owed["orders/ap"].keys == 20
        world[AP].put("mine", "of ap", ver=1)
        await until(lambda: world[US].value("mine") == "of ap")  # its own writes go on
        world.membership.resume_region(NAME, AP)
        await until(lambda: same_in(world, *MEMBERS) and world.owes_nothing())
        await process.drain()
    assert world.losses() == []


@pytest.mark.parametrize("mode", MODES)
async def test_a_region_that_throttles_is_waited_for(mode: str) -> None:
    world = MeshWorld(mode, *MEMBERS)
    async with world.process() as process:
        await lag_of(world, US, EU, "canary", 1)
        await until(lambda: same_in(world, *MEMBERS))
        world[AP].faults.outage = Throttled
        for number in range(5):
            world[US].put(f"k{number}", "v", ver=1)
        await asyncio.sleep(60)
        assert world.missed(US, AP) == {}
        world[AP].faults.outage = None
        await until(lambda: same_in(world, *MEMBERS))
        await process.drain()


@pytest.mark.parametrize("mode", MODES)
async def test_a_region_that_is_owed_a_key_for_too_long_must_be_rebuilt(mode: str) -> None:
    world = MeshWorld(mode, *MEMBERS)
    limits = Limits(overdue_seconds=300.0)
    async with world.process(limits=limits) as process:
        await lag_of(world, US, EU, "canary", 1)
        go_dark(world, AP)
        world[US].put("old", "v", ver=1)
        await until(lambda: "old" in world.missed(US, AP))
        await asyncio.sleep(400)
        come_back(world, AP)
        await asyncio.sleep(60)
        world[US].put("new", "v", ver=1)
        await asyncio.sleep(60)
        assert world[AP].value("old") is None
        assert world[AP].value("new") is None
        assert "rebuilt" in world.missed(US, AP)["new"].why
        world.owed[US].rows.clear()  # as `resume --rebuilt` does, when the table is made anew
        world.owed[EU].rows.clear()
        await asyncio.sleep(60)
        world[US].put("after", "v", ver=1)
        await until(lambda: world[AP].value("after") == "v")
        await process.drain()


@pytest.mark.parametrize("ahead", [20 * 86_400.0, -20 * 86_400.0])
async def test_how_long_a_region_is_owed_a_key_does_not_depend_on_the_clock_of_a_machine(ahead: float) -> None:
    world = MeshWorld(ACTIVE, *MEMBERS)
    async with world.process(limits=Limits(overdue_seconds=300.0)) as process:
        process.clock.ahead = ahead
        go_dark(world, AP)
        world[US].put("a", "v", ver=1)
        await until(lambda: "a" in world.missed(US, AP))
        assert abs(world.missed(US, AP)["a"].first - process.clock.servers.now()) < 60
        await asyncio.sleep(30)
        come_back(world, AP)
        await until(lambda: world[AP].value("a") == "v")
        await process.drain()


@pytest.mark.parametrize("mode", MODES)
async def test_what_one_region_refuses_is_parked_and_heals_with_the_next_version_that_fits(mode: str) -> None:
    world = MeshWorld(mode, *MEMBERS)
    rules = [world.rule(region, refused=OnRefusal.PARK) for region in MEMBERS]
    world[AP].longest = 300
    async with world.process(*rules) as process:
        world[US].put("big", "x" * 300, ver=1)
        world[US].put("small", "v", ver=1)
        await until(lambda: world[AP].value("small") == "v" and world[EU].value("big") is not None)
        refused = OwedTo(ORDERS, world.rule(US).as_replica(AP))
        await until(lambda: [to for to, _ in world.owed[US].rows] == [refused])
        await until(lambda: world.stored(US) is not None)
        world[US].put("big", "fits", ver=2)
        await until(lambda: same_in(world, *MEMBERS) and world.owed[US].rows == {})
        await process.drain()
    assert process.observer.of("parked")
    assert process.observer.of("unparked")


@pytest.mark.parametrize("deletes", [False, True])
@pytest.mark.parametrize("mode", MODES)
async def test_what_one_region_refused_is_settled_by_what_another_writes_over_it(mode: str, deletes: bool) -> None:
    world = MeshWorld(mode, *MEMBERS)
    rules = [world.rule(region, refused=OnRefusal.PARK) for region in MEMBERS]
    world[AP].longest = 300
    async with world.process(*rules) as process:
        world[US].put("big", "small before", ver=1)
        await until(lambda: world[AP].value("big") is not None)
        world[US].put("big", "x" * 300, ver=2)
        await until(lambda: bool(world.owed[US].rows) and world[EU].value("big") == "x" * 300)
        await asyncio.sleep(30)
        refused = OwedTo(ORDERS, world.rule(US).as_replica(AP))
        assert refused in {to for to, _ in world.owed[US].rows}, "the stamp at home settles nothing"
        if deletes:
            world[EU].delete("big")
        else:
            world[EU].put("big", "fits", ver=3)
        await until(lambda: same_in(world, *MEMBERS) and world[AP].value("big") in {None, "fits"})
        await until(lambda: not any(owed.rows for owed in world.owed.values()))
        await process.drain()


@pytest.mark.parametrize("mode", MODES)
async def test_what_became_too_large_while_a_region_was_away_is_parked_when_it_is_back(mode: str) -> None:
    world = MeshWorld(mode, *MEMBERS)
    rules = [world.rule(region, refused=OnRefusal.PARK) for region in MEMBERS]
    world[AP].longest = 300
    async with world.process(*rules) as process:
        await lag_of(world, US, EU, "canary", 1)
        go_dark(world, AP)
        world[US].put("big", "x" * 300, ver=1)
        await until(lambda: "big" in world.missed(US, AP))
        come_back(world, AP)
        refused = OwedTo(ORDERS, world.rule(US).as_replica(AP))
        await until(lambda: [to for to, _ in world.owed[US].rows] == [refused])
        world[US].delete("big")
        await until(lambda: same_in(world, *MEMBERS) and world.owed[US].rows == {})
        await process.drain()


@pytest.mark.parametrize(
    "number", [pytest.param(each, marks=() if each in {2, 5} else pytest.mark.long) for each in range(1, 12)]
)
@pytest.mark.parametrize("mode", MODES)
async def test_it_may_go_away_at_any_call_and_take_the_worker_with_it(mode: str, number: int) -> None:
    world = MeshWorld(mode, *MEMBERS)
    world[US].put("k", 0, ver=1)
    calls = itertools.count(1)

    async def pause(_: str) -> None:
        if next(calls) == number:
            go_dark(world, AP)

    async with world.process() as first:
        await until(lambda: world[AP].value("k") == "0")
        world[AP].faults.pause = pause
        for version in range(2, 6):
            world[US].put("k", version, ver=version)
            world[EU].put("other", version, ver=version)
            await asyncio.sleep(0.4)
        world[US].delete("k")
        await asyncio.sleep(3)
        await first.kill()
    world[AP].faults.pause = None
    async with world.process() as second, world.process() as third:
        await asyncio.sleep(15)
        come_back(world, AP)
        await until(lambda: same_in(world, *MEMBERS) and world.owes_nothing())
        assert world.agreed() == {"other": "5"}
        await asyncio.sleep(5)  # it reads its own writes
        changes = world.changes()
        await asyncio.sleep(60)
        assert world.changes() == changes, "it falls silent"
        await asyncio.gather(second.drain(), third.drain())
    assert [*first.observer.faults, *second.observer.faults, *third.observer.faults] == []


async def test_a_worker_that_dies_while_it_drains_leaves_the_rest_to_another() -> None:
    world = MeshWorld(ACTIVE, *MEMBERS)
    async with world.process() as first:
        await lag_of(world, US, EU, "canary", 1)
        go_dark(world, AP)
        for number in range(100):
            world[US].put(f"k{number}", "v")
        await until(lambda: len(world.missed(US, AP)) == 100)
        slow(world[AP].faults, 0.3)
        come_back(world, AP)
        await until(lambda: 0 < len(world.missed(US, AP)) < 90)
        await first.kill()
    left = len(world.missed(US, AP))
    assert left > 0
    async with world.process() as second:
        await until(lambda: same_in(world, *MEMBERS) and world.owes_nothing())
        await second.drain()
    assert len(world.agreed()) == 101


async def test_the_oldest_rows_are_read_first_and_no_more_than_asked_for() -> None:
    world = MeshWorld(ACTIVE, US, EU)
    world.owed[US].rows_per_page = 3
    observer = Recorder()
    partner = Partner(NAME, EU, world[EU], away_after=5.0, observer=observer)
    owing = world.owing(world.rule(US), partner, world.clock, observer)
    place = Place(world.refs[US], ShardId("s0"), world.rule(US).targets[0])
    for number in range(10):
        world[US].put(f"k{number}", "v")
        record = world.records(US)[-1]
        await owing.miss(Owed(record, place, "", (), None, "me"), OPEN)
        await asyncio.sleep(1)
    found = await owing.missed(4, tells=True)
    assert [row.key.parts[0][2] for row in found.rows if row.key] == ["k0", "k1", "k2", "k3"]
    assert (found.count, observer.owed["orders/eu"].keys) == (10, 10)
    assert found.oldest == found.rows[0].first


async def test_time_in_which_this_process_stood_still_is_no_silence_of_a_region() -> None:
    world = MeshWorld(ACTIVE, US, EU)
    hold(world[EU].faults, "GetItem")
    partner = Partner(NAME, EU, world[EU], away_after=5.0, observer=Recorder())
    loop = asyncio.get_running_loop()
    asked = loop.create_task(partner.execute(GetItem(key_of("k")), OPEN))
    await asyncio.sleep(0)
    partner._tick(loop.time() - 3.0)  # a timer that comes 3 seconds late
    missing = []
    for seconds in (3.5, 0.6):
        await asyncio.sleep(seconds)
        missing.append(partner.is_missing)
    assert missing == [False, True]
    asked.cancel()
    await asyncio.wait([asked])
