"""Whole processes: sessions that end, shards that change hands, and nothing that is left behind."""

from __future__ import annotations

import asyncio

import pytest

from replicator.domain.errors import Throttled, Unreachable
from replicator.domain.records import ShardId, WorkerId
from replicator.engine.pacing import Limits
from tests.engine.world import Process, World, eu_rule, hold, key_of, slow, until

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
    assert "heartbeat" in process.observer.troubles, "that its row could not be removed is told"


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
