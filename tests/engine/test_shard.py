"""One shard under one lease: pipelines of rules, checkpoints, the end, gaps, and faults that stay where they are."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from replicator.domain.errors import LeaseLost, Throttled, Unreachable
from replicator.domain.identifiers import RegionId, ShardId, WorkerId
from replicator.domain.modes.requests import GuardedPut, Put
from replicator.domain.progress import Position
from replicator.domain.rules import OnGap, Rule, Start
from replicator.domain.shards.leases import Lease, LeaseRow
from replicator.domain.shards.lineage import Shard
from replicator.engine.limits import Limits
from replicator.engine.membership.session import Session, ShardFence
from replicator.engine.shard.checkpoints import Progress
from replicator.laboratory.memory import Fault, Faults
from tests.engine.shard_bench import ShardBench, first_of
from tests.engine.world import (
    AP,
    EU,
    LoopClock,
    World,
    cache_rule,
    eu_rule,
    hold,
    key_of,
    rule,
    short,
    slow,
    target,
    until,
)

S0 = ShardId("s0")
LETTERS = "abcdefghij"


def both(**choices: Any) -> Rule:
    return rule("orders", target("orders", EU), target("orders", AP), **choices)


def applied_by(world: World, region: RegionId = EU) -> list[int]:
    """Sequence numbers of the puts that a region was sent."""
    puts = [request.put if isinstance(request, GuardedPut) else request for request in world.regions[region].sent]
    return [int(put.version[16:]) for put in puts if isinstance(put, Put)]


# -- order and the frontier ----------------------------------------------------------------------------------------


async def test_writes_of_one_key_arrive_in_their_order_whatever_fails_in_between() -> None:
    world = World(seed=7)
    world.region.faults = Faults(7, before=0.2, after=0.2, throttle=0.2)
    seen: list[str] = []
    async with world.process(limits=Limits(page_records=2)):
        for value in range(20):
            world.put("a", value)
            world.put("b", value)
        while not world.same():
            seen.append(world.holds().get("a", "-1"))
            await asyncio.sleep(0.02)
    assert [int(value) for value in seen] == sorted(int(value) for value in seen)


async def test_a_stuck_key_holds_the_checkpoint_and_the_rest_of_its_page_is_applied() -> None:
    world = World()
    world.write(LETTERS)
    world.region.poison(key_of("d"), "it is too large")
    async with world.process(limits=Limits(page_records=6)) as process:
        await until(lambda: set(world.holds()) == set("abcef"))
        await asyncio.sleep(60)
        assert world.stored() == "3"
        assert set(world.holds()) == set("abcef"), "the next page waits, so that no key is overtaken"
        assert process.observer.blocked_keys == {"orders/eu on s0": "pk=d"}
        world.region.cure(key_of("d"))
        await until(world.same)
        await until(lambda: world.stored() == "10")
        assert process.observer.blocked_keys == {}


async def test_no_checkpoint_is_stored_before_its_effects_are_durable() -> None:
    world = World(seed=3)
    slow(world.region.faults, 0.3)

    async def check(call: str) -> None:
        if call == "save":
            await asyncio.sleep(0.2)

    world.coordination.faults.pause = check
    async with world.process(limits=Limits(page_records=4, concurrency=2, checkpoint_seconds=0.1)) as process:
        for round_ in range(5):
            world.write(LETTERS, round_)
            for _ in range(40):
                stored = world.stored()
                if stored not in {None, "TRIM_HORIZON"}:
                    done = {"a": 0, **{name: int(value) for name, value in world.holds().items()}}
                    passed = [record for record in world.records() if Position(str(stored)).covers(record.number)]
                    for record in passed:
                        assert record.new is not None
                        assert done[record.key.parts[0][2]] >= int(record.new.attributes["value"]["S"])
                await asyncio.sleep(0.1)
        await until(world.same)
        assert process.observer.faults == []


async def test_checkpoints_are_batched_in_time() -> None:
    world = World()
    async with world.process(limits=Limits(checkpoint_seconds=5)) as process:
        for value in range(60):
            world.put("a", value)
            await asyncio.sleep(1)
        await until(lambda: world.stored() == "60")
        assert 8 <= len(process.observer.of("checkpoint_saved")) <= 15


async def test_a_restart_resumes_behind_the_checkpoint() -> None:
    world = World()
    world.write(LETTERS)
    async with world.process() as process:
        await until(world.same)
        await process.drain()
    assert world.stored() == "10"
    world.region.sent.clear()
    world.put("k", 1)
    async with world.process():
        await until(world.same)
    assert applied_by(world) == [11]


# -- fan-out -------------------------------------------------------------------------------------------------------


async def test_every_target_has_its_own_checkpoint_and_each_reads_on_from_its_own() -> None:
    world = World()
    rules = both()
    world.write(LETTERS)
    world.regions[AP].poison(key_of("c"), "it is too large")
    async with world.process(rules, limits=Limits(page_records=5)) as process:
        await until(lambda: (world.stored(), world.stored(target_id="orders/ap")) == ("10", "2"))
        await process.drain()
    world.regions[AP].cure(key_of("c"))
    for region in (EU, AP):
        world.regions[region].sent.clear()
    async with world.process(rules, limits=Limits(page_records=5)) as process:
        await until(lambda: world.same(EU) and world.same(AP))
        resumed = {event[1] for event in process.observer.of("polled")}
    assert {"2", "10"} <= resumed
    assert "TRIM_HORIZON" not in resumed
    assert applied_by(world, EU) == [], "a target that is ahead is not written again"
    assert sorted(applied_by(world, AP)) == [3, 4, 5, 6, 7, 8, 9, 10]


async def test_a_target_that_is_added_later_gets_everything_that_the_stream_still_holds() -> None:
    world = World()
    world.write(LETTERS)
    async with world.process() as process:
        await until(world.same)
        await process.drain()
    world.regions[EU].sent.clear()
    async with world.process(both()):
        await until(lambda: world.same(AP))
    assert world.regions[EU].sent == []


async def test_a_rule_whose_target_is_down_does_not_hold_back_another_rule_of_the_table() -> None:
    world = World("s0")
    world.write(LETTERS)
    world.regions[AP].faults.outage = Unreachable
    rules = rule("up", target("up", EU)), rule("down", target("down", AP))
    async with world.process(*rules, limits=Limits(page_records=3)) as process:
        await until(world.same)
        world.roll("s0", "s1")
        world.write("xyz")
        await until(world.same)
        assert world.stored(target_id="up/eu") == "SHARD_END"
        assert world.stored(target_id="down/ap") == "SHARD_START"
        assert world.holds(AP) == {}
        assert process.observer.of("lease_claimed")[0][0] == "s0"
        world.regions[AP].faults.outage = None
        await until(lambda: world.same(AP))
        await until(lambda: world.stored(target_id="down/ap") == "SHARD_END")


async def test_a_cache_that_is_down_stops_its_rule_and_no_other() -> None:
    world = World()
    world.write(LETTERS)
    world.caches["eu_main"].faults.outage = Unreachable
    cached = rule("cached", target("cached", EU, cache_rule("eu_main", EU)))
    async with world.process(cached, rule("plain", target("plain", AP))) as process:
        await until(lambda: world.stored(target_id="plain/ap") == "10")
        assert world.stored(target_id="cached/eu") == "SHARD_START"
        assert list(process.observer.blocked_keys) == ["cached/eu on s0"]
        world.caches["eu_main"].faults.outage = None
        await until(lambda: world.stored(target_id="cached/eu") == "10")


async def test_rules_of_one_table_share_what_is_read() -> None:
    world = World()
    rules = [rule(name, target(name, region)) for name, region in (("one", EU), ("two", AP))]
    async with world.process(*rules) as process:
        for value in range(10):
            world.write(LETTERS, value)
            await until(lambda: world.same(EU) and world.same(AP))
        read = sum(event[2] for event in process.observer.of("polled"))
        assert read == 100, "every record is read once, for both"
        assert [event[0] for event in process.observer.of("lease_claimed")] == ["s0"]


# -- starting late -------------------------------------------------------------------------------------------------


async def test_a_start_at_the_latest_skips_what_is_older_and_survives_a_crash_before_the_first_checkpoint() -> None:
    world = World()
    world.write("abc")
    await asyncio.sleep(100)
    hold(world.coordination.faults, "save")
    async with world.process(eu_rule(start=Start.LATEST)) as process:
        await until(lambda: bool(process.observer.reports))
        assert world.holds() == {}
        await process.kill()
    world.write("xyz")
    await asyncio.sleep(100)
    world.coordination.faults.pause = None
    async with world.process(eu_rule(start=Start.LATEST)):
        await until(lambda: set(world.holds()) == set("xyz"))
        await until(lambda: world.stored() == "6")
    assert set(world.holds()) == set("xyz")


# -- the end of a shard --------------------------------------------------------------------------------------------


async def test_the_end_is_stored_only_when_everything_is_applied() -> None:
    world = World()
    world.write(LETTERS)
    world.region.poison(key_of("j"), "it is too large")
    world.roll("s0", "s1")
    world.write("xyz")
    async with world.process() as process:
        await until(lambda: world.stored() == "9")
        await asyncio.sleep(60)
        assert world.stored() == "9"
        assert [event[0] for event in process.observer.of("lease_claimed")] == ["s0"]
        world.region.cure(key_of("j"))
        await until(world.same)
        await until(lambda: world.stored("s1") == "13")
        assert world.stored() == "SHARD_END"
        assert ("s0", "finished") in process.observer.of("lease_ended")


async def test_an_empty_closed_shard_ends_too() -> None:
    world = World()
    world.roll("s0", "s1")
    world.write("abc")
    async with world.process():
        await until(world.same)
    assert world.stored() == "SHARD_END"


async def test_an_end_that_could_not_be_stored_is_stored_later_and_told() -> None:
    world = World()
    world.write("abc")
    process = world.process().start()
    await until(lambda: world.stored() == "3")

    async def refuse(call: str) -> None:
        if call == "save":
            raise Unreachable("The coordination table does not answer.")

    world.coordination.faults.pause = refuse
    world.roll("s0", "s1")
    await asyncio.sleep(5)
    assert any("checkpoint of " in trouble for trouble in process.observer.troubles)
    world.coordination.faults.pause = None
    world.put("d", 1)
    await until(world.same)
    assert world.stored() == "SHARD_END"
    assert process.observer.troubles == {}
    await process.drain()


async def test_a_slow_save_never_brings_an_older_position_back_over_the_end() -> None:
    world = World()
    rules = rule("orders", target("orders", EU)), rule("slow", target("slow", AP))
    world.regions[AP].faults.outage = Unreachable
    process = world.process(*rules).start()
    await until(lambda: world.owner() is not None)
    await asyncio.sleep(3)
    gate = hold(world.coordination.faults, "save")
    world.put("a", 1)
    await asyncio.sleep(3)
    world.roll("s0", "s1")
    await asyncio.sleep(3)
    assert world.stored() == "TRIM_HORIZON"
    world.coordination.faults.pause = None
    await asyncio.sleep(3)
    world.coordination.faults.script(Fault.BEFORE)
    gate.set()
    await asyncio.sleep(30)
    assert world.stored() == "SHARD_END"
    world.put("b", 1)
    await until(world.same)
    await process.kill()


async def test_a_checkpoint_that_could_not_be_stored_is_stored_later() -> None:
    world = World()
    process = world.process().start()
    await until(lambda: world.owner() is not None)
    await asyncio.sleep(3)
    world.coordination.faults.outage = Throttled
    world.write("abc")
    await until(world.same)
    await asyncio.sleep(3)
    world.coordination.faults.outage = None
    await until(lambda: world.stored() == "3")
    await until(lambda: process.observer.troubles == {})
    await process.drain()


# -- draining ------------------------------------------------------------------------------------------------------


async def test_a_stop_during_a_page_finishes_what_is_under_way_stores_it_and_releases_the_shard() -> None:
    world = World()
    world.write(LETTERS)
    slow(world.region.faults, 1.0)
    process = world.process(limits=Limits(concurrency=2, page_records=6)).start()
    await until(lambda: len(world.holds()) == 2)
    await process.drain()
    assert set(world.holds()) == set("abcd")
    assert world.stored() == "4"
    assert world.owner() is None
    assert process.observer.of("shard_stopped") == [("s0", "orders/eu", "stopped")]
    assert process.observer.of("lease_ended") == [("s0", "stopped")]


async def test_a_stop_while_a_record_cannot_be_applied_stores_what_lies_before_it() -> None:
    world = World()
    world.write(LETTERS)
    world.region.poison(key_of("d"), "it is too large")
    process = world.process(limits=Limits(page_records=5)).start()
    await until(lambda: set(world.holds()) == set("abce"))
    await process.drain(within=1)
    assert world.stored() == "3"
    assert world.owner() is None


async def test_a_stop_while_a_page_waits_behind_a_blocked_one_is_no_deadlock() -> None:
    world = World()
    world.write(LETTERS)
    world.region.faults.outage = Unreachable
    process = world.process(limits=Limits(page_records=2)).start()
    await asyncio.sleep(60)
    await process.drain(within=1)
    assert world.stored() == "SHARD_START"
    assert world.owner() is None


async def test_a_stop_repeats_the_last_checkpoint_until_it_is_stored() -> None:
    world = World()
    process = world.process(limits=Limits(checkpoint_seconds=60)).start()
    world.write("abc")
    await until(world.same)
    world.coordination.faults.script(*[Fault.BEFORE] * 3, Fault.AFTER)
    await process.drain()
    assert world.stored() == "3"
    assert world.owner() is None


async def test_a_save_under_way_at_the_end_is_waited_for_so_that_it_cannot_land_behind_the_next() -> None:
    world = World()
    process = world.process(limits=Limits(checkpoint_seconds=0.1)).start()
    await until(lambda: world.stored() == "TRIM_HORIZON")
    gate, saves = asyncio.Event(), 0

    async def pause(call: str) -> None:
        nonlocal saves
        if call == "save":
            saves += 1
            await gate.wait()

    world.coordination.faults.pause = pause
    world.put("a", 1)
    await until(world.same)
    await asyncio.sleep(1)
    process.stop.set()
    await asyncio.sleep(5)
    gate.set()
    await process.drain()
    assert (saves, world.stored()) == (1, "1"), "the save was neither given up nor repeated"


async def progress_of(world: World) -> tuple[Progress, ShardFence]:
    """The progress of a shard that was claimed, without anybody who works on it."""
    clock = LoopClock()
    me = WorkerId("me")
    await world.coordination.discover(world.ref, [Shard(S0)], found_at=0)
    row = await world.coordination.claim(world.ref, world.row(), me)
    assert row is not None
    session = Session(me, clock, lease_seconds=10)
    session.extend(clock.monotonic())
    fence = ShardFence(session)
    lease = Lease(world.ref, S0, me, row.epoch)
    bench = ShardBench(world)
    row = LeaseRow(Shard(lease.shard_id))
    return Progress(lease, row, bench.ports(), fence=fence, limits=Limits(), save_in=lambda _: None), fence


async def test_no_checkpoint_is_sent_behind_the_deadline_of_the_lease() -> None:
    world = World()
    progress, _ = await progress_of(world)
    progress.moved(target("orders", EU), Position("1"))
    await asyncio.sleep(9)
    with pytest.raises(LeaseLost):
        await progress.flush()
    assert world.owner() == "me", "the row would still have taken it"
    assert world.stored() is None


async def test_a_refused_checkpoint_fences_everything_else_of_the_shard_at_once() -> None:
    world = World()
    progress, fence = await progress_of(world)
    await world.coordination.claim(world.ref, world.row(), WorkerId("other"))
    progress.moved(target("orders", EU), Position("1"))
    fence.check()
    with pytest.raises(LeaseLost):
        await progress.flush()
    with pytest.raises(LeaseLost):
        fence.check()


async def test_a_flush_that_is_cancelled_keeps_what_it_should_have_stored() -> None:
    world = World()
    progress, _ = await progress_of(world)
    gate = hold(world.coordination.faults, "save")
    progress.moved(target("orders", EU), Position("1"))
    flushing = asyncio.create_task(progress.flush())
    await asyncio.sleep(1)
    progress.moved(target("orders", AP), Position("2"))
    flushing.cancel()
    await asyncio.wait([flushing])
    gate.set()
    await progress.flush()
    assert (world.stored(), world.stored(target_id="orders/ap")) == ("1", "2")


async def test_an_end_that_comes_too_late_is_not_stored() -> None:
    world = World()
    process = world.process(limits=Limits(checkpoint_seconds=60)).start()
    world.write("abc")
    await until(world.same)
    await world.coordination.claim(world.ref, world.row(), WorkerId("other"))
    world.roll("s0", "s1")
    await until(lambda: process.observer.of("lease_ended") == [("s0", "lost")])
    assert world.owner() == "other"
    assert world.stored() is None
    assert process.observer.faults == []
    await process.kill()


async def test_a_stop_is_quiet_when_the_shard_went_to_another_worker() -> None:
    world = World()
    process = world.process(limits=Limits(checkpoint_seconds=60)).start()
    world.write("abc")
    await until(world.same)
    await world.coordination.claim(world.ref, world.row(), WorkerId("other"))
    await process.drain()
    assert world.owner() == "other"
    assert world.stored() is None


async def test_a_stop_before_anything_was_claimed_ends_at_once() -> None:
    world = World()
    world.membership.faults.outage = Unreachable
    process = world.process().start()
    await asyncio.sleep(30)
    await process.drain(within=2)
    assert world.row() is None


# -- gaps ----------------------------------------------------------------------------------------------------------


async def behind(world: World, *rules: Rule) -> None:
    """Apply five records, store that, and be away while more are written and all but the last two are trimmed."""
    process = world.process(*rules).start()
    world.write("abcde")
    await until(lambda: world.stored() == "5")
    await process.drain()
    world.write("fghij")
    world.streams.trim(world.ref, S0, keep=2)


async def test_records_that_were_trimmed_are_recorded_and_the_rule_waits_visibly() -> None:
    world = World()
    await behind(world)
    process = world.process().start()
    await asyncio.sleep(100)
    (gap,) = world.registry.gaps
    assert (short(gap.target_id), gap.shard_id, gap.after.text) == ("orders/eu", S0, "5")
    assert process.observer.blocked_keys == {"orders/eu on s0": None}
    assert world.stored() == "5"
    assert set(world.holds()) == set("abcde")
    await process.drain(within=1)
    assert world.stored() == "5"


async def test_a_rule_that_may_skip_goes_on_from_the_horizon_and_records_the_gap_once() -> None:
    world = World()
    await behind(world)
    process = world.process(eu_rule(on_gap=OnGap.SKIP)).start()
    await until(lambda: world.stored() == "10")
    assert set(world.holds()) == set("abcdeij")
    assert [gap.after.text for gap in world.registry.gaps] == ["5"]
    world.put("k", 1)
    await until(lambda: world.stored() == "11")
    await process.drain()
    assert process.observer.of("gap_found") == [("orders/eu", "s0", "5")]


async def test_a_gap_is_found_again_after_a_crash_and_recorded_once() -> None:
    world = World()
    await behind(world)
    for _ in range(2):
        process = world.process().start()
        await until(lambda process=process: bool(process.observer.blocked_keys))  # type: ignore[misc]
        await process.kill()
        await asyncio.sleep(20)
    assert len(world.registry.gaps) == 1


async def test_a_gap_is_recorded_for_a_target_that_is_ahead_but_lost_records_too() -> None:
    world = World()
    rules = both(on_gap=OnGap.SKIP)
    world.regions[AP].poison(key_of("c"), "it is too large")
    process = world.process(rules).start()
    world.write("abcde")
    await until(lambda: (world.stored(), world.stored(target_id="orders/ap")) == ("5", "2"))
    await process.drain()
    world.write("fghij")
    world.streams.trim(world.ref, S0, keep=2)
    async with world.process(rules):
        await until(lambda: world.stored(target_id="orders/ap") == "10")
    assert {(short(gap.target_id), gap.after.text) for gap in world.registry.gaps} == {
        ("orders/eu", "5"),
        ("orders/ap", "2"),
    }


async def test_no_gap_is_recorded_for_a_target_that_is_ahead_of_the_loss() -> None:
    world = World()
    rules = both(on_gap=OnGap.SKIP)
    world.regions[AP].poison(key_of("c"), "it is too large")
    process = world.process(rules).start()
    world.write("abcde")
    await until(lambda: (world.stored(), world.stored(target_id="orders/ap")) == ("5", "2"))
    await process.drain()
    world.write("fghij")
    world.streams.trim(world.ref, S0, keep=6)
    world.regions[AP].cure(key_of("c"))
    async with world.process(rules):
        await until(lambda: world.stored(target_id="orders/ap") == "10")
        await until(lambda: world.stored() == "10")
    assert {(short(gap.target_id), gap.after.text) for gap in world.registry.gaps} == {("orders/ap", "2")}
    assert world.same(EU)


async def test_a_gap_right_behind_pages_that_are_remembered_is_passed_once() -> None:
    world = World()
    world.write(LETTERS)
    process = world.process(eu_rule(on_gap=OnGap.SKIP), limits=Limits(page_records=5)).start()
    await until(world.same)
    world.write("klmno")
    world.streams.trim(world.ref, S0, keep=1)
    world.streams.expire_iterators()
    await until(lambda: world.stored() == "15")
    assert set(world.holds()) == {*LETTERS, "o"}
    assert process.observer.of("gap_found") == [("orders/eu", "s0", "10")]
    await process.drain()


async def test_a_gap_that_cannot_be_recorded_is_not_passed() -> None:
    world = World()
    await behind(world)
    process = world.process(eu_rule(on_gap=OnGap.SKIP)).start()

    async def refuse(call: str) -> None:
        if call == "record_gap":
            raise Unreachable("record_gap got no answer.")

    world.registry.faults.pause = refuse
    await asyncio.sleep(60)
    assert world.stored() == "5"
    await until(lambda: "orders/replica/eu:orders on shard s0 of orders in us" in process.observer.troubles)
    assert process.observer.faults == [], "a service that does not answer is no fault of ours"
    world.registry.faults.pause = None
    await until(lambda: world.stored() == "10")
    assert process.observer.troubles == {}
    await process.drain()


async def test_a_shard_that_vanished_unread_blocks_its_children_until_somebody_decides() -> None:
    world = World()
    await behind(world)
    world.roll("s0", "s1")
    world.put("k", 1)
    world.streams.remove_shard(world.ref, S0)
    process = world.process().start()
    await asyncio.sleep(100)
    assert [(gap.shard_id, gap.after.text) for gap in world.registry.gaps] == [("s0", "5")]
    assert process.observer.blocked_keys == {"orders/eu on s0": None}
    assert "k" not in world.holds()
    await process.drain(within=1)
    async with world.process(eu_rule(on_gap=OnGap.SKIP)):
        await until(lambda: "k" in world.holds())
        assert world.stored() == "SHARD_END"


async def test_a_shard_that_vanished_is_recorded_for_a_target_that_is_ahead_too() -> None:
    world = World()
    rules = both(on_gap=OnGap.SKIP)
    world.regions[AP].poison(key_of("c"), "it is too large")
    process = world.process(rules).start()
    world.write("abcde")
    await until(lambda: (world.stored(), world.stored(target_id="orders/ap")) == ("5", "2"))
    await process.drain()
    world.roll("s0", "s1")
    world.streams.remove_shard(world.ref, S0)
    async with world.process(rules):
        await until(lambda: world.stored() == "SHARD_END")
    assert {(short(gap.target_id), gap.after.text) for gap in world.registry.gaps} == {
        ("orders/eu", "5"),
        ("orders/ap", "2"),
    }


async def test_a_gap_that_ends_by_a_stop_is_not_skipped_behind_it() -> None:
    world = World()
    await behind(world)
    process = world.process(eu_rule(on_gap=OnGap.SKIP)).start()
    await until(lambda: bool(world.registry.gaps))
    await process.drain(within=1)
    assert world.stored() == "5"


# -- faults --------------------------------------------------------------------------------------------------------


def break_calls(faults: Faults, *calls: str) -> None:
    async def broken(call: str) -> None:
        if call in calls:
            raise ValueError(f"{call} is broken")

    faults.pause = broken


async def test_an_unexpected_error_of_one_rule_is_told_and_the_rule_begins_again() -> None:
    world = World()
    rules = rule("good", target("good", EU)), rule("bad", target("bad", AP))
    process = world.process(*rules).start()
    break_calls(world.regions[AP].faults, "GuardedPut")
    world.write("abc")
    await until(world.same)
    await until(lambda: len(process.observer.faults) > 2)
    assert {event[1] for event in process.observer.of("shard_failed")} == {"bad/ap"}
    assert process.observer.of("lease_ended") == []
    world.regions[AP].faults.pause = None
    await until(lambda: world.same(AP))
    await process.drain()


async def test_an_unexpected_error_of_the_checkpoint_ends_one_shard_for_a_while_and_no_other() -> None:
    world = World("s0", "s1")
    names = {shard: next(n for n in LETTERS if world.shard_of(key_of(n)) == shard) for shard in ("s0", "s1")}
    process = world.process().start()
    await until(lambda: world.owner("s0") is not None and world.owner("s1") is not None)
    await asyncio.sleep(5)
    break_calls(world.coordination.faults, "save")
    world.put(names["s0"], 1)
    await until(lambda: bool(process.observer.faults))
    assert {event[0] for event in process.observer.of("shard_failed")} == {"s0"}
    assert ("s1", "failed") not in process.observer.of("lease_ended")
    world.coordination.faults.pause = None
    world.put(names["s1"], 1)
    await until(lambda: world.stored("s0") == "1" and world.stored("s1") == "2")
    assert world.same()
    assert len(process.observer.of("session_began")) == 1
    await process.drain()


async def test_an_unexpected_error_of_the_release_does_not_end_the_process() -> None:
    world = World()
    process = world.process().start()
    break_calls(world.coordination.faults, "release")
    world.write("abc")
    world.roll("s0", "s1")
    await until(lambda: bool(process.observer.faults))
    world.coordination.faults.pause = None
    world.put("d", 1)
    await until(world.same)
    await process.drain()


@pytest.mark.parametrize("fault", Fault)
async def test_a_start_that_cannot_be_noted_is_tried_again(fault: Fault) -> None:
    world = World()
    world.registry.faults.pause = None
    world.put("a", 1)
    calls = 0

    async def fail_first(call: str) -> None:
        nonlocal calls
        if call == "start":
            calls += 1
            if calls == 1:
                world.registry.faults.script(fault)

    world.registry.faults.pause = fail_first
    async with world.process() as process:
        await until(world.same)
        assert process.observer.troubles == {}
        assert calls == 2


async def test_a_shard_that_is_new_to_several_targets_costs_one_iterator() -> None:
    world = World()
    first_of(world, "s0")
    world.write("abc")
    iterators = 0

    async def count(call: str) -> None:
        nonlocal iterators
        iterators += call == "GetShardIterator"
        await asyncio.sleep(0.05)

    world.streams.faults.pause = count
    async with ShardBench(world, rule("orders", target("orders", EU), target("orders", AP))):
        await until(lambda: world.same(EU) and world.same(AP))
        await asyncio.sleep(60)
    assert iterators == 1
