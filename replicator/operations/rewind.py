"""Targets of a rule read records again, beside living workers.

Invariant: a shard moves in one conditional write that ends its owner's epoch; versions keep what is applied again from
undoing anything. A rewind that was interrupted can be repeated.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from replicator.adapters.dynamodb.streams import whole_listing
from replicator.adapters.sources import stream_behind
from replicator.domain.errors import RecordsTrimmed, ShardGone
from replicator.domain.identifiers import RuleName, ShardId
from replicator.operations.errors import RequestRefused, ShardBusy
from replicator.operations.group import Group, rule_named
from replicator.operations.leases import check_one_stream
from replicator.operations.left_streams import leaves
from replicator.operations.rewind_plan import Goal, Scope, Step, parse_goal

if TYPE_CHECKING:
    from replicator.adapters.dynamodb.coordination import StoredStream
    from replicator.domain.progress import Position
    from replicator.domain.shards.leases import StreamRef
    from replicator.domain.targets import TargetId


@dataclass(frozen=True, slots=True)
class RewindRequest:
    """What the operator asked for; `stream`: an ARN, or region:table."""

    rule: str
    to: str
    shard: ShardId | None = None
    region: str | None = None
    stream: str | None = None

    def is_of(self, stored: StoredStream) -> bool:
        """Whether a stream is meant."""
        named = self.stream in {None, stored.stream.arn, stored.stream.where}
        return named and (self.shard is None or self.shard in stored.rows)

    def is_meant(self, target: TargetId, stored: StoredStream) -> bool:
        """A region narrows: to a replica, or in a mesh to the stream that is read there."""
        return self.region in {None, target.region or stored.stream.region}


@dataclass(frozen=True, slots=True)
class GoneShard:
    """A shard that is in its stream no more, and stays as it is."""

    stream: str
    shard: ShardId


@dataclass(frozen=True, slots=True)
class Plan:
    """What will be read again, parents first."""

    scopes: Sequence[Scope]
    steps: Sequence[Step]
    gone: Sequence[GoneShard]


@dataclass(frozen=True, slots=True)
class Moved:
    """A target that was moved back."""

    stream: StreamRef
    shard: ShardId
    target: TargetId
    from_: Position
    to: Position | None


@dataclass(frozen=True, slots=True)
class Rewound:
    """What was done. `busy`: shards that kept changing hands, and stay as they are."""

    moved: Sequence[Moved] = ()
    busy: Sequence[ShardId] = ()


async def plan(group: Group, request: RewindRequest) -> Plan:
    """What a rewind would move; the group has clients of the rule's regions."""
    goal = parse_goal(request.to, datetime.fromtimestamp((await group.time()).earliest(), UTC))
    if goal.is_sequence and request.shard is None:
        raise RequestRefused("A sequence number is a place in one shard.", advice="Add --shard.")
    rule = rule_named(group.settings, request.rule)
    if request.region is not None and request.region not in {*rule.regions_used}:
        names = ", ".join(rule.regions_used)
        raise RequestRefused(f"Rule {rule.name} has no region {request.region}.", advice=f"Its regions are: {names}.")
    scopes = await _scopes(group, request, goal)
    if goal.is_sequence:
        (scope,) = scopes
        await _check_place(group, request, scope)
    return Plan(
        scopes,
        [step for scope in scopes for step in scope.steps()],
        [GoneShard(scope.stored.stream.where, shard) for scope in scopes for shard in scope.gone()],
    )


async def _scopes(group: Group, request: RewindRequest, goal: Goal) -> list[Scope]:
    scopes, rule = [], rule_named(group.settings, request.rule)
    for stored in await group.streams():
        targets = frozenset(name for name in stored.targets_of({request.rule}) if request.is_meant(name, stored))
        is_over = stored.drained or stored.is_drained_for(RuleName(request.rule)) or leaves(rule, stored.stream)
        if is_over or not targets or not request.is_of(stored):
            continue
        if stored.problems:
            raise stored.problems[0]
        scopes.append(Scope(stored, targets, await _listed(group, stored), goal, request.shard))
    if request.shard is not None and scopes:
        check_one_stream(request.shard, [scope.stored for scope in scopes])
    if not scopes:
        what = "any stream" if request.shard is None else f"shard {request.shard}"
        raise RequestRefused(
            f"Rule {request.rule} has no progress on {what} that could be rewound.",
            advice="`replicator leases list --all` lists the shards.",
        )
    return scopes


async def _listed(group: Group, stored: StoredStream) -> frozenset[ShardId]:
    streams = stream_behind(group.places[stored.stream.region], stored.stream)
    try:
        return frozenset(shard.shard_id for shard in await whole_listing(streams, stored.stream))
    except ShardGone:
        return frozenset()


async def _check_place(group: Group, request: RewindRequest, scope: Scope) -> None:
    """A sequence number must be a place that can be read, and one that was passed."""
    assert request.shard is not None, "refused before"
    position = scope.goal.position
    row = scope.stored.rows[request.shard]
    first = row.shard.first
    if first is not None and position.order < (1, int(first)):
        raise RequestRefused(
            f"{request.to} is before the first record of shard {request.shard}, {first}.",
            advice="Use --to trim_horizon, or the shard that has it.",
        )
    if not any(row.checkpoints[name].order > position.order for name in scope.targets & set(row.checkpoints)):
        raise RequestRefused(
            f"No target of rule {request.rule} has passed {request.to} on shard {request.shard};"
            " a rewind never moves forward.",
            advice="`replicator leases list --all` shows the positions.",
        )
    streams = stream_behind(group.places[scope.stored.stream.region], scope.stored.stream)
    try:
        await streams.iterator(scope.stored.stream, request.shard, position)
    except RecordsTrimmed as error:
        raise RequestRefused(
            f"{request.to} is in the stream no more.", advice="Use --to trim_horizon to read what is left."
        ) from error


async def carry_out(group: Group, planned: Plan) -> Rewound:
    """Step by step, parents first; a shard that changed hands meanwhile is looked at again."""
    moved: list[Moved] = []
    busy: list[ShardId] = []
    scopes = {scope.stored.stream: scope for scope in planned.scopes}
    for step in planned.steps:
        stream = step.stored.stream
        try:
            done = await group.move(stream, step.row, scopes[stream].move)
        except ShardBusy:
            busy.append(step.row.shard_id)
            continue
        if done is not None:
            row, move = done
            moved += [
                Moved(stream, row.shard_id, target, row.checkpoints[target], to)
                for target, to in move.positions.items()
            ]
    return Rewound(moved, busy)
