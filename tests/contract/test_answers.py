"""Answers that are not the service's: whatever stands in between may say anything, and nothing of it is a fact."""

from __future__ import annotations

import itertools
import json
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from replicator.adapters.aws.clients import Fallback
from replicator.adapters.clock import SystemClock
from replicator.adapters.dynamodb.conflict_log import DynamoConflictLog
from replicator.adapters.dynamodb.coordination import (
    CoordinationTable,
    DynamoCoordination,
    DynamoMembership,
    DynamoRegistry,
    Operations,
)
from replicator.adapters.dynamodb.stream_wire import parse_record
from replicator.adapters.dynamodb.streams import DynamoStreams
from replicator.adapters.dynamodb.tables import DynamoRegion
from replicator.domain.conflicts import ConflictEntry, ConflictKind, LogConflict, Witness
from replicator.domain.errors import (
    AccessRefused,
    MalformedRecord,
    PoisonRecord,
    ReplicatorError,
    ShardGone,
    Throttled,
    Unreachable,
    WorldMismatch,
)
from replicator.domain.gaps import Gap
from replicator.domain.identifiers import RegionId, RuleName, SequenceNumber, ShardId, TableName, WorkerId
from replicator.domain.image import Image
from replicator.domain.modes.requests import (
    Delete,
    Done,
    Found,
    GetItem,
    GetTombstone,
    GuardedPut,
    Put,
    RaiseTombstone,
    Refused,
    Request,
    StampBelow,
    TombstoneBelow,
)
from replicator.domain.progress import HORIZON
from replicator.domain.records import ChangeRecord, ItemKey, UnreadRecord
from replicator.domain.rules import Target
from replicator.domain.shards.leases import Lease, LeaseRow, Pulse, StreamRef
from replicator.domain.shards.lineage import Shard
from replicator.domain.versions import ordered_version
from replicator.laboratory.servers import clean_environment
from replicator.ports.sources import ShardPage
from tests.contract.worlds import Turnstile, no_fallback, place

KEY = ItemKey((("pk", "S", "a"),))
VERSION = ordered_version(0, 1, 1)
ITEM = Image(b'{"pk":{"S":"a"}}')
ORDERS = TableName("orders")
STREAM = StreamRef(RegionId("eu"), ORDERS, "arn:aws:dynamodb:eu-west-1:0:table/orders/stream/1", 1)
SHARD = ShardId("shardId-1")
JSON = "application/x-amz-json-1.0"


@dataclass
class Answers:
    """What the endpoint says to everything."""

    body: bytes = b"{}"
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)


@dataclass
class Ports:
    """Every adapter, at an endpoint that says `answers`."""

    answers: Answers
    region: DynamoRegion
    streams: DynamoStreams
    coordination: DynamoCoordination
    membership: DynamoMembership
    registry: DynamoRegistry
    operations: Operations
    conflicts: DynamoConflictLog

    async def execute(self, request: Request) -> object:
        return await self.region.execute(request, Turnstile())


@asynccontextmanager
async def at(answers: Answers, lean: Fallback | None) -> AsyncIterator[Ports]:
    async def handle(_: web.Request) -> web.Response:
        headers = {"Content-Type": JSON, **answers.headers}
        return web.Response(body=answers.body, status=answers.status, headers=headers)

    application = web.Application()
    application.router.add_post("/", handle)
    clock = SystemClock()
    async with (
        TestServer(application, host="127.0.0.1") as server,
        place(str(server.make_url("/")), lean=lean) as opened,
        opened.beside(4) as beside,
    ):
        region = DynamoRegion(
            opened.items,
            region_id="eu",
            table=ORDERS,
            side_table="side",
            tombstone_ttl=timedelta(days=7),
            clock=clock,
        )
        rows = CoordinationTable(beside, table="coordination", group="test", region_id="eu")
        yield Ports(
            answers,
            region,
            DynamoStreams(opened),
            DynamoCoordination(rows),
            DynamoMembership(rows),
            DynamoRegistry(rows),
            Operations(rows),
            DynamoConflictLog(opened.dynamodb, table="conflicts", region_id="eu", ttl=timedelta(days=1)),
        )


@pytest.fixture(params=[None, no_fallback], ids=["stock", "lean"])
async def ports(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Ports]:
    for name, value in clean_environment().items():
        if name.startswith("AWS_"):
            monkeypatch.setenv(name, value)
    async with at(Answers(), request.param) as opened:
        yield opened


NOT_STALE = StampBelow(VERSION)
PUT = Put(KEY, ITEM, VERSION, NOT_STALE)
REQUESTS: list[Request] = [
    PUT,
    GuardedPut(PUT, TombstoneBelow(VERSION)),
    Delete(KEY, NOT_STALE),
    RaiseTombstone(KEY, VERSION),
    GetItem(KEY),
    GetTombstone(KEY),
]
NO_ANSWERS = [b"", b"<html>It works!</html>", b"null", b"[]", b'"x"', b"  ", b"{", b"7"]


TARGET = Target(RuleName("orders"), RegionId("eu"), ORDERS, ())
ME = WorkerId("us")
LEASE = Lease(STREAM, SHARD, ME, 1)
ROW = LeaseRow(Shard(SHARD))
GAP = Gap(STREAM, SHARD, TARGET.target_id, HORIZON, None, 0.0, "trimmed")
CONFLICT = ConflictEntry(
    conflict=LogConflict(KEY, ConflictKind.UNVERSIONED, VERSION, ITEM, ITEM),
    table=ORDERS,
    rule=RuleName("orders"),
    mode="ordered",
    witness=Witness(RegionId("us"), ShardId("s0"), SequenceNumber("1")),
    detected_at=0.0,
)
CALLS: dict[str, Callable[[Ports], Awaitable[object]]] = {
    "current": lambda ports: ports.streams.current(ORDERS),
    "list": lambda ports: ports.streams.streams(ORDERS),
    "shards": lambda ports: ports.streams.shard_page(STREAM, None),
    "children": lambda ports: ports.streams.children(STREAM, SHARD),
    "iterator": lambda ports: ports.streams.iterator(STREAM, SHARD, HORIZON),
    "first": lambda ports: ports.streams.iterator(STREAM, SHARD, HORIZON, SequenceNumber("1")),
    "read": lambda ports: ports.streams.read("iterator", 10),
    "state": lambda ports: ports.coordination.state(STREAM),
    "discover": lambda ports: ports.coordination.discover(STREAM, [Shard(SHARD)], 0.0),
    "vanished": lambda ports: ports.coordination.mark_vanished(STREAM, SHARD, 1.0),
    "claim": lambda ports: ports.coordination.claim(STREAM, ROW, ME),
    "save": lambda ports: ports.coordination.save(LEASE, {TARGET.target_id: HORIZON}),
    "release": lambda ports: ports.coordination.release(LEASE),
    "seat": lambda ports: ports.coordination.take_seat(STREAM, None, ME),
    "members": lambda ports: ports.membership.members(),
    "beat": lambda ports: ports.membership.beat(ME, Pulse(1)),
    "paused": lambda ports: ports.membership.paused(),
    "streams": lambda ports: ports.registry.streams(RegionId("eu"), ORDERS),
    "start": lambda ports: ports.registry.start(STREAM, TARGET),
    "gap": lambda ports: ports.registry.record_gap(GAP),
    "remember": lambda ports: ports.registry.remember_stream(STREAM, drained={TARGET.target_id}),
    "rewind": lambda ports: ports.operations.rewind(STREAM, ROW, {}, {}),
    "pause": lambda ports: ports.operations.pause(RuleName("orders"), now=0.0),
    "acknowledge": lambda ports: ports.operations.acknowledge(GAP, now=0.0, by="me"),
    "gaps": lambda ports: ports.operations.gaps(),
}
"""Calls whose every answer has members."""


async def test_what_is_not_an_object_is_no_answer_to_a_request(ports: Ports) -> None:
    for request, ports.answers.body in itertools.product(REQUESTS, NO_ANSWERS):
        with pytest.raises(Unreachable):
            await ports.execute(request)


async def test_a_conflict_entry_or_a_row_is_not_taken_for_written(ports: Ports) -> None:
    for ports.answers.body in NO_ANSWERS:
        with pytest.raises(Unreachable):
            await ports.conflicts.write(CONFLICT)
        with pytest.raises(Unreachable):
            await ports.coordination.forget(STREAM, ROW)
        with pytest.raises(Unreachable):
            await ports.operations.resume(RuleName("orders"))
        with pytest.raises(Unreachable):
            await ports.registry.acknowledged(GAP)


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
async def test_what_lacks_its_members_is_no_answer(ports: Ports, call: Callable[[Ports], Awaitable[object]]) -> None:
    for ports.answers.body in [*NO_ANSWERS, b"{}", b'{"message":"Forbidden"}']:
        with pytest.raises(Unreachable):
            await call(ports)


@pytest.mark.parametrize("status", [400, 404, 503])
async def test_a_strange_error_is_retried(ports: Ports, status: int) -> None:
    ports.answers.status = status
    odd = [b"\xff", b'{"__type":5}', b'{"__type":{}}', b'{"__type":null}', b'{"message":[1]}']
    for ports.answers.body in [*NO_ANSWERS, *odd]:
        for name in ("current", "state", "shards", "children", "read", "beat"):
            with pytest.raises(Unreachable):
                await CALLS[name](ports)
        with pytest.raises(Unreachable):
            await ports.execute(PUT)


async def test_a_listing_that_lacks_anything_is_no_listing(ports: Ports) -> None:
    """What would read as fewer shards, or as a stream that lost them, is an answer of something else."""
    good: dict[str, object] = {"StreamArn": STREAM.arn, "Shards": [{"ShardId": "s"}]}
    bad: list[tuple[dict[str, object], str]] = [
        ({"Shards": [{}]}, "required field `ShardId`"),
        ({"Shards": [{"ShardId": ""}]}, "ShardId"),
        ({"Shards": [{"ShardId": 5}]}, "ShardId"),
        ({"Shards": [None]}, "Shards"),
        ({"Shards": None}, "Shards"),
        ({"Shards": [{"ShardId": "s", "SequenceNumberRange": 5}]}, "SequenceNumberRange"),
        ({"Shards": [{"ShardId": "s", "ParentShardId": ["p"]}]}, "ParentShardId"),
        ({"StreamArn": None}, "StreamArn"),
        ({"LastEvaluatedShardId": 5}, "LastEvaluatedShardId"),
    ]
    for change, words in bad:
        ports.answers.body = json.dumps({"StreamDescription": good | change}).encode()
        for call in (ports.streams.shard_page(STREAM, None), ports.streams.children(STREAM, SHARD)):
            with pytest.raises(Unreachable, match=words):
                await call
    del good["Shards"]
    ports.answers.body = json.dumps({"StreamDescription": good}).encode()
    with pytest.raises(Unreachable, match="required field `Shards`"):
        await ports.streams.shard_page(STREAM, None)


def listing(*shards: dict[str, object], last: str | None = None) -> bytes:
    described = {"StreamArn": STREAM.arn, "Shards": shards, "LastEvaluatedShardId": last}
    return json.dumps({"StreamDescription": described}).encode()


async def test_a_listing_says_as_much_as_its_endpoint_does(ports: Ports) -> None:
    ports.answers.body = listing(
        {"ShardId": "a"},
        {"ShardId": "b", "ParentShardId": None, "SequenceNumberRange": {"EndingSequenceNumber": None}},
        {"ShardId": "c", "ParentShardId": "", "SequenceNumberRange": {"StartingSequenceNumber": "x"}},
        {"ShardId": "d", "ParentShardId": "d", "AdjacentParentShardId": "c", "Unknown": 5},
        {"ShardId": "e", "ParentShardId": "c", "AdjacentParentShardId": "c"},
        {"ShardId": "f", "SequenceNumberRange": {"StartingSequenceNumber": "007", "EndingSequenceNumber": "9"}},
        last="f",
    )
    a, b, c, d, e, f = (ShardId(name) for name in "abcdef")
    assert await ports.streams.shard_page(STREAM, None) == ShardPage(
        (
            Shard(a),
            Shard(b),
            Shard(c),
            Shard(d, (c,)),
            Shard(e, (c,)),
            Shard(f, closed=True, first=SequenceNumber("007")),
        ),
        last=f,
    )


async def test_a_listing_that_stands_still_is_no_listing(ports: Ports) -> None:
    ports.answers.body = listing({"ShardId": "a"}, last="a")
    with pytest.raises(Unreachable, match="does not progress"):
        await ports.streams.shard_page(STREAM, ShardId("a"))


async def test_children_in_part_are_no_answer_to_who_the_children_are(ports: Ports) -> None:
    child: dict[str, object] = {"ShardId": "child", "ParentShardId": SHARD}
    ports.answers.body = listing(child)
    assert await ports.streams.children(STREAM, SHARD) == [Shard(ShardId("child"), (SHARD,))]
    for ports.answers.body in (listing(child, last="child"), listing(child, {"ShardId": "other"}), listing(last="x")):
        assert await ports.streams.children(STREAM, SHARD) is None


async def test_a_filter_that_is_not_known_is_told_from_other_refusals(ports: Ports) -> None:
    ports.answers.status = 400
    for code in ("ValidationException", "SerializationException", "UnknownParameterException"):
        ports.answers.body = json.dumps({"__type": f"x#{code}", "message": "told"}).encode()
        assert await ports.streams.children(STREAM, SHARD) is None
    refusals: list[tuple[str, type[ReplicatorError]]] = [
        ("LimitExceededException", Throttled),
        ("AccessDeniedException", AccessRefused),
        ("ResourceNotFoundException", ShardGone),
        ("InternalServerError", Unreachable),
    ]
    for code, error in refusals:
        ports.answers.body = json.dumps({"__type": f"x#{code}", "message": "told"}).encode()
        with pytest.raises(error):
            await ports.streams.children(STREAM, SHARD)


async def test_a_stream_with_a_label_that_is_no_time_is_named(ports: Ports) -> None:
    stream = {"StreamArn": "arn", "TableName": ORDERS, "StreamLabel": "newest"}
    ports.answers.body = json.dumps({"Streams": [stream]}).encode()
    with pytest.raises(WorldMismatch, match="'newest' is not an ISO time"):
        await ports.streams.streams(ORDERS)
    for missing in stream:
        less = {name: value for name, value in stream.items() if name != missing}
        ports.answers.body = json.dumps({"Streams": [less]}).encode()
        with pytest.raises(Unreachable, match=f"without {missing}"):
            await ports.streams.streams(ORDERS)


async def test_records_that_are_wrong_are_told_from_an_answer_that_is_none(ports: Ports) -> None:
    for body in (b'{"Records":null}', b'{"Records":{}}', b'{"Records":[],"NextShardIterator":7}'):
        ports.answers.body = body
        with pytest.raises(Unreachable, match="GetRecords in eu got an answer"):
            await ports.streams.read("iterator", 10)
    ports.answers.body = b'{"Records":[{"eventName":"INSERT"}]}'
    with pytest.raises(MalformedRecord):
        await ports.streams.read("iterator", 10)
    ports.answers.body = b"""{"Records":[
        {"eventName":"INSERT","dynamodb":{"SequenceNumber":"7","Keys":{"pk":{"S":"a"}},"NewImage":{"pk":{"S":"a"}}}},
        {"eventName":"UPSERT","dynamodb":{"SequenceNumber":"8","Keys":{"pk":{"S":"a"}}}},
        {"eventName":5,"dynamodb":{"SequenceNumber":"9"}}],
        "NextShardIterator":"next"}"""
    good, unknown, bad = (page := await ports.streams.read("iterator", 10)).records
    assert (type(good), good.sequence, page.next_iterator) == (ChangeRecord, "7", "next")
    assert isinstance(unknown, UnreadRecord)
    assert (unknown.sequence, unknown.why) == ("8", "Record 8 has the unknown event 'UPSERT'.")
    assert unknown.raw == b'{"eventName":"UPSERT","dynamodb":{"SequenceNumber":"8","Keys":{"pk":{"S":"a"}}}}'
    assert parse_record(unknown.raw) == unknown
    assert isinstance(bad, UnreadRecord)
    assert bad.why.startswith("A record is not what DynamoDB Streams sends")
    ports.answers.body = b'{"Records":[]}'
    assert (await ports.streams.read("iterator", 10)).next_iterator is None


async def test_an_answer_that_was_damaged_does_not_count(ports: Ports) -> None:
    body = b'{"Item":{"pk":{"S":"a"}}}'
    ports.answers.headers = {"x-amz-crc32": str(zlib.crc32(body))}
    for request in REQUESTS:
        ports.answers.body = body
        assert isinstance(await ports.execute(request), Done | Found)
        ports.answers.body = body.replace(b"a", b"b")
        with pytest.raises(Unreachable, match="checksum"):
            await ports.execute(request)


def cancelled(*codes: str | None) -> bytes:
    reasons = [{"Code": code, "Message": "told"} for code in codes]
    return json.dumps({"__type": "x#TransactionCanceledException", "CancellationReasons": reasons}).encode()


async def test_a_transaction_that_no_condition_cancelled_is_not_stale(ports: Ports) -> None:
    ports.answers.status = 400
    cases: list[tuple[bytes, type[ReplicatorError]]] = [
        (cancelled(), Unreachable),
        (cancelled("None", "None"), Unreachable),
        (cancelled(None, None), Unreachable),
        (cancelled("None", "TransactionConflict"), Unreachable),
        (b'{"__type":"x#TransactionCanceledException"}', Unreachable),
        (b'{"__type":"x#TransactionCanceledException","CancellationReasons":null}', Unreachable),
        (b'{"__type":"x#TransactionCanceledException","CancellationReasons":[null]}', Unreachable),
        (cancelled("None", "ThrottlingError"), Throttled),
        (cancelled("None", "ValidationError"), PoisonRecord),
    ]
    for ports.answers.body, error in cases:
        with pytest.raises(error):
            await ports.execute(GuardedPut(PUT, TombstoneBelow(VERSION)))


async def test_a_transaction_that_a_condition_cancelled_is_refused_by_it(ports: Ports) -> None:
    ports.answers.status = 400
    for codes, by_tombstone in ((("ConditionalCheckFailed", None), True), (("None", "ConditionalCheckFailed"), False)):
        ports.answers.body = cancelled(*codes)
        answer = await ports.execute(GuardedPut(PUT, TombstoneBelow(VERSION)))
        assert answer == Refused(None, by_tombstone=by_tombstone)


async def test_a_refusal_with_an_item_that_is_none_is_no_answer(ports: Ports) -> None:
    for item in (b"5", b"[]"):
        ports.answers.body, ports.answers.status = b'{"__type":"ConditionalCheckFailedException","Item":%b}' % item, 400
        with pytest.raises(Unreachable):
            await ports.execute(PUT)
