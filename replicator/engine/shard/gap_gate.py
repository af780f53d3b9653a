"""Records that left the stream before a target read them: found, stored, and passed only when somebody said so.

Invariant: no target goes on behind a loss before the loss is durable in the ledger, and under the policies `stop` and
`resync` not before an operator has acknowledged it, or the records are there again. The same loss found again, by
anybody, is the same gap; when it has grown, it must be acknowledged again, because nobody was shown all of it.

A target that begins on a shard is owed what the shard held when both were known. It is noted as standing at the
shard's beginning where that is still there, so that a loss before its first record shows; at the horizon, where no
place tells what is missing, time does. A rewind excuses what was read before it and left the stream, and nothing else.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence

from replicator.domain.errors import Disposition, RecordsTrimmed, ReplicatorError, ShardGone, WorldMismatch
from replicator.domain.gaps import Gap
from replicator.domain.identifiers import ShardId
from replicator.domain.progress import BEGINNING, END, HORIZON, Position
from replicator.domain.rules import OnGap, Rule, Start, Target
from replicator.domain.shards.leases import TargetStart
from replicator.engine.reading.reader import RETENTION_SECONDS
from replicator.engine.shard.context import HeldShard
from replicator.engine.waiting import backoff, pause_or_raise

_SLOW_TRY = 6
"""A gap is looked at again as if that had failed this often already: seconds apart, not milliseconds."""

_LOOKS_BEFORE_LOSS = 3
"""One answer that something is gone may be wrong."""

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
        self._orphaned_by = [parent for parent in held.row.shard.parents if not held.ends.known(parent)]
        """Parents that had no row when this began: lost, or not found again yet."""
        self._passing = False
        """Between the word of an operator and the next record that is read."""
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
        late = [target for target in self._rule.targets if await self._is_late(target, starts[target.target_id], stop)]
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
        owed = [target for target in new if self._is_owed(target, starts[target.target_id])]
        lost = [parent for parent in self._orphaned_by if owed and await self._is_lost(parent, owed, stop)]
        gaps = [
            self._gap(target, HORIZON, END, f"Shard {parent} was gone before it was found; its child was.", parent)
            for target in owed
            for parent in lost
        ]

        async def look() -> list[Gap]:
            return gaps

        if gaps:
            await self._wait(look, RecordsTrimmed(gaps[0].why), stop)

    async def _is_lost(self, parent: ShardId, targets: Sequence[Target], stop: asyncio.Event) -> bool:
        """Whether a parent left the stream unread; raises while it can be read still and is not read to its end."""
        state = await self._held.ports.coordination.state(self._held.lease.stream)
        row = state.rows.get(parent)
        if row is not None and all(row.checkpoints.get(target.target_id) == END for target in targets):
            return False
        if row is None and await self._never_again(lambda: self._is_readable(parent), stop):
            return True
        raise WorldMismatch(
            f"Shard {self._held.lease.shard_id} waits for its parent {parent}, which is not read to its end.",
            advice="Nothing to do while the parent makes progress; it goes on behind the parent's last record.",
        )

    async def _is_readable(self, shard_id: ShardId) -> bool:
        self._held.fence.check()
        try:
            await self._held.ports.stream.iterator(self._held.lease.stream, shard_id, HORIZON)
        except ShardGone:
            return False
        except RecordsTrimmed:
            return True
        return True

    async def _never_again(self, is_there: Callable[[], Awaitable[bool]], stop: asyncio.Event) -> bool:
        """Whether something is gone for good, as several answers in a row say."""
        for _ in range(_LOOKS_BEFORE_LOSS):
            if await is_there():
                return False
            await pause_or_raise(stop, self._held.limits.idle_seconds)
        return True

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

    async def _is_late(self, target: Target, start: TargetStart, stop: asyncio.Event) -> bool:
        """Whether a target at the horizon may have lost what stood there when it was to begin, or had been before."""
        row, reader = self._held.row, self._held.reader
        if self._held.progress.position(target) != HORIZON:
            return False
        had = self._had(target)
        if had != HORIZON:
            return had != END and await self._never_again(lambda: reader.reaches(had), stop)
        since = max(start.started_at, row.found_at if self._is_owed(target, start) else 0.0)
        if row.shard.first is None or self._held.ports.clock.now() - since <= RETENTION_SECONDS:
            return False
        return not await reader.reaches(BEGINNING)

    def _had(self, target: Target) -> Position:
        """Up to where a target read everything once, though a rewind may have moved it back behind that."""
        position = self._held.progress.position(target)
        rewind = self._held.row.rewinds.get(target.target_id)
        if rewind is None:
            return position
        return rewind.until if position == HORIZON else max(position, rewind.until, key=lambda place: place.order)

    def jumped(self, behind: Position, first: int | None) -> bool:
        """Whether a page at the horizon begins behind the record that stood there first (None: the shard is empty)."""
        if behind != HORIZON:
            self._passing = False
            return False
        seen = self._first_read
        if seen is not None and (first is None or first > seen):
            return True
        self._first_read = first
        self._passing = False
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
        until: Position | None = None

        async def look() -> list[Gap]:
            nonlocal until
            until = END if is_gone else await reader.first_left()
            places = [(each, max(position, self._had(each), key=lambda place: place.order)) for each in targets]
            return [
                self._gap(target, place, until, error.message)
                for target, place in places
                if place != END and (place == position or not await reader.reaches(place))
            ]

        async def is_back() -> bool:
            return position != HORIZON and await reader.reaches(position)

        if await self._wait(look, error, stop, is_back):
            return position
        # What begins behind the place that was shown has lost more than that.
        self._first_read = int(until.sequence) if until is not None and until.sequence is not None else None
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
        look: Callable[[], Awaitable[list[Gap]]],
        error: RecordsTrimmed,
        stop: asyncio.Event,
        is_back: Callable[[], Awaitable[bool]] = _never,
    ) -> bool:
        """Make losses durable and wait until they may be passed; True when the records are there again after all.

        Every try looks anew at what is lost by then; only a loss that this wait has shown may be acknowledged. What
        grows between the word and the next read is recorded and passed with it: records that age away one after the
        other must not outrun every word.
        """
        observer, longest = self._held.ports.observer, self._held.limits.backoff_seconds
        told, attempt = await look(), _SLOW_TRY
        await self._record(told)
        if self._rule.on_gap is OnGap.SKIP:
            await pause_or_raise(stop, backoff(attempt, longest))
            self._pass(told, "the rule skips what is lost")
            return False
        if self._passing:
            self._pass(told, "it grew while an acknowledged loss was passed")
            return False
        while True:
            if await self._acknowledged(told):
                grown = await self._looked(look, told)
                if grown is not None:
                    self._passing = True
                    self._pass(grown, "an operator acknowledged the loss")
                    return False
            self.closed = error
            for place in self._places:
                observer.blocked(place, error, None)
            await pause_or_raise(stop, backoff(attempt, longest))
            attempt += 1
            if await self._surely(is_back):
                self._pass((), "")
                return True
            if not await self._acknowledged(told):
                told = await self._looked(look, told) or told

    async def _looked(self, look: Callable[[], Awaitable[list[Gap]]], before: list[Gap]) -> list[Gap] | None:
        """What is lost by now, on record; None when that is not known."""
        try:
            gaps = await look()
            await self._record(gaps, before)
        except ReplicatorError as error:
            if error.disposition is Disposition.RELINQUISH:
                raise
            return None
        return gaps

    async def _record(self, gaps: Sequence[Gap], before: Sequence[Gap] = ()) -> None:
        known = {(gap.gap_id, gap.until) for gap in before}
        for gap in gaps:
            self._held.fence.check()
            await self._held.ports.registry.record_gap(gap)
            if (gap.gap_id, gap.until) not in known:
                self._held.ports.observer.gap_found(gap)

    async def _acknowledged(self, gaps: Sequence[Gap]) -> bool:
        async def all_of_them() -> bool:
            return all([await self._held.ports.registry.acknowledged(gap) for gap in gaps])

        return await self._surely(all_of_them)

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
