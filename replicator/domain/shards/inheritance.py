"""Where a target begins that has no progress on a stream: at positions of others whose work counts for it. No calls.

A position counts for a part of a target (a table, or a member of a mesh) when what is done at that position is done
for that part. Invariant: a target is put no further than the position that counts for each of its parts; a part for
which none counts joins now, and is owed what is not done yet.
"""

from __future__ import annotations

import enum
from collections.abc import Collection, Iterator, Mapping

from msgspec import Struct

from replicator.domain.identifiers import ShardId
from replicator.domain.progress import END, Position
from replicator.domain.rules import Target
from replicator.domain.shards.leases import LeaseRow, Rewind, TargetStart
from replicator.domain.targets import TargetId


class Begins(enum.Enum):
    """Whose progress a target goes on with when it has none on a stream; a kind of target has one of these."""

    WITH_ITS_TABLE = "with its table"  # what an earlier version stored, when that is of the table that it writes
    WITH_ITS_REGION = "with its region"  # what an earlier version stored: it has no table of its own
    WITH_NOTHING = "with nothing"  # earlier versions had none of its kind
    WITH_ITS_MEMBERS = "with its members"  # what its rule's mesh had with other members; else as an earlier version


Covers = Mapping[TargetId, frozenset[str]]
"""Targets with stored positions, and for which parts of another target these count."""


class Inherited(Struct, frozen=True):
    """Where a target is put on a shard, and what it skips there."""

    position: Position
    rewind: Rewind | None


def covers_of(
    target: Target,
    starts: Mapping[TargetId, TargetStart],
    stored: Collection[TargetId],
    *,
    joined: bool,
) -> dict[TargetId, frozenset[str]]:
    """Whose positions count for which parts of a target.

    `stored`: targets that have a position on the stream. `joined`: the target has begun, here or on another stream of
    its mesh, so all of its parts are owed what nothing counts for. What earlier versions stored counts when nothing
    else does; it must be of this target's table.
    """
    others = {
        target_id: start.members
        for target_id, start in starts.items()
        if (target_id.rule, target_id.kind) == (target.rule, target.kind) and start.members
    }
    if joined:
        return others | {target.target_id: target.parts}
    others.pop(target.target_id, None)
    earlier = target.target_id.earlier
    if not others and target.sink is None and (earlier in starts or earlier in stored):
        return {earlier: target.parts}
    return others


def inherited(target: Target, rows: Mapping[ShardId, LeaseRow], covers: Covers) -> Iterator[tuple[ShardId, Inherited]]:
    """Shards on which a target is put further than it is."""
    known = frozenset[str]().union(*covers.values())
    parts = target.parts & known
    for shard_id, row in rows.items():
        places = [_best(part, row, covers) for part in sorted(parts)]
        if not places or None in places:
            continue
        position, source = min((place for place in places if place is not None), key=lambda place: place[0].order)
        own = row.checkpoints.get(target.target_id)
        if own is None:
            yield shard_id, Inherited(position, row.rewinds.get(source))
        # A target that has a position goes only forward, and only to a place that does not move.
        elif position.order > own.order and (position == END or position.sequence is not None):
            yield shard_id, Inherited(position, None)


def _best(part: str, row: LeaseRow, covers: Covers) -> tuple[Position, TargetId] | None:
    """The furthest position on a shard that counts for a part."""
    counting = [
        (row.checkpoints[target_id], target_id)
        for target_id, parts in covers.items()
        if part in parts and target_id in row.checkpoints
    ]
    return max(counting, key=lambda place: place[0].order, default=None)
