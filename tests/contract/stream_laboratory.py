"""A memory stream behind HTTP, speaking the DynamoDB Streams protocol: what no local server shows can be shown with it.

Several shards with parents, listings in pages, expired iterators, trimmed records, parameters that are not known: the
real adapter meets them over its real client.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from aiohttp import web
from aiohttp.test_utils import TestServer

from replicator.domain.errors import IteratorExpired, PoisonRecord, RecordsTrimmed, ShardGone
from replicator.domain.identifiers import SequenceNumber, ShardId, TableName
from replicator.domain.progress import HORIZON, Position
from replicator.domain.records import ChangeRecord, changes
from replicator.domain.shards.leases import StreamRef
from replicator.domain.shards.lineage import Shard
from replicator.laboratory.memory import MemoryStream

_CODES = {
    IteratorExpired: "ExpiredIteratorException",
    ShardGone: "ResourceNotFoundException",
    RecordsTrimmed: "TrimmedDataAccessException",
    PoisonRecord: "ValidationException",
}


@dataclass
class Habits:
    """What endpoints do in different ways.

    `refuses_filter`: asking for children is an error; an endpoint whose memory stream cannot filter ignores it.
    `refuses_first`: a number that is no record's cannot be read at. `streams_per_page`: of ListStreams.
    """

    refuses_filter: bool = False
    refuses_first: bool = False
    streams_per_page: int = 2


@asynccontextmanager
async def laboratory(streams: MemoryStream, stream: StreamRef, habits: Habits) -> AsyncIterator[str]:
    """Serve the streams of one table, of which this is the present one; yields the endpoint's URL."""

    async def handle(request: web.Request) -> web.Response:
        operation = request.headers["X-Amz-Target"].split(".")[-1]
        body = await request.json()
        try:
            answer = await _OPERATIONS[operation](streams, stream, habits, body)
        except tuple(_CODES) as error:
            told = {"__type": f"com.amazonaws.dynamodb.v20120810#{_CODES[type(error)]}", "message": error.message}
            return _response(told, status=400)
        return _response(answer)

    application = web.Application()
    application.router.add_post("/", handle)
    async with TestServer(application, host="127.0.0.1") as server:
        yield str(server.make_url("/")).rstrip("/")


def _response(body: dict[str, Any], status: int = 200) -> web.Response:
    text = json.dumps(body, separators=(",", ":"), ensure_ascii=False)
    return web.Response(text=text, status=status, content_type="application/x-amz-json-1.0")


async def _describe_table(
    streams: MemoryStream, stream: StreamRef, habits: Habits, body: dict[str, Any]
) -> dict[str, Any]:
    return {
        "Table": {
            "TableName": body["TableName"],
            "LatestStreamArn": stream.arn,
            "LatestStreamLabel": _label(stream.generation),
            "StreamSpecification": {"StreamEnabled": True, "StreamViewType": "NEW_AND_OLD_IMAGES"},
        }
    }


async def _list_streams(
    streams: MemoryStream, stream: StreamRef, habits: Habits, body: dict[str, Any]
) -> dict[str, Any]:
    listed = await streams.streams(TableName(body["TableName"]))
    arns = [each.arn for each in listed]
    start = arns.index(body["ExclusiveStartStreamArn"]) + 1 if "ExclusiveStartStreamArn" in body else 0
    page = listed[start : start + habits.streams_per_page]
    answer: dict[str, Any] = {
        "Streams": [
            {"StreamArn": each.arn, "TableName": each.table, "StreamLabel": _label(each.generation)} for each in page
        ]
    }
    if start + len(page) < len(listed):
        answer["LastEvaluatedStreamArn"] = page[-1].arn
    return answer


def _label(generation: int) -> str:
    return datetime.fromtimestamp(generation / 1000, UTC).isoformat(timespec="milliseconds").removesuffix("+00:00")


async def _describe_stream(
    streams: MemoryStream, stream: StreamRef, habits: Habits, body: dict[str, Any]
) -> dict[str, Any]:
    asked = next(each for each in await streams.streams(stream.table) or [stream] if each.arn == body["StreamArn"])
    shards, last = None, None
    if "ShardFilter" in body:
        if habits.refuses_filter:
            raise PoisonRecord("1 validation error detected: ShardFilter is not known.")
        assert body["ShardFilter"]["Type"] == "CHILD_SHARDS"
        shards = await streams.children(asked, ShardId(body["ShardFilter"]["ShardId"]))
    if shards is None:
        after = body.get("ExclusiveStartShardId")
        page = await streams.shard_page(asked, None if after is None else ShardId(after))
        shards, last = list(page.shards), page.last
    description: dict[str, Any] = {"StreamArn": asked.arn, "Shards": [_listed(shard) for shard in shards]}
    if last is not None:
        description["LastEvaluatedShardId"] = last
    return {"StreamDescription": description}


def _listed(shard: Shard) -> dict[str, Any]:
    numbers = {"StartingSequenceNumber": shard.first, "EndingSequenceNumber": "9" if shard.closed else None}
    parents = zip(("ParentShardId", "AdjacentParentShardId"), shard.parents, strict=False)
    return {
        "ShardId": shard.shard_id,
        **dict(parents),
        "SequenceNumberRange": {name: number for name, number in numbers.items() if number is not None},
    }


async def _iterator(streams: MemoryStream, stream: StreamRef, habits: Habits, body: dict[str, Any]) -> dict[str, Any]:
    shard_id, number = ShardId(body["ShardId"]), body.get("SequenceNumber")
    if body["ShardIteratorType"] == "AFTER_SEQUENCE_NUMBER":
        return {"ShardIterator": await streams.iterator(stream, shard_id, Position(body["SequenceNumber"]))}
    if number is not None:
        assert body["ShardIteratorType"] == "AT_SEQUENCE_NUMBER"
        if habits.refuses_first:
            raise PoisonRecord("Invalid SequenceNumber.")
        return {"ShardIterator": await streams.iterator(stream, shard_id, HORIZON, SequenceNumber(number))}
    return {"ShardIterator": await streams.iterator(stream, shard_id, HORIZON)}


async def _records(streams: MemoryStream, stream: StreamRef, habits: Habits, body: dict[str, Any]) -> dict[str, Any]:
    page = await streams.read(body["ShardIterator"], body["Limit"])
    answer: dict[str, Any] = {"Records": [_wire(record) for record in changes(page.records)]}
    if page.next_iterator is not None:
        answer["NextShardIterator"] = page.next_iterator
    return answer


def _wire(record: ChangeRecord) -> dict[str, Any]:
    images = {
        name: json.loads(image.wire)
        for name, image in (("OldImage", record.old), ("NewImage", record.new))
        if image is not None
    }
    ttl = {"type": "Service", "principalId": "dynamodb.amazonaws.com"}
    return {
        "eventName": record.event.value,
        "dynamodb": {
            "Keys": json.loads(record.key.wire),
            "SequenceNumber": record.sequence,
            "ApproximateCreationDateTime": record.created_at,
            **images,
        },
        **({"userIdentity": ttl} if record.by_ttl else {}),
    }


_OPERATIONS = {
    "DescribeTable": _describe_table,
    "DescribeStream": _describe_stream,
    "ListStreams": _list_streams,
    "GetShardIterator": _iterator,
    "GetRecords": _records,
}
