"""Rows of streams that every rule has left, once the streams themselves are gone.

Invariant: only rows go that no rule can need: every target that ever started on the stream is through with it, but for
those that rules of this worker had before; no worker owns the row, and what it is about can be read no more. Starts
stay, as does the note that the stream was read.
"""

from __future__ import annotations

from collections.abc import Collection

from replicator.domain.shards.leases import KnownStream, StreamRef
from replicator.domain.targets import TargetId
from replicator.engine.shard.worker import ShardPorts

_LOOK_SECONDS = 600.0
"""Time between two looks; a stream goes a day after it was disabled."""

_ROWS_PER_LOOK = 256


class LeaseCleanup:
    """What is left of the streams before one stream of a table."""

    def __init__(self, ref: StreamRef, ports: ShardPorts, targets: Collection[TargetId]) -> None:
        """`targets`: those that this worker reads the table for."""
        self._ref = ref
        self._targets = frozenset(targets)
        self._rules = {target_id.rule for target_id in targets}
        self._ports = ports
        self._looked_at = ports.clock.monotonic()
        self._cleared: set[StreamRef] = set()

    async def clear(self) -> None:
        """Delete what no rule needs, a bounded number of rows now and then."""
        now = self._ports.clock.monotonic()
        if now - self._looked_at < _LOOK_SECONDS:
            return
        self._looked_at = now
        known = await self._ports.registry.streams(self._ref.region, self._ref.table)
        older = [each for each in known if each.ref.generation < self._ref.generation and each.ref not in self._cleared]
        if not older:
            return
        readable = {ref.arn for ref in await self._ports.stream.streams(self._ref.table)}
        left = _ROWS_PER_LOOK
        for each in older:
            if each.ref.arn not in readable and left > 0:
                left -= await self._clear(each, left)

    async def _clear(self, known: KnownStream, most: int) -> int:
        """Delete rows of one stream; returns how many."""
        state = await self._ports.coordination.state(known.ref)
        if not all(known.is_drained(target_id) for target_id in state.starts if self._is_needed(target_id)):
            return 0
        rows = [row for row in state.rows.values() if row.owner is None]
        for row in rows[:most]:
            await self._ports.coordination.forget(known.ref, row)
        if len(rows) <= most:
            self._cleared.add(known.ref)
        return len(rows[:most])

    def _is_needed(self, target_id: TargetId) -> bool:
        """Whether a target may still read: not what our own rules were with another table, or with other members."""
        return target_id in self._targets or target_id.rule not in self._rules
