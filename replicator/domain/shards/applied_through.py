"""Up to when a target has everything: from stored positions, and from what workers say with their heartbeats. No calls.

`applied_through(rule, target)` is the latest time T such that every change made at the source before T is durable at
the target, is parked, or stands in a gap. It is the least over the target's frontier: shards that it is to read now,
children that are listed and not begun, and finished shards whose children are still to be found. A place says of itself
up to when everything lies before it (`Position.through`); a shard without such a place counts as its parents' ends.
Invariant: what is not known makes the whole unknown, never level; and a worker's statement counts only for exactly
those leases that it was made of, because a shard that it took since may be far behind.

How many children a shard has is not listed: while one of two is listed, the other one is not waited for. So T is a hint
and no proof, and what acts on it adds a margin.

Lag is never less than what it should be: `now - through` bounds the age of the oldest change that is not applied,
whether records wait or not. Only who reads the shard knows that none wait.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from hashlib import sha256

from msgspec import Struct

from replicator.domain.identifiers import ShardId, WorkerId
from replicator.domain.progress import END, Position, latest
from replicator.domain.rules import Rule, Start, Target
from replicator.domain.shards.leases import LeaseRow, StreamRef
from replicator.domain.shards.lineage import RETENTION_SECONDS, childless, unfinished_parents
from replicator.domain.shards.snapshot import Snapshot
from replicator.domain.shards.statements import Statement, Statements, Subject
from replicator.domain.targets import TargetId

RESOLUTION_SECONDS = 1.0
"""Times of records are whole seconds, rounded down, and so are servers' dates."""

_DIGEST_DIGITS = 12

Frontier = Mapping[ShardId, float | None]
"""Shards at which a target stands, each with up to when everything lies before its place; None: not known."""


def subject(stream: StreamRef, target_id: TargetId) -> Subject:
    """A target on a stream."""
    return Subject(stream.region, stream.table, stream.generation, target_id)


def leases_of(leases: Iterable[tuple[ShardId, int]]) -> str:
    """A digest of some shards with their epochs."""
    text = "\n".join(f"{shard_id} {epoch}" for shard_id, epoch in sorted(leases))
    return sha256(text.encode()).hexdigest()[:_DIGEST_DIGITS]


# -- what a worker says ------------------------------------------------------------------------------------------------


class Held(Struct, frozen=True):
    """A shard that a worker reads, and where targets stand on it."""

    shard_id: ShardId
    epoch: int
    positions: Mapping[TargetId, Position]


def stated(stream: StreamRef, held: Iterable[Held]) -> dict[Subject, Statement]:
    """What a worker can say of each target on a stream; nothing of one whose place on some shard has no time."""
    times: dict[TargetId, list[float | None]] = {}
    leases: dict[TargetId, list[tuple[ShardId, int]]] = {}
    for shard in held:
        for target_id, position in shard.positions.items():
            if position != END:
                times.setdefault(target_id, []).append(position.through)
                leases.setdefault(target_id, []).append((shard.shard_id, shard.epoch))
    return {
        subject(stream, target_id): Statement(min(known), leases_of(leases[target_id]))
        for target_id, some in times.items()
        if len(known := [time for time in some if time is not None]) == len(some)
    }


# -- what the rows say -------------------------------------------------------------------------------------------------


def frontier(
    snapshot: Snapshot,
    rule: Rule,
    target: Target,
    stream: StreamRef,
    statements: Mapping[WorkerId, Statements],
) -> dict[ShardId, float | None]:
    """The frontier of a target on a stream. `statements`: what workers have said last, dead ones too."""
    needs = snapshot.needs(target)
    waiting = unfinished_parents(snapshot.graph, needs.finished, needs.begun)
    standing = [shard_id for shard_id in snapshot.rows if shard_id not in needs.finished and shard_id not in waiting]
    ends = [
        shard_id
        for shard_id in childless(snapshot.graph, needs.finished)
        if not snapshot.rows[shard_id].vanished and target.target_id in snapshot.rows[shard_id].checkpoints
    ]
    stored = {shard_id: _stored(snapshot, rule, target, snapshot.rows[shard_id]) for shard_id in (*standing, *ends)}
    vouched = _vouched(snapshot, standing, subject(stream, target.target_id), statements)
    return {shard_id: latest(through, vouched.get(shard_id)) for shard_id, through in stored.items()}


def _stored(snapshot: Snapshot, rule: Rule, target: Target, row: LeaseRow) -> float | None:
    """Up to when everything lies before a target's stored place, or before the shard itself: in its parents' ends."""
    position = row.checkpoints.get(target.target_id)
    above = [snapshot.rows.get(parent) for parent in row.shard.parents]
    ends = [None if parent is None else parent.checkpoints.get(target.target_id) for parent in above]
    times = [end.through for end in ends if end is not None and end == END and end.through is not None]
    inherited = min(times) if times and len(times) == len(ends) else None
    start = snapshot.state.starts.get(target.target_id) if rule.start is Start.LATEST else None
    own = None if position is None else position.through
    return latest(own, inherited, None if start is None else float(start.started_at))


def _vouched(
    snapshot: Snapshot, standing: Iterable[ShardId], about: Subject, statements: Mapping[WorkerId, Statements]
) -> dict[ShardId, float]:
    """What owners say of shards, where it was said of exactly what they own."""
    owned: dict[WorkerId, list[LeaseRow]] = {}
    for shard_id in standing:
        row = snapshot.rows[shard_id]
        if row.owner is not None and about.target_id in row.checkpoints:
            owned.setdefault(row.owner, []).append(row)
    found: dict[ShardId, float] = {}
    for owner, rows in owned.items():
        statement = statements.get(owner, {}).get(about)
        if statement is not None and statement.leases == leases_of((row.shard_id, row.epoch) for row in rows):
            found.update((row.shard_id, statement.through) for row in rows)
    return found


def applied_through(standing: Frontier) -> float | None:
    """The latest T before which a target has everything; None while it is not known, or nothing is known to read."""
    known = [through for through in standing.values() if through is not None]
    return min(known) - RESOLUTION_SECONDS if known and len(known) == len(standing) else None


# -- figures -----------------------------------------------------------------------------------------------------------


def lag_seconds(through: float | None, now: float) -> float | None:
    """At most how old the oldest change is that a place does not hold; None: not known."""
    return None if through is None else max(0.0, now - through)


def retention_left_seconds(lag: float | None, kept: float | None = None) -> float | None:
    """How long the stream keeps at least what is not applied; None: not known. `kept`: None is DynamoDB's day."""
    return None if lag is None else max(0.0, (RETENTION_SECONDS if kept is None else kept) - lag)


_FIRST_READ_SECONDS = 3600.0
"""So long behind a target's start its first records may be read; what ages out until then is not noticed."""


def covered_from(started_at: float, generation: int, start: Start) -> float:
    """Since when a target that started so has got every change; `generation` is that of its first stream."""
    if start is Start.LATEST:
        return started_at
    return max(generation / 1000, started_at - RETENTION_SECONDS + _FIRST_READ_SECONDS)
