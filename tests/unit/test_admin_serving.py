"""The API in the admin server, without anything behind it: what is answered before a table is asked."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import Any

import aiohttp
import pytest
from yarl import URL

from replicator.adapters.clock import SystemClock
from replicator.admin.server import serve_admin
from replicator.observability.metrics import Metrics
from replicator.observability.observer import LiveObserver
from replicator.observability.status_board import Board
from replicator.settings import Settings
from replicator.settings.compiled_rules import rules_of


@asynccontextmanager
async def served(**api: Any) -> AsyncIterator[aiohttp.ClientSession]:
    settings = Settings.model_validate(
        {
            "group": "test",
            "regions": {"us": {"region": "us-east-1"}, "eu": {"region": "eu-west-1"}},
            "coordination": {"region": "us"},
            "admin": {"port": 0, "api": {"enabled": True, **api}},
            "secrets": {"a": "a" * 32},
            "rules": [{"name": "orders", "table": "orders", "source": "us", "replicas": ["eu"]}],
        }
    )
    clock, metrics = SystemClock(), Metrics()
    board = Board(settings.group, rules_of(settings), clock)
    observer = LiveObserver(board, metrics, clock)
    async with (
        serve_admin(settings.admin, board, metrics, observer, settings=lambda: settings) as (host, port),
        aiohttp.ClientSession(f"http://{host}:{port}") as session,
    ):
        yield session


@pytest.mark.parametrize("path", ["status", "session", "conflicts", "audit", "conflicts/abcd"])
async def test_where_reading_takes_a_token_nothing_is_shown_without_one(path: str) -> None:
    async with served(read_without_token=False, tokens={"alice": {"secret": "a"}}) as session:
        answer = await session.get(f"/api/v1/{path}")
        assert (answer.status, answer.headers["WWW-Authenticate"]) == (401, "Bearer")
        assert answer.content_type == "application/problem+json"


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/console/", 200),
        ("/console", 200),
        ("/", 200),
        ("/console/main.js", 200),
        ("/console/..%2fserving.py", 404),
        ("/console/%2e%2e%2f__init__.py", 404),
        ("/console/static/main.js", 404),
        ("/api/v1/openapi.json", 200),
        ("/api/v2/status", 404),
        ("/healthz", 200),
    ],
)
async def test_files_of_the_console_are_served_and_nothing_beside_them(path: str, status: int) -> None:
    async with served() as session:
        answer = await session.get(URL(path, encoded=True))
        assert answer.status == status
        if path.startswith(("/console", "/api")):
            assert answer.headers["X-Content-Type-Options"] == "nosniff"
            assert "script-src 'self'" in answer.headers["Content-Security-Policy"]


async def test_what_changes_something_cannot_be_asked_for_as_a_look() -> None:
    async with served(tokens={"alice": {"secret": "a"}}) as session:
        headers = {"Authorization": f"Bearer {'a' * 32}"}
        for method in ("GET", "PUT", "DELETE", "OPTIONS"):
            answer = await session.request(method, "/api/v1/rules/orders/pause", headers=headers)
            assert answer.status == 404, method
            assert not [name for name in answer.headers if name.startswith("Access-Control")]


@pytest.mark.parametrize("said", [b"", b"GET /metrics HTTP/1.1\r\nHost: ", b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n"])
async def test_connections_are_held_up_to_a_bound_and_a_new_one_is_always_answered(said: bytes) -> None:
    async with served() as session, AsyncExitStack() as stack:
        base = (await session.get("/healthz")).url
        held = []
        for _ in range(300):
            reader, writer = await asyncio.open_connection(base.host, base.port)
            stack.callback(writer.close)
            writer.write(said)
            held.append(reader)
        assert (await session.get("/healthz")).status == 200
        async with asyncio.timeout(60):
            await asyncio.gather(*map(_end_of, held[:40]))
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await _end_of(held[-1])


@pytest.mark.parametrize(
    "said",
    [
        b"GET /healthz HTTP/1.1\r\nHost: a\r\nAuthorization : Bearer %b\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer %b\x01\r\n\r\n",
        b"GET /api/v1/status?%b\x01 HTTP/1.1\r\nHost: a\r\n\r\n",
        b"%b /healthz HTTP/1.1\r\nHost: a\r\n\r\n",
    ],
)
async def test_what_is_no_http_is_answered_and_not_logged(said: bytes, caplog: pytest.LogCaptureFixture) -> None:
    async with served() as session:
        base = (await session.get("/healthz")).url
        reader, writer = await asyncio.open_connection(base.host, base.port)
        writer.write(said % (b"a" * 32))
        async with asyncio.timeout(60):
            assert (await reader.readline()).split(b" ")[1] == b"400"
        writer.close()
    assert "a" * 32 not in caplog.text


async def _end_of(reader: asyncio.StreamReader) -> None:
    """Read until the other side leaves."""
    with suppress(ConnectionError):
        while await reader.read(10_000):
            pass
