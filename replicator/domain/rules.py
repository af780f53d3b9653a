"""Rules: which records go where, and which cache keys they touch.

Owns filters, the coalescing of several records of one key into one change, and key templates.
Invariant: coalescing never hides a cache key, and a planned change does not depend on how records fell into batches.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from string import Formatter
from typing import Any
from urllib.parse import quote

import jmespath
import jmespath.exceptions

from replicator.domain.errors import PoisonRecord
from replicator.domain.image import Image, normal_number, plain, unreserved
from replicator.domain.mesh import ActivePolicy
from replicator.domain.ordered import Action, Change, OrderedPolicy
from replicator.domain.ranks import VersionAttribute
from replicator.domain.records import ChangeRecord, Event, ItemKey, RegionId, RuleName, TableName
from replicator.domain.versions import at_sequence, ordered_version

# -- filters -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Equals:
    """The attribute is this string, number (as text), boolean or null."""

    attribute: str
    value: str | bool | None
    is_number: bool = False

    def matches(self, typed: dict[str, Any]) -> bool:
        """Whether a typed attribute value equals the wanted one; numbers compare by value."""
        ((kind, value),) = typed.items()
        if self.value is None:
            return kind == "NULL"
        if isinstance(self.value, bool):
            return kind == "BOOL" and value is self.value
        if self.is_number:
            return kind == "N" and normal_number(value) == normal_number(self.value)
        return kind == "S" and value == self.value


class Where:
    """A JMESPath predicate over the item as plain JSON; true as JMESPath understands it."""

    def __init__(self, expression: str) -> None:
        self.expression = expression
        self._compiled = jmespath.compile(expression)

    def matches(self, image: Image) -> bool:
        """Whether the item satisfies the expression; `PoisonRecord` when the expression cannot be evaluated on it."""
        item = {name: plain(typed) for name, typed in image.attributes.items()}
        try:
            found = self._compiled.search(item)
        except (jmespath.exceptions.JMESPathError, TypeError, ValueError, AttributeError) as error:
            raise PoisonRecord(
                f"The filter's `where` cannot be evaluated on this item ({type(error).__name__}).",
                advice="Correct the expression, or the item's attribute types.",
            ) from error
        return found is not None and found is not False and found not in ("", [], {})


@dataclass(frozen=True, slots=True)
class Filter:
    """A predicate on one image, and the events that may pass it."""

    events: frozenset[Event] = frozenset(Event)
    key_prefix: tuple[tuple[str, str], ...] = ()
    equals: tuple[Equals, ...] = ()
    exists: tuple[str, ...] = ()
    where: Where | None = None

    def matches(self, image: Image | None) -> bool:
        """Whether an image passes; an absent one never does."""
        if image is None:
            return False
        if not (self.key_prefix or self.equals or self.exists or self.where):
            return True
        attributes = image.attributes
        return (
            all(attributes.get(name, {}).get("S", "").startswith(prefix) for name, prefix in self.key_prefix)
            and all(test.attribute in attributes and test.matches(attributes[test.attribute]) for test in self.equals)
            and all(name in attributes for name in self.exists)
            and (self.where is None or self.where.matches(image))
        )


# -- caches --------------------------------------------------------------------------------------------------------

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
        self._escaped = frozenset(_ALWAYS_ESCAPED + "".join(between))

    def key(self, image: Image) -> str | None:
        """The cache key of this item; None when an attribute of the template is missing or not S, N or B."""
        values = []
        for literal, name in self._parts:
            values.append(literal)
            if name is None:
                continue
            typed = image.attributes.get(name, {})
            value = typed.get("S", typed.get("N", typed.get("B")))
            if not isinstance(value, str):
                return None
            values.append(self._escape(value))
        return "".join(values)

    def _escape(self, value: str) -> str:
        return "".join(_percent(char) if char in self._escaped else char for char in value)


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


@dataclass(frozen=True, slots=True)
class Invalidate:
    """Drop the entry."""

    key: str


@dataclass(frozen=True, slots=True)
class Refresh:
    """Set the entry to this version, unless it is missing or newer; `payload` None marks the item as deleted."""

    key: str
    version: str
    payload: bytes | None
    ttl_ms: int


CacheAction = Invalidate | Refresh


@dataclass(frozen=True, slots=True)
class CachePlan:
    """Actions on one cache for one change; `keyless` images lacked an attribute of the template."""

    actions: tuple[CacheAction, ...]
    keyless: int


def plan_cache(rule: CacheRule, records: Sequence[ChangeRecord], change: Change) -> CachePlan:
    """Actions for every key that any image of the coalesced records had."""
    if rule.verb is CacheVerb.INVALIDATE:
        return plan_invalidation(rule, records)
    keys, keyless = _touched_keys(rule, records)
    current = None if change.new is None else rule.key.key(change.new)
    ttl_ms = int(rule.ttl.total_seconds() * 1000)
    return CachePlan(
        tuple(
            Refresh(key, change.version, change.new.wire, ttl_ms)
            if change.new is not None and key == current
            else Refresh(key, at_sequence(change.version, last), None, ttl_ms)
            for key, last in keys.items()
        ),
        keyless,
    )


def plan_invalidation(rule: CacheRule, records: Iterable[ChangeRecord]) -> CachePlan:
    """Drop the entry of every key that any image of the records had."""
    keys, keyless = _touched_keys(rule, records)
    return CachePlan(tuple(Invalidate(key) for key in keys), keyless)


def _touched_keys(rule: CacheRule, records: Iterable[ChangeRecord]) -> tuple[dict[str, int], int]:
    """The cache keys of every image with the number of the last record that has them, and how many images have none.

    A key that an item left belongs to another item from then on: no later record of this item speaks for it.
    """
    keys: dict[str, int] = {}
    keyless = 0
    for record in records:
        for image in (record.old, record.new):
            key = None if image is None else rule.key.key(image)
            if key is not None:
                keys[key] = record.number
            elif image is not None:
                keyless += 1
    return keys, keyless


# -- rules ---------------------------------------------------------------------------------------------------------

MESH = "mesh"
"""Stands for all regions of a rule in the name of its progress; no region id looks like it."""


@dataclass(frozen=True, slots=True)
class Target:
    """Where a rule's changes go: a region with its table and caches. `table` is None beside the source: caches only."""

    rule: RuleName
    region: RegionId
    table: TableName | None
    caches: tuple[CacheRule, ...] = ()
    whole: bool = False
    """Whether this is all of a mesh: a record is done only when every region has answered."""

    @property
    def target_id(self) -> str:
        """Identity of this target's progress on a stream."""
        return f"{self.rule}/{MESH if self.whole else self.region}"


class Start(enum.Enum):
    """Where a target without progress begins."""

    TRIM_HORIZON = "trim_horizon"
    LATEST = "latest"


class TtlDeletes(enum.Enum):
    """What becomes of deletes that the source's TTL made."""

    REPLICATE = "replicate"
    SKIP = "skip"


class OnGap(enum.Enum):
    """What to do when records were trimmed before they were read; the gap is recorded either way."""

    STOP = "stop"
    RESYNC = "resync"  # records and stops, as long as nothing can copy what was lost
    SKIP = "skip"


@dataclass(frozen=True, slots=True)
class VersionedPlan:
    """Mode `versioned`: the other regions of the mesh, and the attribute that orders images."""

    others: tuple[RegionId, ...]
    version: VersionAttribute


@dataclass(frozen=True, slots=True)
class ActivePlan:
    """Mode `active-active`: the other regions of the mesh, and the rule's choices."""

    others: tuple[RegionId, ...]
    policy: ActivePolicy = field(default_factory=ActivePolicy)


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule as it reads one source, in domain values.

    Without `mesh` its mode is `ordered`. A mesh is read in each of its regions, by one `Rule` each: `source` is then
    the home region, and the only target stands for the rule as a whole.
    """

    name: RuleName
    source: RegionId
    table: TableName
    targets: tuple[Target, ...]
    policy: OrderedPolicy = OrderedPolicy()
    mesh: VersionedPlan | ActivePlan | None = None
    epoch: int = 0
    start: Start = Start.TRIM_HORIZON
    ttl_deletes: TtlDeletes = TtlDeletes.REPLICATE
    on_gap: OnGap = OnGap.STOP
    filter: Filter = field(default_factory=Filter)

    @property
    def mode(self) -> str:
        """The mode as the configuration names it."""
        if self.mesh is None:
            return "ordered"
        return "versioned" if isinstance(self.mesh, VersionedPlan) else "active-active"


# -- coalescing ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Run:
    """All records of one key in a batch, in stream order."""

    key: ItemKey
    records: tuple[ChangeRecord, ...]


def coalesce(records: Iterable[ChangeRecord]) -> list[Run]:
    """Records grouped by key; keys in the order of their first record."""
    by_key: dict[ItemKey, list[ChangeRecord]] = {}
    for record in records:
        by_key.setdefault(record.key, []).append(record)
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
    first_old = run.records[0].old
    return Change(
        action=action,
        key=run.key,
        version=ordered_version(rule.epoch, generation, record.number),
        old=None if first_old is None else unreserved(first_old),
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
    if rule.filter.matches(record.old):
        return Action.REMOVE if removal else None
    # A skipped TTL delete may have left an item on the replica; its successor under that key must not keep it alive.
    may_linger = record.event is Event.INSERT and rule.ttl_deletes is TtlDeletes.SKIP
    return Action.REMOVE_IF_PRESENT if removal and (record.event is Event.REMOVE or may_linger) else None
