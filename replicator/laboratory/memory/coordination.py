"""Lineage and leases with progress in memory.

Invariant: a claim succeeds only on the row that the claimant saw and raises its epoch; nothing is saved or released
under an epoch that has passed. What was discovered only grows.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping, Sequence

from replicator.domain.errors import LeaseLost, WorldMismatch
from replicator.domain.identifiers import ShardId, WorkerId
from replicator.domain.progress import Position, reached
from replicator.domain.shards.inheritance import Inherited
from replicator.domain.shards.leases import Lease, LeaseRow, Rewind, Seat, StreamRef, StreamState
from replicator.domain.shards.lineage import Shard, merged, storable, unproven
from replicator.domain.targets import TargetId
from replicator.domain.values import replace
from replicator.laboratory.memory.faults import Faults
from replicator.laboratory.memory.registry import MemoryRegistry, StreamId, identity


class MemoryCoordination:
    """One row per shard: what it is, owner, epoch, a checkpoint per target; and one seat per stream."""

    def __init__(
        self,
        faults: Faults | None = None,
        *,
        registry: MemoryRegistry | None = None,
        now: Callable[[], float] = time.time,
    ) -> None:
        """`now`: the store's own clock. `registry`: whose target starts go with a stream's state; else none."""
        self.faults = faults or Faults()
        self.unreadable: WorldMismatch | None = None
        """While set, every stream's state names a row that could not be read."""
        self._registry = registry
        self._now = now
        self._rows: dict[tuple[StreamId, ShardId], LeaseRow] = {}
        self._seats: dict[StreamId, Seat] = {}

    # -- the script ------------------------------------------------------------------------------------------------

    def row(self, stream: StreamRef, shard_id: ShardId) -> LeaseRow | None:
        """A shard's row, seen from the side."""
        return self._rows.get((identity(stream), shard_id))

    def rows(self, stream: StreamRef) -> dict[ShardId, LeaseRow]:
        """Every row of a stream, seen from the side."""
        return {shard_id: row for (owner, shard_id), row in self._rows.items() if owner == identity(stream)}

    def seat(self, stream: StreamRef) -> Seat | None:
        """The worker that discovers a stream's shards."""
        return self._seats.get(identity(stream))

    def put(self, stream: StreamRef, row: LeaseRow) -> None:
        """Store this row over whatever was there."""
        self._rows[identity(stream), row.shard_id] = row

    def evict(self, stream: StreamRef, shard_id: ShardId) -> None:
        """Take a shard from its owner, as an operator does."""
        self.rewind(stream, shard_id, {}, {})

    def rewind(
        self,
        stream: StreamRef,
        shard_id: ShardId,
        positions: Mapping[TargetId, Position | None],
        rewinds: Mapping[TargetId, Rewind],
    ) -> None:
        """Move targets' positions (None: as if never read) and take the shard from its owner, as an operator does."""
        row = self._rows[identity(stream), shard_id]
        moved = {**row.checkpoints, **positions}
        row = replace(
            row,
            owner=None,
            epoch=row.epoch + 1,
            checkpoints={target_id: position for target_id, position in moved.items() if position is not None},
            rewinds={**{name: old for name, old in row.rewinds.items() if name not in positions}, **rewinds},
        )
        self.put(stream, row)

    def delete(self, stream: StreamRef, shard_id: ShardId) -> None:
        """Delete a row, as an operator does."""
        self._rows.pop((identity(stream), shard_id), None)

    # -- the port --------------------------------------------------------------------------------------------------

    async def state(self, stream: StreamRef) -> StreamState:
        """All of a stream's rows."""
        async with self.faults.around("state"):
            starts = {} if self._registry is None else self._registry.started(stream)
            return StreamState(self.rows(stream), self.seat(stream), starts, self._now(), self.unreadable)

    async def discover(self, stream: StreamRef, shards: Sequence[Shard], found_at: float) -> None:
        """Store shards one after the other, parents first: a failure may leave some stored."""
        graph = merged({}, shards)
        order = [shard.shard_id for shard in storable(graph, stored=(), gone=unproven(graph))]
        for shard in sorted(shards, key=lambda shard: order.index(shard.shard_id)):
            async with self.faults.around("discover"):
                row = self.row(stream, shard.shard_id)
                if row is None:
                    self.put(stream, LeaseRow(shard, found_at=found_at))
                else:
                    grown = merged({shard.shard_id: row.shard}, [shard])[shard.shard_id]
                    self.put(stream, replace(row, shard=grown, vanished=False, vanished_at=None))

    async def mark_vanished(self, stream: StreamRef, shard_id: ShardId, at: float) -> None:
        """Note that the stream lists a shard no more."""
        async with self.faults.around("mark_vanished"):
            row = self.row(stream, shard_id)
            if row is not None:
                self.put(stream, replace(row, vanished=True, vanished_at=at))

    async def claim(
        self, stream: StreamRef, seen: LeaseRow, owner: WorkerId, serves: Collection[TargetId] = (), at: float = 0.0
    ) -> LeaseRow | None:
        """Take a shard if its row still has the owner and epoch of `seen`."""
        async with self.faults.around("claim"):
            row = self.row(stream, seen.shard_id)
            if row is None or (row.owner, row.epoch) != (seen.owner, seen.epoch):
                return None
            seized_at = row.seized_at if row.owner is None else at
            taken = replace(row, owner=owner, epoch=row.epoch + 1, serves=frozenset(serves), seized_at=seized_at)
            self.put(stream, taken)
            return taken

    async def save(
        self, lease: Lease, checkpoints: Mapping[TargetId, Position], kept: Mapping[TargetId, str] | None = None
    ) -> None:
        """Store positions by target id; other targets keep theirs. A rewind that is passed is over."""
        async with self.faults.around("save"):
            row = self._ours(lease)
            if row is None:
                raise LeaseLost(f"Shard {lease.shard_id} is no longer ours.")
            left = {
                target_id: rewind
                for target_id, rewind in row.rewinds.items()
                if target_id not in checkpoints or checkpoints[target_id].order < rewind.until.order
            }
            stored = {
                target_id: _timed(place, row.checkpoints.get(target_id)) for target_id, place in checkpoints.items()
            }
            keeps = {**row.keeps, **(kept or {})}
            self.put(lease.stream, replace(row, checkpoints={**row.checkpoints, **stored}, rewinds=left, keeps=keeps))

    async def carry_over(self, stream: StreamRef, seen: LeaseRow, target_id: TargetId, place: Inherited) -> bool:
        """Put a target where others were, if its row is still as seen."""
        async with self.faults.around("carry_over"):
            row = self.row(stream, seen.shard_id)
            if row is None or row.checkpoints.get(target_id) != seen.checkpoints.get(target_id):
                return False
            rewinds = {} if place.rewind is None else {target_id: place.rewind}
            checkpoints = {**row.checkpoints, target_id: place.position}
            self.put(stream, replace(row, checkpoints=checkpoints, rewinds={**row.rewinds, **rewinds}))
            return True

    async def release(self, lease: Lease, read: Mapping[TargetId, Position] | None = None) -> None:
        """Give the shard back; quiet when it is no longer ours."""
        async with self.faults.around("release"):
            row = self._ours(lease)
            if row is not None:
                times = {target_id: position.through for target_id, position in (read or {}).items()}
                checkpoints = {name: reached(place, times.get(name)) for name, place in row.checkpoints.items()}
                self.put(lease.stream, replace(row, owner=None, checkpoints=checkpoints))

    async def forget(self, stream: StreamRef, row: LeaseRow) -> None:
        """Delete a shard's row; quiet when its owner or epoch changed meanwhile."""
        async with self.faults.around("forget"):
            held = self.row(stream, row.shard_id)
            if held is not None and (held.owner, held.epoch) == (row.owner, row.epoch):
                self.delete(stream, row.shard_id)

    async def take_seat(self, stream: StreamRef, seen: Seat | None, owner: WorkerId | None) -> bool:
        """Take or leave the discoverer's seat if it still is as `seen`."""
        async with self.faults.around("take_seat"):
            if self.seat(stream) != seen:
                return False
            self._seats[identity(stream)] = Seat(owner, 1 if seen is None else seen.epoch + 1)
            return True

    def _ours(self, lease: Lease) -> LeaseRow | None:
        row = self.row(lease.stream, lease.shard_id)
        return row if row is not None and (row.owner, row.epoch) == (lease.owner, lease.epoch) else None


def _timed(place: Position, before: Position | None) -> Position:
    """A place with what was known of the time of one before it."""
    return place if before is None or before.order > place.order else reached(place, before.through)
