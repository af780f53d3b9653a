"""What `check` says about sinks of events on real servers; nothing is sent."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import pytest
import redis.asyncio as redis_asyncio

from replicator.adapters.clients import open_caches, open_places
from replicator.adapters.clock import SystemClock
from replicator.adapters.sinks.opening import open_sinks
from replicator.checks.facts import Fact, Status
from replicator.checks.sink_facts import sink_facts
from replicator.settings.streams import StreamSettings
from tests.contract.test_sinks import AWS, HOOK, settings_of
from tests.contract.worlds import fresh
from tests.event_consumers import Consumer, Receiver, StreamConsumer, WebhookConsumer, aws_consumers, receiver

pytestmark = pytest.mark.servers


async def facts(dynamodb_url: str, redis_url: str, *entries: dict[str, Any]) -> list[Fact]:
    settings = settings_of(dynamodb_url, redis_url, *entries)
    async with (
        open_places(settings) as places,
        open_caches(settings) as caches,
        open_sinks(settings, places, caches, SystemClock()) as sinks,
    ):
        return await sink_facts(settings, sinks)


@pytest.fixture
async def server() -> AsyncIterator[Receiver]:
    async with receiver() as opened_server:
        yield opened_server


@pytest.mark.parametrize("kind", [*AWS, "redis_stream", "webhook"])
async def test_a_sink_that_is_there_is_well_and_says_when_it_keeps_no_order(
    kind: str, dynamodb_url: str, redis_url: str, server: Receiver
) -> None:
    async with AsyncExitStack() as stack:
        places = await stack.enter_async_context(open_places(settings_of(dynamodb_url, redis_url, HOOK)))
        consumers: dict[str, Consumer] = aws_consumers(lambda service: places["us"].service(service, 4))
        consumers |= {"redis_stream": StreamConsumer(redis_url, "main"), "webhook": WebhookConsumer(server)}
        consumer = consumers[kind]
        entry = await consumer.create(fresh("look"))
        if kind == "webhook":
            entry["url"] = entry["url"].replace("look", "options/look")
        found = await facts(dynamodb_url, redis_url, entry)
        if kind != "redis_stream":
            assert await consumer.events() == []
    assert [(fact.name, fact.status) for fact in found] == [
        ("answers" if kind == "webhook" else "exists", Status.OK),
        *([] if consumer.ordered else [("order", Status.WARNING)]),
    ]


@pytest.mark.parametrize(
    "entry",
    [
        {"to": "sqs", "queue": "none-of-this-name"},
        {"to": "sns", "topic": "arn:aws:sns:us-east-1:000000000000:none-of-this-name"},
        {"to": "eventbridge", "bus": "none-of-this-name"},
        {"to": "kinesis", "stream": "none-of-this-name"},
        {"to": "firehose", "stream": "none-of-this-name"},
    ],
    ids=lambda entry: entry["to"],
)
async def test_a_sink_that_is_not_there_is_named(entry: dict[str, Any], dynamodb_url: str, redis_url: str) -> None:
    (fact,) = await facts(dynamodb_url, redis_url, entry)
    assert (fact.status, fact.is_wrong) == (Status.FAILED, True)
    assert "none-of-this-name" in fact.subject
    assert fact.remedy == "Create it, or correct its name in the rule's events."


async def test_a_sink_that_does_not_answer_is_unreachable(redis_url: str) -> None:
    entry = HOOK | {"url": "http://127.0.0.1:9/path", "allow_private": True}
    found = await facts("http://127.0.0.1:9", redis_url, {"to": "sqs", "queue": "any"}, entry)
    assert [(fact.status, fact.is_wrong) for fact in found] == [(Status.FAILED, False)] * 2
    assert not any("/path" in fact.sentence for fact in found)


async def test_a_queue_that_takes_less_than_its_service_warns(dynamodb_url: str, redis_url: str) -> None:
    name = fresh("small") + ".fifo"
    async with open_places(settings_of(dynamodb_url, redis_url, HOOK)) as places, places["us"].service("sqs", 1) as sqs:
        await sqs.create_queue(QueueName=name, Attributes={"FifoQueue": "true", "MaximumMessageSize": "4096"})
    found = await facts(dynamodb_url, redis_url, {"to": "sqs", "queue": name})
    assert [(fact.name, fact.status) for fact in found] == [("exists", Status.OK), ("size", Status.WARNING)]
    assert "4,096 bytes" in found[1].found


async def test_the_bucket_of_what_is_too_long_is_looked_at(dynamodb_url: str, redis_url: str) -> None:
    bucket, stream = fresh("data"), {"to": "redis_stream", "cache": "main", "stream": fresh("s")}
    entry = stream | {"oversize": {"s3": {"bucket": bucket, "prefix": "long"}}}
    missing = (await facts(dynamodb_url, redis_url, entry))[1]
    assert (missing.name, missing.status, bucket in missing.found) == ("oversize", Status.FAILED, True)
    async with open_places(settings_of(dynamodb_url, redis_url, HOOK)) as places, places["us"].s3() as s3:
        await s3.create_bucket(Bucket=bucket)
    assert [fact.status for fact in await facts(dynamodb_url, redis_url, entry)] == [Status.OK, Status.OK]


async def test_a_key_that_holds_something_else_is_no_stream(dynamodb_url: str, redis_url: str) -> None:
    name, client = fresh("taken"), redis_asyncio.Redis.from_url(redis_url)
    await client.set(name, "text")
    await client.aclose()
    (fact,) = await facts(dynamodb_url, redis_url, {"to": "redis_stream", "cache": "main", "stream": name})
    assert (fact.is_wrong, "holds a string" in fact.found) == (True, True)


async def test_events_of_a_rule_that_reads_kinesis_may_come_in_any_order(dynamodb_url: str, redis_url: str) -> None:
    settings = settings_of(dynamodb_url, redis_url, {"to": "redis_stream", "cache": "main", "stream": fresh("s")})
    (rule,) = settings.rules
    by_kinesis = rule.model_copy(update={"stream": StreamSettings(kinesis="changes")})
    (fact,) = await sink_facts(settings.model_copy(update={"rules": [by_kinesis]}), {})
    assert (fact.subject, fact.status) == ("rule orders", Status.WARNING)
    assert await sink_facts(settings, {}) == []
