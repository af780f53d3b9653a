"""A conflict entry as the document that is stored and shown: bounded, with masked attributes."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import msgspec

from replicator.domain.conflicts import ConflictEntry
from replicator.domain.image import Image

SCHEMA = 2
"""Version of the layout of an entry."""

LONGEST_IMAGES = 390_000
"""Bytes that winner and loser may take together; the rest of an entry fits what is left of an item of 400 KB."""

MASK = "***"


def shown_time(seconds: float) -> str:
    """A time as entries write it; of fixed width, so that text sorts as time."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")


def document(entry: ConflictEntry, mask: frozenset[str] = frozenset(), bound: int = LONGEST_IMAGES) -> dict[str, Any]:
    """An entry as flat JSON. `winner` and `loser` hold the images as DynamoDB JSON, None for what has none.

    The values of attributes named in `mask` are replaced, keys excepted. Images that are longer than `bound` bytes
    together are cut; `..._truncated`, `..._bytes` (of the whole image) and `..._masked` say so.
    """
    conflict, witness = entry.conflict, entry.witness
    images = {"winner": conflict.winner, "loser": conflict.loser}
    return {
        "id": entry.id,
        "sv": SCHEMA,
        "rule": entry.rule,
        "mode": entry.mode,
        "table": entry.table,
        "key": msgspec.json.decode(conflict.key.wire),
        "detected_at": shown_time(entry.detected_at),
        "kind": conflict.kind,
        "reason": conflict.reason,
        "outcome": conflict.outcome,
        "witness_region": witness.region,
        "witness_shard": witness.shard,
        "witness_seq": witness.sequence,
        "winner_version": conflict.winner_version,
        "winner_region": conflict.winner_region,
        "winner_time": _time_of(conflict.winner_micros),
        "winner_op": conflict.winner_op,
        "loser_version": conflict.loser_version,
        "loser_region": conflict.loser_region,
        "loser_time": _time_of(conflict.loser_micros),
        "loser_op": conflict.loser_op,
        **_images(images, mask - {name for name, _, _ in conflict.key.parts}, bound),
    }


def _time_of(micros: int | None) -> str | None:
    return None if micros is None else shown_time(micros / 1_000_000)


def _images(images: Mapping[str, Image | None], mask: frozenset[str], bound: int) -> dict[str, Any]:
    """Both images within the bound: the loser is kept whole before the winner, which is in a table anyway."""
    shown: dict[str, Any] = {}
    left = bound
    for name in ("loser", "winner"):
        image = images[name]
        if image is None:
            shown[name] = None
            continue
        attributes = dict(image.attributes)
        masked = sorted(mask & attributes.keys())
        attributes |= {hidden: {"S": MASK} for hidden in masked}
        size = len(msgspec.json.encode(attributes))
        if size > left:
            attributes, size = _cut(attributes, left)
            shown |= {f"{name}_truncated": True, f"{name}_bytes": len(image.wire)}
        if masked:
            shown[f"{name}_masked"] = masked
        shown[name] = attributes
        left -= size
    return shown


def _cut(attributes: Mapping[str, Any], bound: int) -> tuple[dict[str, Any], int]:
    """As many attributes as fit, the smallest first, so that keys and versions stay."""
    kept: dict[str, Any] = {}
    size = len("{}")
    for name, typed in sorted(attributes.items(), key=lambda pair: len(msgspec.json.encode(dict([pair])))):
        more = len(msgspec.json.encode({name: typed}))
        if size + more <= bound:
            kept[name] = typed
            size += more
    return kept, size
