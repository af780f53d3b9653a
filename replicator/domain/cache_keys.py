"""The cache actions that follow a change."""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

import msgspec

from replicator.domain.identifiers import RegionId
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
    """Actions on one cache for one change; `keyless` images lacked an attribute of the template."""

    actions: tuple[CacheAction, ...]
    keyless: int


def plan_cache(rule: CacheRule, records: Sequence[ChangeRecord], change: Change) -> CachePlan:
    """Actions for every key that any image of the coalesced records had.

    A refresh concerns the key that the item has, or had last. A key that the item left is dropped, and so
    is every key of a template without the whole primary key: another item may have it by then, and versions of two
    items do not compare.
    """
    if rule.verb is CacheVerb.INVALIDATE or rule.key.lacks(change.key.names):
        return plan_invalidation(rule, records)
    last_touched, keyless = _touched_keys(rule, records)
    current = _key_of(rule, records, change)
    ttl_ms = int(rule.ttl.total_seconds() * 1000)
    actions: list[CacheAction] = [Invalidate(key) for key in last_touched if key != current]
    if current is not None and change.new is not None:
        actions.append(Refresh(current, change.version, change.new.wire, ttl_ms))
    elif current is not None:
        actions.append(Refresh(current, at_sequence(change.version, last_touched[current]), None, ttl_ms))
    return CachePlan(tuple(actions), keyless)


def plan_invalidation(rule: CacheRule, records: Sequence[ChangeRecord]) -> CachePlan:
    """Drop the entry of every key that any image of the records, which are of one item, had."""
    keys, keyless = _touched_keys(rule, records)
    return CachePlan(tuple([Invalidate(key) for key in keys]), keyless)


def _key_of(rule: CacheRule, records: Sequence[ChangeRecord], change: Change) -> str | None:
    """The key that the changed item has; of a removed one, the last that it had."""
    every = rule.key.of_every(change.key)
    if every is not None:
        return every
    if change.new is not None:
        return rule.key.key(change.new)
    images = [image for record in records for image in (record.before, record.new) if image is not None]
    return next((key for key in map(rule.key.key, reversed(images)) if key is not None), None)


def _touched_keys(rule: CacheRule, records: Sequence[ChangeRecord]) -> tuple[dict[str, int], int]:
    """The cache keys of every image with the rank of the last record that has them, and how many images have none.

    A template of the primary key alone has one key for all of them, and none is decoded.
    """
    every = rule.key.of_every(records[-1].key) if records else None
    if every is not None:
        return {every: int(records[-1].rank)}, 0
    keys: dict[str, int] = {}
    keyless = 0
    for record in records:
        for image in (record.before, record.new):
            key = None if image is None else rule.key.key(image)
            if key is not None:
                keys[key] = int(record.rank)
            elif image is not None:
                keyless += 1
    return keys, keyless
