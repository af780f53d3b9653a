"""What DynamoDB makes of the writes of mode `versioned`, on one item in memory.

Invariant: conditions mean exactly what their rendered expressions mean: numbers compare by value with all their digits,
strings by their bytes, and a comparison between types, or with a missing attribute, is false.
"""

from __future__ import annotations

from decimal import Decimal
from typing import assert_never

import msgspec

from replicator.domain.image import Image, canonical
from replicator.domain.modes.requests import (
    Absent,
    Done,
    Refused,
    Remove,
    Replace,
    Response,
    VersionAtMost,
    VersionCondition,
    VersionedRequest,
    VersionIs,
)


def answer_versioned(item: Image | None, request: VersionedRequest) -> tuple[Image | None, Response]:
    """Carry a request out on what its key holds."""
    if not holds_versioned(request.when, item):
        return item, Refused(item=item)
    match request:
        case Replace(_, image):
            return image, Done(item)
        case Remove():
            return None, Done(item)
        case _:
            assert_never(request)


def holds_versioned(when: VersionCondition, item: Image | None) -> bool:
    """Whether a condition holds for an item."""
    match when:
        case Absent():
            return item is None
        case VersionIs(attribute, seen):
            return item is not None and _value(item, attribute) == _canonical(seen)
        case VersionAtMost():
            return item is None or _at_most(when, item)
        case _:
            assert_never(when)


def _value(item: Image, attribute: str) -> bytes | None:
    typed = item.attributes.get(attribute)
    return _canonical(None if typed is None else msgspec.json.encode(typed))


def _canonical(typed: bytes | None) -> bytes | None:
    """A typed value in the one form of all that are equal to it."""
    return None if typed is None else canonical(Image(b'{"value":%b}' % typed))


def _at_most(when: VersionAtMost, item: Image) -> bool:
    value = item.attributes.get(when.attribute, {}).get(when.kind)
    if value is None:
        return True
    if when.value is None:
        return False
    if when.kind == "N":
        return Decimal(value) <= Decimal(when.value)
    return str(value).encode() <= when.value.encode()
