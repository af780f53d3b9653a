"""What the engine reports: one call per event, which logs and counts."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Protocol

from msgspec import Struct

from replicator.domain.cache_horizons import Horizon
from replicator.domain.canary import Arrivals, CanaryPlace
from replicator.domain.conflicts import ConflictKind, Resolution
from replicator.domain.errors import ReplicatorError
from replicator.domain.gaps import Gap
from replicator.domain.identifiers import RegionId, RuleName, ShardId, TableName, WorkerId
from replicator.domain.jobs import Job, JobProgress
from replicator.domain.modes.ordered import Effect
from replicator.domain.owed_keys import OwedKey, OwedTo, Settlement
from replicator.domain.pacing import Pace
from replicator.domain.presence import Reason, Standing
from replicator.domain.progress import Position
from replicator.domain.rules import Target
from replicator.domain.shards.leases import Lease, StreamRef
from replicator.domain.shards.standstill import Standstill
from replicator.domain.targets import TargetId
from replicator.domain.write_units import UnitBucket
from replicator.ports.services import ServiceId


class Place(Struct, frozen=True):
    """Where something happened: a target of a rule on a shard."""

    stream: StreamRef
    shard_id: ShardId
    target: Target


class BatchReport(Struct, frozen=True):
    """One page of records, applied at one target."""

    place: Place
    records: int
    changes: int
    skipped: int
    effects: Mapping[Effect, int]
    adopted: int
    conflicts: Mapping[tuple[ConflictKind, Resolution], int]
    """Entries written, by kind and outcome."""
    cache_actions: int
    keyless: int
    retries: int
    position: Position
    lag_seconds: float | None
    took_seconds: float
    unstored: int = 0
    """Cache entries that were dropped because there is no room to refresh them."""
    too_large: int = 0
    """Cache entries that were dropped because their rule stores no values of that size."""
    parked: int = 0
    """Changes that the target refused and that are kept as rows."""
    foreign: int = 0
    """Records of other tables on the same stream, which were passed over."""
    ties: int = 0
    """Changes that were made at the same time as another one of their key, by a source that keeps no order."""
    late: int = 0
    """Events of changes that came from such a source when a later one of their key had been sent."""
    kept_removals: int = 0
    """Deletes of mode `active-active` that were settled behind a removal with a greater version (protocol.md, 5.3)."""


class OwedRows(Struct, frozen=True):
    """What a target is owed now: keys, records that cannot be read, and since when the oldest is."""

    region: RegionId
    to: OwedTo
    keys: int
    records: int
    oldest: float | None


class PacedTable(Struct, frozen=True):
    """A table that a rule writes, with the figures of how it is written, which go on changing.

    `bucket`: of the rule's bound in that region, for all of its tables there; None without a bound.
    """

    rule: RuleName
    region: RegionId
    table: TableName
    pace: Pace
    bucket: UnitBucket | None


class RegionState(Struct, frozen=True):
    """How another region of a rule's mesh stands for this process, why, and for how long it has been silent or held."""

    rule: RuleName
    region: RegionId
    standing: Standing
    reason: Reason
    why: str
    seconds: float


class CacheState(Struct, frozen=True):
    """How a cache stands for this process, why, and for how long; what it is owed, and what became of that so far.

    `error`: None while it answers; `refusing`: why it refuses some entries then. `keys`, `oldest`: entries that are
    owed by this process, and by others that are gone when this worker looks after those. `owed` to `flushes`: counts
    since the process began.
    """

    cache: str
    region: RegionId
    error: ReplicatorError | None
    refusing: ReplicatorError | None
    seconds: float
    keys: int
    oldest: float | None
    owes_flush: bool
    owed: int
    settled: int
    ignored: int
    flushes: int
    restores: int
    flushed_at: float | None


class CacheHorizons(Struct, frozen=True):
    """What a worker's looks at a cache found since the process began, and how many changes were passed over."""

    cache: str
    region: RegionId
    horizons: Sequence[Horizon]
    passed_over: int


class Inconsistency(Struct, frozen=True):
    """An entry that is older than its table, a horizon behind a change that it lacks; its version is the change's."""

    cache: str
    region: RegionId
    entry: str
    version: str | None
    seconds: float


class UnreadShard(Struct, frozen=True):
    """A target at a shard that no worker reads; `shard_id` None: no shard of its stream is known.

    `state`: why, in a word. `through`: everything from a second before this lies before its place; None: not known.
    `since`: when it was first seen to stand there (monotonic).
    """

    stream: StreamRef
    shard_id: ShardId | None
    target: Target
    state: str
    through: float | None
    since: float


class Overview(Struct, frozen=True):
    """What belongs to the group and to no worker: what is not read, rules that are paused and since when, workers."""

    standing: tuple[UnreadShard, ...]
    paused: Mapping[RuleName, float]
    live: int
    silent: int


class Observer(Protocol):
    """Is notified of what happened; may lose things, never decides anything."""

    def polled(  # noqa: PLR0913, PLR0917 - what one answer says
        self,
        stream: StreamRef,
        shard_id: ShardId,
        position: Position,
        records: int,
        level_at: float | None = None,
        behind: float | None = None,
    ) -> None:
        """The records behind a position were asked for.

        `level_at`: the server's time, in seconds since 1970, at which nothing stood behind it; None: not known.
        `behind`: how far this machine's clock is behind the server's.
        """

    def batch_began(self, place: Place, oldest: float) -> None:
        """A page is about to be applied; `oldest` is the creation time of its oldest record."""

    def batch_applied(self, report: BatchReport) -> None:
        """A page is durable at a target."""

    def retrying(self, place: Place, error: ReplicatorError, attempt: int) -> None:
        """A request failed and will be repeated."""

    def blocked(self, place: Place, error: ReplicatorError, key: str | None) -> None:
        """A target cannot go on; `key` names the item that is in the way."""

    def unblocked(self, place: Place) -> None:
        """A blocked target goes on."""

    def parked(self, place: Place, owed: OwedKey) -> None:
        """A target refused a change; it is kept as a row, and what is behind it goes on."""

    def unparked(self, place: Place, owed: OwedKey, how: Settlement) -> None:
        """A parked key was settled."""

    def owed_rows(self, rows: OwedRows) -> None:
        """What a target is owed now, as far as this process knows."""

    def paces(self, table: PacedTable) -> None:
        """From now on a table is written like this."""

    def region_stands(self, state: RegionState) -> None:
        """A region of a mesh is away or late, or is here again."""

    def cache_stands(self, state: CacheState) -> None:
        """A cache fell away or is back, or is owed more or less than before."""

    def cache_verified(self, found: CacheHorizons) -> None:
        """Entries of a cache were read again behind their actions."""

    def canary(self, place: CanaryPlace, arrivals: Arrivals | None) -> None:
        """How a rule's canary arrives at a place; None: this worker writes it no longer."""

    def cache_inconsistent(self, found: Inconsistency) -> None:
        """An entry is stale for good, as far as anything shows; it is being dropped."""

    def moved(self, place: Place, position: Position) -> None:
        """A target's frontier moved."""

    def stands(self, place: Place, position: Position) -> None:
        """A target goes on, or begins, at this position, as it is stored; nothing was read yet."""

    def checkpoint_saved(self, lease: Lease, positions: Mapping[TargetId, Position]) -> None:
        """Positions were stored."""

    def shard_started(self, lease: Lease, target: Target) -> None:
        """A shard is read for a target from now on."""

    def shard_stopped(self, lease: Lease, target: Target, why: str) -> None:
        """A shard is no longer read for a target: finished, withdrawn, drained, or lease lost."""

    def shard_failed(self, lease: Lease, target: Target, error: BaseException) -> None:
        """An error that is no `ReplicatorError` ended what was done for a target on a shard."""

    def lease_claimed(self, lease: Lease) -> None:
        """A shard is ours."""

    def lease_ended(self, lease: Lease, why: str) -> None:
        """A shard is no longer ours: released, lost, finished."""

    def target_carried_over(
        self, stream: StreamRef, target_id: TargetId, former: Sequence[TargetId], joins: Collection[str]
    ) -> None:
        """A target goes on where others were; what joins its mesh is owed what is not done from now on."""

    def target_begun_anew(self, stream: StreamRef, target_id: TargetId, former: TargetId) -> None:
        """A target begins by its rule's start, because the progress that is stored is of another table."""

    def entries_not_kept(self, place: Place, cache: str, *, dropped: bool) -> None:
        """A cache has entries that no worker kept in step up to where a target goes on; whether all will be dropped."""

    def gap_found(self, gap: Gap) -> None:
        """Records were lost before they were read."""

    def gap_passed(self, gap: Gap, why: str) -> None:
        """A target goes on behind a gap: its rule skips, or an operator acknowledged the loss."""

    def gap_closed(self, gap: Gap, job_id: str) -> None:
        """A repair has gone over the table that lost records."""

    def open_gaps(self, gaps: Mapping[TargetId, int]) -> None:
        """Losses of the whole group that are neither accepted nor repaired, by target; reported again and again."""

    def stalled(self, lease: Lease, target: Target, reason: str, remedy: str) -> None:
        """A target does not progress on a shard that is ours, for longer than the bound; reported while it lasts."""

    def unstalled(self, lease: Lease, target: Target) -> None:
        """It progresses again."""

    def standstills(self, stream: StreamRef, found: Sequence[Standstill]) -> None:
        """Rules that stand still on shards of a stream that no pipeline of this worker answers for: all of them."""

    def iterator_expired(self, stream: StreamRef, shard_id: ShardId) -> None:
        """An iterator was derived anew."""

    def session_began(self, worker: WorkerId) -> None:
        """This process lives under a new worker id."""

    def cycle(self, stream: StreamRef | None, shards: int, owned: int, open_shards: int | None = None) -> None:
        """A cycle over a stream's shards was attempted: how many are known, how many are ours, how many get records."""

    def kept(self, stream: StreamRef, seconds: float) -> None:
        """A stream keeps records for so long from now on."""

    def described(self, stream: StreamRef) -> None:
        """A stream was asked for shards: one DescribeStream call."""

    def paused(self, rules: Mapping[RuleName, float], driven: Collection[RuleName] = ()) -> None:
        """These rules are paused now, since then, and no others; reported again and again.

        `driven`: those of them that functions drive.
        """

    def sweeps(self, passes: Sequence[Job]) -> None:
        """The last full comparisons of rules that are compared again and again."""

    def jobs(self, seen: Sequence[JobProgress]) -> None:
        """How far the jobs are that are not over: all of them."""

    def job_ended(self, progress: JobProgress) -> None:
        """A job is over; one worker reports it for all."""

    def service_failed(self, service: ServiceId, error: ReplicatorError) -> None:
        """A background service (discovery, heartbeat) failed and will be repeated."""

    def service_hangs(self, service: ServiceId, seconds: float) -> None:
        """A background service has waited for an answer for so long; reported again while it lasts."""

    def overview(self, overview: Overview | None) -> None:
        """What no worker reads, as this worker looks after for all; None: another one does."""

    def stream_left(self, stream: StreamRef) -> None:
        """This session looks at a stream no more: what was said of it as a whole is no trouble of ours, over or not."""

    def service_recovered(self, service: ServiceId) -> None:
        """The service works again."""
