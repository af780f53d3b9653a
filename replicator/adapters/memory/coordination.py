"""Leases with progress, members and the registry in memory.

Invariant: a claim succeeds only on the row that the claimant saw and raises its epoch; nothing is saved or released
under an epoch that has passed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from replicator.adapters.memory.faults import Faults
from replicator.domain.assignment import LeaseRow
from replicator.domain.errors import LeaseLost
from replicator.domain.progress import Position
from replicator.domain.records import RegionId, ShardId, TableName, WorkerId
from replicator.domain.rules import Target
from replicator.ports import Gap, Lease, StreamRef, TargetStart

_Stream = tuple[RegionId, str]


def _identity(stream: StreamRef) -> _Stream:
    """What makes a stream: its region counts, because ARNs of two regions may be equal."""
    return stream.region, stream.arn


class MemoryCoordination:
    """One row per shard: owner, epoch, a checkpoint per target."""

    def __init__(self, faults: Faults | None = None) -> None:
        self.faults = faults or Faults()
        self._rows: dict[tuple[_Stream, ShardId], LeaseRow] = {}

    async def rows(self, stream: StreamRef) -> dict[ShardId, LeaseRow]:
        """Every shard row of a stream."""
        async with self.faults.around("rows"):
            return {shard_id: row for (owner, shard_id), row in self._rows.items() if owner == _identity(stream)}

    async def claim(
        self, stream: StreamRef, shard_id: ShardId, seen: LeaseRow | None, owner: WorkerId
    ) -> LeaseRow | None:
        """Take a shard if its row still is as `seen`."""
        async with self.faults.around("claim"):
            place = (_identity(stream), shard_id)
            row = self._rows.get(place)
            if (row and (row.owner, row.epoch)) != (seen and (seen.owner, seen.epoch)):
                return None
            epoch, checkpoints = (0, {}) if row is None else (row.epoch, row.checkpoints)
            taken = LeaseRow(shard_id, owner, epoch + 1, checkpoints)
            self._rows[place] = taken
            return taken

    async def save(self, lease: Lease, checkpoints: Mapping[str, Position]) -> None:
        """Store positions by target id; other targets keep theirs."""
        async with self.faults.around("save"):
            row = self._ours(lease)
            if row is None:
                raise LeaseLost(f"Shard {lease.shard_id} is no longer ours.")
            self._store(lease, LeaseRow(row.shard_id, row.owner, row.epoch, {**row.checkpoints, **checkpoints}))

    async def release(self, lease: Lease) -> None:
        """Give the shard back; quiet when it is no longer ours."""
        async with self.faults.around("release"):
            row = self._ours(lease)
            if row is not None:
                self._store(lease, LeaseRow(row.shard_id, None, row.epoch, row.checkpoints))

    async def forget(self, stream: StreamRef, shard_id: ShardId) -> None:
        """Delete a shard's row."""
        async with self.faults.around("forget"):
            self._rows.pop((_identity(stream), shard_id), None)

    def _ours(self, lease: Lease) -> LeaseRow | None:
        row = self._rows.get((_identity(lease.stream), lease.shard_id))
        return row if row is not None and (row.owner, row.epoch) == (lease.owner, lease.epoch) else None

    def _store(self, lease: Lease, row: LeaseRow) -> None:
        self._rows[(_identity(lease.stream), lease.shard_id)] = row


class MemoryMembership:
    """Workers and their heartbeat counters."""

    def __init__(self, faults: Faults | None = None) -> None:
        self.faults = faults or Faults()
        self._counters: dict[WorkerId, int] = {}

    async def beat(self, worker: WorkerId, counter: int) -> None:
        """Show a sign of life."""
        async with self.faults.around("beat"):
            self._counters[worker] = counter

    async def members(self) -> dict[WorkerId, int]:
        """Every worker's last counter."""
        async with self.faults.around("members"):
            return dict(self._counters)

    async def leave(self, worker: WorkerId) -> None:
        """Remove a worker."""
        async with self.faults.around("leave"):
            self._counters.pop(worker, None)


class MemoryRegistry:
    """Targets' starts, gaps, and streams that are being read."""

    def __init__(self, now: Callable[[], float], faults: Faults | None = None) -> None:
        """`now`: the store's own clock, in seconds since 1970."""
        self.faults = faults or Faults()
        self._now = now
        self._starts: dict[tuple[_Stream, str], TargetStart] = {}
        self._gaps: dict[Gap, None] = {}
        self._streams: dict[StreamRef, bool] = {}
        """Streams that were ever read, and whether they are drained."""

    async def starts(self, stream: StreamRef) -> dict[str, TargetStart]:
        """Targets that ever started on this stream, by target id."""
        async with self.faults.around("starts"):
            return {target: start for (owner, target), start in self._starts.items() if owner == _identity(stream)}

    async def start(self, stream: StreamRef, target: Target, *, started_at: float | None = None) -> TargetStart:
        """Store the start of a target, unless it is stored already."""
        async with self.faults.around("start"):
            fresh = TargetStart(target.rule, target.target_id, self._now() if started_at is None else started_at)
            return self._starts.setdefault((_identity(stream), target.target_id), fresh)

    async def record_gap(self, gap: Gap) -> None:
        """Store a loss interval; found again, it is the same one."""
        async with self.faults.around("record_gap"):
            known = {_interval(other) for other in self._gaps}
            if _interval(gap) not in known:
                self._gaps[gap] = None

    @property
    def gaps(self) -> list[Gap]:
        """Every loss interval, in the order in which they were found."""
        return list(self._gaps)

    async def streams(self, region: RegionId, table: TableName) -> list[StreamRef]:
        """Streams of this table that were read before and not yet drained, oldest first."""
        async with self.faults.around("streams"):
            left = [
                stream
                for stream, drained in self._streams.items()
                if not drained and (stream.region, stream.table) == (region, table)
            ]
            return sorted(left, key=lambda stream: stream.generation)

    async def remember_stream(self, stream: StreamRef, *, drained: bool) -> None:
        """Note that a stream is being read, or that it was read to its end."""
        async with self.faults.around("remember_stream"):
            self._streams[stream] = drained or self._streams.get(stream, False)


def _interval(gap: Gap) -> tuple[_Stream, ShardId, str, Position]:
    return _identity(gap.stream), gap.shard_id, gap.target_id, gap.after
