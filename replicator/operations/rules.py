"""The rules of a configuration and their stored progress, which can be handed to another name or forgotten.

Invariant: nothing changes while a worker of the group is alive, and every row changes as it was seen or not at all; a
change that was interrupted can be repeated.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from replicator.adapters.dynamodb.coordination import StoredStream
from replicator.domain.errors import ReplicatorError, WorldMismatch
from replicator.domain.identifiers import RuleName
from replicator.operations.group import Group, Move
from replicator.settings import OrderedRule

if TYPE_CHECKING:
    from replicator.domain.shards.leases import LeaseRow
    from replicator.settings import RuleSettings, Settings


@dataclass(frozen=True, slots=True)
class ConfiguredRule:
    """A rule, where it reads and writes, and the tables that it has progress on; None: that is not known."""

    name: str
    configured: bool
    mode: str
    sources: Sequence[str]
    replicas: Sequence[str]
    caches: Sequence[str]
    progress: Sequence[str] | None


@dataclass(frozen=True, slots=True)
class OrphanedProgress:
    """Progress of a rule that is not configured, by table."""

    name: str
    configured: bool
    progress: Sequence[str]


@dataclass(frozen=True, slots=True)
class Rules:
    """The configured rules, then what is stored of others; `trouble`: why progress is not known."""

    rules: Sequence[ConfiguredRule | OrphanedProgress]
    trouble: ReplicatorError | None = None


async def list_rules(group: Group) -> Rules:
    """Every rule, with progress if the coordination table answers."""
    progress: dict[str, list[str]] = {}
    trouble = None
    try:
        for stored in await group.streams():
            for name in sorted(stored.rules):
                progress.setdefault(name, []).append(stored.stream.where)
    except ReplicatorError as error:
        trouble = error
        progress.clear()
    rules = [
        _configured(rule, None if trouble is not None else progress.pop(rule.name, [])) for rule in group.settings.rules
    ]
    orphaned = [OrphanedProgress(name, configured=False, progress=where) for name, where in progress.items()]
    return Rules([*rules, *orphaned], trouble)


def _configured(rule: RuleSettings, progress: Sequence[str] | None) -> ConfiguredRule:
    """Where a rule reads and writes; one that chooses its tables, by what it chooses."""
    if rule.choice is None:
        sources, replicas = rule.sources, rule.replica_tables
    else:
        read = [rule.source] if isinstance(rule, OrderedRule) else rule.regions_used
        sources = [(region, str(rule.choice)) for region in read]
        replicas = [(region, str(rule.choice)) for region in rule.regions_written]
    return ConfiguredRule(
        name=rule.name,
        configured=True,
        mode=rule.mode,
        sources=[f"{region}:{table}" for region, table in sources],
        replicas=[f"{region}:{table}" for region, table in replicas],
        caches=[f"{action.cache} ({action.action})" for action in rule.cache],
        progress=progress,
    )


# -- progress under another name, or under none --------------------------------------------------------------------


def check_rename(settings: Settings, old: str, new: str) -> None:
    """Refuse to take progress that is in use, or to hand it to a rule that is not there."""
    check_forget(settings, old)
    if new not in {rule.name for rule in settings.rules}:
        raise WorldMismatch(
            f"Rule {new} is not in the configuration.", advice="Rename the rule there first, then run this again."
        )


def check_forget(settings: Settings, old: str) -> None:
    """Refuse to take progress that is in use."""
    if old in {rule.name for rule in settings.rules}:
        raise WorldMismatch(
            f"Rule {old} is still in the configuration, so its progress is in use.",
            advice="Rename or remove the rule there first, then run this again.",
        )


async def rename(group: Group, old: RuleName, new: RuleName) -> int:
    """Hand the progress of a rule that was renamed over to its new name; returns how many rows changed."""
    check_rename(group.settings, old, new)
    streams = await _alone(group)
    for stored in streams:
        _refuse_two(stored, old, new)
    changed = 0
    for stored in streams:
        if old in stored.known.drained:
            await group.registry.remember_stream(stored.stream, {new})
        changed += await _move_shards(group, stored, old, new)
        changed += await group.operations.move_starts(stored.stream, old, new)
        await _take_off(group, stored, old)
    return _some(changed, old)


async def forget(group: Group, old: RuleName) -> int:
    """Delete the progress of a rule that is no longer configured; returns how many rows changed."""
    check_forget(group.settings, old)
    changed = 0
    for stored in await _alone(group):
        changed += await _move_shards(group, stored, old, None)
        changed += await group.operations.forget_starts(stored.stream, old)
        await _take_off(group, stored, old)
    return _some(changed, old)


async def _alone(group: Group) -> list[StoredStream]:
    """The streams, when no worker lives and every row can be read: one that is left out may have progress too."""
    group.announce(f"looking for living workers of group {group.settings.group} ...")
    await group.refuse_living()
    streams = await group.streams()
    for stored in streams:
        if stored.problems:
            raise stored.problems[0]
    return streams


async def _move_shards(group: Group, stored: StoredStream, old: RuleName, new: RuleName | None) -> int:
    moved = [await group.move(stored.stream, row, lambda seen: _moved(seen, old, new)) for row in stored.rows.values()]
    return sum(done is not None for done in moved)


def _moved(row: LeaseRow, old: RuleName, new: RuleName | None) -> Move | None:
    """The positions of a rule, and what it skips after a rewind, under another name or under none."""
    mine = [target for target in {**row.checkpoints, **row.rewinds} if target.rule == old]
    if not mine:
        return None
    names = {} if new is None else {target: target.of_rule(new) for target in mine}
    return Move(
        {**dict.fromkeys(mine), **{names[name]: row.checkpoints[name] for name in names if name in row.checkpoints}},
        {names[name]: row.rewinds[name] for name in names if name in row.rewinds},
    )


async def _take_off(group: Group, stored: StoredStream, rule: RuleName) -> None:
    """Note no more that a rule is through with a stream."""
    if rule in stored.known.drained:
        await group.registry.forget_rule(stored.stream, rule)


def _refuse_two(stored: StoredStream, old: RuleName, new: RuleName) -> None:
    """Two positions of one target cannot become one."""
    for row in stored.rows.values():
        for target in row.checkpoints:
            if target.rule == old and target.of_rule(new) in row.checkpoints:
                raise WorldMismatch(
                    f"Rule {new} has progress of its own on table {stored.stream.table} in {stored.stream.region}.",
                    advice=f"Keep it and run `replicator rules forget {old}`.",
                )


def _some(changed: int, rule: RuleName) -> int:
    if changed == 0:
        raise WorldMismatch(f"There is no progress of rule {rule}.", advice="`replicator rules` lists what there is.")
    return changed
