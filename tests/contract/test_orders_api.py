"""The example service: plain look-aside keeps a stale entry, the library does not."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import pytest
import redis.asyncio as redis_asyncio
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from replicator.domain.cache_keys import Invalidate
from tests.contract.worlds import DynamoRegionBench, fresh, place, redis_bench

pytestmark = pytest.mark.servers
APP = Path(__file__).parents[2] / "examples" / "orders-api" / "app.py"


@pytest.mark.parametrize(("way", "stale"), [("plain", True), ("orders", False)])
async def test_a_write_between_table_and_cache(dynamodb_url: str, redis_url: str, way: str, stale: bool) -> None:
    customer = fresh("c")
    async with (
        place(dynamodb_url) as opened,
        redis_asyncio.Redis.from_url(redis_url) as client,
        redis_bench(redis_url) as bench,
    ):
        region = DynamoRegionBench(opened, {"customer": "S", "order": "N"})
        await region.create()

        async def write(total: int) -> None:
            item: Any = {"customer": {"S": customer}, "order": {"N": "1"}, "total": {"N": str(total)}}
            await opened.dynamodb.put_item(TableName=region.table, Item=item)
            await bench.cache.apply([Invalidate(f"order:{customer}:1")])

        pending = [2]

        async def between(_: web.Request) -> None:
            while pending:
                await write(pending.pop())

        await write(1)
        app = runpy.run_path(str(APP))["create_app"](client, opened.dynamodb, region.table, between=between)
        async with TestClient(TestServer(app)) as http:

            async def got(path: str) -> Any:
                return await (await http.get(f"/{path}/{customer}/1")).json()

            first = await got(way)
            assert first["order"]["total"] == "1"
            assert (await got("compare"))["stale"] is stale
            assert (await got(way))["order"]["total"] == ("1" if stale else "2")
            assert (await got(way))["source"] == "hit"
