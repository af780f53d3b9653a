"""HTTP/1.1 exchanges on kept connections: one request, one answer, one deadline.

Invariant: a connection carries one exchange at a time and is kept only after an answer was read to its end; after a
cancellation, a deadline or anything unexpected it is closed, also when bytes come that nothing asked for. A request
that may be sent twice and found its kept connection closed before the first byte of an answer goes out on another one.
What follows the usual answer at once, on the same connection, is another exchange with a deadline of its own.
"""

from __future__ import annotations

import asyncio
import random
import ssl
from collections import deque
from collections.abc import Callable

from msgspec import Struct

from replicator.adapters.aws.transport.connection import Answer, BrokenExchange, Connection, Proceed, UsualAnswer
from replicator.adapters.aws.transport.sealing import SealedConnection, Sealing

_KEPT_SECONDS = 15.0
"""A connection that was idle for longer is not used again: the other side may be closing it."""

_MOST_AGE_SECONDS = 600.0
"""A connection that is older is not used again, so that a service that moves to other addresses is followed. Each lives
for half of that at least, so that not all of them end at once."""

_GOES_ON_SECONDS = 1.0
"""For so long requests follow each other without anything else being asked, such as for other credentials."""

_INSTANT = 1e-3
"""Seconds that the timers of a loop need not distinguish."""


class Endpoint(Struct, frozen=True):
    """Where requests go; `tls` is None for plain text."""

    host: str
    port: int
    tls: ssl.SSLContext | None = None


class ConnectTimeout(Exception):
    """A connection was not made in time."""


class ConnectionPool:
    """Connections to one endpoint, at most so many."""

    def __init__(self, endpoint: Endpoint, *, connections: int, connect_seconds: float, read_seconds: float) -> None:
        self._endpoint = endpoint
        self._most = connections
        self._connect_seconds = connect_seconds
        self._read_seconds = read_seconds
        self._open = 0
        self._kept: deque[Connection] = deque()
        """The one that was used last is at the end."""
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._is_closed = False
        self._busy: set[Connection] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._usual = UsualAnswer()
        self._loop: asyncio.AbstractEventLoop | None = None
        """Asked for once: until Python 3.12 every question is a call of the system."""

    async def exchange(  # noqa: C901 - every way in which an exchange ends
        self, prepare: Callable[[], bytes], *, repeatable: bool = False, following: Proceed | None = None
    ) -> Answer:
        """Send what `prepare` gives when a connection is free (it may raise), and await the answer.

        `repeatable`: it changes nothing when the other side gets it twice. Then it goes out once more, prepared anew,
        when a kept connection turns out to be closed. Raises `ConnectTimeout`, `ReadTimeout`, `BrokenExchange`, or what
        the system says of a connection (`OSError`).

        `following` is asked behind the usual answer for what goes out next on the same connection, which `prepare`
        gives from then on; the answer is that to the last one. It is not asked where others wait for a connection, this
        one is to be used no more, or that has gone on for a second.
        """
        if self._open < self._most and not self._waiting:
            self._open += 1
        else:
            await self._slot()
        loop = self._loop
        if loop is None:
            loop = self._loop = asyncio.get_running_loop()
        connection: Connection
        is_used, goes_on_until = False, 0.0

        def proceed(answer: Answer) -> bytes | None:
            nonlocal is_used
            assert following is not None, "else nothing follows"
            now = loop.time()
            if self._waiting or self._is_closed or connection.closed or now >= goes_on_until:
                return None
            request = following(answer)
            if request is not None:
                is_used = True
                connection.due_at = now + self._read_seconds
            return request

        try:
            while True:
                kept = self._take_kept(loop.time())
                is_used = kept is not None
                connection = await self._connect() if kept is None else kept
                try:
                    goes_on_until = min(connection.ends_at, loop.time() + _GOES_ON_SECONDS)
                    then = None if following is None else proceed
                    answer = await self._asked(connection, prepare(), loop, then)
                except BrokenExchange as error:
                    connection.close()
                    if not (repeatable and is_used and error.unanswered):
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

    # -- the usual exchange: the same in steps, for which no coroutine of its own is needed --------------------------

    def begin(self) -> Connection | None:
        """A kept connection for one exchange, if nothing has to be waited for; `ended` or `failed` gives it back."""
        if self._loop is None or self._open >= self._most or self._waiting:
            return None
        connection = self._take_kept(self._loop.time())
        if connection is not None:
            self._open += 1
        return connection

    def asked(self, connection: Connection, request: bytes) -> asyncio.Future[Answer]:
        """Send a request; the future gets its answer, or what `exchange` raises of one."""
        assert self._loop is not None, "it was begun"
        return self._asked(connection, request, self._loop)

    def ended(self, connection: Connection) -> None:
        """The answer came."""
        assert self._loop is not None, "it was begun"
        self._busy.discard(connection)
        self._keep(connection, self._loop.time())
        self._free_slot()

    def failed(self, connection: Connection) -> None:
        """No answer is awaited any more, or nothing was sent."""
        self._busy.discard(connection)
        connection.close()
        self._free_slot()

    def _asked(
        self, connection: Connection, request: bytes, loop: asyncio.AbstractEventLoop, then: Proceed | None = None
    ) -> asyncio.Future[Answer]:
        self._busy.add(connection)
        waiter: asyncio.Future[Answer] = loop.create_future()
        connection.send(request, waiter, then)
        connection.due_at = loop.time() + self._read_seconds
        if self._timer is None:
            self._timer = loop.call_at(connection.due_at, self._time_out)
        return waiter

    # -- deadlines: they come in the order of their exchanges, so one timer at the first of them does for all ----------

    def _time_out(self) -> None:
        loop, self._timer = asyncio.get_running_loop(), None
        for connection in [each for each in self._busy if each.awaits and each.due_at - loop.time() <= _INSTANT]:
            connection.time_out()
        first = min((each.due_at for each in self._busy if each.awaits), default=None)
        if first is not None:
            self._timer = loop.call_at(first, self._time_out)

    # -- connections -------------------------------------------------------------------------------------------------

    def _keep(self, connection: Connection, now: float) -> None:
        """Keep a connection for later, and none of those that stood too long: what a burst opened does not stay."""
        if connection.closed or self._is_closed:
            connection.close()
            return
        connection.idle_since = now
        self._kept.append(connection)
        while self._kept and (self._kept[0].closed or now - self._kept[0].idle_since > _KEPT_SECONDS):
            self._kept.popleft().close()

    def _take_kept(self, now: float) -> Connection | None:
        """The connection that was used last; those that stood too long or are too old are closed."""
        while self._kept:
            connection = self._kept.pop()
            if not connection.closed and now - connection.idle_since <= _KEPT_SECONDS and now < connection.ends_at:
                return connection
            connection.close()
        return None

    async def _connect(self) -> Connection:
        endpoint, loop = self._endpoint, asyncio.get_running_loop()
        connection: Connection
        try:
            async with asyncio.timeout(self._connect_seconds):
                if endpoint.tls is None:
                    _, connection = await loop.create_connection(
                        lambda: Connection(self._usual), endpoint.host, endpoint.port
                    )
                else:
                    connection = await self._sealed(endpoint.tls)
        except TimeoutError as error:
            raise ConnectTimeout(f"no connection to {endpoint.host} in {self._connect_seconds:g} s") from error
        lives = _MOST_AGE_SECONDS * random.uniform(0.5, 1.0)  # noqa: S311 - spreads, does not hide
        connection.ends_at = loop.time() + lives
        return connection

    async def _sealed(self, tls: ssl.SSLContext) -> SealedConnection:
        endpoint, loop = self._endpoint, asyncio.get_running_loop()
        ready: asyncio.Future[None] = loop.create_future()
        sealing = Sealing(tls, endpoint.host)
        connection = SealedConnection(sealing, ready, self._usual)
        try:
            await loop.create_connection(lambda: connection, endpoint.host, endpoint.port)
            await ready
        except BaseException:
            ready.cancel()
            connection.close()
            raise
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
