"""A loss under `on_gap: resync`: recorded, passed, repaired by a job, and closed, without a person."""

from __future__ import annotations

import asyncio

import pytest

from replicator.domain.jobs import JobKind, JobState
from replicator.domain.rules import OnGap
from tests.engine.job_world import JobWorldOf
from tests.engine.mesh_world import VERSIONED, MeshWorld
from tests.engine.shard_bench import S0
from tests.engine.world import EU, US, World, eu_rule, id_of, until

RESYNC = eu_rule(on_gap=OnGap.RESYNC)


async def away(world: World, jobs: JobWorldOf) -> None:
    """Be level, then away while items are put, changed and deleted and all but the last record is trimmed."""
    world.write(["kept", "changed", "deleted"], 1)
    async with jobs.process(RESYNC):
        await until(lambda: world.stored() == "3")
    world.put("changed", 2)
    world.put("new", 2)
    world.delete("deleted")
    world.put("last", 2)
    world.streams.trim(world.ref, S0, keep=1)


async def test_an_outage_longer_than_the_stream_heals_without_a_person() -> None:
    world = World()
    jobs = JobWorldOf(world)
    await away(world, jobs)
    async with jobs.process(RESYNC) as process:
        await until(lambda: "last" in world.holds())
        assert world.holds()["changed"] == "1", "it went on behind the loss"
        assert set(world.holds()) == {"kept", "changed", "deleted", "last"}
        await until(world.same, within=300)
        await until(lambda: bool(process.observer.of("gap_closed")))
        (job,) = await jobs.rows.jobs()
        assert (job.kind, job.state, job.targets) == (JobKind.RESYNC, JobState.DONE, (id_of("orders/eu"),))
        assert process.observer.of("gap_closed") == [("orders/eu", "s0", job.job_id)]
        assert await world.registry.open_gaps() == []
        assert world.registry.resyncs == {world.registry.gaps[0].gap_id: job.job_id}
        await until(lambda: process.observer.unrepaired == {})


async def test_until_it_is_repaired_a_loss_is_open_and_names_its_job() -> None:
    world = World()
    jobs = JobWorldOf(world)
    await away(world, jobs)
    del jobs.kinds[JobKind.RESYNC]
    async with jobs.process(RESYNC) as process:
        await until(lambda: bool(world.registry.resyncs))
        ((gap, job_id),) = [(each.gap, each.job) for each in await world.registry.open_gaps()]
        assert gap.target_id == id_of("orders/eu")
        assert [job.job_id for job in await jobs.rows.jobs()] == [job_id]
        assert process.observer.unrepaired == {id_of("orders/eu"): 1}


async def test_several_workers_ask_for_one_repair() -> None:
    world = World()
    jobs = JobWorldOf(world)
    await away(world, jobs)
    async with jobs.process(RESYNC), jobs.process(RESYNC), jobs.process(RESYNC):
        await until(world.same, within=300)
        await until(lambda: len(world.registry.resyncs) == 1)
        await asyncio.sleep(60)
        assert len(await jobs.rows.jobs()) == 1


@pytest.mark.parametrize(("days", "passes"), [(2, True), (7, False)])
async def test_a_mesh_that_lost_more_than_tombstones_live_for_is_not_repaired(days: int, passes: bool) -> None:
    world = MeshWorld(VERSIONED)
    rules = [world.rule(region, on_gap=OnGap.RESYNC) for region in world.names]
    for number in range(3):
        world[US].put(f"k{number}", 1, ver=1)
    async with world.process(*rules):
        await until(lambda: world.stored(US) == "3")
    await asyncio.sleep(days * 86_400)
    for number in range(3):
        world[US].put(f"k{number}", 2, ver=2)
    world.streams[US].trim(world.refs[US], S0, keep=1)
    async with world.process(*rules) as process:
        await until(lambda: bool(world.registry.gaps))
        await asyncio.sleep(30)
        assert bool(process.observer.of("gap_passed")) == passes
        assert (world[EU].value("k2") == "2") == passes

        assert passes or any("cannot be repaired" in str(event) for event in process.observer.told)
