"""The operations of Kinesis Data Streams that readers and operators need, over streams of the laboratory.

As on AWS, what was trimmed is passed over in silence: reading goes on at the oldest record that is left. A shard is
over when its last record was sent; a split or a merge closes the parents, whose records stay.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import count
from random import Random
from typing import Any, Final

import msgspec

from replicator.laboratory.streamlab.counters import Counters, Rate, Reading
from replicator.laboratory.streamlab.fan_out import Consumer, FanOut, Position, Subscription
from replicator.laboratory.streamlab.options import Options
from replicator.laboratory.streamlab.refusals import Refused, ServiceError
from replicator.laboratory.streamlab.relay import Relay, Relays, kinesis_record
from replicator.laboratory.streamlab.service import Token
from replicator.laboratory.streamlab.shard import LabShard
from replicator.laboratory.streamlab.stream import LabStream
from replicator.laboratory.streamlab.tables import LabTable, Scope, Tables

API: Final = "Kinesis_20131202"
_DIGITS: Final = 56
_ITERATOR_SECONDS: Final = 300.0
_MOST_RECORDS, _MOST_BYTES, _MOST_SHARDS = 10_000, 10 * 1024 * 1024, 1000
_BEGINNINGS: Final = frozenset({"TRIM_HORIZON", "AT_SEQUENCE_NUMBER"})


class _Asked(msgspec.Struct):
    """What requests say, all operations together."""

    StreamName: str = ""
    StreamARN: str = ""
    ShardCount: int = 1
    MaxResults: int = _MOST_SHARDS
    ExclusiveStartShardId: str | None = None
    ShardId: str = ""
    ShardIteratorType: str = ""
    StartingSequenceNumber: str | None = None
    Timestamp: float = 0.0
    ShardIterator: str = ""
    Limit: int = _MOST_RECORDS
    ShardToSplit: str = ""
    AdjacentShardToMerge: str = ""
    ShardToMerge: str = ""
    Data: bytes = b""
    PartitionKey: str = ""
    ConsumerName: str = ""
    ConsumerARN: str = ""
    StartingPosition: Position | None = None


@dataclass(slots=True)
class Kinesis:
    """Kinesis Data Streams of every account and region, and the tables' destinations."""

    tables: Tables
    options: Options
    counters: Counters
    random: Random
    fan_out: FanOut
    relays: Relays = field(default_factory=dict)
    _readers: Any = field(default_factory=lambda: count(1))
    _reads: dict[LabShard, Rate] = field(default_factory=lambda: defaultdict(Rate))

    def answer(self, operation: str, body: bytes, consumer: str, scope: Scope) -> tuple[bytes, Reading | None]:
        """One call, and what a read gave."""
        asked = _decoded(body)
        if operation == "GetRecords":
            return self._get_records(asked, consumer, scope)
        operations = {
            "CreateStream": self._create,
            "DeleteStream": self._delete,
            "DescribeStreamSummary": self._summary,
            "ListShards": self._list_shards,
            "GetShardIterator": self._get_shard_iterator,
            "SplitShard": self._split,
            "MergeShards": self._merge,
            "PutRecord": self._put_record,
            "RegisterStreamConsumer": self._register,
            "DescribeStreamConsumer": self._describe_consumer,
            "DeregisterStreamConsumer": self._deregister,
        }
        if operation not in operations:
            raise ServiceError("UnknownOperationException", f"There is no {operation}.")
        answer = operations[operation](asked, scope)
        return msgspec.json.encode(answer) if answer else b"", None  # those without an answer have no body at all

    def _consumer(self, asked: _Asked, scope: Scope) -> Consumer:
        stream = self._found(asked, scope) if asked.StreamARN else None
        return self.fan_out.found(stream, asked.ConsumerName, asked.ConsumerARN)

    def _register(self, asked: _Asked, scope: Scope) -> dict[str, Any]:
        return self.fan_out.register(self._found(asked, scope), asked.ConsumerName)

    def _describe_consumer(self, asked: _Asked, scope: Scope) -> dict[str, Any]:
        return self.fan_out.describe(self._consumer(asked, scope))

    def _deregister(self, asked: _Asked, scope: Scope) -> dict[str, Any]:
        return self.fan_out.deregister(self._consumer(asked, scope))

    def subscribe(self, body: bytes, consumer: str, scope: Scope) -> Subscription:
        """SubscribeToShard."""
        asked = _decoded(body)
        known, begins = self._consumer(asked, scope), asked.StartingPosition or Position()
        shard = known.stream.shards.get(asked.ShardId)
        if shard is None:
            raise ServiceError("ResourceNotFoundException", f"Shard {asked.ShardId} does not exist.")
        asked.ShardIteratorType, asked.Timestamp = begins.Type, begins.Timestamp
        asked.StartingSequenceNumber = begins.SequenceNumber
        return self.fan_out.subscribe(known, shard, _place(shard, asked), begins.Type, consumer)

    # -- streams -------------------------------------------------------------------------------------------------------

    def make(self, name: str, scope: Scope, shards: int = 1) -> LabStream:
        """A new stream."""
        account, region = scope.place
        if self.tables.find(scope, _table(name)) is not None:
            raise ServiceError("ResourceInUseException", f"Stream {name} under account {account} already exists.")
        now = self.tables.clock.now()
        table = self.tables.add(scope, _table(name), None)
        stream = LabStream(
            arn=f"arn:aws:kinesis:{region}:{account}:stream/{name}",
            label=name,
            table=_table(name),
            region=region,
            account=account,
            view="",
            key_schema=[],
            created_at=now,
            random=Random(f"{self.random.random()}/{name}"),  # noqa: S311 - seeded on purpose
            digits=_DIGITS,
        )
        stream.begin(shards, now)
        table.made, table.present = True, stream
        table.streams.append(stream)
        self.tables.by_arn[stream.arn] = (table, stream)
        return stream

    def _found(self, asked: _Asked, scope: Scope) -> LabStream:
        name = asked.StreamName or asked.StreamARN.rpartition(":stream/")[2]
        table = self.tables.find(scope, _table(name))
        if table is None or table.present is None:
            raise ServiceError("ResourceNotFoundException", f"Stream {name} under account {scope.account} not found.")
        return table.present

    def _create(self, asked: _Asked, scope: Scope) -> dict[str, Any]:
        self.make(asked.StreamName, scope, asked.ShardCount)
        return {}

    def _delete(self, asked: _Asked, scope: Scope) -> dict[str, Any]:
        stream = self._found(asked, scope)
        stream.close(self.tables.clock.now())
        del self.tables.by_arn[stream.arn], self.tables.by_name[(*scope.place, stream.table)]
        return {}

    def _summary(self, asked: _Asked, scope: Scope) -> dict[str, Any]:
        stream = self._found(asked, scope)
        return {
            "StreamDescriptionSummary": {
                "StreamName": stream.label,
                "StreamARN": stream.arn,
                "StreamStatus": "ACTIVE",
                "RetentionPeriodHours": int(self.options.retention_seconds // 3600),
                "StreamCreationTimestamp": round(stream.created_at, 3),
                "EnhancedMonitoring": [],
                "OpenShardCount": len(stream.open_shards),
            }
        }

    # -- shards --------------------------------------------------------------------------------------------------------

    def _list_shards(self, asked: _Asked, scope: Scope) -> dict[str, Any]:
        stream, after = self._found(asked, scope), asked.ExclusiveStartShardId
        listed = [shard for shard in stream.shards.values() if after is None or shard.shard_id > after]
        most = min(asked.MaxResults, _MOST_SHARDS, self.options.page_size)
        answer: dict[str, Any] = {"Shards": [_shown(shard) for shard in listed[:most]]}
        if len(listed) > most:
            answer["NextToken"] = listed[most - 1].shard_id
        return answer

    def _split(self, asked: _Asked, scope: Scope) -> dict[str, Any]:
        stream = self._found(asked, scope)
        self._reshard(lambda now: stream.split(stream.shard(asked.ShardToSplit), now))
        return {}

    def _merge(self, asked: _Asked, scope: Scope) -> dict[str, Any]:
        stream = self._found(asked, scope)
        left, right = stream.shard(asked.ShardToMerge), stream.shard(asked.AdjacentShardToMerge)
        self._reshard(lambda now: stream.merge(left, right, now))
        return {}

    def _reshard(self, change: Any) -> None:
        try:
            change(self.tables.clock.now())
        except Refused as error:
            raise ServiceError("InvalidArgumentException", str(error)) from None

    # -- records -------------------------------------------------------------------------------------------------------

    def _put_record(self, asked: _Asked, scope: Scope) -> dict[str, Any]:
        stream = self._found(asked, scope)
        hashed = int(asked.PartitionKey, 16) % (1 << 64)
        shard = kinesis_record(stream, hashed, asked.Data, self.tables.clock.now())
        return {"ShardId": shard.shard_id, "SequenceNumber": str(shard.number)}

    def _get_shard_iterator(self, asked: _Asked, scope: Scope) -> dict[str, Any]:
        stream = self._found(asked, scope)
        shard = stream.shards.get(asked.ShardId)
        if shard is None:
            raise ServiceError("ResourceNotFoundException", f"Shard {asked.ShardId} in stream {stream.label} is none.")
        token = Token(
            arn=stream.arn,
            shard_id=shard.shard_id,
            place=_place(shard, asked),
            issued_at=self.tables.clock.now(),
            reader=next(self._readers),
            from_horizon=asked.ShardIteratorType in _BEGINNINGS,
            empties=self.options.empty_pages,
        )
        return {"ShardIterator": str(token)}

    def _get_records(self, asked: _Asked, consumer: str, scope: Scope) -> tuple[bytes, Reading]:
        token, now = Token.parse(asked.ShardIterator), self.tables.clock.now()
        _, stream = self.tables.by_arn.get(token.arn, (None, None))
        shard = None if stream is None or stream.region != scope.region else stream.shards.get(token.shard_id)
        if stream is None or shard is None:
            raise ServiceError("ResourceNotFoundException", f"Shard {token.shard_id} does not exist.")
        if now - token.issued_at >= _ITERATOR_SECONDS:
            raise ServiceError("ExpiredIteratorException", "Iterator expired; it was used too late.")
        self._admit(shard, now)
        start, empties = max(token.place, shard.trimmed), max(0, token.empties - 1)
        most = 0 if token.empties else min(asked.Limit, _MOST_RECORDS)
        page = shard.page(start, most, _MOST_BYTES) if most else []
        stop = start + len(page)
        ended = not shard.is_open and stop == shard.total
        behind = 0 if stop == shard.total else max(1, round((now - shard.times[stop - shard.trimmed]) * 1000))
        reading = Reading(consumer, stream, shard, token.reader, token.from_horizon, start, stop, ended)
        self.counters.reading(reading)
        parts = [b'{"Records":[', b",".join(page), b'],"MillisBehindLatest":%d' % behind]
        if not ended:
            following = Token(token.arn, token.shard_id, stop, now, token.reader, token.from_horizon, empties)
            parts.append(f',"NextShardIterator":"{following}"'.encode())
        parts.append(b"}")
        return b"".join(parts), reading

    def _admit(self, shard: LabShard, now: float) -> None:
        rate, most = self._reads[shard], self.options.reads_per_second
        if most and rate.would_be(now) >= most:
            raise ServiceError("ProvisionedThroughputExceededException", f"Rate exceeded for shard {shard.shard_id}.")
        if most:
            rate.count(now)

    # -- destinations of tables ----------------------------------------------------------------------------------------

    def destination(self, operation: str, asked: Mapping[str, Any], table: LabTable) -> dict[str, Any]:
        """DynamoDB's operations on the destinations of a table that is known here."""
        name, scope = table.name, table.scope
        if operation == "DescribeKinesisStreamingDestination":
            found = [
                {
                    "StreamArn": relay.stream.arn,
                    "DestinationStatus": relay.status,
                    "ApproximateCreationDateTimePrecision": relay.precision,
                }
                for relay in self.relays.values()
                if (relay.table, relay.region) == (name, scope.region)
            ]
            return {"TableName": name, "KinesisDataStreamDestinations": found}
        stream = self._found(_Asked(StreamARN=str(asked.get("StreamArn", ""))), scope)
        key = (*scope.place, name, stream.arn)
        relay = self.relays.get(key)
        if relay is None or relay.stream is not stream:
            relay = Relay(name, scope.region, stream, self.tables.clock, self.options, Random(self.random.random()))  # noqa: S311
            self.relays[key] = relay
            table.sinks.append(relay.take)
        settings = asked.get("EnableKinesisStreamingConfiguration") or asked.get("UpdateKinesisStreamingConfiguration")
        relay.precision = (settings or {}).get("ApproximateCreationDateTimePrecision", relay.precision)
        relay.status = "DISABLED" if operation.startswith("Disable") else "ACTIVE"
        return {"TableName": name, "StreamArn": stream.arn, "DestinationStatus": relay.status}

    def deliver(self) -> None:
        """Let what is due go out."""
        now = self.tables.clock.now()
        for relay in self.relays.values():
            relay.deliver(now)

    def settle(self) -> None:
        """Let everything go out."""
        for relay in self.relays.values():
            relay.settle()


DESTINATION_OPERATIONS: Final = frozenset(
    f"{verb}KinesisStreamingDestination" for verb in ("Enable", "Disable", "Describe", "Update")
)


def _decoded(body: bytes) -> _Asked:
    try:
        return msgspec.json.decode(body or b"{}", type=_Asked)
    except msgspec.DecodeError as error:
        raise ServiceError("SerializationException", str(error)) from None


def _table(name: str) -> str:
    """Under what the streams of Kinesis stand among the tables: no table is called so."""
    return f"kinesis/{name}"


def _shown(shard: LabShard) -> dict[str, Any]:
    numbers = {"StartingSequenceNumber": str(shard.first)}
    if shard.ending is not None:
        numbers["EndingSequenceNumber"] = str(shard.ending)
    names = ("ParentShardId", "AdjacentParentShardId")
    hashes = {"StartingHashKey": str(shard.low << 64), "EndingHashKey": str((shard.high << 64) - 1)}
    return {
        "ShardId": shard.shard_id,
        "HashKeyRange": hashes,
        "SequenceNumberRange": numbers,
        **dict(zip(names, shard.parents, strict=False)),
    }


def _place(shard: LabShard, asked: _Asked) -> int:
    match asked.ShardIteratorType:
        case "TRIM_HORIZON":
            return shard.trimmed
        case "LATEST":
            return shard.total
        case "AT_TIMESTAMP":
            return shard.trimmed + bisect_left(shard.times, asked.Timestamp)
        case "AT_SEQUENCE_NUMBER" | "AFTER_SEQUENCE_NUMBER" as kind:
            number = asked.StartingSequenceNumber or ""
            if not number.isdecimal() or not shard.first <= int(number) <= shard.number:
                raise ServiceError("InvalidArgumentException", f"StartingSequenceNumber {number} is invalid.")
            place = shard.place_of(int(number), after=kind == "AFTER_SEQUENCE_NUMBER")
            return shard.trimmed if place is None else place
    raise ServiceError("InvalidArgumentException", f"Unknown ShardIteratorType {asked.ShardIteratorType}")
