"""Conflicts: two writes to one item of which one had to lose, and the entry that a log keeps of them.

Invariant: an entry's id depends only on what was in conflict, so a replay writes the same entry again. Owns the shape
of an entry, its masking and its truncation; leaves where entries are kept to the sinks.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any

import msgspec

from replicator.domain.image import Image, content_hash
from replicator.domain.records import RegionId, RuleName, SequenceNumber, ShardId, TableName
from replicator.domain.requests import LogConflict

SCHEMA = 2
"""Version of the layout of an entry."""

LONGEST_IMAGES = 390_000
"""Bytes that winner and loser may take together; the rest of an entry fits what is left of an item of 400 KB."""

MASK = "***"


class Kind(enum.StrEnum):
    """What met what; the winner is named first."""

    PUT_PUT = "put_put"
    DELETE_PUT = "delete_put"
    PUT_DELETE = "put_delete"
    DELETE_DELETE = "delete_delete"  # a mark replaced another region's mark
    UNVERSIONED = "unversioned"  # the loser carried no version that could be compared
    VERSION_REGRESS = "version_regress"  # a user lowered the version of an item, or lost it
    STALE_CREATE = "stale_create"  # a user created an item at or below its tombstone


class Reason(enum.StrEnum):
    """Why the winner won."""

    LATER_TIME = "later_time"
    CAUSAL = "causal"
    REGION_TIE = "region_tie"
    VERSION = "version"
    HASH_TIE = "hash_tie"


class Resolution(enum.StrEnum):
    """What became of the loser: overwritten, or already back again."""

    OVERWRITTEN = "overwritten"
    REPAIRED = "repaired"


class Operation(enum.StrEnum):
    """What a write did."""

    PUT = "put"
    DELETE = "delete"


@dataclass(frozen=True, slots=True)
class Witness:
    """The stream record at which a conflict was seen."""

    region: RegionId
    shard: ShardId
    sequence: SequenceNumber


@dataclass(frozen=True, slots=True)
class ConflictEntry:
    """A conflict with everything that its log keeps. `table` is the rule's; `detected_at` in seconds since 1970."""

    conflict: LogConflict
    table: TableName
    rule: RuleName
    mode: str
    witness: Witness
    detected_at: float

    @property
    def id(self) -> str:
        """SHA-256 over table, key, the winner's version and the loser's version or content, in hex."""
        conflict = self.conflict
        loser = conflict.loser_version
        if loser is None:
            loser = "" if conflict.loser is None else content_hash(conflict.loser)
        parts = [self.table, conflict.key.parts, conflict.winner_version, loser]
        return sha256(msgspec.json.encode(parts)).hexdigest()

    @property
    def item(self) -> str:
        """The item's name in the index by key."""
        return self.conflict.key.side_key(self.table)


def shown_time(seconds: float) -> str:
    """A time as entries write it; of fixed width, so that text sorts as time."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")


# -- the document --------------------------------------------------------------------------------------------------


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
    """Both images within the bound: the loser is kept whole before the winner, which stands in a table anyway."""
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
