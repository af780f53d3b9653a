"""An answer that is known by its bytes means what the parser of HTTP reads in it; everything else is parsed."""

from __future__ import annotations

import asyncio
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from replicator.adapters.aws.transport.connection import Connection, UsualAnswer

_HEAD = (
    b"HTTP/1.1 200 OK\r\nServer: Server\r\nDate: Sun, 29 Nov 2026 18:20:00 GMT\r\n"
    b"Content-Type: application/x-amz-json-1.0\r\nContent-Length: 2\r\nConnection: keep-alive\r\n"
)
_ID = b"x-amzn-RequestId: "
_TAIL = b"\r\nx-amz-crc32: 2745614147\r\n\r\n{}"
_PARTS = [
    b"",
    b"\r\n",
    b"\r\n\r\n",
    b"{}",
    b": ",
    b"\x00",
    b"connection: close\r\n",
    b"Content-Length: 3\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"Z7",
    b"HTTP/1.1 200 OK\r\n",
    b"500",
]


class _Wire:
    """A transport that only remembers whether it was given up."""

    aborted = False

    def get_extra_info(self, _name: str) -> None:
        return None

    def write(self, _data: bytes) -> None:
        return

    def abort(self) -> None:
        self.aborted = True


def _usual(number: str) -> bytes:
    return _HEAD + _ID + number.encode() + _TAIL


async def _outcomes(usual: UsualAnswer, exchanges: list[list[bytes]]) -> list[Any]:
    """What comes of every exchange of one connection, and whether that is given up then."""
    wire, loop = _Wire(), asyncio.get_running_loop()
    found: list[Any] = []
    connection = Connection(usual)
    connection.connection_made(wire)  # type: ignore[arg-type]
    for pieces in exchanges:
        waiter: asyncio.Future[Any] = loop.create_future()
        connection.send(b"", waiter)
        for piece in pieces:
            if not connection.closed:
                connection.data_received(piece)
        if not waiter.done():
            found.append(None)
        elif (error := waiter.exception()) is not None:
            found.append(str(error))
        else:
            found.append(waiter.result())
        found.append((connection.closed, wire.aborted))
        if connection.closed or not waiter.done():
            break
    return found


@st.composite
def _exchanges(draw: st.DrawFn) -> list[list[bytes]]:
    """Usual answers, some of them changed at one place, in one piece or in several."""
    exchanges = []
    for number in draw(st.lists(st.text("AZ09", min_size=4, max_size=4), min_size=1, max_size=4)):
        data = _usual(number)
        if draw(st.booleans()):
            start = draw(st.integers(0, len(data)))
            end = draw(st.integers(start, min(len(data), start + 4)))
            data = data[:start] + draw(st.sampled_from(_PARTS) | st.binary(max_size=3)) + data[end:]
        cut = draw(st.integers(0, len(data)) | st.just(len(data)))
        exchanges.append([piece for piece in (data[:cut], data[cut:]) if piece])
    return exchanges


@given(exchanges=_exchanges())
@settings(max_examples=300, deadline=None)
def test_what_is_known_by_its_bytes_means_what_the_parser_reads(exchanges: list[list[bytes]]) -> None:
    async def both() -> None:
        known = UsualAnswer()
        assert (await _outcomes(known, [[_usual("AAAA")]]))[0].status == 200
        assert known.is_meant_by(_usual("ZZ99")), "it was learned"
        learned = await _outcomes(known, exchanges)
        assert learned == await _outcomes(_Never(), exchanges)

    asyncio.run(both())


class _Never(UsualAnswer):
    """Nothing is usual: everything is parsed."""

    def learn(self, data: bytes, answer: Any) -> None:
        """Forget it."""


def test_only_what_keeps_its_connection_is_learned() -> None:
    async def learned(data: bytes) -> bool:
        usual = UsualAnswer()
        await _outcomes(usual, [[data]])
        return usual.is_meant_by(data)

    async def all_of_them() -> None:
        assert await learned(_usual("A"))
        assert not await learned(_usual("A").replace(b"keep-alive", b"close"))
        assert not await learned(_usual("A").replace(b"200 OK", b"400 No"))
        assert not await learned(_usual("A-1")), "what an id holds may be more than letters and digits"
        assert not await learned(_usual("A") + b"\r\nHTTP/1.1 200 OK\r\n")

    asyncio.run(all_of_them())
