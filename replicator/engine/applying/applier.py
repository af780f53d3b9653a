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
from collections import deque
from collections.abc import Callable, Coroutine, Iterable, Sequence
from itertools import dropwhile
from typing import Any

from replicator.domain.coalescing import Run, coalesce
from replicator.domain.errors import Disposition, KeyThrottled, ReplicatorError, Throttled
from replicator.domain.health import PROBE_SECONDS
from replicator.domain.identifiers import SequenceNumber
from replicator.domain.progress import HORIZON, Position, Window
from replicator.domain.records import ChangeRecord, ForeignRecord, ItemKey, StreamRecord, UnreadRecord, changes
from replicator.domain.shards.leases import Rewind
from replicator.engine.applying.context import Applied, Tally, TargetContext, Written
from replicator.engine.applying.crew import FEW, Crew
from replicator.engine.applying.in_hand import InHand
from replicator.engine.applying.jobs import Job, Jobs, Unit, asked_by, records_of
from replicator.engine.applying.kinds import KINDS, driver_of, parks_refusals
from replicator.engine.applying.page import Page, page_report
from replicator.engine.applying.skipping import Skipping
from replicator.engine.probing import Trial
from replicator.engine.reading.memory_budget import weight
from replicator.engine.waiting import Stopped, backoff, pause

_TRIES_BEFORE_TROUBLE = 3
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
        self._driver = driver_of(context)
        self._carries_refusals = KINDS[kind].carries_refusals and parks_refusals(context.rule, kind)
        self._context = context
        self._gate, self._health = context.ports.gate, context.ports.probing.health
        self._skipping = Skipping(started_at, rewind)
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
        self._moved: Callable[[Position], None] = lambda _: None
        self._took = False
        """Whether a change was taken that the observer does not know yet: it is with the record, which is done then."""
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
        self._began(fresh, window)
        wanted, unread = self._open(fresh, window, tally)
        runs = coalesce(wanted)
        tally.ties = sum([run.ties for run in runs])
        jobs = self._jobs(runs, unread)
        try:
            await self._all(Page(jobs, tally, more))
            if jobs and not self._context.stop.is_set():
                self._carried = {unit.key: job for job in jobs.rest() if isinstance(unit := job.units[0], Run)}
            self._context.ahead.carry(
                {key: [record for unit in job.units for record in changes(records_of(unit))]
                 for key, job in self._carried.items()}
            )  # fmt: skip
        finally:
            self._tell()
            if not self._carried:
                self._give_up(jobs)
        if fresh:
            self._context.observer.batch_applied(page_report(self._context, fresh, window.frontier, tally, began))
        if window.in_flight and not self._carried:
            raise Stopped

    async def _all(self, page: Page) -> None:
        most = min(self._context.limits.concurrency, len(page.jobs))
        crew = Crew(page.jobs, lambda: self._work(page), most=most)
        await crew.run(max(FEW, self._workers // 2))
        self._workers = crew.size

    def _jobs(self, runs: Iterable[Run], unread: Iterable[UnreadRecord]) -> Jobs:
        """One job a key: what was carried over comes first, and what came since behind it."""
        carried, self._carried = self._carried, {}
        is_whole = not self._driver.splits
        jobs = Jobs([Job([run], run) for run in runs] if is_whole and not carried else [])
        for run in runs if carried or not is_whole else ():
            units: list[Unit] = [run] if is_whole else list(self._driver.units(run))
            job = carried.get(run.key) if carried else None
            if job is None:
                jobs.add(Job(units, units[0]))
            else:
                job.units.extend(units)
                job.weight += weight(run.records)
        for record in unread:
            jobs.add(Job([record], record))
        for job in carried.values():
            jobs.put_back(job)
        return jobs

    def give_up(self) -> None:
        """What was carried over is not tried any more."""
        self._give_up(self._jobs((), ()))

    def _open(
        self, fresh: Sequence[StreamRecord], window: Window, tally: Tally
    ) -> tuple[list[ChangeRecord], list[UnreadRecord]]:
        """Open the window for records; returns those that ask for something, and those that cannot be understood."""
        wanted: list[ChangeRecord] = []
        unread: list[UnreadRecord] = []
        disorder = self._context.rule.disorder_seconds
        skips, may_skip = self._skipping.skips, self._skipping.may_skip
        is_idle = None if self._context.ports.gate.error is not None else self._driver.idle
        window.open([(each.sequence, each.created_at and each.created_at - disorder) for each in fresh])
        for record in fresh:
            if (may_skip or isinstance(record, ForeignRecord)) and skips(record):
                tally.skipped += 1
                tally.foreign += isinstance(record, ForeignRecord)
                self._done(record)
            elif isinstance(record, UnreadRecord):
                unread.append(record)
            elif isinstance(record, ChangeRecord):
                if is_idle is None or not is_idle(record):
                    wanted.append(record)
                    continue
                tally.seen()
                self._done(record)
        return wanted, unread

    def _began(self, fresh: Sequence[StreamRecord], window: Window) -> None:
        if fresh:
            times = [at for at in [window.oldest, *[record.created_at for record in fresh]] if at]
            self._context.observer.batch_began(self.place, min(times, default=self._context.clock.now()))

    async def _work(self, page: Page) -> None:
        """Take one job after the other until none is left; a job is one key, so keys keep their order.

        A job that is left because the program stops, or to be carried over, leaves a hole that the frontier does not
        pass.
        """
        with self._context.ports.probing.trying() as trial:
            await self._work_on(page, trial)

    async def _work_on(self, page: Page, trial: Trial) -> None:  # noqa: C901 - every way in which a try ends
        stop, gate, probing = self._context.stop, self._context.ports.gate, self._context.ports.probing
        jobs, fresh, loop = page.jobs, page.jobs.fresh, asyncio.get_running_loop()
        hand = InHand(page, trial, self._is_held, loop.time)
        while (fresh or jobs) and not stop.is_set():
            called = None if fresh else self._called(page)
            if called is not None and called.is_set():
                return
            job = hand.job = jobs.next()
            took: bool | Written | None = None
            try:
                held = gate.error is not None or probing.error is not None
                if (held or job.attempt) and not await self._is_ready(job, called):
                    jobs.put_back(job)
                    continue
                hand.began = loop.time()
                try:
                    begun = self._begin(job, page.tally, hand)
                    took = begun if isinstance(begun, (bool, Written)) else await trial.attempt(begun, hand.began)
                except ReplicatorError as error:
                    if hand.job is not None:
                        self._fail(hand.job, page.tally, error, hand.began)
            except Stopped:
                if hand.job is not None:
                    jobs.put_back(hand.job)
                return
            except BaseException:
                if hand.job is not None:
                    self._recovered(hand.job)
                raise
            if hand.job is not None:
                self._settle(hand, took, page)
            if hand.is_called:
                hand.is_called = page.is_called = False
            if page.written and not page.completes:
                await self._complete(page, trial)

    def _settle(self, hand: InHand, took: bool | Written | None, page: Page) -> None:  # noqa: FBT001
        """A try has ended; `took` is None when it failed."""
        job = hand.job
        assert job is not None, "asked before"
        if isinstance(took, Written):
            hand.taken(took)
        elif took is None:
            page.jobs.put_back(job)
        else:
            self._took = self._took or took  # what was only passed over says nothing
            self._finish(job, page.jobs)

    def _is_held(self) -> bool:
        """Whether nothing may be begun, or not without waiting."""
        return self._gate.error is not None or self._health.away or self._context.stop.is_set()

    def _called(self, page: Page) -> asyncio.Event | None:
        """For what the page may be left, if nothing is left of it but keys that failed by themselves."""
        return page.more if page.jobs.wait_by_themselves() and self._window.in_flight <= _MOST_BEHIND else None

    def _begin(self, job: Job, tally: Tally, hand: InHand) -> Applied | Coroutine[Any, Any, Applied]:
        """Begin what a job wants. What was not tried yet may be followed by other such jobs."""
        unit, chain = job.wanted, self._driver.chain
        if not isinstance(unit, Run):
            return self._set_aside(unit, tally)
        return self._driver.apply(unit, tally) if chain is None or job.attempt else chain(unit, tally, hand)

    async def _complete(self, page: Page, trial: Trial) -> None:
        """Carry out the cache actions behind what was written, many at a time, while the other workers write on."""
        page.completes = True
        batch: deque[tuple[Job, Written, float]] = deque()
        try:
            while page.written:
                batch, page.written = deque(page.written), []
                completed = self._context.complete([written for _, written, _ in batch], page.tally)
                errors: Sequence[ReplicatorError | None]
                try:
                    errors = await trial.attempt(completed, asyncio.get_running_loop().time())
                except ReplicatorError as given_up:
                    errors = [given_up] * len(batch)
                if not any(errors):
                    self._finish_all([job for job, _, _ in batch], page.jobs)
                    batch.clear()
                    continue
                for error in errors:
                    job, _, began = batch[0]
                    if error is None:
                        self._took = True
                        self._finish(job, page.jobs)
                    else:
                        self._fail(job, page.tally, error, began)
                        page.jobs.put_back(job)
                        page.jobs.returned += 1
                    batch.popleft()
        finally:
            page.completes = False
            for job, _, _ in (*batch, *page.written):
                page.jobs.put_back(job)
            page.written = []

    def _finish(self, job: Job, jobs: Jobs) -> None:
        """The first unit of a job is done."""
        for record in records_of(job.units.pop(0)):
            self._done(record)
        self._recovered(job)
        if job.units:
            job.wanted, job.attempt, job.due_at, job.by_itself = job.units[0], 0, 0.0, False
            jobs.put_back(job)

    def _finish_all(self, jobs: Sequence[Job], left: Jobs) -> None:
        """The first units of some jobs are done; most of them had no other one, and no trouble."""
        self._took = True
        done: list[SequenceNumber] = []
        for job in jobs:
            unit = job.units[0]
            if len(job.units) > 1 or job.refused or job.in_trouble or not isinstance(unit, Run):
                self._finish(job, left)
            else:
                del job.units[0]
                done += [record.sequence for record in unit.records]
        self._window.done(*done)
        self._tell_soon()

    async def _is_ready(self, job: Job, called: asyncio.Event | None) -> bool:
        """Wait until a job is due and its target is not held; False when what it may be left for came before."""
        stop, gate = self._context.stop, self._context.ports.gate
        wait = job.due_at - self._context.clock.monotonic() if job.attempt else 0.0
        if wait > 0 and await pause(stop if called is None else called, wait):
            if stop.is_set():
                raise Stopped
            return False
        if gate.error is not None:
            self._in_trouble(job, gate.error)
            await gate.passed(stop)
        await self._until_it_answers(job)
        return True

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
        self._tell_soon()

    def _tell_soon(self) -> None:
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

    async def _set_aside(self, record: UnreadRecord, tally: Tally) -> bool:
        """Keep a record that cannot be understood; a target without parking is not given one."""
        assert self._context.aside is not None, "its pipeline waits in front of such a record"
        await self._context.aside.record(record)
        tally.parked += 1
        return False

    def _fail(self, job: Job, tally: Tally, error: ReplicatorError, began: float) -> None:
        """A try failed, and is to be repeated; raises what ends the work on the shard.

        A refusal that repeats is reported to the observer with its key. A record that is refused for good may be
        superseded by a later one of its key, as soon as that was read.
        """
        if error.disposition is Disposition.RELINQUISH:
            raise error
        tally.retries += 1
        self._context.ports.gate.doubt(error)
        job.due_at = self._context.clock.monotonic() + self._failed(job, error, began)

    def _failed(self, job: Job, error: ReplicatorError, began: float) -> float:
        """Note why a job failed; returns in how many seconds to try it again."""
        self._tell()
        job.attempt += 1
        wait = self._pause(job, error, began)
        unit = job.units[0]
        refused = error.disposition is not Disposition.RETRY
        # Also when the whole table seems throttled: whether it takes other keys shows only when some are tried.
        carries = not refused or (self._carries_refusals and error.disposition is Disposition.PARK)
        job.by_itself = carries and isinstance(unit, Run) and wait > 0
        if job.by_itself:
            job.weight = sum(weight(records_of(unit)) for unit in job.units)
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
        elif probing.failed(asked_by(job.units[0]), error, began):
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
