"""The cache actions that follow a change."""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any
from zlib import crc32

import msgspec

from replicator.domain.cache_values import Shape
from replicator.domain.errors import PoisonRecord
from replicator.domain.filters import Filter
from replicator.domain.identifiers import RegionId
from replicator.domain.image import Image, unreserved
from replicator.domain.key_templates import KeyTemplate
from replicator.domain.modes.ordered import Change
from replicator.domain.records import ChangeRecord
from replicator.domain.versions import at_sequence


class CacheVerb(enum.Enum):
    """What is done to a cache entry when its item changed."""

    INVALIDATE = "invalidate"
    REFRESH = "refresh"
    WRITE_THROUGH = "write_through"
    PUBLISH = "publish"

    @property
    def stores(self) -> bool:
        """Whether it stores what an item holds."""
        return self is CacheVerb.REFRESH or self is CacheVerb.WRITE_THROUGH


class Publication(msgspec.Struct, frozen=True):
    """Where changes of entries are published: a channel, or a stream that keeps about `most` messages."""

    name: str
    is_stream: bool = False
    most: int = 10_000
    values: bool = False
    """Whether messages show the item."""


class CacheRule(msgspec.Struct, frozen=True):
    """Which entries of which cache follow a table."""

    cache: str
    region: RegionId
    key: KeyTemplate
    verb: CacheVerb
    ttl: timedelta
    """Life of an entry that was stored, shortened by up to the share `jitter`."""
    jitter: float = 0.0
    marker_ttl: timedelta | None = None
    """Life of the marker that there is no item; None: as `ttl`."""
    shape: Shape = msgspec.field(default_factory=Shape)
    max_bytes: int | None = None
    """A larger payload is not stored: the entry is dropped."""
    publication: Publication | None = None
    """Of the verb `publish`."""
    when: Filter | None = None
    """Only items that pass have these entries; None: all."""

    @property
    def is_plain(self) -> bool:
        """Whether every change of an item is a drop."""
        return self.when is None and self.publication is None

    def payload(self, image: Image) -> bytes:
        """What an entry holds of an item, which is without what replication adds to it."""
        return image.wire if self.shape.is_whole else self.shape.encode(image.attributes)

    def life_ms(self, key: str, version: str, *, gone: bool) -> int:
        """How long an entry lives; entries that are stored together do not all end together."""
        ttl = self.marker_ttl if gone and self.marker_ttl is not None else self.ttl
        share = self.jitter * crc32(f"{key} {version}".encode()) / 2**32
        return max(1, int(ttl.total_seconds() * 1000 * (1 - share)))

    def drop(self, key: str) -> Invalidate | Publish:
        """What is done to an entry of which nothing is known but its key."""
        return Invalidate(key) if self.publication is None else publish(self.publication, key, {})

    def keys(self, image: Image) -> tuple[str, ...]:
        """The entries of an item."""
        return self.key.keys(image) if self.has(image) else ()

    def has(self, image: Image | None) -> bool:
        """Whether an item has entries; one that the filter cannot judge counts as one that has."""
        try:
            return self.when is None or self.when.matches(image)
        except PoisonRecord:
            return True


class Invalidate(msgspec.Struct, frozen=True, gc=False):
    """Drop the entry."""

    key: str


class Refresh(msgspec.Struct, frozen=True):
    """Set the entry to this version, unless it is missing or newer; `payload` None marks the item as deleted.

    `through`: of a missing entry the lease is taken, to be filled as a reader does: from the table, behind the lease.
    """

    key: str
    version: str
    payload: bytes | None
    ttl_ms: int
    through: bool = False
    hashed: bool = False
    """Whether the entry is a hash, and the payload its fields."""


class Publish(msgspec.Struct, frozen=True):
    """Tell that an entry changed. `key` names channel and entry: it is what a debt says of it."""

    key: str
    name: str
    most: int
    """About how many messages the stream keeps; 0: a channel, which keeps none."""
    message: bytes


class Refill(msgspec.Struct, frozen=True):
    """Drop the entry and take its lease, to be filled as a reader does; `through`: also where there is no entry.

    It needs no version: it is a drop and a reader behind it.
    """

    key: str
    through: bool


CacheAction = Invalidate | Refresh | Refill | Publish
_MARK = "\0"
"""Begins keys of what is published; none of an entry does, for templates escape it."""


def publish(publication: Publication, entry: str, message: Mapping[str, Any]) -> Publish:
    """Tell a change of an entry; the debt of a stream lies in the slot of the stream."""
    most = publication.most if publication.is_stream else 0
    key = f"{_MARK}{{{publication.name}}}{_MARK}{most}{_MARK}{entry}"
    return Publish(key, publication.name, most, msgspec.json.encode({"key": entry, **message}))


def settlement(key: str) -> Invalidate | Publish:
    """What settles the debt of an action with this key: a drop, or a message that says nothing but the entry's name."""
    if not key.startswith(_MARK):
        return Invalidate(key)
    _, name, most, entry = key.split(_MARK, 3)
    return Publish(key, name[1:-1], int(most), msgspec.json.encode({"key": entry}))


class CachePlan(msgspec.Struct, frozen=True, gc=False):
    """Actions on one cache for one change; `keyless` images lacked an attribute of the template, or had too many."""

    actions: tuple[CacheAction, ...]
    keyless: int
    too_large: int = 0
    """How many entries are dropped because of the size of their payloads."""


def plan_cache(rule: CacheRule, records: Sequence[ChangeRecord], change: Change) -> CachePlan:
    """Actions for every key that any image of the coalesced records had.

    A refresh concerns the keys that the item has, or had last. A key that the item left is dropped, and so
    is every key of a template without the whole primary key: another item may have it by then, and versions of two
    items do not compare.
    """
    if not rule.verb.stores or rule.key.lacks(change.key.names):
        return plan_invalidation(rule, records, change.version)
    touched, keyless = _touched_keys(rule, records)
    current = [key for key in _keys_of(rule, records, change) if key in touched]
    actions: list[CacheAction] = [Invalidate(key) for key in touched if key not in current]
    payload = None if change.new is None else rule.payload(change.new)
    if payload is not None and rule.max_bytes is not None and len(payload) > rule.max_bytes:
        return CachePlan((*actions, *map(Invalidate, current)), keyless, len(current))
    through = rule.verb is CacheVerb.WRITE_THROUGH
    for key in current:
        gone = change.new is None
        version = at_sequence(change.version, touched[key]) if gone else change.version
        actions.append(
            Refresh(key, version, payload, rule.life_ms(key, version, gone=gone), through, rule.shape.is_hash)
        )
    return CachePlan(tuple(actions), keyless)


def plan_invalidation(rule: CacheRule, records: Sequence[ChangeRecord], version: str = "") -> CachePlan:
    """Drop the entry of every key that any image of the records, which are of one item, had; or tell of it."""
    every = rule.key.of_every(records[-1].key) if records and rule.is_plain else None
    if every is not None:
        return CachePlan((Invalidate(every),), 0)
    keys, keyless = _touched_keys(rule, records)
    if rule.publication is None or not keys:
        return CachePlan(tuple([Invalidate(key) for key in keys]), keyless)
    message = _message(rule, rule.publication, records[-1], version)
    return CachePlan(tuple([publish(rule.publication, key, message) for key in keys]), keyless)


def plan_refill(rule: CacheRule, record: ChangeRecord) -> CachePlan:
    """Actions of a rule that stores, where versions of images are not known to compare with what readers stored."""
    if rule.key.lacks(record.key.names):
        return plan_invalidation(rule, (record,))
    touched, keyless = _touched_keys(rule, (record,))
    last = record.old if record.new is None else record.new
    current = () if last is None else rule.keys(last)
    through = rule.verb is CacheVerb.WRITE_THROUGH
    actions = [Refill(key, through) if key in current else Invalidate(key) for key in touched]
    return CachePlan(tuple(actions), keyless)


def _message(rule: CacheRule, publication: Publication, last: ChangeRecord, version: str) -> dict[str, Any]:
    """Beside an item's key: whether it is gone, its version where there is one, and what it holds."""
    new = None if last.new is None else unreserved(last.new)
    message: dict[str, Any] = {"deleted": new is None}
    if version:
        message["version"] = version
    if publication.values and new is not None:
        message["value"] = msgspec.Raw(rule.payload(new))
    return message


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
