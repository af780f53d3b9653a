"""`replicator rewind`: targets of a rule read records again, beside living daemons.

Invariant: a shard moves in one conditional write that ends its owner's epoch; versions keep what is applied again from
undoing anything. A rewind that was interrupted can be repeated.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from replicator.adapters.dynamodb.streams import DynamoStreams, whole_listing
from replicator.cli.confirmation import ask, need_yes
from replicator.cli.output import print_json, print_rows
from replicator.domain.errors import EXIT_STOPPED, RecordsTrimmed, ShardGone
from replicator.domain.identifiers import ShardId
from replicator.domain.targets import TargetId
from replicator.operations.errors import RequestRefused
from replicator.operations.group import Group, ReadStream, loaded, open_group, rule_named
from replicator.operations.rewind_plan import Goal, Step, extent, gone, parse_goal, steps

if TYPE_CHECKING:
    from replicator.settings import RuleSettings, Settings

_TRIES = 5
_SHOWN_ROWS = 50
_COLUMNS = ("stream", "shard", "target", "stands at", "is read again")


@dataclass(frozen=True, slots=True)
class Wish:
    """What the operator asked for."""

    rule: str
    to: str
    shard: ShardId | None = None
    region: str | None = None
    stream: str | None = None
    yes: bool = False


@dataclass(frozen=True, slots=True)
class _Scope:
    """One stream, the targets that move there, and the shards that it lists."""

    read: ReadStream
    targets: frozenset[TargetId]
    listed: frozenset[ShardId]


def rewind_rule(config: Path | None, wish: Wish, *, as_json: bool) -> int:
    """Show what will be read again, ask, and move the positions."""
    need_yes(yes=wish.yes, as_json=as_json)
    goal = parse_goal(wish.to, datetime.now(UTC))
    if goal.is_sequence and wish.shard is None:
        raise RequestRefused("A sequence number is a place in one shard.", advice="Add --shard.")
    settings = loaded(config)
    rule = rule_named(settings, wish.rule)
    if wish.region is not None and wish.region not in {*rule.regions_used}:
        names = ", ".join(rule.regions_used)
        raise RequestRefused(f"Rule {rule.name} has no region {wish.region}.", advice=f"Its regions are: {names}.")
    return asyncio.run(_rewind(settings, rule, wish, goal, as_json=as_json))


async def _rewind(settings: Settings, rule: RuleSettings, wish: Wish, goal: Goal, *, as_json: bool) -> int:
    async with open_group(settings, rule.regions_used) as group:
        scopes = await _scopes(group, rule, wish)
        await _check_place(group, scopes, wish, goal)
        planned = [step for scope in scopes for step in _steps(scope, wish, goal)]
        left_out = [
            {"stream": scope.read.where, "shard": shard}
            for scope in scopes
            for shard in gone(scope.read, scope.targets, shard=wish.shard, listed=scope.listed)
        ]
        if not as_json:
            _show(planned, left_out)
        done: list[dict[str, Any]] = []
        if planned:
            ask(f"Let {_counted(planned)} of rule {rule.name} read this again?", yes=wish.yes)
            done = await _carry_out(group, scopes, planned, wish, goal)
    if as_json:
        print_json({"rule": rule.name, "to": wish.to, "rewound": done, "gone": left_out})
    else:
        told = f"{len(done)} positions of rule {rule.name} were moved back." if done else "There is nothing to rewind."
        sys.stdout.write(told + "\n")
    return EXIT_STOPPED


async def _scopes(group: Group, rule: RuleSettings, wish: Wish) -> list[_Scope]:
    scopes = []
    for read in await group.streams():
        targets = frozenset(name for name in read.targets_of({rule.name}) if _is_meant(name, read, wish))
        if (
            read.drained
            or rule.name in read.through
            or not targets
            or wish.stream not in {None, read.stream.arn, read.where}
        ):
            continue
        if wish.shard is not None and wish.shard not in read.state.rows:
            continue
        if read.state.unreadable is not None:
            raise read.state.unreadable
        scopes.append(_Scope(read, targets, await _listed(group, read)))
    if wish.shard is not None and len(scopes) > 1:
        names = ", ".join(f"{scope.read.where} ({scope.read.stream.arn})" for scope in scopes)
        raise RequestRefused(
            f"{len(scopes)} streams have a shard {wish.shard}: {names}.",
            advice="Add --stream with the ARN, or with region:table.",
        )
    if not scopes:
        what = "any stream" if wish.shard is None else f"shard {wish.shard}"
        raise RequestRefused(
            f"Rule {rule.name} has no progress on {what} that could be rewound.",
            advice="`replicator leases list --all` shows what there is.",
        )
    return scopes


def _is_meant(target: TargetId, read: ReadStream, wish: Wish) -> bool:
    """A region narrows: to a replica, or in a mesh to the stream that is read there."""
    return wish.region in {None, target.region or read.stream.region}


async def _listed(group: Group, read: ReadStream) -> frozenset[ShardId]:
    streams = DynamoStreams(group.places[read.stream.region])
    try:
        return frozenset(shard.shard_id for shard in await whole_listing(streams, read.stream))
    except ShardGone:
        return frozenset()


async def _check_place(group: Group, scopes: Sequence[_Scope], wish: Wish, goal: Goal) -> None:
    """A sequence number must be a place that can be read, and one that was passed."""
    if not goal.is_sequence:
        return
    (scope,) = scopes
    assert wish.shard is not None, "refused before"
    shard = wish.shard
    row = scope.read.state.rows[shard]
    first = row.shard.first
    if first is not None and goal.position.order < (1, int(first)):
        raise RequestRefused(
            f"{wish.to} lies before the first record of shard {shard}, {first}.",
            advice="Use --to trim_horizon, or the shard that has it.",
        )
    if not any(row.checkpoints[name].order > goal.position.order for name in scope.targets & set(row.checkpoints)):
        raise RequestRefused(
            f"No target of rule {wish.rule} has passed {wish.to} on shard {shard}; a rewind never moves forward.",
            advice="`replicator leases list --all` shows the positions.",
        )
    try:
        await DynamoStreams(group.places[scope.read.stream.region]).iterator(scope.read.stream, shard, goal.position)
    except RecordsTrimmed as error:
        raise RequestRefused(
            f"{wish.to} is in the stream no more.", advice="Use --to trim_horizon to read what is left."
        ) from error


def _steps(scope: _Scope, wish: Wish, goal: Goal) -> list[Step]:
    return list(steps(scope.read, scope.targets, goal, shard=wish.shard, listed=scope.listed))


async def _carry_out(
    group: Group, scopes: Sequence[_Scope], planned: Sequence[Step], wish: Wish, goal: Goal
) -> list[dict[str, Any]]:
    """Step by step, parents first; a shard that changed hands meanwhile is looked at again."""
    by_stream = {scope.read.stream: scope for scope in scopes}
    done = []
    for step in planned:
        current: Step | None = step
        for _ in range(_TRIES):
            if current is None:
                break
            if await group.operations.rewind(step.read.stream, current.row, current.positions, current.rewinds):
                done += [_moved(current, target) for target in current.positions]
                break
            current = await _again(group, by_stream[step.read.stream], step.row.shard_id, wish, goal)
        else:
            sys.stderr.write(f"replicator: shard {step.row.shard_id} kept changing hands; run this again for it.\n")
    return done


async def _again(group: Group, scope: _Scope, shard_id: ShardId, wish: Wish, goal: Goal) -> Step | None:
    """The step for a shard as it is now."""
    state = await group.coordination.state(scope.read.stream)
    fresh = _Scope(replace(scope.read, state=state), scope.targets, scope.listed)
    return next((step for step in _steps(fresh, wish, goal) if step.row.shard_id == shard_id), None)


# -- showing -------------------------------------------------------------------------------------------------------


def _moved(step: Step, target: TargetId) -> dict[str, Any]:
    stream = step.read.stream
    return {
        "region": stream.region,
        "table": stream.table,
        "stream": stream.arn,
        "shard": step.row.shard_id,
        "target": target.text,
        "from": step.old[target].text,
        "to": step.positions[target].text,
    }


def _show(planned: Sequence[Step], left_out: Sequence[dict[str, Any]]) -> None:
    rows = [
        (step.read.where, step.row.shard_id, target.text, old.text, extent(step))
        for step in planned
        for target, old in step.old.items()
    ]
    if rows:
        print_rows(_COLUMNS, rows[:_SHOWN_ROWS])
    if len(rows) > _SHOWN_ROWS:
        sys.stdout.write(f"... and {len(rows) - _SHOWN_ROWS} more.\n")
    if left_out:
        sys.stderr.write(f"replicator: {len(left_out)} shards are in their stream no more and stay as they are.\n")
    sys.stdout.flush()


def _counted(planned: Sequence[Step]) -> str:
    targets = {target for step in planned for target in step.positions}
    return f"{len(targets)} targets on {len(planned)} shards"
