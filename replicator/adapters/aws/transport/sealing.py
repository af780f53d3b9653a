"""TLS of one connection, without a layer of the loop: bytes of the wire in, bytes of the application out.

What the loop's own layer does for every answer, this does not: it asks for more until there is none, which is an
exception each time. Trust, versions and names are those of the context that is given. Invariant: nothing is sealed
before the other side has proven to be who it should be, and a connection that only broke off has not ended.
"""

from __future__ import annotations

import asyncio
import ssl

from replicator.adapters.aws.transport.connection import Connection, UsualAnswer

_LONGEST_RECORD = 16_384
"""Bytes that one record of TLS holds at most, so that nothing of it is left when so many are read."""


class Sealing:
    """One side of a connection. All of it may raise `ssl.SSLError`, behind which the connection is of no use."""

    def __init__(self, context: ssl.SSLContext, host: str) -> None:
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname=host)
        self.is_agreed = False
        """Whether the handshake is through."""
        self.is_ended = False
        """Whether the other side has said that nothing follows."""

    def agree(self) -> None:
        """Go on with the handshake, as far as the other side has."""
        try:
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            return
        self.is_agreed = True

    def sealed(self, content: bytes) -> bytes:
        """What goes over the wire for some content."""
        assert self.is_agreed, "a connection is used behind its handshake"
        written = self._tls.write(content)
        while written < len(content):
            written += self._tls.write(memoryview(content)[written:])
        return self._outgoing.read()

    def opened(self, data: bytes) -> list[bytes]:
        """What came over the wire, as content; none while there is no whole record."""
        self._incoming.write(data)
        if not self.is_agreed:
            self.agree()
        found: list[bytes] = []
        try:
            while self.is_agreed and self._incoming.pending:
                content = self._tls.read(_LONGEST_RECORD)
                if not content:
                    self.is_ended = True
                    break
                found.append(content)
        except ssl.SSLWantReadError:
            pass  # the rest of a record, or what is no content, such as a ticket
        return found

    def unsent(self) -> bytes:
        """What the protocol itself has to send: of the handshake, or answers to what the other side changes."""
        return self._outgoing.read() if self._outgoing.pending else b""


class SealedConnection(Connection):
    """One connection under TLS; `ready` is done when the other side has proven who it is."""

    def __init__(self, sealing: Sealing, ready: asyncio.Future[None], usual: UsualAnswer | None = None) -> None:
        super().__init__(usual)
        self._sealing = sealing
        self._ready = ready

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin the handshake."""
        super().connection_made(transport)
        self._out = self._seal
        self._sealing.agree()
        self._flush()

    def data_received(self, data: bytes) -> None:
        """Some bytes of the wire came."""
        sealing = self._sealing
        try:
            found = sealing.opened(data)
        except ssl.SSLError as error:
            self._flush()  # what is wrong with the other side is said to it
            if self._ready.done():
                self._fail(f"the connection broke ({error})")
            else:
                self._ready.set_exception(error)
                self.close()
            return
        for content in found:
            super().data_received(content)
        self._flush()
        if sealing.is_agreed and not self._ready.done():
            self._ready.set_result(None)
        if sealing.is_ended and self._transport is not None:
            self._transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        """It is gone; unless that was announced, no answer is whole by it."""
        if not self._sealing.is_ended:  # it broke off, wherever that was
            self._until_end = False
        super().connection_lost(exc)
        if not self._ready.done():
            self._ready.set_exception(exc or ConnectionResetError("the connection was closed in its handshake"))

    def _seal(self, request: bytes) -> None:
        assert self._transport is not None, "it was made before"
        self._transport.write(self._sealing.sealed(request))

    def _flush(self) -> None:
        unsent = self._sealing.unsent()
        if unsent and self._transport is not None:
            self._transport.write(unsent)
