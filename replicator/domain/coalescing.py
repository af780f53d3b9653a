"""Records of one key in one batch become one planned change; cache keys of all of them are kept."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import groupby

import msgspec

from replicator.domain.image import Image, same_content, unreserved
from replicator.domain.modes.ordered import Action, Change, Outcome
from replicator.domain.records import ChangeRecord, Event, ItemKey
from replicator.domain.rules import Rule, TtlDeletes
from replicator.domain.transforms import Transform, shaped, shaped_if_it_can_be
from replicator.domain.versions import TIED, at_sequence, sequence_of, version_of


class Run(msgspec.Struct, frozen=True, gc=False):
    """All records of one key in a batch, in the order of their changes (`in_order`)."""

    key: ItemKey
    records: tuple[ChangeRecord, ...]
    ties: int = 0
    """How many of the records have the time of another one, so that their order is a guess."""
    over: int = 0
    """The time below which its target holds what is older, where it was moved behind that; 0: it was not."""


_MOST_TIED = 999
"""Changes of one key within a millisecond that have places of their own in its microseconds."""


def in_order(records: Sequence[ChangeRecord]) -> tuple[ChangeRecord, ...]:
    """Records of one key as their changes were made: as they came, unless their source does not keep the order.

    Then by their time. Different changes of one time (it counts milliseconds) get times of their own behind it.
    """
    if not records or not records[0].micros:
        return tuple(records)
    ordered = sorted(records, key=lambda record: (record.micros, record.event_id))
    if not any(map(_tied, ordered, ordered[1:])):
        return tuple(ordered)
    found: list[ChangeRecord] = []
    for _, group in groupby(ordered, key=lambda record: record.micros):
        found += _untied(list(group))
    return tuple(found)


def ties(records: Sequence[ChangeRecord]) -> int:
    """How many records of one key were made at the time of another one that came with them."""
    if not records or not records[0].micros or len(records) == 1:
        return 0
    made = {(record.micros, record.event_id) for record in records}
    return len(made) - len({micros for micros, _ in made})


def _tied(one: ChangeRecord, two: ChangeRecord) -> bool:
    return one.micros == two.micros and one.event_id != two.event_id


def _untied(group: list[ChangeRecord]) -> list[ChangeRecord]:
    """Changes of one time: each behind the one that left what it replaced, else by their ids; repeats stay together."""
    changes = {record.event_id: record for record in group}
    places: dict[str, int] = {}
    while changes:
        chosen = _first(list(changes.values()))
        places[chosen] = min(len(places), _MOST_TIED)
        del changes[chosen]
    found = [msgspec.structs.replace(record, micros=record.micros + places[record.event_id]) for record in group]
    return sorted(found, key=lambda record: (record.micros, record.event_id))


def _first(left: Sequence[ChangeRecord]) -> str:
    """The change that none of the others left the old image of; an image says more than that there was no item."""
    for by_absence in (True, False):
        for record in left:
            if not any(_follows(record, other, by_absence=by_absence) for other in left if other is not record):
                return record.event_id
    return left[0].event_id


def _follows(record: ChangeRecord, other: ChangeRecord, *, by_absence: bool) -> bool:
    """Whether what a record replaced is what another one left."""
    if record.before is None or other.new is None:
        return by_absence and record.before is None and other.new is None
    return record.old is not None and same_content(record.old, other.new)


def coalesce(records: Iterable[ChangeRecord]) -> list[Run]:
    """Records grouped by key; keys in the order of their first record."""
    by_key: dict[ItemKey, list[ChangeRecord]] = {}
    for record in records:
        group = by_key.get(record.key)
        if group is None:
            by_key[record.key] = [record]
        else:
            group.append(record)
    return [
        Run(key, (group[0],)) if len(group) == 1 else Run(key, in_order(group), ties(group))
        for key, group in by_key.items()
    ]


def plan_run(rule: Rule, run: Run, generation: int, transform: Transform | None = None) -> Change | None:
    """The one change that these records amount to for a replica; None when the rule lets none of them pass.

    Every record is judged by itself (so the result does not depend on batches); the last one that passes decides.
    `transform` is that of the replica, behind the filter.
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
    old, new = run.records[0].old, None
    if action is Action.PUT and record.new is not None:
        new = shaped(transform, run.key, unreserved(record.new))
    change = Change(
        action=action,
        key=run.key,
        version=version_of(rule.epoch, generation, record.rank),
        old=old if transform is None else shaped_if_it_can_be(transform, run.key, old) or old,
        new=new,
        source=rule.source,
        created_at=record.created_at,
    )
    if rule.stream is None or rule.stream.in_microseconds:
        return change
    replaced = next(each for each in run.records if each.micros // TIED == record.micros // TIED).old
    held = replaced if transform is None else shaped_if_it_can_be(transform, run.key, replaced)
    below = at_sequence(change.version, run.over or record.micros // TIED * TIED)
    return msgspec.structs.replace(change, is_coarse=True, replaced=held, below=below)


def is_guessed(run: Run) -> bool:
    """Whether which of a run's changes is the last one is a guess, so that the source is to be asked."""
    last = run.records[-1]
    return not run.over and any(_is_beside(each, last) for each in run.records)


def as_the_source_says(run: Run, source: Image | None) -> Run:
    """A run whose last change is a guess, with the one at the end that left what the source holds, if one did."""
    last = run.records[-1]
    for made in run.records:
        if _is_beside(made, last) and _is_same(source, made.new) and not _is_same(source, last.new):
            others = [each for each in run.records if each.event_id != made.event_id]
            moved = msgspec.structs.replace(made, micros=min(last.micros + 1, last.micros // TIED * TIED + _MOST_TIED))
            return Run(run.key, (*others, moved), run.ties)
    return run


def _is_beside(one: ChangeRecord, last: ChangeRecord) -> bool:
    return one.micros // TIED == last.micros // TIED and one.event_id != last.event_id


def goes_behind(run: Run, outcome: Outcome, source: Image | None) -> bool:
    """Whether a run that met another change of its millisecond is the later one. `source`: the item as it is there now.

    It is, if it left what the source holds; it is not, if it replaced that. Else the source has changed since, and what
    that left decides; until then, and where it does not pass, the later one is what replaced what is there.
    """
    made = run.records[-1]
    if is_left(run, source):
        return True
    first = next(each for each in run.records if each.micros // TIED == made.micros // TIED)
    return outcome.follows and not _is_same(source, first.old)


def is_left(run: Run, source: Image | None) -> bool:
    """Whether a run's last change left what the source holds now."""
    return _is_same(source, run.records[-1].new)


def _is_same(one: Image | None, two: Image | None) -> bool:
    return one is two if one is None or two is None else same_content(one, two)


def behind(run: Run, version: str) -> Run | None:
    """A run whose changes of a version's millisecond come behind it; None when there are no more places in that."""
    last = sequence_of(version)
    tied = [record for record in run.records if record.micros // TIED == last // TIED]
    by = max(0, last + 1 - tied[0].micros)
    if by >= TIED - tied[-1].micros % TIED:
        return None
    moved = (msgspec.structs.replace(record, micros=record.micros + by) for record in tied)
    return Run(run.key, (*run.records[: -len(tied)], *moved), run.ties, last + 1)


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
