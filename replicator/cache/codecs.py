"""How a value becomes the payload of an entry and comes back.

Invariant: what a caller gets does not depend on whether it came from the cache or from the table.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final

STAMP: Final = "_rep"
_RESERVED: Final = "aws:rep:"


@dataclass(frozen=True, slots=True)
class Codec:
    """Payload of a value, and value of a payload; `decode` raises ValueError for what it cannot read."""

    encode: Callable[[Any], bytes]
    decode: Callable[[bytes], Any]
    hashed: bool = False
    """Whether entries are hashes, and payloads JSON lists of names and texts in turns."""


def _json(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


JSON: Final = Codec(_json, json.loads)
"""Plain JSON."""


def wire_item(item: Mapping[str, Mapping[str, Any]]) -> bytes:
    """The payload of an item in DynamoDB's types, as the daemon writes it: without what replicator adds to items."""
    return _json(wire_texts(item))


def wire_texts(item: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """An item without what replicator adds to it, its binaries as text."""
    kept = {name: typed for name, typed in item.items() if name != STAMP and not name.startswith(_RESERVED)}
    texts: dict[str, Any] = _texts(kept)
    return texts


def plain_item(payload: bytes) -> dict[str, Any]:
    """An item's attributes as plain values: numbers as Decimal, binaries as bytes, sets as sets."""
    try:
        return {name: _plain(typed) for name, typed in json.loads(payload).items()}
    except (AttributeError, TypeError, ArithmeticError) as error:
        raise ValueError("no item in DynamoDB's types") from error


ITEM: Final = Codec(wire_item, plain_item)
"""Items: what the action `refresh` writes, and what `dynamodb_loader` loads."""


def _texts(value: Any) -> Any:
    """A typed value with its binaries as text."""
    if isinstance(value, Mapping):
        return {name: _texts(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_texts(inner) for inner in value]
    if isinstance(value, bytes | bytearray):
        return base64.b64encode(value).decode()
    return value


def _plain(typed: Mapping[str, Any]) -> Any:  # noqa: PLR0911 - one line for each of DynamoDB's types
    ((kind, value),) = typed.items()
    match kind:
        case "S" | "BOOL":
            return value
        case "N":
            return Decimal(value)
        case "B":
            return base64.b64decode(value)
        case "NULL":
            return None
        case "M":
            return {name: _plain(inner) for name, inner in value.items()}
        case "L":
            return [_plain(inner) for inner in value]
        case "SS" | "NS" | "BS":
            return {_plain({kind[0]: inner}) for inner in value}
    raise ValueError(f"unknown type {kind}")
