"""HTTP/1.1 exchanges on kept connections: one request, one answer, one deadline.

Invariant: a connection carries one exchange at a time and is kept only after an answer was read to its end; after a
cancellation, a deadline or anything unexpected it is closed, also when bytes come that nothing asked for. A request
that may be sent twice and found its kept connection closed before the first byte of an answer goes out on another one.
"""

from __future__ import annotations

import asyncio
import random
import socket
import ssl
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

import msgspec

try:
    import httptools
except ImportError:  # no wheel for this platform; `choice` leaves the calls to the stock client then
    httptools = None  # type: ignore[assignment]

_KEPT_SECONDS = 15.0
"""A connection that was idle for longer is not used again: the other side may be closing it."""

_MOST_AGE_SECONDS = 600.0
"""A connection that is older is not used again, so that a service that moves to other addresses is followed. Each lives
for half of that at least, so that not all of them end at once."""

_CHECKSUM, _DATE, _BOUNDS, _OTHER = range(4)
_HEADERS = {
    b"x-amz-crc32": _CHECKSUM,
    b"date": _DATE,
    b"content-length": _BOUNDS,
    b"transfer-encoding": _BOUNDS,
}
_SPELLED = dict(_HEADERS)
"""Names of headers as they came, with what they are; a few, since a service writes them always the same way."""

_MOST_SPELLINGS = 64
_INFORMATIONAL = range(100, 200)
_UPGRADED = 101

_INSTANT = 1e-3
"""Seconds that the timers of a loop need not distinguish."""

_MOST_BYTES = 64 * 1024 * 1024
"""An answer that is longer is none of this service's."""


def is_supported() -> bool:
    """Whether there is a parser of HTTP on this platform."""
    return httptools is not None


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where requests go; `tls` is None for plain text."""

    host: str
    port: int
    tls: ssl.SSLContext | None = None


class Answer(msgspec.Struct):
    """An answer, with the headers that matter; names are in lower case."""

    status: int
    body: bytes
    checksum: str | None = None
    date: str | None = None


class BrokenExchange(Exception):
    """A connection ended, or carried something that is not HTTP. `unanswered`: not one byte had come."""

    def __init__(self, why: str, *, unanswered: bool) -> None:
        super().__init__(why)
        self.unanswered = unanswered


class ConnectTimeout(Exception):
    """A connection was not made in time."""


class ReadTimeout(Exception):
    """An answer did not come in time."""


class _Connection(asyncio.Protocol):
    """One connection; the parser calls `on_*`."""

    def __init__(self) -> None:
        self.idle_since = 0.0
        self.ends_at = 0.0
        """When it is too old to be used again."""
        self.due_at = 0.0
        """When the present exchange ends at the latest."""
        self._transport: asyncio.Transport | None = None
        self._parser = httptools.HttpResponseParser(self)
        self._waiter: asyncio.Future[Answer] | None = None
        self._answer = Answer(0, b"")
        self._parts: list[bytes] = []
        self._size = 0
        self._begun = False
        self._is_bounded = self._until_end = False
        """Whether the body of the present answer has no other end than that of the connection."""
        self.closed = False

    # -- by the loop -------------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # not a subclass in every loop
        connected = transport.get_extra_info("socket")
        if connected is not None:
            connected.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)

    def data_received(self, data: bytes) -> None:
        if self._waiter is None:  # nothing was asked, so it answers nothing of ours
            self.close()
            return
        self._begun = True
        self._size += len(data)
        try:
            if self._size > _MOST_BYTES:
                raise httptools.HttpParserError("the answer is too long")  # noqa: TRY301 - one end for both
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            self._fail(f"the answer is not HTTP ({error})")

    def eof_received(self) -> bool:
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        was_closed, self.closed = self.closed, True
        if exc is None and self._until_end and not was_closed:
            self._finish()
        self._fail("the connection was closed" if exc is None else f"the connection broke ({exc})")

    # -- by the parser -----------------------------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        if self._waiter is None:  # a second answer to one request: the next one would be taken for another's
            self.close()
        self._is_bounded = False

    def on_header(self, name: bytes, value: bytes) -> None:
        what = _SPELLED.get(name)
        if what is None:
            what = _meaning(name)
        if what == _BOUNDS:
            self._is_bounded = True
        elif what == _CHECKSUM:
            self._answer.checksum = value.decode("latin-1")
        elif what == _DATE:
            self._answer.date = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        self._until_end = not self._is_bounded

    def on_body(self, body: bytes) -> None:
        self._parts.append(body)

    def on_message_complete(self) -> None:
        status = self._parser.get_status_code()
        if status in _INFORMATIONAL and status != _UPGRADED:  # the answer follows
            self._answer, self._parts, self._until_end = Answer(0, b""), [], False
            return
        if not self._parser.should_keep_alive():
            self.close()
        self._finish()

    def _finish(self) -> None:
        waiter, self._waiter = self._waiter, None
        answer, parts = self._answer, self._parts
        answer.status = self._parser.get_status_code()
        answer.body = parts[0] if len(parts) == 1 else b"".join(parts)
        self._answer, self._parts, self._size, self._until_end = Answer(0, b""), [], 0, False
        if waiter is not None and not waiter.done():
            waiter.set_result(answer)

    # -- by the pool -------------------------------------------------------------------------------------------------

    def send(self, head: bytes, body: bytes, waiter: asyncio.Future[Answer]) -> None:
        """Send a request whose answer the future gets."""
        assert self._transport is not None
        self._waiter, self._begun = waiter, False
        self._transport.write(head + body)

    @property
    def awaits(self) -> bool:
        """Whether it is at an exchange."""
        return self._waiter is not None and not self._waiter.done()

    def time_out(self) -> None:
        """The present exchange has taken too long."""
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_exception(ReadTimeout("no answer in time"))

    def close(self) -> None:
        """Use the connection no more."""
        was_closed, self.closed = self.closed, True
        if self._transport is not None and not was_closed:
            self._transport.abort()

    def _fail(self, why: str) -> None:
        waiter, self._waiter = self._waiter, None
        if not self.closed:
            self.close()
        if waiter is not None and not waiter.done():
            waiter.set_exception(BrokenExchange(why, unanswered=not self._begun))


def _meaning(name: bytes) -> int:
    """What a header is, which may be spelled in upper and lower case."""
    what = _HEADERS.get(name.lower(), _OTHER)
    if len(_SPELLED) < _MOST_SPELLINGS:
        _SPELLED[name] = what
    return what


class ConnectionPool:
    """Connections to one endpoint, at most so many."""

    def __init__(self, endpoint: Endpoint, *, connections: int, connect_seconds: float, read_seconds: float) -> None:
        self._endpoint = endpoint
        self._most = connections
        self._connect_seconds = connect_seconds
        self._read_seconds = read_seconds
        self._open = 0
        self._kept: deque[_Connection] = deque()
        """The one that was used last is at the end."""
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._is_closed = False
        self._busy: set[_Connection] = set()
        self._timer: asyncio.TimerHandle | None = None

    async def exchange(self, prepare: Callable[[], tuple[bytes, bytes]], *, repeatable: bool = False) -> Answer:
        """Send what `prepare` gives when a connection is free (head and body; it may raise), and await the answer.

        `repeatable`: it changes nothing when the other side gets it twice. Then it goes out once more, prepared anew,
        when a kept connection turns out to be closed. Raises `ConnectTimeout`, `ReadTimeout`, `BrokenExchange`, or what
        the system says of a connection (`OSError`).
        """
        if self._open < self._most and not self._waiting:
            self._open += 1
        else:
            await self._slot()
        loop = asyncio.get_running_loop()
        try:
            while True:
                connection = kept = self._take_kept(loop.time())
                if connection is None:
                    connection = await self._connect()
                self._busy.add(connection)
                try:
                    head, body = prepare()
                    waiter: asyncio.Future[Answer] = loop.create_future()
                    connection.send(head, body, waiter)
                    connection.due_at = loop.time() + self._read_seconds
                    if self._timer is None:
                        self._timer = loop.call_at(connection.due_at, self._time_out)
                    answer = await waiter
                except BrokenExchange as error:
                    connection.close()
                    if not (repeatable and kept is not None and error.unanswered):
                        raise
                except BaseException:
                    connection.close()
                    raise
                else:
                    self._keep(connection, loop.time())
                    return answer
                finally:
                    self._busy.discard(connection)
        finally:
            self._free_slot()

    # -- deadlines: they come in the order of their exchanges, so one timer at the first of them does for all ----------

    def _time_out(self) -> None:
        loop, self._timer = asyncio.get_running_loop(), None
        for connection in [each for each in self._busy if each.awaits and each.due_at - loop.time() <= _INSTANT]:
            connection.time_out()
        first = min((each.due_at for each in self._busy if each.awaits), default=None)
        if first is not None:
            self._timer = loop.call_at(first, self._time_out)

    # -- connections -------------------------------------------------------------------------------------------------

    def _keep(self, connection: _Connection, now: float) -> None:
        """Keep a connection for later, and none of those that stood too long: what a burst opened does not stay."""
        if connection.closed or self._is_closed:
            connection.close()
            return
        connection.idle_since = now
        self._kept.append(connection)
        while self._kept and (self._kept[0].closed or now - self._kept[0].idle_since > _KEPT_SECONDS):
            self._kept.popleft().close()

    def _take_kept(self, now: float) -> _Connection | None:
        """The connection that was used last; those that stood too long or are too old are closed."""
        while self._kept:
            connection = self._kept.pop()
            if not connection.closed and now - connection.idle_since <= _KEPT_SECONDS and now < connection.ends_at:
                return connection
            connection.close()
        return None

    async def _connect(self) -> _Connection:
        endpoint = self._endpoint
        try:
            async with asyncio.timeout(self._connect_seconds):
                _, connection = await asyncio.get_running_loop().create_connection(
                    _Connection,
                    endpoint.host,
                    endpoint.port,
                    ssl=endpoint.tls,
                    server_hostname=endpoint.host if endpoint.tls is not None else None,
                )
        except TimeoutError as error:
            raise ConnectTimeout(f"no connection to {endpoint.host} in {self._connect_seconds:g} s") from error
        lives = _MOST_AGE_SECONDS * random.uniform(0.5, 1.0)  # noqa: S311 - spreads, does not hide
        connection.ends_at = asyncio.get_running_loop().time() + lives
        return connection

    # -- slots -------------------------------------------------------------------------------------------------------

    async def _slot(self) -> None:
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():  # the slot came with the cancellation: hand it on
                self._free_slot()
            raise

    def _free_slot(self) -> None:
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                return
        self._open -= 1

    def close(self) -> None:
        """Close what is kept; what is under way is closed when it ends."""
        self._is_closed = True
        for connection in self._kept:
            connection.close()
        self._kept.clear()
