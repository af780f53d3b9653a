"""The jobs of one session: look at their rows, claim segments, work, and end what is done.

Every worker plans for itself from rows and members, as it does for shards. Invariant: what we work on is what a row
says is ours; a job that is to rest is left behind the pages in hand; and no trouble of a job ends the worker.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence

from msgspec import Struct, field

from replicator.domain.copying.page_sizes import page_items
from replicator.domain.copying.sweeps import due, is_last, passes
from replicator.domain.errors import LeaseLost, ReplicatorError, Unreachable
from replicator.domain.identifiers import RegionId, WorkerId
from replicator.domain.jobs import (
    Job,
    JobKind,
    JobProgress,
    JobState,
    Segment,
    all_segments,
    progress_of,
    runnable,
    share_of,
    to_claim,
)
from replicator.domain.rules import Rule
from replicator.domain.targets import TargetId
from replicator.domain.values import replace
from replicator.engine.applying.context import TargetPorts
from replicator.engine.copying.applied import Applied, Margins
from replicator.engine.copying.handlers import Handler, JobContext, JobImpossible
from replicator.engine.copying.region import CopyRegion
from replicator.engine.copying.resyncing import Resyncing
from replicator.engine.copying.segment_run import SegmentRun
from replicator.engine.limits import Limits
from replicator.engine.membership.members import Members
from replicator.engine.membership.session import Session, ShardFence
from replicator.engine.service import Service
from replicator.engine.waiting import Flag, retry_in
from replicator.ports.clock import Clock
from replicator.ports.coordination import Coordination, Registry
from replicator.ports.events import Observer
from replicator.ports.exports import ExportFiles
from replicator.ports.jobs import Jobs
from replicator.ports.services import ServiceId, ServiceKind

_SERVICE = ServiceId(ServiceKind.JOBS)

_ROWS_PER_SECOND = 200
"""Rows of segments that a worker reads each second to see how jobs stand, about."""

KEPT_SECONDS = 7 * 86_400.0
"""A job that is over is listed for so long."""


class JobWorld(Struct, frozen=True):
    """What a worker has for a job: its rule on its table, the ports of its targets, and its regions.

    `regions` makes them anew for a job, given our part of its budgets as it changes, when the work is to stop, and how
    many items a page may have.
    """

    rules: Sequence[Rule]
    targets: Mapping[tuple[RegionId, TargetId], TargetPorts]
    regions: Callable[[Callable[[], float], asyncio.Event, Callable[[], int | None]], Mapping[str, CopyRegion]]
    exports: Callable[[str], tuple[ExportFiles, str]] | None = None


class JobPorts(Struct, frozen=True):
    """What jobs need of the outside.

    `world`: of one job; None: this worker does not run its rule now. `rules`: those that it runs.
    """

    jobs: Jobs
    coordination: Coordination
    registry: Registry
    world: Callable[[Job], Awaitable[JobWorld | None]]
    rules: Callable[[], Sequence[Rule]]
    kinds: Mapping[JobKind, Callable[[JobContext], Handler]]
    margins: Margins


class _Work(Struct):
    """A job that this worker is at work on. `rules`: what its handler goes by."""

    job: Job
    rules: Sequence[Rule]
    handler: Handler
    regions: Mapping[str, CopyRegion]
    stop: asyncio.Event
    share: float = 0.0
    running: dict[str, asyncio.Task[None]] = field(default_factory=dict)
    failures: int = 0
    rests_until: float = float("-inf")
    told: tuple[float, float] = (0.0, 0.0)
    items: float = 0.0

    def stands(self, rules: Sequence[Rule]) -> bool:
        """Whether it goes by rules that run; else it would mend items to what they were to be before."""
        return self.job.kind is JobKind.UNINSTALL or all(rule in rules for rule in self.rules)

    def page_items(self) -> int | None:
        """How many items the next page of a segment may have: all segments here share what is ours."""
        budgets = {budget for region in self.regions.values() for budget in (region.reads, region.writes)}
        among = max(1, len(self.running))
        return page_items(((budget.rate / among, budget.taken) for budget in budgets), self.items)

    def spent(self, items: float) -> dict[str, float]:
        """Read and write units that were taken since this was asked last, for so many items."""
        self.items += items
        now = (
            sum(reads.taken for reads in {region.reads for region in self.regions.values()}),
            sum(writes.taken for writes in {region.writes for region in self.regions.values()}),
        )
        reads, writes = now[0] - self.told[0], now[1] - self.told[1]
        self.told = now
        return {"read_units": round(reads, 1), "write_units": round(writes, 1)}


class JobRunner:
    """Works on jobs for one session at a time."""

    def __init__(self, ports: JobPorts, *, limits: Limits, clock: Clock, observer: Observer) -> None:
        self._ports = ports
        self._limits = limits
        self._clock = clock
        self._observer = observer
        self._pages = asyncio.Semaphore(limits.job_pages)

    async def run(self, session: Session, members: Members, stop: asyncio.Event) -> None:
        """Work until `stop`, then finish the pages in hand and give segments back; at once when the session is over."""
        async with asyncio.TaskGroup() as group:
            shift = _Shift(self._ports, self._pages, session, members, group, self._limits, self._clock, self._observer)
            service = Service(
                _SERVICE,
                self._observer,
                (session.over, stop),
                self._limits.heartbeat_seconds,
                self._limits.stall_seconds,
            )
            await service.run(shift.look, shift.wake)
            await shift.leave()


class _Shift:
    """The jobs of one session."""

    def __init__(  # noqa: PLR0913, PLR0917 - its collaborators, given once
        self,
        ports: JobPorts,
        pages: asyncio.Semaphore,
        session: Session,
        members: Members,
        group: asyncio.TaskGroup,
        limits: Limits,
        clock: Clock,
        observer: Observer,
    ) -> None:
        self._ports = ports
        self._pages = pages
        self._session = session
        self._members = members
        self._group = group
        self._limits = limits
        self._clock = clock
        self._observer = observer
        self._applied = Applied(ports.coordination, ports.registry, members, clock=clock, margins=ports.margins)
        self._resyncing = Resyncing(ports.jobs, ports.registry, ports.rules, clock=clock, observer=observer)
        self._works: dict[str, _Work] = {}
        self._seen: dict[str, JobProgress] = {}
        self.wake = Flag()
        """Set when a segment ended: another one may be claimed."""

    async def look(self) -> float:
        """Look at every job once; returns when to look again."""
        jobs = await self._ports.jobs.jobs()
        await self._resyncing.look(jobs)
        await self._begin_sweeps(jobs)
        known = {job.job_id: job for job in jobs if job.state.is_open}
        wanted = {job.job_id: job for job in runnable(known.values())}
        rules = self._ports.rules()
        for job_id, work in list(self._works.items()):
            if job_id not in wanted or not work.stands(rules):
                work.stop.set()
                if not work.running:
                    del self._works[job_id]
        seen: dict[str, JobProgress] = {}
        owners: set[WorkerId] = set()
        rows = 0
        for job in known.values():
            segments = all_segments(job, await self._ports.jobs.segments(job.job_id))
            rows += len(segments)
            owners |= {segment.owner for segment in segments if segment.owner is not None}
            if job.job_id in wanted:
                segments = await self._work_on(job, segments)
            before = self._seen.get(job.job_id)
            seen[job.job_id] = progress_of(job, segments, self._clock.monotonic(), before)
        self._members.note_owners(self, owners)
        self._seen = seen
        self._observer.jobs(list(seen.values()))
        await self._forget_one(jobs)
        return max(self._limits.jobs_seconds, rows / _ROWS_PER_SECOND) if known else self._limits.heartbeat_seconds

    async def leave(self) -> None:
        """End all work: behind the pages in hand, or at once when the session is over."""
        tasks = [task for work in self._works.values() for task in work.running.values()]
        for work in self._works.values():
            work.stop.set()
        ended = asyncio.ensure_future(asyncio.gather(*tasks, return_exceptions=True))
        over = asyncio.ensure_future(self._session.over.wait())
        await asyncio.wait((ended, over), return_when=asyncio.FIRST_COMPLETED)
        over.cancel()
        for task in tasks:
            task.cancel()
        await asyncio.gather(ended, over, return_exceptions=True)
        self._observer.jobs([])

    # -- one job -------------------------------------------------------------------------------------------------------

    async def _work_on(self, job: Job, segments: list[Segment]) -> list[Segment]:
        """Claim what is ours of a job, or end it; returns its segments as they are then."""
        work = self._works.get(job.job_id) or await self._begin(job)
        if work is None:
            return segments
        work.job = job
        if all(segment.done for segment in segments):
            await self._finish(work, segments)
            return segments
        if work.stop.is_set() or self._clock.monotonic() < work.rests_until:
            return segments
        room = self._limits.job_segments - sum(len(each.running) for each in self._works.values())
        expired = {owner for each in segments if (owner := each.owner) is not None and self._members.is_expired(owner)}
        me = self._session.worker
        claimed: dict[str, Segment] = {}
        for segment in to_claim(segments, me, work.running, live=self._members.live, expired=expired, most=room):
            self._session.check()
            ours = await self._ports.jobs.claim(segment, me)
            if ours is not None:
                seized = segment.owner in expired and segment.owner != me
                claimed[ours.name] = replace(ours, seized_at=self._clock.now()) if seized else ours
        now = [claimed.get(segment.name, segment) for segment in segments]
        work.share = share_of(now, me)
        for ours in claimed.values():
            self._start(work, ours)
        return now

    async def _begin(self, job: Job) -> _Work | None:
        kind = self._ports.kinds.get(job.kind)
        world = None if kind is None else await self._ports.world(job)
        if kind is None or world is None:
            return None
        stop = Flag()
        shares: list[_Work] = []
        regions = world.regions(
            lambda: shares[0].share if shares else 0.0, stop, lambda: shares[0].page_items() if shares else None
        )
        context = JobContext(
            job,
            world.rules,
            regions,
            world.targets,
            self._applied,
            self._members,
            self._ports.jobs,
            self._clock,
            stop,
            world.exports,
        )
        work = _Work(job, world.rules, kind(context), regions, stop)
        shares.append(work)
        self._works[job.job_id] = work
        return work

    def _start(self, work: _Work, segment: Segment) -> None:
        run = SegmentRun(
            segment,
            work.handler,
            jobs=self._ports.jobs,
            applied=self._applied,
            fence=ShardFence(self._session),
            pages=self._pages,
            stop=work.stop,
            spent=work.spent,
        )
        name = f"segment {segment.name} of job {segment.job_id}"
        work.running[segment.name] = self._group.create_task(self._run(work, segment, run), name=name)

    async def _run(self, work: _Work, segment: Segment, run: SegmentRun) -> None:
        """The boundary of a segment: whatever goes wrong there ends here, and is tried again from its position."""
        service = ServiceId(ServiceKind.JOB, job=work.job.job_id)
        try:
            await run.run()
            work.failures = 0
            self._observer.service_recovered(service)
        except LeaseLost:
            pass
        except JobImpossible as error:
            await self._fail(work, error)
        except ReplicatorError as error:
            self._rest(work, service, error)
        except Exception as error:  # noqa: BLE001 - the boundary: the other segments and jobs go on
            self._rest(work, service, Unreachable(f"An unexpected fault: {type(error).__name__}: {error}"))
        finally:
            work.running.pop(segment.name, None)
            self.wake.set()

    def _rest(self, work: _Work, service: ServiceId, error: ReplicatorError) -> None:
        work.failures += 1
        work.rests_until = self._clock.monotonic() + retry_in(error, work.failures, self._limits.backoff_seconds)
        self._observer.service_failed(service, error)

    # -- the end of a job ----------------------------------------------------------------------------------------------

    async def _finish(self, work: _Work, segments: Sequence[Segment]) -> None:
        """Let a job be over whose segments are all done; what follows it is there in the same moment."""
        work.stop.set()
        total = progress_of(work.job, segments, self._clock.monotonic(), self._seen.get(work.job.job_id))
        try:
            follows = await work.handler.finish(work.job, total.counts)
            state, note = JobState.DONE, ""
        except JobImpossible as error:
            follows, state, note = None, JobState.FAILED, error.sentence
        await self._end(work.job, state, note, total, follows)

    async def _fail(self, work: _Work, error: JobImpossible) -> None:
        try:
            rows = all_segments(work.job, await self._ports.jobs.segments(work.job.job_id))
            total = progress_of(work.job, rows, self._clock.monotonic())
            await self._end(work.job, JobState.FAILED, error.sentence, total)
        except ReplicatorError as trouble:  # the next try finds the same, and says so
            self._rest(work, ServiceId(ServiceKind.JOB, job=work.job.job_id), trouble)

    async def _end(self, job: Job, state: JobState, note: str, total: JobProgress, follows: Job | None = None) -> None:
        at = self._clock.now()
        if await self._ports.jobs.end(job, state, at=at, counts=total.counts, note=note, follows=follows):
            self._observer.job_ended(total.ended(state, note))

    async def _begin_sweeps(self, jobs: Sequence[Job]) -> None:
        """Ask for the sweeps that are due, and tell what the last ones found."""
        self._observer.sweeps(passes(jobs))
        for sweep in due(self._ports.rules(), jobs, self._clock.now()):
            await self._ports.jobs.create(sweep)

    async def _forget_one(self, jobs: Sequence[Job]) -> None:
        oldest = self._clock.now() - KEPT_SECONDS
        for job in jobs:
            if job.ended_at is not None and job.ended_at < oldest and not is_last(job, jobs):
                await self._ports.jobs.forget(job.job_id)
                return
