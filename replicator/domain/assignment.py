"""Which shards a worker should claim, as a pure plan.

Invariant: a plan never takes a shard from an owner that is alive; the coordination store decides races.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from replicator.domain.progress import Position
from replicator.domain.records import ShardId, WorkerId


@dataclass(frozen=True, slots=True)
class LeaseRow:
    """One shard's row in the coordination table: who owns it, the fencing token, one checkpoint per target."""

    shard_id: ShardId
    owner: WorkerId | None
    epoch: int
    checkpoints: Mapping[str, Position]


def claimable(
    wanted: Iterable[ShardId],
    rows: Mapping[ShardId, LeaseRow],
    expired: Collection[WorkerId],
    *,
    at_most: int,
) -> list[ShardId]:
    """Shards of `wanted`, in that order, that nobody owns or whose owner's lease has expired."""
    free = []
    for shard_id in wanted:
        row = rows.get(shard_id)
        if row is None or row.owner is None or row.owner in expired:
            free.append(shard_id)
    return free[:at_most]
