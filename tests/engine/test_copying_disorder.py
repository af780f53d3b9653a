"""The engine with its jobs, under seeded disorder: old items, writers, damage, and processes that are killed."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from random import Random

import pytest

from replicator.domain.image import Image, stamped
from replicator.domain.jobs import JobKind, JobState, parts_of
from tests.engine.job_world import JobWorldOf, job
from tests.engine.world import EU, ORDERS, US, World, image, key_of, until

KEYS = [f"k{number:02d}" for number in range(24)]
TABLES = parts_of([(US, ORDERS), (EU, ORDERS)], 2)


async def written(world: World, dice: Random, count: int) -> None:
    """Users put, delete and create again."""
    for number in range(count):
        name = dice.choice(KEYS)
        if dice.random() < 0.4 and key_of(name) in world.source.items:
            world.delete(name)
        else:
            world.put(name, f"{name} {number} {dice.random()}")
        await asyncio.sleep(dice.random())


def damage(world: World, dice: Random) -> None:
    """What another program does to a replica."""
    for name in dice.sample(KEYS, 8):
        item = world.region.item(key_of(name))
        stamp = None if item is None else item.stamp
        choices: list[Image | None] = [image(name, "foreign"), None]
        if stamp is not None:
            choices.append(Image(stamped(image(name, "changed"), stamp)))
        world.region.write_foreign(key_of(name), dice.choice(choices))


async def ended_in_spite_of_kills(jobs: JobWorldOf, dice: Random, job_id: str, work: asyncio.Task[None]) -> None:
    """Two processes work; at some moment one is killed and another one begins."""
    async with AsyncExitStack() as stack:
        first = await stack.enter_async_context(jobs.process())
        await stack.enter_async_context(jobs.process())
        await asyncio.sleep(dice.uniform(0, 12))
        await first.kill()
        await stack.enter_async_context(jobs.process())
        assert (await jobs.ended(job_id)).state is JobState.DONE
        await work
        await until(jobs.world.same)


async def disorder(seed: int) -> None:
    dice, world = Random(seed), World()
    jobs = JobWorldOf(world, page_items=3, seed=seed)
    for name in dice.sample(KEYS, 16):
        world.source.items[key_of(name)] = image(name, f"{name} old")
    await jobs.rows.create(job(options={"verify": False}, segments=3))
    await ended_in_spite_of_kills(jobs, dice, "a1", asyncio.create_task(written(world, dice, 40)))
    damage(world, dice)
    assert await jobs.rows.create(job(JobKind.REPAIR, parts=TABLES, job_id="r", options={"extra": "delete"})) is None
    await ended_in_spite_of_kills(jobs, dice, "r", asyncio.create_task(written(world, dice, 20)))
    assert await jobs.rows.create(job(JobKind.VERIFY, parts=TABLES, job_id="v")) is None
    async with jobs.process():
        over = await jobs.ended("v")
    assert (over.state, over.counts.get("differences", 0), over.counts.get("moving", 0)) == (JobState.DONE, 0, 0)


@pytest.mark.parametrize("seed", range(3))
async def test_old_items_arrive_and_damage_is_mended_while_users_write_and_processes_die(seed: int) -> None:
    await disorder(seed)


@pytest.mark.long
@pytest.mark.parametrize("seed", range(3, 15))
async def test_old_items_arrive_and_damage_is_mended_in_more_disorder(seed: int) -> None:
    await disorder(seed)
