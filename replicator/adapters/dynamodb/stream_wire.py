"""Answers of DynamoDB Streams parsed into records and shards: strict and total, images as untouched bytes."""

from __future__ import annotations

from typing import Annotated

import msgspec

from replicator.adapters.aws.wire import decoded
from replicator.domain.errors import MalformedRecord
from replicator.domain.identifiers import SequenceNumber, ShardId
from replicator.domain.records import (
    ChangeRecord,
    Event,
    StreamRecord,
    UnreadRecord,
    change_record,
    consistent,
    key_of,
    sequence_number,
)
from replicator.domain.shards.lineage import Shard
from replicator.ports.sources import RecordPage, ShardPage

_TTL_PRINCIPAL = "dynamodb.amazonaws.com"


class _Identity(msgspec.Struct):
    """The maker of a change. The service's model and its documentation spell the names differently; both are read."""

    PrincipalId: str = ""
    principalId: str = ""  # noqa: N815 - the wire's name


class _Change(msgspec.Struct, gc=False):
    Keys: dict[str, dict[str, str]]
    SequenceNumber: str
    ApproximateCreationDateTime: float = 0.0
    NewImage: msgspec.Raw = msgspec.Raw()
    OldImage: msgspec.Raw = msgspec.Raw()


class _Record(msgspec.Struct, gc=False):
    eventName: Event  # noqa: N815 - the wire's name
    dynamodb: _Change
    userIdentity: _Identity | None = None  # noqa: N815 - the wire's name


class _Records(msgspec.Struct):
    Records: list[_Record]
    NextShardIterator: str | None = None


class _DoubtfulChange(msgspec.Struct):
    """A change whose parts are judged one by one, so that what is wrong can be said."""

    Keys: msgspec.Raw
    SequenceNumber: str
    ApproximateCreationDateTime: float = 0.0
    NewImage: msgspec.Raw = msgspec.Raw()
    OldImage: msgspec.Raw = msgspec.Raw()


class _DoubtfulRecord(msgspec.Struct):
    eventName: str  # noqa: N815 - the wire's name
    dynamodb: _DoubtfulChange
    userIdentity: _Identity | None = None  # noqa: N815 - the wire's name


class _Envelope(msgspec.Struct):
    """The least that makes an answer one of GetRecords: without records it would read as the end of a shard."""

    Records: list[msgspec.Raw]
    NextShardIterator: str | None = None


class _Where(msgspec.Struct):
    SequenceNumber: str


class _Placed(msgspec.Struct):
    """The least of a record: its place in the shard."""

    dynamodb: _Where


_RECORDS, _ENVELOPE = msgspec.json.Decoder(_Records), msgspec.json.Decoder(_Envelope)
_RECORD, _PLACED = msgspec.json.Decoder(_DoubtfulRecord), msgspec.json.Decoder(_Placed)


def parse_records(body: bytes, what: str, at: float | None = None) -> RecordPage:
    """A GetRecords answer as records with opaque images; one that cannot be understood is there as it came.

    `at`: the server's time of it. `Unreachable` when it is not such an answer at all, `MalformedRecord` when not even
    the place of a record is known.
    """
    try:
        answer = _RECORDS.decode(body)
        return RecordPage(tuple([_record(record) for record in answer.Records]), answer.NextShardIterator or None, at)
    except (msgspec.DecodeError, ValueError, MalformedRecord):
        envelope = decoded(_ENVELOPE, body, what)
        return RecordPage(tuple(_read(raw) for raw in envelope.Records), envelope.NextShardIterator or None, at)


def parse_record(raw: bytes) -> StreamRecord:
    """One record of such an answer."""
    return _read(msgspec.Raw(raw))


def _read(raw: msgspec.Raw) -> StreamRecord:
    try:
        return _judged(_RECORD.decode(raw))
    except (msgspec.DecodeError, ValueError) as error:
        why = f"A record is not what DynamoDB Streams sends ({error})."
    except MalformedRecord as error:
        why = error.message
    try:
        sequence = sequence_number(_PLACED.decode(raw).dynamodb.SequenceNumber)
    except (msgspec.DecodeError, ValueError) as error:
        raise MalformedRecord(why) from error
    return UnreadRecord(sequence, bytes(raw), why)


def _record(record: _Record) -> ChangeRecord:
    """A record whose parts are what they should be.

    Images are copied, since a slice would keep the page in memory; `bytes` does the same in twice the time.
    """
    change, identity = record.dynamodb, record.userIdentity
    return consistent(
        record.eventName,
        key_of(change.Keys),
        b"" + change.OldImage,
        b"" + change.NewImage,
        sequence_number(change.SequenceNumber),
        change.ApproximateCreationDateTime,
        identity is not None and _TTL_PRINCIPAL in (identity.PrincipalId, identity.principalId),
    )


def _judged(record: _DoubtfulRecord) -> ChangeRecord:
    change, identity = record.dynamodb, record.userIdentity
    return change_record(
        event=record.eventName,
        key=bytes(change.Keys),
        old=bytes(change.OldImage),
        new=bytes(change.NewImage),
        sequence=change.SequenceNumber,
        created_at=change.ApproximateCreationDateTime,
        by_ttl=identity is not None and _TTL_PRINCIPAL in (identity.PrincipalId, identity.principalId),
    )


_Id = Annotated[str, msgspec.Meta(min_length=1)]


class _Range(msgspec.Struct):
    StartingSequenceNumber: str | None = None
    EndingSequenceNumber: str | None = None


class _ListedShard(msgspec.Struct):
    """A shard; after a merge some endpoints name a second parent, which the client's own parser would drop."""

    ShardId: _Id
    ParentShardId: str | None = None
    AdjacentParentShardId: str | None = None
    SequenceNumberRange: _Range = msgspec.field(default_factory=_Range)


class _Description(msgspec.Struct):
    """Without shards it would read as a stream that lost them all."""

    StreamArn: _Id
    Shards: list[_ListedShard]
    LastEvaluatedShardId: str | None = None


class _DescribedStream(msgspec.Struct):
    StreamDescription: _Description


_DESCRIBED = msgspec.json.Decoder(_DescribedStream)


def parse_shards(body: bytes, what: str) -> ShardPage:
    """A DescribeStream answer as one page of a listing; `Unreachable` when it is not such an answer."""
    described = decoded(_DESCRIBED, body, what).StreamDescription
    last = described.LastEvaluatedShardId
    return ShardPage(tuple(_shard(shard) for shard in described.Shards), ShardId(last) if last else None)


def _shard(listed: _ListedShard) -> Shard:
    named = dict.fromkeys((listed.ParentShardId, listed.AdjacentParentShardId))
    first = listed.SequenceNumberRange.StartingSequenceNumber or ""
    return Shard(
        shard_id=ShardId(listed.ShardId),
        parents=tuple(ShardId(parent) for parent in named if parent and parent != listed.ShardId),
        closed=bool(listed.SequenceNumberRange.EndingSequenceNumber),
        first=SequenceNumber(first) if first.isascii() and first.isdecimal() else None,
    )
