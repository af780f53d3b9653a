"""What `inspect` found at one place.

Contents are shown only when asked for; equal contents have equal digests.
"""

from __future__ import annotations

from collections.abc import Awaitable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Any, TypeVar

import msgspec

from replicator.domain.errors import Throttled, Unreachable
from replicator.domain.image import Image, canonical
from replicator.domain.stamps import parse_version
from replicator.domain.versions import EPOCH_DIGITS, GENERATION_DIGITS, SEQUENCE_DIGITS, STAMP, is_ordered_version

_DIGEST = 16
Seen = TypeVar("Seen")
_EPOCH = datetime.fromtimestamp(0, UTC)


@dataclass(frozen=True, slots=True)
class ItemCopy:
    """One place where the item may be.

    `item`: what is there, `stamp`: the attribute of it that is no content; `version`: what orders it among others;
    `details`: what only this kind of place has, for scripts.
    """

    role: str
    region: str
    name: str
    state: str
    version: str | None = None
    item: Image | None = None
    agrees: bool | None = None
    key: str | None = None
    stamp: str = STAMP
    details: Mapping[str, Any] = field(default_factory=dict)
    trouble: str | None = None
    """Why nothing is known about this place."""

    @property
    def digest(self) -> str | None:
        """Equal for equal contents."""
        return digest(self.item, self.stamp)

    def document(self, *, values: bool) -> dict[str, Any]:
        """As JSON; the content only when asked for."""
        content = None if self.item is None else msgspec.json.decode(self.item.wire)
        return {
            "role": self.role,
            "region": self.region,
            "name": self.name,
            "key": self.key,
            "state": self.state,
            "version": self.version,
            "bytes": None if self.item is None else len(self.item.wire),
            "content_hash": self.digest,
            "agrees": self.agrees,
            **self.details,
            **({"item": content} if values else {}),
        }


def unreachable(role: str, region: str, name: str, error: Unreachable, key: str | None = None) -> ItemCopy:
    """A place that does not answer."""
    return ItemCopy(role, region, name, "unreachable", key=key, trouble=error.sentence)


async def or_unknown(look: Awaitable[Seen]) -> Seen | Unreachable:
    """What is seen, or why nothing is: one place that does not answer hides no other."""
    try:
        return await look
    except Unreachable as error:
        return error
    except Throttled as error:  # it says nothing of the item either
        return Unreachable(str(error), advice=error.advice)


def digest(item: Image | None, stamp: str = STAMP) -> str | None:
    """Digest of an item's content, without the attribute `stamp`; None of no item."""
    return None if item is None else sha256(canonical(item, stamp)).hexdigest()[:_DIGEST]


_BRIEF_DIGITS = 12
_MOST_MICROS = 10**17
"""Sequence numbers of a table's own stream are greater."""


def short(version: str | None) -> str:
    """A version for people, without the zeros that pad it.

    Of mode `ordered`: epoch, when the stream began, sequence number; of `active-active`: time, counter, region and
    sequence number. Any other is its own.
    """
    if version is None:
        return ""
    if is_ordered_version(version):
        generation_end = EPOCH_DIGITS + GENERATION_DIGITS
        epoch, sequence = int(version[:EPOCH_DIGITS]), int(version[generation_end:])
        return f"{epoch}.{_time(int(version[EPOCH_DIGITS:generation_end]) * 1000)}.{sequence}"
    parsed = parse_version(version)
    if parsed is None:
        return version
    time = _time(parsed.micros)
    counter = f"+{parsed.counter}" if parsed.counter else ""
    return f"{time}{counter} {parsed.region} {parsed.sequence % 10**SEQUENCE_DIGITS}"


def brief(version: str | None) -> str:
    """A version where there is little room: its time, or the end of the sequence number that orders it, which has none.

    Behind a time stands the region; before it, in mode `ordered`, the epoch. In Kinesis the number is a time. What was
    copied from before a stream has neither.
    """
    if version is None:
        return ""
    if is_ordered_version(version):
        epoch, sequence = int(version[:EPOCH_DIGITS]), int(version[EPOCH_DIGITS + GENERATION_DIGITS :])
        if sequence == 0:
            return f"{epoch} copied"
        return f"{epoch} {_moment(sequence) if sequence < _MOST_MICROS else f'…{version[-_BRIEF_DIGITS:]}'}"
    parsed = parse_version(version)
    return version if parsed is None else f"{_moment(parsed.micros)} {parsed.region}"


def _moment(micros: int) -> str:
    return (_EPOCH + timedelta(microseconds=micros)).replace(tzinfo=None).isoformat(" ", "milliseconds")


def _time(micros: int) -> str:
    return (_EPOCH + timedelta(microseconds=micros)).isoformat().replace("+00:00", "Z")
