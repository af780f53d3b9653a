"""An address that takes one event a request, signed.

Invariant: only a 2xx counts as taken. Redirects are not followed, and a name that leads to a private address is not
connected to unless that is allowed, so no answer can send items elsewhere. Neither path nor query is in any error.
"""

from __future__ import annotations

import socket
from collections.abc import Mapping, Sequence
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from ipaddress import ip_address
from typing import Any

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult

from replicator import __version__
from replicator.adapters.sinks.encoding import Batch
from replicator.adapters.sinks.oversize import BucketOfData
from replicator.adapters.sinks.signatures import signed_headers
from replicator.domain.errors import (
    AccessRefused,
    PoisonRecord,
    ReplicatorError,
    SinkGone,
    SinkMissing,
    Throttled,
    Unreachable,
)
from replicator.domain.item_events import CONTENT_TYPE, EventShape, ItemEvent
from replicator.ports.clock import Clock
from replicator.ports.targets import Fence

_LONGEST_EVENT = 8 * 1024 * 1024
"""Two images of 400 KB are about 5 MB at worst, when every byte of them is escaped."""

_LONGEST_WAIT = 3600.0
_ANSWER_BYTES = 64 * 1024
"""So much of an answer is read, so that its connection can be used again."""


class PublicResolver(AbstractResolver):
    """Names as addresses, of which private ones are left out."""

    def __init__(self, inner: AbstractResolver) -> None:
        self._inner = inner

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """The public addresses of a name; OSError when there are only others."""
        found = await self._inner.resolve(host, port, family)
        public = [each for each in found if ip_address(each["host"].partition("%")[0]).is_global]
        if found and not public:
            raise OSError(f"{host} is a private address, which allow_private: true allows")
        return public

    async def close(self) -> None:
        """Close it."""
        await self._inner.close()


def open_session(*, connections: int, connect_seconds: float, read_seconds: float, private: bool) -> Any:
    """A session for one address; nothing is sent yet."""
    resolver: AbstractResolver = aiohttp.ThreadedResolver()
    connector = aiohttp.TCPConnector(limit=connections, resolver=resolver if private else PublicResolver(resolver))
    timeout = aiohttp.ClientTimeout(total=read_seconds, sock_connect=connect_seconds)
    return aiohttp.ClientSession(
        connector=connector, timeout=timeout, cookie_jar=aiohttp.DummyCookieJar(), auto_decompress=False
    )


class WebhookSink:
    """One address."""

    most = 1

    def __init__(  # noqa: PLR0913 - a composition root fills it once
        self,
        session: Any,
        url: str,
        *,
        where: str,
        key: bytes,
        shape: EventShape,
        at_once: int,
        clock: Clock,
        objects: BucketOfData | None = None,
    ) -> None:
        self.shape = shape
        self.objects = objects
        self.at_once = at_once
        self._session = session
        self._url = url
        self._key = key
        self._where = where
        self._clock = clock
        self._not_before = 0.0
        """When it wants the next request (monotonic)."""

    async def send(self, events: Sequence[ItemEvent], fences: Sequence[Fence] = ()) -> Sequence[ReplicatorError | None]:
        """Send events one after the other; what became of each."""
        batch = await Batch.of(events, fences, _LONGEST_EVENT, self._where, objects=self.objects)
        for each in batch.standing(batch.encoded):
            headers = {"content-type": CONTENT_TYPE, "user-agent": f"replicator/{__version__}"}
            headers |= signed_headers(self._key, each.event.digest, int(self._clock.now()), each.body)
            batch.answers[each.place] = await self._post(each.body, headers)
        return batch.answers

    async def reached(self) -> None:
        """Raise why no server answers there; nothing is sent to it but the question what it can do."""
        try:
            async with self._session.options(self._url, allow_redirects=False) as answer:
                await answer.content.read(_ANSWER_BYTES)
        except (aiohttp.ClientError, OSError, TimeoutError) as failure:
            raise self._silent(failure) from failure

    def _silent(self, failure: Exception) -> Unreachable:
        why = failure.os_error if isinstance(failure, aiohttp.ClientConnectorError) else None
        said = type(failure).__name__ if why is None else f"{type(failure).__name__}: {why.strerror or why}"
        return Unreachable(f"{self._where} got no answer ({said}).")

    async def _post(self, body: bytes, headers: dict[str, str]) -> ReplicatorError | None:
        wait = self._not_before - self._clock.monotonic()
        if wait > 0:
            return Throttled(f"{self._where} asked for a pause, of which {wait:.0f} seconds are left.", advice=_BUSY)
        try:
            async with self._session.post(self._url, data=body, headers=headers, allow_redirects=False) as answer:
                await answer.content.read(_ANSWER_BYTES)
                status, retry_after = answer.status, answer.headers.get("retry-after", "")
        except (aiohttp.ClientError, OSError, TimeoutError) as failure:
            return self._silent(failure)
        error = judged(status, self._where)
        if isinstance(error, Throttled):
            self._not_before = self._clock.monotonic() + _seconds(retry_after, self._clock.now())
        return error


_BUSY = "Raise the receiver's capacity, or lower the load; the pause is the one that it requested."
_Meaning = tuple[type[ReplicatorError], str, str | None]
_SLOWER: _Meaning = (Throttled, "which asks for fewer requests", _BUSY)
_TROUBLE: _Meaning = (Unreachable, "which is trouble of its own", None)
_REDIRECT: _Meaning = (SinkMissing, "a redirect, and none is followed", "Name the address that it leads to.")
_UNSIGNED: _Meaning = (AccessRefused, "so it does not accept the signature", "Give both sides the same secret.")
_NOBODY: _Meaning = (SinkMissing, "so it takes no requests of this kind", None)
_REFUSAL: _Meaning = (PoisonRecord, "so it refuses this event", "Correct the receiver, then retry the event.")
_BY_STATUS: Mapping[int, _Meaning] = {
    HTTPStatus.TOO_MANY_REQUESTS: _SLOWER,
    HTTPStatus.SERVICE_UNAVAILABLE: _SLOWER,
    HTTPStatus.REQUEST_TIMEOUT: _TROUBLE,
    HTTPStatus.TOO_EARLY: _TROUBLE,
    HTTPStatus.GONE: (SinkGone, "which says that it wants no more events", None),
    HTTPStatus.UNAUTHORIZED: _UNSIGNED,
    HTTPStatus.FORBIDDEN: _UNSIGNED,
    HTTPStatus.PROXY_AUTHENTICATION_REQUIRED: _UNSIGNED,
    HTTPStatus.NOT_FOUND: _NOBODY,
    HTTPStatus.METHOD_NOT_ALLOWED: _NOBODY,
}
_BY_HUNDREDS: Mapping[int, _Meaning] = {3: _REDIRECT, 4: _REFUSAL}


def judged(status: int, where: str) -> ReplicatorError | None:
    """What a status says about an event, or about the address; None when the event is taken."""
    if HTTPStatus.OK <= status < HTTPStatus.MULTIPLE_CHOICES:
        return None
    kind, says, advice = _BY_STATUS.get(status) or _BY_HUNDREDS.get(status // 100, _TROUBLE)
    return kind(f"{where} answered {status}, {says}.", advice=advice)


def _seconds(retry_after: str, now: float) -> float:
    """The pause that an answer asks for: a number of seconds or a date; none when it is neither."""
    try:
        seconds = float(retry_after)
    except ValueError:
        try:
            seconds = parsedate_to_datetime(retry_after).timestamp() - now
        except (ValueError, TypeError, OverflowError):
            return 0.0
    return min(max(seconds, 0.0), _LONGEST_WAIT) if seconds == seconds else 0.0  # noqa: PLR0124 - only NaN differs
