"""What one target lost on one shard, judged by its own place, before it goes on.

Invariant: reading never passes a loss before it is at the gate. A target that begins on a shard is noted as standing at
the shard's beginning where that is still there, so that a loss before its first record shows; at the horizon, where no
place shows what is missing, the first record there and time do. A rewind excuses what was read before it and left the
stream, and nothing else.
"""

from __future__ import annotations

import asyncio

from replicator.domain.errors import RecordsTrimmed, ShardGone
from replicator.domain.gaps import Gap
from replicator.domain.identifiers import SequenceNumber
from replicator.domain.progress import BEGINNING, END, HORIZON, Position
from replicator.domain.rules import Rule, Start, Target
from replicator.domain.shards.leases import TargetStart
from replicator.domain.shards.lineage import RETENTION_SECONDS
from replicator.domain.shards.owed import Mark, Verdict, beginning, is_overdue, judge, may_stand_whole, place_of
from replicator.engine.shard.context import ShardContext
from replicator.engine.shard.gap_gate import GapGate
from replicator.engine.shard.lost_parents import LostParents


class Losses:
    """What one target lost on one shard."""

    def __init__(self, rule: Rule, target: Target, context: ShardContext) -> None:
        self._rule = rule
        self._target = target
        self._context = context
        self.gate = GapGate(rule, target, context)
        self._parents = LostParents(target, context, self.gate)
        self._mark: Mark | None = None
        """The first record at the horizon as the target last saw it."""

    # -- before the first record ---------------------------------------------------------------------------------------

    async def begin(self, start: TargetStart, stop: asyncio.Event) -> Position | None:
        """Note where a target begins that is new here; wait behind what it lost before.

        Returns where to go on reading behind a loss, None when the stored position decides that.
        """
        self.gate.stop = stop
        if not self._context.progress.has_begun(self._target):
            await self._parents.pass_by(start)
            whole = await self._stands_whole(start)
            begin = beginning(self._context.row, self._target.target_id, start.started_at, whole=whole)
            self._context.progress.moved(self._target, begin)
            self._context.ports.observer.stands(self._context.place(self._target), begin)
        if not await self._is_lost(start):
            return None
        error = RecordsTrimmed(
            f"The oldest records of shard {self._context.lease.shard_id} left the stream before they were read."
        )
        return await self.behind(HORIZON, error)

    async def _stands_whole(self, start: TargetStart) -> bool:
        """Whether the shard's first record can be read, if the target's beginning depends on that."""
        asks = self._rule.start is Start.TRIM_HORIZON and may_stand_whole(
            self._context.row, self._target.target_id, start.started_at
        )
        return asks and await self._context.reader.reaches(BEGINNING)

    async def _is_lost(self, start: TargetStart) -> bool:
        """Whether something was lost that reading from the target's position will not show."""
        place, position = self._place, self._context.progress.position(self._target)
        if place.sequence is not None:  # behind a number the stream itself reports a loss, if reading begins there
            return position.sequence is None and await self._is_gone(place)
        ports, row = self._context.ports, self._context.row
        kept = ports.stream.kept_seconds(self._context.lease.stream) or RETENTION_SECONDS
        overdue = is_overdue(row, self._target.target_id, start.started_at, ports.servers.latest(), kept)
        if place != HORIZON or not overdue:
            return False
        return not await self._context.reader.reaches(BEGINNING)

    @property
    def _place(self) -> Position:
        position, target_id = self._context.progress.position(self._target), self._target.target_id
        return place_of(position, self._context.row.rewinds.get(target_id))

    async def _is_gone(self, place: Position) -> bool:
        """Whether nothing can be read from a place any more, as several answers in a row say."""
        return await self.gate.never_again(lambda: self._context.reader.reaches(place))

    # -- at the horizon ------------------------------------------------------------------------------------------------

    async def hidden(self, behind: Position, first: SequenceNumber | None) -> bool:
        """Whether the target lost records before a page that was read behind a place without a number.

        `first`: the page's first record; None when it is empty, and the shard's end.
        """
        lost = behind.sequence is None and await self._hides(behind, first)
        if not lost:
            self.gate.passed()
        return lost

    async def _hides(self, behind: Position, first: SequenceNumber | None) -> bool:
        place = self._place
        verdict = judge(place, behind, self._mark, first)
        if verdict is Verdict.ASK:
            return await self._is_gone(place)
        if verdict is Verdict.WHOLE and behind == HORIZON:
            self._mark = Mark(place, first)
        return verdict is Verdict.LOST

    # -- behind a place ------------------------------------------------------------------------------------------------

    async def behind(self, position: Position, error: RecordsTrimmed) -> Position:
        """Record that what came behind a position is gone; wait until that may be.

        Returns where to go on: END when the shard is gone.
        """
        reader = self._context.reader
        is_gone = isinstance(error, ShardGone)
        until: Position | None = None
        lost: list[Gap] = []

        async def look() -> list[Gap]:
            nonlocal until, lost
            until, place = END if is_gone else await reader.first_left(), self._place
            # A rewound target may have got what is gone where it is read again: its own place is asked for itself.
            is_lost = place != END and (place == position or not await reader.reaches(place))
            lost = [self.gate.gap(place, until, error.message)] if is_lost else []
            return lost

        async def is_back() -> bool:
            return position != HORIZON and await reader.reaches(position)

        if await self.gate.wait(look, error, is_back):
            return position
        # What begins behind the place that was shown has lost more than that.
        for gap in lost:
            self._mark = Mark(gap.after, None if until is None else until.sequence)
        return END if is_gone else HORIZON
