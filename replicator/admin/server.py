"""The admin HTTP server: /healthz, /readyz, /metrics, /status, /history, and a look at the configuration.

On loopback unless configured otherwise; nothing that is sent here changes anything but by that look. The API and the
console, which do more, are served beside it where `admin.api` says so.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any, Protocol

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError
from prometheus_client import generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from replicator.domain.errors import ConfigurationInvalid
from replicator.observability.readiness import unready
from replicator.observability.status_document import shown
from replicator.settings.admin import url

if TYPE_CHECKING:
    from replicator.observability.lag_history import SampledLags
    from replicator.observability.metrics import Metrics
    from replicator.observability.observer import LiveObserver
    from replicator.observability.status_board import Board
    from replicator.settings import Admin, Settings


class Reload(Protocol):
    """What looks at the configuration file."""

    async def __call__(self, *, dry_run: bool) -> dict[str, Any]:
        """Take up what the file says now; returns what became of it."""


_PORT_TROUBLES = {errno.EADDRINUSE, errno.EACCES}
_EVERYWHERE = {"::", ""}
_MOST_BODY = 65_536
_MOST_CONNECTIONS = 256
"""At once: for one more the oldest breaks off, whatever it is at."""

_MOST_HELD = 20
"""So much of what is held is written out."""


class _OwnFaults(logging.Filter):
    """What is no HTTP is answered and not logged: its line holds what was sent, and a token may be in that."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Let everything else pass."""
        return not (record.exc_info and isinstance(record.exc_info[1], HttpProcessingError))


_OWN_FAULTS = _OwnFaults()


@asynccontextmanager
async def serve_admin(  # noqa: PLR0913 - what is served, given once
    admin: Admin,
    board: Board,
    metrics: Metrics,
    observer: LiveObserver,
    *,
    reload: Reload | None = None,
    history: SampledLags | None = None,
    settings: Callable[[], Settings] | None = None,
) -> AsyncIterator[tuple[str, int]]:
    """Serve until the context ends; yields the address in use.

    `reload`: looks at the configuration file. `history`: how lags went. `settings`: those in force now, for the API;
    None: there is none.
    """

    async def healthz(_: web.Request) -> web.Response:
        reason = board.health()
        return web.Response(text=f"{reason or 'ok'}\n", status=503 if reason else 200)

    async def readyz(_: web.Request) -> web.Response:
        reasons = unready(board)
        held = [] if reasons else [row.sentence for row in board.held_rows()[:_MOST_HELD]]
        return web.Response(text="\n".join(reasons or ["ready", *held]) + "\n", status=503 if reasons else 200)

    async def scrape(_: web.Request) -> web.Response:
        observer.refresh_gauges()
        return web.Response(body=generate_latest(metrics.registry), headers={"Content-Type": CONTENT_TYPE_LATEST})

    async def status(_: web.Request) -> web.Response:
        return web.json_response(shown(board))

    async def past(_: web.Request) -> web.Response:
        if history is None:
            raise web.HTTPNotFound
        return web.json_response(history.document)

    async def look_again(request: web.Request) -> web.Response:
        """It takes nothing from outside: only the file that the daemon was started with is read again."""
        if reload is None:
            raise web.HTTPNotFound
        return web.json_response(await reload(dry_run="dry_run" in request.query))

    app = web.Application(client_max_size=_MOST_BODY)
    app.add_routes(
        [
            web.get("/healthz", healthz),
            web.get("/readyz", readyz),
            web.get("/metrics", scrape),
            web.get("/status", status),
            web.get("/history", past),
            web.post("/reload", look_again),
        ]
    )
    async with AsyncExitStack() as stack:
        if admin.api.enabled and settings is not None:
            from replicator.admin.mounting import routes

            app.add_routes(routes(settings, stack, board.clock))
        logging.getLogger("aiohttp.server").addFilter(_OWN_FAULTS)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
        await runner.setup()
        stack.push_async_callback(runner.cleanup)
        host, port = await _listen(runner, admin)
        yield host, port


async def _listen(runner: web.AppRunner, admin: Admin) -> tuple[str, int]:
    """Begin to serve; returns the address in use."""
    try:
        await _site(runner, admin).start()
    except socket.gaierror as error:
        raise _not_here(admin, error.strerror or "no such name") from error
    except OSError as error:
        if error.errno == errno.EADDRNOTAVAIL:
            raise _not_here(admin, "no interface has it") from error
        if error.errno in _PORT_TROUBLES or error.errno is None:
            address = url(admin.host, admin.port).removeprefix("http://")
            raise ConfigurationInvalid(
                f"admin.port: cannot listen on {address} ({error.strerror or error}).",
                advice="Stop the other process, or set admin.port (0: any free port) and admin.host.",
            ) from error
        raise
    if not runner.addresses:
        raise _not_here(admin, "it has none of that family")
    host, port, *_ = runner.addresses[0]
    return str(host), int(port)


def _not_here(admin: Admin, reason: str) -> ConfigurationInvalid:
    return ConfigurationInvalid(
        f"admin.host: {admin.host!r} is not an address of this machine ({reason}).",
        advice="Set admin.host to an address to listen on, for example 127.0.0.1 or ::.",
    )


def _site(runner: web.AppRunner, admin: Admin) -> web.BaseSite:
    """What listens on `admin.host`; on `::` one socket for both families, where the loop's own would leave IPv4 out."""
    if admin.host not in _EVERYWHERE:
        return _Site(runner, {"host": admin.host, "port": admin.port})
    if socket.has_dualstack_ipv6():
        listening = socket.create_server(("::", admin.port), family=socket.AF_INET6, dualstack_ipv6=True)
    else:
        listening = socket.create_server(("0.0.0.0", admin.port))  # noqa: S104 - what `::` is without IPv6
    return _Site(runner, {"sock": listening})


class _Site(web.BaseSite):
    """A place to listen on that holds a bounded number of connections, so that idle ones take no descriptors of others.

    A new one is always taken: else those that say nothing would keep probes out.
    """

    def __init__(self, runner: web.AppRunner, where: Mapping[str, Any]) -> None:
        super().__init__(runner)
        self._where = where

    @property
    def name(self) -> str:
        """Where it listens."""
        return str(self._where)

    async def start(self) -> None:
        """Begin to listen."""
        await super().start()
        self._server = await asyncio.get_running_loop().create_server(self._taken, backlog=128, **self._where)

    def _taken(self) -> asyncio.Protocol:
        server = self._runner.server
        assert server is not None, "it is set up"
        held = server.connections
        for oldest in held[: max(0, len(held) - _MOST_CONNECTIONS + 1)]:
            if oldest.transport is not None:
                oldest.transport.abort()
        return server()
