"""An item image as the opaque wire JSON it arrived in.

Invariant: attribute values are never decoded and encoded again on their way from stream to table, so numbers of 38
digits, sets, binary and nested values arrive byte for byte. Reading an attribute decodes a copy.
"""

from __future__ import annotations

import re
from decimal import Context, Decimal
from functools import lru_cache
from hashlib import sha256
from typing import Any

import msgspec

from replicator.domain.errors import MalformedRecord
from replicator.domain.versions import RESERVED_PREFIX, STAMP

_RAW_ATTRIBUTES = msgspec.json.Decoder(dict[str, msgspec.Raw])
_ATTRIBUTES = msgspec.json.Decoder(dict[str, dict[str, Any]])
_TYPED = msgspec.json.Decoder(dict[str, Any])
_ENCODE = msgspec.json.Encoder().encode
_ESCAPE = b"\\u"  # a name may be written with escapes
_BACKSLASH = b"\\"
_RESERVED = RESERVED_PREFIX.encode()
_MARK_TEXT = "rep"
_MARK = _MARK_TEXT.encode()
"""What every reserved name holds that is not written with escapes, and the stamp's usual name, too."""

LARGEST_KEPT = 2048
"""Bytes of an image up to which what is computed of its content is kept for a while: one write is looked at often."""

_is_normal = re.compile(r"-?[1-9](?:[0-9]{0,36}[1-9]|[0-9]{0,18}\.[0-9]{0,17}[1-9])?").fullmatch
"""Most numbers that DynamoDB returns: they are their own normal form."""

_EXACT = Context(prec=60, Emin=-400, Emax=400)


class Image(msgspec.Struct, eq=False, gc=False):
    """One item, as DynamoDB-typed wire JSON (`{"pk":{"S":"a"}, ...}`)."""

    wire: bytes
    _attributes: dict[str, dict[str, Any]] | None = None

    @property
    def attributes(self) -> dict[str, dict[str, Any]]:
        """The item decoded (DynamoDB JSON, values still typed); computed once, when first needed."""
        if self._attributes is None:
            try:
                self._attributes = _ATTRIBUTES.decode(self.wire)
            except (msgspec.DecodeError, ValueError) as error:
                raise MalformedRecord(f"An item image is not DynamoDB JSON ({error}).") from error
        return self._attributes

    def attribute(self, name: str) -> dict[str, Any] | None:
        """One attribute, decoded, and nothing else of the item; None when it has none of that name."""
        if self._attributes is not None:
            return self._attributes.get(name)
        try:
            raw = _RAW_ATTRIBUTES.decode(self.wire).get(name)
        except (msgspec.DecodeError, ValueError) as error:
            raise MalformedRecord(f"An item image is not DynamoDB JSON ({error}).") from error
        return None if raw is None else _typed(raw)

    @property
    def stamp(self) -> str | None:
        """The version stamp this item carries, None when it has none that could be ours."""
        if STAMP.encode() not in self.wire and _ESCAPE not in self.wire:
            return None
        value = self.attributes.get(STAMP, {}).get("S")
        return value if isinstance(value, str) else None

    def __repr__(self) -> str:
        """Size only: item values never reach a log."""
        return f"Image({len(self.wire)} bytes)"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Image) and self.wire == other.wire

    def __ne__(self, other: object) -> bool:
        """Stated, since a Struct's own would compare identities."""
        return not self == other

    def __hash__(self) -> int:
        return hash(self.wire)


def unreserved(image: Image, stamp: str = STAMP) -> Image:
    """The image without version stamp and `aws:rep:*` attributes; the same object when there are none.

    `stamp` is the name of the attribute that carries the stamp.
    """
    return parted(image, stamp)[0]


def is_bare(image: Image) -> bool:
    """Whether an image is certain to be without stamp and reserved attributes; one that is not may be, too."""
    wire = image.wire  # `in` takes a third longer than `find`: it asks first whether what is looked for is a number
    return wire.find(_MARK) < 0 and wire.find(b"\\") < 0


def parted(image: Image, stamp: str = STAMP) -> tuple[Image, bytes | None]:
    """The same, and the stamp attribute that was taken off, as wire JSON; None when there was none."""
    wire = image.wire
    has_escapes = wire.find(_BACKSLASH) >= 0
    if not has_escapes and wire.find(_MARK) < 0 and (_MARK_TEXT in stamp or stamp.encode() not in wire):
        return image, None
    may_hold_others = wire.find(_RESERVED) >= 0 or (has_escapes and _ESCAPE in wire)
    cut = None if may_hold_others else _cut(wire, _stamp_member(stamp))
    if cut is not None:
        return Image(cut[0]), cut[1]
    raw = _raw(image)
    count, taken = len(raw), raw.pop(stamp, None)
    if may_hold_others:
        for reserved in [name for name in raw if name.startswith(RESERVED_PREFIX)]:
            del raw[reserved]
    bare = image if len(raw) == count else Image(_ENCODE(raw))
    return bare, None if taken is None else bytes(taken)


def _cut(wire: bytes, member: bytes) -> tuple[bytes, bytes] | None:
    """An image without its last attribute, and that one's value, if it is `member` with a plain text in it; else None.

    It is the item's own and no nested one, because the image ends with it. Nothing is decoded by that.
    """
    at = wire.rfind(member)
    text = at + len(member)
    if at < 0 or wire.find(b'"}}', text + 1) != len(wire) - 3:
        return None
    if wire.count(b'"', text) != 2 or wire.find(b"\\", text) >= 0:  # noqa: PLR2004 - around the text
        return None
    return wire[:at] + b"}", wire[text - _BEFORE_TEXT : -1]


def restamped(old: Image, new: Image, stamp: str = STAMP) -> tuple[bytes, bytes | None, bytes] | None:
    """What two images hold beside their stamps, if that is spelled alike, and both stamps; None: not known.

    Known only where stamps stand at the end, and differ. As `parted` says of both, but in one look.
    """
    before, after = old.wire, new.wire
    member = _stamp_member(stamp)
    if before[-_LONGEST_END:] == after[-_LONGEST_END:] or _may_hold_others(after):
        return None  # an update of a user keeps the stamp
    if (cut := _cut(after, member)) is None:
        return None
    bare, given = cut
    if before == bare:
        return None if bare.find(stamp.encode()) >= 0 or bare.find(_BACKSLASH) >= 0 else (bare, None, given)
    if _may_hold_others(before) or (replaced := _cut(before, member)) is None or replaced[0] != bare:
        return None
    return bare, replaced[1], given


def _may_hold_others(wire: bytes) -> bool:
    """Whether an image may hold reserved attributes, or names that are written with escapes."""
    return wire.find(_RESERVED) >= 0 or wire.find(_ESCAPE) >= 0


def typed_value(wire: bytes) -> dict[str, Any]:
    """One attribute, decoded."""
    return _typed(wire)


def stamped(image: Image, version: str, stamp: str = STAMP) -> bytes:
    """Wire JSON of the image with its version stamp spliced in behind the last attribute; it must be `unreserved`."""
    return b"%b%b%b}}" % (image.wire[:-1], _stamp_member(stamp), _ENCODE(version))


@lru_cache(maxsize=64)
def _stamp_member(stamp: str) -> bytes:
    """A stamp behind other attributes, as far as its text."""
    return b',%b:{"S":' % _ENCODE(stamp)


STAMP_MEMBER = _stamp_member(STAMP)
"""The version stamp behind other attributes, as far as its text."""

_BEFORE_TEXT = len(b'{"S":')
_LONGEST_END = 121 + len(b'"}}')
"""Bytes with which an item with a stamp ends, the stamp and what is behind it."""


def canonical(image: Image, stamp: str = STAMP) -> bytes:
    """Bytes that are equal exactly when two images hold the same content, whatever their stamp.

    Map keys and sets are sorted, numbers take the normal form in which DynamoDB returns them, binary stays base64.
    """
    return _ENCODE(_canonical_map(unreserved(image, stamp).attributes))


def same_content(one: Image, two: Image, stamp: str = STAMP) -> bool:
    """Whether two images hold the same content, whatever their stamp: as `canonical` says, but cheap.

    Attributes that are spelled alike are equal; only others are decoded.
    """
    ours, theirs = _raw_content(one, stamp), _raw_content(two, stamp)
    if ours.keys() != theirs.keys():
        return False
    unlike = [name for name, raw in ours.items() if raw != theirs[name]]
    return all(_normal(ours[name]) == _normal(theirs[name]) for name in unlike)


def _raw_content(image: Image, stamp: str) -> dict[str, msgspec.Raw]:
    raw = _raw(image)
    for reserved in [name for name in raw if name == stamp or name.startswith(RESERVED_PREFIX)]:
        del raw[reserved]
    return raw


def _raw(image: Image) -> dict[str, msgspec.Raw]:
    try:
        return _RAW_ATTRIBUTES.decode(image.wire)
    except (msgspec.DecodeError, ValueError) as error:
        raise MalformedRecord(f"An item image is not DynamoDB JSON ({error}).") from error


def _typed(raw: msgspec.Raw | bytes) -> dict[str, Any]:
    try:
        return _TYPED.decode(raw)
    except (msgspec.DecodeError, ValueError) as error:
        raise MalformedRecord(f"An item image is not DynamoDB JSON ({error}).") from error


def _normal(raw: msgspec.Raw) -> tuple[str, Any]:
    return canonical_value(msgspec.json.decode(raw))


def content_hash(image: Image) -> str:
    """SHA-256 of the canonical content, in hex."""
    return sha256(canonical(image)).hexdigest()


def _canonical_map(attributes: dict[str, dict[str, Any]]) -> list[Any]:
    made: list[Any] = []
    for name in sorted(attributes):
        typed = attributes[name]
        text = typed.get("S")  # most of them, and encoded as the same pair
        made.append((name, ("S", text) if text is not None and len(typed) == 1 else canonical_value(typed)))
    return made


def canonical_value(typed: dict[str, Any]) -> tuple[str, Any]:
    """A typed value in the form that equal values have."""
    (found,) = typed.items()
    kind, value = found
    if kind == "S":  # most of them
        return found
    match kind:
        case "N":
            value = normal_number(value)
        case "NS":
            value = sorted([normal_number(number) for number in value])
        case "SS" | "BS":
            value = sorted(value)
        case "L":
            value = [canonical_value(element) for element in value]
        case "M":
            value = _canonical_map(value)
        case _:
            return found
    return kind, value


@lru_cache(maxsize=4096)
def normal_number(text: str) -> str:
    """A DynamoDB number in a form that is the same for equal numbers (`1.10` and `1.1`, `-0` and `0`).

    Kept for a while, since most items have numbers that others have, too, or that they had before.
    """
    if _is_normal(text):
        return text
    number = _EXACT.create_decimal(text).normalize(_EXACT)
    return "0" if number == 0 else str(number)


def plain(typed: dict[str, Any]) -> Any:
    """A typed attribute value as plain JSON (`{"N": "1"}` -> 1), for predicates; numbers may lose digits."""
    ((kind, value),) = typed.items()
    match kind:
        case "N":
            return _plain_number(value)
        case "NS":
            return [_plain_number(number) for number in value]
        case "L":
            return [plain(element) for element in value]
        case "M":
            return {name: plain(element) for name, element in value.items()}
        case "NULL":
            return None
        case _:
            return value


def _plain_number(text: str) -> int | float:
    number = Decimal(text)
    return int(number) if number == number.to_integral_value() and abs(number) < 10**18 else float(number)
