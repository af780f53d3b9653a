"""What no worker reads of a stream: for each target the shards at which it is and no worker is at work. No calls.

Invariant: a shard at which a target stands is either read by a worker that lives, which reports it itself, or is here
with the reason. So what all workers report together is everything, and nothing is reported twice.
"""

from __future__ import annotations

from collections.abc import Mapping

from msgspec import Struct

from replicator.domain.identifiers import ShardId, WorkerId
from replicator.domain.progress import END
from replicator.domain.rules import Rule, Target
from replicator.domain.shards.applied_through import frontier
from replicator.domain.shards.leases import StreamRef
from replicator.domain.shards.snapshot import Snapshot
from replicator.domain.shards.standstill import Observed, Why, waits_of
from replicator.domain.shards.statements import Statements

HELD = "held"
"""The state of what a rule does not read because it is held."""

LOST = "lost"
"""The state of what a worker read until it lost its leases, while it is not known who reads it."""

NO_STREAM = "no stream"
"""The state of a rule of which no stream was read ever."""


class Unread(Struct, frozen=True):
    """A target at a shard that is not read for it. `shard_id` None: no shard of its stream is known.

    `state`: why, in a word. `through`: everything from a second before this lies before its place; None: not known.
    """

    stream: StreamRef
    shard_id: ShardId | None
    target: Target
    state: str
    through: float | None


def unread(  # noqa: PLR0913 - everything that is known, given once
    snapshot: Snapshot,
    rule: Rule,
    stream: StreamRef,
    observed: Observed,
    statements: Mapping[WorkerId, Statements],
    *,
    is_held: bool = False,
) -> list[Unread]:
    """What a rule does not get read on a stream. `statements`: the last of each worker. `is_held`: it runs nowhere."""
    found: list[Unread] = []
    for target in rule.targets:
        waiting = waits_of(snapshot, target, observed)
        for shard_id, through in frontier(snapshot, rule, target, stream, statements).items():
            state = _state(snapshot, target, shard_id, is_held=is_held)
            if state is None and shard_id in waiting:
                state = waiting[shard_id].why.value
            if state is not None:
                found.append(Unread(stream, shard_id, target, state, through))
        if not snapshot.rows:
            found.append(Unread(stream, None, target, HELD if is_held else Why.NO_SHARD.value, None))
    return found


def _state(snapshot: Snapshot, target: Target, shard_id: ShardId, *, is_held: bool) -> str | None:
    """Why a shard is read by no worker, whichever owns it."""
    if is_held:
        return HELD
    at_end = snapshot.rows[shard_id].checkpoints.get(target.target_id) == END
    return Why.NO_CHILD.value if at_end else None
