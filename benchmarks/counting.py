"""An HTTP proxy that counts: what a daemon asks of one endpoint, by operation.

Invariant: requests and answers pass unchanged; a request is counted when its answer has come.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import aiohttp
from aiohttp import web

WRITES = frozenset({"PutItem", "UpdateItem", "DeleteItem", "BatchWriteItem", "TransactWriteItems"})
_HOP_BY_HOP = frozenset({"connection", "content-length", "keep-alive", "transfer-encoding"})


@dataclass
class Counted:
    """Where the proxy listens, and how often each operation was asked for."""

    url: str = ""
    calls: Counter[str] = field(default_factory=Counter)

    def writes(self) -> int:
        """Calls that write."""
        return sum(self.calls[name] for name in WRITES)

    def reads(self) -> int:
        """All others."""
        return self.calls.total() - self.writes()


@asynccontextmanager
async def counting(upstream: str) -> AsyncIterator[Counted]:
    """Serve the proxy on a free port of 127.0.0.1."""
    counted = Counted()
    # The body of an answer is checked by a checksum over the bytes as they were sent.
    async with aiohttp.ClientSession(auto_decompress=False) as session:

        async def passed(request: web.BaseRequest) -> web.Response:
            headers = {name: value for name, value in request.headers.items() if name.lower() not in _HOP_BY_HOP}
            body = await request.content.read()
            url = upstream + request.raw_path
            async with session.request(request.method, url, data=body, headers=headers) as response:
                answer = await response.read()
            counted.calls[request.headers.get("X-Amz-Target", "").rpartition(".")[2]] += 1
            kept = {name: value for name, value in response.headers.items() if name.lower() not in _HOP_BY_HOP}
            return web.Response(status=response.status, body=answer, headers=kept)

        runner = web.ServerRunner(web.Server(passed, access_log=None), shutdown_timeout=0.1)
        await runner.setup()
        try:
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            host, port = runner.addresses[0][:2]
            counted.url = f"http://{host}:{port}"
            yield counted
        finally:
            await runner.cleanup()
