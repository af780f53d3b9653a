"""What a heartbeat says of targets, as one attribute of its row: JSON by stream and target, deflated.

Invariant: what cannot be read says nothing; it never makes a worker look dead.
"""

from __future__ import annotations

import zlib
from typing import Any

import msgspec

from replicator.domain.identifiers import RegionId, TableName
from replicator.domain.shards.statements import Statement, Statements, Subject
from replicator.domain.targets import parse_target

_ENCODE = msgspec.json.Encoder().encode
_Stream = tuple[str, str, int]
_DECODE = msgspec.json.Decoder(list[tuple[_Stream, dict[str, tuple[float, str]]]]).decode
_MOST_BYTES = 4 * 1024 * 1024
"""What a row holds cannot be more than this, unless it is not ours."""


def packed(statements: Statements) -> bytes:
    """Statements as they are stored."""
    streams: dict[_Stream, dict[str, Any]] = {}
    for about, said in statements.items():
        by_target = streams.setdefault((about.region, about.table, about.generation), {})
        by_target[about.target_id.text] = (round(said.through, 3), said.leases)
    return zlib.compress(_ENCODE(list(streams.items())))


def unpacked(stored: object) -> Statements:
    """Stored statements; none when there are none, or when they cannot be read."""
    if not isinstance(stored, bytes):
        return {}
    inflating = zlib.decompressobj()
    try:
        found = _DECODE(inflating.decompress(stored, _MOST_BYTES))
    except (zlib.error, msgspec.DecodeError, ValueError):
        return {}
    return {
        Subject(RegionId(region), TableName(table), generation, target_id): Statement(through, leases)
        for (region, table, generation), by_target in found
        for text, (through, leases) in by_target.items()
        if (target_id := parse_target(text)) is not None
    }
