"""Keys owed to a target: what a row means, how two of them merge, and when one is settled. No calls.

A change that a target did not take is a key that it is owed. With full images and versions only the newest change of a
key matters, so a key costs one row however often it changes. Invariant: a row's version only grows; a row is there
before its record counts as done, and is settled by nothing older than itself.
"""

from __future__ import annotations

import enum
import zlib
from hashlib import sha256

import msgspec

from replicator.domain.errors import MalformedRecord, PoisonRecord, ReplicatorError
from replicator.domain.identifiers import SequenceNumber, ShardId, TableName
from replicator.domain.image import Image
from replicator.domain.records import ChangeRecord, Event, ItemKey
from replicator.domain.rules import Rule
from replicator.domain.targets import TargetId, TargetKind
from replicator.domain.values import replace
from replicator.domain.versions import EPOCH_DIGITS, GENERATION_DIGITS, is_ordered_version, ordered_version, sequence_of

LONGEST_BODY = 300 * 1024
"""Bytes of a body that is kept, compressed; a longer one is omitted."""

LONGEST_REASON = 400
"""Characters of a reason that are kept."""

MOST_REPLACED = 8
"""Marks of replaced images that a row keeps."""

SHOWN_ROW_ID = 12
"""Digits of a row's id that people are shown."""

_PLACE_DIGITS = len(ordered_version(0, 0, 0))

_AGE_MARGIN_SECONDS = 3600.0
"""How much before a tombstone's time is over images are no longer trusted: clocks of machines differ."""


Subject = ItemKey | tuple[ShardId, SequenceNumber]
"""A key, or the shard and the number of a record."""


class OwedFor(enum.StrEnum):
    """Why a target did not take a change."""

    REFUSED = "refused"  # it refuses the item as it is
    AWAY = "away"  # it does not answer


class BodyState(enum.StrEnum):
    """What is kept of a change beside its row."""

    STORED = "stored"
    OMITTED = "omitted"  # too long: a retry reads the source
    NONE = "none"  # a removal has no image


class Settlement(enum.StrEnum):
    """How a row was settled."""

    APPLIED = "applied"  # the target took this change or a newer one of its key
    DELIVERED = "delivered"  # it was away, came back, and was brought what stands at the source
    RETRIED = "retried"  # an operator had it tried again
    ABSENT = "absent"  # the source no longer holds the item; its removal is a change of its own
    DROPPED = "dropped"  # an operator gave it up


class OwedTo(msgspec.Struct, frozen=True):
    """To whom keys are owed, and for what: a target, and the source table that the keys are of.

    A region of a mesh is owed keys as a replica, by each of the other regions. What it refused and what it missed while
    it was away are apart: of the first there is little, which is held in memory, and of the second any amount.
    """

    table: TableName
    target_id: TargetId
    owed_for: OwedFor = OwedFor.REFUSED


class OwedKey(msgspec.Struct, frozen=True):
    """One row: a key, or a record that cannot be read (`key` is None), and the greatest version that is owed.

    `first` and `last`: when the target first and last did not take it; `changed_at`: when the source was changed, as
    its stream says. All in seconds since 1970. `event` is None of a record that cannot be read. `size`: bytes of the
    item as the target would hold it. `by`: the worker that met it last. In mode `versioned`, `replaced` has marks of
    what the changes that are owed had replaced, of the first one and then of the last ones, the newest first, and
    `left` that of what the newest one left.
    """

    to: OwedTo
    key: ItemKey | None
    version: str
    shard: ShardId
    sequence: SequenceNumber
    event: Event | None
    why: str
    changed_at: float
    first: float
    last: float
    by: str
    tries: int = 1
    size: int | None = None
    body: BodyState = BodyState.NONE
    replaced: tuple[str, ...] = ()
    left: str | None = None

    @property
    def row_id(self) -> str:
        """64 hexadecimal digits: the same for every version of a key, another for every target."""
        return row_id(self.to, self.subject)

    @property
    def subject(self) -> Subject:
        """What a row is kept for: a key, or a place where that is a record of its own, which no later one replaces."""
        is_event = self.to.target_id.kind is TargetKind.EVENTS
        return (self.shard, self.sequence) if self.key is None or is_event else self.key

    @property
    def owed_for(self) -> OwedFor:
        """Why it is owed."""
        return self.to.owed_for

    @property
    def is_put(self) -> bool:
        """Whether it is the change of an item that exists."""
        return self.event in {Event.INSERT, Event.MODIFY}

    @property
    def shown(self) -> str:
        """What it is about, for people."""
        return f"record {self.sequence} of shard {self.shard}" if self.key is None else self.key.shown


class SettledKey(msgspec.Struct, frozen=True):
    """A row that was settled: by whom, how and when."""

    owed: OwedKey
    how: Settlement
    by: str
    at: float


def row_id(to: OwedTo, subject: Subject) -> str:
    """The id of a row about a key, or about a record at its place."""
    parts = subject.parts if isinstance(subject, ItemKey) else subject
    return sha256(msgspec.json.encode([to.table, to.target_id.text, parts])).hexdigest()


def mesh_version(generation: int, sequence: int, decided: str) -> str:
    """The version of a row in a mesh: the place of its record in the stream of the home region, and what was decided.

    What a region is brought stands at home: a row's version shows whether more became owed since the row was read. That
    is so when a later record was, whatever its version or rank, and when the same one was under a greater version.
    """
    return f"{ordered_version(0, generation, sequence)}{decided}"


def decided_in(version: str) -> str:
    """What was decided of a change in a mesh, by the version of its row."""
    return version[_PLACE_DIGITS:]


# -- rows --------------------------------------------------------------------------------------------------------------


def merged(known: OwedKey | None, new: OwedKey) -> OwedKey:
    """The row after one more change of its key was not taken: the greatest version stands, whatever the order."""
    if known is None:
        return new
    if new.version < known.version:
        return known
    replaced = dict.fromkeys((*known.replaced[:1], *new.replaced, *known.replaced[1:]))
    return replace(new, first=known.first, tries=known.tries + new.tries, replaced=tuple(replaced)[:MOST_REPLACED])


def settles(applied: str, owed: str) -> bool:
    """Whether a change that the target took settles a row."""
    return applied >= owed


def packed(body: bytes) -> bytes | None:
    """A body as it is kept; None when it is too long for that."""
    kept = zlib.compress(body, level=1)
    return kept if len(kept) <= LONGEST_BODY else None


def unpacked(kept: bytes) -> bytes:
    """A body as it was."""
    try:
        return zlib.decompress(kept)
    except zlib.error as error:
        raise MalformedRecord(f"A kept body is damaged ({error}).") from error


# -- refusals ----------------------------------------------------------------------------------------------------------


def is_refusal(error: ReplicatorError) -> bool:
    """Whether an error is about the record, which fails again as it is; what is about the world heals by itself."""
    return isinstance(error, PoisonRecord | MalformedRecord)


class TooMuchOwed(ReplicatorError):
    """A target refuses so much that the records cannot be the reason."""

    advice = (
        "`replicator parked list` shows what is refused and why. Correct the target or the items, then"
        " `replicator parked retry`; or raise parking.max. It continues by itself."
    )


def too_much(to: OwedTo, rows: int, what: str, error: ReplicatorError) -> TooMuchOwed:
    """The error that stops a target at its bound; `error`: its last refusal."""
    return TooMuchOwed(
        f"Target {to.target_id.text} has {rows} parked {what}, the most that is kept: when so much is refused, it is"
        f" the table and not the record. The last refusal: {error.message}"
    )


# -- a retry -----------------------------------------------------------------------------------------------------------


class RetryBy(enum.Enum):
    """With what a row is tried again."""

    CHANGE = "change"  # as it was kept
    SOURCE = "source"  # what the source holds now, under the version that is owed


def retry_by(owed: OwedKey, now: float, tombstone_seconds: float) -> RetryBy:
    """With what a row may be tried again.

    An image that is as old as a tombstone lives may have been deleted since by a change whose tombstone is gone: then
    only the source tells. A removal may be repeated at any age.
    """
    if not owed.is_put:
        return RetryBy.CHANGE
    expired = now - min(owed.changed_at or owed.first, owed.first) > tombstone_seconds - _AGE_MARGIN_SECONDS
    return RetryBy.SOURCE if expired or owed.body is BodyState.OMITTED else RetryBy.CHANGE


def as_record(owed: OwedKey, new: Image | None, standing: Image | None) -> ChangeRecord:
    """The change that a row owes, as a record: `standing` is what the target holds now, None when nothing.

    It takes the place of what the source held before: the cache keys of that are the ones that may be stale here.
    """
    assert owed.key is not None, "a record that cannot be read is not applied"
    assert owed.event is not None, "a key has an event"
    rank = sequence_of(owed.version)
    micros = 0 if rank == int(owed.sequence) else rank
    return ChangeRecord(owed.event, owed.key, standing, new, owed.sequence, owed.changed_at, micros=micros)


def under_its_version(rule: Rule, owed: OwedKey) -> tuple[Rule, int]:
    """The rule as it was when the row was written, and the stream generation: together they give its version again.

    An epoch that was raised since must not lift an old change above those of the new writer.
    """
    assert is_ordered_version(owed.version), "only mode `ordered` parks"
    epoch, rest = owed.version[:EPOCH_DIGITS], owed.version[EPOCH_DIGITS:]
    return replace(rule, epoch=int(epoch)), int(rest[:GENERATION_DIGITS])
