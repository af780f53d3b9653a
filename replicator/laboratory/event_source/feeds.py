"""What a mapping reads: a table's stream or a Kinesis stream, and how a record of it stands in an event."""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from replicator.adapters.aws.errors import CLIENT_ERRORS, translate
from replicator.adapters.dynamodb.streams import DynamoStreams, whole_listing
from replicator.adapters.kinesis.streams import KinesisStreams, kinesis_arn
from replicator.domain.identifiers import SequenceNumber, ShardId
from replicator.domain.progress import HORIZON, after
from replicator.domain.records import ChangeRecord, StreamRecord, UnreadRecord

if TYPE_CHECKING:
    from replicator.adapters.aws.clients import Place
    from replicator.domain.shards.leases import StreamRef
    from replicator.domain.shards.lineage import Shard

_PAGE = 1000
_TTL = {"type": "Service", "principalId": "dynamodb.amazonaws.com"}


@dataclass(frozen=True, slots=True)
class Fed:
    """A record of a stream. `lane`: what of it decides on its lane; `event`: how it stands in an event."""

    sequence: str
    created_at: float
    lane: bytes
    event: dict[str, Any]
    size: int
    """Bytes of it in an invocation."""

    @classmethod
    def of(cls, sequence: str, created_at: float, lane: bytes, event: dict[str, Any]) -> Fed:
        """A record whose size is not known."""
        return cls(sequence, created_at, lane, event, len(json.dumps(event)) + len(", "))


class Feed(Protocol):
    """A stream as a mapping reads it."""

    @property
    def arn(self) -> str:
        """The event source."""

    async def shards(self) -> list[Shard]:
        """Every shard that is listed."""

    async def iterator(self, shard: ShardId, behind: str | None) -> str:
        """Where to read behind a record; None: from the oldest on."""

    async def read(self, iterator: str) -> tuple[list[Fed], str | None]:
        """Some records, and where to go on; None at the end of a shard."""


class TableFeed:
    """The stream of a table."""

    def __init__(self, streams: DynamoStreams, stream: StreamRef, aws_region: str) -> None:
        self._streams = streams
        self._stream = stream
        self._aws_region = aws_region

    @property
    def arn(self) -> str:
        """The stream's."""
        return self._stream.arn

    async def shards(self) -> list[Shard]:
        """Every shard that is listed."""
        return await whole_listing(self._streams, self._stream)

    async def iterator(self, shard: ShardId, behind: str | None) -> str:
        """Where to read behind a record."""
        place = HORIZON if behind is None else after(SequenceNumber(behind))
        return await self._streams.iterator(self._stream, shard, place)

    async def read(self, iterator: str) -> tuple[list[Fed], str | None]:
        """One page."""
        page = await self._streams.read(iterator, _PAGE)
        return [self._fed(record) for record in page.records], page.next_iterator

    def _fed(self, record: StreamRecord) -> Fed:
        key = record.key.wire if isinstance(record, ChangeRecord) else b""
        return Fed.of(record.sequence, record.created_at, key, event_of(record, self._stream.arn, self._aws_region))


class KinesisFeed:
    """A Kinesis stream, whatever tables send their changes there."""

    def __init__(self, place: Place, streams: KinesisStreams, stream: StreamRef) -> None:
        self._place = place
        self._streams = streams
        self._stream = stream

    @property
    def arn(self) -> str:
        """The Kinesis stream's."""
        return kinesis_arn(self._stream)

    async def shards(self) -> list[Shard]:
        """Every shard that is listed."""
        return await whole_listing(self._streams, self._stream)

    async def iterator(self, shard: ShardId, behind: str | None) -> str:
        """Where to read behind a record."""
        begins: dict[str, Any] = {"ShardIteratorType": "TRIM_HORIZON"}
        if behind is not None:
            begins = {"ShardIteratorType": "AFTER_SEQUENCE_NUMBER", "StartingSequenceNumber": behind}
        client, _ = await self._place.kinesis.opened()
        try:
            answer = await client.get_shard_iterator(StreamName=self._stream.kinesis, ShardId=shard, **begins)
        except CLIENT_ERRORS as error:
            raise translate(error, f"GetShardIterator on {self.arn}") from error
        return f"{shard}|{answer['ShardIterator']}"

    async def read(self, iterator: str) -> tuple[list[Fed], str | None]:
        """One page."""
        shard, _, inner = iterator.partition("|")
        client, _ = await self._place.kinesis.opened()
        try:
            answer = await client.get_records(ShardIterator=inner, Limit=_PAGE)
        except CLIENT_ERRORS as error:
            raise translate(error, f"GetRecords on {self.arn}") from error
        following = answer.get("NextShardIterator")
        return [self._fed(shard, each) for each in answer["Records"]], following and f"{shard}|{following}"

    def _fed(self, shard: str, record: Any) -> Fed:
        arrived_at = record["ApproximateArrivalTimestamp"].timestamp()
        kinesis = {
            "kinesisSchemaVersion": "1.0",
            "partitionKey": record["PartitionKey"],
            "sequenceNumber": record["SequenceNumber"],
            "data": base64.b64encode(record["Data"]).decode(),
            "approximateArrivalTimestamp": arrived_at,
        }
        event = {
            "kinesis": kinesis,
            "eventSource": "aws:kinesis",
            "eventVersion": "1.0",
            "eventID": f"{shard}:{record['SequenceNumber']}",
            "eventName": "aws:kinesis:record",
            "awsRegion": self._place.settings.region,
            "eventSourceARN": self.arn,
        }
        return Fed.of(record["SequenceNumber"], arrived_at, record["PartitionKey"].encode(), event)


def event_of(record: StreamRecord, arn: str, aws_region: str) -> dict[str, Any]:
    """A record of a table's stream as it stands in an event; times are exact to the second, as the stream's are."""
    head = {"eventSource": "aws:dynamodb", "eventSourceARN": arn, "awsRegion": aws_region, "eventVersion": "1.1"}
    head["eventID"] = base64.b16encode(record.sequence.encode()).decode().lower()[:32]
    if not isinstance(record, ChangeRecord):
        assert isinstance(record, UnreadRecord), "streams of tables hold no others"
        raw: dict[str, Any] = json.loads(record.raw)
        return raw | head
    images = {"NewImage": record.new, "OldImage": record.old}
    change: dict[str, Any] = {name: json.loads(image.wire) for name, image in images.items() if image is not None}
    change["Keys"] = json.loads(record.key.wire)
    change |= {"SequenceNumber": record.sequence, "StreamViewType": "NEW_AND_OLD_IMAGES"}
    change["ApproximateCreationDateTime"] = record.created_at
    made_by = {"userIdentity": _TTL} if record.by_ttl else {}
    return {**head, "eventName": record.event.value, "dynamodb": change, **made_by}
