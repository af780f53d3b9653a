"""The life of a shard under one lease: how soon it stops, paused rules, its watchdog, and what an idle one costs."""

from __future__ import annotations

import asyncio

import pytest

from replicator.domain.errors import Throttled, Unreachable
from replicator.domain.identifiers import RuleName, ShardId
from replicator.engine.limits import Limits
from tests.engine.shard_bench import S0, ShardBench, of_rule
from tests.engine.world import AP, EU, World, eu_rule, hold, key_of, rule, slow, target, until

ORDERS_RULE = RuleName("orders")


# -- stopping ------------------------------------------------------------------------------------------------------


async def test_production_failure_09_a_stop_with_a_full_page_in_hand_stores_the_frontier_well_within_a_second() -> None:
    world = World()
    world.write([f"k{number}" for number in range(1000)])
    slow(world.region.faults, 0.1)
    bench = ShardBench(world)
    async with bench:
        await until(lambda: len(world.holds()) >= 100)
        assert await bench.drain() < 0.5
        done = len(world.holds())
        assert 100 <= done < 1000
        stored = int(world.stored() or 0)
        assert done - bench.limits.concurrency <= stored <= done
        assert world.owner() is None


async def test_a_stop_does_not_wait_for_a_stream_that_does_not_answer() -> None:
    world = World()
    gate = hold(world.streams.faults, "GetRecords")
    async with ShardBench(world) as bench:
        await asyncio.sleep(5)
        assert await bench.drain() < 0.5
        assert world.owner() is None
    gate.set()


async def test_a_stop_before_the_first_answer_of_the_registry_ends_too() -> None:
    world = World()
    world.registry.faults.outage = Unreachable
    async with ShardBench(world) as bench:
        await asyncio.sleep(60)
        assert "orders/replica/eu:orders on" in next(iter(bench.observer.troubles))
        assert await bench.drain() < 0.5
        assert bench.observer.of("shard_stopped") == [("s0", "orders/eu", "stopped")]


async def test_nothing_that_was_offered_begins_behind_a_stop() -> None:
    world = World()
    async with ShardBench(world) as bench:
        await asyncio.sleep(1)
        bench.stop.set()
        bench.worker.offer([rule("late", target("late", AP))])
        await bench.task
        assert [event[1] for event in bench.observer.of("shard_started")] == ["orders/eu"]


# -- pausing a rule ------------------------------------------------------------------------------------------------


async def test_a_rule_that_is_withdrawn_stops_stores_and_can_be_offered_again() -> None:
    world = World()
    rules = rule("one", target("one", EU)), rule("two", target("two", AP))
    async with ShardBench(world, *rules, limits=Limits(checkpoint_seconds=60)) as bench:
        world.write("abc")
        await until(lambda: world.same(EU) and world.same(AP))
        bench.worker.withdraw(of_rule(RuleName("one")))
        await until(lambda: world.stored(target_id="one/eu") == "3", within=2)
        world.write("def")
        await until(lambda: world.same(AP))
        await asyncio.sleep(30)
        assert set(world.holds(EU)) == set("abc")
        assert bench.observer.of("shard_stopped") == [("s0", "one/eu", "withdrawn")]
        bench.worker.offer(list(rules))
        await until(lambda: world.same(EU))


async def test_a_shard_whose_only_rule_is_withdrawn_is_given_back() -> None:
    world = World()
    async with ShardBench(world) as bench:
        await asyncio.sleep(1)
        bench.worker.withdraw(of_rule(ORDERS_RULE))
        bench.worker.withdraw(of_rule(ORDERS_RULE))
        await until(bench.task.done)
        assert bench.observer.of("lease_ended") == [("s0", "withdrawn")]
        assert world.owner() is None


async def test_a_rule_that_is_withdrawn_before_it_began_does_not_begin() -> None:
    world = World()
    bench = ShardBench(world)
    await bench.start()
    bench.worker.withdraw(of_rule(ORDERS_RULE))
    await until(bench.task.done)
    assert bench.observer.of("shard_started") == []


async def test_production_failure_10_a_withdrawn_rule_marks_no_shard_as_read() -> None:
    world = World()
    world.write("abc")
    world.region.faults.outage = Unreachable
    world.streams.close(world.ref, S0)
    async with ShardBench(world) as bench:
        await until(lambda: bool(bench.observer.blocked_keys))
        bench.worker.withdraw(of_rule(ORDERS_RULE))
        await until(bench.task.done)
    assert world.stored() != "SHARD_END"


# -- the watchdog --------------------------------------------------------------------------------------------------

SOON = Limits(stall_seconds=20.0)


async def stalled(world: World, bench: ShardBench) -> tuple[str, str]:
    """Reason and remedy of the first standstill that is reported."""
    await until(lambda: bool(bench.observer.of("stalled")), within=120)
    shard, name, reason, remedy = bench.observer.of("stalled")[0]
    assert (shard, name) == ("s0", "orders/eu")
    return reason, remedy


async def test_production_failure_13_an_idle_shard_that_is_read_does_not_stand_still() -> None:
    world = World()
    async with ShardBench(world, limits=SOON) as bench:
        await asyncio.sleep(600)
        world.put("a", 1)
        await until(world.same)
        await asyncio.sleep(600)
        assert bench.observer.of("stalled") == []


async def test_production_failure_12_a_throttled_replica_is_named_once_per_interval_until_it_goes_on() -> None:
    world = World()
    world.put("a", 1)
    world.region.faults.outage = Throttled
    async with ShardBench(world, limits=SOON) as bench:
        reason, remedy = await stalled(world, bench)
        assert "outage" in reason
        assert "capacity" in remedy
        await asyncio.sleep(100)
        assert 4 <= len(bench.observer.of("stalled")) <= 6
        world.region.faults.outage = None
        await until(lambda: bool(bench.observer.of("unstalled")), within=30)
        await asyncio.sleep(100)
        assert bench.observer.of("unstalled") == [("s0", "orders/eu")]


async def test_production_failure_12_a_refused_record_is_named() -> None:
    world = World()
    world.write("ab")
    world.region.poison(key_of("a"), "it is too large")
    async with ShardBench(world, limits=SOON) as bench:
        reason, remedy = await stalled(world, bench)
        assert "too large" in reason
        assert "Correct the item" in remedy


async def test_production_failure_12_a_write_without_an_answer_is_named() -> None:
    world = World()
    world.put("a", 1)
    gate = hold(world.region.faults, "GuardedPut")
    async with ShardBench(world, limits=SOON) as bench:
        reason, _ = await stalled(world, bench)
        assert "orders/replica/eu:orders" in reason
        gate.set()
        await until(lambda: bool(bench.observer.of("unstalled")))


async def test_production_failure_13_a_stream_that_cannot_be_reached_is_named() -> None:
    world = World()
    async with ShardBench(world, limits=SOON) as bench:
        await asyncio.sleep(5)
        world.streams.faults.outage = Unreachable
        reason, remedy = await stalled(world, bench)
        assert "outage" in reason
        assert "endpoint" in remedy


async def test_production_failure_13_a_call_that_hangs_is_named() -> None:
    world = World()
    hold(world.streams.faults, "GetRecords")
    async with ShardBench(world, limits=SOON) as bench:
        reason, _ = await stalled(world, bench)
        assert "does not answer" in reason


async def test_production_failure_13_a_pipeline_that_cannot_begin_is_named() -> None:
    world = World()
    world.registry.faults.outage = Unreachable
    async with ShardBench(world, limits=SOON) as bench:
        reason, _ = await stalled(world, bench)
        assert "start" in reason


async def test_production_failure_12_a_wait_for_bytes_is_named() -> None:
    world = World()
    bench = ShardBench(world, limits=SOON)
    async with bench:
        await asyncio.sleep(5)
        grant = await bench.budget.acquire(bench.limits.in_flight_bytes, lambda: False)
        reason, remedy = await stalled(world, bench)
        assert "memory" in reason
        assert "budget" in remedy
        grant.correct(0)
        await until(lambda: bool(bench.observer.of("unstalled")))


async def test_production_failure_12_a_gap_that_nobody_acknowledges_is_named() -> None:
    world = World()
    world.write("abc")
    async with ShardBench(world) as bench:
        await until(lambda: world.stored() == "3")
        await bench.drain()
    world.write("defgh")
    world.streams.trim(world.ref, S0, keep=2)
    async with ShardBench(world, limits=SOON) as bench:
        reason, _ = await stalled(world, bench)
        assert "retention" in reason


# -- what an idle shard costs --------------------------------------------------------------------------------------


async def test_production_failure_17_an_idle_shard_costs_three_tasks() -> None:
    names = [f"s{number}" for number in range(50)]
    world = World(*names)
    before = len(asyncio.all_tasks())
    benches = [await ShardBench(world, shard=name).start() for name in names]
    await asyncio.sleep(30)
    assert len(asyncio.all_tasks()) - before <= 3 * len(names)
    for bench in benches:
        await bench.drain()


async def test_production_failure_16_idle_shards_are_polled_as_seldom_as_configured_and_not_in_bursts() -> None:
    names = [f"s{number}" for number in range(100)]
    world = World(*names)
    polls: list[float] = []

    async def note(call: str) -> None:
        if call == "GetRecords":
            polls.append(asyncio.get_running_loop().time())

    world.streams.faults.pause = note
    limits = Limits(poll_seconds=0.25, idle_seconds=4.0)
    benches = [await ShardBench(world, shard=name, limits=limits).start() for name in names]
    await asyncio.sleep(60)
    late = [at for at in polls if at >= 20]
    assert len(late) == pytest.approx(100 * 40 / 4, rel=0.05)
    busiest = max(sum(start <= at < start + 0.25 for at in polls) for start in (number / 4 for number in range(240)))
    assert busiest <= 100
    assert max(sum(start <= at < start + 0.25 for at in late) for start in (number / 4 for number in range(240))) <= 30
    for bench in benches:
        await bench.drain()


async def test_production_failure_01_the_last_page_of_a_closed_shard_is_applied_before_its_end_is_stored() -> None:
    world = World()
    world.write("abc")
    world.streams.close(world.ref, S0)
    async with ShardBench(world) as bench:
        await until(bench.task.done)
        assert set(world.holds()) == set("abc")
    assert world.stored() == "SHARD_END"


async def test_production_failure_07_an_iterator_that_expires_is_derived_from_the_last_record_read() -> None:
    world = World()
    async with ShardBench(world, eu_rule()) as bench:
        for letter in "abcdef":
            world.put(letter, 1)
            await until(world.same)
            world.streams.expire_iterators()
        await until(lambda: world.stored() == "6")
        assert len(world.region.sent) == 6, "nothing is applied twice"
        assert len(bench.observer.of("iterator_expired")) >= 5
        assert bench.observer.troubles == {}


async def test_production_failure_11_a_worker_whose_lease_is_gone_sends_nothing_more() -> None:
    world = World()
    world.write("abc")
    slow(world.region.faults, 1.0)
    async with ShardBench(world, limits=Limits(concurrency=1)) as bench:
        await until(lambda: len(world.holds()) == 1)
        bench.fence.revoke()
        await until(bench.task.done)
        assert len(world.holds()) <= 2, "what was on the wire, and no more"
        assert bench.observer.of("lease_ended") == [("s0", "lost")]
    assert world.stored() in {None, "SHARD_START", "1", "2"}


async def test_production_failure_31_the_end_of_a_shard_leaves_no_task_behind() -> None:
    world = World()
    world.write("abc")
    before = asyncio.all_tasks()
    hold(world.region.faults, "GuardedPut")
    async with ShardBench(world) as bench:
        await asyncio.sleep(1)
        await bench.kill()
        assert asyncio.all_tasks() == before
    assert world.row(str(ShardId("s0"))).owner is not None
