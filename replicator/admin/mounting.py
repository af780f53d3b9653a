"""The API and the console, put together for one worker; imported only where they are served."""

from __future__ import annotations

import socket
from collections.abc import Callable
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

from replicator.admin.api.clients import Groups
from replicator.admin.api.serving import Api
from replicator.admin.console import console_routes

if TYPE_CHECKING:
    from aiohttp import web

    from replicator.ports.clock import Clock
    from replicator.settings import Settings


def routes(settings: Callable[[], Settings], stack: AsyncExitStack, clock: Clock) -> list[web.RouteDef]:
    """Everything that is served; `stack` closes the clients of it."""
    admin = settings().admin
    names = {socket.gethostname(), admin.host, *([admin.advertise] if admin.advertise else [])}
    api = Api(settings, Groups(settings, stack), clock, names)
    return [*api.routes(), *console_routes(api.guarded)]
