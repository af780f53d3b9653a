"""The admin HTTP server: /healthz, /readyz, /metrics, /status. On loopback unless configured otherwise; read-only."""

from __future__ import annotations

import errno
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from aiohttp import web
from prometheus_client import generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from replicator.domain.errors import ConfigurationInvalid
from replicator.observability.status_document import shown

if TYPE_CHECKING:
    from replicator.observability.metrics import Metrics
    from replicator.observability.observer import LiveObserver
    from replicator.observability.status_board import Board

_PORT_TROUBLES = {errno.EADDRINUSE, errno.EACCES, errno.EADDRNOTAVAIL}


@asynccontextmanager
async def serve_admin(
    host: str, port: int, board: Board, metrics: Metrics, observer: LiveObserver
) -> AsyncIterator[tuple[str, int]]:
    """Serve until the context ends; yields the address in use."""

    async def healthz(_: web.Request) -> web.Response:
        reason = board.health()
        return web.Response(text=f"{reason or 'ok'}\n", status=503 if reason else 200)

    async def readyz(_: web.Request) -> web.Response:
        reasons = board.unready()
        return web.Response(text="\n".join(reasons or ["ready"]) + "\n", status=503 if reasons else 200)

    async def scrape(_: web.Request) -> web.Response:
        observer.refresh_gauges()
        return web.Response(body=generate_latest(metrics.registry), headers={"Content-Type": CONTENT_TYPE_LATEST})

    async def status(_: web.Request) -> web.Response:
        return web.json_response(shown(board))

    app = web.Application()
    app.add_routes(
        [
            web.get("/healthz", healthz),
            web.get("/readyz", readyz),
            web.get("/metrics", scrape),
            web.get("/status", status),
        ]
    )
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        site = web.TCPSite(runner, host, port, shutdown_timeout=1.0)
        try:
            await site.start()
        except socket.gaierror as error:
            raise ConfigurationInvalid(
                f"admin.host: {host!r} is not an address of this machine ({error.strerror}).",
                advice="Set admin.host to an address to listen on, for example 127.0.0.1 or 0.0.0.0.",
            ) from error
        except OSError as error:
            if error.errno in _PORT_TROUBLES or error.errno is None:
                raise ConfigurationInvalid(
                    f"admin.port: cannot listen on {host}:{port} ({error.strerror or error}).",
                    advice="Stop the other process, or set admin.port (0 takes a free one) and admin.host.",
                ) from error
            raise
        bound = runner.addresses[0]
        yield str(bound[0]), int(bound[1])
    finally:
        await runner.cleanup()
