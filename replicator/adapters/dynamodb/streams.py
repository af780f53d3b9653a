"""DynamoDB Streams of one region: listing, iterators, reading.

Invariant: a page's records are handed over before its end is; an error states whether the position still exists.
A listing holds what the endpoint answers, wrong or not: what of it to believe is decided elsewhere.
"""

from __future__ import annotations

from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import msgspec
from botocore.exceptions import ClientError

from replicator.adapters.aws.errors import CLIENT_ERRORS, error_code, member, translate
from replicator.adapters.dynamodb.stream_wire import parse_records, parse_shards
from replicator.domain.errors import (
    PoisonRecord,
    ReplicatorError,
    ShardGone,
    StreamUnusable,
    TableMissing,
    Unreachable,
)
from replicator.domain.identifiers import RegionId, SequenceNumber, ShardId, TableName
from replicator.domain.progress import END, Position
from replicator.domain.shards.leases import StreamRef
from replicator.domain.shards.lineage import Shard
from replicator.domain.versions import generation_of
from replicator.ports.sources import RecordPage, ShardPage, Stream

if TYPE_CHECKING:
    from types_aiobotocore_dynamodbstreams.client import DynamoDBStreamsClient
    from types_aiobotocore_dynamodbstreams.literals import ShardIteratorTypeType

    from replicator.adapters.aws.clients import Place

NEEDED_VIEW = "NEW_AND_OLD_IMAGES"
_ENCODE = msgspec.json.Encoder().encode
_MOST_PAGES = 1000
_CANNOT_FILTER = frozenset(
    {
        "InvalidArgumentException",
        "InvalidParameterException",
        "InvalidParameterValue",
        "SerializationException",
        "UnknownParameter",
        "UnknownParameterException",
        "ValidationError",
        "ValidationException",
    }
)
"""What endpoints answer to a parameter that they do not know."""


async def whole_listing(streams: Stream, stream: StreamRef) -> list[Shard]:
    """Every shard that is listed, all pages, for commands; a daemon takes pages one by one."""
    shards: list[Shard] = []
    after: ShardId | None = None
    for _ in range(_MOST_PAGES):
        page = await streams.shard_page(stream, after)
        shards += page.shards
        after = page.last
        if after is None:
            break
    return shards


class DynamoStreams:
    """The streams of one configured region."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self._client: DynamoDBStreamsClient = place.streams

    async def current(self, table: TableName) -> StreamRef:
        """The table's present stream; an error that names the remedy when there is none that can be used."""
        region = self._place.region_id
        what = f"DescribeTable on {table} in {region}"
        try:
            answer = await self._place.dynamodb.describe_table(TableName=table)
        except CLIENT_ERRORS as error:
            raise translate(error, what) from error
        described = member(answer, "Table", what)
        member(described, "TableName", what)
        stream = described.get("StreamSpecification", {})
        if not stream.get("StreamEnabled") or "LatestStreamArn" not in described:
            raise StreamUnusable(
                f"Table {table} in {region} has no stream.",
                advice="Enable one with view type NEW_AND_OLD_IMAGES (`replicator init --enable-streams` does).",
            )
        view = stream.get("StreamViewType")
        if view != NEEDED_VIEW:
            raise StreamUnusable(
                f"The stream of table {table} in {region} has view type {view}, but {NEEDED_VIEW} is needed.",
                advice="A view type cannot be changed: disable the stream and enable it again with that type.",
            )
        return StreamRef(
            region=RegionId(region),
            table=table,
            arn=described["LatestStreamArn"],
            generation=generation_of(member(described, "LatestStreamLabel", what)),
        )

    async def streams(self, table: TableName) -> list[StreamRef]:
        """Every stream that is listed under a table's name, oldest first."""
        what = f"ListStreams on {table} in {self._place.region_id}"
        found: dict[str, StreamRef] = {}
        start: dict[str, Any] = {}
        for _ in range(_MOST_PAGES):
            try:
                answer = await self._client.list_streams(TableName=table, **start)
            except CLIENT_ERRORS as error:
                raise translate(error, what) from error
            for listed in member(answer, "Streams", what):
                if member(listed, "TableName", what) == table:
                    stream = self._stream(table, listed, what)
                    found[stream.arn] = stream
            last = answer.get("LastEvaluatedStreamArn")
            if not last:
                break
            start = {"ExclusiveStartStreamArn": last}
        return sorted(found.values(), key=lambda stream: stream.generation)

    def _stream(self, table: TableName, listed: Mapping[str, Any], what: str) -> StreamRef:
        return StreamRef(
            region=RegionId(self._place.region_id),
            table=table,
            arn=member(listed, "StreamArn", what),
            generation=generation_of(member(listed, "StreamLabel", what)),
        )

    def reads(self, stream: StreamRef) -> bool:
        """Whether a stream is a table's own."""
        return not stream.kinesis

    def kept_seconds(self, stream: StreamRef) -> float | None:
        """A day, as of every table's own stream."""
        del stream
        return None

    async def shows_images(self, stream: StreamRef) -> bool:
        """Whether a stream's view type is the one that is needed, as far as the endpoint tells it."""
        what = f"DescribeStream on the stream of {stream.table} in {stream.region}"
        try:
            answer = await self._client.describe_stream(StreamArn=stream.arn, Limit=1)
        except CLIENT_ERRORS as error:
            translated = translate(error, what)
            if isinstance(translated, TableMissing):
                return False
            raise translated from error
        described = member(answer, "StreamDescription", what)
        view: str = described.get("StreamViewType", NEEDED_VIEW)
        return view == NEEDED_VIEW

    async def shard_page(self, stream: StreamRef, after: ShardId | None) -> ShardPage:
        """One page of the listing, behind shard `after`; a stream that is gone raises `ShardGone`."""
        page = await self._describe(stream, {} if after is None else {"ExclusiveStartShardId": after})
        if after is not None and page.last == after:
            raise Unreachable(f"DescribeStream on the stream of {stream.table} in {stream.region} does not progress.")
        return page

    async def children(self, stream: StreamRef, parent: ShardId) -> list[Shard] | None:
        """The listed children of a closed shard; None when the endpoint cannot filter, or not for this shard now."""
        try:
            page = await self._describe(stream, {"ShardFilter": {"Type": "CHILD_SHARDS", "ShardId": parent}})
        except ReplicatorError as error:
            if isinstance(error.__cause__, ClientError) and error_code(error.__cause__) in _CANNOT_FILTER:
                return None
            raise
        ignored = page.last is not None or any(parent not in shard.parents for shard in page.shards)
        return None if ignored else list(page.shards)

    async def _describe(self, stream: StreamRef, more: Mapping[str, Any]) -> ShardPage:
        what = f"DescribeStream on the stream of {stream.table} in {stream.region}"
        body = _ENCODE({"StreamArn": stream.arn, **more})
        try:
            answer = await self._place.records.call("DescribeStream", body, None, what, StreamArn=stream.arn)
        except TableMissing as error:
            raise ShardGone(f"{what}: the stream is gone.") from error
        return parse_shards(answer.body, what)

    async def iterator(
        self, stream: StreamRef, shard_id: ShardId, position: Position, first: SequenceNumber | None = None
    ) -> str:
        """An iterator right behind a position; `RecordsTrimmed` or `ShardGone` when that place is no more.

        With the horizon and `first`, the shard's first record is asked for by its number: the horizon itself would
        silently begin behind what was trimmed. Where that number cannot be asked for, the horizon is used instead.
        """
        assert position != END, "nothing is read behind the end of a shard"
        if position.sequence is not None:
            return await self._iterator(stream, shard_id, "AFTER_SEQUENCE_NUMBER", position.sequence)
        if first is not None:
            try:
                return await self._iterator(stream, shard_id, "AT_SEQUENCE_NUMBER", first)
            except PoisonRecord:
                pass
        return await self._iterator(stream, shard_id, "TRIM_HORIZON", None)

    async def _iterator(
        self, stream: StreamRef, shard_id: ShardId, kind: ShardIteratorTypeType, sequence: SequenceNumber | None
    ) -> str:
        what = f"GetShardIterator on shard {shard_id} of {stream.table} in {stream.region}"
        more: dict[str, Any] = {} if sequence is None else {"SequenceNumber": sequence}
        try:
            answer = await self._client.get_shard_iterator(
                StreamArn=stream.arn, ShardId=shard_id, ShardIteratorType=kind, **more
            )
        except ClientError as error:
            if error_code(error) == "ResourceNotFoundException":
                raise ShardGone(f"{what}: the shard is gone.") from error
            raise translate(error, what) from error
        except CLIENT_ERRORS as error:
            raise translate(error, what) from error
        iterator: str = member(answer, "ShardIterator", what)
        return iterator

    async def read(self, iterator: str, limit: int) -> RecordPage:
        """The next page of a shard."""
        body = _ENCODE({"ShardIterator": iterator, "Limit": limit})
        what = f"GetRecords in {self._place.region_id}"
        try:
            answer = await self._place.records.call("GetRecords", body, None, what)
            return parse_records(answer.body, what, _seconds_of(answer.date or ""))
        except TableMissing as error:
            raise ShardGone(f"{what}: the shard is gone.") from error


@lru_cache(maxsize=4)  # a thousand polls a second bear the same second
def _seconds_of(date: str) -> float | None:
    """An answer's Date in seconds since 1970, rounded down to whole ones; None when there is none."""
    try:
        return parsedate_to_datetime(date).timestamp()
    except ValueError:
        return None
