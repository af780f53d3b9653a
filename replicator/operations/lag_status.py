"""Up to when targets have everything, as stored rows, heartbeats and living workers say.

Invariant: what is not known is None, with a count; a figure of a worker that reads a shard counts before what is
stored, because only it knows whether records wait.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from replicator.domain.shards.applied_through import applied_through, frontier, lag_seconds, retention_left_seconds
from replicator.domain.shards.leases import StreamState
from replicator.domain.shards.snapshot import Snapshot

if TYPE_CHECKING:
    from replicator.adapters.dynamodb.coordination import StoredStream
    from replicator.domain.identifiers import ShardId, WorkerId
    from replicator.domain.rules import Rule
    from replicator.domain.shards.applied_through import Frontier
    from replicator.domain.shards.statements import Statements
    from replicator.domain.targets import TargetId


@dataclass(frozen=True, slots=True)
class RuleTarget:
    """A target over all shards at which it stands; `unknown_shards`: those of which no lag is known."""

    target: TargetId
    applied_through: datetime | None
    lag_seconds: float | None
    retention_left_seconds: float | None
    unknown_shards: int


@dataclass(slots=True)
class Reached:
    """Where targets of a rule stand on one stream, and up to when; `at`: the server's time, seconds since 1970.

    `kept`: how many seconds the stream keeps records; None: DynamoDB's day.
    """

    at: float
    kept: float | None = None
    frontiers: dict[TargetId, Frontier] = field(default_factory=dict)

    def lag(self, target_id: TargetId, shard_id: ShardId) -> float | None:
        """At most how old a change is that waits at a shard; None: not known, or the target does not stand there."""
        return lag_seconds(self.frontiers.get(target_id, {}).get(shard_id), self.at)

    def through(self, target_id: TargetId, shard_id: ShardId) -> datetime | None:
        """Up to when everything lies before a target's place at a shard."""
        return moment_of(self.frontiers.get(target_id, {}).get(shard_id))


def reached(runs: Sequence[Rule], stored: StoredStream, statements: Mapping[WorkerId, Statements]) -> Reached:
    """What the rows of a stream and heartbeats say of a rule's targets."""
    state = StreamState(stored.rows, stored.seat, stored.starts, 0.0)
    found = Reached(stored.at, stored.known.kept_seconds)
    for run in runs:
        snapshot = Snapshot(state, [run])
        for target in run.targets:
            found.frontiers[target.target_id] = frontier(snapshot, run, target, stored.stream, statements)
    return found


def summed_up(
    parts: Sequence[tuple[Reached, Mapping[tuple[ShardId, TargetId], Mapping[str, Any]]]],
) -> list[RuleTarget]:
    """Every target of a rule over its streams: what rows say, and what workers say of the shards that they read."""
    names = sorted({name for standing, _ in parts for name in standing.frontiers})
    return [_summed_up(name, parts) for name in names]


def _summed_up(
    name: TargetId, parts: Sequence[tuple[Reached, Mapping[tuple[ShardId, TargetId], Mapping[str, Any]]]]
) -> RuleTarget:
    lags: list[float | None] = []
    lefts: list[float | None] = []
    levels: list[float | None] = []
    for standing, live in parts:
        places = standing.frontiers.get(name)
        if places is None:
            continue
        levels.append(applied_through(places))
        for shard_id in places:
            said = live.get((shard_id, name))
            lags.append(standing.lag(name, shard_id) if said is None else said.get("lag_seconds"))
            lefts.append(retention_left_seconds(lags[-1], standing.kept))
    known = [lag for lag in lags if lag is not None]
    times = [level for level in levels if level is not None]
    lag = max(known, default=None)
    return RuleTarget(
        name,
        moment_of(min(times) if times and len(times) == len(levels) else None),
        None if lag is None else round(lag, 1),
        rounded(min((left for left in lefts if left is not None), default=None)),
        len(lags) - len(known),
    )


def moment_of(seconds: float | None) -> datetime | None:
    """A time for people and scripts."""
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC)


def rounded(seconds: float | None) -> float | None:
    """Whole seconds."""
    return None if seconds is None else round(seconds)
