"""Messages of an HTTP answer that is a stream of events (`application/vnd.amazon.eventstream`), as AWS frames them."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Any, Final
from zlib import crc32

import msgspec

CONTENT_TYPE: Final = "application/vnd.amazon.eventstream"
_STRING: Final = 7
_AROUND: Final = 16
"""Bytes of a message beside its headers and its payload: lengths, and a checksum behind them and at the end."""


def message(headers: Mapping[str, str], payload: bytes) -> bytes:
    """One message whose headers are strings."""
    written = b"".join(
        struct.pack(">B", len(name)) + name.encode() + struct.pack(">BH", _STRING, len(value)) + value.encode()
        for name, value in headers.items()
    )
    prelude = struct.pack(">II", _AROUND + len(written) + len(payload), len(written))
    body = prelude + struct.pack(">I", crc32(prelude)) + written + payload
    return body + struct.pack(">I", crc32(body))


def event(kind: str, payload: bytes) -> bytes:
    """An event of a kind."""
    return message({":event-type": kind, ":content-type": "application/json", ":message-type": "event"}, payload)


def exception(code: str, said: str) -> bytes:
    """What ends a stream that went wrong."""
    payload: Any = {"message": said}
    headers = {":exception-type": code, ":content-type": "application/json", ":message-type": "exception"}
    return message(headers, msgspec.json.encode(payload))
