"""Discovery: late, missing, contradictory and failing pages, the seat, the budget, and the end of shards."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AsyncExitStack
from random import Random

import pytest

from replicator.domain.errors import RecordsTrimmed, ShardGone, Throttled, Unreachable
from replicator.domain.identifiers import SequenceNumber, ShardId, WorkerId
from replicator.domain.progress import END, HORIZON, after
from replicator.domain.shards.leases import Rewind, StreamState
from replicator.domain.shards.lineage import Shard
from replicator.domain.shards.listing import Listing
from replicator.engine.discovery.describe_rate import DescribeBudget
from replicator.engine.discovery.discovery import Discovery
from replicator.engine.discovery.questions import Questions
from replicator.engine.limits import Limits
from replicator.engine.membership.heartbeat import News
from replicator.engine.membership.members import Members
from replicator.engine.membership.session import Session
from replicator.engine.waiting import Stopped
from replicator.laboratory.memory import Fault
from tests.engine.shard_bench import first_of
from tests.engine.world import Process, World, id_of, until
from tests.seeds import first

S0, S1, S2 = ShardId("s0"), ShardId("s1"), ShardId("s2")


def time() -> float:
    return asyncio.get_running_loop().time()


def claimed(*processes: Process) -> list[str]:
    return [event[0] for process in processes for event in process.observer.of("lease_claimed")]


def seat(world: World) -> WorkerId | None:
    found = world.coordination.seat(world.ref)
    return None if found is None else found.owner


class Calls:
    """When DescribeStream was called, and what becomes of a call."""

    def __init__(self, world: World, answer: Callable[[int], Exception | None] = lambda _: None) -> None:
        self.at: list[float] = []
        self._answer = answer
        self.seconds = 0.0
        world.streams.faults.pause = self._pause

    async def _pause(self, call: str) -> None:
        if call != "DescribeStream":
            return
        self.at.append(time())
        error = self._answer(len(self.at))
        await asyncio.sleep(self.seconds)
        if error is not None:
            raise error

    def most_in_a_second(self) -> int:
        return max(sum(start <= at < start + 0.999 for at in self.at) for start in self.at)


def retained(world: World, lines: int, generations: int) -> list[str]:
    """Lines of closed shards that end in an open one; returns the open ones."""
    for generation in range(generations):
        for line in range(lines):
            parents = (ShardId(f"s{generation - 1:02}-{line:03}"),) if generation else ()
            shard_id = ShardId(f"s{generation:02}-{line:03}")
            world.streams.add_shard(world.ref, shard_id, *parents)
            if generation < generations - 1:
                world.streams.close(world.ref, shard_id)
    return [f"s{generations - 1:02}-{line:03}" for line in range(lines)]


# -- children ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("filters", [True, False])
@pytest.mark.parametrize("workers", [1, 3])
async def test_a_child_is_found_within_a_second_of_being_listed(*, filters: bool, workers: int) -> None:
    world = World("s0", "t0", "u0")
    world.streams.filters_children = filters
    async with AsyncExitStack() as stack:
        for _ in range(workers):
            await stack.enter_async_context(world.process(limits=Limits(discovery_seconds=300)))
        await asyncio.sleep(20)
        for number in range(3):
            world.roll(f"s{number}", f"s{number + 1}")
            world.streams.hide(world.ref, ShardId(f"s{number + 1}"))
            await until(lambda number=number: world.stored(f"s{number}") == "SHARD_END")  # type: ignore[misc]
            await asyncio.sleep(10.3)
            world.streams.reveal(world.ref, ShardId(f"s{number + 1}"))
            listed_at = time()
            await until(lambda number=number: world.row(f"s{number + 1}") is not None)  # type: ignore[misc]
            assert time() - listed_at <= 1.0 + 0.06
            await until(lambda number=number: world.owner(f"s{number + 1}") is not None, within=1)  # type: ignore[misc]


async def test_a_child_that_is_listed_at_once_is_read_by_whoever_read_its_parent() -> None:
    world = World("s0", "t0")
    async with world.process(), world.process():
        await asyncio.sleep(20)
        for number in range(5):
            owner = world.owner(f"s{number}")
            world.roll(f"s{number}", f"s{number + 1}")
            world.write("abcdefgh", number)
            rolled_at = time()
            await until(lambda number=number: world.owner(f"s{number + 1}") is not None)  # type: ignore[misc]
            assert world.owner(f"s{number + 1}") == owner
            assert time() - rolled_at < 2.5
        await until(world.same)


async def test_the_children_of_many_shards_are_found_by_listing_pages() -> None:
    world = World(*(f"s{number:02}" for number in range(40)))
    calls = Calls(world)
    async with world.process():
        await until(lambda: len({world.owner(f"s{number:02}") for number in range(40)} - {None}) == 1)
        await asyncio.sleep(20)
        before = len(calls.at)
        for number in range(40):
            world.roll(f"s{number:02}", f"t{number:02}")
        await until(lambda: all(world.owner(f"t{number:02}") for number in range(40)), within=8)
        assert len(calls.at) - before < 20, "not one call per shard"


async def test_children_whose_finder_died_are_found_by_the_discoverer() -> None:
    world = World("s0", "t0")
    first, second = world.process().start(), world.process().start()
    await asyncio.sleep(20)
    discoverer, other = (first, second) if str(seat(world)).startswith("p1") else (second, first)
    line = next(name for name in ("s0", "t0") if str(world.owner(name)).startswith(other.name))
    world.roll(line, "c1")
    world.streams.hide(world.ref, ShardId("c1"))
    await until(lambda: world.stored(line) == "SHARD_END")
    await other.kill()
    await asyncio.sleep(20)
    world.streams.reveal(world.ref, ShardId("c1"))
    await until(lambda: world.row("c1") is not None, within=1.1)
    await until(lambda: world.owner("c1") is not None, within=3.5)
    assert "c1" in claimed(discoverer)
    await discoverer.kill()


@pytest.mark.no_cover  # much happens, and nothing that shorter tests do not reach
async def test_questions_for_children_that_never_come_become_rarer() -> None:
    world = World()
    calls = Calls(world)
    async with world.process():
        world.roll("s0")
        await until(lambda: world.stored() == "SHARD_END")
        await asyncio.sleep(1200)
        before = len(calls.at)
        await asyncio.sleep(100)
        assert len(calls.at) - before <= 40


# -- parents -------------------------------------------------------------------------------------------------------


async def test_a_parent_that_is_listed_later_than_its_child_is_not_overtaken() -> None:
    world = World()
    world.write("abc", 1)
    world.roll("s0", "s1")
    world.write("abc", 2)
    world.streams.hide(world.ref, S0)
    async with world.process() as process:
        await asyncio.sleep(10)
        assert world.row("s1") is None
        world.streams.reveal(world.ref, S0)
        await until(world.same)
        assert claimed(process) == ["s0", "s1"]


async def test_a_parent_that_is_never_listed_but_can_be_read_is_read_first() -> None:
    world = World()
    world.write("abc", 1)
    world.roll("s0", "s1")
    world.write("abc", 2)
    world.streams.hide(world.ref, S0)
    async with world.process() as process:
        await until(world.same)
        assert claimed(process) == ["s0", "s1"]


async def test_a_merge_waits_for_the_parent_that_is_listed_late() -> None:
    world = World("s0", "t0")
    async with world.process() as process, world.process() as other:
        await asyncio.sleep(20)
        world.write("abcdefgh", 1)
        world.merge(["s0", "t0"], "m")
        world.write("abcdefgh", 2)
        await until(world.same)
        assert sorted(claimed(process, other)) == ["m", "s0", "t0"]
        row = world.row("m")
        assert row.shard.parents == (S0, ShardId("t0"))


async def test_a_child_of_a_shard_that_is_gone_is_begun_soon_by_the_answers_of_two_listings() -> None:
    world = World()
    world.streams.add_shard(world.ref, S1, ShardId("trimmed long ago"))
    calls = Calls(world)
    async with world.process():
        await until(lambda: world.owner("s1") is not None, within=4)
    assert len(calls.at) >= 2


async def test_one_wrong_answer_about_a_parent_proves_nothing() -> None:
    world = World()
    world.write("abc", 1)
    world.roll("s0", "s1")
    world.write("abc", 2)
    world.streams.hide(world.ref, S0)
    lies = iter([True, True, False, True, True, False])
    shard = world.streams._shards[world.ref.arn][S0]

    async def lie(call: str) -> None:
        gone = call == "GetShardIterator" and next(lies, False)
        shards = world.streams._shards[world.ref.arn]
        if gone:
            shards.pop(S0, None)
        else:
            shards[S0] = shard

    world.streams.faults.pause = lie
    async with world.process() as process:
        await asyncio.sleep(20)
        assert world.row("s1") is None
        world.streams.reveal(world.ref, S0)
        await until(world.same)
        assert claimed(process) == ["s0", "s1"]


async def test_a_link_that_is_told_late_is_kept_when_it_is_told_no_more() -> None:
    world = World("s0", "s1")
    world.streams.misreport(world.ref, Shard(S1, (S0,)))
    async with world.process():
        await asyncio.sleep(30)
        world.streams.correct(world.ref, S1)
        await asyncio.sleep(60)
        assert world.row("s1").shard.parents == (S0,)
        assert world.row("s0").shard.closed


async def test_a_shard_that_is_read_finds_a_new_owner_whatever_parent_a_listing_named_meanwhile() -> None:
    world = World("s0", "s1")
    names = [f"k{number}" for number in range(20)]
    world.write(names, 0)
    async with world.process() as process:
        await until(world.same)
        await asyncio.sleep(5)
        world.streams.misreport(world.ref, Shard(S1, (S0,)))
        await until(lambda: world.row("s1").shard.parents == (S0,))
        world.streams.correct(world.ref, S1)
        world.write(names, 1)
        await until(world.same)
        await process.kill()
    world.write(names, 2)
    async with world.process():
        await until(world.same, within=60)


async def test_a_shard_that_is_read_again_from_the_horizon_waits_for_its_parent() -> None:
    world = World()
    world.write("abc", 0)
    world.roll("s0", "s1")
    world.write("abc", 1)
    async with world.process() as process:
        await until(lambda: world.stored("s1") == "6")
        await process.drain()
    for shard_id, until_then in ((S0, END), (S1, after(SequenceNumber("6")))):
        rewind = Rewind(before=0.0, until=until_then)
        world.coordination.rewind(world.ref, shard_id, {id_of("orders/eu"): HORIZON}, {id_of("orders/eu"): rewind})
    world.region.faults.outage = Unreachable
    async with world.process() as process:
        await asyncio.sleep(30)
        assert claimed(process) == ["s0"]
        world.region.faults.outage = None
        await until(lambda: world.stored("s1") == "6")
        assert claimed(process) == ["s0", "s1"]


# -- times ---------------------------------------------------------------------------------------------------------


async def test_shards_of_the_first_listing_are_as_old_as_the_start_however_fast_the_machines_clock_is() -> None:
    world = World()
    first_of(world, "s0")
    world.write("abcdef")
    world.streams.trim(world.ref, S0, keep=3)
    process = world.process()
    process.clock.ahead = 120
    async with process:
        await until(lambda: set(world.holds()) == {"d", "e", "f"})
        assert world.registry.gaps == []


@pytest.mark.no_cover  # much happens, and nothing that shorter tests do not reach
async def test_a_shard_that_came_after_the_start_is_owed_however_slow_the_machines_clock_is() -> None:
    world = World()
    first_of(world, "s0")
    process = world.process()
    process.clock.ahead = -3600
    async with process:
        world.put("a", 1)
        await until(world.same)
        await asyncio.sleep(30 * 60)
        world.streams.faults.outage = Unreachable
        world.roll("s0", "s1")
        first_of(world, "s1", 2)
        world.write("bcdef")
        world.streams.trim(world.ref, S1, keep=1)
        world.streams.faults.outage = None
        await until(lambda: bool(world.registry.gaps))
        assert [gap.shard_id for gap in world.registry.gaps] == ["s1"]
        assert abs(world.row("s1").found_at - world.now()) < 120


# -- pages ---------------------------------------------------------------------------------------------------------


@pytest.mark.long
async def test_seven_hundred_retained_shards_converge_behind_a_slow_and_throttling_listing() -> None:
    world = World("s00-000")
    dice = Random(7)
    leaves = retained(world, 70, 10)
    calls = Calls(world, lambda _: Throttled("Rate exceeded.") if dice.random() < 0.5 else None)
    calls.seconds = 3.0
    async with world.process(limits=Limits(idle_seconds=20, poll_seconds=1)):
        await until(lambda: world.row("s00-000") is not None)
        stored = len(world.coordination.rows(world.ref))
        assert stored < 700, "the first page is stored before the last one is there"
        await until(lambda: all(world.owner(leaf) for leaf in leaves), within=900)
    assert calls.most_in_a_second() <= 8


async def test_a_page_that_fails_in_the_middle_holds_nothing_back_but_itself() -> None:
    world = World("s00-000")
    leaves = retained(world, 70, 1)
    world.streams.shards_per_page = 10
    broken, passed = True, 0

    def answer(_: int) -> Exception | None:
        nonlocal passed
        if broken and passed == 3:
            return Unreachable("The page got no answer.")
        passed += 1
        return None

    Calls(world, answer)
    async with world.process() as process:
        await until(lambda: sum(world.owner(leaf) is not None for leaf in leaves) == 30, within=20)
        await asyncio.sleep(4)
        assert len(world.coordination.rows(world.ref)) == 30
        assert "discovery of shards of orders in us" in process.observer.troubles
        broken, before = False, passed
        await until(lambda: len(world.coordination.rows(world.ref)) == 70, within=15)
        assert passed - before <= 5, "it went on with the page that failed"
        await until(lambda: all(world.owner(leaf) for leaf in leaves), within=15)
        assert process.observer.troubles == {}


async def test_a_page_that_never_comes_lets_the_listing_begin_anew() -> None:
    world = World("s00-000")
    retained(world, 20, 1)
    world.streams.shards_per_page = 10
    broken, passed = True, 0

    def answer(_: int) -> Exception | None:
        nonlocal passed
        if broken and passed == 1:
            return Unreachable("The page got no answer.")
        passed += 1
        return None

    calls = Calls(world, answer)
    async with world.process():
        await until(lambda: len(calls.at) == 9)
        world.streams.add_shard(world.ref, S1, ShardId("s00-001"))
        passed = 0
        await until(lambda: passed == 1, within=20)
        broken = False
        await until(lambda: world.row("s1") is not None)


async def test_a_listing_whose_next_page_begins_behind_a_shard_that_went_away_begins_anew() -> None:
    world = World("s00-000")
    retained(world, 30, 1)
    world.streams.shards_per_page = 10
    Calls(world, lambda number: ShardGone("The shard to begin behind is gone.") if number == 2 else None)
    async with world.process() as process:
        await until(lambda: len(world.coordination.rows(world.ref)) == 30, within=5)
        await until(lambda: process.observer.troubles == {})


@pytest.mark.parametrize("outage", [Throttled, Unreachable])
async def test_a_parent_that_cannot_be_asked_for_is_asked_again(outage: type[Throttled]) -> None:
    world = World()
    world.streams.add_shard(world.ref, S1, ShardId("trimmed long ago"))
    asked = 0

    async def fail(call: str) -> None:
        nonlocal asked
        asked += call == "GetShardIterator"
        if call == "GetShardIterator" and asked < 10:
            raise outage("GetShardIterator failed.")

    world.streams.faults.pause = fail
    async with world.process() as process:
        await until(lambda: world.owner("s1") is not None, within=40)
        await until(lambda: process.observer.troubles == {})


async def test_a_parent_whose_oldest_records_are_trimmed_is_there() -> None:
    world = World()
    world.write("abc", 1)
    world.roll("s0", "s1")
    world.write("abc", 2)
    world.streams.hide(world.ref, S0)

    async def trim(call: str) -> None:
        if call == "GetShardIterator" and world.row("s0") is None:
            raise RecordsTrimmed("The oldest records are gone.")

    world.streams.faults.pause = trim
    async with world.process() as process:
        await until(world.same)
        assert claimed(process) == ["s0", "s1"]


async def test_a_call_without_an_answer_is_given_up_and_made_again() -> None:
    world = World()
    world.write("abc")
    calls = Calls(world)
    calls.seconds = 1000
    async with world.process() as process:
        await until(lambda: "discovery of shards of orders in us" in process.observer.troubles)
        calls.seconds = 0
        await until(world.same, within=30)


async def test_a_listing_that_begins_anew_with_every_page_ends() -> None:
    listing = Listing(frozenset())
    page = (Shard(S0), Shard(S0), Shard(S1, (S0,)))
    assert not listing.take(page, S1)
    assert listing.take(page, S1)
    assert listing.seen == {S0: Shard(S0, closed=True), S1: Shard(S1, (S0,))}


async def test_shards_of_a_first_listing_that_takes_long_do_not_count_as_new() -> None:
    world = World("s00-000")
    retained(world, 50, 1)
    world.streams.shards_per_page = 10
    calls = Calls(world)
    calls.seconds = 14
    async with world.process():
        await until(lambda: len(world.coordination.rows(world.ref)) == 50, within=120)
        rows = world.coordination.rows(world.ref).values()
        assert len({row.found_at for row in rows}) == 1
        world.streams.add_shard(world.ref, S1, ShardId("s00-001"))
        await until(lambda: world.row("s1") is not None, within=120)
        assert world.row("s1").found_at > min(row.found_at for row in rows)


async def test_a_shard_vanishes_when_three_whole_listings_in_a_row_leave_it_out() -> None:
    world = World("s0", "t0")
    world.roll("s0", "s1")
    async with world.process():
        await until(lambda: world.stored("s0") == "SHARD_END" and world.owner("s1") is not None)
        await asyncio.sleep(15)
        world.streams.hide(world.ref, S0)
        await asyncio.sleep(19)
        assert not world.row("s0").vanished
        await until(lambda: world.row("s0").vanished, within=30)
        world.streams.reveal(world.ref, S0)
        await until(lambda: not world.row("s0").vanished, within=30)


# -- the seat and the budget ---------------------------------------------------------------------------------------


async def test_one_of_many_workers_lists_the_stream() -> None:
    world = World("s0", "s1", "s2")
    calls = Calls(world)
    async with AsyncExitStack() as stack:
        processes = [await stack.enter_async_context(world.process()) for _ in range(5)]
        await asyncio.sleep(30)
        before = [len(process.observer.of("described")) for process in processes]
        calls.at.clear()
        await asyncio.sleep(100)
        grown = [len(process.observer.of("described")) - old for process, old in zip(processes, before, strict=True)]
    assert sorted(count > 0 for count in grown) == [False] * 4 + [True]
    assert len(calls.at) == pytest.approx(10, abs=2)


async def test_the_seat_is_left_on_a_stop_and_taken_at_once() -> None:
    world = World()
    first = world.process().start()
    await until(lambda: seat(world) == "p1.1")
    async with world.process():
        await asyncio.sleep(10)
        stopped_at = time()
        await first.drain()
        await until(lambda: seat(world) == "p2.1")
        assert time() - stopped_at <= 2


@pytest.mark.parametrize("fault", Fault)
async def test_a_seat_that_was_taken_by_a_call_without_an_answer_is_filled(fault: Fault) -> None:
    world = World()
    world.write("abc")

    async def lose_first(call: str) -> None:
        if call == "take_seat":
            world.coordination.faults.pause = None
            world.coordination.faults.script(fault)

    world.coordination.faults.pause = lose_first
    async with world.process():
        await until(world.same, within=10)


async def test_the_seat_of_a_dead_discoverer_is_taken_and_nothing_waits_for_that() -> None:
    world = World("s0", "t0")
    first, second = world.process().start(), world.process().start()
    await asyncio.sleep(20)
    discoverer, other = (first, second) if str(seat(world)).startswith("p1") else (second, first)
    line = next(name for name in ("s0", "t0") if str(world.owner(name)).startswith(other.name))
    await discoverer.kill()
    killed_at = time()
    world.roll(line, "c1")
    await until(lambda: world.owner("c1") is not None, within=3)
    await until(lambda: str(seat(world)).startswith(other.name), within=15)
    assert len({world.owner("s0"), world.owner("t0"), world.owner("c1")} - {None}) == 1
    assert time() - killed_at <= 12
    await other.kill()


@pytest.mark.no_cover  # much happens, and nothing that shorter tests do not reach
@pytest.mark.parametrize("workers", [2, pytest.param(10, marks=pytest.mark.long)])
@pytest.mark.parametrize("filters", first(1, [True, False]))
async def test_all_workers_together_describe_a_stream_eight_times_a_second_at_most(
    *, workers: int, filters: bool
) -> None:
    lines = 24
    world = World(*(f"s{line}-0" for line in range(lines)))
    world.streams.filters_children = filters
    calls = Calls(world)
    async with AsyncExitStack() as stack:
        for _ in range(workers):
            await stack.enter_async_context(world.process())
        await asyncio.sleep(30)
        calls.at.clear()
        for generation in range(3):
            for line in range(lines):
                world.roll(f"s{line}-{generation}", f"s{line}-{generation + 1}")
                if line % 3 == 0:
                    world.streams.hide(world.ref, ShardId(f"s{line}-{generation + 1}"))
            await asyncio.sleep(8)
            world.reveal_all()
            await asyncio.sleep(12)
        await until(lambda: all(world.owner(f"s{line}-3") for line in range(lines)))
    assert calls.most_in_a_second() <= 8


async def test_the_budget_is_shared_by_the_workers_that_live() -> None:
    world = World()
    process = world.process()
    budget = DescribeBudget(process.clock, 8)
    workers = [WorkerId(f"w{number:02}") for number in range(12)]
    for _ in range(9):
        await budget.turn(workers[0], workers[:1])
    assert time() == pytest.approx(1, abs=0.01)
    for _ in range(9):
        await budget.turn(workers[0], workers[:3])
    assert time() == pytest.approx(1 + 0.125 + 8 * 0.5, abs=0.01), "two whole calls a second each"


async def test_more_workers_than_calls_take_turns_by_the_wall_clock() -> None:
    workers = [WorkerId(f"w{number:02}") for number in range(12)]
    clock = World().process().clock
    at: list[float] = []

    async def ask(worker: WorkerId) -> None:
        budget = DescribeBudget(clock, 8)
        for _ in range(5):
            await budget.turn(worker, workers)
            at.append(time())

    await asyncio.gather(*(ask(worker) for worker in workers))
    assert max(sum(start - 1e-3 <= each < start + 1 - 1e-3 for each in at) for start in at) == 8
    assert time() <= 5 * 12 / 8


# -- ends ----------------------------------------------------------------------------------------------------------


class Asked:
    """A discovery by itself, without a seat: only what is asked makes it call."""

    def __init__(self, world: World) -> None:
        self.world = world
        process = world.process()
        source = process.worker._sources.now[0]
        self.observer = process.observer
        session = Session(WorkerId("me"), process.clock, 10)
        limits = Limits()
        members = Members(
            session, News(), world.membership, limits=limits, clock=process.clock, observer=process.observer
        )
        budget = DescribeBudget(process.clock, 1000)
        self.discovery = Discovery(world.ref, source.ports, members, budget, limits=limits, wake=lambda: None)
        self.task = asyncio.create_task(self.discovery.run())

    async def is_over(self, *shards: ShardId) -> list[bool]:
        return list(await asyncio.gather(*(self.discovery.is_over(shard) for shard in shards)))

    async def end(self) -> None:
        await self.discovery.leave()
        await self.task


@pytest.mark.parametrize("filters", [True, False])
async def test_a_shard_is_over_when_it_is_closed_has_a_child_or_is_not_listed(*, filters: bool) -> None:
    world = World("s0", "s1", "s2")
    world.streams.filters_children = filters
    world.streams.close(world.ref, S0)
    world.streams.add_shard(world.ref, ShardId("c"), S1)
    asked = Asked(world)
    assert await asked.is_over(S0, S1, S2, ShardId("gone")) == [True, True, False, True]
    world.streams.close(world.ref, S2)
    assert await asked.is_over(S2) == [True]
    await asked.end()


async def test_an_endpoint_that_could_not_filter_is_asked_again_after_a_while() -> None:
    world = World()
    calls = Calls(world)
    asked = Asked(world)

    async def calls_for_an_answer() -> int:
        before = len(calls.at)
        assert await asked.is_over(S0) == [False]
        return len(calls.at) - before

    world.streams.filters_children = False
    assert [await calls_for_an_answer() for _ in range(2)] == [2, 1]
    world.streams.filters_children = True
    await asyncio.sleep(590)
    assert await calls_for_an_answer() == 1
    await asyncio.sleep(20)
    assert [await calls_for_an_answer() for _ in range(2)] == [2, 2]
    await asked.end()


async def test_every_shard_of_a_stream_that_is_gone_is_over() -> None:
    world = World()
    world.streams.drop(world.ref)
    asked = Asked(world)
    assert await asked.is_over(S0) == [True]
    await asked.end()


async def test_simultaneous_questions_share_their_calls() -> None:
    world = World(*(f"s{number}" for number in range(50)))
    calls = Calls(world)
    asked = Asked(world)
    answers = await asked.is_over(*(ShardId(f"s{number}") for number in range(50)))
    assert answers == [False] * 50
    assert len(calls.at) <= 2
    await asked.end()


async def test_an_answer_is_taken_from_a_call_behind_the_question() -> None:
    world = World()
    calls = Calls(world)
    calls.seconds = 5
    asked = Asked(world)
    first = asyncio.create_task(asked.is_over(S0))
    await asyncio.sleep(7)
    world.streams.close(world.ref, S0)
    second = asyncio.create_task(asked.is_over(S0))
    await asyncio.wait([first, second])
    assert second.result() == [True]
    await asked.end()


async def test_a_question_outlives_an_outage_of_the_listing() -> None:
    world = World()
    world.streams.faults.outage = Unreachable
    asked = Asked(world)
    question = asyncio.create_task(asked.is_over(S0))
    await asyncio.sleep(30)
    assert not question.done()
    assert asked.observer.troubles != {}
    world.streams.faults.outage = None
    assert await question == [False]
    await asked.end()


async def test_a_question_ends_with_the_discovery() -> None:
    world = World()
    world.streams.faults.outage = Unreachable
    asked = Asked(world)
    question = asyncio.create_task(asked.discovery.is_over(S0))
    await asyncio.sleep(1)
    await asked.end()
    with pytest.raises(Stopped):
        await question
    with pytest.raises(Stopped):
        await asked.discovery.is_over(S0)


async def test_what_was_seen_closed_stays_over_without_a_call() -> None:
    world = World()
    calls = Calls(world)
    asked = Asked(world)
    await world.coordination.discover(world.ref, [Shard(S0, closed=True)], 0.0)
    asked.discovery.see(StreamState(world.coordination.rows(world.ref), None, {}, at=0.0), ())
    assert await asked.is_over(S0) == [True]
    assert asked.discovery.known(S0)
    assert not asked.discovery.known(S1)
    assert calls.at == []
    await asked.end()


async def test_a_question_that_nobody_waits_for_is_dropped() -> None:
    world = World()
    world.streams.faults.outage = Unreachable
    asked = Asked(world)
    question = asyncio.create_task(asked.is_over(S0))
    await asyncio.sleep(1)
    question.cancel()
    await asyncio.wait([question])
    assert asked.discovery._questions.shards == set()
    await asked.end()


async def test_questions_are_answered_by_later_calls_only() -> None:
    questions = Questions()
    question = questions.ask(S0, asked=3)
    questions.hear([Shard(S0, closed=True)], 3)
    assert not question.answer.done()
    questions.hear([Shard(S0, closed=True)], 4)
    assert question.answer.result()
