"""Parents of a shard that were gone before any worker listed them: never read by a target that had started before.

Invariant: a parent that can be read still is waited for, and no gap.
"""

from __future__ import annotations

from replicator.domain.errors import RecordsTrimmed, ShardGone, WorldMismatch
from replicator.domain.gaps import Gap
from replicator.domain.identifiers import ShardId
from replicator.domain.progress import END, HORIZON
from replicator.domain.rules import Target
from replicator.domain.shards.leases import TargetStart
from replicator.domain.shards.owed import is_owed
from replicator.engine.shard.context import ShardContext
from replicator.engine.shard.gap_gate import GapGate


class LostParents:
    """What one target lost with the parents of one shard."""

    def __init__(self, target: Target, context: ShardContext, gate: GapGate) -> None:
        self._target_id = target.target_id
        self._context = context
        self._gate = gate
        self._orphaned_by = [parent for parent in context.row.shard.parents if not context.ends.known(parent)]
        """Parents that had no row when this began: lost, or not found again yet."""

    async def pass_by(self, start: TargetStart) -> None:
        """Wait behind what a target that is new on the shard lost before it."""
        if not is_owed(self._context.row, self._target_id, start.started_at):
            return
        gaps = [
            self._gate.gap(HORIZON, END, f"Shard {parent} was gone before it was found; its child was.", parent)
            for parent in self._orphaned_by
            if await self._is_lost(parent)
        ]

        async def look() -> list[Gap]:
            return gaps

        if gaps:
            await self._gate.wait(look, RecordsTrimmed(gaps[0].why))

    async def _is_lost(self, parent: ShardId) -> bool:
        """Whether a parent left the stream unread; raises while it can be read still and is not read to its end."""
        state = await self._context.ports.coordination.state(self._context.lease.stream)
        row = state.rows.get(parent)
        if row is not None and row.checkpoints.get(self._target_id) == END:
            return False
        if row is None and await self._gate.never_again(lambda: self._is_readable(parent)):
            return True
        raise WorldMismatch(
            f"Shard {self._context.lease.shard_id} waits for its parent {parent}, which is not read to its end.",
            advice="Nothing to do while the parent makes progress; the shard continues after the parent's last record.",
        )

    async def _is_readable(self, shard_id: ShardId) -> bool:
        self._context.fence.check()
        try:
            await self._context.ports.stream.iterator(self._context.lease.stream, shard_id, HORIZON)
        except ShardGone:
            return False
        except RecordsTrimmed:
            return True
        return True
