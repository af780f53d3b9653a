"""Applying one page of records at one target.

Owns bounded concurrency, the order of each key, retries, and the cache actions behind every answer. Invariant: a record
counts as done only when its effect and its cache actions are durable; nothing is given up but by the end of the program
or the loss of the lease.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence

from replicator.domain.errors import Disposition, ReplicatorError
from replicator.domain.progress import Position, Window
from replicator.domain.records import ChangeRecord
from replicator.domain.rules import Rule, Run, coalesce
from replicator.engine.ahead import ReadAhead
from replicator.engine.desk import Desk, Driver, Tally, TargetPorts
from replicator.engine.mesh import MeshDriver
from replicator.engine.ordered import OrderedDriver
from replicator.engine.pacing import Limits, Stopped, backoff, pause_or_raise
from replicator.ports import BatchReport, Clock, Fence, Observer, Place

_TRIES_BEFORE_TROUBLE = 3
_START_TOLERANCE_SECONDS = 2
_SLOW_TRY = 5
"""A refused record is tried again as if it had failed this often already: seconds apart, not milliseconds."""


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
        self._driver = driver_of(Desk(rule, place, ports, ahead, limits, clock, fence, stop))
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
        tally, window = Tally(), Window(position)
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

    async def _work(self, runs: Iterator[Run], window: Window, tally: Tally, moved: Callable[[Position], None]) -> None:
        """Pull runs until none is left; one run is one key, so keys keep their order.

        A run that is given up because the program stops leaves a hole that the frontier does not pass.
        """
        for run in runs:
            try:
                for unit in self._driver.units(run):
                    await self._until_applied(unit, tally)
                    for record in unit.records:
                        self._done(window, record, moved)
            except Stopped:
                continue

    def _done(self, window: Window, record: ChangeRecord, moved: Callable[[Position], None]) -> None:
        if window.done(record.sequence):
            moved(window.frontier)
            self._observer.moved(self.place, window.frontier)

    async def _until_applied(self, unit: Run, tally: Tally) -> None:
        """Apply a unit, however often it takes; a refusal that repeats is told to the observer with its key.

        A record that is refused for good may be superseded by a later one of its key, as soon as that was read.
        """
        attempt, in_trouble, wanted = 0, False, unit
        try:
            while True:
                try:
                    await self._driver.apply(wanted, tally)
                except ReplicatorError as error:
                    if error.disposition is Disposition.RELINQUISH:
                        raise
                    attempt += 1
                    tally.retries += 1
                    refused = error.disposition is not Disposition.RETRY
                    if refused:
                        wanted = self._driver.superseded(unit)
                    if refused or attempt >= _TRIES_BEFORE_TROUBLE:
                        self._troubles += not in_trouble
                        in_trouble = True
                        self._observer.blocked(self.place, error, unit.key.shown)
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

    # -- the report ------------------------------------------------------------------------------------------------

    def _report(self, fresh: Sequence[ChangeRecord], window: Window, tally: Tally, began: float) -> BatchReport:
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
            kept_removals=tally.kept_removals,
            retries=tally.retries,
            position=window.frontier,
            lag_seconds=max(0.0, self._clock.now() - newest) if newest else None,
            took_seconds=self._clock.monotonic() - began,
        )


def driver_of(desk: Desk) -> Driver:
    """The driver of a rule's mode."""
    return OrderedDriver(desk) if desk.rule.mesh is None else MeshDriver(desk, desk.rule.mesh)
