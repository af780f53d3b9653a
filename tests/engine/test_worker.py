"""Whole processes: sessions that end, shards that change hands, and nothing that is left behind."""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import AsyncExitStack

import pytest

from replicator.domain.errors import Throttled, Unreachable
from replicator.domain.identifiers import RuleName, ShardId, WorkerId
from replicator.engine.limits import Limits
from tests.engine.world import Process, World, eu_rule, hold, key_of, slow, until
from tests.seeds import first

S0 = ShardId("s0")


def claims(process: Process) -> list[tuple[str, str, int]]:
    return [(shard, owner, epoch) for shard, owner, epoch in process.observer.of("lease_claimed")]


def time() -> float:
    return asyncio.get_running_loop().time()


async def test_only_one_of_two_workers_reads_a_shard() -> None:
    world = World()
    async with world.process() as first, world.process() as second:
        world.write("abc")
        await until(world.same)
        await asyncio.sleep(60)
        assert len(claims(first) + claims(second)) == 1


async def test_the_shards_of_a_killed_worker_are_taken_over_behind_the_lease_time_at_their_checkpoints() -> None:
    world = World()
    async with world.process() as first:
        await until(lambda: bool(claims(first)))
        async with world.process() as second:
            world.write("abc")
            await until(lambda: world.stored() == "3")
            await asyncio.sleep(5)
            await first.kill()
            killed_at = time()
            world.write("xyz")
            await until(lambda: bool(claims(second)))
            assert 7 <= time() - killed_at <= 10 + 3 + 3.1, "lease, the last heartbeat's age, a cycle"
            await until(world.same)
            assert second.observer.of("polled")[0][1] == "3"
            assert claims(second) == [("s0", "p2.1", 2)]


async def test_the_unsaved_work_of_a_killed_worker_is_done_again_and_harms_nothing() -> None:
    world = World()
    async with world.process(limits=Limits(checkpoint_seconds=60)) as first:
        for value in range(5):
            world.write("abc", value)
            world.delete("b")
        await until(world.same)
        assert world.stored() is None
        await first.kill()
    async with world.process() as second:
        await until(lambda: world.stored() == "20")
        assert world.same()
        assert sum(report.records for report in second.observer.reports) == 20


async def test_a_worker_that_stops_hands_its_shards_over_within_one_cycle() -> None:
    world = World("s0", "s1", "s2")
    async with world.process() as first:
        await until(lambda: len(claims(first)) == 3)
        async with world.process() as second:
            await asyncio.sleep(10)
            await first.drain()
            stopped_at = time()
            await until(lambda: len(claims(second)) == 3)
            assert time() - stopped_at <= 3.1
            assert [*await world.membership.members()] == ["p2.1"]


async def test_the_checkpoint_of_a_zombie_is_refused_and_ends_its_work_on_that_shard() -> None:
    world = World("s0", "s1")
    process = world.process().start()
    await until(lambda: world.stored("s0") is not None and world.stored("s1") is not None)
    taken = await world.coordination.claim(world.ref, world.row("s0"), WorkerId("other"))
    assert taken is not None
    names = [name for name in "abcdefghij" if world.shard_of(key_of(name)) == S0]
    world.write(names)
    await until(lambda: ("s0", "lost") in process.observer.of("lease_ended"))
    assert world.owner("s0") == "other"
    assert world.stored("s0") == "TRIM_HORIZON"
    sent = len(world.region.sent)
    world.write(names, 1)
    await asyncio.sleep(5)
    assert len(world.region.sent) == sent
    assert ("s1", "lost") not in process.observer.of("lease_ended")
    assert process.observer.faults == []
    await until(world.same, within=30)
    await process.drain()


async def test_a_suspended_process_loses_its_session_and_sends_nothing_until_it_has_another() -> None:
    world = World()
    process = world.process().start()
    await until(lambda: bool(claims(process)))
    world.write("abc")
    await until(world.same)
    process.suspend(60)
    world.write("xyz")
    await asyncio.sleep(5)
    assert set(world.holds()) == set("abc")
    assert [worker for (worker,) in process.observer.of("session_began")] == ["p1.1", "p1.2"]
    assert process.observer.of("lease_ended") == [("s0", "lost")]
    await until(world.same)
    assert claims(process) == [("s0", "p1.1", 1), ("s0", "p1.2", 2)]
    await process.drain()


async def test_a_new_session_takes_its_own_old_shards_over_only_when_they_have_expired() -> None:
    world = World()
    process = world.process().start()
    await until(lambda: bool(claims(process)))
    await asyncio.sleep(10)
    process.suspend(60)
    resumed_at = time()
    await until(lambda: len(claims(process)) == 2)
    assert time() - resumed_at >= 10
    await process.drain()


async def test_an_outage_of_the_coordination_ends_the_session_and_everything_recovers_behind_it() -> None:
    world = World("s0", "s1")
    process = world.process().start()
    await until(lambda: len(claims(process)) == 2)
    for port in (world.membership, world.coordination, world.registry):
        port.faults.outage = Unreachable
    world.write("abcdefgh")
    await asyncio.sleep(120)
    assert "heartbeat" in process.observer.troubles
    sent = len(world.region.sent)
    await asyncio.sleep(60)
    assert len(world.region.sent) == sent
    for port in (world.membership, world.coordination, world.registry):
        port.faults.outage = None
    await until(world.same)
    await until(lambda: world.stored("s0") is not None and process.observer.troubles == {})
    await asyncio.sleep(20)
    assert process.observer.troubles == {}
    assert process.observer.faults == []
    await process.drain()


async def test_a_short_outage_of_the_coordination_interrupts_nothing() -> None:
    world = World()
    process = world.process().start()
    await until(lambda: bool(claims(process)))
    for port in (world.membership, world.coordination, world.registry):
        port.faults.outage = Throttled
    await asyncio.sleep(3)
    world.write("abc")
    await until(world.same, within=3)
    for port in (world.membership, world.coordination, world.registry):
        port.faults.outage = None
    await until(lambda: world.stored() == "3")
    assert len(process.observer.of("session_began")) == 1
    await process.drain()


async def test_nothing_is_read_before_the_first_heartbeat_is_stored() -> None:
    world = World()
    world.membership.faults.outage = Unreachable
    world.write("abc")
    process = world.process().start()
    await asyncio.sleep(60)
    assert world.row() is None
    world.membership.faults.outage = None
    await until(world.same)
    assert process.observer.troubles == {}
    await process.drain()


async def test_a_stop_in_an_outage_gives_up_only_at_the_deadline_of_the_drain() -> None:
    world = World()
    process = world.process().start()
    world.write("abc")
    await until(lambda: world.stored() == "3")
    world.put("d", 1)
    await until(world.same)
    world.coordination.faults.outage = Unreachable
    with pytest.raises(TimeoutError):
        await process.drain(within=30)
    world.coordination.faults.outage = None
    async with world.process():
        await until(lambda: world.stored() == "4")
    assert world.same()


async def test_a_stop_while_the_session_is_lost_ends_at_once() -> None:
    world = World()
    process = world.process().start()
    await until(lambda: bool(claims(process)))
    for port in (world.membership, world.coordination):
        port.faults.outage = Unreachable
    await asyncio.sleep(60)
    await process.drain(within=1)
    assert "heartbeat" in process.observer.troubles, "that its row could not be removed is reported"


async def test_a_member_that_died_is_removed_once_its_shards_are_taken() -> None:
    world = World("s0", "s1")
    for _ in range(5):
        process = world.process().start()
        await until(lambda process=process: len(claims(process)) == 2)  # type: ignore[misc]
        await process.kill()
    async with world.process() as process:
        await until(lambda: len(claims(process)) == 2)
        await asyncio.sleep(10)
        assert list(await world.membership.members()) == ["p6.1"]


async def test_a_standby_that_died_is_removed_by_another() -> None:
    world = World()
    async with world.process() as owner:
        await until(lambda: bool(claims(owner)))
        async with world.process():
            async with world.process():
                await asyncio.sleep(5)
            await asyncio.sleep(30)
            assert list(await world.membership.members()) == ["p1.1", "p2.1"]
            assert world.owner() == "p1.1"


@pytest.mark.parametrize("held", ["GuardedPut", "save", "GetRecords", "rows", "beat", "claim", "start"])
async def test_nothing_runs_on_behind_a_process_that_was_killed_in_any_call(held: str) -> None:
    world = World()
    before = asyncio.all_tasks()
    process = world.process().start()
    if held not in {"beat", "claim", "start"}:
        await until(lambda: bool(claims(process)))
    ports = (world.region, world.coordination, world.streams, world.membership, world.registry)
    for port in ports:
        hold(port.faults, held)
    world.write("abc")
    await asyncio.sleep(5)
    await process.kill()
    assert asyncio.all_tasks() == before
    for port in ports:
        port.faults.pause = None
    async with world.process():
        await until(world.same)


async def test_nothing_runs_on_behind_a_process_that_drained() -> None:
    world = World("s0", "s1")
    before = asyncio.all_tasks()
    process = world.process().start()
    world.write("abc")
    await until(world.same)
    await process.drain()
    assert asyncio.all_tasks() == before
    assert [event[1] for event in process.observer.of("lease_ended")] == ["stopped", "stopped"]


async def test_the_memory_of_a_process_does_not_grow_with_the_shards_it_has_read() -> None:
    world = World()
    process = world.process(limits=Limits(discovery_seconds=1)).start()
    tasks = []
    for generation in range(30):
        world.write("abc", generation)
        await until(world.same)
        world.roll(f"s{generation}", f"s{generation + 1}")
        await until(lambda generation=generation: world.owner(f"s{generation + 1}") is not None)  # type: ignore[misc]
        if generation > 1:
            world.streams.remove_shard(world.ref, ShardId(f"s{generation - 2}"))
        tasks.append(len(asyncio.all_tasks()))
    assert max(tasks[5:]) <= max(tasks[:5]) + 4, "a few calls may be under way"
    await asyncio.sleep(1300)
    assert len(world.coordination._rows) <= 4, "rows of shards that are listed no more are gone"
    await process.drain()


async def test_a_worker_with_an_unreachable_target_keeps_its_lease_and_the_other_waits() -> None:
    world = World()
    world.region.faults.outage = Unreachable
    async with world.process(eu_rule()) as first:
        await until(lambda: bool(claims(first)))
        async with world.process() as second:
            world.write("abc")
            await asyncio.sleep(300)
            assert claims(second) == []
            world.region.faults.outage = None
            await until(world.same)


async def test_a_slow_world_is_no_reason_to_lose_a_lease() -> None:
    world = World("s0", "s1")
    for port in (world.region, world.coordination, world.streams, world.membership, world.registry):
        slow(port.faults, 1.5)
    process = world.process().start()
    for value in range(5):
        world.write("abcdef", value)
        await asyncio.sleep(20)
    await until(world.same, within=120)
    assert len(process.observer.of("session_began")) == 1
    assert len(claims(process)) == 2
    await process.drain()


# -- many workers --------------------------------------------------------------------------------------------------


class OneOwner:
    """Watches that a shard never has two workers that may save, and counts what the coordination is asked."""

    def __init__(self, world: World) -> None:
        self.writes: Counter[str] = Counter()
        self.looks = 0
        world.coordination.faults.pause = self._call
        world.membership.faults.pause = self._call
        world.registry.faults.pause = self._call

    async def _call(self, call: str) -> None:
        if call in {"state", "members", "paused", "driven", "resting", "streams", "starts", "acknowledged"}:
            self.looks += call == "state"
        else:
            self.writes[call] += 1

    def clear(self) -> None:
        self.writes.clear()
        self.looks = 0


def shares(world: World) -> list[int]:
    """How many shards each owner has, greatest first."""
    rows = world.coordination.rows(world.ref).values()
    return sorted(Counter(row.owner for row in rows if row.owner is not None).values(), reverse=True)


def names(count: int) -> list[str]:
    return [f"s{number:04}" for number in range(count)]


@pytest.mark.parametrize(("workers", "shards"), first(2, [(2, 7), (3, 9), (10, 64)]))
async def test_shards_are_shared_evenly_by_workers_that_join_one_after_the_other(workers: int, shards: int) -> None:
    world = World(*names(shards))
    async with AsyncExitStack() as stack:
        for number in range(1, workers + 1):
            await stack.enter_async_context(world.process())
            fair = [len(range(place, shards, number)) for place in range(number)]
            await until(lambda fair=fair: shares(world) == fair, within=60)  # type: ignore[misc]
        taken = sum(row.epoch for row in world.coordination.rows(world.ref).values())
        await asyncio.sleep(120)
        assert sum(row.epoch for row in world.coordination.rows(world.ref).values()) == taken, "nothing moves any more"
        assert taken <= shards * 4


async def test_ten_workers_that_start_together_read_every_shard_soon_and_share_them() -> None:
    world = World(*names(64))
    async with AsyncExitStack() as stack:
        for _ in range(10):
            await stack.enter_async_context(world.process())
        await until(lambda: sum(shares(world)) == 64, within=10)
        await until(lambda: max(shares(world)) - min(shares(world)) <= 1 and len(shares(world)) == 10)


@pytest.mark.parametrize("workers", first(2, [2, 10, 3]))
async def test_the_shards_of_a_worker_that_stops_are_owned_by_others_within_two_seconds(workers: int) -> None:
    world = World(*names(30))
    async with AsyncExitStack() as stack:
        first = world.process().start()
        for _ in range(workers - 1):
            await stack.enter_async_context(world.process())
        await until(lambda: len(shares(world)) == workers and max(shares(world)) - min(shares(world)) <= 1)
        await asyncio.sleep(10)
        first.stop.set()
        stopped_at = time()
        await until(lambda: all(str(world.owner(name)).split(".")[0] not in {"p1", "None"} for name in names(30)))
        assert time() - stopped_at <= 2
        await first.drain()


async def test_a_shard_that_drains_slowly_does_not_hold_the_hand_over_of_the_others() -> None:
    world = World("s0", "s1", "s2", "s3")
    first = world.process().start()
    await until(lambda: shares(world) == [4])
    async with world.process():
        await until(lambda: shares(world) == [2, 2])
        await asyncio.sleep(10)
        ours = [name for name in ("s0", "s1", "s2", "s3") if str(world.owner(name)).startswith("p1")]
        slow(world.region.faults, 8)
        world.write(
            [name for name in (f"k{number}" for number in range(200)) if world.shard_of(key_of(name)) == ours[0]]
        )
        await asyncio.sleep(1)
        first.stop.set()
        await until(lambda: world.owner(ours[1]) == "p2.1", within=2)
        assert world.owner(ours[0]) == "p1.1"
        await until(lambda: world.owner(ours[0]) == "p2.1")
        await first.drain()


@pytest.mark.parametrize("workers", first(2, [2, 10, 3]))
async def test_the_shards_of_a_worker_that_is_killed_are_owned_by_others_within_fifteen_seconds(workers: int) -> None:
    world = World(*names(30))
    async with AsyncExitStack() as stack:
        first = world.process().start()
        for _ in range(workers - 1):
            await stack.enter_async_context(world.process())
        await until(lambda: len(shares(world)) == workers and max(shares(world)) - min(shares(world)) <= 1)
        await asyncio.sleep(10)
        await first.kill()
        killed_at = time()
        await until(lambda: all(str(world.owner(name)).split(".")[0] != "p1" for name in names(30)))
        assert 7 <= time() - killed_at <= 15


async def test_the_shards_of_a_suspended_worker_move_and_it_comes_back_as_another() -> None:
    world = World(*names(6))
    async with world.process() as first, world.process() as second:
        await until(lambda: shares(world) == [3, 3])
        first.suspend(30)
        await until(lambda: {row.owner for row in world.coordination.rows(world.ref).values()} == {"p2.1", "p1.2"})
        await until(lambda: shares(world) == [3, 3])
        assert first.observer.faults == second.observer.faults == []


@pytest.mark.parametrize("shards", [200, pytest.param(1000, marks=pytest.mark.long)])
async def test_idle_shards_of_five_workers_cost_few_writes_and_looks_however_many_they_are(shards: int) -> None:
    world = World(*names(shards))
    counts = OneOwner(world)
    limits = Limits(idle_seconds=30, poll_seconds=5)
    async with AsyncExitStack() as stack:
        for _ in range(5):
            await stack.enter_async_context(world.process(limits=limits))
        await until(lambda: shares(world) == [shards // 5] * 5, within=300)
        await asyncio.sleep(20)
        counts.clear()
        await asyncio.sleep(60)
    assert sum(counts.writes.values()) / 60 < 5
    assert set(counts.writes) <= {"beat", "take_seat"}
    assert counts.writes["take_seat"] <= 2, "the seat is renewed now and then"
    assert counts.looks / 60 <= 5 / 3 + 0.2


async def test_shards_that_stop_together_take_turns_at_the_coordination() -> None:
    world = World(*names(200))
    process = world.process().start()
    await until(lambda: shares(world) == [200])
    await asyncio.sleep(5)
    latency = slow(world.coordination.faults, 0.05)
    await process.drain()
    assert latency.most_under_way <= 17
    assert shares(world) == []


async def test_a_pause_ends_a_rule_on_every_worker_and_a_resume_starts_it_where_it_was() -> None:
    world = World("s0", "s1")
    async with world.process() as first, world.process() as second:
        world.write("abcdefgh", 1)
        await until(world.same)
        await asyncio.sleep(10)
        world.membership.pause(RuleName("orders"))
        await asyncio.sleep(5)
        assert shares(world) == []
        world.write("abcdefgh", 2)
        await asyncio.sleep(30)
        assert set(world.holds().values()) == {"1"}
        world.membership.resume(RuleName("orders"))
        await until(world.same, within=8)
        assert first.observer.faults == second.observer.faults == []


async def test_a_shard_that_an_operator_takes_away_is_given_up_quietly_and_claimed_anew() -> None:
    world = World("s0", "s1")
    async with world.process() as process:
        world.write("abcdefgh", 1)
        await until(world.same)
        world.coordination.evict(world.ref, S0)
        await until(lambda: world.row("s0").epoch == 3)
        world.write("abcdefgh", 2)
        await until(world.same)
        assert process.observer.faults == []
        assert process.observer.troubles == {}


async def test_rows_that_are_lost_are_found_again_and_everything_is_read_again() -> None:
    world = World("s0", "s1")
    async with world.process() as process:
        world.write("abcdefgh", 1)
        await until(world.same)
        for name in ("s0", "s1"):
            world.coordination.delete(world.ref, ShardId(name))
        await until(lambda: world.owner("s0") is not None and world.owner("s1") is not None, within=30)
        world.write("abcdefgh", 2)
        await until(world.same)
        assert process.observer.faults == []
