"""A region's endpoint that fails on command: a proxy that refuses, hangs, throttles, denies, or answers like a proxy.

It runs in a thread with a loop of its own, so that a test may block. It counts what it was asked, before it fails: what
the program sends is judged here, not by what the program says.
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
import json
import re
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from email.utils import formatdate
from time import time
from types import TracebackType
from typing import Any, Self

WRITES = frozenset({"PutItem", "UpdateItem", "DeleteItem", "TransactWriteItems", "BatchWriteItem"})
_SECONDS = 30.0
_CREATED = re.compile(rb'("ApproximateCreationDateTime": ?)([0-9]{10})\b')
_DATE = re.compile(rb"^date: [^\r]*", re.IGNORECASE | re.MULTILINE)
_JSON = "application/x-amz-json-1.0"


class Fault(enum.Enum):
    """How an endpoint fails."""

    REFUSE = "refuse"  # no connection is accepted, and those that were open break
    HANG = "hang"  # accepts, and never answers
    HALF = "half"  # stops in the middle of an answer, and never goes on
    THROTTLE = "throttle"  # the table's throughput is exceeded
    TOO_FAST = "too_fast"  # the account's limit is exceeded
    ERROR = "error"  # an internal error of the service
    PAGE = "page"  # what a proxy says of a service that it does not reach
    DENIED = "denied"  # the role lost its permission


_ANSWERS: dict[Fault, tuple[int, str, bytes]] = {
    fault: (status, _JSON, json.dumps({"__type": f"com.amazonaws.dynamodb.v20120810#{name}", "message": why}).encode())
    for fault, status, name, why in (
        (Fault.THROTTLE, 400, "ProvisionedThroughputExceededException", "The level of throughput was exceeded."),
        (Fault.TOO_FAST, 400, "ThrottlingException", "Rate of requests exceeds the allowed throughput."),
        (Fault.ERROR, 500, "InternalServerError", "The request could not be processed."),
        (Fault.DENIED, 400, "AccessDeniedException", "User: role is not authorized to perform this action."),
    )
} | {Fault.PAGE: (502, "text/html", b"<html><body><h1>502 Bad Gateway</h1></body></html>")}


@dataclass(frozen=True, slots=True)
class Asked:
    """A request: its operation, and its body as it came."""

    operation: str
    body: bytes

    def names(self, table: str) -> bool:
        """Whether it is about a table; a stream's name contains its table's."""
        return f'"{table}"'.encode() in self.body or f":table/{table}/stream/".encode() in self.body


def about(*tables: str) -> Callable[[Asked], bool]:
    """Requests that name one of some tables."""
    return lambda asked: any(map(asked.names, tables))


class FaultyEndpoint:
    """A proxy in front of a server on this machine."""

    def __init__(self, target: int) -> None:
        """`target`: the server's port."""
        self._target = target
        self._fault: Fault | None = None
        self._concerns: Callable[[Asked], bool] = bool
        self._open: set[asyncio.StreamWriter] = set()
        self._server: asyncio.Server | None = None
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name=f"proxy of {target}", daemon=True)
        self._stuck = asyncio.Event()
        self.port = 0
        self.asked: Counter[str] = Counter()
        """Requests by operation, also those that were failed."""
        self.writes: Counter[str] = Counter()
        """Writes by table, of those that were let through."""
        self.ahead_seconds = 0.0
        """How far its clock is ahead, by the `Date` of its answers and the times of records."""

    def __enter__(self) -> Self:
        """Serve."""
        self._thread.start()
        self._do(self._listen())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """End everything."""
        self._do(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(_SECONDS)
        self._loop.close()

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.port}"

    def _later(self, found: re.Match[bytes]) -> bytes:
        return found[1] + str(int(found[2]) + round(self.ahead_seconds)).encode()

    def fail(self, fault: Fault, concerns: Callable[[Asked], bool] | None = None) -> None:
        """Fail from now on: everything, or the requests that a predicate names. Never heals by itself."""
        self._do(self._begin(fault, concerns))

    def heal(self) -> None:
        """Work again. What hangs goes on hanging, as on a connection whose other side is gone."""
        self._do(self._heal())

    # -- its loop ------------------------------------------------------------------------------------------------------

    def _do(self, work: Any) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(_SECONDS)

    async def _listen(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port, limit=2**20)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _close(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None
        for writer in tuple(self._open):
            writer.transport.abort()

    async def _begin(self, fault: Fault, concerns: Callable[[Asked], bool] | None) -> None:
        if fault is Fault.REFUSE:
            await self._close()
        elif self._server is None:
            await self._listen()
        self._fault, self._concerns = fault, concerns or (lambda _: True)

    async def _heal(self) -> None:
        self._fault = None
        if self._server is None:
            await self._listen()

    async def _end(self) -> None:
        await self._close()
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open.add(writer)
        upstream: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        try:
            while True:
                head, body = await _message(reader)
                if upstream is None:
                    upstream = await asyncio.open_connection("127.0.0.1", self._target)
                await self._answer(_asked(head, body), head + body, upstream, writer)
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            self._open.discard(writer)
            for each in (writer, *([upstream[1]] if upstream else [])):
                each.transport.abort()

    async def _answer(
        self,
        asked: Asked,
        request: bytes,
        upstream: tuple[asyncio.StreamReader, asyncio.StreamWriter],
        writer: asyncio.StreamWriter,
    ) -> None:
        self.asked[asked.operation] += 1
        fault = self._fault if self._concerns(asked) else None
        if fault in _ANSWERS:
            writer.write(_response(*_ANSWERS[fault]))
        elif fault is Fault.HANG:
            await self._stuck.wait()
        else:
            if asked.operation in WRITES:
                self.writes.update(_tables(asked.body))
            upstream[1].write(request)
            head, body = await _message(upstream[0])
            if self.ahead_seconds:
                head = _DATE.sub(b"Date: " + formatdate(time() + self.ahead_seconds, usegmt=True).encode(), head)
                body = _CREATED.sub(self._later, body)
            if fault is Fault.HALF:
                writer.write(head + body[: len(body) // 2])
                await self._stuck.wait()
            writer.write(head + body)
        with contextlib.suppress(ConnectionError):
            await writer.drain()


async def _message(reader: asyncio.StreamReader) -> tuple[bytes, bytes]:
    head = await reader.readuntil(b"\r\n\r\n")
    length = _header(head, b"content-length")
    if length is not None:
        return head, await reader.readexactly(int(length))
    body = b""
    if _header(head, b"transfer-encoding") == b"chunked":
        while not body.endswith(b"0\r\n\r\n"):
            size = await reader.readuntil(b"\r\n")
            body += size + await reader.readexactly(int(size, 16) + 2)
    return head, body


def _header(head: bytes, name: bytes) -> bytes | None:
    for line in head.split(b"\r\n")[1:]:
        found, _, value = line.partition(b":")
        if found.strip().lower() == name:
            return value.strip()
    return None


def _asked(head: bytes, body: bytes) -> Asked:
    target = _header(head, b"x-amz-target") or b""
    return Asked(target.rpartition(b".")[2].decode(), body)


def _tables(body: bytes) -> set[str]:
    found: set[str] = set()

    def seek(value: Any) -> None:
        if isinstance(value, dict):
            if isinstance(value.get("TableName"), str):
                found.add(value["TableName"])
            for each in value.values():
                seek(each)
        elif isinstance(value, list):
            for each in value:
                seek(each)

    request = json.loads(body)
    if "TransactItems" in request:
        seek(request["TransactItems"])
    else:
        found |= {request["TableName"]} if "TableName" in request else set(request.get("RequestItems", ()))
    return found


def _response(status: int, kind: str, body: bytes) -> bytes:
    head = f"HTTP/1.1 {status} -\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body
