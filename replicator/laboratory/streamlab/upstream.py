"""MiniStack behind the laboratory: calls passed through as they are, and calls of the laboratory's own.

Invariant: what is passed through is neither decoded nor changed here.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from io import BytesIO
from typing import Any, Final

import aiohttp
import msgspec

from replicator.laboratory.streamlab.refusals import ServiceError
from replicator.laboratory.streamlab.tables import Scope

TIMEOUT_SECONDS: Final = 60.0
MOST_CONNECTIONS: Final = 256
OK: Final = 200
_LONG_BODY: Final = 1 << 20

_NOT_FORWARDED: Final = frozenset({"host", "connection", "content-length", "transfer-encoding", "expect", "keep-alive"})
_NOT_RETURNED: Final = frozenset({"connection", "content-length", "transfer-encoding", "keep-alive", "date", "server"})


@dataclass(frozen=True, slots=True)
class Call:
    """An HTTP call to an AWS service, as it came."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes
    operation: str


@dataclass(frozen=True, slots=True)
class Passed:
    """MiniStack's answer to a call."""

    status: int
    headers: dict[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class Upstream:
    """The way to MiniStack; without a URL there is none, and every call is refused."""

    session: aiohttp.ClientSession
    url: str

    async def forward(self, call: Call) -> Passed:
        """Pass a call through; `ServiceError` when there is no MiniStack behind."""
        if not self.url:
            raise ServiceError("ResourceNotFoundException", "This laboratory has no MiniStack behind it.")
        # The client warns of long bodies as bytes: they might keep the loop busy.
        body = BytesIO(call.body) if len(call.body) >= _LONG_BODY else call.body
        kept = {name: value for name, value in call.headers.items() if name.lower() not in _NOT_FORWARDED}
        try:
            async with self.session.request(
                call.method, self.url + call.path, data=body, headers=kept, allow_redirects=False
            ) as response:
                headers = {name: value for name, value in response.headers.items() if name.lower() not in _NOT_RETURNED}
                return Passed(response.status, headers, await response.read())
        except (aiohttp.ClientError, TimeoutError) as error:
            raise ServiceError("ServiceUnavailable", f"Nothing answers behind the laboratory: {error!r}", 503) from None

    async def call(
        self, scope: Scope, operation: str, body: Mapping[str, Any], api: str = "DynamoDB_20120810"
    ) -> bytes:
        """A call of our own; `ServiceError` when it is not answered with success."""
        credential = f"Credential={scope.access_key}/20200101/{scope.region}/dynamodb/aws4_request"
        headers = {
            "Content-Type": "application/x-amz-json-1.0",
            "X-Amz-Target": f"{api}.{operation}",
            "Authorization": f"AWS4-HMAC-SHA256 {credential}, SignedHeaders=host, Signature=none",
        }
        passed = await self.forward(Call("POST", "/", headers, msgspec.json.encode(body), operation))
        if passed.status != OK:
            raise _error(passed)
        return passed.body


def _error(passed: Passed) -> ServiceError:
    try:
        document = msgspec.json.decode(passed.body, type=dict[str, Any])
    except msgspec.DecodeError:
        document = {}
    code = str(document.get("__type", "InternalServerError")).rpartition("#")[2]
    return ServiceError(code, str(document.get("message") or document.get("Message") or ""), passed.status)


@asynccontextmanager
async def open_upstream(url: str | None) -> AsyncIterator[Upstream]:
    """One pool of connections to MiniStack."""
    connector = aiohttp.TCPConnector(limit=MOST_CONNECTIONS)
    timeout = aiohttp.ClientTimeout(total=TIMEOUT_SECONDS)
    async with aiohttp.ClientSession(
        connector=connector,
        timeout=timeout,
        trust_env=False,
        auto_decompress=False,
        skip_auto_headers=("User-Agent", "Accept", "Accept-Encoding", "Content-Type"),
    ) as session:
        yield Upstream(session, (url or "").rstrip("/"))
    await asyncio.sleep(0)  # lets the transports close
