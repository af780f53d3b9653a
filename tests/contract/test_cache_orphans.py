"""Entries of items that are gone, found by going through a real cache beside real tables."""

from __future__ import annotations

import asyncio

import pytest
from redis.asyncio import Redis

from replicator.operations.cache_orphans import OrphanRequest, find_orphans
from replicator.operations.errors import RequestRefused
from tests.contract.ruled_regions import ORDERED, mesh, ruled

pytestmark = [pytest.mark.servers, pytest.mark.usefixtures("account")]

VERSION = f"{7:056d}"
VALUE = f"V:{VERSION}|{{}}".encode()


async def test_entries_of_items_that_are_gone_are_found_and_dropped_and_no_others(
    dynamodb_url: str, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    caches = {"main": {"region": "eu", "url": redis_url}}
    rule = {
        **ORDERED,
        "cache": [{"cache": "main", "key": "orphan:{pk}:{sk}"}, {"cache": "main", "key": "orphans:{pk}"}],
    }
    async with ruled(dynamodb_url, rule, caches=caches) as regions, Redis.from_url(redis_url) as redis:
        await regions.put("eu", {"pk": {"S": "here:%"}, "sk": {"N": "1"}})
        await redis.mset({
            "orphan:here%3A%25:1": VALUE, "orphan:gone:1": VALUE, "orphan:gone:2": VALUE, "orphan:drops:3": VALUE,
            "orphan:marked:1": f"T:{VERSION}", "orphan:filling:1": b"L:lease", "orphan:foreign:1": b"mine",
            "orphan:renewed:1": b"L:lease|" + VALUE, "orphan:two:colons:1": VALUE,
        })  # fmt: skip
        await redis.set(b"orphan:\xff:1", VALUE)

        async def meanwhile(_: float) -> None:
            await regions.put("eu", {"pk": {"S": "gone"}, "sk": {"N": "2"}})
            await redis.delete("orphan:drops:3")

        monkeypatch.setattr("replicator.operations.cache_orphans.asyncio.sleep", meanwhile)
        found, other = await find_orphans(regions.group, OrphanRequest())
        monkeypatch.undo()
        assert (found.cache, found.template, found.rules) == ("main", "orphan:{pk}:{sk}", ["orders"])
        assert (found.looked_at, found.opaque, found.orphans, found.dropped, found.more) == (9, 1, 2, 0, False)
        assert found.keys == ["orphan:gone:1", "orphan:renewed:1"]
        assert "leaves out a part of the primary key of eu:orders" in other.unknown
        dropped, _ = await find_orphans(regions.group, OrphanRequest("orders", drop=True, apart=0.0))
        assert (dropped.orphans, dropped.dropped) == (2, 2)
        assert await redis.exists("orphan:gone:1", "orphan:renewed:1") == 0
        assert (
            await redis.exists("orphan:gone:2", "orphan:here%3A%25:1", "orphan:foreign:1", "orphan:two:colons:1") == 4
        )
        part, _ = await find_orphans(regions.group, OrphanRequest(most=3, apart=0.0))
        assert (part.looked_at, part.more) == (3, True)
        with pytest.raises(RequestRefused, match="no rule none"):
            await find_orphans(regions.group, OrphanRequest("none"))
        await redis.delete(*await redis.keys("orphan*"))


async def test_an_entry_by_another_attribute_is_one_of_an_item_only_while_that_has_it(
    dynamodb_url: str, redis_url: str
) -> None:
    caches = {name: {"region": name, "url": redis_url, "prefix": f"{name}/"} for name in ("us", "eu")}
    actions = [{"cache": name, "key": "{state}:{pk}:{sk}"} for name in caches]
    async with ruled(dynamodb_url, mesh("active-active", cache=actions), caches=caches) as regions:
        item = {"pk": {"S": "a"}, "sk": {"N": "1"}, "state": {"S": "new"}}
        await asyncio.gather(*(regions.put(region, item) for region in ("us", "eu")))
        async with Redis.from_url(redis_url) as redis:
            await redis.mset({f"{name}/{state}:a:1": VALUE for name in caches for state in ("new", "old")})
            found = await find_orphans(regions.group, OrphanRequest(apart=0.0, drop=True))
            assert [(each.cache, each.keys) for each in found] == [("eu", ["eu/old:a:1"]), ("us", ["us/old:a:1"])]
            assert await redis.exists(*(f"{name}/new:a:1" for name in caches)) == 2
            await redis.flushdb()
