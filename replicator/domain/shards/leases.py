"""Leases, seats, starts and streams as the coordination table stores them: values without behaviour of their own."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from replicator.domain.errors import WorldMismatch
from replicator.domain.identifiers import RegionId, RuleName, ShardId, TableName, WorkerId
from replicator.domain.progress import Position
from replicator.domain.shards.lineage import Shard
from replicator.domain.shards.statements import Statements
from replicator.domain.targets import TargetId


class Rewind(msgspec.Struct, frozen=True):
    """What a rewound target skips on a shard: records older than `before`, up to `until`, where it had been.

    `before` is in seconds since 1970. Behind `until` nothing is skipped, so a target that lagged loses nothing.
    """

    before: float
    until: Position


class LeaseRow(msgspec.Struct, frozen=True):
    """One shard's row in the coordination table: what it is, its owner, the fencing token, a checkpoint per target.

    `serves`: all targets that the owner runs on the stream; none when it is of an earlier version. `found_at`: when a
    discoverer first saw the shard, by the clock that starts are noted by. `vanished`: the stream lists it no more, as
    was noted at `vanished_at`, by the same clock; None in a row of an earlier version. `seized_at`: when it was last
    taken from an owner that did not give it back, in seconds since 1970; None: never. `keeps`: which cache entries were
    kept in step up to a target's checkpoint (`kept_entries`); an earlier version noted none.
    """

    shard: Shard
    owner: WorkerId | None = None
    epoch: int = 0
    checkpoints: Mapping[TargetId, Position] = msgspec.field(default_factory=dict)
    rewinds: Mapping[TargetId, Rewind] = msgspec.field(default_factory=dict)
    serves: frozenset[TargetId] = frozenset()
    found_at: float = 0.0
    vanished: bool = False
    vanished_at: float | None = None
    seized_at: float | None = None
    keeps: Mapping[TargetId, str] = msgspec.field(default_factory=dict)

    @property
    def shard_id(self) -> ShardId:
        """The shard's id."""
        return self.shard.shard_id


class StreamRef(msgspec.Struct, frozen=True):
    """One stream of one source table. The region id is part of its identity: ARNs alone may collide."""

    region: RegionId
    table: TableName
    arn: str
    generation: int
    """Milliseconds since 1970 of its creation (versions.generation_of)."""

    @property
    def kinesis(self) -> str:
        """The name of the Kinesis stream that it is; empty of a table's own stream."""
        arn, _, _ = self.arn.rpartition(f"/{self.table}/")
        return arn.rpartition(":stream/")[2] if ":kinesis:" in arn else ""

    @property
    def where(self) -> str:
        """The table, for people."""
        return f"{self.region}:{self.table}"


class Lease(msgspec.Struct, frozen=True):
    """A shard that is ours for now: `epoch` fences every checkpoint."""

    stream: StreamRef
    shard_id: ShardId
    owner: WorkerId
    epoch: int


class TargetStart(msgspec.Struct, frozen=True):
    """When a target first started on a stream: `started_at` is the server's time then, in seconds since 1970.

    `members`: those of a mesh, as `Target.parts`.
    """

    target_id: TargetId
    started_at: float
    members: frozenset[str] = frozenset()

    @property
    def rule(self) -> RuleName:
        """The rule that it belongs to."""
        return self.target_id.rule


class Seat(msgspec.Struct, frozen=True):
    """The worker that discovers a stream's shards. The owner's heartbeat keeps it; an expired owner's may be taken."""

    owner: WorkerId | None
    epoch: int


class StreamState(msgspec.Struct, frozen=True):
    """Everything that is stored about one stream, read consistently."""

    rows: Mapping[ShardId, LeaseRow]
    seat: Seat | None
    starts: Mapping[TargetId, TargetStart]
    at: float
    """The server's time of this reading, in seconds since 1970: starts of targets are noted by the same clock."""
    unreadable: WorldMismatch | None = None
    """What is wrong with a row that was left out; such a shard cannot be claimed, and the stream not be drained."""


LEAVING = -1
"""`Pulse.news` of a worker that is about to leave is this or less."""


class Pulse(msgspec.Struct, frozen=True):
    """A worker's sign of life. `news` changes when other workers should look at the rows: shards freed or found."""

    beat: int
    news: int = 0
    admin: str = ""
    """Where its admin server listens, `http://host:port`; for people and `replicator status`."""
    through: Statements = msgspec.field(default_factory=dict)
    """Up to when targets have everything on what it reads; two are equal without it."""

    def __eq__(self, other: object) -> bool:
        return self._sign == other._sign if isinstance(other, Pulse) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._sign)

    @property
    def _sign(self) -> tuple[int, int, str]:
        return self.beat, self.news, self.admin

    @property
    def leaving(self) -> bool:
        """Whether the worker stops and wants no more shards."""
        return self.news <= LEAVING


class KnownStream(msgspec.Struct, frozen=True):
    """A stream that was read before, and the targets that are through with it.

    Earlier versions noted `rules`, for all of their targets, or that the stream is `closed`, for all rules.
    `kept_seconds`: how long it keeps records, as a reader saw last; None: DynamoDB's day.
    """

    ref: StreamRef
    drained: frozenset[TargetId] = frozenset()
    rules: frozenset[RuleName] = frozenset()
    closed: bool = False
    kept_seconds: float | None = None

    def is_drained(self, target_id: TargetId) -> bool:
        """Whether a target is through with the stream."""
        return self.closed or target_id in self.drained or target_id.rule in self.rules
