"""The server of the laboratory: HTTP/1.1 with bodies, chunks and connections that stay."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from replicator.laboratory.serving import Message, serve

Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


class Echo:
    """Answers with what came; its path says how."""

    def __init__(self) -> None:
        self.stages: list[str] = []
        self.gone = asyncio.Event()

    async def __call__(self, scope: Any, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            while True:
                stage = (await receive())["type"]
                self.stages.append(stage)
                await send({"type": f"{stage}.complete"})
        request = await receive()
        assert not request["more_body"]
        said = b"%b %b?%b %b" % (
            scope["method"].encode(),
            scope["path"].encode(),
            scope["query_string"],
            request["body"],
        )
        if scope["path"] == "/fails":
            raise LookupError(scope["path"])
        if scope["path"] == "/waits":
            assert (await receive())["type"] == "http.disconnect"
            self.gone.set()
            return
        length = [] if scope["path"] == "/chunks" else [(b"Content-Length", b"%d" % len(said))]
        await send(
            {"type": "http.response.start", "status": 200, "headers": [*length, (b"a", dict(scope["headers"])[b"a"])]}
        )
        if scope["path"] == "/chunks":
            await send({"type": "http.response.body", "body": said, "more_body": True})
            said = b"end"
        await send({"type": "http.response.body", "body": said})


@asynccontextmanager
async def serving() -> AsyncIterator[tuple[Echo, int]]:
    echo, stop, listener = Echo(), asyncio.Event(), socket.create_server(("127.0.0.1", 0))
    async with asyncio.TaskGroup() as group:
        group.create_task(serve(echo, listener, stop))
        yield echo, listener.getsockname()[1]
        stop.set()
    assert echo.stages == ["lifespan.startup", "lifespan.shutdown"]


def request(path: str, body: bytes = b"", *more: str, method: str = "POST") -> bytes:
    lines = (f"{method} {path} HTTP/1.1", "Host: x", "A: 1", f"Content-Length: {len(body)}", *more)
    return "\r\n".join((*lines, "", "")).encode() + body


async def test_requests_of_one_connection_are_answered_in_their_order() -> None:
    async with serving() as (_, port):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        first, second = request("/a%20b?c=d", b"x" * 100_000), request("/e", b"y")
        writer.write(first[:50_000])
        await asyncio.sleep(0)
        writer.write(first[50_000:] + second + request("/chunks", b"z") + request("/head", method="HEAD"))
        body = b"POST /a b?c=d " + b"x" * 100_000
        expected = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\na: 1\r\n\r\n%b" % (len(body), body)
        assert await reader.readexactly(len(expected)) == expected
        expected = b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\na: 1\r\n\r\nPOST /e? y"
        assert await reader.readexactly(len(expected)) == expected
        chunks = b"f\r\nPOST /chunks? z\r\n3\r\nend\r\n0\r\n\r\n"
        expected = b"HTTP/1.1 200 OK\r\na: 1\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks
        assert await reader.readexactly(len(expected)) == expected
        expected = b"HTTP/1.1 200 OK\r\nContent-Length: 12\r\na: 1\r\n\r\n"
        assert await reader.readexactly(len(expected)) == expected
        writer.close()


async def test_a_connection_ends_when_its_client_asks_for_it_or_nothing_can_be_answered() -> None:
    async with serving() as (_, port):
        for asked, answered in (
            (request("/a", b"", "Connection: close"), b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\na: 1\r\n\r\nPOST /a? "),
            (request("/fails"), b""),
            (b"nonsense\r\n\r\n", b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"),
        ):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(asked)
            assert await reader.read() == answered
            writer.close()


async def test_a_client_is_asked_for_a_body_that_it_holds_back() -> None:
    async with serving() as (_, port):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        whole = request("/a", b"body", "Expect: 100-continue")
        writer.write(whole[:-4])
        assert await reader.readexactly(25) == b"HTTP/1.1 100 Continue\r\n\r\n"
        writer.write(whole[-4:])
        assert (await reader.readuntil(b"body")).startswith(b"HTTP/1.1 200 OK")
        writer.close()


@pytest.mark.parametrize("by", ["the client", "the server"])
async def test_what_is_under_way_ends_with_its_connection(by: str) -> None:
    async with serving() as (echo, port):
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(request("/waits"))
        await asyncio.sleep(0.05)
        if by == "the client":
            writer.close()
            await echo.gone.wait()
    writer.close()
