"""Entries of every kind through the program: formats, tags, filters and messages, also when the cache was away."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from tests.integration.harness import Valve, World, eventually, open_world

pytestmark = [pytest.mark.servers, pytest.mark.long]

CACHE: list[dict[str, Any]] = [
    {"key": "json:{pk}", "action": "write_through", "value": "json", "numbers": "number", "jitter": "10%"},
    {"key": "hash:{pk}", "action": "write_through", "value": "hash", "attributes": ["pk", "n"]},
    {"key": "small:{pk}", "action": "refresh", "max_bytes": 10},
    {"key": "tag:{tags[]}"},
    {"key": "open:{pk}", "when": {"equals": {"status": "open"}}},
    {"key": "order:{pk}", "action": "publish", "stream": "told"},
]


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with open_world(tmp_path) as opened:
        yield opened


def item(status: str, n: str, tag: str) -> dict[str, Any]:
    return {"pk": {"S": "a"}, "status": {"S": status}, "n": {"N": n}, "tags": {"SS": [tag, "all"]}}


async def test_entries_of_every_kind_follow_their_items(world: World) -> None:
    valve = Valve(world.valkey_port)
    await world.create_tables()
    settings = world.settings(rule={"cache": [{"cache": "eu_main", **action} for action in CACHE]})
    url = f"redis://127.0.0.1:{valve.port}/0"
    settings["caches"] = {"eu_main": {"region": "eu", "url": url, "prefix": "shop:"}}
    config = world.write_settings(settings)
    checked = world.command("check", config=config)
    assert "ACL SETUSER" in checked.stdout
    world.initialise(config)
    daemon = world.daemon(config)
    server: Any = redis.Redis(port=world.valkey_port)

    async def put(*of_item: str) -> None:
        async with world.client("us") as client:
            await client.put_item(TableName="orders", Item=item(*of_item))

    def holds(n: str) -> bool:
        entry = server.get("shop:json:a")
        return bool(entry and json.loads(entry.partition(b"|")[2] or "{}").get("n") == float(n)) and (
            server.type("shop:hash:a") == b"hash" and server.hget("shop:hash:a", "n") == n.encode()
        )

    def told() -> list[dict[str, Any]]:
        return [json.loads(fields[b"message"]) for _, fields in server.xrange("told")]

    await put("open", "1.5", "x")
    await eventually("entries that were absent", lambda: holds("1.5"))
    assert told() == [{"key": "shop:order:a", "deleted": False, "version": told()[0]["version"]}]
    assert set(server.hgetall("shop:hash:a")) == {b"", b"pk", b"n"}
    read = world.command("inspect", "orders", '{"pk": "a"}', config=config)
    assert read.returncode == 0, read.stdout
    assert "shop:hash:a" in read.stdout
    version = "0" * 56
    server.mset({f"shop:{key}": f"V:{version}|x" for key in ("tag:x", "tag:all", "open:a", "small:a")})
    await put("closed", "2.5", "y")
    await eventually("newer entries", lambda: holds("2.5"))
    await eventually(
        "dropped ones", lambda: not server.exists("shop:tag:x", "shop:tag:all", "shop:open:a", "shop:small:a")
    )

    valve.close()
    server.mset({"shop:tag:y": "V:|x", "shop:open:a": "V:|x"})
    await put("open", "3.5", "z")
    await eventually("that it is known", lambda: daemon.status()["caches"][0]["keys"] > 0)
    before = len(told())
    valve.open()
    await eventually("that it is owed nothing", lambda: daemon.status()["caches"][0]["keys"] == 0)
    assert not server.exists("shop:tag:y", "shop:open:a", "shop:json:a", "shop:hash:a")
    again = told()[before:]
    assert again, "messages are owed, too, and come at least once"
    assert all(message == {"key": "shop:order:a"} for message in again)
    await put("open", "4.5", "z")
    await eventually("entries behind an outage", lambda: holds("4.5"))
    server.close()
    valve.close()
