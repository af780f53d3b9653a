"""Records that left the stream before a target read them: found, stored, and passed only when somebody said so.

Invariant: no target goes on behind a loss before the loss is durable in the ledger, and under the policies `stop` and
`resync` not before an operator has acknowledged it, or the records are there again. The same loss found again, by
anybody, is the same gap.

A target that begins on a shard is owed what the shard held when both were known. It is noted as standing at the
shard's beginning where that is still there, so that a loss before its first record shows; at the horizon, where no
place tells what is missing, time does.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence

from replicator.domain.errors import Disposition, RecordsTrimmed, ReplicatorError, ShardGone
from replicator.domain.progress import BEGINNING, END, HORIZON, Position
from replicator.domain.records import ShardId
from replicator.domain.rules import OnGap, Rule, Start, Target
from replicator.engine.held import HeldShard
from replicator.engine.pacing import backoff, pause_or_raise
from replicator.engine.reader import RETENTION_SECONDS
from replicator.ports import Gap, TargetStart

_SLOW_TRY = 6
"""A gap is looked at again as if that had failed this often already: seconds apart, not milliseconds."""

_START_TOLERANCE_SECONDS = 60
"""A shard that is found so soon after a target's start was there before it, and is not owed as a whole."""


async def _never() -> bool:
    return False


class Losses:
    """What one rule lost on one shard, and where it waits because of that."""

    def __init__(self, rule: Rule, held: HeldShard) -> None:
        self._rule = rule
        self._held = held
        self._places = [held.place(target) for target in rule.targets]
        self._first_read: int | None = None
        self.closed: RecordsTrimmed | None = None
        """The loss that the rule waits behind now."""

    # -- before the first record ---------------------------------------------------------------------------------------

    async def begin(self, starts: Mapping[str, TargetStart], stop: asyncio.Event) -> Position | None:
        """Note where targets begin that are new here; wait behind what they lost before.

        Returns where to go on reading behind a loss, None when the stored positions tell that.
        """
        new = [target for target in self._rule.targets if not self._held.progress.has_begun(target)]
        await self._behind_lost_parents(new, starts, stop)
        whole = await self._stands_whole(new, starts)
        for target in new:
            self._held.progress.moved(target, self._beginning(target, starts[target.target_id], whole=whole))
        late = [target for target in self._rule.targets if await self._is_late(target, starts[target.target_id])]
        if not late:
            return None
        error = RecordsTrimmed(
            f"The oldest records of shard {self._held.lease.shard_id} left the stream, and were not read in their time."
        )
        return await self._behind(HORIZON, error, late, stop)

    def _is_owed(self, target: Target, start: TargetStart) -> bool:
        """Whether a target must get this shard's very first record: the shard came to be after its start."""
        row = self._held.row
        return row.found_at > start.started_at + _START_TOLERANCE_SECONDS and target.target_id not in row.rewinds

    async def _behind_lost_parents(
        self, new: Sequence[Target], starts: Mapping[str, TargetStart], stop: asyncio.Event
    ) -> None:
        """Parents that were gone before anybody listed them were never read by whoever had started before."""
        orphaned = [parent for parent in self._held.row.shard.parents if not self._held.ends.known(parent)]
        gaps = [
            self._gap(target, HORIZON, END, f"Shard {parent} was gone before it was found; its child was.", parent)
            for target in new
            if self._is_owed(target, starts[target.target_id])
            for parent in orphaned
        ]
        if gaps:
            await self._wait(gaps, RecordsTrimmed(gaps[0].why), stop)

    async def _stands_whole(self, new: Sequence[Target], starts: Mapping[str, TargetStart]) -> bool:
        """Whether a shard's first record can be read, if some new target's beginning depends on that."""
        row = self._held.row
        if row.shard.first is None or self._rule.start is not Start.TRIM_HORIZON:
            return False
        asks = any(not (self._is_owed(each, starts[each.target_id]) or each.target_id in row.rewinds) for each in new)
        return asks and await self._held.reader.reaches(BEGINNING)

    def _beginning(self, target: Target, start: TargetStart, *, whole: bool) -> Position:
        """Where a new target begins: at the shard's first record, if it is owed or still there."""
        row = self._held.row
        if row.shard.first is None or target.target_id in row.rewinds:
            return HORIZON
        return BEGINNING if whole or self._is_owed(target, start) else HORIZON

    async def _is_late(self, target: Target, start: TargetStart) -> bool:
        """Whether a target at the horizon may have lost what stood there when it was to begin."""
        row = self._held.row
        if (
            self._held.progress.position(target) != HORIZON
            or row.shard.first is None
            or target.target_id in row.rewinds
        ):
            return False
        since = max(start.started_at, row.found_at if self._is_owed(target, start) else 0.0)
        if self._held.ports.clock.now() - since <= RETENTION_SECONDS:
            return False
        return not await self._held.reader.reaches(BEGINNING)

    def jumped(self, behind: Position, first: int | None) -> bool:
        """Whether a page at the horizon begins behind the record that stood there first (None: the shard is empty)."""
        if behind != HORIZON:
            return False
        seen = self._first_read
        if seen is not None and (first is None or first > seen):
            return True
        self._first_read = first
        return False

    # -- behind a place ------------------------------------------------------------------------------------------------

    async def behind(self, position: Position, error: RecordsTrimmed, stop: asyncio.Event) -> Position:
        """Record that what came behind a position is gone, for every target that needed it; wait until that may be.

        Returns where to go on: END when the shard is gone.
        """
        return await self._behind(position, error, self._rule.targets, stop)

    async def _behind(
        self, position: Position, error: RecordsTrimmed, targets: Sequence[Target], stop: asyncio.Event
    ) -> Position:
        reader = self._held.reader
        is_gone = isinstance(error, ShardGone)
        until = END if is_gone else await reader.first_left()
        gaps = []
        for target in targets:
            place = max(position, self._held.progress.position(target), key=lambda place: place.order)
            if place != END and (place == position or not await reader.reaches(place)):
                gaps.append(self._gap(target, place, until, error.message))

        async def is_back() -> bool:
            return position != HORIZON and await reader.reaches(position)

        if await self._wait(gaps, error, stop, is_back):
            return position
        self._first_read = None
        return END if is_gone else HORIZON

    def _gap(
        self, target: Target, behind: Position, until: Position | None, why: str, shard_id: ShardId | None = None
    ) -> Gap:
        lease = self._held.lease
        return Gap(
            stream=lease.stream,
            shard_id=shard_id or lease.shard_id,
            target_id=target.target_id,
            after=behind,
            until=until,
            found_at=self._held.ports.clock.now(),
            why=why,
        )

    # -- the gate ------------------------------------------------------------------------------------------------------

    async def _wait(
        self,
        gaps: Sequence[Gap],
        error: RecordsTrimmed,
        stop: asyncio.Event,
        is_back: Callable[[], Awaitable[bool]] = _never,
    ) -> bool:
        """Make losses durable and wait until they may be passed; True when the records are there again after all."""
        observer, longest = self._held.ports.observer, self._held.limits.backoff_seconds
        for gap in gaps:
            self._held.fence.check()
            await self._held.ports.registry.record_gap(gap)
            observer.gap_found(gap)
        attempt = _SLOW_TRY
        if self._rule.on_gap is OnGap.SKIP:
            await pause_or_raise(stop, backoff(attempt, longest))
            self._pass(gaps, "the rule skips what is lost")
            return False
        while not await self._surely(lambda: self._acknowledged(gaps)):
            self.closed = error
            for place in self._places:
                observer.blocked(place, error, None)
            await pause_or_raise(stop, backoff(attempt, longest))
            attempt += 1
            if await self._surely(is_back):
                self._pass((), "")
                return True
        self._pass(gaps, "an operator acknowledged the loss")
        return False

    async def _acknowledged(self, gaps: Sequence[Gap]) -> bool:
        return all([await self._held.ports.registry.acknowledged(gap) for gap in gaps])

    async def _surely(self, question: Callable[[], Awaitable[bool]]) -> bool:
        """The answer; no when there is none."""
        self._held.fence.check()
        try:
            return await question()
        except ReplicatorError as error:
            if error.disposition is Disposition.RELINQUISH:
                raise
            return False

    def _pass(self, gaps: Sequence[Gap], why: str) -> None:
        if self.closed is not None:
            self.closed = None
            for place in self._places:
                self._held.ports.observer.unblocked(place)
        for gap in gaps:
            self._held.ports.observer.gap_passed(gap, why)
