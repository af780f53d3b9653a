"""A table as all shards of a process write it: adaptive limits, turns, and throttled partitions beside others."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from replicator.domain.errors import KeyThrottled, PoisonRecord, Throttled, Unreachable
from replicator.domain.modes.requests import (
    Delete,
    Done,
    Found,
    GetItem,
    GuardedPut,
    Put,
    Request,
    Response,
    StampBelow,
    TombstoneBelow,
    UnstampedOrStampBelow,
)
from replicator.domain.pacing import Pace
from replicator.engine.applying.paced_region import PacedRegion
from replicator.engine.limits import Limits
from replicator.laboratory.memory import Fault, MemoryRegion, OpenFence
from replicator.ports.targets import Fence, Following
from tests.engine.world import LoopClock, World, hold, image, key_of, slow, until


def put(name: str) -> Put:
    return Put(key_of(name), image(name, 1), "1", UnstampedOrStampBelow("1"))


def guarded(name: str) -> GuardedPut:
    return GuardedPut(put(name), TombstoneBelow("1"))


class Bench:
    """A paced region in memory whose every call takes a tenth of a second."""

    def __init__(self, ceiling: int = 256) -> None:
        self.memory = MemoryRegion()
        self.latency = slow(self.memory.faults, 0.1)
        self.clock = LoopClock()
        self.pace = Pace(ceiling, self.clock.monotonic())
        self.region = PacedRegion(self.memory, self.pace, self.clock)
        self.order: list[str] = []

    def send(self, request: Request, fence: Fence, name: str = "") -> asyncio.Task[None]:
        async def sent() -> None:
            await self.region.execute(request, fence)
            self.order.append(name)

        return asyncio.get_running_loop().create_task(sent())

    async def throttle_all(self, requests: int = 300) -> None:
        """Let everything be throttled for so many requests."""
        self.memory.faults.outage = Throttled
        for number in range(requests):
            with pytest.raises(Throttled):
                await self.region.execute(put(f"t{number}"), OpenFence())
        self.memory.faults.outage = None


async def test_no_more_requests_are_in_flight_than_the_limit_allows() -> None:
    bench = Bench(ceiling=4)
    await asyncio.gather(*(bench.send(put(f"k{number}"), OpenFence()) for number in range(20)))
    assert bench.latency.most_under_way == 4
    assert bench.pace.in_flight == 0


async def test_transactions_and_single_requests_share_the_ceiling_and_take_turns() -> None:
    bench = Bench(ceiling=4)
    fence = OpenFence()
    singles = [bench.send(put(f"s{number}"), fence, "s") for number in range(20)]
    transactions = [bench.send(guarded(f"t{number}"), fence, "t") for number in range(20)]
    await asyncio.gather(*singles, *transactions)
    assert bench.latency.most_under_way == 4
    assert {"s", "t"} <= set(bench.order[4:8]), "neither kind waits for the end of the other's queue"


async def test_a_limit_that_fell_recovers_to_its_ceiling_by_itself() -> None:
    bench = Bench(ceiling=64)
    await bench.throttle_all()
    assert bench.pace.singles.allowed == 1
    assert bench.pace.transactions.allowed == 64
    await asyncio.gather(*(bench.send(put(f"k{number}"), OpenFence()) for number in range(3000)))
    assert bench.pace.singles.allowed == 64
    assert bench.latency.most_under_way == 64


async def test_a_shard_with_one_request_does_not_wait_for_the_queue_of_another() -> None:
    bench = Bench(ceiling=2)
    crowded, quiet = OpenFence(), OpenFence()
    many = [bench.send(put(f"k{number}"), crowded, "many") for number in range(50)]
    await asyncio.sleep(0)
    one = bench.send(put("z"), quiet, "one")
    await one
    assert len(bench.order) <= 4
    await asyncio.gather(*many)


async def test_who_is_cancelled_in_its_turn_leaves_it_to_the_next() -> None:
    bench = Bench(ceiling=1)
    fence = OpenFence()
    first = bench.send(put("a"), fence, "a")
    await asyncio.sleep(0)
    waiting = [bench.send(put(name), fence, name) for name in "bcd"]
    await asyncio.sleep(0)
    waiting[0].cancel()
    await first
    waiting[1].cancel()  # it was called, and did not begin yet
    await waiting[2]
    assert bench.order == ["a", "d"]
    assert bench.pace.in_flight == 0


async def test_who_is_cancelled_as_its_turn_comes_hands_it_on() -> None:
    bench = Bench(ceiling=1)
    fence = OpenFence()
    tasks: list[asyncio.Task[None]] = []

    async def first() -> None:
        await bench.region.execute(put("a"), fence)
        tasks[0].cancel()  # it was called by our end, and did not run since

    going = asyncio.ensure_future(first())
    await asyncio.sleep(0)
    tasks += [bench.send(put(name), fence, name) for name in "bc"]
    await asyncio.sleep(0)
    async with asyncio.timeout(5):
        await asyncio.wait([going, *tasks])
    assert bench.order == ["c"]
    assert bench.pace.in_flight == 0


async def test_requests_that_hang_keep_none_from_finding_out_that_the_table_is_back() -> None:
    bench = Bench(ceiling=4)
    gate = hold(bench.memory.faults, "GuardedPut")
    fence = OpenFence()
    hanging = [bench.send(guarded(f"h{number}"), fence) for number in range(4)]
    await asyncio.sleep(0.5)
    assert bench.pace.in_flight == 4
    async with asyncio.timeout(2):
        await bench.send(put("probe"), OpenFence())
    assert bench.pace.in_flight == 4
    later = [bench.send(guarded(f"l{number}"), fence) for number in range(10)]
    await asyncio.sleep(3.2)
    assert 5 <= bench.pace.in_flight <= 8, "one a second, and no flood"
    gate.set()
    await asyncio.gather(*hanging, *later)
    assert bench.pace.in_flight == 0


async def test_a_request_is_not_held_up_by_cancelled_ones_before_it() -> None:
    bench = Bench(ceiling=1)
    fence = OpenFence()
    first = bench.send(put("a"), fence)
    await asyncio.sleep(0)
    waiting = bench.send(put("b"), fence)
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.wait([waiting, first])
    async with asyncio.timeout(5):
        await bench.send(put("c"), fence)
    assert bench.pace.in_flight == 0


async def test_a_throttled_key_is_told_from_a_throttled_table() -> None:
    bench = Bench()
    bench.memory.hot = {key_of("hot")}
    await bench.region.execute(put("a"), OpenFence())
    with pytest.raises(KeyThrottled):
        await bench.region.execute(put("hot"), OpenFence())
    await asyncio.sleep(3)
    with pytest.raises(Throttled) as told:
        await bench.region.execute(put("hot"), OpenFence())
    assert type(told.value) is Throttled, "the table took nothing for a while"


@pytest.mark.parametrize("fault", [Fault.BEFORE, Fault.AFTER])
async def test_what_gets_no_answer_lowers_no_limit_and_keeps_no_place(fault: Fault) -> None:
    bench = Bench()
    bench.memory.faults.script(*[fault] * 200)
    for number in range(200):
        with pytest.raises(Unreachable):
            await bench.region.execute(put(f"k{number}"), OpenFence())
    assert (bench.pace.singles.allowed, bench.pace.in_flight) == (64, 0)


async def test_an_item_that_is_refused_for_good_is_an_answer() -> None:
    bench = Bench(ceiling=64)
    await bench.throttle_all()
    assert bench.pace.singles.throttled_lately == 100
    bench.memory.poison(key_of("big"), "it is too large")
    for _ in range(150):
        with pytest.raises(PoisonRecord):
            await bench.region.execute(put("big"), OpenFence())
    assert bench.pace.singles.throttled_lately == 0


async def test_refusals_are_answers() -> None:
    bench = Bench(ceiling=64)
    await bench.throttle_all()
    below = Delete(key_of("none"), StampBelow("1"))
    for _ in range(150):
        await bench.region.execute(below, OpenFence())
    assert bench.pace.singles.allowed > 1


# -- a whole process -------------------------------------------------------------------------------------------------


async def test_a_hot_partition_slows_its_keys_and_no_others() -> None:
    world = World("s0", "s1")
    cold = [f"k{number}" for number in range(300)]
    world.region.hot = {key_of(f"h{number}") for number in range(40)}
    slow(world.region.faults, 0.05)
    async with world.process(limits=Limits(checkpoint_seconds=0.1)) as process:
        world.write([*cold, *(f"h{number}" for number in range(40))])
        await until(lambda: world.holds().keys() >= set(cold), within=5.0)
        (pace,) = process.paces.values()
        assert pace.singles.allowed + pace.transactions.allowed >= 128, "no limit fell"
        assert pace.throttles > 0
        assert not world.same()
        world.region.hot = set()
        await until(world.same, within=30.0)


async def test_a_table_that_throttles_most_gets_fewer_requests_until_it_takes_them_again() -> None:
    world = World()
    world.region.faults.outage = Throttled
    latency = slow(world.region.faults, 0.05)
    async with world.process() as process:
        world.write(f"k{number}" for number in range(400))
        (pace,) = process.paces.values()
        await until(lambda: pace.singles.allowed + pace.transactions.allowed <= 65, within=60.0)
        latency.most_under_way = 0
        await asyncio.sleep(20)
        assert latency.most_under_way <= 4
        world.region.faults.outage = None
        await until(world.same, within=60.0)


# -- chains ------------------------------------------------------------------------------------------------------------


class Chained(MemoryRegion):
    """The same table, which takes chains itself."""

    async def execute_chain(self, first: Put | GuardedPut, fence: Fence, following: Following) -> Response:
        response = await self.execute(first, fence)
        while isinstance(response, Done) and (then := following()) is not None:
            response = await self.execute(then, fence)
        return response


def chained(ceiling: int = 256) -> Bench:
    bench = Bench(ceiling)
    bench.memory = Chained()
    bench.latency = slow(bench.memory.faults, 0.1)
    bench.region = PacedRegion(bench.memory, bench.pace, bench.clock)
    return bench


@pytest.mark.parametrize("made", [Bench, chained])
async def test_a_chain_is_one_request_in_flight_after_the_other(made: Callable[[], Bench]) -> None:
    bench = made()
    left: list[Put | GuardedPut] = [guarded("b"), put("c"), guarded("d"), put("e")]
    begun: list[tuple[int, int]] = []

    def following() -> Put | GuardedPut | None:
        begun.append((bench.pace.singles.in_flight, bench.pace.transactions.in_flight))
        return left.pop(0) if left else None

    assert await bench.region.execute_chain(put("a"), OpenFence(), following) == Done()
    assert all(sum(each) <= 1 for each in begun)
    assert bench.pace.in_flight == 0
    for name in "abcde":
        found = await bench.region.execute(GetItem(key_of(name)), OpenFence())
        assert isinstance(found, Found)
        assert found.item is not None, "each of them was written"


async def test_a_chain_ends_where_another_shard_waits() -> None:
    bench = chained(ceiling=1)
    asked = 0

    def following() -> Put:
        nonlocal asked
        asked += 1
        return put(f"k{asked}")

    chain = asyncio.ensure_future(bench.region.execute_chain(put("a"), OpenFence(), following))
    await asyncio.sleep(0.35)
    assert asked == 3
    async with asyncio.timeout(5):
        await bench.send(put("z"), OpenFence())
        await chain
    assert asked == 3, "its next one was not begun, and is not lost: it was not asked for"
    assert bench.pace.in_flight == 0


async def test_a_throttle_in_a_chain_is_that_of_its_last_write() -> None:
    bench = chained()
    bench.memory.hot = {key_of("hot")}
    left = [put("b"), put("hot")]
    with pytest.raises(KeyThrottled):
        await bench.region.execute_chain(put("a"), OpenFence(), lambda: left.pop(0))
    assert (bench.pace.singles.throttles, bench.pace.in_flight) == (1, 0)


@pytest.mark.parametrize("fails", [Throttled, Unreachable, PoisonRecord, RuntimeError])
async def test_what_fails_between_two_writes_of_a_chain_counts_no_request(fails: type[Exception]) -> None:
    bench = chained()

    def following() -> Put:
        raise fails("no")

    with pytest.raises(fails):
        await bench.region.execute_chain(put("a"), OpenFence(), following)
    assert (bench.pace.singles.throttles, bench.pace.in_flight) == (0, 0)


async def test_a_chain_that_is_cancelled_leaves_its_place() -> None:
    bench = chained()
    chain = asyncio.ensure_future(bench.region.execute_chain(put("a"), OpenFence(), lambda: put("b")))
    await asyncio.sleep(0.25)
    chain.cancel()
    await asyncio.wait([chain])
    assert bench.pace.in_flight == 0
