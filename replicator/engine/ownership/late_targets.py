"""Shards that targets come to when others have read them already: whether they still are in the stream.

A target that starts late cannot miss a shard that was gone by then, and rows outlive their shards for a while.
Invariant: such a target is let to a shard only when the shard could be read a moment before.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection

from replicator.domain.errors import RecordsTrimmed, ReplicatorError, ShardGone
from replicator.domain.identifiers import ShardId
from replicator.domain.progress import HORIZON
from replicator.domain.shards.leases import StreamRef
from replicator.ports.sources import Stream

_AT_ONCE = 16
_PER_LOOK = 256


class Latecomers:
    """What was asked about one stream's shards."""

    def __init__(self, ref: StreamRef, stream: Stream) -> None:
        self._ref = ref
        self._stream = stream
        self.readable: set[ShardId] = set()
        """Shards that could be read when they were asked for."""

    async def look(self, shard_ids: Collection[ShardId]) -> bool:
        """Ask for shards that are not known to be readable; returns whether one is. What is gone is asked again."""
        self.readable &= set(shard_ids)
        asked = sorted(set(shard_ids) - self.readable)[:_PER_LOOK]
        before = len(self.readable)
        turns = asyncio.Semaphore(_AT_ONCE)
        troubles: list[ReplicatorError] = []
        async with asyncio.TaskGroup() as group:
            for shard_id in asked:
                group.create_task(self._ask(shard_id, turns, troubles), name=f"ask for {shard_id}")
        for trouble in troubles:
            raise trouble
        return len(self.readable) > before

    async def _ask(self, shard_id: ShardId, turns: asyncio.Semaphore, troubles: list[ReplicatorError]) -> None:
        async with turns:
            try:
                await self._stream.iterator(self._ref, shard_id, HORIZON)
            except ShardGone:
                return
            except RecordsTrimmed:
                pass
            except ReplicatorError as error:
                troubles.append(error)
                return
            self.readable.add(shard_id)
