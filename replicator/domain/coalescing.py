"""Records of one key in one batch become one planned change; cache keys of all of them are kept."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from replicator.domain.image import unreserved
from replicator.domain.modes.ordered import Action, Change
from replicator.domain.records import ChangeRecord, Event, ItemKey
from replicator.domain.rules import Rule, TtlDeletes
from replicator.domain.versions import version_of


class Run(msgspec.Struct, frozen=True):
    """All records of one key in a batch, in stream order."""

    key: ItemKey
    records: tuple[ChangeRecord, ...]


def coalesce(records: Iterable[ChangeRecord]) -> list[Run]:
    """Records grouped by key; keys in the order of their first record."""
    by_key: dict[ItemKey, list[ChangeRecord]] = {}
    for record in records:
        group = by_key.get(record.key)
        if group is None:
            by_key[record.key] = [record]
        else:
            group.append(record)
    return [Run(key, tuple(group)) for key, group in by_key.items()]


def plan_run(rule: Rule, run: Run, generation: int) -> Change | None:
    """The one change that these records amount to for a replica; None when the rule lets none of them pass.

    Every record is judged by itself (so the result does not depend on batches); the last one that passes decides.
    """
    decided: tuple[Action, ChangeRecord] | None = None
    was_in = False
    for record in run.records:
        action = _action(rule, record)
        if action is None:
            continue
        if action is Action.REMOVE_IF_PRESENT and was_in:
            action = Action.REMOVE
        was_in = was_in or action is not Action.REMOVE_IF_PRESENT
        decided = (action, record)
    if decided is None:
        return None
    action, record = decided
    return Change(
        action=action,
        key=run.key,
        version=version_of(rule.epoch, generation, record.sequence),
        old=run.records[0].old,
        new=unreserved(record.new) if action is Action.PUT and record.new is not None else None,
        source=rule.source,
        created_at=record.created_at,
    )


def _action(rule: Rule, record: ChangeRecord) -> Action | None:
    """What one record asks for under a rule's filter; None: nothing."""
    if record.by_ttl and rule.ttl_deletes is TtlDeletes.SKIP:
        return None
    if rule.filter.matches(record.new):
        return Action.PUT if record.event in rule.filter.events else None
    removal = Event.REMOVE in rule.filter.events
    if rule.filter.matches(record.before):
        return Action.REMOVE if removal else None
    # A skipped TTL delete may have left an item on the replica; its successor under that key must not keep it alive.
    # And what a partial record does not show may have passed the filter.
    may_linger = record.partial or (record.event is Event.INSERT and rule.ttl_deletes is TtlDeletes.SKIP)
    return Action.REMOVE_IF_PRESENT if removal and (record.event is Event.REMOVE or may_linger) else None
