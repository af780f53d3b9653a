"""Jobs shared out among workers: every page is done, none twice but for a kill, and operators are obeyed."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest

from replicator.domain.errors import Unreachable
from replicator.domain.jobs import Counts, Job, JobKind, JobState, Segment
from replicator.engine.copying.applied import Followed
from replicator.engine.copying.handlers import JobContext, JobImpossible, Look
from replicator.engine.limits import Limits
from replicator.ports.targets import Fence
from tests.engine.job_world import JobWorldOf, job
from tests.engine.world import ORDERS, US, World, hold, until

PLACE = f"{US}:{ORDERS}"


@dataclass
class Deeds:
    """What handlers of all processes did."""

    acted: Counter[str] = field(default_factory=Counter)
    """How often each item was acted on, by key."""
    followed: bool = False
    seconds: float = 0.0
    fails: list[BaseException] = field(default_factory=list)
    """What the next acts raise."""
    follow_up: Job | None = None


class Counting:
    """A handler that counts the items of a scan."""

    def __init__(self, context: JobContext, deeds: Deeds) -> None:
        self.context, self.deeds = context, deeds

    @property
    def follows(self) -> Sequence[Followed]:
        rule = self.context.rules[0]
        return [(rule, target) for target in rule.targets] if self.deeds.followed else []

    async def look(self, segment: Segment, position: str | None) -> Look:
        page = await self.context.regions[PLACE].scan(segment.index, segment.of, position)
        return Look(page.after, page.at, page, {"items": len(page.items)})

    async def act(self, segment: Segment, look: Look, fence: Fence) -> Counts:
        await asyncio.sleep(self.deeds.seconds)
        fence.check()
        if self.deeds.fails:
            raise self.deeds.fails.pop()
        self.deeds.acted.update(item.key.parts[0][2] for item in look.work.items)
        return {"done": len(look.work.items)}

    async def finish(self, job: Job, counts: Counts) -> Job | None:
        return self.deeds.follow_up


def counting(deeds: Deeds) -> JobWorldOf:
    """A hundred items, and jobs that count them."""
    world = World()
    world.write([f"k{number}" for number in range(100)])
    jobs = JobWorldOf(world)
    jobs.kinds[JobKind.BOOTSTRAP] = lambda context: Counting(context, deeds)
    jobs.kinds[JobKind.SWEEP] = lambda context: Counting(context, deeds)
    return jobs


async def test_every_page_is_done_once_and_the_job_ends_with_its_counts() -> None:
    deeds = Deeds()
    jobs = counting(deeds)
    await jobs.rows.create(job())
    async with jobs.process(), jobs.process():
        over = await jobs.ended()
    assert over.state is JobState.DONE
    assert (over.counts["items"], over.counts["done"], over.counts["read_units"]) == (100, 100, 100)
    assert (len(deeds.acted), set(deeds.acted.values())) == (100, {1})


async def test_workers_share_the_segments() -> None:
    deeds = Deeds(seconds=1.0)
    jobs = counting(deeds)
    await jobs.rows.create(job(segments=8))
    async with jobs.process(), jobs.process():
        await jobs.ended()
    owners = Counter(str(segment.owner).partition(".")[0] for segment in jobs.rows.saves if segment.owner)
    assert set(owners) == {"p1", "p2"}, "segments that were in the middle"


async def test_a_killed_worker_costs_one_page_per_segment_that_it_was_in() -> None:
    deeds = Deeds(seconds=1.0)
    jobs = counting(deeds)
    await jobs.rows.create(job(segments=2))
    async with jobs.process() as first, jobs.process():
        await until(lambda: len(jobs.rows.saves) >= 4)
        await first.kill()
        over = await jobs.ended()
    assert over.counts["items"] == 100
    assert set(deeds.acted) == {f"k{number}" for number in range(100)}
    assert sum(deeds.acted.values()) <= 100 + 10, "one page of one segment"


async def test_a_segment_whose_position_could_not_be_stored_is_done_again() -> None:
    deeds = Deeds()
    jobs = counting(deeds)
    await jobs.rows.create(job())
    jobs.rows.faults.script(*[None] * 8)
    async with jobs.process():
        await until(lambda: bool(jobs.rows.saves))
        jobs.rows.faults.outage = Unreachable
        await asyncio.sleep(30)
        jobs.rows.faults.outage = None
        over = await jobs.ended()
    assert over.counts["items"] == 100
    assert set(deeds.acted) == {f"k{number}" for number in range(100)}


async def test_a_fault_of_one_page_ends_neither_the_worker_nor_the_job() -> None:
    deeds = Deeds(fails=[ZeroDivisionError("a bug"), Unreachable("away")])
    jobs = counting(deeds)
    await jobs.rows.create(job())
    async with jobs.process() as process:
        over = await jobs.ended()
        assert process.observer.of("service_failed")
        assert not process.observer.troubles
    assert (over.state, over.counts["items"]) == (JobState.DONE, 100)


async def test_what_cannot_be_done_fails_and_says_why() -> None:
    deeds = Deeds(fails=[JobImpossible("It is too old.", advice="Make a new one.")])
    jobs = counting(deeds)
    await jobs.rows.create(job(segments=1))
    async with jobs.process():
        over = await jobs.ended()
    assert (over.state, over.note) == (JobState.FAILED, "It is too old. Make a new one.")


async def test_a_paused_job_rests_behind_the_page_in_hand_and_goes_on_where_it_was() -> None:
    deeds = Deeds(seconds=1.0)
    jobs = counting(deeds)
    running = job(segments=1)
    await jobs.rows.create(running)
    async with jobs.process():
        await until(lambda: len(jobs.rows.saves) >= 2)
        await jobs.rows.change(running, JobState.PAUSED)
        await asyncio.sleep(10)
        done = sum(deeds.acted.values())
        await asyncio.sleep(60)
        assert sum(deeds.acted.values()) == done < 100
        (resting,) = await jobs.rows.jobs()
        await jobs.rows.change(resting, JobState.RUNNING)
        await jobs.ended()
    assert (len(deeds.acted), set(deeds.acted.values())) == (100, {1})


async def test_nothing_is_done_about_a_look_before_the_stream_has_passed_it() -> None:
    deeds = Deeds(followed=True)
    jobs = counting(deeds)
    async with jobs.process():
        await until(jobs.world.same)
        gate = hold(jobs.world.region.faults, "GuardedPut")
        jobs.world.put("late", 1)
        await jobs.rows.create(job(segments=1))
        await until(lambda: jobs.scans[US].pages >= 1)
        await asyncio.sleep(30)
        assert not deeds.acted, "the replica is behind"
        gate.set()
        await jobs.ended()
    assert sum(deeds.acted.values()) == 101


async def test_a_job_rests_while_it_is_not_known_how_far_the_stream_is() -> None:
    deeds = Deeds(followed=True)
    jobs = counting(deeds)
    await jobs.rows.create(job(segments=1))
    gate = hold(jobs.world.region.faults, "GuardedPut")
    async with jobs.process():
        await asyncio.sleep(30)
        assert jobs.scans[US].pages == 0
        gate.set()
        await jobs.ended()


async def test_pages_in_flight_are_bounded() -> None:
    deeds = Deeds(followed=True)
    jobs = counting(deeds)
    await jobs.rows.create(job(segments=1))
    async with jobs.process(limits=Limits(job_pages=3)):
        await until(lambda: jobs.scans[US].pages >= 3)
        await asyncio.sleep(2)
        assert jobs.scans[US].pages == 3
        await jobs.ended()


async def test_a_sweep_gives_way_to_a_job_on_its_target() -> None:
    deeds = Deeds(seconds=1.0)
    jobs = counting(deeds)
    await jobs.rows.create(job(JobKind.SWEEP, job_id="s1", segments=1))
    async with jobs.process():
        await until(lambda: bool(jobs.rows.saves))
        await jobs.rows.create(job(job_id="b2", segments=1, created_at=1.0))
        await jobs.ended("b2")
        assert await jobs.state("s1") is JobState.RUNNING
        await jobs.ended("s1")
    names = [segment.job_id for segment in jobs.rows.saves]
    first = names.index("b2")
    assert names[first : first + 9].count("s1") <= 1, "the page in hand, and no other one"


async def test_the_job_that_follows_is_there_when_one_is_over() -> None:
    deeds = Deeds(follow_up=job(JobKind.SWEEP, job_id="a1-next"))
    jobs = counting(deeds)
    await jobs.rows.create(job())
    async with jobs.process():
        await jobs.ended()
        assert [each.job_id for each in await jobs.rows.jobs()] == ["a1", "a1-next"]


async def test_a_worker_that_stops_gives_its_segments_back() -> None:
    deeds = Deeds(seconds=1.0)
    jobs = counting(deeds)
    await jobs.rows.create(job(segments=2))
    async with jobs.process() as process:
        await until(lambda: bool(jobs.rows.saves))
        await process.drain()
    assert [segment.owner for segment in await jobs.rows.segments("a1")] == [None, None]


async def test_progress_has_a_rate_and_an_end() -> None:
    deeds = Deeds(seconds=1.0)
    jobs = counting(deeds)
    await jobs.rows.create(job(segments=1))
    async with jobs.process() as process:
        await until(lambda: len(jobs.rows.saves) >= 5)
        seen = process.observer.progress["a1"]
        assert seen.rate == pytest.approx(10, rel=0.5)
        assert seen.eta_seconds == pytest.approx((seen.total - seen.items) / seen.rate)
