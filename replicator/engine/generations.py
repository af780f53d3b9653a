"""A table's streams, one behind the other: which one is read now, and what passes over to its successor.

Invariant: the oldest stream that was begun and not drained is always remembered, so that a restart goes on there; its
successor is remembered before it is let go.
"""

from __future__ import annotations

from collections.abc import Sequence

from replicator.domain.progress import END
from replicator.domain.records import RegionId, ShardId, TableName
from replicator.domain.rules import Rule, Target
from replicator.engine.shard import ShardPorts
from replicator.ports import Gap, StreamRef

EVERY_SHARD = ShardId("every shard")
"""Where a gap lies that is behind a whole stream."""


class Generations:
    """The streams of one table, as its rules read them."""

    def __init__(self, region: RegionId, table: TableName, rules: Sequence[Rule], ports: ShardPorts) -> None:
        self._region = region
        self._table = table
        self._rules = rules
        self._ports = ports

    async def first(self) -> StreamRef:
        """The oldest stream that was begun and not drained, else the present one."""
        undrained = await self._ports.registry.streams(self._region, self._table)
        ref = undrained[0] if undrained else await self._ports.stream.current(self._table)
        await self._ports.registry.remember_stream(ref, drained=False)
        return ref

    async def is_drained(self, ref: StreamRef) -> bool:
        """Whether some worker found that a stream is read to its end and has a successor."""
        undrained = await self._ports.registry.streams(self._region, self._table)
        return bool(undrained) and all(each.arn != ref.arn for each in undrained)

    async def successor(self, ref: StreamRef) -> StreamRef | None:
        """The next stream that can be read, whoever has seen it before; None when there is none yet."""
        readable = await self._ports.stream.streams(self._table)
        newer = [each for each in readable if each.generation > ref.generation]
        if newer:
            return min(newer, key=lambda each: each.generation)
        current = await self._ports.stream.current(self._table)
        return None if current.arn == ref.arn else current

    async def pass_on(self, ref: StreamRef, successor: StreamRef) -> None:
        """Let targets go on with the successor as if they had started on it; twice is once.

        The successor holds changes from before its first reading, so a start at the latest must not begin anew with it.
        """
        starts = await self._ports.registry.starts(ref)
        for target in (target for rule in self._rules for target in rule.targets):
            if target.target_id in starts:
                started_at = starts[target.target_id].started_at
                await self._ports.registry.start(successor, target, started_at=started_at)
                await self._record_break(ref, target)
        await self._ports.registry.remember_stream(successor, drained=False)
        await self._ports.registry.remember_stream(ref, drained=True)

    async def _record_break(self, ref: StreamRef, target: Target) -> None:
        """No stream tells what was written between two streams of a table, so the place is recorded as a gap."""
        gap = Gap(
            stream=ref,
            shard_id=EVERY_SHARD,
            target_id=target.target_id,
            after=END,
            until=None,
            found_at=self._ports.clock.now(),
            why="The stream was replaced; what was written while the table had none, or another, was never recorded.",
        )
        await self._ports.registry.record_gap(gap)
        self._ports.observer.gap_found(gap)
