"""Bootstrap of mode `ordered` beside a living stream: all arrives, and nothing newer is undone."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from replicator.domain.errors import Unreachable
from replicator.domain.filters import Equals, Filter
from replicator.domain.identifiers import RuleName
from replicator.domain.jobs import JobKind, JobState
from replicator.domain.rules import Start
from replicator.domain.versions import generation_in, sequence_of
from replicator.engine.limits import Limits
from replicator.laboratory.memory.faults import Fault
from tests.engine.job_world import JobWorldOf, job
from tests.engine.world import EU, US, World, cache_rule, eu_rule, image, key_of, rule, target, until

ALONE = {"verify": False}


def old(world: World, names: Iterable[str], value: object = "old") -> None:
    """Items from before the stream: no record shows them."""
    for name in names:
        world.source.items[key_of(name)] = image(name, value)


def filled(*shards: str, items: int = 100) -> World:
    world = World(*shards)
    old(world, [f"k{number}" for number in range(items)])
    return world


async def test_what_was_there_before_the_stream_arrives_below_every_record() -> None:
    world = filled("s0", "s1")
    jobs = JobWorldOf(world)
    await jobs.rows.create(job(options=ALONE))
    async with jobs.process(), jobs.process():
        over = await jobs.ended()
        assert world.same()
    assert over.state is JobState.DONE
    assert (over.counts["items"], over.counts["copied"]) == (100, 100)
    stamps = {item.stamp for _, item in world.region.items()}
    assert [(sequence_of(str(stamp)), generation_in(str(stamp))) for stamp in stamps] == [(0, world.ref.generation)]


async def test_writes_deletes_and_creations_meanwhile_stand() -> None:
    world = filled(items=200)
    jobs = JobWorldOf(world, page_items=5)
    await jobs.rows.create(job(options=ALONE))
    async with jobs.process(), jobs.process():
        for number in range(0, 198, 3):
            world.put(f"k{number}", "new")
            world.delete(f"k{number + 1}")
            world.put(f"n{number}", "created")
            await asyncio.sleep(0.3)
        await jobs.ended()
        await until(world.same)


async def test_a_killed_worker_and_an_outage_cost_no_item() -> None:
    world = filled(items=200)
    jobs = JobWorldOf(world, page_items=5)
    await jobs.rows.create(job(options=ALONE))
    async with jobs.process(limits=Limits(job_pages=2)) as first, jobs.process(limits=Limits(job_pages=2)):
        await until(lambda: len(jobs.rows.saves) >= 4)
        await first.kill()
        for faults in (jobs.rows.faults, world.coordination.faults, world.membership.faults):
            faults.outage = Unreachable
        await asyncio.sleep(30)
        for faults in (jobs.rows.faults, world.coordination.faults, world.membership.faults):
            faults.outage = None
        over = await jobs.ended()
        assert world.same()
    assert over.counts["items"] == 200


async def test_an_item_deleted_behind_the_look_does_not_show_again() -> None:
    world = filled(items=10)
    jobs = JobWorldOf(world)
    shown: list[bool] = []
    async with jobs.process():
        await asyncio.sleep(30)
        await jobs.rows.create(job(segments=1, options=ALONE))
        await until(lambda: jobs.scans[US].pages >= 1)
        world.delete("k1")
        while not (await jobs.rows.jobs())[0].ended_at:
            shown.append("k1" in world.holds())
            await asyncio.sleep(0.2)
        assert world.same()
    assert not any(shown), "the page waited until the delete had passed, so its tombstone refused the item"


async def test_what_the_filter_keeps_out_is_not_copied() -> None:
    world = World()
    old(world, "ab", "wanted")
    old(world, "cd", "other")
    jobs = JobWorldOf(world)
    await jobs.rows.create(job(options=ALONE))
    async with jobs.process(eu_rule(filter=Filter(equals=(Equals("value", "wanted"),)))):
        over = await jobs.ended()
    assert world.holds() == {"a": "wanted", "b": "wanted"}
    assert (over.counts["copied"], over.counts["filtered"]) == (2, 2)


async def test_a_foreign_item_is_adopted_and_kept_in_the_log() -> None:
    world = filled(items=3)
    world.region.write_foreign(key_of("k1"), image("k1", "foreign"))
    jobs = JobWorldOf(world)
    await jobs.rows.create(job(options=ALONE))
    async with jobs.process():
        over = await jobs.ended()
    assert world.same()
    assert over.counts["adopted"] == 1
    (entry,) = world.conflicts.entries(RuleName("orders"))
    assert entry.conflict.loser == image("k1", "foreign")


async def test_what_the_replica_refuses_is_said_and_the_rest_is_copied() -> None:
    world = filled(items=20)
    jobs = JobWorldOf(world)
    await jobs.rows.create(job(options=ALONE))
    world.region.poison(key_of("k3"), "too large")
    async with jobs.process():
        over = await jobs.ended()
    assert (over.counts["copied"], over.counts["refused"]) == (19, 1)
    ((_, said),) = await jobs.rows.notes("a1")
    assert said["key"] == {"pk": {"S": "k3"}}


async def test_a_bootstrap_is_followed_by_a_verification() -> None:
    world = filled(items=3)
    jobs = JobWorldOf(world)
    await jobs.rows.create(job(options={"extra": "list", "segments": 4, "compared": ["us:orders", "eu:orders"]}))
    async with jobs.process():
        await jobs.ended()
    follows = (await jobs.rows.jobs())[-1]
    assert (follows.job_id, follows.kind) == ("a1-verify", JobKind.VERIFY)
    assert follows.options == {"extra": "list", "of": "a1"}
    assert [(part.name, part.segments) for part in follows.parts] == [("us:orders", 4), ("eu:orders", 4)]


async def test_a_rule_that_starts_at_the_latest_is_filled_too() -> None:
    world = filled(items=20)
    jobs = JobWorldOf(world)
    await jobs.rows.create(job(options=ALONE))
    async with jobs.process(eu_rule(start=Start.LATEST)):
        world.put("k3", "new")
        await jobs.ended()
        await until(world.same)


async def test_a_page_that_a_stop_interrupts_is_no_trouble() -> None:
    world = filled(items=20)
    jobs = JobWorldOf(world)
    async with jobs.process() as process:
        await asyncio.sleep(30)
        world.region.faults.outage = Unreachable
        await jobs.rows.create(job(segments=1, options=ALONE))
        await until(lambda: jobs.scans[US].pages >= 1)
        await asyncio.sleep(20)
        await process.drain()
        assert not [event for event in process.observer.of("service_failed") if "job" in event[0]]


async def test_a_small_budget_makes_small_pages_so_that_little_is_in_hand_and_nothing_starves() -> None:
    world = filled(items=120)
    jobs = JobWorldOf(world, page_items=1000, write_units=8)
    await jobs.rows.create(job(segments=2, options=ALONE))
    spent: list[int] = []

    async def rests() -> None:
        """How much is done while the job is to rest, until nothing is in hand any more."""
        before = len(world.holds())
        assert await jobs.rows.change((await jobs.rows.jobs())[0], JobState.PAUSED)
        held = await jobs.rows.segments("a1")
        async with asyncio.timeout(20):
            while any(segment.owner is not None for segment in held):
                held = await jobs.rows.segments("a1")
                await asyncio.sleep(0.5)
        done = len(world.holds())
        spent.append(done - before)
        await asyncio.sleep(60)
        assert len(world.holds()) == done == sum(segment.counts["items"] for segment in held), "nothing is repeated"
        assert await jobs.rows.change((await jobs.rows.jobs())[0], JobState.RUNNING)

    async with jobs.process():
        await until(lambda: len(world.holds()) >= 20)
        await rests()
        await until(lambda: len(world.holds()) >= 60)
        await rests()
        over = await jobs.ended()
        assert world.same()
    assert over.counts["items"] == over.counts["copied"] == 120
    assert max(spent) <= 20, "a few seconds of eight units, four to an item"
    assert 12 <= len(jobs.rows.saves) <= 60


async def test_no_cache_keeps_what_it_held_before_an_item_came_also_when_a_page_was_cut_off() -> None:
    world = filled(items=30)
    jobs, cache = JobWorldOf(world), world.caches["eu_main"]
    cache.entries |= {f"o:k{number}": b"T:" for number in range(30)}
    await jobs.rows.create(job(options=ALONE))
    world.region.faults.script(*[Fault.AFTER] * 5)
    async with jobs.process(rule("orders", target("orders", EU, cache_rule("eu_main", EU, template="o:{pk}")))):
        over = await jobs.ended()
        assert world.same()
    assert over.counts["newer"] == 5
    assert not cache.entries
