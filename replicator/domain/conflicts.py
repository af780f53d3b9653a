"""Conflicts: two writes to one item of which one had to lose, and the entry that a log keeps of them.

Invariant: an entry's id depends only on what was in conflict, so a replay writes the same entry again. Owns the shape
of an entry, its masking and its truncation; leaves where entries are kept to the sinks.
"""

from __future__ import annotations

import enum
from hashlib import sha256

import msgspec

from replicator.domain.identifiers import RegionId, RuleName, SequenceNumber, ShardId, TableName
from replicator.domain.image import Image, content_hash
from replicator.domain.records import ItemKey


class Operation(enum.StrEnum):
    """What a write did."""

    PUT = "put"
    DELETE = "delete"


class ConflictKind(enum.StrEnum):
    """What met what; the winner is named first. The kinds of every mode: `--kind` and the entries know no others."""

    PUT_PUT = "put_put"
    DELETE_PUT = "delete_put"
    PUT_DELETE = "put_delete"
    DELETE_DELETE = "delete_delete"  # a mark replaced another region's mark
    UNVERSIONED = "unversioned"  # the loser carried no version that could be compared
    VERSION_REGRESS = "version_regress"  # a user lowered the version of an item, or lost it
    DROPPED = "dropped"  # a change that a target refused was given up by an operator
    STALE_CREATE = "stale_create"  # a user created an item at or below its tombstone
    SEED = "seed"  # regions held different items from before the rule's start
    REPAIR = "repair"  # a repair replaced or removed an item that differed


def kind_of(winner: Operation, loser: Operation) -> ConflictKind:
    """The kind of a conflict between two versioned writes."""
    match winner, loser:
        case Operation.PUT, Operation.PUT:
            return ConflictKind.PUT_PUT
        case Operation.PUT, Operation.DELETE:
            return ConflictKind.PUT_DELETE
        case Operation.DELETE, Operation.PUT:
            return ConflictKind.DELETE_PUT
        case _:
            return ConflictKind.DELETE_DELETE


class Reason(enum.StrEnum):
    """Why the winner won."""

    LATER_TIME = "later_time"
    CAUSAL = "causal"
    REGION_TIE = "region_tie"
    VERSION = "version"
    HASH_TIE = "hash_tie"


class Resolution(enum.StrEnum):
    """What became of the loser: overwritten, already back again, or never written at all."""

    OVERWRITTEN = "overwritten"
    REPAIRED = "repaired"
    GIVEN_UP = "given_up"


class LogConflict(msgspec.Struct, frozen=True):
    """Make a conflict entry durable; answered when it is.

    Versions are as the mode writes them; a loser that never got one has none. An unknown region or time is None; times
    are microseconds since 1970.
    """

    key: ItemKey
    kind: ConflictKind
    winner_version: str
    winner: Image | None
    loser: Image | None
    reason: Reason | None = None
    loser_version: str | None = None
    winner_region: str | None = None
    loser_region: str | None = None
    winner_micros: int | None = None
    loser_micros: int | None = None
    winner_op: Operation = Operation.PUT
    loser_op: Operation = Operation.PUT
    outcome: Resolution = Resolution.OVERWRITTEN


class Witness(msgspec.Struct, frozen=True):
    """The stream record at which a conflict was seen."""

    region: RegionId
    shard: ShardId
    sequence: SequenceNumber


class ConflictEntry(msgspec.Struct, frozen=True):
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
