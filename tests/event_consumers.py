"""Consumers of events, one per kind of sink: the place is made on a real server, and read to its end in its order."""

from __future__ import annotations

import asyncio
import base64
import hmac
import json
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any, Protocol

import redis.asyncio as redis_asyncio
from aiohttp import web
from cloudevents.core.base import BaseCloudEvent
from cloudevents.core.formats.json import JSONFormat

Clients = Callable[[str], AbstractAsyncContextManager[Any]]
"""Opens a client of a service of AWS."""

SECRET = "whsec_" + base64.b64encode(b"a key of the tests, 32 bytes long").decode()
_EMPTY_LOOKS = 2


def read(body: bytes | str) -> BaseCloudEvent:
    """An event as the SDK of CloudEvents reads it, which refuses what is none."""
    return JSONFormat().read(None, body)


class Consumer(Protocol):
    """One place and what came there."""

    @property
    def ordered(self) -> bool:
        """Whether it keeps the order of a key."""

    async def create(self, name: str) -> dict[str, Any]:
        """Make the place; returns the rule's entry of events."""

    async def events(self) -> list[BaseCloudEvent]:
        """Everything that has come so far, in its order."""


@dataclass
class QueueConsumer:
    """A queue of SQS."""

    clients: Clients
    ordered: bool = False
    seen: list[BaseCloudEvent] = field(default_factory=list)
    url: str = ""

    async def create(self, name: str) -> dict[str, Any]:
        queue = f"{name}.fifo" if self.ordered else name
        async with self.clients("sqs") as sqs:
            attributes = {"VisibilityTimeout": "600"} | ({"FifoQueue": "true"} if self.ordered else {})
            self.url = (await sqs.create_queue(QueueName=queue, Attributes=attributes))["QueueUrl"]
        return {"to": "sqs", "queue": queue}

    async def arn(self) -> str:
        async with self.clients("sqs") as sqs:
            answer = await sqs.get_queue_attributes(QueueUrl=self.url, AttributeNames=["QueueArn"])
            return str(answer["Attributes"]["QueueArn"])

    async def events(self) -> list[BaseCloudEvent]:
        empty = 0
        async with self.clients("sqs") as sqs:
            while empty < _EMPTY_LOOKS:
                found = (await sqs.receive_message(QueueUrl=self.url, MaxNumberOfMessages=10)).get("Messages", [])
                empty = 0 if found else empty + 1
                for message in found:
                    self.seen.append(read(self.body(message["Body"])))
                    await sqs.delete_message(QueueUrl=self.url, ReceiptHandle=message["ReceiptHandle"])
        return self.seen

    def body(self, text: str) -> str:
        return text


@dataclass
class TopicConsumer(QueueConsumer):
    """A topic of SNS with a queue behind it."""

    async def create(self, name: str) -> dict[str, Any]:
        await super().create(name)
        async with self.clients("sns") as sns:
            topic = f"{name}.fifo" if self.ordered else name
            attributes = {"FifoTopic": "true"} if self.ordered else {}
            arn = (await sns.create_topic(Name=topic, Attributes=attributes))["TopicArn"]
            await sns.subscribe(
                TopicArn=arn, Protocol="sqs", Endpoint=await self.arn(), Attributes={"RawMessageDelivery": "true"}
            )
        return {"to": "sns", "topic": arn}


@dataclass
class BusConsumer(QueueConsumer):
    """A bus of EventBridge with a queue behind a rule."""

    async def create(self, name: str) -> dict[str, Any]:
        await super().create(name)
        async with self.clients("events") as events:
            await events.create_event_bus(Name=name)
            await events.put_rule(Name=name, EventBusName=name, EventPattern=json.dumps({"source": ["replicator"]}))
            await events.put_targets(Rule=name, EventBusName=name, Targets=[{"Id": "queue", "Arn": await self.arn()}])
        return {"to": "eventbridge", "bus": name}

    def body(self, text: str) -> str:
        return json.dumps(json.loads(text)["detail"])


@dataclass
class KinesisConsumer:
    """A Kinesis data stream of one shard."""

    clients: Clients
    ordered: bool = True
    stream: str = ""

    async def create(self, name: str) -> dict[str, Any]:
        self.stream = name
        async with self.clients("kinesis") as kinesis:
            await kinesis.create_stream(StreamName=name, ShardCount=1)
            for _ in range(100):
                description = await kinesis.describe_stream(StreamName=name)
                if description["StreamDescription"]["StreamStatus"] == "ACTIVE":
                    break
                await asyncio.sleep(0.05)
        return {"to": "kinesis", "stream": name}

    async def events(self) -> list[BaseCloudEvent]:
        seen: list[BaseCloudEvent] = []
        async with self.clients("kinesis") as kinesis:
            shards = (await kinesis.describe_stream(StreamName=self.stream))["StreamDescription"]["Shards"]
            answer = await kinesis.get_shard_iterator(
                StreamName=self.stream, ShardId=shards[0]["ShardId"], ShardIteratorType="TRIM_HORIZON"
            )
            iterator = answer["ShardIterator"]
            while True:
                page = await kinesis.get_records(ShardIterator=iterator)
                if not page["Records"]:
                    return seen
                seen += [read(record["Data"]) for record in page["Records"]]
                iterator = page["NextShardIterator"]


@dataclass
class DeliveryConsumer:
    """A delivery stream of Firehose with a bucket behind it."""

    clients: Clients
    ordered: bool = False
    bucket: str = ""

    async def create(self, name: str) -> dict[str, Any]:
        self.bucket = name
        async with self.clients("s3") as s3:
            await s3.create_bucket(Bucket=name)
        async with self.clients("firehose") as firehose:
            destination = {"BucketARN": f"arn:aws:s3:::{name}", "RoleARN": "arn:aws:iam::000000000000:role/firehose"}
            await firehose.create_delivery_stream(
                DeliveryStreamName=name, DeliveryStreamType="DirectPut", ExtendedS3DestinationConfiguration=destination
            )
        return {"to": "firehose", "stream": name}

    async def events(self) -> list[BaseCloudEvent]:
        seen: list[BaseCloudEvent] = []
        async with self.clients("s3") as s3:
            for each in (await s3.list_objects_v2(Bucket=self.bucket)).get("Contents", []):
                answer = await s3.get_object(Bucket=self.bucket, Key=each["Key"])
                lines = (await answer["Body"].read()).splitlines()
                seen += [read(line) for line in lines]
        return seen


@dataclass
class StreamConsumer:
    """A stream of Redis; `cache` is its name in the configuration."""

    url: str
    cache: str
    ordered: bool = True
    stream: str = ""

    async def create(self, name: str) -> dict[str, Any]:
        self.stream = name
        return {"to": "redis_stream", "cache": self.cache, "stream": name}

    async def events(self) -> list[BaseCloudEvent]:
        client: Any = redis_asyncio.Redis.from_url(self.url)
        try:
            entries = await client.xrange(self.stream)
        finally:
            await client.aclose()
        return [read(fields[b"event"]) for _, fields in entries]


class Receiver:
    """An HTTP server that checks signatures and fails on command."""

    def __init__(self) -> None:
        self.port = 0
        self.answers: list[tuple[int, dict[str, str]]] = []
        """What to answer next, before all is well again: statuses and headers."""
        self.failing: int | None = None
        """What to answer until it is set to None again."""
        self.seen: list[BaseCloudEvent] = []
        self.requests: list[Mapping[str, str]] = []
        self.bad_signatures = 0
        self._key = base64.b64decode(SECRET.removeprefix("whsec_"))

    async def handle(self, request: web.Request) -> web.Response:
        body = await request.read()
        head = request.headers
        self.requests.append(dict(head))
        signed = f"{head['webhook-id']}.{head['webhook-timestamp']}.".encode() + body
        wanted = base64.b64encode(hmac.new(self._key, signed, sha256).digest()).decode()
        self.bad_signatures += head["webhook-signature"] != f"v1,{wanted}"
        status, headers = self.answers.pop(0) if self.answers else (self.failing or 204, {})
        if status < 300:
            self.seen.append(read(body))
        return web.Response(status=status, headers=headers)


@asynccontextmanager
async def receiver(port: int = 0) -> AsyncIterator[Receiver]:
    """A receiver on loopback."""
    server = Receiver()
    application = web.Application(client_max_size=16 * 2**20)
    application.router.add_post("/{path:.*}", server.handle)
    runner = web.AppRunner(application)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", port)
        await site.start()
        server.port = runner.addresses[0][1]
        yield server
    finally:
        await runner.cleanup()


@dataclass
class WebhookConsumer:
    """An address."""

    server: Receiver
    ordered: bool = True

    async def create(self, name: str) -> dict[str, Any]:
        url = f"http://127.0.0.1:{self.server.port}/{name}?token=hidden"
        return {"to": "webhook", "url": url, "secret": "hook", "allow_private": True}

    async def events(self) -> list[BaseCloudEvent]:
        return list(self.server.seen)


def aws_consumers(clients: Clients) -> dict[str, Consumer]:
    """Every sink of AWS."""
    return {
        "sqs": QueueConsumer(clients),
        "sqs fifo": QueueConsumer(clients, ordered=True),
        "sns": TopicConsumer(clients),
        "sns fifo": TopicConsumer(clients, ordered=True),
        "eventbridge": BusConsumer(clients),
        "kinesis": KinesisConsumer(clients),
        "firehose": DeliveryConsumer(clients),
    }
