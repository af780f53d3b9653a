"""What belongs to the group is reported by one worker: what no worker reads, paused and held rules, silent workers."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from replicator.domain.errors import Unreachable
from replicator.domain.identifiers import RuleName, ShardId
from replicator.domain.shards.unread import HELD
from replicator.engine.limits import Limits
from replicator.ports.events import Overview, UnreadShard
from tests.engine.test_coordinator import replace_stream
from tests.engine.world import AP, EPOCH_SECONDS, Process, World, eu_rule, rule, short, target, until


def now() -> float:
    return EPOCH_SECONDS + asyncio.get_running_loop().time()


def last(process: Process) -> Overview | None:
    return process.observer.overviews[-1] if process.observer.overviews else None


def standing(process: Process) -> dict[tuple[str, str | None], UnreadShard]:
    """What a process reports of the group, by target and shard."""
    overview = last(process)
    assert overview is not None
    found = {(short(each.target.target_id), each.shard_id): each for each in overview.standing}
    assert len(found) == len(overview.standing)
    return found  # type: ignore[return-value]


async def refusing_claims(call: str) -> None:
    if call == "claim":
        raise Unreachable("No answer.")


def states(process: Process) -> dict[tuple[str, str | None], str]:
    return {spot: each.state for spot, each in standing(process).items()}


def tellers(processes: Sequence[Process]) -> list[str]:
    return [process.name for process in processes if last(process) is not None]


async def test_what_workers_read_is_reported_by_no_other() -> None:
    world = World("s0", "s1")
    world.write("ab")
    async with world.process() as process:
        await until(world.same)
        await asyncio.sleep(60)
        assert states(process) == {}
        overview = last(process)
        assert overview is not None
        assert (overview.live, overview.silent, dict(overview.paused)) == (1, 0, {})


async def test_one_of_several_workers_reports_and_another_takes_over_when_it_dies() -> None:
    world = World("s0", "s1")
    processes = [world.process() for _ in range(3)]
    for process in processes:
        process.start()
    await asyncio.sleep(30)
    assert tellers(processes) == ["p1"]
    await processes[0].kill()
    await asyncio.sleep(30)
    assert tellers(processes[1:]) == ["p2"]
    overview = last(processes[1])
    assert overview is not None
    assert overview.live == 2
    await processes[1].drain()
    await asyncio.sleep(10)
    assert tellers(processes[2:]) == ["p3"]
    await processes[2].drain()


async def test_a_worker_that_comes_reports_only_when_the_one_before_it_is_seen_to_be_dead_or_behind_it() -> None:
    world = World()
    async with world.process() as living:
        await asyncio.sleep(30)
        async with world.process() as late:
            await asyncio.sleep(30)
            assert last(living) is not None
            assert set(late.observer.overviews) == {None}


async def test_a_paused_rule_counts_from_when_its_shards_were_read_to_the_tip() -> None:
    world = World("s0", "s1")
    world.write("abcd")
    async with world.process() as process:
        await until(world.same)
        await asyncio.sleep(900)
        paused_at = now()
        world.membership.pause(RuleName("orders"), paused_at)
        await asyncio.sleep(300)
        found = standing(process)
        assert {spot: each.state for spot, each in found.items()} == {
            ("orders/eu", "s0"): "paused",
            ("orders/eu", "s1"): "paused",
        }
        for each in found.values():
            assert each.through is not None
            assert abs(each.through - paused_at) < 8.0, "idle time before the pause is no lag"
        overview = last(process)
        assert overview is not None
        assert overview.paused == {"orders": paused_at}
        world.membership.resume(RuleName("orders"))
        await asyncio.sleep(30)
        assert states(process) == {}


async def test_a_rule_that_is_paused_beside_another_on_one_shard_is_reported_alone() -> None:
    world = World()
    world.write("ab")
    rules = (eu_rule(), rule("bills", target("bills", AP)))
    async with world.process(*rules) as process:
        await until(lambda: world.same() and world.same(AP))
        world.membership.pause(RuleName("bills"), now())
        await asyncio.sleep(600)
        assert states(process) == {("bills/ap", "s0"): "paused"}


async def test_shards_of_dead_workers_that_no_other_takes_are_reported_with_what_was_said_last() -> None:
    world = World()
    world.write("ab")
    old = world.process().start()
    await until(world.same)
    await asyncio.sleep(600)
    killed_at = now()
    await old.kill()
    async with world.process(rule("bills", target("bills", AP))) as process:
        process.resting = (eu_rule(),)
        world.coordination.faults.pause = refusing_claims
        await asyncio.sleep(300)
        each = standing(process)["orders/eu", "s0"]
        assert each.state == HELD
        assert each.through is not None
        assert abs(each.through - killed_at) < 10.0, "idle minutes before the kill are no lag"
        overview = last(process)
        assert overview is not None
        assert (overview.live, overview.silent) == (1, 1)


async def test_a_held_rule_without_a_stream_is_unknown_and_says_so() -> None:
    world = World()
    async with world.process() as process:
        elsewhere = rule("bills", target("bills", AP))
        process.resting = (elsewhere,)
        await asyncio.sleep(30)
        found = standing(process)["bills/ap", "s0"]
        assert (found.state, found.through) == (HELD, None)


async def test_a_shard_read_to_its_end_is_reported_until_its_child_is_listed() -> None:
    world = World()
    world.write("ab")
    async with world.process() as process:
        await until(world.same)
        world.roll("s0", "s1")
        world.streams.hide(world.ref, ShardId("s1"))
        await until(lambda: world.stored("s0") == "SHARD_END")
        await asyncio.sleep(60)
        assert states(process) == {("orders/eu", "s0"): "no child"}
        world.reveal_all()
        await asyncio.sleep(60)
        assert states(process) == {}


async def test_while_the_table_does_not_answer_nothing_is_said_to_be_over() -> None:
    world = World()
    world.write("ab")
    async with world.process(limits=Limits()) as process:
        await until(world.same)
        world.membership.pause(RuleName("orders"), now())
        await asyncio.sleep(60)
        before = len(process.observer.overviews)
        world.membership.faults.outage = world.coordination.faults.outage = Unreachable
        world.registry.faults.outage = Unreachable
        await asyncio.sleep(145)
        assert None not in process.observer.overviews[before:]
        assert [lost for lost in process.observer.of("service_recovered") if "shards of" in lost[0]] == []
        world.membership.faults.outage = world.coordination.faults.outage = world.registry.faults.outage = None
        await asyncio.sleep(60)
        assert states(process) == {("orders/eu", "s0"): "paused"}
        assert None not in process.observer.overviews[before:], "its own former session is no other worker"


async def test_a_rule_is_judged_on_the_stream_that_it_reads() -> None:
    world = World()
    world.write("ab")
    async with world.process():
        await until(world.same)
        replace_stream(world)
        world.put("c", 1)
        await until(world.same)
    async with world.process(eu_rule(), rule("bills", target("bills", AP))) as process:
        await until(lambda: world.stored("n0", "bills/ap") is not None)
        await asyncio.sleep(60)
        assert states(process) == {}, "bills began with the present stream, and is owed nothing of the old one"
