"""The size of an item as DynamoDB counts it, so that a write that cannot succeed need not be sent.

Invariant: the figure is never above DynamoDB's own. Numbers are published as approximate, so of them the least is
counted; an item that is too large by this figure is too large for every table.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from replicator.domain.errors import MalformedRecord
from replicator.domain.image import Image
from replicator.domain.versions import ORDERED_WIDTH, STAMP

LARGEST_ITEM = 400 * 1024
"""Bytes of an item at most, names and values together."""

STAMP_BYTES = len(STAMP) + ORDERED_WIDTH
"""What a version of mode `ordered` adds to an item on a replica."""

_CONTAINER_BYTES, _ELEMENT_BYTES = 3, 1
_BASE64_CHARS, _BASE64_BYTES = 4, 3


def item_size(image: Image) -> int:
    """Bytes of an item at least; `MalformedRecord` when it is not one."""
    try:
        return sum(_text(name) + _value(typed) for name, typed in image.attributes.items())
    except (AttributeError, TypeError, ValueError) as error:
        raise MalformedRecord(f"An item image is not DynamoDB JSON ({type(error).__name__}).") from error


def excess(image: Image, more: int) -> int | None:
    """The size of an item with `more` bytes when that is too large, None when it may fit.

    No encoding is shorter than what it encodes, so only an item whose JSON is that long is looked at.
    """
    if len(image.wire) + more <= LARGEST_ITEM:
        return None
    size = item_size(image) + more
    return size if size > LARGEST_ITEM else None


def _value(typed: dict[str, Any]) -> int:
    ((kind, value),) = typed.items()
    return _SIZES[kind](value) if kind in _SIZES else 1


def _text(text: str) -> int:
    return len(text.encode())


def _number(text: str) -> int:
    """Two significant digits a byte, and one byte more."""
    digits = text.lower().partition("e")[0].lstrip("+-").replace(".", "").strip("0")
    return 1 + (len(digits) + 1) // 2


def _binary(text: str) -> int:
    return len(text) * _BASE64_BYTES // _BASE64_CHARS - text.count("=")


def _set(of: Callable[[str], int]) -> Callable[[list[str]], int]:
    return lambda elements: sum(map(of, elements))


def _list(elements: list[dict[str, Any]]) -> int:
    return _CONTAINER_BYTES + sum(_ELEMENT_BYTES + _value(element) for element in elements)


def _map(elements: dict[str, dict[str, Any]]) -> int:
    return _CONTAINER_BYTES + sum(_ELEMENT_BYTES + _text(name) + _value(each) for name, each in elements.items())


_SIZES: dict[str, Callable[[Any], int]] = {
    "S": _text,
    "N": _number,
    "B": _binary,
    "SS": _set(_text),
    "NS": _set(_number),
    "BS": _set(_binary),
    "L": _list,
    "M": _map,
}
"""By type; what is not here takes one byte."""
