"""Refused records: set aside as rows, healed by newer versions, bounded, across kills and shards."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from msgspec import structs

from replicator.domain.cache_keys import CacheVerb
from replicator.domain.errors import AccessRefused, Unreachable, WorldMismatch
from replicator.domain.filters import Filter, Where
from replicator.domain.identifiers import ShardId
from replicator.domain.image import Image
from replicator.domain.modes.ordered import OrderedPolicy, Unstamped
from replicator.domain.owed_keys import BodyState, OwedKey, OwedTo, Settlement
from replicator.domain.records import Event
from replicator.domain.rules import OnRefusal, Rule, Start
from replicator.domain.targets import TargetKind
from replicator.domain.values import replace
from replicator.domain.versions import ordered_version
from replicator.engine.applying.kinds import KINDS, parks_refusals
from replicator.engine.applying.parking import ParkingBounds
from replicator.engine.limits import Limits
from replicator.laboratory.memory import Fault, OpenFence
from tests.engine.shard_bench import ShardBench
from tests.engine.world import (
    AP,
    EU,
    ORDERS,
    World,
    cache_rule,
    eu_rule,
    hold,
    id_of,
    image,
    key_of,
    rule,
    target,
    until,
    wire,
)

TO = OwedTo(ORDERS, id_of("orders/eu"))
WHY = "Item size has exceeded the maximum allowed size"
OPEN = OpenFence()
S0 = ShardId("s0")


def parking(**choices: Any) -> Rule:
    return eu_rule(refused=OnRefusal.PARK, **choices)


def world_with(*poisoned: str) -> World:
    world = World()
    for name in poisoned:
        world.region.poison(key_of(name), WHY)
    return world


def rows(world: World, to: OwedTo = TO) -> dict[str, OwedKey]:
    """Open rows of a target by what they are about."""
    return {row.shown: row for (owner, _), row in world.owed.rows.items() if owner == to}


def numbers(world: World) -> dict[str, int]:
    """The sequence number that is owed of every key."""
    return {name: int(row.sequence) for name, row in rows(world).items()}


def version(world: World, number: int) -> str:
    return ordered_version(0, world.ref.generation, number)


async def body(world: World, name: str = "pk=big") -> bytes | None:
    return await world.owed.body(rows(world)[name])


# -- set aside, and healed ---------------------------------------------------------------------------------------------


async def test_a_refused_record_is_set_aside_and_what_is_behind_it_goes_on() -> None:
    world = world_with("big")
    world.write(["a", "big", "b", "c"])
    async with ShardBench(world, parking(), limits=Limits(page_records=2)) as bench:
        await until(lambda: world.stored() == "4", within=5)
        assert set(world.holds()) == {"a", "b", "c"}
        assert rows(world) == {
            "pk=big": OwedKey(
                to=TO,
                key=key_of("big"),
                version=version(world, 2),
                shard=S0,
                sequence=world.records()[1].sequence,
                event=Event.INSERT,
                why=f"GuardedPut failed: {WHY}",
                changed_at=world.records()[1].created_at,
                first=rows(world)["pk=big"].first,
                last=rows(world)["pk=big"].first,
                by=bench.worker.lease.owner,
                size=71,
                body=BodyState.STORED,
            )
        }
        assert await body(world) == image("big", 0).wire
        assert bench.observer.blocked_keys == {}
        assert bench.observer.of("parked") == [("orders/eu", "pk=big", 2, 1)]
        assert sum(report.parked for report in bench.observer.reports) == 1
        told = bench.observer.owed["orders/eu"]
        assert (told.keys, told.records, told.oldest) == (1, 0, rows(world)["pk=big"].first)


async def test_a_row_is_as_old_as_servers_say_whatever_the_clock_of_the_machine_shows() -> None:
    world = world_with("big")
    async with ShardBench(world, parking()) as bench:
        bench.clock.ahead = 20 * 86_400.0
        world.put("big", 1)
        await until(lambda: world.stored() == "1")
        assert abs(rows(world)["pk=big"].first - bench.clock.servers.now()) < 60
        await until(lambda: any(report.lag_seconds is not None for report in bench.observer.reports))
        assert all(abs(report.lag_seconds or 0.0) < 60 for report in bench.observer.reports)


async def test_a_key_costs_one_row_however_often_it_changes_and_heals_with_the_version_that_fits() -> None:
    world = world_with("big")
    async with ShardBench(world, parking()) as bench:
        for value in range(10):
            world.put("big", value)
            world.put("a", value)
            await until(lambda: world.stored() == world.records()[-1].sequence)
        assert numbers(world) == {"pk=big": 19}
        assert rows(world)["pk=big"].tries == 10
        assert rows(world)["pk=big"].first < rows(world)["pk=big"].last
        assert await body(world) == image("big", 9).wire
        world.region.cure(key_of("big"))
        world.put("big", "fits")
        await until(world.same)
        await until(lambda: rows(world) == {})
        assert [(done.owed.shown, done.how) for done in world.owed.settled] == [("pk=big", Settlement.APPLIED)]
        assert world.owed.bodies == {}
        assert bench.observer.of("unparked") == [("orders/eu", "pk=big", "applied")]
        assert (bench.observer.owed["orders/eu"].keys, bench.observer.owed["orders/eu"].oldest) == (0, None)


async def test_a_removal_settles_what_was_refused_before() -> None:
    world = world_with("big")
    world.put("big", 1)
    async with ShardBench(world, parking()):
        await until(lambda: set(numbers(world)) == {"pk=big"})
        world.delete("big")
        await until(lambda: rows(world) == {})
        assert world.region.slot(key_of("big")).tombstone == version(world, 2)


async def test_a_removal_that_finds_nothing_leaves_a_tombstone_where_something_is_owed() -> None:
    """Else what is owed could be brought by a worker that still holds its row, behind the removal."""
    world = world_with("big")
    world.put("big", "seen")
    loose = parking(filter=Filter(where=Where("value == 'seen'")))
    async with ShardBench(world, loose):
        await until(lambda: numbers(world) == {"pk=big": 1})
    world.streams._shards[world.ref.arn][S0].records.append(
        structs.replace(world.records()[0], event=Event.REMOVE, old=image("big", "unseen"), new=None, sequence="2")
    )
    async with ShardBench(world, loose):
        await until(lambda: rows(world) == {})
        assert world.region.slot(key_of("big")).tombstone == version(world, 2)


async def test_refusals_of_a_page_become_one_row_with_the_change_that_decides() -> None:
    world = world_with("big")
    for value in range(3):
        world.put("big", value)
    async with ShardBench(world, parking(filter=Filter(events=frozenset({Event.INSERT})))):
        await until(lambda: numbers(world) == {"pk=big": 1})
        assert (rows(world)["pk=big"].event, await body(world)) == (Event.INSERT, image("big", 0).wire)


async def test_every_target_parks_for_itself() -> None:
    world = world_with("big")
    both = rule("orders", target("orders", EU), target("orders", AP), refused=OnRefusal.PARK)
    world.write(["a", "big", "b"])
    async with ShardBench(world, both):
        await until(lambda: world.same(AP))
        await until(lambda: world.stored() == world.stored(target_id="orders/ap") == "3")
        assert set(rows(world)) == {"pk=big"}
        assert rows(world, OwedTo(ORDERS, id_of("orders/ap"))) == {}


async def test_parked_keys_follow_their_shard_into_its_children() -> None:
    world = world_with("k0", "k1", "k2", "k3")
    world.write(["k0", "k1", "k2", "k3"], 0)
    async with world.process(parking(), limits=Limits(discovery_seconds=1)):
        await until(lambda: len(rows(world)) == 4)
        world.roll("s0", "s1", "s2")
        for name in ("k0", "k1", "k2", "k3"):
            world.region.cure(key_of(name))
        world.write(["k0", "k1", "k2", "k3"], 1)
        await until(world.same)
        await until(lambda: rows(world) == {})


def test_only_rules_that_say_so_park() -> None:
    stops = eu_rule()
    kinds = {kind: (parks_refusals(parking(), kind), parks_refusals(stops, kind)) for kind in KINDS}
    assert kinds == {
        TargetKind.REPLICA: (True, False), TargetKind.SOURCE_CACHES: (True, False), TargetKind.MESH: (True, False),
        TargetKind.EVENTS: (True, False),
    }  # fmt: skip


# -- what is no refusal ------------------------------------------------------------------------------------------------


async def test_a_rule_that_stops_waits_for_what_is_refused() -> None:
    world = world_with("big")
    world.write(["a", "big", "b"])
    async with ShardBench(world, eu_rule()) as bench:
        await until(lambda: set(world.holds()) == {"a", "b"})
        await asyncio.sleep(30)
        assert (world.stored(), rows(world)) == ("1", {})
        assert bench.observer.blocked_keys == {"orders/eu on s0": "pk=big"}


@pytest.mark.parametrize("error", [AccessRefused, WorldMismatch, Unreachable])
async def test_what_is_wrong_with_the_world_holds_the_target_and_heals(error: type[Exception]) -> None:
    world = World()
    world.write(["a"])
    world.region.faults.outage = error  # type: ignore[assignment]
    async with ShardBench(world, parking()):
        await asyncio.sleep(20)
        assert (world.stored(), rows(world)) == ("SHARD_START", {})
        world.region.faults.outage = None
        await until(world.same)
    assert world.owed.rows == {}


async def test_an_item_in_the_way_that_must_not_be_overwritten_is_not_set_aside() -> None:
    world = World()
    world.region.write_foreign(key_of("a"), image("a", "foreign"))
    world.put("a", 1)
    async with ShardBench(world, parking(policy=OrderedPolicy(unstamped=Unstamped.STOP))) as bench:
        await until(lambda: bench.observer.blocked_keys == {"orders/eu on s0": "pk=a"})
        assert rows(world) == {}


async def test_an_item_without_room_for_its_version_is_not_even_sent() -> None:
    world = World()
    world.source.put(key_of("big"), Image(wire({"pk": {"S": "big"}, "value": {"S": "x" * 409_590}})))
    world.put("a", 1)
    async with ShardBench(world, parking()):
        await until(lambda: set(world.holds()) == {"a"} and numbers(world) == {"pk=big": 1})
        assert len(world.region.sent) == 1, "only the other item"
        row = rows(world)["pk=big"]
        assert row.why == "The item has 409660 bytes with its version, and no table takes more than 409600."
        assert (row.size, row.body) == (409_660, BodyState.STORED)
        world.put("big", "small")
        await until(world.same)
        assert rows(world) == {}


# -- caches ------------------------------------------------------------------------------------------------------------


async def test_entries_of_a_parked_key_are_dropped_at_once() -> None:
    world = world_with("big")
    cached = rule("orders", target("orders", EU, cache_rule("eu_main", EU, CacheVerb.REFRESH)), refused=OnRefusal.PARK)
    world.caches["eu_main"].entries["order:big"] = b"V:" + version(world, 0).encode() + b"|{}"
    world.put("big", 1)
    async with ShardBench(world, cached):
        await until(lambda: world.stored() == "1")
        assert world.caches["eu_main"].entries == {}


async def test_nothing_is_refreshed_from_a_replica_that_is_known_to_be_behind() -> None:
    """A rewind replays versions before the parked one: the replica takes them, and stays behind."""
    world = World()
    cached = rule("orders", target("orders", EU, cache_rule("eu_main", EU, CacheVerb.REFRESH)), refused=OnRefusal.PARK)
    world.put("big", 1)
    async with ShardBench(world, cached):
        await until(lambda: world.stored() == "1")
        world.region.poison(key_of("big"), WHY)
        world.put("big", 2)
        await until(lambda: world.stored() == "2")
    world.region.write_foreign(key_of("big"), None)
    world.region.cure(key_of("big"))
    row = world.row()
    row.checkpoints.clear()
    world.caches["eu_main"].entries["order:big"] = b"V:" + version(world, 0).encode() + b"|{}"
    gate = hold(world.streams.faults, "GetRecords")
    async with ShardBench(world, cached, limits=Limits(page_records=1)) as bench:
        gate.set()
        await until(lambda: [report.position.text for report in bench.observer.reports] == ["1"], within=5)
        assert world.caches["eu_main"].entries == {}, "dropped, not refreshed to version 1"
        assert numbers(world) == {"pk=big": 2}, "an older version settles nothing"
        await until(lambda: rows(world) == {})
        assert world.same()


# -- kills -------------------------------------------------------------------------------------------------------------


async def test_the_row_is_durable_before_the_position_passes_its_record() -> None:
    world = world_with("big")
    world.write(["a", "big", "b"])
    gate = hold(world.owed.faults, "put_owed")
    async with ShardBench(world, parking()) as bench:
        await until(lambda: set(world.holds()) == {"a", "b"})
        await asyncio.sleep(10)
        assert world.stored() == "1"
        await bench.kill()
    gate.set()
    world.owed.faults.pause = None
    async with ShardBench(world, parking()):
        await until(lambda: world.stored() == "3")
        assert numbers(world) == {"pk=big": 2}


async def test_a_row_whose_answer_is_lost_is_written_again() -> None:
    world = world_with("big")
    world.write(["a", "big", "b"])
    world.owed.faults.script(None, Fault.AFTER)
    async with ShardBench(world, parking()):
        await until(lambda: world.stored() == "3")
        assert (numbers(world), rows(world)["pk=big"].tries) == ({"pk=big": 2}, 2)


async def test_a_row_whose_answer_is_lost_does_not_outlive_the_change_that_is_taken_after_all() -> None:
    world = world_with("big")
    world.put("big", 1)
    world.owed.faults.script(None, Fault.AFTER)
    async with ShardBench(world, parking()):
        await until(lambda: len(rows(world)) == 1)
        world.region.cure(key_of("big"))
        await until(lambda: world.stored() == "1")
        assert (world.same(), rows(world)) == (True, {})


async def test_a_target_waits_while_its_rows_cannot_be_written() -> None:
    world = world_with("big")
    world.write(["a", "big", "b"])
    async with ShardBench(world, parking()) as bench:
        await until(lambda: bench.observer.owed != {})
        world.owed.faults.outage = Unreachable
        world.put("big", 2)
        await asyncio.sleep(20)
        assert bench.observer.blocked_keys == {"orders/eu on s0": "pk=big"}
        world.owed.faults.outage = None
        await until(lambda: world.stored() == "4")
        assert bench.observer.blocked_keys == {}
        assert numbers(world) == {"pk=big": 4}


async def test_nothing_is_applied_before_the_rows_were_read() -> None:
    """A record that settles a row which is not known yet would leave it behind."""
    world = world_with("big")
    world.put("big", 1)
    async with ShardBench(world, parking()):
        await until(lambda: world.stored() == "1")
    world.region.cure(key_of("big"))
    world.put("big", 2)
    world.owed.faults.outage = Unreachable
    async with ShardBench(world, parking()) as bench:
        await asyncio.sleep(20)
        assert world.holds() == {}
        assert list(bench.observer.troubles) == ["orders/replica/eu:orders on shard s0 of orders in us"]
        world.owed.faults.outage = None
        await until(lambda: rows(world) == {} and world.stored() == "2")
        assert bench.observer.troubles == {}


async def test_a_row_is_settled_before_the_position_passes_what_settles_it() -> None:
    world = world_with("big")
    world.put("big", 1)
    async with ShardBench(world, parking()) as bench:
        await until(lambda: world.stored() == "1")
        gate = hold(world.owed.faults, "settle_owed")
        world.region.cure(key_of("big"))
        world.put("big", 2)
        await until(world.same)
        await asyncio.sleep(10)
        assert (world.stored(), numbers(world)) == ("1", {"pk=big": 1})
        await bench.kill()
    gate.set()
    world.owed.faults.pause = None
    async with ShardBench(world, parking()):
        await until(lambda: world.stored() == "2")
        assert rows(world) == {}


async def test_a_row_that_a_process_before_this_one_left_is_loaded_with_the_shard() -> None:
    world = world_with("big")
    world.owed.rows_per_page = 2
    for name in ("x0", "x1", "x2", "x3"):
        world.region.poison(key_of(name), WHY)
    world.write(["x0", "x1", "x2", "x3", "big"])
    async with ShardBench(world, parking()) as bench:
        await until(lambda: world.stored() == "5")
        await bench.drain()
    world.region.cure(key_of("big"))
    async with ShardBench(world, parking()) as bench:
        await until(lambda: "orders/eu" in bench.observer.owed)
        assert bench.observer.owed["orders/eu"].keys == 5
        world.put("big", 2)
        await until(lambda: set(rows(world)) == {"pk=x0", "pk=x1", "pk=x2", "pk=x3"})


async def test_an_operators_word_reaches_every_process_in_time() -> None:
    world = world_with("big")
    world.put("big", 1)
    async with world.process(parking(), limits=Limits(owed_seconds=30)) as process:
        await until(lambda: process.observer.owed.get("orders/eu", None) is not None and len(rows(world)) == 1)
        row = rows(world)["pk=big"]
        assert await world.owed.settle(row, Settlement.DROPPED, "me", OPEN)
        await until(lambda: process.observer.owed["orders/eu"].keys == 0, within=31)


# -- bounds ------------------------------------------------------------------------------------------------------------


async def test_a_target_that_refuses_too_much_stops_and_says_so_and_holds_no_other() -> None:
    names = [f"k{number:02d}" for number in range(12)]
    world = world_with(*names)
    world.bounds = ParkingBounds(keys=10)
    both = rule("orders", target("orders", EU), target("orders", AP), refused=OnRefusal.PARK)
    world.write(names)
    async with ShardBench(world, both) as bench:
        await until(lambda: len(rows(world)) == 10)
        await asyncio.sleep(30)
        assert (len(rows(world)), world.stored(), world.same(AP)) == (10, "10", True)
        told = {message for place, _, message in bench.observer.of("blocked") if place == "orders/eu"}
        sentence = (
            "Target orders/replica/eu:orders has 10 parked keys, the most that is kept: when so much is refused, it is"
            f" the table and not the record. The last refusal: GuardedPut failed: {WHY}"
        )
        assert told == {sentence}
        for name in names[:3]:
            await world.owed.settle(rows(world)[f"pk={name}"], Settlement.DROPPED, "me", OPEN)
        await until(lambda: world.stored() == "12", within=30)
        assert len(rows(world)) == 9
        assert bench.observer.blocked_keys == {}


async def test_keys_that_are_parked_take_newer_versions_at_the_bound_too() -> None:
    names = [f"k{number:02d}" for number in range(10)]
    world = world_with(*names)
    world.bounds = ParkingBounds(keys=10)
    world.write(names)
    async with ShardBench(world, parking()) as bench:
        await until(lambda: world.stored() == "10")
        world.write(names, 1)
        await until(lambda: world.stored() == "20")
        assert [row.tries for row in rows(world).values()] == [2] * 10
        assert bench.observer.of("blocked") == []


async def test_rows_of_other_workers_count_too() -> None:
    world = world_with("k0", "k1")
    world.bounds = ParkingBounds(keys=10)
    world.write(["k0"])
    async with ShardBench(world, parking()):
        await until(lambda: world.stored() == "1")
        for number in range(9):
            other = replace(rows(world)["pk=k0"], key=key_of(f"other{number}"))
            await world.owed.put(other, None, OPEN)
        world.write(["k1"])
        await asyncio.sleep(30)
        assert (world.stored(), len(rows(world))) == ("1", 10)


# -- records that cannot be read ---------------------------------------------------------------------------------------


async def test_a_record_that_cannot_be_read_is_kept_as_it_came() -> None:
    world = World()
    world.write(["a", "b", "c"])
    world.streams.damage(world.ref, S0, 2, "Record 2 has the unknown event 'X'.")
    async with ShardBench(world, parking()) as bench:
        await until(lambda: world.stored() == "3")
        assert set(world.holds()) == {"a", "c"}
        (row,) = rows(world).values()
        assert (row.shown, row.why) == ("record 2 of shard s0", "Record 2 has the unknown event 'X'.")
        assert (row.key, row.event, await world.owed.body(row)) == (None, None, b'{"2"}')
        told = bench.observer.owed["orders/eu"]
        assert (told.keys, told.records) == (0, 1)
        assert bench.observer.troubles == {}


async def test_a_record_that_is_read_at_the_next_look_was_only_damaged_on_its_way() -> None:
    world = World()
    world.write(["a", "b", "c"])
    world.streams.damage(world.ref, S0, 2, "Record 2 is damaged.")
    async with ShardBench(world, parking()) as bench:
        await until(lambda: bench.observer.troubles != {})
        world.streams.mend(world.ref, S0)
        await until(world.same)
        assert rows(world) == {}


async def test_a_rule_that_stops_waits_for_a_record_that_cannot_be_read() -> None:
    world = World()
    world.write(["a", "b", "c"])
    world.streams.damage(world.ref, S0, 2, "Record 2 is damaged.")
    async with ShardBench(world, eu_rule(), limits=Limits(page_records=1)) as bench:
        await asyncio.sleep(60)
        assert (world.stored(), world.holds()) == ("1", {"a": "0"})
        (trouble,) = bench.observer.troubles.values()
        assert trouble.message == "Record 2 is damaged."
        world.streams.mend(world.ref, S0)
        await until(world.same)
        assert bench.observer.troubles == {}


async def test_records_that_cannot_be_read_have_a_bound_of_their_own() -> None:
    world = world_with("k1", "k2")
    world.bounds = ParkingBounds(keys=10, records=2)
    world.write(["a", "b", "c", "d", "k1", "k2"])
    for number in (1, 2, 3):
        world.streams.damage(world.ref, S0, number, f"Record {number} is damaged.")
    async with ShardBench(world, parking()) as bench:
        await asyncio.sleep(30)
        assert world.stored() == "2"
        told = [message for _, _, message in bench.observer.of("blocked")]
        assert "Target orders/replica/eu:orders has 2 parked records, the most that is kept" in told[0]
        assert {"pk=k1", "pk=k2"} < set(rows(world)), "keys have room"


async def test_a_record_without_a_time_is_not_taken_for_one_from_before_the_start() -> None:
    world = World()
    world.registry._now = lambda: 1e10
    world.write(["a"])
    world.streams.damage(world.ref, S0, 1, "Record 1 is damaged.")
    async with ShardBench(world, parking(start=Start.LATEST)):
        await until(lambda: world.stored() == "1")
        assert set(rows(world)) == {"record 1 of shard s0"}


async def test_an_item_that_the_filter_cannot_judge_hides_none_of_its_key() -> None:
    world = World()
    world.put("a", 1)
    world.source.put(key_of("a"), Image(b'{"pk":{"S":"a"},"value":7}'))
    async with ShardBench(world, parking(filter=Filter(exists=("value",)))) as bench:
        await until(lambda: world.stored() == "2")
        assert world.holds() == {"a": "1"}
        row = rows(world)["pk=a"]
        assert (int(row.sequence), row.event, row.size) == (2, Event.MODIFY, None)
        assert await body(world, "pk=a") == b'{"pk":{"S":"a"},"value":7}'
        assert bench.observer.blocked_keys == {}


# -- a zombie ----------------------------------------------------------------------------------------------------------


async def test_a_row_of_a_worker_that_lost_its_lease_is_not_written() -> None:
    world = world_with("big")
    world.put("big", 1)
    async with ShardBench(world, parking()) as bench:
        await until(lambda: "orders/eu" in bench.observer.owed)
        await until(lambda: len(rows(world)) == 1)
        bench.fence.revoke()
        world.put("big", 2)
        await asyncio.sleep(5)
        assert numbers(world) == {"pk=big": 1}
