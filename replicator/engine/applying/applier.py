"""Applying pages of records at one target.

Owns bounded concurrency, the order of each key, retries, and the cache actions behind every answer. Invariant: a record
counts as done only when its effect and its cache actions are durable; nothing is given up but by the end of the program
or the loss of the lease. What fails waits for its next try without holding anything else back: every other key of the
page is tried before. A key whose partition is throttled, that alone gets no answer, or that the home region of a mesh
refuses holds back no later page either, within bounds: it is carried over, and what comes of it meanwhile waits behind
it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Hashable, Iterable, Sequence
from itertools import dropwhile

from replicator.domain.coalescing import Run, coalesce
from replicator.domain.errors import Disposition, KeyThrottled, ReplicatorError, Throttled
from replicator.domain.health import PROBE_SECONDS
from replicator.domain.progress import HORIZON, Position, Window
from replicator.domain.records import ChangeRecord, ForeignRecord, ItemKey, StreamRecord, UnreadRecord, changes
from replicator.domain.shards.leases import Rewind
from replicator.engine.applying.context import Tally, TargetContext
from replicator.engine.applying.crew import FEW, Crew
from replicator.engine.applying.jobs import Job, Jobs, Unit
from replicator.engine.applying.kinds import KINDS, parks_refusals
from replicator.engine.probing import Trial
from replicator.engine.reading.memory_budget import weight
from replicator.engine.waiting import Stopped, backoff, pause
from replicator.ports.events import BatchReport

_TRIES_BEFORE_TROUBLE = 3
_START_TOLERANCE_SECONDS = 2
_STREAM_SECONDS = 1
"""How exact a stream's times are."""

_SLOW_TRY = 5
"""A refused record is tried again as if it had failed this often already: seconds apart, not milliseconds."""


_MOST_BEHIND = 10_000
"""Keys that failed by themselves hold back no later page as long as no more records lie behind the first of them: what
is behind it is applied again after a crash.
"""


class TargetApplier:
    """One target of one rule on one shard.

    It is longer than a class should be because a key's order, its retries and what of it lets the position move are one
    invariant; what is left of a page (`jobs`) and what a kind does (`kinds`) have modules of their own.
    """

    def __init__(self, context: TargetContext, *, started_at: float | None, rewind: Rewind | None = None) -> None:
        self.place = context.place
        kind = context.place.target.kind
        self._driver = KINDS[kind].driver(context)
        self._carries_refusals = KINDS[kind].carries_refusals and parks_refusals(context.rule, kind)
        self._context = context
        self._skip_before = None if started_at is None else started_at - _START_TOLERANCE_SECONDS
        self._rewind = rewind
        self._carried: dict[ItemKey, Job] = {}
        """Keys that wait for their partitions, from one page to the next."""
        self._window = Window(HORIZON)
        self._workers = 0
        """How many the last page had in the end."""
        self._troubles = 0
        self.trouble: ReplicatorError | None = None
        """What last kept a record from being applied; None when nothing does now."""
        self.done_at = 0.0
        """When a record last was done (monotonic)."""
        self._moved: Callable[[Position], None] = _told_nobody
        self._took = False
        """Whether a change was taken that is not told yet: it is with the record, which is done then."""
        self._told: Position = HORIZON
        self._telling: asyncio.Handle | None = None
        """Set while something was done that the observer hears of with the loop's next turn."""

    async def apply(
        self,
        records: Sequence[StreamRecord],
        position: Position,
        moved: Callable[[Position], None],
        more: asyncio.Event | None = None,
    ) -> None:
        """Bring the records behind `position` to the target; `moved` gets the steps of the contiguous frontier.

        `more`, once it is set, lets keys wait that failed by themselves: they are tried on with the next call.
        Without it everything is applied when this returns. When the program stops nothing new is begun. Raises
        `Stopped` and `LeaseLost`; then whatever `moved` got is durable, and the rest will come again.
        """
        began = self._context.clock.monotonic()
        if not self._carried:
            self._window = Window(position)
            self._told = position
        tally, window, self._moved = Tally(), self._window, moved
        fresh = list(dropwhile(lambda record: position.covers(record.number), records))
        wanted: list[ChangeRecord] = []
        unread: list[UnreadRecord] = []
        self._began(fresh, window)
        disorder = self._context.rule.disorder_seconds
        may_skip = self._skip_before is not None or self._rewind is not None
        for record in fresh:
            window.open(record.sequence, record.created_at and record.created_at - disorder)
            if isinstance(record, ForeignRecord) or (may_skip and self._is_skipped(record)):
                tally.skipped += 1
                tally.foreign += isinstance(record, ForeignRecord)
                self._done(record)
            elif isinstance(record, UnreadRecord):
                unread.append(record)
            else:
                wanted.append(record)
        runs = coalesce(wanted)
        tally.ties = sum(run.ties for run in runs)
        jobs = self._jobs(runs, unread)
        try:
            await self._all(jobs, tally, more)
            if jobs and not self._context.stop.is_set():
                self._carried = {unit.key: job for job in jobs.rest() if isinstance(unit := job.units[0], Run)}
            self._context.ahead.carry(
                {key: [record for unit in job.units for record in changes(_records(unit))]
                 for key, job in self._carried.items()}
            )  # fmt: skip
        finally:
            self._tell()
            if not self._carried:
                self._give_up(jobs)
        if fresh:
            self._context.observer.batch_applied(self._report(fresh, window, tally, began))
        if window.in_flight and not self._carried:
            raise Stopped

    async def _all(self, jobs: Jobs, tally: Tally, more: asyncio.Event | None) -> None:
        most = min(self._context.limits.concurrency, len(jobs))
        crew = Crew(jobs, lambda: self._work(jobs, tally, more), most=most)
        await crew.run(max(FEW, self._workers // 2))
        self._workers = crew.size

    def _jobs(self, runs: Iterable[Run], unread: Iterable[UnreadRecord]) -> Jobs:
        """One job a key: what was carried over comes first, and what came since behind it."""
        carried, self._carried = self._carried, {}
        jobs = Jobs([])
        for run in runs:
            units = self._driver.units(run)
            job = carried.get(run.key)
            if job is None:
                jobs.add(self._job(units))
            else:
                job.units.extend(units)
                job.weight += weight(run.records)
        for record in unread:
            jobs.add(self._job([record]))
        for job in carried.values():
            jobs.put_back(job)
        return jobs

    def give_up(self) -> None:
        """What was carried over is not tried any more."""
        self._give_up(self._jobs((), ()))

    def _began(self, fresh: Sequence[StreamRecord], window: Window) -> None:
        if fresh:
            times = [at for at in (window.oldest, *(record.created_at for record in fresh)) if at]
            self._context.observer.batch_began(self.place, min(times, default=self._context.clock.now()))

    def _is_skipped(self, record: StreamRecord) -> bool:
        """Whether a target has no use for a record: it is from before its start, or from before where it is rewound to.

        Times are whole seconds, rounded down: a record of the rewind's second may be wanted. One without a time is.
        """
        if self._skip_before is not None and 0 < record.created_at < self._skip_before:
            return True
        rewind = self._rewind
        return (
            rewind is not None
            and 0 < record.created_at < rewind.before - _STREAM_SECONDS
            and rewind.until.covers(record.number)
        )

    def _job(self, units: Iterable[Unit]) -> Job:
        left = list(units)
        return Job(left, left[0])

    async def _work(self, jobs: Jobs, tally: Tally, more: asyncio.Event | None) -> None:
        """Take one job after the other until none is left; a job is one key, so keys keep their order.

        A job that is left because the program stops, or to be carried over, leaves a hole that the frontier does not
        pass.
        """
        with self._context.ports.probing.trying() as trial:
            await self._work_on(jobs, tally, more, trial)

    async def _work_on(self, jobs: Jobs, tally: Tally, more: asyncio.Event | None, trial: Trial) -> None:
        stop, gate, probing = self._context.stop, self._context.ports.gate, self._context.ports.probing
        while jobs and not stop.is_set():
            may_leave = jobs.wait_by_themselves() and self._window.in_flight <= _MOST_BEHIND
            called = more if may_leave else None
            if called is not None and called.is_set():
                return
            job = jobs.next()
            try:
                if job.attempt and not await self._is_due(job, called):
                    jobs.put_back(job)
                    continue
                if gate.error is not None or probing.error is not None:
                    await self._pass_gate(job)
                    await self._until_it_answers(job)
                failed_in = await self._try(job, tally, trial)
            except Stopped:
                jobs.put_back(job)
                return
            except BaseException:
                self._recovered(job)
                raise
            if failed_in is None:
                for record in _records(job.units.pop(0)):
                    self._done(record)
                self._recovered(job)
                if not job.units:
                    continue
                job.wanted, job.attempt, job.due_at, job.by_itself = job.units[0], 0, 0.0, False
            else:
                job.due_at = self._context.clock.monotonic() + failed_in
            jobs.put_back(job)

    async def _is_due(self, job: Job, called: asyncio.Event | None) -> bool:
        """Wait for a job that failed; False when what it may be left for came before."""
        stop, wait = self._context.stop, job.due_at - self._context.clock.monotonic()
        if wait <= 0 or not await pause(stop if called is None else called, wait):
            return True
        if stop.is_set():
            raise Stopped
        return False

    async def _pass_gate(self, job: Job) -> None:
        """Wait while the target is held; the observer gets why."""
        gate = self._context.ports.gate
        if gate.error is not None:
            self._in_trouble(job, gate.error)
            await gate.passed(self._context.stop)

    async def _until_it_answers(self, job: Job) -> None:
        """Wait while the target is away, for a turn to try it or for its first answer to anything.

        In a mesh a record takes effect in the regions that answer at once, and then waits.
        """
        probing = self._context.ports.probing
        if not job.attempt and KINDS[self.place.target.kind].of_many_places:
            return
        while (error := await probing.turn(self._context.stop, told=self.trouble is not None)) is not None:
            self._in_trouble(job, error)

    def _done(self, record: StreamRecord) -> None:
        self._window.done(record.sequence)
        if self._telling is None:
            self._telling = asyncio.get_running_loop().call_soon(self._tell)

    def _tell(self) -> None:
        """Report that it answers, and how far it is: once for all that is done in one turn of the loop."""
        if self._telling is None:
            return
        self._telling.cancel()
        self._telling = None
        if self._took:
            self._took = False
            self._context.ports.probing.answered()
        self.done_at = self._context.clock.monotonic()
        frontier = self._window.frontier
        if frontier != self._told:
            self._told = frontier
            self._moved(frontier)
            self._context.observer.moved(self.place, frontier)

    async def _try(self, job: Job, tally: Tally, trial: Trial) -> float | None:
        """Apply a unit once; None when it is applied or set aside, else in how many seconds to try again.

        A refusal that repeats is reported to the observer with its key. A record that is refused for good may be
        superseded by a later one of its key, as soon as that was read.
        """
        wanted = job.wanted
        began = asyncio.get_running_loop().time()
        carried_out = self._driver.apply(wanted, tally) if isinstance(wanted, Run) else self._set_aside(wanted, tally)
        try:
            took = await trial.attempt(carried_out, began)
        except ReplicatorError as error:
            if error.disposition is Disposition.RELINQUISH:
                raise
            tally.retries += 1
            self._context.ports.gate.doubt(error)
            return self._failed(job, error, began)
        if took:  # what was only passed over says nothing
            self._took = True
        return None

    async def _set_aside(self, record: UnreadRecord, tally: Tally) -> bool:
        """Keep a record that cannot be understood; a target without parking is not given one."""
        assert self._context.aside is not None, "its pipeline waits in front of such a record"
        await self._context.aside.record(record)
        tally.parked += 1
        return False

    def _failed(self, job: Job, error: ReplicatorError, began: float) -> float:
        self._tell()
        job.attempt += 1
        wait = self._pause(job, error, began)
        unit = job.units[0]
        refused = error.disposition is not Disposition.RETRY
        # Also when the whole table seems throttled: whether it takes other keys shows only when some are tried.
        carries = not refused or (self._carries_refusals and error.disposition is Disposition.PARK)
        job.by_itself = carries and isinstance(unit, Run) and wait > 0
        if job.by_itself:
            job.weight = sum(weight(_records(unit)) for unit in job.units)
        if refused and isinstance(unit, Run):
            job.wanted = self._driver.superseded(unit)
            self._need(job, needs=True)
        if refused or job.attempt >= _TRIES_BEFORE_TROUBLE:
            self._in_trouble(job, error, unit.key.shown if isinstance(unit, Run) else None)
        else:
            self._context.observer.retrying(self.place, error, job.attempt)
        return wait

    def _pause(self, job: Job, error: ReplicatorError, began: float) -> float:
        """Seconds until the next try, by what the key itself met; none when it waits for the target with all others."""
        longest, probing = self._context.limits.backoff_seconds, self._context.ports.probing
        if error.disposition is not Disposition.RETRY:
            return backoff(job.attempt + _SLOW_TRY, longest)
        if isinstance(error, Throttled):
            probing.answered()  # else what waits for it would hide that it takes other keys
            longest = longest if isinstance(error, KeyThrottled) else min(longest, PROBE_SECONDS)
        elif probing.failed(_asked_by(job.units[0]), error, began):
            return 0.0
        else:
            longest = min(longest, PROBE_SECONDS)
        return backoff(job.attempt, longest)

    def _in_trouble(self, job: Job, error: ReplicatorError, key: str | None = None) -> None:
        if not job.in_trouble:
            job.in_trouble = True
            self._troubles += 1
        self.trouble = error
        self._context.observer.blocked(self.place, error, key)

    def _recovered(self, job: Job) -> None:
        if job.refused:
            self._need(job, needs=False)
        if job.in_trouble:
            job.in_trouble = False
            self._troubles -= 1
            if not self._troubles:
                self.trouble = None
                self._context.observer.unblocked(self.place)

    def _need(self, job: Job, *, needs: bool) -> None:
        """What is refused for good may be superseded by what comes next, so that is read without waiting for bytes."""
        if job.refused != needs:
            job.refused = needs
            self._context.ahead.need(1 if needs else -1)

    def _give_up(self, jobs: Jobs) -> None:
        while jobs:
            self._recovered(jobs.next())

    # -- the report ------------------------------------------------------------------------------------------------

    def _report(self, fresh: Sequence[StreamRecord], window: Window, tally: Tally, began: float) -> BatchReport:
        newest = max(record.created_at for record in fresh)
        return BatchReport(
            place=self.place,
            records=len(fresh),
            changes=tally.changes,
            skipped=tally.skipped,
            effects=dict(tally.effects),
            adopted=tally.adopted,
            conflicts=dict(tally.conflicts),
            cache_actions=tally.cache_actions,
            keyless=tally.keyless,
            unstored=tally.unstored,
            kept_removals=tally.kept_removals,
            parked=tally.parked,
            foreign=tally.foreign,
            ties=tally.ties,
            retries=tally.retries,
            position=window.frontier,
            lag_seconds=max(0.0, self._context.clock.now() - newest) if newest else None,
            took_seconds=self._context.clock.monotonic() - began,
        )


def _told_nobody(_: Position) -> None:
    """Before the first page there is no reader to inform."""


def _asked_by(unit: Unit) -> Hashable:
    return unit.key if isinstance(unit, Run) else unit.sequence


def _records(unit: Unit) -> Sequence[StreamRecord]:
    return unit.records if isinstance(unit, Run) else (unit,)
