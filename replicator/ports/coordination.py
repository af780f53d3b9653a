"""Ports to the coordination table: leases and positions, members, and the registry of streams, gaps and pauses."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Protocol

from replicator.domain.driving import Driving
from replicator.domain.gaps import Gap, OpenGap
from replicator.domain.identifiers import RegionId, RuleName, ShardId, TableName, WorkerId
from replicator.domain.progress import Position
from replicator.domain.rules import Target
from replicator.domain.shards.inheritance import Inherited
from replicator.domain.shards.leases import (
    KnownStream,
    Lease,
    LeaseRow,
    Pulse,
    Seat,
    StreamRef,
    StreamState,
    TargetStart,
)
from replicator.domain.shards.lineage import Shard
from replicator.domain.targets import TargetId


class Coordination(Protocol):
    """Lineage, leases and progress: one row per shard, because a checkpoint is conditional on the lease's epoch."""

    async def state(self, stream: StreamRef) -> StreamState:
        """All of a stream's rows."""

    async def discover(self, stream: StreamRef, shards: Sequence[Shard], found_at: float) -> None:
        """Store shards: a new row for an unknown one, what is new about a known one. Knowledge only grows."""

    async def mark_vanished(self, stream: StreamRef, shard_id: ShardId, at: float) -> None:
        """Note that the stream lists a shard no more; `at` is the server's time in seconds since 1970."""

    async def claim(
        self, stream: StreamRef, seen: LeaseRow, owner: WorkerId, serves: Collection[TargetId] = (), at: float = 0.0
    ) -> LeaseRow | None:
        """Take a shard if its row still has the owner and epoch of `seen`; None when another worker was faster.

        `serves`: all targets that the owner runs on this stream. `at`: the time, in seconds since 1970, that is noted
        when the shard has an owner, which did not give it back.
        """

    async def save(
        self, lease: Lease, checkpoints: Mapping[TargetId, Position], kept: Mapping[TargetId, str] | None = None
    ) -> None:
        """Store positions by target id; `LeaseLost` unless owner and epoch still are ours.

        A position at or behind the `until` of a target's rewind takes that rewind away. `kept`: of targets whose
        positions are stored, by the same write, which cache entries were kept in step; what is stored of others stays.
        """

    async def carry_over(self, stream: StreamRef, seen: LeaseRow, target_id: TargetId, place: Inherited) -> bool:
        """Put a target where others were, whatever the owner; False when the row is not as seen any more."""

    async def release(self, lease: Lease, read: Mapping[TargetId, Position] | None = None) -> None:
        """Give the shard back; quiet when it is no longer ours.

        `read`: positions that are stored already, with up to when they reach by now (`Position.through`).
        """

    async def forget(self, stream: StreamRef, row: LeaseRow) -> None:
        """Delete the row of a finished shard that the stream no longer lists; quiet when it changed meanwhile."""

    async def take_seat(self, stream: StreamRef, seen: Seat | None, owner: WorkerId | None) -> bool:
        """Take, renew or (with no owner) leave the discoverer's seat if it still is as `seen`; False if it is not."""


class Membership(Protocol):
    """Workers and their heartbeats: one write per worker, not one per shard."""

    async def beat(self, worker: WorkerId, pulse: Pulse) -> None:
        """Show a sign of life."""

    async def members(self) -> dict[WorkerId, Pulse]:
        """Every worker's last pulse."""

    async def leave(self, worker: WorkerId) -> None:
        """Remove a worker's row."""

    async def paused(self) -> Mapping[RuleName, float]:
        """Rules that an operator has paused, and since when, in seconds since 1970."""

    async def driven(self) -> Mapping[RuleName, Driving]:
        """What drives the rules that were ever handed over; workers drive all others."""

    async def resting(self) -> frozenset[tuple[RuleName, RegionId]]:
        """Regions that an operator has paused for a rule, while it goes on elsewhere."""


class Registry(Protocol):
    """What is known about streams beside their shards: targets' starts, and gaps."""

    async def starts(self, stream: StreamRef) -> dict[TargetId, TargetStart]:
        """Targets that ever started on this stream, by target id."""

    async def start(self, stream: StreamRef, target: Target, *, started_at: float | None = None) -> TargetStart:
        """Store the start of a target (None: the server's time now) unless one is stored; returns what is stored."""

    async def record_gap(self, gap: Gap) -> None:
        """Store a loss interval; the same gap (`Gap.gap_id`) with the same end again changes nothing.

        With another `until` it has grown: that is stored, and an acknowledgement is withdrawn, because it was given for
        something else. When and why it was found first stays.
        """

    async def former_names(self, rule: RuleName) -> frozenset[RuleName]:
        """The names that a rule had before."""

    async def carry_gaps_over(self, stream: StreamRef, former: TargetId, target_id: TargetId) -> None:
        """Let a target's losses on a stream, accepted or not, be another one's, too; quiet when they are."""

    async def acknowledged(self, gap: Gap) -> bool:
        """Whether an operator accepted the loss up to this very `until`: a stopped target then goes on behind it."""

    async def open_gaps(self) -> list[OpenGap]:
        """Every loss interval of the group that is neither accepted nor repaired, oldest first."""

    async def note_resync(self, gap: Gap, job_id: str) -> None:
        """Note which job repairs a loss; quiet when it is not open any more."""

    async def close_gap(self, gap: Gap, job_id: str, at: float) -> bool:
        """Close a loss as it was seen, because a job has repaired it; False when it changed meanwhile, or is closed."""

    async def streams(self, region: RegionId, table: TableName) -> list[KnownStream]:
        """Streams of this table that were read before, oldest first."""

    async def remember_stream(
        self, stream: StreamRef, drained: Collection[TargetId] = (), *, kept_seconds: float | None = None
    ) -> None:
        """Note that a stream is being read, which targets have read it to its end, and how long it keeps records now.

        What is noted stays.
        """
