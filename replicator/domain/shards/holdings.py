"""What this process reads of all that the group reads, as its part of what all workers share.

Invariant: as long as workers agree on what is to be read and on who lives, their parts are together at most the whole.
What is read here counts as it is at the moment; what others read as the rows showed it last.
"""

from __future__ import annotations

from collections.abc import Collection

from msgspec import Struct

from replicator.domain.identifiers import RegionId, ShardId, TableName
from replicator.domain.shards.leases import StreamRef

_BY_HEADS = 0.1
"""Part that is divided by heads: a worker without a shard may have to bring what is owed."""


class _Held(Struct, frozen=True):
    """`ours` is a view of what is read here now."""

    ours: Collection[ShardId]
    total: int


class Holdings:
    """The shards of every stream, as the coordinators of a process see them."""

    def __init__(self) -> None:
        self._held: dict[StreamRef, _Held] = {}
        self._workers = 1

    def tell(self, stream: StreamRef, ours: Collection[ShardId], total: int, workers: int) -> None:
        """What is to be read of a stream: `ours` is a live view. `workers`: how many live, ourselves included."""
        self._held[stream] = _Held(ours, total)
        self._workers = max(1, workers)

    def leave(self, stream: StreamRef, ours: Collection[ShardId]) -> None:
        """A coordinator looks at its stream no more; another one may already."""
        held = self._held.get(stream)
        if held is not None and held.ours is ours:
            del self._held[stream]

    def share(self, tables: Collection[tuple[RegionId, TableName]]) -> float:
        """Our part, from 0 to 1, of what is written for the streams of some tables."""
        ours = total = 0
        for stream, held in self._held.items():
            if (stream.region, stream.table) in tables:
                here = len(held.ours)
                ours += here
                total += max(here, held.total)
        by_shards = ours / total if total else 0.0
        return (1 - _BY_HEADS) * by_shards + _BY_HEADS / self._workers
