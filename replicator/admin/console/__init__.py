"""The console: static pages that ask the admin API. No build step, and nothing from elsewhere."""

from __future__ import annotations

from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING

from aiohttp import web

from replicator.admin.api.problems import Problem

if TYPE_CHECKING:
    from collections.abc import Callable

    from replicator.admin.api.serving import Handler

PREFIX = "/console/"
_TYPES = {".html": "text/html", ".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}


def console_routes(guarded: Callable[[Handler], Handler]) -> list[web.RouteDef]:
    """Every file of the console by its name, as it is now; and the way there."""
    files = {
        path.name: (path.read_bytes(), _TYPES[path.suffix]) for path in (Path(__file__).parent / "static").iterdir()
    }

    async def serve(request: web.Request) -> web.StreamResponse:
        name = request.match_info.get("name") or "index.html"
        if name not in files:
            raise Problem(HTTPStatus.NOT_FOUND, "The console has no such file.")
        body, kind = files[name]
        return web.Response(body=body, content_type=kind, charset="utf-8")

    async def lead(_: web.Request) -> web.StreamResponse:
        return web.Response(status=302, headers={"Location": PREFIX})

    return [
        web.get("/", guarded(lead)),
        web.get(PREFIX.rstrip("/"), guarded(lead)),
        web.get(PREFIX, guarded(serve)),
        web.get(f"{PREFIX}{{name:.*}}", guarded(serve)),
    ]
