"""What the targets of one rule lost on one shard: each judged by its own place, before it goes on.

Invariant: reading never passes a loss of any target before it is at the gate. A target that begins on a shard is noted
as standing at the shard's beginning where that is still there, so that a loss before its first record shows; at the
horizon, where no place shows what is missing, the first record there and time do. A rewind excuses what was read before
it and left the stream, and nothing else.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

from replicator.domain.errors import RecordsTrimmed, ShardGone
from replicator.domain.gaps import Gap
from replicator.domain.identifiers import SequenceNumber
from replicator.domain.progress import BEGINNING, END, HORIZON, Position, earliest
from replicator.domain.rules import Rule, Start, Target
from replicator.domain.shards.leases import TargetStart
from replicator.domain.shards.owed import Mark, Verdict, beginning, is_overdue, judge, may_stand_whole, place_of
from replicator.domain.targets import TargetId
from replicator.engine.shard.context import ShardContext
from replicator.engine.shard.gap_gate import GapGate
from replicator.engine.shard.lost_parents import LostParents


class Losses:
    """What one rule lost on one shard."""

    def __init__(self, rule: Rule, context: ShardContext) -> None:
        self._rule = rule
        self._context = context
        self.gate = GapGate(rule, context)
        self._parents = LostParents(context, self.gate)
        self._marks: dict[TargetId, Mark] = {}
        """The first record at the horizon as each target last saw it, by target id."""

    # -- before the first record ---------------------------------------------------------------------------------------

    async def begin(self, starts: Mapping[TargetId, TargetStart], stop: asyncio.Event) -> Position | None:
        """Note where targets begin that are new here; wait behind what any target lost before.

        Returns where to go on reading behind a loss, None when the stored positions decide that.
        """
        self.gate.stop = stop
        new = [target for target in self._rule.targets if not self._context.progress.has_begun(target)]
        await self._parents.pass_by(new, starts)
        whole = await self._stands_whole(new, starts)
        for target in new:
            started_at = starts[target.target_id].started_at
            begin = beginning(self._context.row, target.target_id, started_at, whole=whole)
            self._context.progress.moved(target, begin)
            self._context.ports.observer.stands(self._context.place(target), begin)
        at = earliest(map(self._context.progress.position, self._rule.targets))
        lost = [each for each in self._rule.targets if await self._is_lost(each, starts[each.target_id], at)]
        if not lost:
            return None
        error = RecordsTrimmed(
            f"The oldest records of shard {self._context.lease.shard_id} left the stream before they were read."
        )
        return await self._behind(HORIZON, error, lost)

    async def _stands_whole(self, new: Sequence[Target], starts: Mapping[TargetId, TargetStart]) -> bool:
        """Whether a shard's first record can be read, if some new target's beginning depends on that."""
        row = self._context.row
        asks = self._rule.start is Start.TRIM_HORIZON and any(
            may_stand_whole(row, target.target_id, starts[target.target_id].started_at) for target in new
        )
        return asks and await self._context.reader.reaches(BEGINNING)

    async def _is_lost(self, target: Target, start: TargetStart, at: Position) -> bool:
        """Whether a target lost something that reading from `at` will not show."""
        place = self._place(target)
        if place.sequence is not None:  # behind a number the stream itself reports a loss, if reading begins there
            shown = at.sequence is not None and self._context.progress.position(target) != HORIZON
            return not shown and await self._is_gone(place)
        now = self._context.ports.clock.now()
        if place != HORIZON or not is_overdue(self._context.row, target.target_id, start.started_at, now):
            return False
        return not await self._context.reader.reaches(BEGINNING)

    def _place(self, target: Target) -> Position:
        return place_of(self._context.progress.position(target), self._context.row.rewinds.get(target.target_id))

    async def _is_gone(self, place: Position) -> bool:
        """Whether nothing can be read from a place any more, as several answers in a row say."""
        return await self.gate.never_again(lambda: self._context.reader.reaches(place))

    # -- at the horizon ------------------------------------------------------------------------------------------------

    async def hidden(self, behind: Position, first: SequenceNumber | None) -> list[Target]:
        """Targets that lost records before a page that was read behind a place without a number.

        `first`: the page's first record; None when it is empty, and the shard's end.
        """
        if behind.sequence is not None:
            self.gate.passed()
            return []
        lost = [target for target in self._rule.targets if await self._hides(target, behind, first)]
        if not lost:
            self.gate.passed()
        return lost

    async def _hides(self, target: Target, behind: Position, first: SequenceNumber | None) -> bool:
        place = self._place(target)
        verdict = judge(place, behind, self._marks.get(target.target_id), first)
        if verdict is Verdict.ASK:
            return await self._is_gone(place)
        if verdict is Verdict.WHOLE and behind == HORIZON:
            self._marks[target.target_id] = Mark(place, first)
        return verdict is Verdict.LOST

    # -- behind a place ------------------------------------------------------------------------------------------------

    async def behind(self, position: Position, error: RecordsTrimmed, targets: Sequence[Target] = ()) -> Position:
        """Record that what came behind a position is gone, for every target that needed it; wait until that may be.

        `targets`: those that are known to have lost something; none: all that are there. Returns where to go on: END
        when the shard is gone.
        """
        return await self._behind(position, error, targets or self._rule.targets)

    async def _behind(self, position: Position, error: RecordsTrimmed, targets: Sequence[Target]) -> Position:
        reader = self._context.reader
        is_gone = isinstance(error, ShardGone)
        known = {target.target_id for target in targets}
        until: Position | None = None
        lost: list[Gap] = []

        async def look() -> list[Gap]:
            nonlocal until, lost
            until = END if is_gone else await reader.first_left()
            lost = [
                self.gate.gap(target, place, until, error.message)
                for target, place in [(each, self._place(each)) for each in self._rule.targets]
                # At the place that failed only the targets named lost something; any other place is asked for itself.
                if place != END
                and ((place == position and target.target_id in known) or not await reader.reaches(place))
            ]
            return lost

        async def is_back() -> bool:
            return position != HORIZON and await reader.reaches(position)

        if await self.gate.wait(look, error, is_back):
            return position
        # What begins behind the place that was shown has lost more than that.
        for gap in lost:
            self._marks[gap.target_id] = Mark(gap.after, None if until is None else until.sequence)
        return END if is_gone else HORIZON
