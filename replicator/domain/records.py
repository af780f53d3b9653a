"""Change records: one write to one item, as a stream holds it.

Invariant: a `ChangeRecord` is complete and consistent (event and images agree, the key is known), or it does not exist:
`change_record` is total and strict.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import sha256

import msgspec

from replicator.domain.errors import MalformedRecord
from replicator.domain.identifiers import SequenceNumber
from replicator.domain.image import Image
from replicator.domain.versions import SEQUENCE_DIGITS

_LONGEST_SIDE_KEY = 1024
_ENCODE = msgspec.json.Encoder().encode
_KEY_TYPES = frozenset("SNB")
_WHITE = b" \t\r\n"
_NO_ITEM = frozenset({b"", b"{}", b"null"})
_KEY = msgspec.json.Decoder(dict[str, dict[str, str]])


class Event(enum.Enum):
    """What a record says happened to the item."""

    INSERT = "INSERT"
    MODIFY = "MODIFY"
    REMOVE = "REMOVE"


@dataclass(frozen=True, slots=True)
class ItemKey:
    """The primary key of an item: (attribute name, type, value) per key attribute, sorted by name."""

    parts: tuple[tuple[str, str, str], ...]

    @property
    def names(self) -> tuple[str, ...]:
        """The key attributes' names, sorted."""
        return tuple(name for name, _, _ in self.parts)

    @property
    def wire(self) -> bytes:
        """DynamoDB JSON of the key."""
        return _ENCODE({name: {kind: value} for name, kind, value in self.parts})

    @property
    def shown(self) -> str:
        """The key for people: `pk=a, sk=1`."""
        return ", ".join(f"{name}={value}" for name, _, value in self.parts)

    def side_key(self, table: str) -> str:
        """Key of this item's side row: table and canonical key; long keys by their digest, to fit DynamoDB's bound."""
        text = f"{table}|{_ENCODE(self.parts).decode()}"
        if len(text.encode()) <= _LONGEST_SIDE_KEY:
            return text
        return f"{table}|sha256:{sha256(text.encode()).hexdigest()}"


def item_key(wire: bytes) -> ItemKey:
    """The key from its DynamoDB JSON; equal keys give equal values, however they were written."""
    try:
        decoded = _KEY.decode(wire)
        parts = tuple((name, *_only(typed)) for name, typed in sorted(decoded.items()))
    except (msgspec.DecodeError, ValueError) as error:
        raise MalformedRecord(f"A key is not DynamoDB JSON ({error}).") from error
    if not parts or any(kind not in _KEY_TYPES for _, kind, _ in parts):
        raise MalformedRecord("A key has no attribute, or one that is neither S, N nor B.")
    return ItemKey(parts)


def _only(typed: dict[str, str]) -> tuple[str, str]:
    ((kind, value),) = typed.items()
    return kind, value


@dataclass(frozen=True, slots=True)
class ChangeRecord:
    """One stream record. `created_at` is in whole seconds since 1970, rounded down by the source.

    `event` is what the images tell. `partial`: the source said that there was an item before, and sent no image of it.
    """

    event: Event
    key: ItemKey
    old: Image | None
    new: Image | None
    sequence: SequenceNumber
    created_at: float
    by_ttl: bool = False
    partial: bool = False

    @property
    def before(self) -> Image | None:
        """The old image; of a partial record what is known of it, which is the key."""
        return Image(self.key.wire) if self.partial else self.old

    @property
    def number(self) -> int:
        """The sequence number as the integer it is."""
        return int(self.sequence)


@dataclass(frozen=True, slots=True)
class UnreadRecord:
    """A stream record that cannot be understood, as it came: only its place is known, and why."""

    sequence: SequenceNumber
    raw: bytes
    why: str
    created_at: float = 0.0

    @property
    def number(self) -> int:
        """The sequence number as the integer it is."""
        return int(self.sequence)

    def __repr__(self) -> str:
        """Place and size only: item values never reach a log."""
        return f"UnreadRecord({self.sequence}, {len(self.raw)} bytes)"


StreamRecord = ChangeRecord | UnreadRecord


def changes(records: Iterable[StreamRecord]) -> list[ChangeRecord]:
    """The records that are understood."""
    return [record for record in records if isinstance(record, ChangeRecord)]


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
    number = sequence_number(sequence)
    old, new = _present(old), _present(new)
    if (new is None) != (kind is Event.REMOVE):
        # What the item is now decides what a replica gets, so it must not be guessed.
        raise MalformedRecord(f"Record {sequence} is a {event} but its images do not agree with that.")
    if any(image is not None and not image.startswith(b"{") for image in (old, new)):
        raise MalformedRecord(f"Record {sequence} has an image that is not an item.")
    if kind is not Event.REMOVE:
        partial, kind = kind is Event.MODIFY and old is None, Event.INSERT if old is None else Event.MODIFY
    else:
        partial = old is None
    return ChangeRecord(
        event=kind,
        key=item_key(key),
        old=None if old is None else Image(old),
        new=None if new is None else Image(new),
        sequence=number,
        created_at=created_at,
        by_ttl=by_ttl,
        partial=partial,
    )


def _present(image: bytes | None) -> bytes | None:
    """An image, or None where a source sends one without attributes: every item has its key."""
    return None if image is None or image.translate(None, _WHITE) in _NO_ITEM else image
