"""A memory stream behind HTTP, speaking the DynamoDB Streams protocol: what no local server shows can be shown with it.

Several shards with parents, listings in pages, expired iterators, trimmed records: the real adapter meets them over its
real client.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web
from aiohttp.test_utils import TestServer

from replicator.adapters.memory import MemoryStream
from replicator.domain.errors import IteratorExpired, RecordsTrimmed, ShardGone
from replicator.domain.progress import HORIZON, Position
from replicator.domain.records import ChangeRecord, ShardId
from replicator.ports import StreamRef

_CODES = {
    IteratorExpired: "ExpiredIteratorException",
    ShardGone: "ResourceNotFoundException",
    RecordsTrimmed: "TrimmedDataAccessException",
}
_SHARDS_PER_PAGE = 2


@asynccontextmanager
async def laboratory(streams: MemoryStream, stream: StreamRef) -> AsyncIterator[str]:
    """Serve one stream; yields the endpoint's URL."""

    async def handle(request: web.Request) -> web.Response:
        operation = request.headers["X-Amz-Target"].split(".")[-1]
        body = await request.json()
        try:
            answer = await _OPERATIONS[operation](streams, stream, body)
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


async def _describe_table(streams: MemoryStream, stream: StreamRef, body: dict[str, Any]) -> dict[str, Any]:
    return {
        "Table": {
            "TableName": body["TableName"],
            "LatestStreamArn": stream.arn,
            "LatestStreamLabel": "2023-11-14T22:13:20.000",
            "StreamSpecification": {"StreamEnabled": True, "StreamViewType": "NEW_AND_OLD_IMAGES"},
        }
    }


async def _describe_stream(streams: MemoryStream, stream: StreamRef, body: dict[str, Any]) -> dict[str, Any]:
    listed = await streams.shards(stream)
    names = [shard.shard_id for shard in listed]
    start = names.index(body["ExclusiveStartShardId"]) + 1 if "ExclusiveStartShardId" in body else 0
    page = listed[start : start + _SHARDS_PER_PAGE]
    description: dict[str, Any] = {
        "StreamArn": stream.arn,
        "Shards": [
            {
                "ShardId": shard.shard_id,
                **({"ParentShardId": shard.parent} if shard.parent else {}),
                "SequenceNumberRange": {
                    "StartingSequenceNumber": "1",
                    **({"EndingSequenceNumber": "9"} if shard.closed else {}),
                },
            }
            for shard in page
        ],
    }
    if start + _SHARDS_PER_PAGE < len(listed):
        description["LastEvaluatedShardId"] = page[-1].shard_id
    return {"StreamDescription": description}


async def _iterator(streams: MemoryStream, stream: StreamRef, body: dict[str, Any]) -> dict[str, Any]:
    position = HORIZON if body["ShardIteratorType"] == "TRIM_HORIZON" else Position(body["SequenceNumber"])
    return {"ShardIterator": await streams.iterator(stream, ShardId(body["ShardId"]), position)}


async def _records(streams: MemoryStream, stream: StreamRef, body: dict[str, Any]) -> dict[str, Any]:
    page = await streams.read(body["ShardIterator"], body["Limit"])
    answer: dict[str, Any] = {"Records": [_wire(record) for record in page.records]}
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
    "GetShardIterator": _iterator,
    "GetRecords": _records,
}
