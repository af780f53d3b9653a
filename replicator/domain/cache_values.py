"""What an entry holds of an item: its formats, exact whatever the numbers are.

It needs the standard library only, because the reader library shares it. Items are DynamoDB JSON: typed values,
binaries as base64. Invariant: equal items have equal payloads in the plain formats, where names and sets are in order.
"""

from __future__ import annotations

import base64
import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final

KINDS: Final = ("dynamodb_json", "json", "msgpack", "hash")
NUMBERS: Final = ("string", "number")
_LEAST_INT, _MOST_INT = -(2**63), 2**64 - 1
_FIX, _SHORT, _LONG = 16, 2**16, 2**32


@dataclass(frozen=True, slots=True)
class Shape:
    """A format. `numbers`: as text, which keeps all 38 digits, or as numbers where that is exact; not of typed values.

    `attributes`: what is kept of an item; empty: everything.
    """

    kind: str = "dynamodb_json"
    numbers: str = "string"
    attributes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Refuse what is not there."""
        if self.kind not in KINDS:
            raise ValueError(f"value must be one of {', '.join(KINDS)}")
        if self.numbers not in NUMBERS:
            raise ValueError(f"numbers must be one of {', '.join(NUMBERS)}")

    @property
    def is_hash(self) -> bool:
        """Whether an entry is a hash of Redis, a field for each attribute; the payload is names and texts in turns."""
        return self.kind == "hash"

    @property
    def is_whole(self) -> bool:
        """Whether the payload is the item as it is."""
        return self.kind == "dynamodb_json" and not self.attributes

    def encode(self, item: Mapping[str, Mapping[str, Any]]) -> bytes:
        """The payload of an item."""
        kept = {name: item[name] for name in sorted(item) if not self.attributes or name in self.attributes}
        match self.kind:
            case "json":
                return _json_map(kept, numbers=self.numbers == "number").encode()
            case "msgpack":
                return _packed_map(kept, numbers=self.numbers == "number")
            case "hash":
                return hash_payload(
                    {name: _field(typed, numbers=self.numbers == "number") for name, typed in kept.items()}
                )
            case _:
                return json.dumps(kept, ensure_ascii=False, separators=(",", ":")).encode()

    def decode(self, payload: bytes) -> Any:
        """What a payload holds; ValueError when it is none. Numbers of JSON are int, or Decimal with a fraction."""
        if self.kind == "msgpack":
            return unpacked(payload)
        if self.is_hash:
            flat = json.loads(payload)
            return dict(zip(flat[::2], flat[1::2], strict=True))
        return json.loads(payload, parse_float=Decimal)


# -- JSON ----------------------------------------------------------------------------------------------------------


def _text(value: str) -> str:
    return json.dumps(value, ensure_ascii=False)


def _json_map(item: Mapping[str, Any], *, numbers: bool) -> str:
    return "{" + ",".join(f"{_text(name)}:{_json(item[name], numbers=numbers)}" for name in sorted(item)) + "}"


def _json(typed: Mapping[str, Any], *, numbers: bool) -> str:  # noqa: PLR0911 - one line for each type
    ((kind, value),) = typed.items()
    match kind:
        case "M":
            return _json_map(value, numbers=numbers)
        case "L":
            return "[" + ",".join(_json(inner, numbers=numbers) for inner in value) + "]"
        case "SS" | "NS" | "BS":
            return "[" + ",".join(_json({kind[0]: inner}, numbers=numbers) for inner in sorted(value)) + "]"
        case "N" if numbers:
            return str(Decimal(value))
        case "NULL":
            return "null"
        case "BOOL":
            return "true" if value else "false"
        case _:
            return _text(value)


# -- hashes --------------------------------------------------------------------------------------------------------


def hash_payload(fields: Mapping[str, str]) -> bytes:
    """Fields of a hash as one text, which scripts take apart."""
    flat = [text for name in sorted(fields) for text in (name, fields[name])]
    return json.dumps(flat, ensure_ascii=False, separators=(",", ":")).encode()


def _field(typed: Mapping[str, Any], *, numbers: bool) -> str:
    """A value as the text of a field: strings, numbers and binaries as DynamoDB JSON has them, else plain JSON."""
    value = typed.get("S", typed.get("N", typed.get("B")))
    return value if isinstance(value, str) else _json(typed, numbers=numbers)


# -- MessagePack ---------------------------------------------------------------------------------------------------


def _packed_map(item: Mapping[str, Any], *, numbers: bool) -> bytes:
    inner = b"".join(_packed_text(name) + _packed(item[name], numbers=numbers) for name in sorted(item))
    return _head(len(item), 0x80, 0xDE) + inner


def _packed(typed: Mapping[str, Any], *, numbers: bool) -> bytes:  # noqa: PLR0911 - one line for each type
    ((kind, value),) = typed.items()
    match kind:
        case "M":
            return _packed_map(value, numbers=numbers)
        case "L":
            return _head(len(value), 0x90, 0xDC) + b"".join(_packed(inner, numbers=numbers) for inner in value)
        case "SS" | "NS" | "BS":
            inner = b"".join(_packed({kind[0]: each}, numbers=numbers) for each in sorted(value))
            return _head(len(value), 0x90, 0xDC) + inner
        case "N" if numbers:
            return _packed_number(value)
        case "B":
            return _packed_bytes(base64.b64decode(value))
        case "NULL":
            return b"\xc0"
        case "BOOL":
            return b"\xc3" if value else b"\xc2"
        case _:
            return _packed_text(value)


def _head(size: int, short: int, long: int) -> bytes:
    """The head of an array or a map."""
    if size < _FIX:
        return bytes([short | size])
    return bytes([long]) + struct.pack(">H", size) if size < _SHORT else bytes([long + 1]) + struct.pack(">I", size)


def _packed_text(text: str) -> bytes:
    data = text.encode()
    if len(data) < 2 * _FIX:
        return bytes([0xA0 | len(data)]) + data
    return _sized(0xD9, data)


def _packed_bytes(data: bytes) -> bytes:
    return _sized(0xC4, data)


def _sized(first: int, data: bytes) -> bytes:
    """Data behind its length in one, two or four bytes."""
    size = len(data)
    if size < _FIX * _FIX:
        return bytes([first, size]) + data
    width = (1, ">H") if size < _SHORT else (2, ">I")
    return bytes([first + width[0]]) + struct.pack(width[1], size) + data


def _packed_number(text: str) -> bytes:
    """An integer of 64 bits, or a double, where that is exactly the number; else its text."""
    number = Decimal(text)
    if number == number.to_integral_value():
        whole = int(number) if number.adjusted() < 20 else _MOST_INT + 1  # noqa: PLR2004 - digits of 64 bits
        if _LEAST_INT <= whole <= _MOST_INT:
            return _packed_integer(whole)
    double = float(number)
    if Decimal(repr(double)) == number and abs(double) != float("inf"):
        return b"\xcb" + struct.pack(">d", double)
    return _packed_text(text)


def _packed_integer(number: int) -> bytes:
    if -32 <= number < 128:  # noqa: PLR2004 - what one byte holds
        return struct.pack(">b", number)
    return b"\xd3" + struct.pack(">q", number) if number < 2**63 else b"\xcf" + struct.pack(">Q", number)


_NUMBERS: Final = {
    0xCA: ">f",
    0xCB: ">d",
    0xCC: ">B",
    0xCD: ">H",
    0xCE: ">I",
    0xCF: ">Q",
    0xD0: ">b",
    0xD1: ">h",
    0xD2: ">i",
    0xD3: ">q",
}
_CONSTANTS: Final = {0xC0: None, 0xC2: False, 0xC3: True}
_SIZED: Final = {
    0xC4: ("bytes", ">B"), 0xC5: ("bytes", ">H"), 0xC6: ("bytes", ">I"),
    0xD9: ("text", ">B"), 0xDA: ("text", ">H"), 0xDB: ("text", ">I"),
    0xDC: ("array", ">H"), 0xDD: ("array", ">I"), 0xDE: ("map", ">H"), 0xDF: ("map", ">I"),
}  # fmt: skip


def unpacked(payload: bytes) -> Any:
    """The value of a MessagePack payload; ValueError when it is none."""
    try:
        value, end = _unpacked(payload, 0)
    except (struct.error, IndexError, KeyError, TypeError, RecursionError) as error:
        raise ValueError("no MessagePack") from error
    if end != len(payload):
        raise ValueError("something follows the MessagePack")
    return value


def _unpacked(data: bytes, at: int) -> tuple[Any, int]:
    first, at = data[at], at + 1
    if first < 0x80 or first >= 0xE0:  # noqa: PLR2004 - the format's own
        return struct.unpack(">b", bytes([first]))[0], at
    if first in _CONSTANTS:
        return _CONSTANTS[first], at
    if first in _NUMBERS:
        form = _NUMBERS[first]
        return struct.unpack_from(form, data, at)[0], at + struct.calcsize(form)
    if first < 0xC0:  # noqa: PLR2004
        kind, size = ("text", first & 0x1F) if first >= 0xA0 else ("array" if first >= 0x90 else "map", first & 0x0F)  # noqa: PLR2004
    else:
        kind, form = _SIZED[first]
        size, at = struct.unpack_from(form, data, at)[0], at + struct.calcsize(form)
    return _sequence(kind, size, data, at)


def _sequence(kind: str, size: int, data: bytes, at: int) -> tuple[Any, int]:
    if kind in {"text", "bytes"}:
        piece = data[at : at + size]
        if len(piece) != size:
            raise IndexError
        return piece.decode() if kind == "text" else piece, at + size
    values = []
    for _ in range(size if kind == "array" else 2 * size):
        value, at = _unpacked(data, at)
        values.append(value)
    return (values if kind == "array" else dict(zip(values[::2], values[1::2], strict=True))), at
