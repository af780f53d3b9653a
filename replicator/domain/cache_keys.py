"""Cache keys from templates, and the cache actions that follow a change."""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from string import Formatter
from urllib.parse import quote

import msgspec

from replicator.domain.identifiers import RegionId
from replicator.domain.image import Image
from replicator.domain.modes.ordered import Change
from replicator.domain.records import ChangeRecord, ItemKey
from replicator.domain.versions import at_sequence

_GLOB = "*?[]^\\"
_ALWAYS_ESCAPED = "%{}\x7f" + "".join(map(chr, range(0x20)))


class KeyTemplate:
    """A cache key with `{attribute}` placeholders; `{{` and `}}` are literal braces.

    Values are percent-escaped where that keeps keys of different items different: `%`, braces and control characters
    always, and every character of the literal text between two placeholders.
    """

    def __init__(self, template: str) -> None:
        self.template = template
        parts = list(Formatter().parse(template))
        self.attributes = tuple(name for _, name, _, _ in parts if name is not None)
        if not self.attributes:
            raise ValueError("has no {attribute} placeholder, so every item would share one key")
        if any(not name or spec or conversion for _, name, spec, conversion in parts if name is not None):
            raise ValueError("has a placeholder that is not a plain {attribute} name")
        between = _between(parts)
        if not all(between):
            raise ValueError("has two placeholders with nothing between them, so two items could share one key")
        if any("%" in literal for literal in between):
            raise ValueError("has a % between two placeholders, where it could be taken for an escaped character")
        self._parts = [(literal, name) for literal, name, _, _ in parts]
        first = next(place for place, part in enumerate(parts) if part[1] is not None)
        self._before = "".join(literal for literal, _, _, _ in parts[: first + 1])
        self._behind = "".join(literal for literal, _, _, _ in parts[first + 1 :])
        self._escapes = str.maketrans({char: _percent(char) for char in _ALWAYS_ESCAPED + "".join(between)})

    def key(self, image: Image) -> str | None:
        """The cache key of this item; None when an attribute of the template is missing or not S, N or B."""
        values = {}
        for name in self.attributes:
            typed = image.attributes.get(name, {})
            value = typed.get("S", typed.get("N", typed.get("B")))
            if isinstance(value, str):
                values[name] = value
        return self._filled(values)

    def of_every(self, key: ItemKey) -> str | None:
        """The cache key of every item with this primary key; None when the template names other attributes, too."""
        if len(key.parts) == 1 == len(self.attributes):
            ((name, _, value),) = key.parts
            if name != self.attributes[0]:
                return None
            return f"{self._before}{value.translate(self._escapes)}{self._behind}"
        return self._filled({name: value for name, _, value in key.parts})

    def _filled(self, values: Mapping[str, str]) -> str | None:
        parts = []
        for literal, name in self._parts:
            parts.append(literal)
            if name is None:
                continue
            value = values.get(name)
            if value is None:
                return None
            parts.append(value.translate(self._escapes))
        return "".join(parts)

    def lacks(self, names: Iterable[str]) -> list[str]:
        """Which of these attributes the template leaves out; of a primary key, two items could share a cache key."""
        return [name for name in names if name not in self.attributes]

    @property
    def pattern(self) -> str:
        """A glob that all its keys match, as Redis writes key patterns."""
        parts = []
        for literal, name in self._parts:
            parts.append("".join(f"\\{char}" if char in _GLOB else char for char in literal))
            parts.append("" if name is None else "*")
        return "".join(parts)


def _between(parts: list[tuple[str, str | None, str | None, str | None]]) -> list[str]:
    """The literal texts between placeholders; an escaped brace cuts one of them into several parts."""
    texts: list[str] = []
    text = ""
    for literal, name, _, _ in parts:
        text += literal
        if name is not None:
            texts.append(text)
            text = ""
    return texts[1:]


def _percent(char: str) -> str:
    quoted = quote(char, safe="")
    return quoted if quoted != char else f"%{ord(char):02X}"


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
    """The cache keys of every image with the number of the last record that has them, and how many images have none.

    A template of the primary key alone has one key for all of them, and none is decoded.
    """
    every = rule.key.of_every(records[-1].key) if records else None
    if every is not None:
        return {every: records[-1].number}, 0
    keys: dict[str, int] = {}
    keyless = 0
    for record in records:
        for image in (record.before, record.new):
            key = None if image is None else rule.key.key(image)
            if key is not None:
                keys[key] = record.number
            elif image is not None:
                keyless += 1
    return keys, keyless
