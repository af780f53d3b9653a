"""Jobs as operators see and steer them; the work itself is done by workers, for any caller."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from replicator.domain.errors import Disposition, ReplicatorError
from replicator.domain.jobs import Job, JobKind, JobProgress, JobState, all_segments, progress_of
from replicator.domain.values import replace
from replicator.operations.errors import NotThere, RequestRefused
from replicator.operations.group import ALIVE, Group
from replicator.operations.times import moment

if TYPE_CHECKING:
    from datetime import datetime

    from replicator.domain.identifiers import RuleName, TableName
    from replicator.domain.targets import TargetId

LOOK_SECONDS = 1.0
"""Time between two looks at a job that is followed."""

_LEAST_OF_ID = 4


@dataclass(frozen=True, slots=True)
class ListedJob:
    """A job and how far it is. Rate and time left are known only to what follows it for a while."""

    job: str
    kind: JobKind
    rule: RuleName
    table: TableName
    targets: Sequence[TargetId]
    state: JobState
    note: str
    by: str
    created_at: datetime | None
    ended_at: datetime | None
    items: int
    items_expected: int
    segments: int
    segments_done: int
    segments_owned: int
    counts: Mapping[str, float]
    options: Mapping[str, Any]
    items_per_second: float | None = None
    eta_seconds: float | None = None


def listed(progress: JobProgress) -> ListedJob:
    """A job as it is shown."""
    job = progress.job
    return ListedJob(
        job=job.job_id,
        kind=job.kind,
        rule=job.rule,
        table=job.table,
        targets=job.targets,
        state=job.state,
        note=job.note,
        by=job.by,
        created_at=moment(job.created_at),
        ended_at=moment(job.ended_at),
        items=round(progress.items),
        items_expected=round(progress.total),
        segments=job.segments,
        segments_done=progress.done,
        segments_owned=progress.owners,
        counts={name: round(count, 1) for name, count in sorted(progress.counts.items())},
        options=job.options,
        items_per_second=None if progress.rate is None else round(progress.rate, 1),
        eta_seconds=None if progress.eta_seconds is None else round(progress.eta_seconds),
    )


def new_job_id(kind: JobKind) -> str:
    """An id that no other job has."""
    return f"{kind}-{secrets.token_hex(4)}"


async def submit(group: Group, job: Job) -> Job:
    """Store a job, so that workers begin with it; refused beside another one on one of its targets.

    It closes what was lost before it was asked for, so it is not dated later than it is.
    """
    job = replace(job, created_at=(await group.time()).earliest())
    other = await group.jobs.create(job)
    if other is not None:
        raise RequestRefused(
            f"Job {other.job_id} ({other.kind}, {other.state}) is at work on a target of rule {job.rule}.",
            advice=f"Wait for it (`replicator jobs show {other.job_id} --watch`), or end it"
            f" (`replicator jobs cancel {other.job_id}`).",
        )
    return job


async def progress(group: Group, job: Job, before: JobProgress | None = None) -> JobProgress:
    """How far a job is; with a rate if it was seen before."""
    stored = await group.jobs.segments(job.job_id) if job.state.is_open else []
    return progress_of(job, all_segments(job, stored), time.monotonic(), before)


async def list_jobs(group: Group, rule: str | None = None, *, everything: bool = False) -> list[ListedJob]:
    """Jobs that are not over, of a rule if one is named; `everything`: those that are over, too. Oldest first."""
    jobs = [job for job in await group.jobs.jobs() if rule in {None, job.rule} and (everything or job.state.is_open)]
    return [listed(await progress(group, job)) for job in jobs]


def with_rates(jobs: Sequence[ListedJob], daemons: Mapping[str, Mapping[str, Any]]) -> list[ListedJob]:
    """The same with the rates and times left that workers have seen; `daemons`: what they say, by worker."""
    seen = {job["job"]: job for daemon in daemons.values() for job in daemon.get("jobs", ())}
    return [
        replace(
            job,
            items_per_second=seen.get(job.job, {}).get("items_per_second"),
            eta_seconds=seen.get(job.job, {}).get("eta_seconds"),
        )
        for job in jobs
    ]


async def job_named(group: Group, job_id: str) -> Job:
    """The job with this id, or the only one whose id begins so."""
    jobs = await group.jobs.jobs()
    exact = [job for job in jobs if job.job_id == job_id]
    found = exact or [job for job in jobs if len(job_id) >= _LEAST_OF_ID and job.job_id.startswith(job_id)]
    if len(found) > 1:
        raise RequestRefused(f"{len(found)} jobs begin with {job_id}.", advice="Write more of the id.")
    if not found:
        raise NotThere(f"There is no job {job_id}.", advice="`replicator jobs list --all` lists them.")
    return found[0]


async def follow(group: Group, job_id: str, tell: Callable[[JobProgress], None]) -> Job:
    """The job when it is over; `tell` is given how far it is about once a second. Outages are waited out."""
    before: JobProgress | None = None
    troubled = False
    while True:
        try:
            job = await job_named(group, job_id)
            before = await progress(group, job, before)
            troubled = False
        except ReplicatorError as error:
            if error.disposition is not Disposition.RETRY:
                raise
            if not troubled:
                group.announce(
                    f"{error.message} The job continues; its progress is shown when the table answers again."
                )
            troubled = True
        else:
            tell(before)
            if not job.state.is_open:
                return job
        await asyncio.sleep(LOOK_SECONDS)


async def follower_of(group: Group, job: Job) -> Job | None:
    """The job that followed one that is over."""
    return next((each for each in await group.jobs.jobs() if each.options.get("of") == job.job_id), None)


async def living_workers(group: Group) -> int:
    """How many workers replicate now; looks at heartbeats for a few seconds when there are any."""
    pulses = {worker: pulse for worker, pulse in (await group.membership.members()).items() if not pulse.leaving}
    return sum(state == ALIVE for state in (await group.living(pulses, pulses)).values())


async def warn_without_workers(group: Group) -> None:
    """Say that a job waits when no worker lives that would do it."""
    if not await living_workers(group):
        group.announce(f"No worker of group {group.settings.group} is alive: the job waits for `replicator run`.")


# -- steering ----------------------------------------------------------------------------------------------------------


async def pause(group: Group, job_id: str, by: str) -> ListedJob:
    """Let a job rest behind the pages in hand."""
    return await _change(group, job_id, JobState.RUNNING, JobState.PAUSED, f"paused by {by}")


async def resume(group: Group, job_id: str) -> ListedJob:
    """Let a job go on where it was."""
    return await _change(group, job_id, JobState.PAUSED, JobState.RUNNING, "")


async def _change(group: Group, job_id: str, before: JobState, after: JobState, note: str) -> ListedJob:
    job = await job_named(group, job_id)
    if job.state is not after and not (job.state is before and await group.jobs.change(job, after, note=note)):
        raise RequestRefused(f"Job {job.job_id} is {(await job_named(group, job.job_id)).state}.", advice="")
    return listed(await progress(group, await job_named(group, job.job_id)))


async def cancel(group: Group, job_id: str, by: str) -> ListedJob:
    """End a job; what it has done stays done."""
    job = await job_named(group, job_id)
    if not job.state.is_open:
        raise RequestRefused(f"Job {job.job_id} is {job.state} already.", advice="")
    counts = (await progress(group, job)).counts
    at = (await group.time()).now()
    if not await group.jobs.end(job, JobState.CANCELLED, at=at, counts=counts, note=f"cancelled by {by}"):
        raise RequestRefused(f"Job {job.job_id} changed meanwhile.", advice="Run this again.")
    return listed(await progress(group, await job_named(group, job.job_id)))
