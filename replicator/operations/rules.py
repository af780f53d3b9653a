"""The rules of a configuration and their stored progress, which can be handed to another name or forgotten.

Invariant: nothing changes while a worker of the group is alive, and every row changes as it was seen or not at all; a
change that was interrupted can be repeated.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from replicator.adapters.dynamodb.coordination import RuleRows
from replicator.domain.drivers import Drivers
from replicator.domain.driving import Driving
from replicator.domain.errors import ReplicatorError, TableMissing, WorldMismatch
from replicator.domain.identifiers import RuleName
from replicator.domain.values import replace
from replicator.operations.group import Group
from replicator.operations.parked_rows import tables_of

if TYPE_CHECKING:
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
    events: Sequence[str]
    progress: Sequence[str] | None
    driven_by: Drivers | None
    """None: that is not known."""


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
    driven: Mapping[RuleName, Driving] = {}
    try:
        driven = await group.membership.driven()
        for stored in await group.streams():
            for name in sorted(stored.rules):
                progress.setdefault(name, []).append(stored.stream.where)
    except ReplicatorError as error:
        trouble = error
        progress.clear()
    rules = [
        _configured(rule, None, None)
        if trouble is not None
        else _configured(rule, progress.pop(rule.name, []), _driver(driven.get(RuleName(rule.name))))
        for rule in group.settings.rules
    ]
    orphaned = [OrphanedProgress(name, configured=False, progress=where) for name, where in progress.items()]
    return Rules([*rules, *orphaned], trouble)


def _driver(driving: Driving | None) -> Drivers:
    return Drivers.PODS if driving is None else driving.by


def _configured(rule: RuleSettings, progress: Sequence[str] | None, driven_by: Drivers | None) -> ConfiguredRule:
    """Where a rule reads and writes; one that chooses its tables, by what it chooses."""
    if rule.choice is None:
        sources, replicas = rule.sources, rule.replica_tables
    else:
        sources = [(region, str(rule.choice)) for region in rule.regions_read]
        replicas = [(region, str(rule.choice)) for region in rule.regions_written]
    return ConfiguredRule(
        name=rule.name,
        configured=True,
        mode=rule.mode,
        sources=[f"{region}:{table}" for region, table in sources],
        replicas=[f"{region}:{table}" for region, table in replicas],
        caches=[f"{action.cache} ({action.action})" for action in rule.cache],
        events=[sink.sink_name for sink in rule.events],
        progress=progress,
        driven_by=driven_by,
    )


# -- progress under another name, or under none --------------------------------------------------------------------


def check_rename(settings: Settings, old: str, new: str) -> None:
    """Refuse to take progress that is in use, or to hand it to a rule that is not there."""
    check_forget(settings, old)
    if new not in {rule.name for rule in settings.rules}:
        raise WorldMismatch(
            f"Rule {new} is not in the configuration.",
            advice="Rename the rule there first, then run this command again.",
        )


def check_forget(settings: Settings, old: str) -> None:
    """Refuse to take progress that is in use."""
    if old in {rule.name for rule in settings.rules}:
        raise WorldMismatch(
            f"Rule {old} is still in the configuration, so its progress is in use.",
            advice="Rename or remove the rule there first, then run this command again.",
        )


async def rename(group: Group, old: RuleName, new: RuleName) -> int:
    """Hand everything of a rule that was renamed over to its new name; returns how many rows changed."""
    check_rename(group.settings, old, new)
    await _alone(group)
    changed = await RuleRows(group.table).rename(old, new)
    return _some(changed + await _move_parked(group, old, new), old)


async def forget(group: Group, old: RuleName) -> int:
    """Delete everything of a rule that is no longer configured; returns how many rows changed."""
    check_forget(group.settings, old)
    await _alone(group)
    return _some(await forget_rows(group, old), old)


async def forget_rows(group: Group, rule: RuleName) -> int:
    """Delete a rule's progress and jobs, and what its targets are owed; returns how many rows changed."""
    return await RuleRows(group.table).forget(rule) + await _move_parked(group, rule, None)


async def _move_parked(group: Group, old: RuleName, new: RuleName | None) -> int:
    """Hand what a rule's targets are owed over to another name, or forget it."""
    moved = 0
    for rows in tables_of(group).values():
        try:
            targets = await rows.targets()
        except TableMissing:
            continue
        for to in targets:
            if to.target_id.rule == old:
                name = None if new is None else replace(to, target_id=to.target_id.of_rule(new))
                moved += await rows.move(to, name)
    return moved


async def _alone(group: Group) -> None:
    """Refuse while a worker lives, or a row cannot be read, which may have progress too."""
    group.announce(f"looking for living workers of group {group.settings.group} ...")
    await group.refuse_living()
    for stored in await group.streams():
        if stored.problems:
            raise stored.problems[0]


def _some(changed: int, rule: RuleName) -> int:
    if changed == 0:
        raise WorldMismatch(f"There is no progress of rule {rule}.", advice="`replicator rules` lists all progress.")
    return changed
