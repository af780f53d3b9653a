"""Ports: what the engine needs of the outside, one small Protocol each.

Every effect is at-least-once and every write is conditional, so a port may be asked the same thing twice. A method that
returns has made its effect durable; one that raises a `ReplicatorError` may or may not have.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Protocol

from replicator.domain.assignment import LeaseRow
from replicator.domain.conflicts import ConflictEntry
from replicator.domain.errors import ReplicatorError, WorldMismatch
from replicator.domain.lineage import Shard
from replicator.domain.ordered import Effect
from replicator.domain.progress import Position
from replicator.domain.records import ChangeRecord, RegionId, RuleName, SequenceNumber, ShardId, TableName, WorkerId
from replicator.domain.requests import Request, Response
from replicator.domain.rules import CacheAction, Target


@dataclass(frozen=True, slots=True)
class StreamRef:
    """One stream of one source table. The region id is part of its identity: ARNs alone may collide."""

    region: RegionId
    table: TableName
    arn: str
    generation: int
    """Milliseconds since 1970 of its creation (versions.generation_of)."""


@dataclass(frozen=True, slots=True)
class RecordPage:
    """One answer of a shard. `next_iterator` None: the shard is closed and this was its last page."""

    records: tuple[ChangeRecord, ...]
    next_iterator: str | None


@dataclass(frozen=True, slots=True)
class ShardPage:
    """One page of a stream's listing. `last` None: nothing follows; else the next page starts behind it."""

    shards: tuple[Shard, ...]
    last: ShardId | None


@dataclass(frozen=True, slots=True)
class Lease:
    """A shard that is ours for now: `epoch` fences every checkpoint."""

    stream: StreamRef
    shard_id: ShardId
    owner: WorkerId
    epoch: int

    @property
    def shown(self) -> str:
        """The shard for people, and in the name of every service of it: shard ids alone may collide."""
        return f"shard {self.shard_id} of {self.stream.table} in {self.stream.region}"


@dataclass(frozen=True, slots=True)
class TargetStart:
    """When a target first started on a stream: `started_at` is the server's time then, in seconds since 1970."""

    rule: RuleName
    target_id: str
    started_at: float


class Fence(Protocol):
    """Stands before every send."""

    def check(self) -> None:
        """Raise `LeaseLost` when the lease's deadline has passed; suspended time counts."""


class Clock(Protocol):
    """Time, as far as the engine needs it."""

    def now(self) -> float:
        """Seconds since 1970; for lags only."""

    def monotonic(self) -> float:
        """Seconds of a clock that never jumps and counts suspended time."""


class Stream(Protocol):
    """The streams of one region."""

    async def current(self, table: TableName) -> StreamRef:
        """The table's present stream; `WorldMismatch` when there is none that can be used."""

    async def streams(self, table: TableName) -> list[StreamRef]:
        """Every stream of a table that can still be read, oldest first; the present one is the last."""

    async def shard_page(self, stream: StreamRef, after: ShardId | None) -> ShardPage:
        """One page of the listing, behind shard `after`; `ShardGone` when the stream is gone."""

    async def children(self, stream: StreamRef, parent: ShardId) -> list[Shard] | None:
        """The listed children of a closed shard; None when the endpoint cannot filter (then list instead)."""

    async def iterator(
        self, stream: StreamRef, shard_id: ShardId, position: Position, first: SequenceNumber | None = None
    ) -> str:
        """A shard iterator right behind `position`; `RecordsTrimmed` when that place is gone, `ShardGone`.

        `first` asks, together with the horizon, for the shard's very first record: `RecordsTrimmed` when it is gone.
        """

    async def read(self, iterator: str, limit: int) -> RecordPage:
        """The next page; may be empty long before the end. `IteratorExpired`, `RecordsTrimmed`."""


class Region(Protocol):
    """One region's table and its side rows."""

    async def execute(self, request: Request, fence: Fence) -> Response:
        """Carry a request out; the fence is checked right before the send."""


class Cache(Protocol):
    """One cache beside a region's table."""

    async def apply(self, actions: Sequence[CacheAction]) -> int:
        """Carry the actions out; returns how many entries changed."""


class ConflictLog(Protocol):
    """Conflict entries: data, durable before the checkpoint passes the record."""

    async def write(self, entry: ConflictEntry) -> None:
        """Make the entry durable; an entry whose id is there already stays as it was."""


@dataclass(frozen=True, slots=True)
class Seat:
    """Who discovers a stream's shards. The owner's heartbeat keeps it; an expired owner's may be taken."""

    owner: WorkerId | None
    epoch: int


@dataclass(frozen=True, slots=True)
class StreamState:
    """Everything that is stored about one stream, read consistently."""

    rows: Mapping[ShardId, LeaseRow]
    seat: Seat | None
    starts: Mapping[str, TargetStart]
    at: float
    """The server's time of this reading, in seconds since 1970: starts of targets are noted by the same clock."""
    unreadable: WorldMismatch | None = None
    """What is wrong with a row that was left out; such a shard cannot be claimed, and the stream not be drained."""


class Coordination(Protocol):
    """Lineage, leases and progress: one row per shard, because a checkpoint is conditional on the lease's epoch."""

    async def state(self, stream: StreamRef) -> StreamState:
        """All of a stream's rows."""

    async def discover(self, stream: StreamRef, shards: Sequence[Shard], found_at: float) -> None:
        """Store shards: a new row for an unknown one, what is new about a known one. Knowledge only grows."""

    async def mark_vanished(self, stream: StreamRef, shard_id: ShardId) -> None:
        """Note that the stream lists a shard no more."""

    async def claim(self, stream: StreamRef, seen: LeaseRow, owner: WorkerId) -> LeaseRow | None:
        """Take a shard if its row still has the owner and epoch of `seen`; None when somebody was faster."""

    async def save(self, lease: Lease, checkpoints: Mapping[str, Position]) -> None:
        """Store positions by target id; `LeaseLost` unless owner and epoch still are ours.

        A position at or behind the `until` of a target's rewind takes that rewind away.
        """

    async def release(self, lease: Lease) -> None:
        """Give the shard back; quiet when it is no longer ours."""

    async def forget(self, stream: StreamRef, row: LeaseRow) -> None:
        """Delete the row of a finished shard that the stream no longer lists; quiet when it changed meanwhile."""

    async def take_seat(self, stream: StreamRef, seen: Seat | None, owner: WorkerId | None) -> bool:
        """Take (or, with no owner, leave) the discoverer's seat if it still is as `seen`; False if it is not."""


LEAVING = -1
"""`Pulse.news` of a worker that is about to leave is this or less."""


@dataclass(frozen=True, slots=True)
class Pulse:
    """A worker's sign of life. `news` changes when other workers should look at the rows: shards freed or found."""

    beat: int
    news: int = 0
    admin: str = ""
    """Where its admin server listens, `http://host:port`; for people and `replicator status`."""

    @property
    def leaving(self) -> bool:
        """Whether the worker stops and wants no more shards."""
        return self.news <= LEAVING


class Membership(Protocol):
    """Workers and their heartbeats: one write per worker, not one per shard."""

    async def beat(self, worker: WorkerId, pulse: Pulse) -> None:
        """Show a sign of life."""

    async def members(self) -> dict[WorkerId, Pulse]:
        """Every worker's last pulse."""

    async def leave(self, worker: WorkerId) -> None:
        """Remove a worker's row."""

    async def paused(self) -> frozenset[RuleName]:
        """Rules that an operator has paused."""


class Registry(Protocol):
    """What is known about streams beside their shards: targets' starts, and gaps."""

    async def starts(self, stream: StreamRef) -> dict[str, TargetStart]:
        """Targets that ever started on this stream, by target id."""

    async def start(self, stream: StreamRef, target: Target, *, started_at: float | None = None) -> TargetStart:
        """Store the start of a target (None: the server's time now) unless one is stored; returns what is stored."""

    async def record_gap(self, gap: Gap) -> None:
        """Store a loss interval; the same gap (`Gap.gap_id`) with the same end again changes nothing.

        With another `until` it has grown: that is stored, and an acknowledgement is withdrawn, because it was given for
        something else. When and why it was found first stays.
        """

    async def acknowledged(self, gap: Gap) -> bool:
        """Whether an operator accepted the loss up to this very `until`: a stopped target then goes on behind it."""

    async def streams(self, region: RegionId, table: TableName) -> list[KnownStream]:
        """Streams of this table that were read before, oldest first."""

    async def remember_stream(self, stream: StreamRef, drained: Collection[RuleName] = ()) -> None:
        """Note that a stream is being read, and which rules have read it to its end; what is noted stays."""


@dataclass(frozen=True, slots=True)
class KnownStream:
    """A stream that was read before, and the rules that are through with it; `closed` counts for every rule."""

    ref: StreamRef
    drained: frozenset[RuleName] = frozenset()
    closed: bool = False

    def is_drained(self, rule: RuleName) -> bool:
        """Whether a rule is through with the stream."""
        return self.closed or rule in self.drained


@dataclass(frozen=True, slots=True)
class Gap:
    """Records of a shard that were lost to one target before they were read: behind `after`, up to `until`.

    `until` is the first record that can still be read, END when nothing can, None when that is not known. It is no part
    of the gap's identity: while a target waits, more may leave the stream.
    """

    stream: StreamRef
    shard_id: ShardId
    target_id: str
    after: Position
    until: Position | None
    found_at: float
    why: str

    @property
    def gap_id(self) -> str:
        """12 hexadecimal digits; the same loss found again has the same id."""
        text = f"{self.stream.region}|{self.stream.arn}|{self.shard_id}|{self.target_id}|{self.after.text}"
        return sha256(text.encode()).hexdigest()[:12]


# -- observation ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Place:
    """Where something happened: a target of a rule on a shard."""

    stream: StreamRef
    shard_id: ShardId
    target: Target


@dataclass(frozen=True, slots=True)
class BatchReport:
    """One page of records, applied at one target."""

    place: Place
    records: int
    changes: int
    skipped: int
    effects: Mapping[Effect, int]
    adopted: int
    conflicts: Mapping[tuple[str, str], int]
    """Entries written, by kind and outcome."""
    cache_actions: int
    keyless: int
    retries: int
    position: Position
    lag_seconds: float | None
    took_seconds: float
    kept_removals: int = 0
    """Deletes of mode `active-active` that were settled behind a removal with a greater version (protocol.md, 5.3)."""


class Observer(Protocol):
    """Told what happened; may lose things, never decides anything."""

    def polled(self, stream: StreamRef, shard_id: ShardId, position: Position, records: int) -> None:
        """The records behind a position were asked for."""

    def batch_began(self, place: Place, oldest: float) -> None:
        """A page is about to be applied; `oldest` is the creation time of its oldest record."""

    def batch_applied(self, report: BatchReport) -> None:
        """A page is durable at a target."""

    def retrying(self, place: Place, error: ReplicatorError, attempt: int) -> None:
        """A request failed and will be repeated."""

    def blocked(self, place: Place, error: ReplicatorError, key: str | None) -> None:
        """A target cannot go on; `key` names the item that stands in the way."""

    def unblocked(self, place: Place) -> None:
        """A blocked target goes on."""

    def moved(self, place: Place, position: Position) -> None:
        """A target's frontier moved."""

    def checkpoint_saved(self, lease: Lease, positions: Mapping[str, Position]) -> None:
        """Positions were stored."""

    def shard_started(self, lease: Lease, rule: RuleName) -> None:
        """A rule started to read a shard."""

    def shard_stopped(self, lease: Lease, rule: RuleName, why: str) -> None:
        """A rule no longer reads a shard: finished, drained, or lease lost."""

    def shard_failed(self, lease: Lease, rule: RuleName, error: BaseException) -> None:
        """A shard's worker met an error that nobody expected."""

    def lease_claimed(self, lease: Lease) -> None:
        """A shard is ours."""

    def lease_ended(self, lease: Lease, why: str) -> None:
        """A shard is no longer ours: released, lost, finished."""

    def gap_found(self, gap: Gap) -> None:
        """Records were lost before they were read."""

    def gap_passed(self, gap: Gap, why: str) -> None:
        """A target goes on behind a gap: its rule skips, or an operator acknowledged the loss."""

    def stalled(self, lease: Lease, rule: RuleName, reason: str, remedy: str) -> None:
        """A shard is leased but does not progress, for longer than the bound; told again while it lasts."""

    def unstalled(self, lease: Lease, rule: RuleName) -> None:
        """It progresses again."""

    def iterator_expired(self, stream: StreamRef, shard_id: ShardId) -> None:
        """An iterator was derived anew."""

    def session_began(self, worker: WorkerId) -> None:
        """This process lives under a new worker id."""

    def cycle(self, stream: StreamRef | None, shards: int, owned: int, open_shards: int | None = None) -> None:
        """A cycle over a stream's shards was attempted: how many are known, how many are ours, how many get records."""

    def described(self, stream: StreamRef) -> None:
        """A stream was asked for shards: one DescribeStream call."""

    def paused(self, rules: Collection[RuleName]) -> None:
        """These rules are paused now, and no others; told again and again."""

    def service_failed(self, what: str, error: ReplicatorError) -> None:
        """A background service (discovery, heartbeat) failed and will be repeated."""

    def service_recovered(self, what: str) -> None:
        """The service works again."""
