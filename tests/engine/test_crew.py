"""How many workers a page has: few where answers come at once, all that are allowed where they take long."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from replicator.domain.coalescing import Run
from replicator.engine.applying.crew import FEW, Crew
from replicator.engine.applying.jobs import Job, Jobs
from tests.engine.world import key_of

MOST = 256


class Page:
    """Jobs that take a while, and how many were at it at once."""

    def __init__(self, count: int, each: Callable[[int], Awaitable[None]]) -> None:
        runs = [Run(key_of(f"k{number}"), ()) for number in range(count)]
        self.jobs = Jobs(Job([run], run) for run in runs)
        self.crew = Crew(self.jobs, self._work, most=MOST)
        self.done = self.now = self.at_once = 0
        self._each = each

    async def _work(self) -> None:
        while self.jobs:
            self.jobs.next()
            self.now += 1
            self.at_once = max(self.at_once, self.now)
            await self._each(self.jobs.begun)
            self.now -= 1
            self.done += 1


async def test_answers_that_come_at_once_are_dealt_with_by_few_workers() -> None:
    page = Page(5000, lambda _: asyncio.sleep(0.002))
    await page.crew.run(FEW)
    assert (page.done, page.at_once) == (5000, FEW)


async def test_answers_that_take_long_are_awaited_by_all_that_are_allowed() -> None:
    page = Page(1000, lambda _: asyncio.sleep(0.1))
    began = asyncio.get_running_loop().time()
    await page.crew.run(FEW)
    assert (page.done, page.at_once) == (1000, MOST)
    assert asyncio.get_running_loop().time() - began < 1000 / MOST * 0.1 + 0.2


async def test_a_moment_without_answers_brings_no_workers() -> None:
    loop = asyncio.get_running_loop()
    began = loop.time()

    async def each(_: int) -> None:
        now = loop.time() - began
        await asyncio.sleep(0.155 - now if 0.1 <= now < 0.155 else 0.002)

    page = Page(10_000, each)
    await page.crew.run(FEW)
    assert (page.done, page.at_once) == (10_000, FEW)


async def test_jobs_that_hang_keep_no_others_from_being_begun() -> None:
    async def each(number: int) -> None:
        await asyncio.sleep(60 if number <= FEW else 0.001)

    page = Page(1000, each)
    async with asyncio.TaskGroup() as group:
        group.create_task(page.crew.run(FEW))
        await asyncio.sleep(1)
        assert page.done == 1000 - FEW


@pytest.mark.parametrize("fails", [True, False])
async def test_no_worker_follows_when_one_has_failed_or_all_are_cancelled(fails: bool) -> None:
    begun = 0

    async def each(number: int) -> None:
        nonlocal begun
        begun += 1
        try:
            await asyncio.sleep(0.001 if fails and number == 1 else 60)
            raise LookupError
        except asyncio.CancelledError:
            await asyncio.sleep(1)  # what it holds is given back
            raise

    running = asyncio.ensure_future(Page(1000, each).crew.run(FEW))
    if not fails:
        await asyncio.sleep(0.01)
        running.cancel()
    assert len(await asyncio.gather(running, return_exceptions=True)) == 1
    assert begun == FEW
