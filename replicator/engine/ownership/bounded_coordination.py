"""Coordination calls of a process, a bounded number at once.

A thousand shards that stop together must not stand between the heartbeat and its connection.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping, Sequence

from replicator.domain.identifiers import ShardId, WorkerId
from replicator.domain.progress import Position
from replicator.domain.shards.inheritance import Inherited
from replicator.domain.shards.leases import Lease, LeaseRow, Seat, StreamRef, StreamState
from replicator.domain.shards.lineage import Shard
from replicator.domain.targets import TargetId
from replicator.ports.coordination import Coordination

MOST_AT_ONCE = 16


class BoundedCoordination:
    """A `Coordination` whose calls about shards wait for each other; looks at a whole stream never wait."""

    def __init__(self, coordination: Coordination, turns: asyncio.Semaphore) -> None:
        self._coordination = coordination
        self._turns = turns

    async def state(self, stream: StreamRef) -> StreamState:
        """All of a stream's rows."""
        return await self._coordination.state(stream)

    async def discover(self, stream: StreamRef, shards: Sequence[Shard], found_at: float) -> None:
        """Store shards."""
        await self._coordination.discover(stream, shards, found_at)

    async def mark_vanished(self, stream: StreamRef, shard_id: ShardId, at: float) -> None:
        """Note that the stream lists a shard no more."""
        async with self._turns:
            await self._coordination.mark_vanished(stream, shard_id, at)

    async def claim(
        self, stream: StreamRef, seen: LeaseRow, owner: WorkerId, serves: Collection[TargetId] = (), at: float = 0.0
    ) -> LeaseRow | None:
        """Take a shard."""
        async with self._turns:
            return await self._coordination.claim(stream, seen, owner, serves, at)

    async def save(
        self, lease: Lease, checkpoints: Mapping[TargetId, Position], kept: Mapping[TargetId, str] | None = None
    ) -> None:
        """Store positions."""
        async with self._turns:
            await self._coordination.save(lease, checkpoints, kept)

    async def carry_over(self, stream: StreamRef, seen: LeaseRow, target_id: TargetId, place: Inherited) -> bool:
        """Put a target where others stood."""
        async with self._turns:
            return await self._coordination.carry_over(stream, seen, target_id, place)

    async def release(self, lease: Lease, read: Mapping[TargetId, Position] | None = None) -> None:
        """Give the shard back."""
        async with self._turns:
            await self._coordination.release(lease, read)

    async def forget(self, stream: StreamRef, row: LeaseRow) -> None:
        """Delete a row."""
        async with self._turns:
            await self._coordination.forget(stream, row)

    async def take_seat(self, stream: StreamRef, seen: Seat | None, owner: WorkerId | None) -> bool:
        """Take or leave the discoverer's seat."""
        return await self._coordination.take_seat(stream, seen, owner)
