"""Up to when targets have everything, as rows and heartbeats say: across restarts, kills, and idle hours."""

from __future__ import annotations

import asyncio

from replicator.domain.errors import Unreachable
from replicator.domain.identifiers import ShardId
from replicator.domain.shards.applied_through import applied_through, frontier
from replicator.domain.shards.snapshot import Snapshot
from tests.engine.world import EPOCH_SECONDS, World, eu_rule, id_of, until


async def through_of(world: World) -> float | None:
    """T of the rule's one target, from stored rows and heartbeats alone."""
    rule = eu_rule()
    (target,) = rule.targets
    state = await world.coordination.state(world.ref)
    pulses = await world.membership.members()
    said = {worker: pulse.through for worker, pulse in pulses.items()}
    return applied_through(frontier(Snapshot(state, [rule]), rule, target, world.ref, said))


def now() -> float:
    return EPOCH_SECONDS + asyncio.get_running_loop().time()


async def level(world: World, within: float = 30.0) -> None:
    await until(world.same, within)


async def test_a_heartbeat_says_that_an_idle_shard_was_read_to_its_tip() -> None:
    world = World("s0", "s1")
    world.write("ab")
    async with world.process():
        await level(world)
        await asyncio.sleep(900)
        through = await through_of(world)
        assert through is not None
        assert now() - through < 10.0
        (pulse,) = (await world.membership.members()).values()
        assert len(pulse.through) == 1


async def test_a_drained_worker_leaves_in_the_rows_up_to_when_it_has_read() -> None:
    world = World("s0", "s1")
    world.write("ab")
    process = world.process().start()
    await level(world)
    await asyncio.sleep(900)
    stopped_at = now()
    await process.drain()
    assert await world.membership.members() == {}
    through = await through_of(world)
    assert through is not None
    assert abs(stopped_at - through) < 5.0, "that nothing was written in the last minutes is not lost with the process"
    await asyncio.sleep(100)
    assert await through_of(world) == through


async def test_what_a_killed_worker_said_last_counts_until_its_shards_are_taken() -> None:
    world = World()
    world.write("ab")
    process = world.process().start()
    await level(world)
    await asyncio.sleep(900)
    killed_at = now()
    await process.kill()
    await asyncio.sleep(200)
    through = await through_of(world)
    assert through is not None
    assert abs(killed_at - through) < 10.0


async def test_with_a_backlog_it_stands_at_the_newest_record_that_was_applied_in_order() -> None:
    world = World()
    async with world.process():
        world.write("ab")
        await level(world)
        await asyncio.sleep(100)
        world.region.faults.outage = Unreachable
        written_at = now()
        world.write("cdef")
        await asyncio.sleep(200)
        through = await through_of(world)
        assert through is not None
        assert abs(through - written_at) < 5.0, "a target that cannot be written stands still"


async def test_a_closed_shard_counts_as_its_end_until_its_child_is_read() -> None:
    world = World()
    world.write("ab")
    async with world.process():
        await level(world)
        await asyncio.sleep(600)
        rolled_at = now()
        world.roll("s0", "s1")
        await until(lambda: world.stored("s0") == "SHARD_END")
        through = await through_of(world)
        assert through is not None
        assert abs(through - rolled_at) < 10.0
        await asyncio.sleep(600)
        through = await through_of(world)
        assert through is not None
        assert now() - through < 10.0


async def test_a_rewound_target_is_no_longer_said_to_have_everything() -> None:
    world = World()
    world.write("ab")
    process = world.process().start()
    await level(world)
    await process.drain()
    assert await through_of(world) is not None
    world.coordination.rewind(world.ref, ShardId("s0"), {id_of("orders/eu"): None}, {})
    assert await through_of(world) is None
