"""The cache actions that follow a change."""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

import msgspec

from replicator.domain.errors import PoisonRecord
from replicator.domain.filters import Filter
from replicator.domain.identifiers import RegionId
from replicator.domain.image import Image
from replicator.domain.key_templates import KeyTemplate
from replicator.domain.modes.ordered import Change
from replicator.domain.records import ChangeRecord
from replicator.domain.versions import at_sequence


class CacheVerb(enum.Enum):
    """What is done to a cache entry when its item changed."""

    INVALIDATE = "invalidate"
    REFRESH = "refresh"


@dataclass(frozen=True, slots=True)
class CacheRule:
    """Which entries of which cache follow a table."""

    cache: str
    region: RegionId
    key: KeyTemplate
    verb: CacheVerb
    ttl: timedelta
    when: Filter | None = None
    """Only items that pass have these entries; None: all."""

    def keys(self, image: Image) -> tuple[str, ...]:
        """The entries of an item."""
        return self.key.keys(image) if self.has(image) else ()

    def has(self, image: Image | None) -> bool:
        """Whether an item has entries; one that the filter cannot judge counts as one that has."""
        try:
            return self.when is None or self.when.matches(image)
        except PoisonRecord:
            return True


class Invalidate(msgspec.Struct, frozen=True):
    """Drop the entry."""

    key: str


class Refresh(msgspec.Struct, frozen=True):
    """Set the entry to this version, unless it is missing or newer; `payload` None marks the item as deleted."""

    key: str
    version: str
    payload: bytes | None
    ttl_ms: int


CacheAction = Invalidate | Refresh


class CachePlan(msgspec.Struct, frozen=True):
    """Actions on one cache for one change; `keyless` images lacked an attribute of the template, or had too many."""

    actions: tuple[CacheAction, ...]
    keyless: int


def plan_cache(rule: CacheRule, records: Sequence[ChangeRecord], change: Change) -> CachePlan:
    """Actions for every key that any image of the coalesced records had.

    A refresh concerns the keys that the item has, or had last. A key that the item left is dropped, and so
    is every key of a template without the whole primary key: another item may have it by then, and versions of two
    items do not compare.
    """
    if rule.verb is CacheVerb.INVALIDATE or rule.key.lacks(change.key.names):
        return plan_invalidation(rule, records)
    touched, keyless = _touched_keys(rule, records)
    current = [key for key in _keys_of(rule, records, change) if key in touched]
    ttl_ms = int(rule.ttl.total_seconds() * 1000)
    actions: list[CacheAction] = [Invalidate(key) for key in touched if key not in current]
    for key in current:
        if change.new is not None:
            actions.append(Refresh(key, change.version, change.new.wire, ttl_ms))
        else:
            actions.append(Refresh(key, at_sequence(change.version, touched[key]), None, ttl_ms))
    return CachePlan(tuple(actions), keyless)


def plan_invalidation(rule: CacheRule, records: Sequence[ChangeRecord]) -> CachePlan:
    """Drop the entry of every key that any image of the records, which are of one item, had."""
    every = rule.key.of_every(records[-1].key) if records else None
    if every is not None:
        return CachePlan((Invalidate(every),), 0)
    keys, keyless = _touched_keys(rule, records)
    return CachePlan(tuple([Invalidate(key) for key in keys]), keyless)


def _keys_of(rule: CacheRule, records: Sequence[ChangeRecord], change: Change) -> Sequence[str]:
    """The keys that the changed item has; of a removed one, the last that it had."""
    if change.new is not None and not rule.has(change.new):
        return ()
    every = rule.key.of_every(change.key)
    if every is not None:
        return (every,)
    if change.new is not None:
        return rule.key.keys(change.new)
    images = [image for record in records for image in (record.before, record.new) if image is not None]
    return next((keys for keys in map(rule.key.keys, reversed(images)) if keys), ())


def _touched_keys(rule: CacheRule, records: Sequence[ChangeRecord]) -> tuple[dict[str, int], int]:
    """The cache keys of every image with the rank of the last record that has them, and how many images have none.

    A template of the primary key alone has one key for all of them, and none is decoded.
    """
    if rule.when is not None:
        records = [record for record in records if _concerns(rule, record)]
    every = rule.key.of_every(records[-1].key) if records else None
    if every is not None:
        return {every: int(records[-1].rank)}, 0
    touched: dict[str, int] = {}
    keyless = 0
    for record in records:
        for image in (record.before, record.new):
            if image is None:
                continue
            keys = rule.key.keys(image)
            touched.update(dict.fromkeys(keys, int(record.rank)))
            keyless += rule.key.overflows(image) or not (keys or rule.key.listed)
    return touched, keyless


def _concerns(rule: CacheRule, record: ChangeRecord) -> bool:
    """Whether a change is one of entries that only such items have.

    An item that comes or goes counts in any case: a reader may have stored that there is none.
    """
    came_or_went = (record.old is None) != (record.new is None)
    return record.partial or came_or_went or rule.has(record.old) or rule.has(record.new)
