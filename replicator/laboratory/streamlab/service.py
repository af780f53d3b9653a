"""The four operations of DynamoDB Streams, over the laboratory's streams.

Invariant: an answer is computed at one moment, without waiting, so no two readers ever see different truths; only
`Listing` lies. Iterators carry everything: shard, place, age, and the reader whose chain they belong to.
"""

from __future__ import annotations

from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections import defaultdict
from dataclasses import dataclass, field
from itertools import count
from random import Random
from typing import Any, Final

import msgspec

from replicator.laboratory.streamlab.counters import Counters, Rate, Reading
from replicator.laboratory.streamlab.listing import MOST_SHARDS, Listing
from replicator.laboratory.streamlab.options import Options
from replicator.laboratory.streamlab.refusals import ServiceError
from replicator.laboratory.streamlab.shard import LabShard
from replicator.laboratory.streamlab.stream import LabStream
from replicator.laboratory.streamlab.tables import Tables

_MOST_STREAMS: Final = 100


class _ListStreams(msgspec.Struct):
    TableName: str | None = None
    Limit: int = _MOST_STREAMS
    ExclusiveStartStreamArn: str | None = None


class _DescribeStream(msgspec.Struct):
    StreamArn: str
    Limit: int = MOST_SHARDS
    ExclusiveStartShardId: str | None = None
    ShardFilter: dict[str, str] | None = None


class _GetShardIterator(msgspec.Struct):
    StreamArn: str
    ShardId: str
    ShardIteratorType: str
    SequenceNumber: str | None = None


class _GetRecords(msgspec.Struct):
    ShardIterator: str
    Limit: int = 1000


@dataclass(frozen=True, slots=True)
class Caller:
    """The caller: access key and region of the signature, and the path of its endpoint URL."""

    access_key: str
    region: str
    consumer: str


@dataclass(frozen=True, slots=True)
class Token:
    """What an iterator says."""

    arn: str
    shard_id: str
    place: int
    issued_at: float
    reader: int
    from_horizon: bool
    empties: int

    def __str__(self) -> str:
        """As text for consumers; it looks like AWS's."""
        inner = f"{self.shard_id} {self.place} {self.issued_at:.3f} {self.reader} {self.from_horizon:d} {self.empties}"
        return f"{self.arn}|1|{urlsafe_b64encode(inner.encode()).decode()}"

    @classmethod
    def parse(cls, text: str) -> Token:
        """An iterator that this laboratory gave out."""
        try:
            arn, _, inner = text.split("|")
            shard_id, place, issued_at, reader, horizon, empties = urlsafe_b64decode(inner).decode().split(" ")
            return cls(arn, shard_id, int(place), float(issued_at), int(reader), horizon == "1", int(empties))
        except ValueError:
            raise ServiceError("ValidationException", "Invalid ShardIterator") from None


@dataclass(slots=True)
class Service:
    """DynamoDB Streams."""

    tables: Tables
    options: Options
    listing: Listing
    counters: Counters
    random: Random
    _readers: Any = field(default_factory=lambda: count(1))
    _describes: dict[str, Rate] = field(default_factory=lambda: defaultdict(Rate))
    _reads: dict[LabShard, Rate] = field(default_factory=lambda: defaultdict(Rate))

    def list_streams(self, body: bytes, account: str, region: str) -> bytes:
        """ListStreams: of one table or of all that are known."""
        asked = _decoded(body, _ListStreams)
        arns = sorted(
            stream.arn
            for stream in self.tables.streams()
            if stream.region == region
            and stream.account == account
            and stream.arn.startswith("arn:aws:dynamodb:")
            and asked.TableName in {None, stream.table}
        )
        found = [arn for arn in arns if asked.ExclusiveStartStreamArn is None or arn > asked.ExclusiveStartStreamArn]
        page = [self.tables.by_arn[arn][1] for arn in found[: max(1, min(asked.Limit, _MOST_STREAMS))]]
        answer: dict[str, Any] = {
            "Streams": [
                {"StreamArn": stream.arn, "TableName": stream.table, "StreamLabel": stream.label} for stream in page
            ]
        }
        if len(found) > len(page):
            answer["LastEvaluatedStreamArn"] = page[-1].arn
        return msgspec.json.encode(answer)

    def describe_stream(self, body: bytes, caller: Caller) -> bytes:
        """DescribeStream: one page of shards, or the children of one."""
        asked = _decoded(body, _DescribeStream)
        stream = self._stream(asked.StreamArn, caller)
        now = self.tables.clock.now()
        rate, most = self._describes[stream.arn], self.options.describes_per_second
        if most and rate.would_be(now) >= most:
            raise ServiceError("LimitExceededException", f"DescribeStream is called more than {most} times a second.")
        rate.count(now)
        parent = self.listing.filtered(asked.ShardFilter)
        shards, last = self.listing.page(stream, asked.ExclusiveStartShardId, asked.Limit, parent, now)
        description = {
            "StreamArn": stream.arn,
            "StreamLabel": stream.label,
            "StreamStatus": "ENABLED" if stream.closed_at is None else "DISABLED",
            "StreamViewType": stream.view,
            "CreationRequestDateTime": round(stream.created_at, 3),
            "TableName": stream.table,
            "KeySchema": stream.key_schema,
            "Shards": shards,
        }
        if last is not None:
            description["LastEvaluatedShardId"] = last
        return msgspec.json.encode({"StreamDescription": description})

    def get_shard_iterator(self, body: bytes, caller: Caller) -> bytes:
        """GetShardIterator: the beginning of a reader's chain."""
        asked = _decoded(body, _GetShardIterator)
        stream = self._stream(asked.StreamArn, caller)
        shard = stream.shards.get(asked.ShardId)
        if shard is None:
            raise _no_shard()
        token = Token(
            arn=stream.arn,
            shard_id=shard.shard_id,
            place=_place(shard, asked),
            issued_at=self.tables.clock.now(),
            reader=next(self._readers),
            from_horizon=asked.ShardIteratorType in {"TRIM_HORIZON", "AT_SEQUENCE_NUMBER"},
            empties=self.options.empty_pages,
        )
        return msgspec.json.encode({"ShardIterator": str(token)})

    def get_records(self, body: bytes, caller: Caller) -> tuple[bytes, Reading]:
        """GetRecords: one page; the `Reading` is to be counted as gone out when it was sent."""
        asked = _decoded(body, _GetRecords)
        token = Token.parse(asked.ShardIterator)
        stream, now = self._stream(token.arn, caller), self.tables.clock.now()
        if now - token.issued_at >= self.options.iterator_seconds:
            raise ServiceError("ExpiredIteratorException", "Iterator expired; it was used too late.")
        shard = stream.shards.get(token.shard_id)
        if shard is None:
            raise _no_shard()
        if token.place < shard.trimmed:
            raise _trimmed()
        self._admit(shard, now)
        page, token = self._page(shard, token, asked.Limit)
        stop = token.place + len(page)
        ended = not shard.is_open and stop == shard.total and not (page and self.options.last_page == "empty")
        reading = Reading(caller.consumer, stream, shard, token.reader, token.from_horizon, token.place, stop, ended)
        self.counters.reading(reading)
        parts = [b'{"Records":[', b",".join(page), b"]"]
        if not ended:
            following = Token(token.arn, token.shard_id, stop, now, token.reader, token.from_horizon, token.empties)
            parts.append(f',"NextShardIterator":"{following}"'.encode())
        parts.append(b"}")
        return b"".join(parts), reading

    def _page(self, shard: LabShard, token: Token, limit: int) -> tuple[list[bytes], Token]:
        if not 1 <= limit <= 1000:  # noqa: PLR2004 - the service's bounds
            raise ServiceError("ValidationException", f"Value '{limit}' at 'limit' must lie between 1 and 1000")
        if token.empties > 0:
            fewer = token.empties - 1
            return [], Token(
                token.arn, token.shard_id, token.place, token.issued_at, token.reader, token.from_horizon, fewer
            )
        page = shard.page(token.place, min(limit, self.options.most_records), self.options.most_bytes)
        if page and self.options.empty_page_rate and self.random.random() < self.options.empty_page_rate:
            return [], token
        return page, token

    def _admit(self, shard: LabShard, now: float) -> None:
        most = self.options.reads_per_second
        if not most:
            return
        rate = self._reads[shard]
        if rate.would_be(now) >= most:
            raise ServiceError(
                "ProvisionedThroughputExceededException", f"A shard is read more than {most} times a second."
            )
        rate.count(now)

    def _stream(self, arn: str, caller: Caller) -> LabStream:
        known = self.tables.by_arn.get(arn)
        if known is None or known[1].region != caller.region:
            raise ServiceError("ResourceNotFoundException", f"Requested resource not found: Stream: {arn} not found")
        return known[1]


def _decoded(body: bytes, kind: Any) -> Any:
    try:
        return msgspec.json.decode(body or b"{}", type=kind)
    except msgspec.ValidationError as error:
        raise ServiceError("ValidationException", str(error)) from None
    except msgspec.DecodeError as error:
        raise ServiceError("SerializationException", str(error)) from None


def _place(shard: LabShard, asked: _GetShardIterator) -> int:
    match asked.ShardIteratorType:
        case "TRIM_HORIZON":
            return shard.trimmed
        case "LATEST":
            return shard.total
        case "AT_SEQUENCE_NUMBER" | "AFTER_SEQUENCE_NUMBER" as kind:
            number = asked.SequenceNumber or ""
            if not number.isdecimal():
                raise ServiceError("ValidationException", "Invalid SequenceNumber")
            if not shard.first <= int(number) <= shard.number:
                raise ServiceError("ValidationException", f"SequenceNumber {number} is not one of this shard")
            place = shard.place_of(int(number), after=kind == "AFTER_SEQUENCE_NUMBER")
            if place is None:
                raise _trimmed()
            return place
    raise ServiceError("ValidationException", f"Unknown ShardIteratorType {asked.ShardIteratorType}")


def _trimmed() -> ServiceError:
    said = "The operation attempted to read past the oldest stream record in a shard."
    return ServiceError("TrimmedDataAccessException", said)


def _no_shard() -> ServiceError:
    return ServiceError("ResourceNotFoundException", "Requested resource not found: Shard does not exist")
