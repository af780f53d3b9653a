"""Which targets a rewind moves on which shards, and from where to where. Pure: rows in, moves out.

Invariant: nothing moves forward, so nothing is passed over; and a parent comes before its children, so that these wait
for it again.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from replicator.domain.progress import HORIZON, Position
from replicator.domain.shards.leases import LeaseRow, Rewind
from replicator.domain.shards.lineage import storable, unproven
from replicator.operations.errors import RequestRefused
from replicator.operations.group import Move
from replicator.operations.times import parse_moment

if TYPE_CHECKING:
    from replicator.adapters.dynamodb.coordination import StoredStream
    from replicator.domain.identifiers import ShardId
    from replicator.domain.targets import TargetId

_LONGEST_SEQUENCE = 64
"""Of a number in Kinesis; those of DynamoDB Streams have 40 digits at most."""

_TARGETS = "--to is a sequence number, a time such as 2026-07-01T12:00:00Z, a span back from now such as 2h, or"


@dataclass(frozen=True, slots=True)
class Goal:
    """Where to: behind a record of one shard, or the horizon, from which records older than `before` are skipped."""

    position: Position = HORIZON
    before: float = 0.0

    @property
    def is_sequence(self) -> bool:
        """Whether it is a place in one shard."""
        return self.position != HORIZON


@dataclass(frozen=True, slots=True)
class Step:
    """One shard of a stream, and where its targets move."""

    stored: StoredStream
    row: LeaseRow
    move: Move

    @property
    def old(self) -> dict[TargetId, Position]:
        """The positions of the targets."""
        return {target: self.row.checkpoints[target] for target in self.move.positions}


@dataclass(frozen=True, slots=True)
class Scope:
    """What is rewound of one stream: targets, on a shard and its descendants or on all shards.

    `listed`: the shards that the stream still lists; nothing else can be read again.
    """

    stored: StoredStream
    targets: frozenset[TargetId]
    listed: frozenset[ShardId]
    goal: Goal
    shard: ShardId | None = None

    def steps(self) -> Iterator[Step]:
        """Every shard on which something moves, parents first."""
        graph = {shard_id: row.shard for shard_id, row in self.stored.rows.items()}
        meant = self._meant()
        for known in storable(graph, stored=(), gone=unproven(graph)):
            row = self.stored.rows[known.shard_id]
            move = self.move(row) if row.shard_id in meant else None
            if move is not None:
                yield Step(self.stored, row, move)

    def move(self, row: LeaseRow) -> Move | None:
        """Where the targets move on one shard; None when none does, or the shard cannot be read again."""
        if row.vanished or row.shard_id not in self.listed:
            return None
        place = self.goal.position if row.shard_id == self.shard else HORIZON
        old = {
            target: row.checkpoints[target]
            for target in sorted(self.targets)
            if target in row.checkpoints and row.checkpoints[target].order > place.order
        }
        if not old:
            return None
        rewinds = {} if place != HORIZON else {name: Rewind(self.goal.before, until) for name, until in old.items()}
        return Move(dict.fromkeys(old, place), rewinds)

    def gone(self) -> list[ShardId]:
        """Shards that were meant, were read, and are in the stream no more."""
        return sorted(
            shard_id
            for shard_id in self._meant()
            if (self.stored.rows[shard_id].vanished or shard_id not in self.listed)
            and any(name in self.stored.rows[shard_id].checkpoints for name in self.targets)
        )

    def _meant(self) -> set[ShardId]:
        """A shard and its descendants, or all."""
        rows = self.stored.rows
        if self.shard is None:
            return set(rows)
        found = {self.shard}
        while more := {row.shard_id for row in rows.values() if found & set(row.shard.parents)} - found:
            found |= more
        return found & set(rows)


def parse_goal(text: str, now: datetime) -> Goal:
    """What `--to` says."""
    if text.lower().replace("-", "_") == "trim_horizon":
        return Goal()
    if text.isascii() and text.isdecimal():
        if len(text) > _LONGEST_SEQUENCE:
            raise RequestRefused(f"--to {text} is too long for a sequence number.", advice=f"{_TARGETS} trim_horizon.")
        return Goal(Position(text))
    try:
        moment = parse_moment(text, now)
    except ValueError:
        raise RequestRefused(f"--to {text} is no place to rewind to.", advice=f"{_TARGETS} trim_horizon.") from None
    if moment >= now:
        raise RequestRefused(f"--to {text} is not in the past.", advice="Give a time to read from.")
    return Goal(before=moment.timestamp())
