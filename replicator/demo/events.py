"""Consumers of events in the demo: a FIFO queue, a Redis stream and a signed webhook for each table, and their verdict.

Invariant: what should have come is read from the table's own stream, past the program; an event counts when its id and
its images are those of a record there. The webhook refuses everything for a while, so that something has to wait.
"""

from __future__ import annotations

import asyncio
import base64
import hmac
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any, Final

import msgspec
import redis.asyncio as redis_asyncio
from aiohttp import web

from replicator.demo.dynamodb import LocalRegion
from replicator.demo.layout import SOURCE, Layout
from replicator.laboratory.servers import LOOPBACK

_SQS: Final = "AmazonSQS"
_STREAMS: Final = "DynamoDBStreams_20120810"
_SECRET: Final = "the demo's own key"  # noqa: S105 - both sides of it are on this machine
_REFUSES_FROM, _REFUSES_FOR = 0.3, 0.15
"""Parts of the traffic's time."""

_BUSY = 503
_MOST_MESSAGES = 10
_EMPTY_LOOKS = 3
_POLL_SECONDS = 0.5
_EVENT = msgspec.json.Decoder(dict[str, Any])


@dataclass(slots=True)
class Consumed:
    """What one consumer saw of one table, by the place of its records in the stream."""

    name: str
    changes: int
    items: int
    missing: int
    foreign: int
    """Events of no record, or with other images."""
    out_of_order: int
    """Items of which an event first came before an earlier one."""
    repeated: int

    @property
    def is_well(self) -> bool:
        """Whether it saw every change of every item, in order."""
        return not (self.missing or self.foreign or self.out_of_order) and self.changes > 0

    @property
    def line(self) -> str:
        """For people."""
        if self.is_well:
            seen = f"all {self.changes} changes of {self.items} items, in order"
        else:
            seen = (
                f"{self.missing} of {self.changes} changes missing, {self.foreign} events of no change,"
                f" {self.out_of_order} of {self.items} items out of order"
            )
        return f"{self.name}: {seen}; {self.repeated} came again"


@dataclass(slots=True)
class EventConsumers:
    """Every consumer of the demo."""

    layout: Layout
    port: int = 0
    refusing: bool = False
    refused: int = 0
    unsigned: int = 0
    received: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    """What came to the webhook, by rule."""
    queued: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    urls: dict[str, str] = field(default_factory=dict)
    found: list[Consumed] = field(default_factory=list)

    # -- the configuration -----------------------------------------------------------------------------------------

    def of_rule(self, rule: str) -> list[dict[str, Any]]:
        """The entries of a rule's `events`."""
        url = f"http://{LOOPBACK}:{self.port}/{rule}"
        return [
            {"to": "sqs", "queue": _queue(rule), "format": "dynamodb"},
            {"to": "redis_stream", "cache": "eu_cache", "stream": _stream(rule), "format": "dynamodb"},
            {"to": "webhook", "url": url, "secret": "demo", "allow_private": True, "format": "dynamodb"},
        ]

    @property
    def secrets(self) -> dict[str, str]:
        """The key of the webhook's signatures."""
        return {"demo": _SECRET}

    async def create(self, region: LocalRegion) -> None:
        """Make the queues; streams of Redis make themselves."""
        for table in self.layout.tables:
            body = {"QueueName": _queue(table.rule), "Attributes": {"FifoQueue": "true", "VisibilityTimeout": "600"}}
            self.urls[table.rule] = msgspec.json.decode(await region.call("CreateQueue", body, _SQS))["QueueUrl"]

    # -- the webhook -----------------------------------------------------------------------------------------------

    async def receive(self, request: web.Request) -> web.Response:
        """Take one event, unless its signature is wrong or everything is refused."""
        body, head = await request.read(), request.headers
        if self.refusing:
            self.refused += 1
            return web.Response(status=_BUSY)
        signed = f"{head.get('webhook-id')}.{head.get('webhook-timestamp')}.".encode() + body
        wanted = base64.b64encode(hmac.new(_SECRET.encode(), signed, sha256).digest()).decode()
        if head.get("webhook-signature") != f"v1,{wanted}":
            self.unsigned += 1
            return web.Response(status=401)
        self.received.setdefault(request.match_info["rule"], []).append(_EVENT.decode(body))
        return web.Response(status=204)

    async def refuse_for_a_while(self, seconds: float) -> None:
        """Answer 503 to everything for a part of the traffic."""
        await asyncio.sleep(seconds * _REFUSES_FROM)
        self.refusing = True
        await asyncio.sleep(seconds * _REFUSES_FOR)
        self.refusing = False

    # -- the verdict -----------------------------------------------------------------------------------------------

    async def wait(self, region: LocalRegion, redis_url: str, seconds: float) -> None:
        """Look until every consumer is well, at most so long; `found` is the last look."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + seconds
        while True:
            await self.look(region, redis_url)
            if self.is_well or loop.time() >= deadline:
                return
            await asyncio.sleep(_POLL_SECONDS)

    async def look(self, region: LocalRegion, redis_url: str) -> None:
        """Compare what came with what the streams hold."""
        found = []
        for table in self.layout.tables:
            truth = await _records(region, table.names[SOURCE])
            seen = {
                f"sqs {_queue(table.rule)}": await self._from_queue(region, table.rule),
                f"redis_stream {_stream(table.rule)}": await _from_redis(redis_url, _stream(table.rule)),
                f"webhook /{table.rule}": self.received.get(table.rule, []),
            }
            found += [_compared(name, events, truth) for name, events in seen.items()]
        self.found = found

    @property
    def is_well(self) -> bool:
        """Whether every consumer saw every change in order, as of the last look."""
        return bool(self.found) and all(each.is_well for each in self.found) and not self.unsigned

    def lines(self) -> Iterator[str]:
        """For people."""
        title = "events    "
        for each in self.found:
            yield f"{title}{each.line}"
            title = "          "
        yield f"{title}the webhook refused {self.refused} requests for a while, {self.unsigned} had a wrong signature"

    def as_json(self) -> dict[str, Any]:
        """The same as one object."""
        return {
            "consumers": {
                each.name: {
                    "changes": each.changes,
                    "items": each.items,
                    "missing": each.missing,
                    "foreign": each.foreign,
                    "out_of_order": each.out_of_order,
                    "repeated": each.repeated,
                }
                for each in self.found
            },
            "refused_requests": self.refused,
            "wrong_signatures": self.unsigned,
        }

    async def _from_queue(self, region: LocalRegion, rule: str) -> list[dict[str, Any]]:
        """Take everything out of a queue; what came before is kept."""
        seen, url, empty = self.queued.setdefault(rule, []), self.urls[rule], 0
        while empty < _EMPTY_LOOKS:
            body = {"QueueUrl": url, "MaxNumberOfMessages": _MOST_MESSAGES}
            answer = msgspec.json.decode(await region.call("ReceiveMessage", body, _SQS))
            messages = answer.get("Messages", [])
            empty = 0 if messages else empty + 1
            for message in messages:
                seen.append(_EVENT.decode(message["Body"]))
                gone = {"QueueUrl": url, "ReceiptHandle": message["ReceiptHandle"]}
                await region.call("DeleteMessage", gone, _SQS)
        return seen


@asynccontextmanager
async def event_consumers(layout: Layout) -> AsyncIterator[EventConsumers]:
    """The consumers, with their webhook on a free port."""
    consumers = EventConsumers(layout)
    application = web.Application(client_max_size=16 * 2**20)
    application.router.add_post("/{rule}", consumers.receive)
    runner = web.AppRunner(application)
    await runner.setup()
    try:
        await web.TCPSite(runner, LOOPBACK, 0).start()
        consumers.port = runner.addresses[0][1]
        yield consumers
    finally:
        await runner.cleanup()


def _queue(rule: str) -> str:
    return f"{rule}-changes.fifo"


def _stream(rule: str) -> str:
    return f"{rule}:changes"


async def _records(region: LocalRegion, table: str) -> dict[str, dict[str, Any]]:
    """Every record of a table's stream by its sequence number, in order."""

    async def ask(operation: str, **body: Any) -> Any:
        return msgspec.json.decode(await region.call(operation, body, _STREAMS))

    (stream,) = (await ask("ListStreams", TableName=table))["Streams"]
    arn = stream["StreamArn"]
    (shard,) = (await ask("DescribeStream", StreamArn=arn))["StreamDescription"]["Shards"]
    answer = await ask("GetShardIterator", StreamArn=arn, ShardId=shard["ShardId"], ShardIteratorType="TRIM_HORIZON")
    iterator, found = answer["ShardIterator"], dict[str, dict[str, Any]]()
    while iterator:
        page = await ask("GetRecords", ShardIterator=iterator)
        found |= {each["dynamodb"]["SequenceNumber"]: each["dynamodb"] for each in page["Records"]}
        if not page["Records"]:
            break
        iterator = page.get("NextShardIterator")
    return found


async def _from_redis(url: str, stream: str) -> list[dict[str, Any]]:
    client: Any = redis_asyncio.Redis.from_url(url)
    try:
        return [_EVENT.decode(fields[b"event"]) for _, fields in await client.xrange(stream)]
    finally:
        await client.aclose()


def _compared(name: str, events: list[dict[str, Any]], truth: dict[str, dict[str, Any]]) -> Consumed:
    """What one consumer saw, beside what its table's stream holds."""
    seen: dict[str, str] = {}
    by_images = {_images(record.get("OldImage"), record.get("NewImage")): each for each, record in truth.items()}
    foreign = repeated = 0
    for event in events:
        data = event["data"]
        sequence = by_images.get(_images(data.get("old"), data.get("new")))
        if sequence is None:
            foreign += 1
        elif sequence not in seen:
            seen[sequence] = event["id"]
        elif seen[sequence] == event["id"]:
            repeated += 1
        else:
            foreign += 1  # one change has one id
    wanted, came = _by_item(truth, truth), _by_item(truth, seen)
    disordered = sum(1 for item, order in came.items() if order != [each for each in wanted[item] if each in seen])
    return Consumed(name, len(truth), len(wanted), len(truth) - len(seen), foreign, disordered, repeated)


def _images(old: Any, new: Any) -> bytes:
    """What names a change here: no two of an item leave one item from one item."""
    return msgspec.json.encode((old, new), order="deterministic")


def _by_item(truth: dict[str, dict[str, Any]], sequences: dict[str, Any]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for sequence in sequences:
        key = msgspec.json.encode(truth[sequence]["Keys"], order="deterministic").decode()
        found.setdefault(key, []).append(sequence)
    return found
