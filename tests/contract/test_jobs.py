"""Jobs and their segments, in memory and in a table: one job on a target, positions under the epoch."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from replicator.adapters.dynamodb.coordination import CoordinationTable, DynamoJobs
from replicator.domain.errors import LeaseLost
from replicator.domain.identifiers import RegionId, RuleName, TableName, WorkerId
from replicator.domain.jobs import Job, JobKind, JobState, Part, Segment, all_segments
from replicator.domain.targets import replica_id
from replicator.domain.values import replace
from replicator.laboratory.memory import MemoryJobs
from replicator.ports.jobs import Jobs
from tests.contract.conftest import WORLDS
from tests.contract.worlds import create_table, fresh, place

ME, YOU = WorkerId("me"), WorkerId("you")
EU, AP = (replica_id(RuleName("orders"), RegionId(region), TableName("orders")) for region in ("eu", "ap"))
JOB = Job(
    job_id="a1",
    kind=JobKind.BOOTSTRAP,
    rule=RuleName("orders"),
    table=TableName("orders"),
    targets=(EU, AP),
    parts=(Part("us:orders", 2), Part("eu:orders", 100, (3, 70))),
    options={"extra": "list", "write_units": {"eu": 100}},
    by="ann",
    created_at=1000.5,
    items=7,
)
FIRST = all_segments(JOB, ())[0]


@pytest.fixture(params=WORLDS)
async def jobs(request: pytest.FixtureRequest) -> AsyncIterator[Jobs]:
    if request.param == "memory":
        yield MemoryJobs()
        return
    async with place(request.getfixturevalue("dynamodb_url")) as opened:
        table = fresh("coordination")
        await create_table(opened.dynamodb, table, {"pk": "S", "sk": "S"})
        yield DynamoJobs(CoordinationTable(opened.dynamodb, table=table, group="test", region_id="us"))


async def held(jobs: Jobs, owner: WorkerId = ME) -> Segment:
    claimed = await jobs.claim(FIRST, owner)
    assert claimed is not None
    return claimed


async def test_a_job_is_read_as_it_was_stored(jobs: Jobs) -> None:
    assert await jobs.create(JOB) is None
    assert await jobs.jobs() == [JOB]
    assert await jobs.segments("a1") == []


async def test_the_same_job_again_changes_nothing(jobs: Jobs) -> None:
    await jobs.create(JOB)
    await jobs.change(JOB, JobState.PAUSED, note="rests")
    assert await jobs.create(JOB) is None
    assert [job.state for job in await jobs.jobs()] == [JobState.PAUSED]


async def test_a_second_job_on_a_target_is_refused_until_the_first_is_over(jobs: Jobs) -> None:
    await jobs.create(JOB)
    second = replace(JOB, job_id="b2", kind=JobKind.REPAIR, targets=(AP,), created_at=2000.0)
    assert await jobs.create(second) == JOB
    assert await jobs.jobs() == [JOB]
    assert await jobs.end(JOB, JobState.DONE, at=1500.0, counts={"items": 7})
    assert await jobs.create(second) is None
    assert [(job.job_id, job.state) for job in await jobs.jobs()] == [("a1", JobState.DONE), ("b2", JobState.RUNNING)]


async def test_a_sweep_hinders_none_but_another_sweep(jobs: Jobs) -> None:
    sweep = replace(JOB, job_id="s1", kind=JobKind.SWEEP)
    await jobs.create(sweep)
    assert await jobs.create(JOB) is None
    assert await jobs.create(replace(sweep, job_id="s2")) == sweep


async def test_one_worker_of_two_gets_a_segment(jobs: Jobs) -> None:
    mine = await held(jobs)
    assert (mine.owner, mine.epoch, mine.position, mine.of) == (ME, 1, None, 2)
    assert await jobs.claim(FIRST, YOU) is None
    taken = await jobs.claim(mine, YOU)
    assert taken is not None
    assert (taken.owner, taken.epoch) == (YOU, 2)


async def test_a_position_is_stored_with_its_counts(jobs: Jobs) -> None:
    mine = await held(jobs)
    stored = await jobs.save(mine, '{"pk":{"S":"a"}}', {"items": 3, "units": 1.5})
    assert await jobs.segments("a1") == [stored]
    assert (stored.position, stored.counts, stored.done) == ('{"pk":{"S":"a"}}', {"items": 3, "units": 1.5}, False)


async def test_a_worker_that_lost_a_segment_stores_nothing(jobs: Jobs) -> None:
    mine = await held(jobs)
    taken = await jobs.claim(mine, YOU)
    assert taken is not None
    with pytest.raises(LeaseLost):
        await jobs.save(mine, "x", {"items": 1})
    await jobs.release(mine)
    assert await jobs.segments("a1") == [taken]


async def test_a_segment_that_is_given_back_keeps_its_position(jobs: Jobs) -> None:
    mine = await held(jobs)
    await jobs.save(mine, "x", {"items": 1})
    await jobs.release(mine)
    (free,) = await jobs.segments("a1")
    assert (free.owner, free.position) == (None, "x")
    assert (await jobs.claim(free, YOU)) == replace(free, owner=YOU, epoch=2)


async def test_a_segment_that_is_done_is_claimed_no_more(jobs: Jobs) -> None:
    mine = await held(jobs)
    done = await jobs.save(mine, None, {"items": 1}, done=True)
    assert (done.owner, done.done) == (None, True)
    assert await jobs.claim(done, YOU) is None


async def test_a_state_changes_only_from_the_one_that_was_seen(jobs: Jobs) -> None:
    await jobs.create(JOB)
    assert await jobs.change(JOB, JobState.PAUSED, note="rests")
    assert not await jobs.change(JOB, JobState.PAUSED)
    assert not await jobs.end(JOB, JobState.DONE, at=1.0, counts={})
    (seen,) = await jobs.jobs()
    assert (seen.state, seen.note) == (JobState.PAUSED, "rests")
    assert await jobs.end(seen, JobState.CANCELLED, at=2000.25, counts={"items": 2}, note="by ann")
    (over,) = await jobs.jobs()
    assert (over.state, over.ended_at, over.counts, over.note) == (JobState.CANCELLED, 2000.25, {"items": 2}, "by ann")


async def test_segments_of_a_job_that_is_over_are_gone_and_its_notes_stay(jobs: Jobs) -> None:
    await jobs.create(JOB)
    await held(jobs)
    await jobs.note("a1", {"b": {"kind": "missing"}, "a": 1})
    await jobs.note("a1", {"a": 2})
    await jobs.end(JOB, JobState.DONE, at=1.0, counts={})
    assert await jobs.segments("a1") == []
    assert await jobs.notes("a1") == [("a", 2), ("b", {"kind": "missing"})]
    assert await jobs.notes("a1", 1) == [("a", 2)]
    await jobs.forget("a1")
    assert (await jobs.jobs(), await jobs.notes("a1")) == ([], [])


async def test_what_follows_a_job_takes_its_targets_in_the_same_moment(jobs: Jobs) -> None:
    await jobs.create(JOB)
    follows = replace(JOB, job_id="a1-verify", kind=JobKind.VERIFY, created_at=2000.0)
    assert await jobs.end(JOB, JobState.DONE, at=1500.0, counts={}, follows=follows)
    assert [job.job_id for job in await jobs.jobs() if job.state.is_open] == ["a1-verify"]
    assert await jobs.create(replace(JOB, job_id="c3", created_at=3000.0)) == follows
    assert not await jobs.end(JOB, JobState.DONE, at=1600.0, counts={}, follows=follows), "once"


async def test_targets_of_a_bootstrap_that_is_done_are_filled(jobs: Jobs) -> None:
    await jobs.create(JOB)
    await jobs.end(JOB, JobState.CANCELLED, at=1.0, counts={})
    assert await jobs.filled() == {}
    again = replace(JOB, job_id="b2")
    await jobs.create(again)
    await jobs.end(again, JobState.DONE, at=1500.25, counts={})
    assert await jobs.filled() == {EU: 1500.25, AP: 1500.25}
