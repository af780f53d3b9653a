"""A service that reads orders through a cache: with the reader library, and as plain look-aside for comparison.

    GET /orders/CUSTOMER/ORDER          through the library
    GET /plain/CUSTOMER/ORDER           plain look-aside: get, read the table, set
    GET /compare/CUSTOMER/ORDER         the table, and the entry that stands in the cache

`?pause=2` lets two seconds pass between the table and the cache, time for a write to come between. See README.md.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from functools import partial
from typing import Any

import redis.asyncio as redis_asyncio
from aiobotocore.session import get_session
from aiohttp import web

from replicator.cache import CacheAside, Loaded, dynamodb_loader, plain_item

KEY = "order:{customer}:{order}"
TTL_SECONDS = 300
Between = Callable[[web.Request], Awaitable[None]]


async def pause(request: web.Request) -> None:
    """What a busy service does between reading the table and filling the cache."""
    await asyncio.sleep(min(30.0, float(request.query.get("pause", "0"))))


def create_app(client: Any, dynamodb: Any, table: str, *, between: Between = pause) -> web.Application:
    """The service, on a client of the cache and one of the table beside it."""
    load = dynamodb_loader(table, dynamodb)

    def order_of(request: web.Request) -> dict[str, Any]:
        return {"customer": request.match_info["customer"], "order": int(request.match_info["order"])}

    async def table_then_pause(request: web.Request, **key: Any) -> Loaded | None:
        found = load(**key)
        loaded = await found if isinstance(found, Awaitable) else found
        await between(request)
        return loaded

    async def orders(request: web.Request) -> web.Response:
        # One reader a request, because the pause is the request's; a real service keeps one for all requests.
        loading = partial(table_then_pause, request)
        cache = CacheAside(client, key=KEY, load=loading, codec=load.codec, ttl=TTL_SECONDS)
        reading = await cache.read(**order_of(request))
        return answer(reading.value, reading.source)

    async def plain(request: web.Request) -> web.Response:
        order = order_of(request)
        key = KEY.format(**order)
        entry = await client.get(key)
        if entry is not None:
            return answer(plain_item(entry.partition(b"|")[2]), "hit")
        loaded = await table_then_pause(request, **order)
        if loaded is None:
            return answer(None, "missing")
        await client.set(key, f"V:{loaded.version}|".encode() + loaded.payload, ex=TTL_SECONDS)  # however late
        return answer(plain_item(loaded.payload), "filled")

    async def compare(request: web.Request) -> web.Response:
        order = order_of(request)
        found = load(**order)
        loaded = await found if isinstance(found, Awaitable) else found
        entry = await client.get(KEY.format(**order)) or b""
        kept = entry.partition(b"|")[2] if entry.startswith(b"V:") else None
        stale = kept is not None and (loaded is None or plain_item(kept) != plain_item(loaded.payload))
        return web.json_response({"cached": kept is not None, "stale": stale})

    app = web.Application()
    app.add_routes(
        [
            web.get("/orders/{customer}/{order:[0-9]+}", orders),
            web.get("/plain/{customer}/{order:[0-9]+}", plain),
            web.get("/compare/{customer}/{order:[0-9]+}", compare),
        ]
    )
    return app


def answer(value: dict[str, Any] | None, source: str) -> web.Response:
    """An order as JSON, with where it came from."""
    body = None if value is None else {name: str(content) for name, content in value.items()}
    return web.json_response({"order": body, "source": source}, status=404 if value is None else 200)


async def from_environment() -> web.Application:
    """The service as the environment describes it: REDIS_URL, TABLE, AWS_REGION, DYNAMODB_ENDPOINT."""
    stack = AsyncExitStack()
    client = await stack.enter_async_context(redis_asyncio.Redis.from_url(os.environ["REDIS_URL"], socket_timeout=0.5))
    region, endpoint = os.environ.get("AWS_REGION", "eu-west-1"), os.environ.get("DYNAMODB_ENDPOINT")
    opening = get_session().create_client("dynamodb", region_name=region, endpoint_url=endpoint)
    app = create_app(client, await stack.enter_async_context(opening), os.environ.get("TABLE", "orders"))

    async def closing(_: web.Application) -> AsyncIterator[None]:
        yield
        await stack.aclose()

    app.cleanup_ctx.append(closing)
    return app


if __name__ == "__main__":
    web.run_app(from_environment(), host="127.0.0.1", port=int(os.environ.get("PORT", "8090")))
