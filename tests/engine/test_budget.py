"""Bytes in flight: bounded over all shards, first come first served, and never a reason to stand still for good."""

from __future__ import annotations

import asyncio

from replicator.domain.errors import Unreachable
from replicator.domain.identifiers import ShardId
from replicator.engine.limits import Limits
from replicator.engine.reading.memory_budget import ByteBudget, Grant, weight
from tests.engine.shard_bench import ShardBench
from tests.engine.world import AP, EU, World, image, key_of, rule, target, until

LETTERS = "abcdefghij"


def calm() -> bool:
    return False


def urgent() -> bool:
    return True


class Idle:
    """A holder that never progresses."""

    def __init__(self, grant: Grant) -> None:
        self.grant = grant
        self.asked: list[float] = []

    def shed(self, seconds: float) -> None:
        self.asked.append(seconds)
        self.grant.correct(0)


async def test_bytes_are_granted_in_the_order_in_which_they_were_asked_for() -> None:
    budget = ByteBudget(100)
    first = await budget.acquire(60, calm)
    order: list[str] = []

    async def ask(name: str, wanted: int) -> None:
        await budget.acquire(wanted, calm)
        order.append(name)

    waiting = [asyncio.create_task(ask("large", 80)), asyncio.create_task(ask("small", 10))]
    await asyncio.sleep(1)
    assert order == [], "the small one does not overtake the large one"
    first.correct(0)
    await asyncio.gather(*waiting)
    assert order == ["large", "small"]
    assert budget.used == 90


async def test_what_is_larger_than_the_whole_budget_is_granted_alone() -> None:
    budget = ByteBudget(100)
    first = await budget.acquire(5, calm)
    waiting = asyncio.create_task(budget.acquire(1000, calm))
    await asyncio.sleep(1)
    assert not waiting.done()
    first.correct(0)
    assert (await waiting).held == 1000


async def test_a_page_that_is_larger_than_expected_makes_the_next_one_wait() -> None:
    budget = ByteBudget(100)
    first = await budget.acquire(10, calm)
    first.correct(500)
    waiting = asyncio.create_task(budget.acquire(10, calm))
    await asyncio.sleep(1)
    assert not waiting.done()
    first.correct(0)
    await waiting


async def test_what_is_urgent_is_granted_from_a_second_pool_that_is_bounded_too() -> None:
    budget = ByteBudget(100)
    await budget.acquire(100, calm)
    second = await budget.acquire(100, urgent)
    third = asyncio.create_task(budget.acquire(100, urgent))
    await asyncio.sleep(10)
    assert not third.done()
    assert budget.used == 200
    second.correct(0)
    await third
    assert (budget.used, budget.waiting) == (200, 0)


async def test_whoever_is_cancelled_holds_nothing_and_keeps_nobody_waiting() -> None:
    budget = ByteBudget(100)
    first = await budget.acquire(60, calm)
    large = asyncio.create_task(budget.acquire(80, calm))
    small = asyncio.create_task(budget.acquire(10, calm))
    await asyncio.sleep(1)
    large.cancel()
    await asyncio.wait([large])
    await small
    granted = asyncio.create_task(budget.acquire(90, calm))
    await asyncio.sleep(1)
    first.correct(0)
    granted.cancel()
    await asyncio.wait([granted])
    assert granted.cancelled()
    assert (budget.used, budget.waiting) == (10, 0)


async def test_who_lets_bytes_lie_idle_gives_them_back_when_others_wait() -> None:
    budget = ByteBudget(100)
    holder = Idle(await budget.acquire(100, calm))
    budget.register(holder)
    began = asyncio.get_running_loop().time()
    await budget.acquire(50, calm)
    assert 2.0 <= asyncio.get_running_loop().time() - began <= 3.0
    assert holder.asked == [2.0]
    budget.unregister(holder)


async def test_nobody_is_asked_to_give_back_while_nobody_waits() -> None:
    budget = ByteBudget(100)
    holder = Idle(await budget.acquire(90, calm))
    budget.register(holder)
    await budget.acquire(10, calm)
    await asyncio.sleep(60)
    assert holder.asked == []


# -- shards --------------------------------------------------------------------------------------------------------


def many(world: World, count: int) -> None:
    for number in range(count):
        world.source.put(key_of(f"k{number}"), image(f"k{number}", "x" * 500))


async def test_a_budget_smaller_than_a_page_slows_down_and_stops_nothing() -> None:
    world = World()
    many(world, 200)
    async with ShardBench(world, limits=Limits(page_records=50), budget=ByteBudget(100)):
        await until(world.same)
        await until(lambda: world.stored() == "200")


async def test_many_pipelines_with_a_budget_smaller_than_a_page_all_come_to_their_end() -> None:
    shards = [f"s{number}" for number in range(8)]
    world = World(*shards)
    many(world, 400)
    budget = ByteBudget(100)
    rules = rule("one", target("one", EU)), rule("two", target("two", AP))
    benches = [
        await ShardBench(world, *rules, shard=shard, limits=Limits(page_records=10), budget=budget).start()
        for shard in shards
    ]
    for shard in shards:
        world.streams.close(world.ref, ShardId(shard))
    await until(lambda: all(bench.task.done() for bench in benches), within=600)
    assert world.same(EU)
    assert world.same(AP)
    assert budget.used == 0


async def test_the_budget_bounds_what_all_shards_hold_while_a_replica_is_down() -> None:
    shards = [f"s{number}" for number in range(8)]
    world = World(*shards)
    many(world, 400)
    world.region.faults.outage = Unreachable
    page = weight(world.records("s0")[:10])
    budget = ByteBudget(3 * page)
    benches = [
        await ShardBench(world, shard=shard, limits=Limits(page_records=10), budget=budget).start() for shard in shards
    ]
    for _ in range(200):
        await asyncio.sleep(0.5)
        assert budget.used <= 4 * page
    world.region.faults.outage = None
    await until(world.same, within=600)
    for bench in benches:
        await bench.drain()
    assert budget.used == 0


async def test_a_rule_that_cannot_go_on_does_not_keep_the_bytes_that_another_needs() -> None:
    world = World("s0", "s1")
    many(world, 200)
    world.regions[AP].faults.outage = Unreachable
    budget = ByteBudget(20_000)
    limits = Limits(page_records=20)
    async with ShardBench(world, rule("down", target("down", AP)), shard="s0", limits=limits, budget=budget) as down:
        await until(lambda: budget.used >= 10_000)
        async with ShardBench(world, rule("up", target("up", EU)), shard="s1", limits=limits, budget=budget) as up:
            up.shares_budget = True  # the other one tries again meanwhile
            last = world.records("s1")[-1].sequence
            await until(lambda: world.stored("s1", "up/eu") == last, within=300)
            await up.drain()
        world.regions[AP].faults.outage = None
        last = world.records("s0")[-1].sequence
        await until(lambda: world.stored("s0", "down/ap") == last, within=300)
        await down.drain()


async def test_a_refused_record_is_superseded_though_no_bytes_are_left() -> None:
    world = World()
    world.put("a", "x" * 500)
    world.region.poison(key_of("a"), "it is too large")
    world.write(LETTERS[1:5])
    world.delete("a")
    budget = ByteBudget(100)
    async with ShardBench(world, limits=Limits(page_records=5), budget=budget) as bench:
        await until(lambda: bool(bench.observer.blocked_keys))
        await until(world.same)
        await until(lambda: world.stored() == "6")


async def test_a_records_weight_is_more_than_its_images() -> None:
    world = World()
    many(world, 1)
    assert 1500 < weight(world.records()) < 2000
