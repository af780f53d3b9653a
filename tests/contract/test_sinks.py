"""Every kind of sink on a real server: events arrive as CloudEvents, and each failure is reported for its own event."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import msgspec
import pytest

from replicator.adapters.aws.clients import Place
from replicator.adapters.clients import open_caches, open_places
from replicator.adapters.clock import SystemClock
from replicator.adapters.dynamodb.stream_wire import parse_record
from replicator.adapters.sinks.opening import open_sinks
from replicator.domain.errors import (
    AccessRefused,
    LeaseLost,
    PoisonRecord,
    ReplicatorError,
    SinkGone,
    SinkMissing,
    Throttled,
    Unreachable,
)
from replicator.domain.identifiers import RegionId, TableName
from replicator.domain.item_events import ItemEvent, event_of
from replicator.domain.records import ChangeRecord
from replicator.domain.shards.leases import StreamRef
from replicator.laboratory.streamlab.changes import Change, record_text
from replicator.ports.targets import OPEN, Sink
from replicator.settings import Settings
from tests.contract.worlds import fresh
from tests.event_consumers import SECRET, Consumer, Receiver, StreamConsumer, WebhookConsumer, aws_consumers, receiver

pytestmark = pytest.mark.servers

AWS = ["sqs", "sqs fifo", "sns", "sns fifo", "eventbridge", "kinesis", "firehose"]
LONGEST = {"redis_stream": 8 << 20, "webhook": 8 << 20, "sqs": 1 << 20, "kinesis": 1 << 20, "firehose": 1 << 20}
DATA = '{"key":{"pk":"\uffff \\u0001 é"},"new":{"n":"12345678901234567890123456789012345678"}}'


def event(key: str, number: int = 1, data: str = DATA) -> ItemEvent:
    return ItemEvent(
        id=f"orders/2026-01-01T00:00:00.000/{key}{number}",
        source="arn:aws:dynamodb:us-east-1:000000000000:table/orders",
        type="dynamodb.item.inserted",
        subject='{"pk":"k"}',
        time=1_700_000_000.0,
        partition_key=key,
        data=msgspec.Raw(data.encode()),
    )


def settings_of(url: str, redis_url: str, *entries: dict[str, Any]) -> Settings:
    region = {"region": "us-east-1", "endpoint_url": url}
    return Settings.model_validate(
        {
            "group": "test",
            "regions": {"us": region},
            "coordination": {"region": "us"},
            "secrets": {"hook": SECRET},
            "caches": {"main": {"region": "us", "url": redis_url}},
            "rules": [{"name": "orders", "table": "orders", "source": "us", "events": list(entries)}],
        }
    )


@asynccontextmanager
async def opened(settings: Settings) -> AsyncIterator[list[Sink]]:
    async with (
        open_places(settings) as places,
        open_caches(settings) as caches,
        open_sinks(settings, places, caches, SystemClock()) as sinks,
    ):
        yield list(sinks.values())


@pytest.fixture
async def server() -> AsyncIterator[Receiver]:
    async with receiver() as opened_server:
        yield opened_server


@pytest.fixture(params=[*AWS, "redis_stream", "webhook"])
async def made(
    request: pytest.FixtureRequest, dynamodb_url: str, redis_url: str, server: Receiver
) -> AsyncIterator[tuple[Consumer, dict[str, Any], Place]]:
    """A consumer, the entry of its sink, and clients of the region."""
    async with open_places(settings_of(dynamodb_url, redis_url, HOOK)) as places:
        consumers: dict[str, Consumer] = aws_consumers(lambda service: places["us"].service(service, 4))
        consumers |= {"redis_stream": StreamConsumer(redis_url, "main"), "webhook": WebhookConsumer(server)}
        consumer = consumers[request.param]
        yield consumer, await consumer.create(fresh("sink")), places["us"]


@pytest.fixture
async def bench(
    made: tuple[Consumer, dict[str, Any], Place], dynamodb_url: str, redis_url: str
) -> AsyncIterator[tuple[Consumer, Sink, str]]:
    """A consumer, its sink, and what kind it is of."""
    consumer, entry, _ = made
    async with opened(settings_of(dynamodb_url, redis_url, entry)) as (sink,):
        yield consumer, sink, entry["to"]


HOOK: dict[str, Any] = {"to": "webhook", "url": "https://hooks.example.com", "secret": "hook"}


async def test_events_arrive_as_cloud_events_and_one_that_is_too_long_is_refused_alone(
    bench: tuple[Consumer, Sink, str],
) -> None:
    consumer, sink, to = bench
    too_long = event("b", data=f'"{"x" * LONGEST.get(to, 256 << 10)}"')
    answers = list(await sink.send([event("a"), too_long, event("c")]))
    assert [answers[0], answers[2], type(answers[1])] == [None, None, PoisonRecord]
    assert "bytes" in str(answers[1])
    assert list(await sink.send([event("a", 2)])) == [None]
    found = {each.get_id(): each for each in await consumer.events()}
    assert sorted(found) == sorted(event(key, number).id for key, number in (("a", 1), ("a", 2), ("c", 1)))
    one = found[event("a").id]
    assert (one.get_source(), one.get_type(), one.get_subject()) == (event("a").source, event("a").type, '{"pk":"k"}')
    moment = one.get_time()
    assert moment is not None
    assert (moment.timestamp(), one.get_extension("partitionkey")) == (1_700_000_000.0, "a")
    assert one.get_data() == msgspec.json.decode(DATA)


DIGITS = "12345678901234567890123456789012345678"
ITEM: dict[str, Any] = {
    "exact": {"N": DIGITS},
    "least": {"N": "-1E-130"},
    "raw": {"B": "AP8="},
    "numbers": {"NS": [DIGITS, "-0.5"]},
    "binaries": {"BS": ["AA==", "/w=="]},
    "texts": {"SS": ["a", "\uffff"]},
    "deep": {"M": {"l": {"L": [{"B": "AA=="}, {"NULL": True}, {"BOOL": False}]}}},
    "secret": {"S": "hidden"},
    "name": {"S": "é\u0001"},
    "gone": {"S": "dropped"},
}
SHOWN = {
    "exact": DIGITS,
    "least": "-1E-130",
    "raw": "AP8=",
    "numbers": [DIGITS, "-0.5"],
    "binaries": ["AA==", "/w=="],
    "texts": ["a", "\uffff"],
    "deep": {"l": ["AA==", None, False]},
    "title": "é\u0001",
    "origin": "us",
}
"""What `TRANSFORM` leaves of it, but for what is masked."""

TRANSFORM = {
    "project": [*ITEM],
    "drop": ["gone"],
    "rename": {"name": "title"},
    "constant": {"origin": "us"},
    "mask": {"attributes": ["secret"], "hmac": "hook"},
}
STREAM = StreamRef(
    RegionId("us"), TableName("orders"), "arn:aws:dynamodb:us-east-1:0:table/orders/stream/2026-01-01T00:00:00.000", 1
)


def read_from_stream(number: int, old: bool, new: bool) -> ChangeRecord:
    """A record as a table's stream sends it; a removal is one by its TTL."""
    key = {"pk": {"S": f"k{number}"}}
    image = json.dumps(ITEM | key).encode()
    event = "REMOVE" if not new else "MODIFY" if old else "INSERT"
    change = Change(
        event, json.dumps(key).encode(), image if new else b"", image if old else b"", 1_700_000_000, 0, not new
    )
    record = parse_record(record_text(change, number, "NEW_AND_OLD_IMAGES", "us-east-1", "documentation"))
    assert isinstance(record, ChangeRecord)
    return record


async def test_what_items_hold_comes_through_every_sink_as_it_is_or_as_the_rule_shows_it(
    made: tuple[Consumer, dict[str, Any], Place], dynamodb_url: str, redis_url: str
) -> None:
    consumer, entry, _ = made
    entries = [entry | {"name": "typed", "format": "dynamodb"}, entry | {"name": "shown", "transform": TRANSFORM}]
    async with opened(settings_of(dynamodb_url, redis_url, *entries)) as sinks:
        for nth, sink in enumerate(sinks):
            records = [
                read_from_stream(10 * nth + kind, old, new)
                for kind, (old, new) in enumerate(((False, True), (True, True), (True, False)), start=1)
            ]
            events = [event_of(record, STREAM, sink.shape) for record in records]
            assert list(await sink.send(events)) == [None] * len(events)
    found: dict[int, Any] = {int(each.get_id().rpartition("/")[2]): each for each in await consumer.events()}
    types = {number: each.get_type().rpartition(".")[2] for number, each in found.items()}
    assert types == {number + kind: text for number in (0, 10) for kind, text in enumerate(KINDS, start=1)}
    typed, shown = ([found[nth + kind].get_data() for kind in (1, 2, 3)] for nth in (0, 10))
    for number, data in enumerate(typed, start=1):
        truth = ITEM | {"pk": {"S": f"k{number}"}}
        assert data == {"key": {"pk": {"S": f"k{number}"}}, **{name: truth for name in data if name != "key"}}
    masks = {image.pop("secret") for data in shown for name, image in data.items() if name != "key"}
    assert (len(masks), "hidden" in str(masks)) == (1, False)
    for number, data in enumerate(shown, start=11):
        truth = SHOWN | {"pk": f"k{number}"}
        assert data == {"key": {"pk": f"k{number}"}, **{name: truth for name in data if name != "key"}}
    assert [sorted(data) for data in typed] == [["key", "new"], ["key", "new", "old"], ["key", "old"]]


KINDS = ("inserted", "modified", "expired")


async def test_the_data_of_an_event_that_is_too_long_is_in_the_bucket_before_the_event_is_sent(
    made: tuple[Consumer, dict[str, Any], Place], dynamodb_url: str, redis_url: str
) -> None:
    consumer, entry, place = made
    bucket = fresh("data")
    too_long = event("b", data=f'{{"new":"{"x" * LONGEST.get(entry["to"], 256 << 10)}"}}')
    settings = settings_of(dynamodb_url, redis_url, entry | {"oversize": {"s3": f"s3://{bucket}/long/of"}})
    async with opened(settings) as (sink,), place.s3() as s3:
        answers = await sink.send([event("a"), too_long])
        assert [type(each) for each in answers] == [type(None), SinkMissing]  # there is no bucket
        await s3.create_bucket(Bucket=bucket)
        assert list(await sink.send([too_long, event("c")])) == [None, None]
        assert list(await sink.send([too_long])) == [None]
        (stored,) = (await s3.list_objects_v2(Bucket=bucket))["Contents"]
        answer = await s3.get_object(Bucket=bucket, Key=stored["Key"])
        data = await answer["Body"].read()
    found = {each.get_id(): each for each in await consumer.events()}
    reference = found[too_long.id]
    assert reference.get_extension("dataref") == f"s3://{bucket}/{stored['Key']}"
    assert stored["Key"] == f"long/of/{too_long.digest}.json"
    assert (data, reference.get_data()) == (bytes(too_long.data), None)
    assert (reference.get_subject(), reference.get_type()) == (too_long.subject, too_long.type)
    assert found[event("c").id].get_data() == msgspec.json.decode(DATA)


class Fallen:
    """A fence of a shard whose lease is lost."""

    def check(self) -> None:
        raise LeaseLost("It is another one's.")


async def test_an_event_whose_fence_fell_while_others_were_sent_is_not(bench: tuple[Consumer, Sink, str]) -> None:
    consumer, sink, _ = bench
    answers = await sink.send([event("a"), event("b")], [OPEN, Fallen()])
    assert [type(each) for each in answers] == [type(None), LeaseLost]
    assert [each.get_id() for each in await consumer.events()] == [event("a").id]


@pytest.mark.parametrize(
    "entry",
    [
        {"to": "sqs", "queue": "none-of-this-name"},
        {"to": "sns", "topic": "arn:aws:sns:us-east-1:000000000000:none-of-this-name"},
        {"to": "kinesis", "stream": "none-of-this-name"},
        {"to": "firehose", "stream": "none-of-this-name"},
    ],
    ids=lambda entry: entry["to"],
)
async def test_a_place_that_is_not_there_is_missing_and_no_event_is_refused(
    entry: dict[str, Any], dynamodb_url: str, redis_url: str
) -> None:
    async with opened(settings_of(dynamodb_url, redis_url, entry)) as (sink,):
        answers = await sink.send([event("a"), event("b")])
    assert [type(each) for each in answers] == [SinkMissing, SinkMissing]


async def test_a_place_that_does_not_answer_is_unreachable(redis_url: str) -> None:
    entries: list[dict[str, Any]] = [
        {"to": "sqs", "queue": "any"},
        HOOK | {"url": "http://127.0.0.1:9/path?q=hidden", "allow_private": True},
    ]
    async with opened(settings_of("http://127.0.0.1:9", redis_url, *entries)) as sinks:
        for sink in sinks:
            (answer,) = await sink.send([event("a")])
            assert isinstance(answer, Unreachable)
            assert "hidden" not in str(answer)
            assert "/path" not in str(answer)


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (200, None),
        (301, SinkMissing),
        (400, PoisonRecord),
        (401, AccessRefused),
        (404, SinkMissing),
        (408, Unreachable),
        (410, SinkGone),
        (413, PoisonRecord),
        (429, Throttled),
        (500, Unreachable),
        (503, Throttled),
    ],
)
async def test_a_webhooks_status_says_what_becomes_of_an_event(
    status: int, kind: type[ReplicatorError] | None, server: Receiver, dynamodb_url: str, redis_url: str
) -> None:
    entry = await WebhookConsumer(server).create("orders")
    server.answers = [(status, {"location": f"http://127.0.0.1:{server.port}/elsewhere"})]
    async with opened(settings_of(dynamodb_url, redis_url, entry)) as (sink,):
        (answer,) = await sink.send([event("a")])
    assert (type(answer), len(server.requests)) == (kind or type(None), 1)
    assert server.bad_signatures == 0
    assert "token" not in str(answer)


async def test_a_webhook_is_left_alone_for_as_long_as_it_asks(
    server: Receiver, dynamodb_url: str, redis_url: str
) -> None:
    entry = await WebhookConsumer(server).create("orders")
    server.answers = [(429, {"retry-after": "3600"})]
    async with opened(settings_of(dynamodb_url, redis_url, entry)) as (sink,):
        answers = [*await sink.send([event("a")]), *await sink.send([event("b")])]
    assert ([type(each) for each in answers], len(server.requests)) == ([Throttled, Throttled], 1)


async def test_a_name_that_leads_to_a_private_address_is_not_connected_to(
    server: Receiver, dynamodb_url: str, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import socket

    def looked_up(*_: object, **__: object) -> list[Any]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", server.port))]

    entry = HOOK | {"url": f"https://hooks.example.com:{server.port}/"}
    monkeypatch.setattr(socket, "getaddrinfo", looked_up)
    settings = settings_of(dynamodb_url, redis_url, entry)
    async with AsyncExitStack() as stack:
        sinks = await stack.enter_async_context(open_sinks(settings, {}, {}, SystemClock()))
        (sink,) = sinks.values()
        (answer,) = await sink.send([event("a")])
    assert isinstance(answer, Unreachable)
    assert "private" in str(answer)
    assert server.requests == []


async def test_a_key_of_another_type_takes_no_events(redis_url: str, dynamodb_url: str) -> None:
    import redis.asyncio as redis_asyncio

    client: Any = redis_asyncio.Redis.from_url(redis_url)
    name = fresh("taken")
    await client.set(name, "text")
    await client.aclose()
    entry = {"to": "redis_stream", "cache": "main", "stream": name}
    async with opened(settings_of(dynamodb_url, redis_url, entry)) as (sink,):
        (answer,) = await sink.send([event("a")])
    assert isinstance(answer, ReplicatorError)
    assert not isinstance(answer, PoisonRecord)
