"""DynamoDB Streams of one region: listing, iterators, reading.

Invariant: a page's records are handed over before its end is told; an error says whether the position is still there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
from botocore.exceptions import ClientError

from replicator.adapters import wire
from replicator.adapters.aws import CLIENT_ERRORS, error_code, member, translate
from replicator.domain.errors import ShardGone, TableMissing, WorldMismatch
from replicator.domain.lineage import Shard
from replicator.domain.progress import END, Position
from replicator.domain.records import RegionId, ShardId, TableName
from replicator.domain.versions import generation_of
from replicator.ports import RecordPage, StreamRef

if TYPE_CHECKING:
    from types_aiobotocore_dynamodbstreams.client import DynamoDBStreamsClient
    from types_aiobotocore_dynamodbstreams.type_defs import GetShardIteratorInputTypeDef

    from replicator.adapters.aws import Place

NEEDED_VIEW = "NEW_AND_OLD_IMAGES"
_ENCODE = msgspec.json.Encoder().encode
_MOST_PAGES = 1000


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
            raise WorldMismatch(
                f"Table {table} in {region} has no stream.",
                advice="Enable one with view type NEW_AND_OLD_IMAGES (`replicator init --enable-streams` does).",
            )
        view = stream.get("StreamViewType")
        if view != NEEDED_VIEW:
            raise WorldMismatch(
                f"The stream of table {table} in {region} has view type {view}, but {NEEDED_VIEW} is needed.",
                advice="A view type cannot be changed: disable the stream and enable it again with that type.",
            )
        return StreamRef(
            region=RegionId(region),
            table=table,
            arn=described["LatestStreamArn"],
            generation=generation_of(member(described, "LatestStreamLabel", what)),
        )

    async def shards(self, stream: StreamRef) -> list[Shard]:
        """Every shard of the stream, all pages; a stream that is gone raises `ShardGone`."""
        shards: list[Shard] = []
        start: str | None = None
        for _ in range(_MOST_PAGES):
            page, start = await self._shard_page(stream, start)
            shards += page
            if start is None:
                break
        return shards

    async def _shard_page(self, stream: StreamRef, start: str | None) -> tuple[list[Shard], str | None]:
        what = f"DescribeStream on the stream of {stream.table} in {stream.region}"
        more: dict[str, Any] = {} if start is None else {"ExclusiveStartShardId": start}
        try:
            answer = await self._client.describe_stream(StreamArn=stream.arn, **more)
        except ClientError as error:
            if error_code(error) == "ResourceNotFoundException":
                raise ShardGone(f"{what}: the stream is gone.") from error
            raise translate(error, what) from error
        except CLIENT_ERRORS as error:
            raise translate(error, what) from error
        described = member(answer, "StreamDescription", what)
        member(described, "StreamArn", what)
        page = [
            Shard(
                shard_id=ShardId(member(shard, "ShardId", what)),
                parent=ShardId(shard["ParentShardId"]) if shard.get("ParentShardId") else None,
                closed="EndingSequenceNumber" in shard.get("SequenceNumberRange", {}),
            )
            for shard in described.get("Shards", [])
        ]
        return page, described.get("LastEvaluatedShardId")

    async def iterator(self, stream: StreamRef, shard_id: ShardId, position: Position) -> str:
        """An iterator right behind a position; `RecordsTrimmed` or `ShardGone` when that place is no more."""
        assert position != END, "nothing is read behind the end of a shard"
        request: GetShardIteratorInputTypeDef = {
            "StreamArn": stream.arn,
            "ShardId": shard_id,
            "ShardIteratorType": "TRIM_HORIZON",
        }
        if position.sequence is not None:
            request["ShardIteratorType"] = "AFTER_SEQUENCE_NUMBER"
            request["SequenceNumber"] = position.sequence
        what = f"GetShardIterator on shard {shard_id} of {stream.table} in {stream.region}"
        try:
            answer = await self._client.get_shard_iterator(**request)
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
            return wire.parse_records(await wire.call(self._client.get_records, body, None, what), what)
        except TableMissing as error:
            raise ShardGone(f"{what}: the shard is gone.") from error
