"""Which shards a worker should claim and which it should hand over, as a pure plan.

Every worker plans for itself from what it sees; no leader stands in the way. Invariant: a plan never takes a shard from
an owner that is alive; the coordination store decides races, by the epoch.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field

from replicator.domain.lineage import Shard
from replicator.domain.progress import Position
from replicator.domain.records import ShardId, WorkerId


@dataclass(frozen=True, slots=True)
class Rewind:
    """What a rewound target skips on a shard: records older than `before`, up to `until`, where it had been.

    `before` is in seconds since 1970. Behind `until` nothing is skipped, so a target that lagged loses nothing.
    """

    before: float
    until: Position


@dataclass(frozen=True, slots=True)
class LeaseRow:
    """One shard's row in the coordination table: what it is, who owns it, the fencing token, a checkpoint per target.

    `found_at`: when a discoverer first saw the shard, in seconds since 1970 by its clock. `vanished`: the stream lists
    it no more.
    """

    shard: Shard
    owner: WorkerId | None = None
    epoch: int = 0
    checkpoints: Mapping[str, Position] = field(default_factory=dict)
    rewinds: Mapping[str, Rewind] = field(default_factory=dict)
    found_at: float = 0.0
    vanished: bool = False

    @property
    def shard_id(self) -> ShardId:
        """The shard's id."""
        return self.shard.shard_id


@dataclass(frozen=True, slots=True)
class Load:
    """How many unfinished shards, over all streams of the group, there are and who holds them."""

    total: int
    held: Mapping[WorkerId, int]


@dataclass(frozen=True, slots=True)
class Free:
    """A shard that may be claimed: nobody owns it, or its owner is dead.

    `ours`: we read its parent to the end. `waiting_seconds`: for how long we have seen it free.
    """

    shard_id: ShardId
    ours: bool = False
    waiting_seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Plan:
    """What a worker does next: shards to claim, in this order, and shards to hand over."""

    claims: tuple[ShardId, ...]
    releases: tuple[ShardId, ...]


@dataclass(frozen=True, slots=True)
class Bounds:
    """Bounds of one cycle."""

    claims: int = 64
    moves: int = 8
    patience_seconds: float = 5.0
    """A shard that stayed free for so long is claimed beyond one's share: whoever should have it may be unable."""


def plan(
    free: Iterable[Free],
    owned: Collection[ShardId],
    load: Load,
    *,
    me: WorkerId,
    live: Collection[WorkerId],
    bounds: Bounds,
) -> Plan:
    """What to claim and what to hand over in one cycle of one stream.

    `owned`: shards of this stream that we read now. `live`: workers that beat, ourselves included. The fair share is
    counted over all streams. Claims go up to the share (rounded up), children of our own shards first, the rest in an
    order of our own, so that workers seldom want the same one; what waited for `patience_seconds` is claimed whatever
    the share. We hand over only what is above our share while somebody is below theirs, at most `moves` per cycle.
    """
    raise NotImplementedError
