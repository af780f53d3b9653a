"""Changes of items as DynamoDB sends them to a Kinesis stream: strict and total, as the same records as from DynamoDB.

Three things differ from DynamoDB Streams. A stream may carry the changes of several tables; binary values are base64
twice; and records come in any order and more than once, so that their creation time orders the changes of an item.
Invariant: a change gives the record that DynamoDB Streams gives of it, but for its place and its time.
"""

from __future__ import annotations

import binascii
from collections.abc import Mapping
from typing import Any

import msgspec

from replicator.domain.errors import MalformedRecord
from replicator.domain.identifiers import SequenceNumber
from replicator.domain.records import (
    ChangeRecord,
    Event,
    ForeignRecord,
    StreamRecord,
    UnreadRecord,
    consistent,
    item_key,
)

_TTL_PRINCIPAL = "dynamodb.amazonaws.com"
_SOURCE = "aws:dynamodb"
LONGEST_SEQUENCE = 64
_MICROS = 1_000_000
_MOST_DEPTH = 64
"""DynamoDB nests 32 levels of lists and maps."""

_UNITS = {10: _MICROS, 13: 1000, 16: 1}
"""Microseconds in what a creation time counts, by its digits: seconds (emulators), milliseconds, microseconds."""

_MARKED = {"MILLISECOND": 13, "MICROSECOND": 16}
"""Digits of a creation time by the precision that is named beside it."""


class _Change(msgspec.Struct):
    Keys: msgspec.Raw
    ApproximateCreationDateTime: int
    ApproximateCreationDateTimePrecision: str | None = None
    NewImage: msgspec.Raw = msgspec.Raw()
    OldImage: msgspec.Raw = msgspec.Raw()


class _Identity(msgspec.Struct):
    PrincipalId: str = ""
    principalId: str = ""  # noqa: N815 - the wire's name


class _Envelope(msgspec.Struct):
    eventName: str  # noqa: N815 - the wire's name
    tableName: str  # noqa: N815 - the wire's name
    dynamodb: _Change
    eventID: str = ""  # noqa: N815 - the wire's name
    eventSource: str = _SOURCE  # noqa: N815 - the wire's name
    userIdentity: _Identity | None = None  # noqa: N815 - the wire's name


class _Named(msgspec.Struct):
    """The least of a change: whose it is."""

    tableName: str  # noqa: N815 - the wire's name


_ENVELOPE, _NAMED = msgspec.json.Decoder(_Envelope), msgspec.json.Decoder(_Named)
_ITEM = msgspec.json.Decoder(dict[str, dict[str, Any]])
_ENCODE = msgspec.json.Encoder().encode


class Delivered(msgspec.Struct, frozen=True):
    """A record of a Kinesis stream: its place there, what it holds, and when it came there (seconds since 1970)."""

    sequence: SequenceNumber
    data: bytes
    arrived_at: float = 0.0


class _Kept(msgspec.Struct):
    """A record that cannot be understood, as it is kept: with all that its reading takes."""

    kinesis: str
    table: str
    arrived_at: float
    data: bytes


_KEPT = msgspec.json.Decoder(_Kept)


def place_in_stream(text: str) -> SequenceNumber:
    """A sequence number as Kinesis wrote it (56 digits), or `MalformedRecord`."""
    if not (text.isascii() and text.isdecimal() and len(text) <= LONGEST_SEQUENCE):
        raise MalformedRecord(f"A record of Kinesis has the sequence number {text[:80]!r}, which is not an integer.")
    return SequenceNumber(text)


def parse_change(delivered: Delivered, table: str) -> StreamRecord:
    """What a record of a stream says of a table; one that cannot be understood is there as it came.

    One that does not even name a table may be a change of this one, so it is not passed over.
    """
    try:
        return _record(delivered, _ENVELOPE.decode(delivered.data), table)
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        if (name := _table_of(delivered.data)) not in {None, table}:
            return ForeignRecord(delivered.sequence, str(name), delivered.arrived_at)
        why = f"A record is not a change as DynamoDB sends it to Kinesis ({error})."
    except MalformedRecord as error:
        why = error.message
    kept = _Kept(delivered.sequence, table, delivered.arrived_at, delivered.data)
    micros = round(delivered.arrived_at * _MICROS)
    return UnreadRecord(delivered.sequence, _ENCODE(kept), why, delivered.arrived_at, micros)


def parse_kept(raw: bytes) -> StreamRecord | None:
    """A record as `UnreadRecord.raw` keeps one of Kinesis; None when it is not one of Kinesis."""
    try:
        kept = _KEPT.decode(raw)
    except (msgspec.DecodeError, ValueError):
        return None
    return parse_change(Delivered(SequenceNumber(kept.kinesis), kept.data, kept.arrived_at), kept.table)


def _table_of(data: bytes) -> str | None:
    try:
        return _NAMED.decode(data).tableName
    except (msgspec.DecodeError, ValueError, RecursionError):
        return None


def _record(delivered: Delivered, envelope: _Envelope, table: str) -> ChangeRecord | ForeignRecord:
    change, identity = envelope.dynamodb, envelope.userIdentity
    if envelope.tableName != table:
        return ForeignRecord(delivered.sequence, envelope.tableName, delivered.arrived_at)
    if envelope.eventSource != _SOURCE:
        raise MalformedRecord(f"A record has the event source {envelope.eventSource[:80]!r}, not {_SOURCE}.")
    micros = creation_micros(change.ApproximateCreationDateTime, change.ApproximateCreationDateTimePrecision)
    try:
        kind = Event(envelope.eventName)
    except ValueError as error:
        raise MalformedRecord(f"A record has the unknown event {envelope.eventName[:80]!r}.") from error
    record = consistent(
        kind,
        item_key(once_decoded(bytes(change.Keys))),
        once_decoded(bytes(change.OldImage)),
        once_decoded(bytes(change.NewImage)),
        delivered.sequence,
        micros / _MICROS,
        identity is not None and _TTL_PRINCIPAL in (identity.PrincipalId, identity.principalId),
    )
    return msgspec.structs.replace(record, micros=micros, event_id=envelope.eventID)


def creation_micros(time: int, precision: str | None) -> int:
    """A creation time in microseconds since 1970, by the precision beside it, or by its digits where none is named."""
    digits = len(str(time))
    if time <= 0 or digits not in _UNITS:
        raise MalformedRecord(f"A change has the creation time {time}, which counts no unit of time that is known.")
    if precision is not None and _MARKED.get(precision) != digits:
        raise MalformedRecord(f"A change has the creation time {time}, which is not in unit {precision[:80]!r}.")
    return time * _UNITS[digits]


def once_decoded(item: bytes) -> bytes:
    """An item whose binary values are base64 twice with the same values base64 once; all else stays as it came."""
    if b'"B' not in item:
        return item
    try:
        return _ENCODE({name: _value(typed, _MOST_DEPTH) for name, typed in _ITEM.decode(item).items()})
    except (TypeError, AttributeError) as error:
        raise MalformedRecord("A change has an image that is not an item.") from error


def _value(typed: Mapping[str, Any], depth: int) -> dict[str, Any]:
    """A typed value, with the binary ones in it decoded once."""
    if depth == 0:
        raise MalformedRecord("A change has an image that is nested deeper than an item can be.")
    return {kind: _plain(kind, value, depth - 1) for kind, value in typed.items()}


def _plain(kind: str, value: Any, depth: int) -> Any:
    if kind == "B":
        return _base64(value)
    if kind == "BS":
        return [_base64(each) for each in value]
    if kind == "L":
        return [_value(each, depth) for each in value]
    if kind == "M":
        return {name: _value(each, depth) for name, each in value.items()}
    return value


def _base64(text: str) -> str:
    """A value that is base64 twice, base64 once."""
    try:
        inner = binascii.a2b_base64(text.encode(), strict_mode=True)
        binascii.a2b_base64(inner, strict_mode=True)
        return inner.decode()
    except (binascii.Error, UnicodeDecodeError) as error:
        raise MalformedRecord("A change has a binary value that is not base64 twice.") from error
