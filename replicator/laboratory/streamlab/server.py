"""The laboratory as an HTTP server, in this process or as a process of its own.

Invariant: an answer is counted as delivered after it was handed to the connection whole; everything listens on
127.0.0.1.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from email.utils import formatdate
from random import Random
from typing import Any, Final
from uuid import UUID
from zlib import crc32

import msgspec
from aiohttp import web

from replicator.laboratory.servers import LOOPBACK
from replicator.laboratory.streamlab.background import Background
from replicator.laboratory.streamlab.counters import Counters, Reading
from replicator.laboratory.streamlab.event_stream import CONTENT_TYPE as EVENTS_TYPE
from replicator.laboratory.streamlab.event_stream import event, exception
from replicator.laboratory.streamlab.fan_out import FanOut, Subscription
from replicator.laboratory.streamlab.faults import Faults
from replicator.laboratory.streamlab.gateway import Gateway
from replicator.laboratory.streamlab.kinesis import API as KINESIS_API
from replicator.laboratory.streamlab.kinesis import DESTINATION_OPERATIONS, Kinesis
from replicator.laboratory.streamlab.laboratory import Laboratory
from replicator.laboratory.streamlab.listing import Listing
from replicator.laboratory.streamlab.options import Options
from replicator.laboratory.streamlab.refusals import Refused, ServiceError
from replicator.laboratory.streamlab.script import Step, command, run_script
from replicator.laboratory.streamlab.service import Caller, Service
from replicator.laboratory.streamlab.tables import LabClock, Tables
from replicator.laboratory.streamlab.upstream import Call, open_upstream

STREAMS_API: Final = "DynamoDBStreams_20120810"
CONTENT_TYPE: Final = "application/x-amz-json-1.0"
_OK: Final = 200
_BAD_REQUEST: Final = 400
_NOT_FOUND: Final = 404
_TICK_SECONDS: Final = 0.5
_RELAY_SECONDS: Final = 0.02
_EVENT_SECONDS: Final = 0.02
_EVENT: Final = "SubscribeToShardEvent"
"""What faults name the events of subscriptions by, as if each were a call."""

_BACKLOG: Final = 1024


@dataclass(frozen=True, slots=True)
class Answer:
    """What goes out."""

    status: int
    body: bytes
    headers: dict[str, str]
    reading: Reading | None = None


class _Naming(msgspec.Struct):
    """What in a request names a table."""

    StreamArn: str = ""
    TableName: str = ""


@asynccontextmanager
async def laboratory(
    upstream: str | None = None,
    *,
    seed: int = 0,
    bound: socket.socket | None = None,
    script: Sequence[Step] = (),
    **options: Any,
) -> AsyncIterator[Laboratory]:
    """Serve a laboratory in front of the MiniStack at `upstream`; `options` are those of `Options`.

    Without an `upstream` there are only the streams that `make` makes. It listens on `bound`, or on any free port.
    """
    async with open_upstream(upstream) as way, _background() as background:
        face = msgspec.convert(options, Options)
        clock, counters = LabClock(), Counters()
        tables = Tables(face, clock, counters, seed)
        listing = Listing(face, Random(f"{seed}/listing"))  # noqa: S311 - seeded on purpose
        faults = Faults(Random(f"{seed}/faults"))  # noqa: S311
        gateway = Gateway(way, tables, face, background.start)
        service = Service(tables, face, listing, counters, Random(f"{seed}/pages"))  # noqa: S311
        kinesis = Kinesis(tables, face, counters, Random(f"{seed}/kinesis"), FanOut(clock, face, counters))  # noqa: S311
        dice = Random(f"{seed}/commands")  # noqa: S311
        lab = Laboratory(
            "", seed, face, clock, counters, tables, listing, faults, gateway, service, kinesis, dice, background
        )
        async with _served(Front(lab), bound or _any_port()) as lab.url:
            background.start(_tick(lab), "tick")
            background.start(_relay(lab), "relay")
            if script:
                background.start(run_script(lab, script), "script")
            yield lab


@asynccontextmanager
async def _background() -> AsyncIterator[Background]:
    background = Background()
    try:
        yield background
    finally:
        await background.close()
    background.check()


@asynccontextmanager
async def _served(front: Front, bound: socket.socket) -> AsyncIterator[str]:
    runner = web.ServerRunner(web.Server(front.handle, access_log=None), shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.SockSite(runner, bound, backlog=_BACKLOG).start()
        yield f"http://{LOOPBACK}:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


def _any_port() -> socket.socket:
    bound = socket.socket()
    bound.bind((LOOPBACK, 0))
    return bound


async def _tick(lab: Laboratory) -> None:
    while True:
        await asyncio.sleep(_TICK_SECONDS)
        lab.tick()


async def _relay(lab: Laboratory) -> None:
    while True:
        await asyncio.sleep(_RELAY_SECONDS if lab.kinesis.relays else _TICK_SECONDS)
        lab.kinesis.deliver()


@dataclass(slots=True)
class Front:
    """Takes requests and gives answers, whole or broken."""

    lab: Laboratory
    _answers: int = 0

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """One HTTP request."""
        body = await request.content.read()
        if request.path.startswith("/_lab"):
            return await self._control(request, body)
        api, _, operation = request.headers.get("X-Amz-Target", "").partition(".")
        caller = _caller(request)
        self.lab.counters.calls[operation or "other"].count(self.lab.clock.now())
        verdict = self.lab.faults.draw(operation, caller.region, body)
        if verdict.seconds:
            await asyncio.sleep(verdict.seconds)
        if verdict.drop:
            return self._broken(request, operation, b"")
        try:
            verdict.check()
            if api == KINESIS_API and operation == "SubscribeToShard" and self.lab.options.kinesis:
                scope = self.lab.gateway.scope(caller.access_key, caller.region)
                return await self._events(request, self.lab.kinesis.subscribe(body, caller.consumer, scope))
            answer = await self._answer(api, operation, body, caller, request)
        except ServiceError as error:
            answer = self._refusal(error)
        if verdict.drop_after or verdict.truncate:
            return self._broken(request, operation, _half(answer) if verdict.truncate else b"")
        if answer.reading is not None:
            self.lab.counters.went_out(answer.reading)
        return web.Response(status=answer.status, body=answer.body, headers=answer.headers)

    async def _answer(self, api: str, operation: str, body: bytes, caller: Caller, request: web.BaseRequest) -> Answer:
        if api == STREAMS_API:
            return await self._streams(operation, body, caller)
        if api == KINESIS_API and self.lab.options.kinesis:
            return self._kinesis(operation, body, caller)
        if operation in DESTINATION_OPERATIONS and self.lab.options.kinesis:
            return await self._destination(operation, body, caller)
        path = "/" if api.startswith("DynamoDB") else request.raw_path
        return await self._passed(Call(request.method, path, request.headers, body, operation), caller)

    async def _passed(self, call: Call, caller: Caller) -> Answer:
        passed = await self.lab.gateway.passed(call, self.lab.gateway.scope(caller.access_key, caller.region))
        return Answer(passed.status, passed.body, _sealed(passed.headers, passed.body))

    async def _streams(self, operation: str, body: bytes, caller: Caller) -> Answer:
        service, gateway = self.lab.service, self.lab.gateway
        reading: Reading | None = None
        match operation:
            case "GetRecords":
                answer, reading = service.get_records(body, caller)
            case "GetShardIterator":
                answer = service.get_shard_iterator(body, caller)
            case "DescribeStream":
                await self._meet(body, caller)
                answer = service.describe_stream(body, caller)
            case "ListStreams":
                await self._meet(body, caller)
                scope = gateway.scope(caller.access_key, caller.region)
                answer = service.list_streams(body, scope.account, scope.region)
            case _:
                raise ServiceError("UnknownOperationException", f"There is no {operation}.")
        return Answer(_OK, answer, self._headers(answer), reading)

    def _kinesis(self, operation: str, body: bytes, caller: Caller) -> Answer:
        scope = self.lab.gateway.scope(caller.access_key, caller.region)
        answer, reading = self.lab.kinesis.answer(operation, body, caller.consumer, scope)
        date = {"Date": formatdate(self.lab.clock.now(), usegmt=True), "Content-Type": "application/x-amz-json-1.1"}
        return Answer(_OK, answer, self._headers(answer) | date, reading)

    async def _events(self, request: web.BaseRequest, own: Subscription) -> web.StreamResponse:
        """What a subscription sends, as long as it lives and its reader is there; a slow reader is waited for."""
        response = web.StreamResponse(headers={"Content-Type": EVENTS_TYPE})
        response.enable_chunked_encoding()
        await response.prepare(request)
        fan_out = self.lab.kinesis.fan_out
        with contextlib.suppress(ConnectionResetError):
            await response.write(event("initial-response", b"{}"))
            while request.transport is not None and not request.transport.is_closing():
                sent = fan_out.next(own)
                if sent is None:
                    await asyncio.sleep(_EVENT_SECONDS)
                    continue
                verdict = self.lab.faults.draw(_EVENT, own.consumer.stream.region, sent.message)
                await asyncio.sleep(verdict.seconds)
                if verdict.drop or verdict.truncate:
                    await response.write(sent.message[: len(sent.message) // 2 if verdict.truncate else 0])
                    request.transport.close()
                    self.lab.counters.broken[_EVENT] += 1
                    break
                refusal = verdict.refusal
                await response.write(sent.message if refusal is None else exception(refusal[0], "It was asked to."))
                if sent.reading is not None and refusal is None:
                    self.lab.counters.went_out(sent.reading)
                if sent.over or refusal is not None:
                    break
        fan_out.leave(own)
        return response

    async def _destination(self, operation: str, body: bytes, caller: Caller) -> Answer:
        scope = self.lab.gateway.scope(caller.access_key, caller.region)
        asked = msgspec.json.decode(body, type=dict[str, Any])
        table = await self.lab.gateway.streaming(scope, str(asked.get("TableName", "")))
        answer = msgspec.json.encode(self.lab.kinesis.destination(operation, asked, table))
        return Answer(_OK, answer, self._headers(answer))

    async def _meet(self, body: bytes, caller: Caller) -> None:
        """Get to know the table that is asked for (or all), if no caller described it through here yet."""
        with contextlib.suppress(msgspec.DecodeError):
            asked = msgspec.json.decode(body or b"{}", type=_Naming)
            if asked.StreamArn in self.lab.tables.by_arn:
                return
            _, _, named = asked.StreamArn.partition(":table/")
            name = asked.TableName or named.partition("/")[0] or None
            await self.lab.gateway.discover(self.lab.gateway.scope(caller.access_key, caller.region), name)

    def _refusal(self, error: ServiceError) -> Answer:
        self.lab.counters.refused[error.code] += 1
        body = msgspec.json.encode({"__type": f"com.amazonaws.dynamodb.v20120810#{error.code}", "message": error.said})
        return Answer(error.status, body, self._headers(body))

    def _headers(self, body: bytes) -> dict[str, str]:
        self._answers += 1
        return {
            "Content-Type": CONTENT_TYPE,
            "x-amzn-RequestId": str(UUID(int=self._answers)),
            "x-amz-crc32": str(crc32(body)),
        }

    def _broken(self, request: web.BaseRequest, operation: str, sent: bytes) -> web.StreamResponse:
        """Close the connection, after these bytes."""
        self.lab.counters.broken[operation] += 1
        if request.transport is not None:
            request.transport.write(sent)
            request.transport.close()
        return web.Response()

    # -- control ---------------------------------------------------------------------------------------------------

    async def _control(self, request: web.BaseRequest, body: bytes) -> web.Response:
        name = request.path.removeprefix("/_lab").strip("/")
        try:
            if request.method == "GET":
                shown = {"stats": self.lab.stats, "streams": self.lab.streams}.get(name)
                if shown is None:
                    return _json({"error": f"There is no {name}; there are stats and streams."}, _NOT_FOUND)
                return _json(shown())
            arguments = msgspec.json.decode(body or b"{}", type=dict[str, Any])
            return _json({"result": await command(self.lab, name, arguments)})
        except (Refused, ServiceError, msgspec.DecodeError) as error:
            return _json({"error": str(error)}, _BAD_REQUEST)


def _caller(request: web.BaseRequest) -> Caller:
    """The signer of a request: `Credential=KEY/DATE/REGION/SERVICE/aws4_request`."""
    signed = request.headers.get("Authorization", "")
    _, _, credential = signed.partition("Credential=")
    access_key, _, rest = credential.partition("/")
    region = rest.split("/", 2)[1] if rest.count("/") >= 2 else "us-east-1"  # noqa: PLR2004
    return Caller(access_key, sys.intern(region), request.path.strip("/") or "-")


def _half(answer: Answer) -> bytes:
    """An answer that ends in its middle."""
    head = f"HTTP/1.1 {answer.status} OK\r\nContent-Type: {CONTENT_TYPE}\r\nContent-Length: {len(answer.body)}\r\n\r\n"
    return head.encode() + answer.body[: len(answer.body) // 2]


def _sealed(headers: dict[str, str], body: bytes) -> dict[str, str]:
    """Headers with the checksum of the body as it is now."""
    for name in headers:
        if name.lower() == "x-amz-crc32":
            headers[name] = str(crc32(body))
    return headers


def _json(answer: Any, status: int = _OK) -> web.Response:
    return web.Response(body=msgspec.json.encode(answer), status=status, content_type="application/json")
