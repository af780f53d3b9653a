"""One connection of HTTP/1.1: one exchange at a time, read by a parser that calls back.

Invariant: bytes that nothing asked for end it, and so does whatever is not HTTP.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import cast

import msgspec

try:
    import httptools
except ImportError:  # no wheel for this platform; `choice` leaves the calls to the stock client then
    httptools = None  # type: ignore[assignment]

_CHECKSUM, _DATE, _BOUNDS, _OTHER = range(4)
_HEADERS = {
    b"x-amz-crc32": _CHECKSUM,
    b"date": _DATE,
    b"content-length": _BOUNDS,
    b"transfer-encoding": _BOUNDS,
}
_SPELLED = dict(_HEADERS)
"""Names of headers as they came, with what they are; a few, since a service writes them always the same way."""

_USUAL_STATUS, _USUAL_BODY = 200, b"{}"
_REQUEST_ID = b"\r\nx-amzn-requestid: "
_MOST_SPELLINGS = 64
_INFORMATIONAL = range(100, 200)
_UPGRADED = 101

_MOST_BYTES = 64 * 1024 * 1024
"""An answer that is longer is none of this service's."""


def is_supported() -> bool:
    """Whether there is a parser of HTTP on this platform."""
    return httptools is not None


class Answer(msgspec.Struct, gc=False):
    """An answer, with the headers that matter; names are in lower case."""

    status: int
    body: bytes
    checksum: str | None = None
    date: str | None = None


class UsualAnswer:
    """The answer that most writes get, so that another one that is spelled alike is known without being parsed.

    What is spelled alike means the same: every byte is that of an answer that the parser has read to its end, and
    behind which the connection was kept, but for the id of the request, which is letters and digits here and there.
    """

    __slots__ = ("_before", "_behind", "_size", "answer")

    def __init__(self) -> None:
        self.answer = Answer(0, b"")
        self._before = self._behind = b""
        self._size = -1

    def is_meant_by(self, data: bytes) -> bool:
        """Whether these bytes are that answer, whole and nothing else."""
        return (
            len(data) == self._size
            and data.startswith(self._before)
            and data.endswith(self._behind)
            and data[len(self._before) : self._size - len(self._behind)].isalnum()
        )

    def learn(self, data: bytes, answer: Answer) -> None:
        """Take what was read of these bytes, which are one whole answer, for the usual one, if it has such an id."""
        begin = data.lower().find(_REQUEST_ID) + len(_REQUEST_ID)
        end = data.find(b"\r\n", begin)
        if begin >= len(_REQUEST_ID) and data[begin:end].isalnum():
            self.answer, self._size = answer, len(data)
            self._before, self._behind = data[:begin], data[end:]


Proceed = Callable[[Answer], bytes | None]
"""What follows the usual answer on the same connection; None: nothing, and the exchange ends with that answer."""


class BrokenExchange(Exception):
    """A connection ended, or carried something that is not HTTP. `unanswered`: not one byte had come."""

    def __init__(self, why: str, *, unanswered: bool) -> None:
        super().__init__(why)
        self.unanswered = unanswered


class ReadTimeout(Exception):
    """An answer did not come in time."""


class Connection(asyncio.Protocol):
    """One connection; the parser calls `on_*`."""

    def __init__(self, usual: UsualAnswer | None = None) -> None:
        """`usual`: shared by the connections to one endpoint."""
        self.idle_since = 0.0
        self.ends_at = 0.0
        """When it is too old to be used again."""
        self.due_at = 0.0
        """When the present exchange ends at the latest."""
        self._transport: asyncio.Transport | None = None
        self._parser = httptools.HttpResponseParser(self)
        self._waiter: asyncio.Future[Answer] | None = None
        self._proceed: Proceed | None = None
        self._out: Callable[[bytes], object] = _not_yet
        """What takes the bytes of a request."""
        self._usual = usual or UsualAnswer()
        self._answer = Answer(0, b"")
        self._parts: list[bytes] = []
        self._size = 0
        self._begun = False
        self._is_bounded = self._until_end = False
        """Whether the body of the present answer has no other end than that of the connection."""
        self.closed = False

    # -- by the loop -------------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """It is there."""
        self._transport = cast("asyncio.Transport", transport)  # not a subclass in every loop
        self._out = self._transport.write
        connected = transport.get_extra_info("socket")
        if connected is not None:
            connected.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)

    def data_received(self, data: bytes) -> None:
        """Some bytes came."""
        waiter = self._waiter
        if waiter is None:  # nothing was asked, so it answers nothing of ours
            self.close()
            return
        if not self._begun and self._usual.is_meant_by(data):
            self._take_usual(waiter)
            return
        is_first = not self._begun
        self._begun = True
        self._size += len(data)
        try:
            if self._size > _MOST_BYTES:
                raise httptools.HttpParserError("the answer is too long")  # noqa: TRY301 - one end for both
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            self._fail(f"the answer is not HTTP ({error})")
            return
        if is_first and self._waiter is None and not self.closed:
            self._learn(data, waiter)

    def _take_usual(self, waiter: asyncio.Future[Answer]) -> None:
        """The usual answer came, whole and nothing else: what follows goes out at once, if something does.

        A waiter that is done was given up by its caller: then nothing follows, and the connection is used no more.
        """
        if self._proceed is not None and not waiter.done():
            try:
                request = self._proceed(self._usual.answer)
                if request is not None:
                    self._out(request)
                    return
            except Exception as error:  # noqa: BLE001 - the caller gets it
                self._waiter = None
                waiter.set_exception(error)
                return
        self._waiter = None
        if not waiter.done():
            waiter.set_result(self._usual.answer)

    def _learn(self, data: bytes, waiter: asyncio.Future[Answer]) -> None:
        """These bytes were one whole answer, and the connection is kept."""
        if data.endswith(_USUAL_BODY) and waiter.done() and not waiter.cancelled() and waiter.exception() is None:
            answer = waiter.result()
            if answer.status == _USUAL_STATUS and answer.body == _USUAL_BODY:
                self._usual.learn(data, answer)

    def eof_received(self) -> bool:
        """The other side sends no more: then it is closed."""
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """It is gone; an answer that has no other end is whole then."""
        was_closed, self.closed = self.closed, True
        if exc is None and self._until_end and not was_closed:
            self._finish()
        self._fail("the connection was closed" if exc is None else f"the connection broke ({exc})")

    # -- by the parser -----------------------------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        """An answer begins."""
        if self._waiter is None:  # a second answer to one request: the next one would be taken for another's
            self.close()
        self._is_bounded = False

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header, with its name as it was written."""
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
        """The body follows."""
        self._until_end = not self._is_bounded

    def on_body(self, body: bytes) -> None:
        """A part of the body."""
        self._parts.append(body)

    def on_message_complete(self) -> None:
        """The answer is whole."""
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

    def send(self, request: bytes, waiter: asyncio.Future[Answer], proceed: Proceed | None = None) -> None:
        """Send a request whose answer the future gets, or the answer to the last one of those that follow it."""
        self._waiter, self._begun, self._proceed = waiter, False, proceed
        self._out(request)

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


def _not_yet(_: bytes) -> None:
    raise AssertionError("a connection is used when it is there")


def _meaning(name: bytes) -> int:
    """What a header is, which may be spelled in upper and lower case."""
    what = _HEADERS.get(name.lower(), _OTHER)
    if len(_SPELLED) < _MOST_SPELLINGS:
        _SPELLED[name] = what
    return what
