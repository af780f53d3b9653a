"""Applying one page of records at one target.

Owns bounded concurrency, the order of each key, retries, and the cache actions behind every answer. Invariant: a record
counts as done only when its effect and its cache actions are durable; nothing is given up but by the end of the program
or the loss of the lease.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from replicator.domain.conflicts import ConflictEntry, Witness
from replicator.domain.errors import Disposition, ReplicatorError
from replicator.domain.ordered import Change, Effect, Outcome, replicate_ordered
from replicator.domain.progress import Position, Window
from replicator.domain.records import ChangeRecord
from replicator.domain.requests import Done, LogConflict, Request, Response
from replicator.domain.rules import CacheAction, Rule, Run, coalesce, plan_cache, plan_run
from replicator.engine.ahead import ReadAhead
from replicator.engine.cache import CacheFunnel
from replicator.engine.pacing import Limits, Stopped, backoff, pause_or_raise
from replicator.ports import BatchReport, Clock, ConflictLog, Fence, Observer, Place, Region

_TRIES_BEFORE_TROUBLE = 3
_START_TOLERANCE_SECONDS = 2
_SLOW_TRY = 5
"""A refused record is tried again as if it had failed this often already: seconds apart, not milliseconds."""


@dataclass(frozen=True, slots=True)
class TargetPorts:
    """What a target needs of the outside. `region` is None beside the source, where only caches are kept."""

    region: Region | None
    caches: Mapping[str, CacheFunnel]
    conflicts: ConflictLog


@dataclass(slots=True)
class _Tally:
    """Counts of one page."""

    effects: Counter[Effect] = field(default_factory=Counter)
    changes: int = 0
    skipped: int = 0
    adopted: int = 0
    conflicts: int = 0
    cache_actions: int = 0
    keyless: int = 0
    retries: int = 0


class TargetApplier:
    """One target of one rule on one shard."""

    def __init__(  # noqa: PLR0913 - its collaborators, given once
        self,
        rule: Rule,
        place: Place,
        ports: TargetPorts,
        ahead: ReadAhead,
        *,
        started_at: float | None,
        limits: Limits,
        clock: Clock,
        observer: Observer,
        fence: Fence,
        stop: asyncio.Event,
    ) -> None:
        self.place = place
        self._rule = rule
        self._ports = ports
        self._ahead = ahead
        self._skip_before = None if started_at is None else started_at - _START_TOLERANCE_SECONDS
        self._limits = limits
        self._clock = clock
        self._observer = observer
        self._fence = fence
        self._stop = stop
        self._troubles = 0

    async def apply(
        self, records: Sequence[ChangeRecord], position: Position, moved: Callable[[Position], None]
    ) -> None:
        """Bring the records behind `position` to the target; `moved` is told every step of the contiguous frontier.

        Raises `Stopped` and `LeaseLost`; then whatever `moved` was told is durable, and the rest will come again.
        """
        began = self._clock.monotonic()
        tally, window = _Tally(), Window(position)
        fresh = [record for record in records if not position.covers(record.number)]
        wanted = []
        if fresh:
            self._observer.batch_began(self.place, min(record.created_at for record in fresh))
        for record in fresh:
            window.open(record.sequence)
            if self._skip_before is not None and record.created_at < self._skip_before:
                tally.skipped += 1
                self._done(window, record, moved)
            else:
                wanted.append(record)
        runs = iter(coalesce(wanted))
        async with asyncio.TaskGroup() as group:
            for number in range(min(self._limits.concurrency, len(wanted))):
                group.create_task(self._work(runs, window, tally, moved), name=f"apply-{number}")
        if fresh:
            self._observer.batch_applied(self._report(fresh, window, tally, began))
        if window.in_flight:
            raise Stopped

    async def _work(
        self, runs: Iterator[Run], window: Window, tally: _Tally, moved: Callable[[Position], None]
    ) -> None:
        """Pull runs until none is left; one run is one key, so keys keep their order.

        A run that is given up because the program stops leaves a hole that the frontier does not pass.
        """
        for run in runs:
            try:
                await self._until_applied(run, tally)
            except Stopped:
                continue
            for record in run.records:
                self._done(window, record, moved)

    def _done(self, window: Window, record: ChangeRecord, moved: Callable[[Position], None]) -> None:
        if window.done(record.sequence):
            moved(window.frontier)
            self._observer.moved(self.place, window.frontier)

    # -- one run ---------------------------------------------------------------------------------------------------

    async def _until_applied(self, run: Run, tally: _Tally) -> None:
        """Apply a run, however often it takes; a refusal that repeats is told to the observer with its key.

        A record that is refused for good is superseded by a later one of its key, as soon as that was read.
        """
        attempt, in_trouble, wanted = 0, False, run
        try:
            while True:
                try:
                    await self._apply_run(wanted, tally)
                except ReplicatorError as error:
                    if error.disposition is Disposition.RELINQUISH:
                        raise
                    attempt += 1
                    tally.retries += 1
                    refused = error.disposition is not Disposition.RETRY
                    if refused:
                        wanted = Run(run.key, (*run.records, *self._ahead.of(run.key)))
                    if refused or attempt >= _TRIES_BEFORE_TROUBLE:
                        self._troubles += not in_trouble
                        in_trouble = True
                        self._observer.blocked(self.place, error, run.key.shown)
                    else:
                        self._observer.retrying(self.place, error, attempt)
                    wait = backoff(attempt + (_SLOW_TRY if refused else 0), self._limits.backoff_seconds)
                    await pause_or_raise(self._stop, wait)
                else:
                    return
        finally:
            if in_trouble:
                self._troubles -= 1
                if not self._troubles:
                    self._observer.unblocked(self.place)

    async def _apply_run(self, run: Run, tally: _Tally) -> None:
        change = plan_run(self._rule, run, self.place.stream.generation)
        if change is None:
            tally.skipped += len(run.records)
            return
        outcome = None
        if self._ports.region is not None:
            outcome = await self._replicate(run, change, self._ports.region, tally)
        await self._sync_caches(run, change, tally)
        tally.changes += 1
        if outcome is not None:
            tally.effects[outcome.effect] += 1
            tally.adopted += outcome.adopted

    async def _replicate(self, run: Run, change: Change, region: Region, tally: _Tally) -> Outcome:
        """Drive the mode to its end; one failure ends it, and it is begun anew: every step may be repeated."""
        steps = replicate_ordered(change, self._rule.policy)
        request: Request = next(steps)
        while True:
            response: Response
            if isinstance(request, LogConflict):
                self._fence.check()
                await self._ports.conflicts.write(self._entry(run, request))
                tally.conflicts += 1
                response = Done()
            else:
                response = await region.execute(request, self._fence)
            try:
                request = steps.send(response)
            except StopIteration as end:
                outcome: Outcome = end.value
                return outcome

    def _entry(self, run: Run, request: LogConflict) -> ConflictEntry:
        place = self.place
        return ConflictEntry(
            conflict=replace(request, loser_region=place.target.region),
            table=self._rule.table,
            rule=self._rule.name,
            mode="ordered",
            witness=Witness(place.stream.region, place.shard_id, run.records[-1].sequence),
            detected_at=self._clock.now(),
        )

    async def _sync_caches(self, run: Run, change: Change, tally: _Tally) -> None:
        """Behind every answer of the replica, stale and duplicate included."""
        actions: dict[str, list[CacheAction]] = {}
        for cache_rule in self.place.target.caches:
            plan = plan_cache(cache_rule, run.records, change)
            tally.keyless += plan.keyless
            tally.cache_actions += len(plan.actions)
            actions.setdefault(cache_rule.cache, []).extend(plan.actions)
        for cache, wanted in actions.items():
            await self._ports.caches[cache].apply(wanted, self._fence)

    # -- the report ------------------------------------------------------------------------------------------------

    def _report(self, fresh: Sequence[ChangeRecord], window: Window, tally: _Tally, began: float) -> BatchReport:
        newest = max(record.created_at for record in fresh)
        return BatchReport(
            place=self.place,
            records=len(fresh),
            changes=tally.changes,
            skipped=tally.skipped,
            effects=dict(tally.effects),
            adopted=tally.adopted,
            conflicts=tally.conflicts,
            cache_actions=tally.cache_actions,
            keyless=tally.keyless,
            retries=tally.retries,
            position=window.frontier,
            lag_seconds=max(0.0, self._clock.now() - newest) if newest else None,
            took_seconds=self._clock.monotonic() - began,
        )
