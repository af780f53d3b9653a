"""Answers of Kinesis parsed into records and shards: strict and total."""

from __future__ import annotations

from typing import Annotated

import msgspec

from replicator.adapters.aws.wire import decoded
from replicator.adapters.kinesis.envelope import Delivered, place_in_stream
from replicator.domain.identifiers import SequenceNumber, ShardId
from replicator.domain.shards.lineage import Shard

_Id = Annotated[str, msgspec.Meta(min_length=1)]


class _Record(msgspec.Struct):
    SequenceNumber: str
    Data: bytes
    ApproximateArrivalTimestamp: float = 0.0


class _Records(msgspec.Struct):
    Records: list[_Record]
    NextShardIterator: str | None = None
    MillisBehindLatest: int | None = None


class _Event(msgspec.Struct):
    Records: list[_Record]
    ContinuationSequenceNumber: str | None = None
    MillisBehindLatest: int | None = None
    ChildShards: list[msgspec.Raw] | None = None


class _Range(msgspec.Struct):
    StartingSequenceNumber: str = ""
    EndingSequenceNumber: str | None = None


class _ListedShard(msgspec.Struct):
    ShardId: _Id
    ParentShardId: str | None = None
    AdjacentParentShardId: str | None = None
    SequenceNumberRange: _Range = msgspec.field(default_factory=_Range)


class _Shards(msgspec.Struct):
    Shards: list[_ListedShard]
    NextToken: str | None = None


_RECORDS, _SHARDS = msgspec.json.Decoder(_Records), msgspec.json.Decoder(_Shards)
_EVENT = msgspec.json.Decoder(_Event)


class Answer(msgspec.Struct, frozen=True):
    """A GetRecords answer. `behind_ms`: how far its end lies behind the shard's newest record; None: not known."""

    records: tuple[Delivered, ...]
    next_iterator: str | None
    behind_ms: int | None


def parse_answer(body: bytes, what: str) -> Answer:
    """A GetRecords answer; `Unreachable` when it is none, `MalformedRecord` when a record has no place."""
    answer = decoded(_RECORDS, body, what)
    return Answer(_delivered(answer.Records), answer.NextShardIterator or None, answer.MillisBehindLatest)


def _delivered(records: list[_Record]) -> tuple[Delivered, ...]:
    return tuple(
        Delivered(place_in_stream(record.SequenceNumber), record.Data, record.ApproximateArrivalTimestamp)
        for record in records
    )


class Pushed(msgspec.Struct, frozen=True):
    """An event of a subscription. `continues`: a number behind which it goes on. `ended`: the shard is over.

    `asks`: nothing came for a while, so the shard is to be asked, too.
    """

    records: tuple[Delivered, ...] = ()
    continues: SequenceNumber | None = None
    behind_ms: int | None = None
    ended: bool = False
    asks: bool = False


def parse_pushed(body: bytes, what: str) -> Pushed:
    """An event of a subscription; errors as of `parse_answer`."""
    event = decoded(_EVENT, body, what)
    number = event.ContinuationSequenceNumber
    return Pushed(
        _delivered(event.Records),
        None if not number else place_in_stream(number),
        event.MillisBehindLatest,
        ended=bool(event.ChildShards) or not number,
    )


def parse_listing(body: bytes, what: str) -> tuple[list[Shard], bool]:
    """A ListShards answer: its shards, and whether more follow."""
    answer = decoded(_SHARDS, body, what)
    return [_shard(listed) for listed in answer.Shards], bool(answer.NextToken)


def _shard(listed: _ListedShard) -> Shard:
    named = dict.fromkeys((listed.ParentShardId, listed.AdjacentParentShardId))
    first = listed.SequenceNumberRange.StartingSequenceNumber
    return Shard(
        shard_id=ShardId(listed.ShardId),
        parents=tuple(ShardId(parent) for parent in named if parent and parent != listed.ShardId),
        closed=bool(listed.SequenceNumberRange.EndingSequenceNumber),
        first=SequenceNumber(first) if first.isascii() and first.isdecimal() else None,
    )
