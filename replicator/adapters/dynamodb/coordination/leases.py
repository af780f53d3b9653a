"""Shard rows in the coordination table: lineage, leases, progress; and the discoverer's seat.

Invariant: a checkpoint is written only by the owner that the row names, under the epoch that it claimed. Lineage only
grows, and a child's row is never written before its parent's.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING

from replicator.adapters.dynamodb.coordination.changes import Change, flag, number, schema, seconds, text, texts
from replicator.adapters.dynamodb.coordination.names import SEAT, checkpoint, keeps, key, rewind, through
from replicator.adapters.dynamodb.coordination.rows import StreamRows, parse_rewind, rewind_text, through_text
from replicator.domain.errors import LeaseLost, ReplicatorError
from replicator.domain.identifiers import ShardId, WorkerId
from replicator.domain.progress import Position
from replicator.domain.shards.inheritance import Inherited
from replicator.domain.shards.leases import Lease, LeaseRow, Seat, StreamRef, StreamState
from replicator.domain.shards.lineage import Shard, merged, storable, unproven
from replicator.domain.targets import TargetId

if TYPE_CHECKING:
    from replicator.adapters.dynamodb.coordination.changes import Value, When
    from replicator.adapters.dynamodb.coordination.rows import Row
    from replicator.adapters.dynamodb.coordination.table import CoordinationTable

_WRITES_AT_ONCE = 16


class DynamoCoordination:
    """One row per shard: what it is, owner, epoch, a checkpoint per target; and one seat per stream."""

    def __init__(self, table: CoordinationTable) -> None:
        self._table = table
        self._names, self._reader = table.names, table.reader

    async def state(self, stream: StreamRef) -> StreamState:
        """All of a stream's rows; a shard's row that is corrupt does not hide the others."""
        found, date = await self.read(stream)
        if found.strange:
            raise found.strange[0]
        unreadable = found.corrupt[-1] if found.corrupt else None
        return StreamState(found.shards, found.seat, found.starts, self._table.seconds_of(date), unreadable)

    async def read(self, stream: StreamRef) -> tuple[StreamRows, str]:
        """All of a stream's rows, whatever is wrong with some, and the Date of the answer.

        A child is never shown without a parent that was stored before it, so rows are read backwards: ids of shards
        grow with time. A parent whose id is the greater one is asked for behind that: it may have been written when
        its place was read already.
        """
        entries, date = await self._table.read(self._names.stream(stream), backwards=True, newer=True)
        found = StreamRows()
        for entry in entries:
            self._reader.add(found, entry)
        late = [above for row in found.shards.values() for above in row.shard.parents if above > row.shard_id]
        asked: set[ShardId] = set()
        while late:
            shard_id = late.pop()
            if shard_id in found.shards or shard_id in asked:
                continue
            asked.add(shard_id)
            entry, _ = await self._table.get(self._names.shard_key(stream, shard_id))
            if entry:
                self._reader.add(found, entry)
            if shard_id in found.shards:
                late += found.shards[shard_id].shard.parents
        return found, date

    # -- lineage ---------------------------------------------------------------------------------------------------

    async def discover(self, stream: StreamRef, shards: Sequence[Shard], found_at: float) -> None:
        """Store shards, parents first, so that no child ever stands without a parent that is known.

        A write that fails holds back that shard's descendants and no other; the first failure is raised behind all.
        """
        turn = asyncio.Semaphore(_WRITES_AT_ONCE)
        failed: set[ShardId] = set()
        failures: list[ReplicatorError] = []

        async def store(shard: Shard) -> None:
            async with turn:
                try:
                    await self._table.update(self._names.shard_key(stream, shard.shard_id), _found(shard, found_at))
                except ReplicatorError as error:
                    failures.append(error)
                    failed.add(shard.shard_id)

        for generation in _generations(shards):
            failed |= {shard.shard_id for shard in generation if not failed.isdisjoint(shard.parents)}
            async with asyncio.TaskGroup() as group:
                for shard in generation:
                    if shard.shard_id not in failed:
                        group.create_task(store(shard), name=f"store {shard.shard_id}")
        if failures:
            raise failures[0]

    async def mark_vanished(self, stream: StreamRef, shard_id: ShardId, at: float) -> None:
        """Note that the stream lists a shard no more."""
        change = Change(sets={"vanished": flag(), "vanished_at": seconds(at)}, present=("epoch",))
        await self._table.update(self._names.shard_key(stream, shard_id), change)

    async def forget(self, stream: StreamRef, row: LeaseRow) -> None:
        """Delete a shard's row; quiet when its owner or epoch changed meanwhile."""
        await self._table.delete(self._names.shard_key(stream, row.shard_id), _as_seen(row))

    # -- leases and progress ---------------------------------------------------------------------------------------

    async def claim(
        self, stream: StreamRef, seen: LeaseRow, owner: WorkerId, serves: Collection[TargetId] = (), at: float = 0.0
    ) -> LeaseRow | None:
        """Take a shard if its row still is as seen, and raise its epoch; None when another worker was faster."""
        change = Change(
            sets={
                "owner": text(owner),
                "epoch": number(seen.epoch + 1),
                "sv": schema(),
                **({"serves": texts(each.text for each in serves)} if serves else {}),
                **({} if seen.owner is None else {"seized_at": seconds(at)}),
            },
            removes=() if serves else ("serves",),
            when=_as_seen(seen),
        )
        answer = await self._table.update(self._names.shard_key(stream, seen.shard_id), change)
        return None if answer is None else self._reader.lease_row(answer)

    async def save(
        self, lease: Lease, checkpoints: Mapping[TargetId, Position], kept: Mapping[TargetId, str] | None = None
    ) -> None:
        """Store positions by target id; `LeaseLost` unless owner and epoch still are ours.

        Rewinds that these positions pass are taken away by a second write, which a rewind needs once in its life.
        """
        place = self._names.shard_key(lease.stream, lease.shard_id)
        entries = {keeps(target_id): text(words) for target_id, words in (kept or {}).items()}
        answer = await self._table.update(place, Change(sets=_stored(checkpoints) | entries, when=_ours(lease)))
        if answer is None:
            raise LeaseLost(f"The lease on shard {lease.shard_id} of {lease.stream.table} went to another worker.")
        passed = [rewind(target) for target, position in checkpoints.items() if _passes(position, target, answer)]
        if passed:
            await self._table.update(place, Change(removes=passed, when=_ours(lease)))

    async def carry_over(self, stream: StreamRef, seen: LeaseRow, target_id: TargetId, place: Inherited) -> bool:
        """Put a target where others stood, if it still stands as seen; neither owner nor epoch matter."""
        own = seen.checkpoints.get(target_id)
        change = Change(
            sets={
                **_stored({target_id: place.position}),
                **({} if place.rewind is None else {rewind(target_id): text(rewind_text(place.rewind))}),
            },
            when={checkpoint(target_id): None if own is None else text(own.text)},
            present=("epoch",),
        )
        return await self._table.update(self._names.shard_key(stream, seen.shard_id), change) is not None

    async def release(self, lease: Lease, read: Mapping[TargetId, Position] | None = None) -> None:
        """Give the shard back in its row, so that the next worker need not wait; quiet when it is not ours."""
        place = self._names.shard_key(lease.stream, lease.shard_id)
        change = Change(sets=_times(read or {}), removes=("owner",), when=_ours(lease))
        await self._table.update(place, change)

    async def take_seat(self, stream: StreamRef, seen: Seat | None, owner: WorkerId | None) -> bool:
        """Take or leave the discoverer's seat if it still is as `seen`; its epoch rises each time."""
        change = Change(
            sets={
                "epoch": number(1 if seen is None else seen.epoch + 1),
                "sv": schema(),
                **({} if owner is None else {"owner": text(owner)}),
            },
            removes=("owner",) if owner is None else (),
            when={"epoch": None, "owner": None} if seen is None else _as_seen(seen),
        )
        return await self._table.update(key(self._names.stream(stream), SEAT), change) is not None


def _stored(positions: Mapping[TargetId, Position]) -> dict[str, Value]:
    """Positions as attributes, with their times."""
    places = {checkpoint(target_id): text(position.text) for target_id, position in positions.items()}
    return places | _times(positions)


def _times(positions: Mapping[TargetId, Position]) -> dict[str, Value]:
    """What is known of the times of positions, as attributes."""
    return {
        through(target_id): text(through_text(position))
        for target_id, position in positions.items()
        if position.through is not None
    }


def _generations(shards: Sequence[Shard]) -> list[list[Shard]]:
    """The shards, as they were listed, in groups that can be stored at once; parents stand in earlier groups."""
    graph = merged({}, shards)
    ages: dict[ShardId, int] = {}
    for shard in storable(graph, stored=(), gone=unproven(graph)):
        ages[shard.shard_id] = max((ages[parent] + 1 for parent in shard.parents if parent in ages), default=0)
    groups: list[list[Shard]] = [[] for _ in range(max(ages.values(), default=-1) + 1)]
    for shard in shards:
        groups[ages[shard.shard_id]].append(shard)
    return groups


def _found(shard: Shard, found_at: float) -> Change:
    """A shard as it was listed: what is new about it is added, what is known stays."""
    return Change(
        sets={"closed": flag()} if shard.closed else {},
        defaults={
            "epoch": number(0),
            "found_at": seconds(found_at),
            "sv": schema(),
            **({} if shard.first is None else {"first": text(shard.first)}),
        },
        merges={"parents": shard.parents},
        removes=("vanished", "vanished_at"),
    )


def _as_seen(seen: LeaseRow | Seat) -> When:
    return {"epoch": number(seen.epoch), "owner": None if seen.owner is None else text(seen.owner)}


def _ours(lease: Lease) -> When:
    return {"epoch": number(lease.epoch), "owner": text(lease.owner)}


def _passes(position: Position, target_id: TargetId, row: Row) -> bool:
    skipped = parse_rewind(row.get(rewind(target_id), {}).get("S", ""))
    return skipped is not None and position.order >= skipped.until.order
