"""Serves an ASGI application: HTTP/1.1 as clients of AWS speak it, at a fraction of a general server's cost.

A request is handed over when all of it has come; requests of one connection are answered one after the other. Left out:
WebSockets, TLS, and bodies that are handled while they come. What an application raises ends its connection.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
from collections import deque
from collections.abc import Awaitable, Callable, MutableMapping
from http import HTTPStatus
from typing import Any, Final
from urllib.parse import unquote

import httptools

Message = MutableMapping[str, Any]
Application = Callable[
    [MutableMapping[str, Any], Callable[[], Awaitable[Message]], Callable[[Message], Awaitable[None]]], Awaitable[None]
]

_LOG: Final = logging.getLogger(__name__)
_LINES: Final = {status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode() for status in HTTPStatus}
_BODILESS: Final = {HTTPStatus.NO_CONTENT, HTTPStatus.NOT_MODIFIED}
_ASGI: Final = {"version": "3.0", "spec_version": "2.1"}
_END_SECONDS: Final = 5.0


async def serve_until_signalled(application: Application, listener: socket.socket) -> None:
    """Serve until SIGTERM or SIGINT."""
    loop, stop = asyncio.get_running_loop(), asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    await serve(application, listener, stop)


async def serve(application: Application, listener: socket.socket, stop: asyncio.Event) -> None:
    """Serve until `stop` is set, between the application's start and its end."""
    lifespan = _Lifespan(application)
    await lifespan.reach("startup")
    async with asyncio.TaskGroup() as group:
        connections: set[_Connection] = set()
        server = await asyncio.get_running_loop().create_server(
            lambda: _Connection(application, group, connections), sock=listener
        )
        await stop.wait()
        server.close()
        for connection in tuple(connections):
            connection.end()
    await lifespan.reach("shutdown")


class _Lifespan:
    """The application's start and end, as ASGI has them."""

    def __init__(self, application: Application) -> None:
        self._asked: asyncio.Queue[Message] = asyncio.Queue()
        self._answers: asyncio.Queue[Message] = asyncio.Queue()
        scope = {"type": "lifespan", "asgi": _ASGI, "state": {}}
        self._running = asyncio.ensure_future(application(scope, self._asked.get, self._answers.put))

    async def reach(self, stage: str) -> None:
        """Have the application pass a stage; a start that fails is an error, an end that hangs is left."""
        await self._asked.put({"type": f"lifespan.{stage}"})
        answer = asyncio.ensure_future(self._answers.get())
        await asyncio.wait(
            (answer, self._running),
            timeout=_END_SECONDS if stage == "shutdown" else None,
            return_when=asyncio.FIRST_COMPLETED,
        )
        if stage == "startup" and (not answer.done() or answer.result()["type"] != "lifespan.startup.complete"):
            raise RuntimeError("the application did not start")
        answer.cancel()


class _Connection(asyncio.Protocol):
    """One client's connection."""

    def __init__(self, application: Application, group: asyncio.TaskGroup, open_ones: set[_Connection]) -> None:
        self._application = application
        self._group = group
        self._open = open_ones
        self._parser = httptools.HttpRequestParser(self)
        self._waiting: deque[tuple[MutableMapping[str, Any], bytes, bool]] = deque()
        self._task: asyncio.Task[None] | None = None
        self._gone = asyncio.Event()
        self._writable = asyncio.Event()
        self._writable.set()
        self._url = b""
        self._headers: list[tuple[bytes, bytes]] = []
        self._body: list[bytes] = []

    # -- asyncio's side ------------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: Any = transport
        self._open.add(self)

    def connection_lost(self, error: Exception | None) -> None:  # noqa: ARG002 - it is gone, whyever
        self._open.discard(self)
        self._gone.set()
        self._writable.set()

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self._transport.write(_LINES[400] + b"Connection: close\r\nContent-Length: 0\r\n\r\n")
            self._transport.close()

    def end(self) -> None:
        """End the connection, whatever is under way."""
        if self._task is not None:
            self._task.cancel()
        self._transport.abort()

    # -- the parser's side ---------------------------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        self._url, self._headers, self._body = b"", [], []

    def on_url(self, url: bytes) -> None:
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        if any(name == b"expect" and value.lower() == b"100-continue" for name, value in self._headers):
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def on_body(self, body: bytes) -> None:
        self._body.append(body)

    def on_message_complete(self) -> None:
        path, _, query = self._url.partition(b"?")
        scope = {
            "type": "http",
            "asgi": _ASGI,
            "http_version": self._parser.get_http_version(),
            "method": self._parser.get_method().decode("ascii"),
            "scheme": "http",
            "path": unquote(path.decode("latin-1")),
            "raw_path": path,
            "query_string": query,
            "root_path": "",
            "headers": self._headers,
            "client": self._transport.get_extra_info("peername")[:2],
            "server": self._transport.get_extra_info("sockname")[:2],
            "state": {},
            "extensions": {},
        }
        self._waiting.append((scope, b"".join(self._body), self._parser.should_keep_alive()))
        if self._task is None:
            self._task = self._group.create_task(self._answer(), name="requests of a connection")

    # -- the application's side ----------------------------------------------------------------------------------------

    async def _answer(self) -> None:
        while self._waiting and not self._gone.is_set():
            scope, body, keeps = self._waiting.popleft()
            answer = _Answer(self._transport, self._writable, bodiless=scope["method"] == "HEAD")
            try:
                await self._application(scope, _request(body, self._gone), answer.send)
            except Exception:  # noqa: BLE001 - whatever the application raises ends this connection alone
                _LOG.exception("a request failed")
                self._transport.close()
                break
            if not keeps or not answer.is_over:
                self._transport.close()
                break
        self._task = None


def _request(body: bytes, gone: asyncio.Event) -> Callable[[], Awaitable[Message]]:
    """What an application receives: all of the request, then that its client has gone."""
    messages: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive() -> Message:
        if messages:
            return messages.pop()
        await gone.wait()
        return {"type": "http.disconnect"}

    return receive


class _Answer:
    """One response on its way."""

    def __init__(self, transport: Any, writable: asyncio.Event, *, bodiless: bool) -> None:
        self._transport = transport
        self._writable = writable
        self._bodiless = bodiless
        self._head = b""
        self._is_chunked = False
        self.is_over = False

    async def send(self, message: Message) -> None:
        """Take a message of the application."""
        if message["type"] == "http.response.start":
            self._begin(message["status"], message.get("headers", ()))
            return
        body, more = message.get("body", b""), message.get("more_body", False)
        parts, self._head = [self._head], b""
        if body and not self._bodiless:
            parts += [b"%x\r\n" % len(body), body, b"\r\n"] if self._is_chunked else [body]
        if not more and self._is_chunked:
            parts.append(b"0\r\n\r\n")
        self._transport.write(b"".join(parts))
        self.is_over = not more
        if not self._writable.is_set():
            await self._writable.wait()

    def _begin(self, status: int, headers: list[tuple[bytes, bytes]]) -> None:
        self._bodiless = self._bodiless or status in _BODILESS
        line = _LINES.get(status, b"HTTP/1.1 %d -\r\n" % status)
        self._is_chunked = not self._bodiless and not any(name.lower() == b"content-length" for name, _ in headers)
        more = b"Transfer-Encoding: chunked\r\n" if self._is_chunked else b""
        self._head = line + b"".join(b"%b: %b\r\n" % pair for pair in headers) + more + b"\r\n"
