"""One bench per port and world: the port under test, and a way to prepare and look at what it works on."""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from itertools import count
from typing import Any, Protocol

import pytest
import redis.asyncio as redis_asyncio

from replicator.adapters.aws.clients import ClientTimes, Fallback, Place, open_place
from replicator.adapters.clock import SystemClock
from replicator.adapters.dynamodb.tables import DynamoRegion
from replicator.adapters.redis.cache import RedisCache
from replicator.domain.image import Image
from replicator.domain.records import ItemKey
from replicator.domain.stamps import NO_ROW, SideRow, Tombstone, parse_version
from replicator.laboratory.memory import MemoryCache, MemoryRegion, Slot
from replicator.ports.targets import Cache, Region
from replicator.settings import Region as RegionSettings

_BATCH = 25
_numbers = count(1)


def fresh(name: str) -> str:
    """A name that no other test of this process uses."""
    return f"{name}-{next(_numbers)}"


def no_fallback(_: str, why: str) -> None:
    """For worlds in which the lean transport has to serve."""
    raise AssertionError(f"the stock client serves: {why}")


def openssl(*arguments: str) -> None:
    """Run it; skips where there is none."""
    program = shutil.which("openssl")
    if program is None:
        pytest.skip("openssl is not installed")
    subprocess.run([program, *arguments], check=True, capture_output=True)


PATIENT = ClientTimes(connect_seconds=60.0, read_seconds=120.0)
"""Longer than the program waits by itself: a local server may share a busy machine."""


@asynccontextmanager
async def place(
    endpoint_url: str, *, lean: Fallback | None = None, times: ClientTimes | None = None, region: str = "eu-west-1"
) -> AsyncIterator[Place]:
    """Clients of a region at a local endpoint."""
    settings = RegionSettings.model_validate({"region": region, "endpoint_url": endpoint_url})
    async with open_place("eu", settings, times or PATIENT, connections=32, lean=lean) as opened:
        yield opened


async def create_table(dynamodb: Any, name: str, keys: Mapping[str, str], *, stream: bool = False) -> None:
    """A table; `keys` maps the names of its key attributes to their types, partition key first."""
    await dynamodb.create_table(
        TableName=name,
        AttributeDefinitions=[{"AttributeName": key, "AttributeType": kind} for key, kind in keys.items()],
        KeySchema=[{"AttributeName": key, "KeyType": role} for key, role in zip(keys, ("HASH", "RANGE"), strict=False)],
        BillingMode="PAY_PER_REQUEST",
        **({"StreamSpecification": {"StreamEnabled": True, "StreamViewType": "NEW_AND_OLD_IMAGES"}} if stream else {}),
    )


# -- regions -------------------------------------------------------------------------------------------------------


class RegionBench(Protocol):
    """A region, and its table seen from the side."""

    @property
    def region(self) -> Region:
        """The port."""

    async def seed(self, slots: Mapping[ItemKey, Slot]) -> None:
        """Let this stand under these keys."""

    async def found(self, keys: Sequence[ItemKey]) -> dict[ItemKey, Slot]:
        """What stands under these keys."""

    async def refuse(self, key: ItemKey, item: Image) -> Image:
        """An item that the region can never hold under this key, made of `item`."""


def _row_attributes(slot: Slot) -> dict[str, Any]:
    """A side row as its table holds it."""
    row, texts = slot.row, dict[str, str | None]()
    texts["v"] = slot.tombstone
    if row.tombstone is not None:
        texts |= {"v": row.tombstone.version.text, "p": row.tombstone.parent, "h": row.tombstone.content}
    texts["f"] = None if row.floor is None else row.floor.text
    texts["lv"] = None if row.removed is None else row.removed.text
    texts["ls"] = None if row.removed_at is None else f"{row.removed_at:053d}"
    return {name: {"S": text} for name, text in texts.items() if text is not None}


def _row(attributes: Mapping[str, Any]) -> tuple[str | None, SideRow]:
    """A tombstone of the modes that keep nothing else, and the side row of mode `active-active`."""
    texts = {name: typed.get("S") for name, typed in attributes.items()}
    deleted = parse_version(texts.get("v") or "")
    return (
        texts.get("v") if deleted is None else None,
        SideRow(
            tombstone=None if deleted is None else Tombstone(deleted, texts["p"], texts["h"]),
            floor=parse_version(texts.get("f") or ""),
            removed_at=int(texts["ls"]) if "ls" in texts else None,
            removed=parse_version(texts.get("lv") or ""),
        ),
    )


class MemoryRegionBench:
    """The memory region."""

    def __init__(self) -> None:
        self.memory = MemoryRegion()
        self.region: Region = self.memory

    async def seed(self, slots: Mapping[ItemKey, Slot]) -> None:
        self.memory.slots.update(slots)

    async def found(self, keys: Sequence[ItemKey]) -> dict[ItemKey, Slot]:
        return {key: self.memory.slot(key) for key in keys}

    async def refuse(self, key: ItemKey, item: Image) -> Image:
        self.memory.poison(key, "the item is too large")
        return item


class DynamoRegionBench:
    """A table and its side table on a server that speaks DynamoDB."""

    def __init__(self, opened: Place, keys: Mapping[str, str], *, metered: bool = False) -> None:
        self.table, self.side = fresh("orders"), fresh("side")
        self._keys = keys
        self._place = opened
        self.region: Region = DynamoRegion(
            opened.items,
            region_id="eu",
            table=self.table,
            side_table=self.side,
            tombstone_ttl=timedelta(days=7),
            clock=SystemClock(),
            metered=metered,
        )

    async def create(self) -> None:
        """Create both tables."""
        await create_table(self._place.dynamodb, self.table, self._keys)
        await create_table(self._place.dynamodb, self.side, {"k": "S"})

    async def seed(self, slots: Mapping[ItemKey, Slot]) -> None:
        items = [json.loads(slot.item.wire) for slot in slots.values() if slot.item is not None]
        rows = [
            {"k": {"S": key.side_key(self.table)}, "sv": {"N": "1"}, **_row_attributes(slot)}
            for key, slot in slots.items()
            if slot.tombstone is not None or slot.row != NO_ROW
        ]
        for table, puts in ((self.table, items), (self.side, rows)):
            for start in range(0, len(puts), _BATCH):
                requests = [{"PutRequest": {"Item": item}} for item in puts[start : start + _BATCH]]
                await self._call("BatchWriteItem", RequestItems={table: requests})

    async def found(self, keys: Sequence[ItemKey]) -> dict[ItemKey, Slot]:
        items = {_key(item, self._keys): _image(item) for item in await self._all(self.table)}
        rows = {row["k"]["S"]: _row(row) for row in await self._all(self.side)}
        return {
            key: Slot(
                items.get(_key(json.loads(key.wire), self._keys)), *rows.get(key.side_key(self.table), (None, NO_ROW))
            )
            for key in keys
        }

    async def side_row(self, key: ItemKey) -> Any:
        """A side row as it stands in the table."""
        (row,) = [row for row in await self._all(self.side) if row["k"]["S"] == key.side_key(self.table)]
        return row

    async def _all(self, table: str) -> list[Any]:
        items: list[Any] = []
        request: dict[str, Any] = {"TableName": table, "ConsistentRead": True}
        while True:
            page = await self._call("Scan", **request)
            items += page["Items"]
            if not page.get("LastEvaluatedKey"):
                return items
            request["ExclusiveStartKey"] = page["LastEvaluatedKey"]

    async def _call(self, operation: str, **body: Any) -> Any:
        """Call with wire JSON both ways, so that the client converts no value."""
        answer = await self._place.items.call(operation, json.dumps(body).encode(), None, "the bench", **body)
        return json.loads(answer.body)

    async def refuse(self, key: ItemKey, item: Image) -> Image:
        return Image(item.wire[:-1] + b',"filling":{"S":"' + b"x" * 410_000 + b'"}}')


def _image(item: Mapping[str, Any]) -> Image:
    return Image(json.dumps(item, separators=(",", ":")).encode())


def _key(item: Mapping[str, Any], names: Mapping[str, str]) -> str:
    return json.dumps({name: item[name] for name in sorted(names)})


# -- caches --------------------------------------------------------------------------------------------------------


class CacheBench(Protocol):
    """A cache, and its entries seen from the side."""

    @property
    def cache(self) -> Cache:
        """The port."""

    async def seed(self, entries: Mapping[str, bytes]) -> None:
        """Let these entries stand."""

    async def found(self, keys: Sequence[str]) -> dict[str, bytes | None]:
        """What stands under these keys."""

    async def life_ms(self, key: str) -> int:
        """How long an entry will live; negative: for ever."""


class MemoryCacheBench:
    """The memory cache."""

    def __init__(self) -> None:
        self.memory = MemoryCache()
        self.cache: Cache = self.memory

    async def seed(self, entries: Mapping[str, bytes]) -> None:
        self.memory.entries.update(entries)

    async def found(self, keys: Sequence[str]) -> dict[str, bytes | None]:
        return {key: self.memory.entries.get(key) for key in keys}

    async def life_ms(self, key: str) -> int:
        return self.memory.lives_ms.get(key, -1)


@dataclass
class RedisCacheBench:
    """A real server."""

    cache: RedisCache
    client: Any

    async def seed(self, entries: Mapping[str, bytes]) -> None:
        await self.client.mset(dict(entries))

    async def found(self, keys: Sequence[str]) -> dict[str, bytes | None]:
        return {key: await self.client.get(key) for key in keys}

    async def life_ms(self, key: str) -> int:
        return int(await self.client.pttl(key))


@asynccontextmanager
async def redis_bench(url: str) -> AsyncIterator[RedisCacheBench]:
    """The Redis adapter and a client beside it."""
    cache = RedisCache("main", url, username=None, password=None, connect_seconds=30, read_seconds=30)
    client = redis_asyncio.Redis.from_url(url)
    try:
        yield RedisCacheBench(cache, client)
    finally:
        await client.aclose()
        await cache.close()


# -- fences --------------------------------------------------------------------------------------------------------


@dataclass
class Turnstile:
    """A fence that counts, and falls when a test wants it."""

    error: Exception | None = None
    passed: int = field(default=0)

    def check(self) -> None:
        """Let a send pass, or refuse it."""
        if self.error is not None:
            raise self.error
        self.passed += 1


async def gathered(coroutines: Sequence[Any], at_once: int = 32) -> list[Any]:
    """Results in order, a few at a time."""
    limit = asyncio.Semaphore(at_once)

    async def bounded(coroutine: Any) -> Any:
        async with limit:
            return await coroutine

    return list(await asyncio.gather(*map(bounded, coroutines)))
