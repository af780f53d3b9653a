"""Which targets a rewind moves on which shards, and from where to where. Pure: rows in, steps out.

Invariant: nothing moves forward, so nothing is passed over; and a parent comes before its children, so that these wait
for it again.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from pydantic import TypeAdapter, ValidationError

from replicator.domain.progress import END, HORIZON, Position
from replicator.domain.shards.leases import LeaseRow, Rewind
from replicator.domain.shards.lineage import storable, unproven
from replicator.domain.targets import TargetId
from replicator.operations.errors import RequestRefused
from replicator.operations.group import ReadStream
from replicator.settings.values import Duration

if TYPE_CHECKING:
    from replicator.domain.identifiers import ShardId

_LONGEST_SEQUENCE = 40
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
    """One shard's targets and where they move; `old`: where they stand."""

    read: ReadStream
    row: LeaseRow
    old: Mapping[TargetId, Position]
    positions: Mapping[TargetId, Position]
    rewinds: Mapping[TargetId, Rewind]


def parse_goal(text: str, now: datetime) -> Goal:
    """What `--to` says."""
    if text.lower().replace("-", "_") == "trim_horizon":
        return Goal()
    if text.isascii() and text.isdecimal():
        if len(text) > _LONGEST_SEQUENCE:
            raise RequestRefused(f"--to {text} is too long for a sequence number.", advice=f"{_TARGETS} trim_horizon.")
        return Goal(Position(text))
    try:
        moment = datetime.fromisoformat(text)
        moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    except ValueError:
        try:
            moment = now - TypeAdapter[timedelta](Duration).validate_python(text)
        except (ValidationError, OverflowError):
            raise RequestRefused(f"--to {text} is no place to rewind to.", advice=f"{_TARGETS} trim_horizon.") from None
    if moment >= now:
        raise RequestRefused(f"--to {text} is not in the past.", advice="Name a time from which on to read again.")
    return Goal(before=moment.timestamp())


def steps(
    read: ReadStream, targets: Collection[TargetId], goal: Goal, *, shard: ShardId | None, listed: Collection[ShardId]
) -> Iterator[Step]:
    """Parents first: a shard and its descendants, or all; what the stream no longer lists cannot be read again."""
    rows = read.state.rows
    graph = {shard_id: row.shard for shard_id, row in rows.items()}
    meant = set(rows) if shard is None else _with_descendants(rows, shard)
    for known in storable(graph, stored=(), gone=unproven(graph)):
        row = rows[known.shard_id]
        if row.shard_id not in meant or row.vanished or row.shard_id not in listed:
            continue
        place = goal.position if row.shard_id == shard else HORIZON
        old = {
            target: row.checkpoints[target]
            for target in sorted(targets)
            if target in row.checkpoints and row.checkpoints[target].order > place.order
        }
        if old:
            rewinds = {} if place != HORIZON else {name: Rewind(goal.before, until) for name, until in old.items()}
            yield Step(read, row, old, dict.fromkeys(old, place), rewinds)


def gone(
    read: ReadStream, targets: Collection[TargetId], *, shard: ShardId | None, listed: Collection[ShardId]
) -> list[str]:
    """Shards that were meant, were read, and are in the stream no more."""
    rows = read.state.rows
    meant = set(rows) if shard is None else _with_descendants(rows, shard)
    return sorted(
        shard_id
        for shard_id in meant
        if (rows[shard_id].vanished or shard_id not in listed)
        and any(name in rows[shard_id].checkpoints for name in targets)
    )


def _with_descendants(rows: Mapping[ShardId, LeaseRow], shard: ShardId) -> set[ShardId]:
    found = {shard}
    while True:
        more = {row.shard_id for row in rows.values() if found & set(row.shard.parents)} - found
        if not more:
            return found & set(rows)
        found |= more


def extent(step: Step) -> str:
    """What of a shard will be read again, for people."""
    before = {rewind.before for rewind in step.rewinds.values()}
    if before and max(before) > 0:
        return f"since {datetime.fromtimestamp(max(before), UTC).isoformat(timespec='seconds')}"
    if all(place == HORIZON for place in step.positions.values()):
        return "all that is left of it" if any(old == END for old in step.old.values()) else "from its oldest record"
    return f"behind {next(iter(step.positions.values())).text}"
