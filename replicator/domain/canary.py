"""A rule's canary: an item that one worker writes again and again, and how long it takes to arrive.

Invariant: lags and ages are of one process's monotonic clock alone, which wrote the item and saw it arrive. Keys under
`PREFIX` are no user's: only the canary's own rule replicates them, and nothing counts, logs, copies or compares them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from datetime import UTC, datetime

import msgspec

from replicator.domain.identifiers import RegionId, RuleName
from replicator.domain.image import Image
from replicator.domain.key_templates import KeyTemplate
from replicator.domain.modes.versioned.ranks import VersionAttribute, VersionType
from replicator.domain.records import ItemKey, key_of

PREFIX = "replicator-canary#"
"""What the partition key of every canary begins with."""

ATTRIBUTE = "replicator_canary"
"""Names rule and region in the item; cache keys are made of it."""

WINDOW = 100
"""Arrivals that percentiles are of."""

MISSED = 3
"""A canary that has not arrived for so many periods is late."""

EXPIRES_SECONDS = 7 * 86_400
"""Life of an item that is not written again, where the table has a time to live."""

_NUMBER = "replicator_number"
_WRITER = "replicator_writer"
_WRITTEN_AT = "replicator_written_at"
_SORT_KEYS = {"S": "canary", "N": "0", "B": "Y2FuYXJ5"}
_SHORTEST_LOOK = 0.1
_PRECISION = 0.1
_MILLISECONDS = 13
_UNBOUNDED_WIDTH = 20
_DIGITS = {20: 0, 24: 3, 27: 6, 30: 9}
"""Digits behind the second, by the width of a time."""


def is_canary(key: ItemKey) -> bool:
    """Whether a key is that of a canary, of whichever rule."""
    for _, _, value in key.parts:  # noqa: SIM110 - asked of every record, and a generator costs four times as much
        if value.startswith(PREFIX):
            return True
    return False


def is_canary_of(key: ItemKey, rule: RuleName) -> bool:
    """Whether it is that of this rule's canary."""
    return any(value.startswith(f"{PREFIX}{rule}#") for _, _, value in key.parts)


def refusal(keys: Sequence[tuple[str, str]]) -> str | None:
    """Why a table with these key attributes, as (name, type) with the partition key first, takes no canary."""
    name, kind = keys[0]
    return None if kind == "S" else f"its partition key {name} is of type {kind}, and a canary's begins with text"


def version_refusal(version: VersionAttribute) -> str | None:
    """Why a canary can have no version of this kind."""
    width = version.width
    if version.type is VersionType.TIME and width is not None and width not in _DIGITS:
        return f"its version has {width} characters, and no time has so many"
    if version.type is VersionType.STRING and width is not None and width < _MILLISECONDS:
        return f"its version has {width} characters, and a canary's has {_MILLISECONDS} at least"
    return None


class Schema(msgspec.Struct, frozen=True):
    """A table as its canary must look: (name, type) of its key attributes, and the attribute of its time to live."""

    keys: tuple[tuple[str, str], ...]
    expiry: str | None = None


def canary_key(schema: Schema, rule: RuleName, region: RegionId) -> ItemKey:
    """The one key of a rule's canary that is written in a region."""
    (partition, kind), *rest = schema.keys
    typed = {partition: {kind: f"{PREFIX}{rule}#{region}"}}
    return key_of(typed | {name: {kind: _SORT_KEYS[kind]} for name, kind in rest})


def canary_item(  # noqa: PLR0913 - what an item says
    schema: Schema,
    rule: RuleName,
    region: RegionId,
    *,
    writer: str,
    number: int,
    now: float,
    version: VersionAttribute | None = None,
) -> Image:
    """The item, with everything that the table and the rule's mode ask of one."""
    milliseconds = str(int(now * 1000))
    item: dict[str, dict[str, str]] = {
        name: {kind: value} for name, kind, value in canary_key(schema, rule, region).parts
    }
    item |= {
        ATTRIBUTE: {"S": f"{rule}#{region}"},
        _WRITER: {"S": writer},
        _NUMBER: {"N": str(number)},
        _WRITTEN_AT: {"N": milliseconds},
    }
    if schema.expiry is not None:
        item[schema.expiry] = {"N": str(int(now) + EXPIRES_SECONDS)}
    if version is not None:
        item[version.name] = {version.kind: _version(version, int(milliseconds))}
    return Image(msgspec.json.encode(item))


def _version(version: VersionAttribute, milliseconds: int) -> str:
    """A version that grows with time."""
    match version.type:
        case VersionType.NUMBER:
            return str(milliseconds)
        case VersionType.STRING:
            return str(milliseconds).zfill(version.width or _UNBOUNDED_WIDTH)
        case _:
            at = datetime.fromtimestamp(milliseconds // 1000, UTC).strftime("%Y-%m-%dT%H:%M:%S")
            digits = f"{milliseconds % 1000:03}".ljust(9, "0")[: _DIGITS[version.width or 24]]
            return f"{at}.{digits}Z" if digits else f"{at}Z"


def number_of(item: Image | None, writer: str) -> int | None:
    """Which canary of this writer an item is; None: none of them."""
    if item is None or item.attributes.get(_WRITER) != {"S": writer}:
        return None
    text = item.attributes.get(_NUMBER, {}).get("N", "")
    return int(text) if isinstance(text, str) and text.isdecimal() else None


def canary_entry(template: KeyTemplate) -> KeyTemplate:
    """The keys of canaries' entries in a cache, which begin as those of users' items."""
    return KeyTemplate(f"{PREFIX}{{{ATTRIBUTE}}}", template.prefix)


class CanaryPlace(msgspec.Struct, frozen=True):
    """Where a canary is to arrive. `cache`: beside the table of the region, or empty: the table itself."""

    rule: RuleName
    source: RegionId
    table: str
    region: RegionId
    cache: str = ""


class Arrivals(msgspec.Struct, frozen=True):
    """How a canary arrives at a place; lags in seconds, times monotonic.

    `since`: when the newest was written that has arrived, or when it was begun; `written_at`: when the newest was
    written. `why`: what kept the last look, or the last write, from an answer.
    """

    place: CanaryPlace
    every: float
    arrived: int
    p50: float | None
    p99: float | None
    since: float
    written_at: float
    why: str = ""

    def age(self, now: float) -> float:
        """How old the newest is that has arrived; before the first one, how long ago it was begun."""
        return max(0.0, now - self.since)

    def is_late(self, now: float) -> bool:
        """Whether it is stuck, and not idle: one is written every period, whatever users do."""
        return self.age(now) > MISSED * self.every

    def is_unwritten(self, now: float) -> bool:
        """Whether that is because none is written."""
        return now - self.written_at > MISSED * self.every


class Track(msgspec.Struct):
    """One place, as the process sees it that writes the canary; times are monotonic."""

    place: CanaryPlace
    every: float
    since: float
    """When the newest that has arrived was written; before one has, when it was begun."""
    wanted: dict[int, float] = msgspec.field(default_factory=dict)
    """When those were written that have not arrived, by number: no more than those that may be late, and one."""
    lags: deque[float] = msgspec.field(default_factory=lambda: deque(maxlen=WINDOW))
    arrived: int = 0
    why: str = ""

    def wrote(self, number: int, at: float) -> None:
        """One was written; of those that have not arrived the first ones are forgotten, when they are many."""
        while len(self.wanted) > MISSED:
            del self.wanted[min(self.wanted)]
        self.wanted[number] = at

    def saw(self, number: int | None, at: float) -> None:
        """It was looked, and this one was there: those before it have arrived too, or were overwritten on the way."""
        self.why = ""
        if number is None or number not in self.wanted:
            return
        self.since = self.wanted[number]
        self.lags.append(max(0.0, at - self.since))
        self.arrived += 1
        self.wanted = {each: when for each, when in self.wanted.items() if each > number}

    def look_in(self, now: float) -> float | None:
        """In how many seconds to look again: a tenth of the time waited, so that a lag is right to a tenth.

        None: nothing is on its way.
        """
        if not self.wanted:
            return None
        waited = now - min(self.wanted.values())
        return min(self.every, max(_SHORTEST_LOOK, _PRECISION * waited))

    def told(self, written_at: float) -> Arrivals:
        """What is known."""
        lags = sorted(self.lags)
        return Arrivals(
            self.place,
            self.every,
            self.arrived,
            percentile(lags, 0.5),
            percentile(lags, 0.99),
            self.since,
            written_at,
            self.why,
        )


def percentile(ordered: Sequence[float], share: float) -> float | None:
    """The least of these values, in their order, that so large a share is at or below; None of none."""
    if not ordered:
        return None
    return ordered[min(len(ordered) - 1, max(0, -int(-share * len(ordered) // 1) - 1))]
