"""One pipeline per target: what one of them does the others do not notice, and what they share is held once."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest

from replicator.domain.errors import ReplicatorError, Throttled, Unreachable
from replicator.domain.identifiers import RegionId, ShardId
from replicator.domain.progress import Position
from replicator.domain.rules import Rule
from replicator.domain.shards.leases import StreamRef
from replicator.engine.limits import Limits
from replicator.engine.reading.memory_budget import ByteBudget
from replicator.laboratory.memory import Faults, MemoryRegion
from tests.engine.shard_bench import ShardBench, first_of, of_rule
from tests.engine.world import AP, CA, EU, World, eu_rule, hold, key_of, rule, slow, target, until

BOTH = rule("orders", target("orders", EU), target("orders", AP))
THREE = rule("orders", target("orders", EU), target("orders", AP), target("orders", CA))


def many(world: World, count: int) -> Rule:
    """A rule with so many replicas: r00, r01 and so on."""
    regions = [RegionId(f"r{number:02}") for number in range(count)]
    world.regions.update({region: MemoryRegion(Faults(0)) for region in regions})
    return rule("orders", *(target("orders", region) for region in regions))


async def lag_of(world: World, region: RegionId, name: str) -> float:
    """Write an item, and wait until it is at a replica; how long that took."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    world.put(name, began)
    while world.holds(region).get(name) != str(began):
        assert loop.time() - began < 60, f"{name} never came to {region}"
        await asyncio.sleep(0.01)
    return loop.time() - began


class Polls:
    """GetRecords calls: when, and behind which place."""

    def __init__(self, bench: ShardBench) -> None:
        self._told = bench.observer.told
        self._loop = asyncio.get_running_loop()
        self.at: list[tuple[float, str, int]] = []
        polled = bench.observer.polled

        def note(stream: StreamRef, shard_id: ShardId, position: Position, records: int, *more: float | None) -> None:
            self.at.append((self._loop.time(), position.text, records))
            polled(stream, shard_id, position, records, *more)

        bench.observer.polled = note  # type: ignore[method-assign, assignment]

    def within(self, since: float, until_: float) -> int:
        return sum(since <= at < until_ for at, _, _ in self.at)


# -- nothing waits for what it does not need ---------------------------------------------------------------------------


@pytest.mark.parametrize("outage", [Unreachable, Throttled])
async def test_a_replica_that_is_away_for_long_is_not_noticed_beside_it(outage: type[ReplicatorError]) -> None:
    world = World()
    async with ShardBench(world, BOTH) as bench:
        await until(lambda: world.stored() is not None)
        world.regions[AP].faults.outage = outage
        lags = []
        for number in range(20):
            lags.append(await lag_of(world, EU, f"k{number % 15}"))
            await asyncio.sleep(60)
        assert max(lags) < 1.5, "an idle shard is polled once a second"
        assert world.holds(AP) == {}
        assert bench.observer.blocked_keys.keys() == {"orders/ap on s0"}
        world.regions[AP].faults.outage = None
        await until(lambda: world.same(AP))


async def test_a_replica_that_does_not_answer_at_all_holds_no_other() -> None:
    world = World()
    gate = hold(world.regions[AP].faults, "GuardedPut", "GuardedUpdate")
    async with ShardBench(world, BOTH, limits=Limits(page_records=3, stall_seconds=20)) as bench:
        lags = [await lag_of(world, EU, f"k{number}") for number in range(50)]
        assert max(lags) < 1.5
        await until(lambda: bench.observer.stalls == {("s0", "orders/ap")})
        reason = bench.observer.of("stalled")[0][2]
        assert "and no other target, waits for it" in reason
        gate.set()
        await until(lambda: world.same(AP))


async def test_an_error_that_was_not_expected_restarts_one_target_and_no_other() -> None:
    world = World()
    failing = True

    async def fault(_: str) -> None:
        if failing:
            raise ValueError("it is broken")

    world.regions[AP].faults.pause = fault
    async with ShardBench(world, BOTH) as bench:
        lags = [await lag_of(world, EU, f"k{number}") for number in range(20)]
        assert max(lags) < 1.5
        assert {name for _, name in bench.observer.of("shard_failed")} == {"orders/ap"}
        assert [name for _, name in bench.observer.of("shard_started")] == ["orders/eu", "orders/ap"]
        failing = False
        await until(lambda: world.same(AP))


async def test_a_target_that_waits_behind_a_loss_holds_no_other() -> None:
    world = World()
    first_of(world, "s0")
    world.regions[AP].faults.outage = Unreachable
    async with ShardBench(world, BOTH) as bench:
        world.write("abcdef")
        await until(lambda: world.stored() == "6")
        await bench.drain()
    world.streams.trim(world.ref, bench.shard, keep=2)
    world.regions[AP].faults.outage = None
    async with ShardBench(world, BOTH) as bench:
        await until(lambda: [gap.target_id.region for gap in world.registry.gaps] == [AP])
        assert await lag_of(world, EU, "k") < 1.5
        assert bench.observer.blocked_keys.keys() == {"orders/ap on s0"}
        world.registry.acknowledge(world.registry.gaps[0].gap_id)
        await until(lambda: world.stored(target_id="orders/ap") == "7")


# -- what is read is shared --------------------------------------------------------------------------------------------


async def test_targets_at_the_same_place_share_every_page_and_its_bytes() -> None:
    world = World()
    rule_of_many = many(world, 20)
    async with ShardBench(world, rule_of_many, limits=Limits(page_records=10)) as bench:
        polls = Polls(bench)
        await until(lambda: bool(polls.at))
        gates = [hold(world.regions[each.region].faults, "GuardedPut") for each in rule_of_many.targets]
        world.write([f"k{number}" for number in range(10)])
        await asyncio.sleep(5)
        alone = bench.budget.used
        assert sum(records for _, _, records in polls.at) == 10, "read once for all"
        for gate in gates:
            gate.set()
        await until(lambda: all(world.same(each.region) for each in rule_of_many.targets))
        assert 0 < alone < 2 * 10 * 1200, "held once for all"


async def test_a_slower_target_keeps_the_pages_that_the_faster_one_is_through_with() -> None:
    world = World()
    slow(world.regions[AP].faults, 0.1)
    async with ShardBench(world, BOTH, limits=Limits(page_records=10, concurrency=1)) as bench:
        polls = Polls(bench)
        for number in range(30):
            world.write([f"k{number}-{each}" for each in range(5)])
            await asyncio.sleep(0.3)
        assert world.same(EU)
        assert not world.same(AP)
        await until(lambda: world.same(AP))
    assert sum(records for _, _, records in polls.at) == 150, "no record was read twice"


async def test_targets_at_different_places_of_what_was_read_go_on_together() -> None:
    world = World()
    rule_of_many = many(world, 12)
    for number, each in enumerate(rule_of_many.targets):
        world.regions[each.region].poison(key_of(f"k{number}"), "it is too large")
    world.write([f"k{number}" for number in range(40)])
    async with ShardBench(world, rule_of_many) as bench:
        await until(lambda: all(world.stored(target_id=f"orders/r{n:02}") == str(n) for n in range(1, 12)))
        await bench.drain()
    for number, each in enumerate(rule_of_many.targets):
        world.regions[each.region].cure(key_of(f"k{number}"))
    async with ShardBench(world, rule_of_many) as bench:
        polls = Polls(bench)
        await until(lambda: all(world.same(each.region) for each in rule_of_many.targets), within=5)
        read = [records for _, _, records in polls.at if records]
        assert len(read) <= 5, "what one has read of their records, most have"
        before = len(polls.at)
        await asyncio.sleep(100)
        assert len(polls.at) - before <= 110, "and from then on one is asked for all"
        assert await lag_of(world, RegionId("r05"), "new") < 1.5


# -- two readers' worth ------------------------------------------------------------------------------------------------


async def test_targets_that_catch_up_take_turns_and_leave_the_foremost_place_its_own_calls() -> None:
    world = World()
    rule_of_many = many(world, 6)
    away = [each.region for each in rule_of_many.targets[1:]]
    limits = Limits(page_records=20, in_flight_bytes=64 * 1024)
    async with ShardBench(world, rule_of_many, limits=limits) as bench:
        await until(lambda: world.stored(target_id="orders/r00") is not None)
        for number, region in enumerate(away):  # each comes to another place
            world.regions[region].faults.outage = Unreachable
            world.write([f"k{number}-{each}" for each in range(60)])
            await until(lambda: world.same(RegionId("r00")))
        await bench.drain(within=100)
    for region in away:
        world.regions[region].faults.outage = None
    async with ShardBench(world, rule_of_many, limits=limits) as bench:
        polls = Polls(bench)
        began = asyncio.get_running_loop().time()
        lags = [await lag_of(world, RegionId("r00"), f"new{number}") for number in range(20)]
        assert max(lags) < 1.5, "the foremost place is polled as if nothing caught up"
        await until(lambda: all(world.same(region) for region in away), within=600)
        ended = asyncio.get_running_loop().time()
        assert polls.within(began, ended) <= 2 * (ended - began) / limits.poll_seconds + 2, "two readers' worth"
    assert Counter(each.target_id for each in world.registry.gaps) == {}


async def test_a_target_that_is_blocked_holds_no_turn_and_no_bytes_that_another_needs_to_catch_up() -> None:
    world = World()
    world.write([f"k{number}" for number in range(400)])
    world.regions[AP].faults.outage = Unreachable
    world.regions[CA].faults.outage = Unreachable
    limits = Limits(page_records=50, in_flight_bytes=200_000)
    async with ShardBench(world, THREE, limits=limits) as bench:
        await until(lambda: world.same(EU))
        await asyncio.sleep(200)
        assert bench.budget.used <= limits.in_flight_bytes
        lags = [await lag_of(world, EU, f"new{number}") for number in range(20)]
        assert max(lags) < 2.5
        began = asyncio.get_running_loop().time()
        world.regions[CA].faults.outage = None
        await until(lambda: world.same(CA), within=60)
        assert asyncio.get_running_loop().time() - began < 60
        assert world.holds(AP) == {}


# -- memory ------------------------------------------------------------------------------------------------------------


@pytest.mark.long
async def test_one_of_fifty_targets_that_hangs_costs_no_more_than_its_share_and_no_other_notices() -> None:
    world = World()
    rule_of_many = many(world, 50)
    stuck = rule_of_many.targets[7].region
    gate = hold(world.regions[stuck].faults, "GuardedPut", "GuardedUpdate")
    limits = Limits(in_flight_bytes=4 * 1024 * 1024)
    async with ShardBench(world, rule_of_many, limits=limits) as bench:
        polls, most = Polls(bench), 0
        lags = []
        for number in range(40):
            if number % 5 == 0:
                lags.append(await lag_of(world, RegionId("r49"), f"k{number}"))
            world.write([f"k{number}-{each}" for each in range(10)])
            await asyncio.sleep(2)
            most = max(most, bench.budget.used)
        assert max(lags) < 1.5
        assert most <= bench.budget.share + 8 * 1024, "its share, and the page in hand"
        assert world.holds(stuck) == {}
        assert sum(records for _, _, records in polls.at) < 1.5 * 410
        gate.set()
        await until(lambda: all(world.same(each.region) for each in rule_of_many.targets))


async def test_what_falls_behind_by_more_than_its_share_lets_its_pages_go_and_reads_them_again() -> None:
    world = World()
    gate = hold(world.regions[AP].faults, "GuardedPut", "GuardedUpdate")
    budget = ByteBudget(100_000)
    async with ShardBench(world, BOTH, budget=budget, limits=Limits(page_records=20)) as bench:
        polls = Polls(bench)
        for number in range(60):
            world.write([f"k{number}-{each}" for each in range(5)])
            await asyncio.sleep(1.5)
        await until(lambda: world.same(EU), within=2)
        assert budget.used <= budget.share + 10_000
        gate.set()
        world.regions[AP].faults.pause = None
        await until(lambda: world.same(AP), within=30)
    read = sum(records for _, _, records in polls.at)
    assert 300 < read <= 600, "by each of the two once, but what they shared"


async def test_all_of_a_rule_is_withdrawn_and_offered_again() -> None:
    world = World()
    world.regions[AP].faults.outage = Unreachable
    other = rule("other", target("other", CA))
    async with ShardBench(world, BOTH, other) as bench:
        world.write("abc")
        await until(lambda: world.same(EU) and world.same(CA))
        bench.worker.withdraw(of_rule(BOTH.name))
        await until(lambda: {target_id.rule for target_id in bench.worker.targets} == {"other"}, within=5)
        world.regions[AP].faults.outage = None
        world.write("def")
        await asyncio.sleep(30)
        assert (set(world.holds(EU)), world.holds(AP)) == (set("abc"), {})
        bench.worker.offer([BOTH])
        await until(lambda: world.same(EU) and world.same(AP))


async def test_a_shard_is_given_back_when_its_last_target_is_through() -> None:
    world = World()
    world.write("abc")
    world.regions[AP].poison(key_of("b"), "it is too large")
    world.streams.close(world.ref, ShardBench(world, eu_rule()).shard)
    async with ShardBench(world, BOTH) as bench:
        await until(lambda: world.stored() == "SHARD_END")
        await asyncio.sleep(60)
        assert not bench.task.done()
        assert world.stored(target_id="orders/ap") == "1"
        world.regions[AP].cure(key_of("b"))
        await until(bench.task.done)
        assert bench.observer.of("lease_ended") == [("s0", "finished")]
    assert world.stored(target_id="orders/ap") == "SHARD_END"


async def test_a_region_that_is_paused_rests_and_the_others_of_its_rule_go_on() -> None:
    world = World()
    async with world.process(BOTH, limits=Limits(stall_seconds=20)) as process:
        world.write("abc")
        await until(lambda: world.same(EU) and world.same(AP))
        world.membership.pause_region(BOTH.name, AP)
        await asyncio.sleep(10)
        world.write("def")
        world.roll("s0", "s1")
        world.write("xyz")
        await until(lambda: world.same(EU), within=10)
        await asyncio.sleep(120)
        assert set(world.holds(AP)) == set("abc")
        assert process.observer.standing == {world.ref: ()}, "what rests does not stand still"
        assert process.observer.stalls == set()
        world.membership.resume_region(BOTH.name, AP)
        await until(lambda: world.same(AP))
