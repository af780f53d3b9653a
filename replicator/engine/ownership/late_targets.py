"""Shards that targets come to when others have read them already: whether they still are in the stream.

A target that starts late cannot miss a shard that was gone by then, and rows outlive their shards for a while.
Invariant: such a target is let to a shard only when the shard could be read a moment before.
"""

from __future__ import annotations

from collections.abc import Collection

from replicator.domain.errors import RecordsTrimmed, ShardGone
from replicator.domain.identifiers import ShardId
from replicator.domain.progress import HORIZON
from replicator.domain.shards.leases import StreamRef
from replicator.engine.bounded import each, raise_first
from replicator.ports.sources import Stream

_AT_ONCE = 16
_PER_LOOK = 256


class LateTargets:
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
        raise_first(await each(asked, self._ask, at_once=_AT_ONCE, name="ask for a shard"))
        return len(self.readable) > before

    async def _ask(self, shard_id: ShardId) -> None:
        try:
            await self._stream.iterator(self._ref, shard_id, HORIZON)
        except ShardGone:
            return
        except RecordsTrimmed:
            pass
        self.readable.add(shard_id)
