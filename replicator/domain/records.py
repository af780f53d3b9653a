"""Change records: one write to one item, as a stream holds it.

Invariant: a `ChangeRecord` is complete and consistent (event and images agree, the key is known), or it does not exist:
`change_record` is total and strict.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping
from functools import lru_cache
from hashlib import sha256

import msgspec

from replicator.domain.errors import MalformedRecord
from replicator.domain.identifiers import SequenceNumber
from replicator.domain.image import Image
from replicator.domain.plain_text import on_one_line
from replicator.domain.versions import SEQUENCE_DIGITS

_LONGEST_SIDE_KEY = 1024
_ENCODE = msgspec.json.Encoder().encode
_KEY_TYPES = frozenset("SNB")
_WHITE = b" \t\r\n"
_ITEM = b'{"'
_NO_ITEM = frozenset({b"", b"{}", b"null"})
_NO_KEY = "A key has no attribute, or one that is neither S, N nor B."
_KEY = msgspec.json.Decoder(dict[str, dict[str, str]])


class Event(enum.Enum):
    """What a record says happened to the item."""

    __hash__ = object.__hash__  # asked for every record, and the one of enumerations is not compiled

    INSERT = "INSERT"
    MODIFY = "MODIFY"
    REMOVE = "REMOVE"


class ItemKey(msgspec.Struct, frozen=True, cache_hash=True, gc=False):
    """The primary key of an item: (attribute name, type, value) per key attribute, sorted by name."""

    parts: tuple[tuple[str, str, str], ...]

    @property
    def names(self) -> tuple[str, ...]:
        """The key attributes' names, sorted."""
        return tuple(name for name, _, _ in self.parts)

    @property
    def wire(self) -> bytes:
        """DynamoDB JSON of the key."""
        return _wire_of(self)

    @property
    def shown(self) -> str:
        """The key for people: `pk=a, sk=1`."""
        return on_one_line(", ".join(f"{name}={value}" for name, _, value in self.parts))

    def side_key(self, table: str) -> str:
        """Key of this item's side row: table and canonical key; long keys by their digest, to fit DynamoDB's bound."""
        text = f"{table}|{_ENCODE(self.parts).decode()}"
        if len(text.encode()) <= _LONGEST_SIDE_KEY:
            return text
        return f"{table}|sha256:{sha256(text.encode()).hexdigest()}"


@lru_cache(maxsize=512)
def _wire_of(key: ItemKey) -> bytes:
    """Kept for a while: in a mesh a key is asked for several times, one shortly behind the other."""
    return _ENCODE({name: {kind: value} for name, kind, value in key.parts})


def item_key(wire: bytes) -> ItemKey:
    """The key from its DynamoDB JSON; equal keys give equal values, however they were written."""
    try:
        return key_of(_KEY.decode(wire))
    except (msgspec.DecodeError, ValueError) as error:
        raise MalformedRecord(f"A key is not DynamoDB JSON ({error}).") from error


def key_of(attributes: Mapping[str, Mapping[str, str]]) -> ItemKey:
    """The key from its attributes as DynamoDB types them; ValueError when one has no value, or several."""
    if len(attributes) == 1:  # most tables have no sort key, and one part needs no list and no order
        ((name, typed),) = attributes.items()
        ((kind, value),) = typed.items()
        if kind not in _KEY_TYPES:
            raise MalformedRecord(_NO_KEY)
        return ItemKey(((name, kind, value),))
    parts = []
    for name, typed in attributes.items():
        ((kind, value),) = typed.items()
        if kind not in _KEY_TYPES:
            raise MalformedRecord(_NO_KEY)
        parts.append((name, kind, value))
    if not parts:
        raise MalformedRecord(_NO_KEY)
    parts.sort()
    return ItemKey(tuple(parts))


class ChangeRecord(msgspec.Struct, frozen=True, gc=False):
    """One stream record. `created_at` is in whole seconds since 1970, rounded down by the source.

    `event` is what the images tell. `partial`: the source said that there was an item before, and sent no image of it.
    `micros`: when it was written, in microseconds since 1970, where that orders an item's changes (a source that does
    not keep their order); 0 where the sequence number does. `event_id` names the change there, however often it comes.
    """

    event: Event
    key: ItemKey
    old: Image | None
    new: Image | None
    sequence: SequenceNumber
    created_at: float
    by_ttl: bool = False
    partial: bool = False
    micros: int = 0
    event_id: str = ""

    @property
    def rank(self) -> SequenceNumber:
        """What orders the changes of an item and goes into their versions; its place in the shard is another thing."""
        return SequenceNumber(str(self.micros)) if self.micros else self.sequence

    @property
    def before(self) -> Image | None:
        """The old image; of a partial record what is known of it, which is the key."""
        return Image(self.key.wire) if self.partial else self.old

    @property
    def number(self) -> int:
        """The sequence number as the integer it is."""
        return int(self.sequence)


class UnreadRecord(msgspec.Struct, frozen=True):
    """A stream record that cannot be understood, as it came: only its place is known, and why.

    `micros` stands for the time of its change where that would order it: when the source got it.
    """

    sequence: SequenceNumber
    raw: bytes
    why: str
    created_at: float = 0.0
    micros: int = 0

    @property
    def rank(self) -> SequenceNumber:
        """As of a `ChangeRecord`."""
        return SequenceNumber(str(self.micros)) if self.micros else self.sequence

    @property
    def number(self) -> int:
        """The sequence number as the integer it is."""
        return int(self.sequence)

    def __repr__(self) -> str:
        """Place and size only: item values never reach a log."""
        return f"UnreadRecord({self.sequence}, {len(self.raw)} bytes)"


class ForeignRecord(msgspec.Struct, frozen=True):
    """A record of another table on a stream that several tables write to: only its place and its time are of use."""

    sequence: SequenceNumber
    table: str
    created_at: float = 0.0

    @property
    def number(self) -> int:
        """The sequence number as the integer it is."""
        return int(self.sequence)


StreamRecord = ChangeRecord | UnreadRecord | ForeignRecord


def changes(records: Iterable[StreamRecord]) -> list[ChangeRecord]:
    """The records that are understood."""
    return [record for record in records if isinstance(record, ChangeRecord)]


def first_unread(records: Iterable[StreamRecord]) -> UnreadRecord | None:
    """The first record that cannot be understood; nearly always there is none, and every record is asked."""
    for record in records:
        if type(record) is UnreadRecord:  # `isinstance` takes five times as long to say no
            return record
    return None


def sequence_number(text: str) -> SequenceNumber:
    """A sequence number as the source wrote it, or `MalformedRecord`."""
    if not (text.isascii() and text.isdecimal() and len(text) <= SEQUENCE_DIGITS):
        raise MalformedRecord(
            f"Record has the sequence number {text!r}, which is not an integer of at most {SEQUENCE_DIGITS} digits."
        )
    return SequenceNumber(text)


def change_record(  # noqa: PLR0913 - one parameter per field of a stream record
    *,
    event: str,
    key: bytes,
    old: bytes | None,
    new: bytes | None,
    sequence: str,
    created_at: float,
    by_ttl: bool = False,
) -> ChangeRecord:
    """A stream record's parts as a `ChangeRecord`, or `MalformedRecord` with the reason."""
    try:
        kind = Event(event)
    except ValueError as error:
        raise MalformedRecord(f"Record {sequence} has the unknown event {event!r}.") from error
    return consistent(kind, item_key(key), old or b"", new or b"", sequence_number(sequence), created_at, by_ttl)


def consistent(  # noqa: PLR0913, PLR0917 - a stream record's fields in their order: names would cost with each record
    kind: Event,
    key: ItemKey,
    old: bytes,
    new: bytes,
    sequence: SequenceNumber,
    created_at: float,
    by_ttl: bool,  # noqa: FBT001
) -> ChangeRecord:
    """The same of parts that are understood each by itself; an image that was not sent is empty."""
    before = Image(old) if old.startswith(_ITEM) else _present(old, sequence)
    after = Image(new) if new.startswith(_ITEM) else _present(new, sequence)
    if (after is None) != (kind is Event.REMOVE):
        # What the item is now decides what a replica gets, so it must not be guessed.
        raise MalformedRecord(f"Record {sequence} is a {kind.value} but its images do not agree with that.")
    if kind is not Event.REMOVE:
        partial, kind = kind is Event.MODIFY and before is None, Event.INSERT if before is None else Event.MODIFY
    else:
        partial = before is None
    return ChangeRecord(kind, key, before, after, sequence, created_at, by_ttl, partial)


def _present(image: bytes, sequence: SequenceNumber) -> Image | None:
    """What does not begin as an item does: an item after all, or None where a source sends one without attributes."""
    if image.translate(None, _WHITE) in _NO_ITEM:
        return None
    if not image.startswith(b"{"):
        raise MalformedRecord(f"Record {sequence} has an image that is not an item.")
    return Image(image)
