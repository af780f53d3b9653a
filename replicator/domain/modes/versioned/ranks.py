"""Ranks: the total order of images in mode `versioned`, by a version attribute that the application raises.

Invariant: the order of versions is the byte order of their text (`LOWEST`, then numbers by value, then strings), so the
conditions on side rows, which DynamoDB evaluates, and the comparisons made here agree. A version that is missing or
mistyped is `LOWEST`: below every value.
"""

from __future__ import annotations

import enum
import re
from decimal import Decimal
from functools import lru_cache

import msgspec

from replicator.domain.image import LARGEST_KEPT, Image, content_hash, normal_number
from replicator.domain.modes.requests import VersionAtMost, VersionIs

LOWEST = "0"
"""The version of an image without one."""

_NEGATIVE, _ZERO, _POSITIVE, _TEXT = "1", "2", "3", "4"
_MIDDLE_EXPONENT = 500  # exponents of DynamoDB lie between -130 and 125
_LONGEST = 40  # a larger or smaller magnitude is written with an exponent
_COMPLEMENT = str.maketrans("0123456789", "9876543210")
_END = "~"  # behind every digit, so that of two negative numbers the one with more digits is the lesser
_TIME = re.compile(r"\d{4}-[01]\d-[0-3]\dT[0-2]\d:[0-5]\d:[0-6]\d(\.(\d{3}|\d{6}|\d{9}))?Z", re.ASCII)
_SHOWN_HASH = 16

_VERSION_ENDS = "!"  # in a rank's text: below every character of a version, which are escaped up to `"`
_ESCAPE, _SHIFT = '"', 0x23
_LOW = re.compile('[\\0-"]')


class VersionType(enum.Enum):
    """What a version attribute holds."""

    NUMBER = "number"
    STRING = "string"
    TIME = "time"  # ISO 8601 in UTC (`Z`) with 0, 3, 6 or 9 digits behind the second


class VersionAttribute(msgspec.Struct, frozen=True):
    """The attribute that orders images. `width`: how many characters every string or time has; None: not checked."""

    name: str
    type: VersionType = VersionType.NUMBER
    width: int | None = None

    @property
    def kind(self) -> str:
        """DynamoDB's name of the attribute's type."""
        return "N" if self.type is VersionType.NUMBER else "S"

    def of(self, image: Image) -> str:
        """The image's version as text that sorts."""
        value = (image.attribute(self.name) or {}).get(self.kind)
        if not isinstance(value, str):
            return LOWEST
        if self.type is VersionType.NUMBER:
            return _sortable(value)
        well_formed = self.type is VersionType.STRING or _TIME.fullmatch(value) is not None
        return _TEXT + value if well_formed and self.width in {None, len(value)} else LOWEST

    def exactly(self, image: Image) -> VersionIs:
        """The condition that the version attribute is as on this image, well typed or not."""
        typed = image.attribute(self.name)
        return VersionIs(self.name, None if typed is None else msgspec.json.encode(typed))

    def at_most(self, version: str) -> VersionAtMost:
        """The condition that an item's version is this one, a lower one, missing or of another type."""
        return VersionAtMost(self.name, self.kind, _value(version))


class Rank(msgspec.Struct, frozen=True, order=True):
    """The order of an image, or of the delete of an image, among all of one item; `content` is empty for a delete."""

    version: str
    deleted: bool
    content: str

    @property
    def text(self) -> str:
        """The rank as text whose byte order is the order of ranks."""
        escaped = _LOW.sub(lambda low: _ESCAPE + chr(ord(low[0]) + _SHIFT), self.version)
        return f"{escaped}{_VERSION_ENDS}{int(self.deleted)}{self.content}"

    @property
    def mark(self) -> str:
        """A short name of the image, as rows keep it; empty for a delete."""
        return self.content[:_SHOWN_HASH]

    @property
    def shown(self) -> str:
        """The rank for people: version, P or D, and the beginning of the content's hash."""
        value = _value(self.version)
        return "!".join(filter(None, ("-" if value is None else value, "PD"[self.deleted], self.content[:_SHOWN_HASH])))


def rank_of(version: VersionAttribute, image: Image) -> Rank:
    """The rank of an image: its version, and behind equal versions its content."""
    if len(image.wire) > LARGEST_KEPT:
        return _rank_of(version, image)
    return _rank_of_wire(version, image.wire)


@lru_cache(maxsize=2048)
def _rank_of_wire(version: VersionAttribute, wire: bytes) -> Rank:
    return _rank_of(version, Image(wire))


def _rank_of(version: VersionAttribute, image: Image) -> Rank:
    return Rank(version.of(image), deleted=False, content=content_hash(image))


def rank_of_delete(version: VersionAttribute, image: Image) -> Rank:
    """The rank of a delete of this image: above every image of the same version, below every higher version."""
    return Rank(version.of(image), deleted=True, content="")


@lru_cache(maxsize=4096)
def _sortable(number: str) -> str:
    """A number as text whose byte order is the order of values: sign, exponent, digits; equal numbers give one text."""
    sign, digits, exponent = Decimal(normal_number(number)).as_tuple()
    assert isinstance(exponent, int), "DynamoDB stores no infinity"
    if digits == (0,):
        return _ZERO
    magnitude = f"{len(digits) - 1 + exponent + _MIDDLE_EXPONENT:03d}{''.join(map(str, digits))}"
    return _NEGATIVE + magnitude.translate(_COMPLEMENT) + _END if sign else _POSITIVE + magnitude


def _value(version: str) -> str | None:
    """The value behind a version: of `_sortable` and of a text the one that it was made from; None for `LOWEST`."""
    sort, rest = version[0], version[1:]
    if sort == _TEXT:
        return rest
    if sort == _ZERO:
        return "0"
    if sort == _NEGATIVE:
        return "-" + _magnitude(rest.removesuffix(_END).translate(_COMPLEMENT))
    return _magnitude(rest) if sort == _POSITIVE else None


def _magnitude(text: str) -> str:
    exponent, digits = int(text[:3]) - _MIDDLE_EXPONENT, text[3:]
    number = Decimal((0, tuple(map(int, digits)), exponent - len(digits) + 1))
    return f"{number:f}" if abs(exponent) <= _LONGEST else str(number)
