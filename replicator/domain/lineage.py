"""The shard graph of a stream: what may be read now.

Invariant: a shard is ready only when every parent that can still be read has been applied to its end.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from replicator.domain.records import ShardId


@dataclass(frozen=True, slots=True)
class Shard:
    """A shard as the stream lists it; `closed`: it has an ending sequence number."""

    shard_id: ShardId
    parent: ShardId | None = None
    closed: bool = False


def merged(shards: Iterable[Shard]) -> dict[ShardId, Shard]:
    """Shards by id; a shard that has a child is closed, even if an inconsistent listing still shows it open."""
    by_id = {shard.shard_id: shard for shard in shards}
    parents = {shard.parent for shard in by_id.values()}
    return {
        shard_id: Shard(shard_id, shard.parent, closed=shard.closed or shard_id in parents)
        for shard_id, shard in by_id.items()
    }


def ready(shards: Mapping[ShardId, Shard], finished: Collection[ShardId]) -> list[ShardId]:
    """Unfinished shards whose parent is finished or no longer listed, parents first."""
    waiting = [
        shard for shard in shards.values() if shard.shard_id not in finished and not _blocked(shard, shards, finished)
    ]
    return [shard.shard_id for shard in sorted(waiting, key=lambda shard: (not shard.closed, shard.shard_id))]


def _blocked(shard: Shard, shards: Mapping[ShardId, Shard], finished: Collection[ShardId]) -> bool:
    return shard.parent is not None and shard.parent in shards and shard.parent not in finished
