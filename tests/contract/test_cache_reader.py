"""The reader library on a real Valkey, beside the daemon's own actions: for asyncio and for threads."""

from __future__ import annotations

import asyncio
import inspect
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
import redis
import redis.asyncio as redis_asyncio

from replicator.cache import (
    ITEM,
    CacheAside,
    Codec,
    Loaded,
    Source,
    SyncCacheAside,
    cached,
    dynamodb_loader,
)
from replicator.cache.dynamodb import UNSTAMPED
from replicator.cache.scripts import SCRIPTS
from replicator.domain import versions
from replicator.domain.cache_keys import CacheRule, CacheVerb, Invalidate, Refresh
from replicator.domain.cache_values import Shape
from replicator.domain.identifiers import RegionId
from replicator.domain.image import Image
from replicator.domain.key_templates import KeyTemplate
from replicator.laboratory.servers import Valkey, free_port
from tests.contract.worlds import DynamoRegionBench, RedisCacheBench, fresh, place, redis_bench

pytestmark = pytest.mark.servers
V1, V2 = (versions.ordered_version(0, 1_700_000_000_000, number) for number in (1, 2))


class Table:
    """Items that a loader reads, and what happens before it returns."""

    def __init__(self) -> None:
        self.items: dict[str, Any] = {}
        self.loads = 0
        self.meanwhile: Callable[[], Any] | None = None

    async def load(self, pk: str) -> Any:
        self.loads += 1
        found = self.items.get(pk)
        if isinstance(found, Exception):
            raise found
        if self.meanwhile is not None:
            await self.meanwhile()
        return found


@asynccontextmanager
async def reader(kind: str, url: str, load: Any, **options: Any) -> AsyncIterator[Any]:
    """A reader; the one for threads runs in one, and its loader asks the test's loop."""
    if kind == "asyncio":
        async with redis_asyncio.Redis.from_url(url) as client:
            yield CacheAside(client, key="{pk}", load=load, **options)
        return
    loop = asyncio.get_running_loop()

    def blocking(**values: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(load(**values), loop).result()

    class Threaded:
        def __init__(self, cache: SyncCacheAside) -> None:
            self.counts = cache.counts
            self.cache = cache

        async def read(self, **values: Any) -> Any:
            return await asyncio.to_thread(self.cache.read, **values)

        async def invalidate(self, **values: Any) -> Any:
            return await asyncio.to_thread(self.cache.invalidate, **values)

    with closing(redis.Redis.from_url(url)) as blocking_client:
        yield Threaded(SyncCacheAside(blocking_client, key="{pk}", load=blocking, **options))


@pytest.fixture(params=["asyncio", "threads"])
def kind(request: pytest.FixtureRequest) -> Any:
    return request.param


@pytest.fixture
async def bench(redis_url: str) -> AsyncIterator[RedisCacheBench]:
    async with redis_bench(redis_url) as opened:
        yield opened


async def source(cache: Any, key: str) -> tuple[Any, Source]:
    found = await cache.read(pk=key)
    return found.value, found.source


async def test_a_miss_fills_and_the_next_read_hits(kind: str, redis_url: str, bench: RedisCacheBench) -> None:
    key, table = fresh("k"), Table()
    table.items[key] = {"total": 3}
    async with reader(kind, redis_url, table.load, ttl=600, jitter=0.5) as cache:
        assert await source(cache, key) == ({"total": 3}, Source.FILLED)
        assert await source(cache, key) == ({"total": 3}, Source.HIT)
        assert table.loads == 1
        assert cache.counts == {Source.FILLED: 1, Source.HIT: 1}
        assert 200_000 < await bench.life_ms(key) <= 600_000


async def test_absence_is_remembered_only_when_asked(kind: str, redis_url: str, bench: RedisCacheBench) -> None:
    key, table = fresh("k"), Table()
    async with reader(kind, redis_url, table.load) as cache:
        assert await source(cache, key) == (None, Source.MISSING)
        assert (await bench.found([key]))[key] is None
    async with reader(kind, redis_url, table.load, negative_ttl=60) as cache:
        assert await source(cache, key) == (None, Source.FILLED)
        assert await source(cache, key) == (None, Source.ABSENT)
        await bench.cache.apply([Refresh(key, V1, b"{}", 1000)])
        assert (await bench.found([key]))[key] is None


async def test_a_value_that_has_no_entries_is_not_stored(kind: str, redis_url: str, bench: RedisCacheBench) -> None:
    key, table = fresh("k"), Table()
    table.items[key] = "closed"
    async with reader(kind, redis_url, table.load, when=lambda value: value == "open") as cache:
        assert await source(cache, key) == ("closed", Source.UNKEPT)
        assert (await bench.found([key]))[key] is None
        table.items[key] = "open"
        assert await source(cache, key) == ("open", Source.FILLED)


async def test_a_list_is_right_until_one_of_its_tags_is_dropped(
    kind: str, redis_url: str, bench: RedisCacheBench
) -> None:
    key, table, prefix = fresh("k"), Table(), fresh("p")
    table.items[key] = [1]
    tags = ["one:{pk}", "two:{pk}"]
    async with reader(kind, redis_url, table.load, tags=tags, prefix=prefix, ttl=600) as cache:
        assert await source(cache, key) == ([1], Source.FILLED)
        assert await source(cache, key) == ([1], Source.HIT)
        assert 500_000 < await bench.life_ms(f"{prefix}two:{key}") <= 600_000
        for number, tag in enumerate(("one", "two"), start=2):
            table.items[key] = [number]
            await bench.cache.apply([Invalidate(f"{prefix}{tag}:{key}")])
            assert await source(cache, key) == ([number], Source.FILLED)
            assert await source(cache, key) == ([number], Source.HIT)

        async def change() -> None:
            table.meanwhile = None
            await bench.cache.apply([Invalidate(f"{prefix}one:{key}")])

        await bench.cache.apply([Invalidate(f"{prefix}one:{key}")])
        table.meanwhile = change
        assert (await source(cache, key))[1] is Source.FILLED
        assert (await source(cache, key))[1] is Source.FILLED, "the tag was dropped while it loaded"
        await bench.seed({prefix + key: b"V:|[0]"})
        assert await source(cache, key) == ([3], Source.FOREIGN)


async def test_a_hash_is_filled_read_and_refreshed(kind: str, redis_url: str, bench: RedisCacheBench) -> None:
    key, table = fresh("k"), Table()
    shape = Shape("hash")
    table.items[key] = Loaded(shape.encode({"pk": {"S": "ü/"}, "n": {"N": "1.50"}}), V1)
    options: dict[str, Any] = {"codec": Codec(shape.encode, shape.decode, hashed=True), "negative_ttl": 60}
    async with reader(kind, redis_url, table.load, **options) as cache:
        assert await source(cache, key) == ({"pk": "ü/", "n": "1.50"}, Source.FILLED)
        assert await source(cache, key) == ({"pk": "ü/", "n": "1.50"}, Source.HIT)
        assert await bench.client.hget(key, "n") == b"1.50"
        await bench.cache.apply([Refresh(key, V2, shape.encode({"n": {"N": "2"}}), 60_000, hashed=True)])
        assert await source(cache, key) == ({"n": "2"}, Source.HIT)
        await bench.cache.apply([Invalidate(key)])
        del table.items[key]
        assert await source(cache, key) == (None, Source.FILLED)
        assert await source(cache, key) == (None, Source.ABSENT)
        await bench.client.delete(key)
        await bench.seed({key: b"L:another"})
        assert (await source(cache, key))[1] is Source.WAITED
        await bench.seed({key: b"V:|{}"})
        assert (await source(cache, key))[1] is Source.FOREIGN


@pytest.mark.parametrize("verb", ["invalidate", "refresh"])
async def test_a_change_while_it_loads_keeps_a_reader_from_filling(
    kind: str, verb: str, redis_url: str, bench: RedisCacheBench
) -> None:
    key, table = fresh("k"), Table()
    table.items[key] = "old"

    async def change() -> None:
        table.items[key], table.meanwhile = "new", None
        await bench.cache.apply([Invalidate(key) if verb == "invalidate" else Refresh(key, V1, b"{}", 1000)])

    table.meanwhile = change
    async with reader(kind, redis_url, table.load) as cache:
        assert await source(cache, key) == ("old", Source.OVERTAKEN)
        assert await source(cache, key) == ("new", Source.FILLED)


async def test_readers_wait_for_the_one_that_fills(kind: str, redis_url: str, bench: RedisCacheBench) -> None:
    key, table = fresh("k"), Table()
    table.items[key] = 1
    await bench.seed({key: b"L:another"})
    async with reader(kind, redis_url, table.load, wait=60) as cache:
        waiting = asyncio.create_task(source(cache, key))
        await asyncio.sleep(0)
        await bench.seed({key: b'V:|"filled"'})
        assert await waiting == ("filled", Source.HIT)
        assert table.loads == 0
    await bench.seed({key: b"L:another"})
    async with reader(kind, redis_url, table.load, wait=0) as cache:
        assert await source(cache, key) == (1, Source.WAITED)
    assert (await bench.found([key]))[key] == b"L:another"


async def test_a_table_that_fails_is_heard_and_its_lease_returned(
    kind: str, redis_url: str, bench: RedisCacheBench
) -> None:
    key, table = fresh("k"), Table()
    table.items[key] = LookupError("table")
    async with reader(kind, redis_url, table.load) as cache:
        with pytest.raises(LookupError):
            await cache.read(pk=key)
        assert (await bench.found([key]))[key] is None


async def test_a_value_that_cannot_be_stored_returns_its_lease(
    kind: str, redis_url: str, bench: RedisCacheBench
) -> None:
    key, table = fresh("k"), Table()
    table.items[key] = object()
    async with reader(kind, redis_url, table.load) as cache:
        with pytest.raises(TypeError):
            await cache.read(pk=key)
        assert (await bench.found([key]))[key] is None


async def test_a_cache_that_goes_away_while_it_loads_is_not_taken_for_a_newer_write(tmp_path: Path) -> None:
    table = Table()
    table.items["k"] = 1
    with Valkey.start(tmp_path) as server:

        async def away() -> None:
            server.stop()

        table.meanwhile = away
        async with reader("asyncio", server.url, table.load) as cache:
            assert await source(cache, "k") == (1, Source.DOWN)


async def test_an_entry_near_its_end_is_renewed_while_others_use_it(
    kind: str, redis_url: str, bench: RedisCacheBench
) -> None:
    key, table = fresh("k"), Table()
    await bench.client.set(key, b'V:|"old"', px=60_000)
    seen: list[Any] = []
    async with (
        reader(kind, redis_url, table.load, early_refresh=10**9) as cache,
        reader("asyncio", redis_url, table.load) as other,
    ):

        async def meanwhile() -> None:
            table.meanwhile = None
            seen.append(await source(other, key))

        table.items[key] = LookupError("table")
        assert await source(cache, key) == ("old", Source.HIT)
        await bench.client.set(key, b'V:|"old"', px=60_000)
        table.items[key], table.meanwhile = "new", meanwhile
        assert await source(cache, key) == ("new", Source.RENEWED)
        assert seen == [("old", Source.HIT)]
        await bench.client.set(key, b'V:|"old"', px=60_000)
        table.meanwhile = lambda: bench.cache.apply([Invalidate(key)])
        assert await source(cache, key) == ("new", Source.OVERTAKEN)
        assert (await bench.found([key]))[key] is None


@pytest.mark.parametrize("entry", [b"hello", b"V:|no json"])
async def test_what_is_no_entry_is_neither_used_nor_replaced(
    kind: str, entry: bytes, redis_url: str, bench: RedisCacheBench
) -> None:
    key, table = fresh("k"), Table()
    table.items[key] = 1
    await bench.seed({key: entry})
    async with reader(kind, redis_url, table.load) as cache:
        assert await source(cache, key) == (1, Source.FOREIGN)
    assert (await bench.found([key]))[key] == entry


async def test_a_cache_that_is_away_costs_nothing_but_reads_of_the_table(kind: str) -> None:
    table, url = Table(), f"redis://127.0.0.1:{free_port()}/0"
    table.items["k"] = 1
    async with reader(kind, url, table.load, break_after=2, break_seconds=3600) as cache:
        for _ in range(4):
            assert await source(cache, "k") == (1, Source.DOWN)
        assert not await cache.invalidate(pk="k")
    async with reader(kind, url, table.load, raise_errors=True) as cache:
        with pytest.raises(redis.ConnectionError):
            await cache.read(pk="k")


async def test_a_server_that_forgot_the_scripts_is_taught_again(
    kind: str, redis_url: str, bench: RedisCacheBench
) -> None:
    key, table = fresh("k"), Table()
    table.items[key] = 1
    table.meanwhile = bench.client.script_flush
    await bench.client.script_flush()
    async with reader(kind, redis_url, table.load) as cache:
        assert await source(cache, key) == (1, Source.FILLED)
        assert await cache.invalidate(pk=key)
        assert (await bench.found([key]))[key] is None


async def test_the_decorator_serves_both_kinds(redis_url: str) -> None:
    key = fresh("k")
    async with redis_asyncio.Redis.from_url(redis_url) as client:

        @cached(client, key="{pk}")
        async def load(pk: str) -> int:
            return len(pk)

        assert await load(key) == await load(pk=key) == len(key)
        assert vars(load)["cache"].counts == {Source.FILLED: 1, Source.HIT: 1}
    with closing(redis.Redis.from_url(redis_url)) as blocking:

        @cached(blocking, key="{pk}")
        def load_blocking(pk: str) -> int:
            raise AssertionError(pk)

        assert load_blocking(key) == len(key)
        assert vars(load_blocking)["cache"].counts == {Source.HIT: 1}


async def test_the_loader_reads_what_a_refresh_would_write(
    dynamodb_url: str, redis_url: str, bench: RedisCacheBench
) -> None:
    async with place(dynamodb_url) as opened, redis_asyncio.Redis.from_url(redis_url) as client:
        region = DynamoRegionBench(opened, {"pk": "S"})
        await region.create()
        item: Any = {
            "pk": {"S": "ü:1"},
            "_rep": {"S": V1},
            "n": {"N": "1.50"},
            "b": {"B": b"\0"},
            "s": {"NS": ["1", "2"]},
        }
        await opened.dynamodb.put_item(TableName=region.table, Item=item)
        cache = CacheAside(client, key=fresh("o") + ":{pk}", load=dynamodb_loader(region.table, opened.dynamodb))
        wanted = {"pk": "ü:1", "n": Decimal("1.50"), "b": b"\0", "s": {Decimal(1), Decimal(2)}}
        assert await cache.get(pk="ü:1") == await cache.get(pk="ü:1") == wanted
        assert await cache.get(pk="none") is None
        assert cache.counts == {Source.FILLED: 1, Source.HIT: 1, Source.MISSING: 1}
        key = cache._reader.policy.key({"pk": "ü:1"})
        await bench.cache.apply([Refresh(key, V2, b'{"pk":{"S":"newer"}}', 60_000)])
        assert await cache.get(pk="ü:1") == {"pk": "newer"}


@pytest.mark.parametrize(
    "options", [{"value": "json"}, {"value": "msgpack", "numbers": "number"}, {"attributes": ["n"]}]
)
def test_the_loader_stores_what_a_rule_of_the_same_format_does(options: dict[str, Any]) -> None:
    shape = Shape(
        options.get("value", "dynamodb_json"), options.get("numbers", "string"), options.get("attributes", ())
    )
    typed = {"pk": {"S": "ü"}, "n": {"N": "1.50"}, "b": {"B": "AA=="}, "m": {"M": {"s": {"BS": ["AA=="]}}}}
    read = {
        "pk": {"S": "ü"},
        "n": {"N": "1.50"},
        "b": {"B": b"\0"},
        "m": {"M": {"s": {"BS": [b"\0"]}}},
        "_rep": {"S": V1},
    }
    loader = dynamodb_loader("t", SimpleNamespace(get_item=lambda **_: {"Item": read}), **options)
    rule = CacheRule("main", RegionId("eu"), KeyTemplate("{pk}"), CacheVerb.REFRESH, timedelta(hours=1), shape=shape)
    loaded = loader(pk="ü")
    assert loaded == Loaded(rule.payload(Image(msgspec.json.encode(typed))), V1)
    assert loader.codec.decode(loaded.payload)


def test_versions_of_the_loader_are_those_of_the_daemon() -> None:
    class Client:
        """What answers `get_item` with one item."""

        def __init__(self, stamp: Any) -> None:
            self.stamp = stamp

        def get_item(self, **_: Any) -> Any:
            return {"Item": {"pk": {"S": "k"}, **({} if self.stamp is None else {"_rep": self.stamp})}}

    found = [dynamodb_loader("t", Client(stamp))(pk="k") for stamp in (None, {"S": V1}, {"S": "x"}, {"N": "1"})]
    assert found == [Loaded(b'{"pk":{"S":"k"}}', version) for version in (UNSTAMPED, V1, "", "")]
    assert versions.UNSTAMPED == UNSTAMPED
    assert not inspect.isawaitable(found[0])
    assert ITEM.decode(b'{"a":{"M":{"l":{"L":[{"NULL":true},{"BOOL":false}]}}}}') == {"a": {"l": [None, False]}}


@pytest.mark.parametrize(
    "options",
    [
        {"tags": ["x"]},
        {"tags": ["{pk}"], "negative_ttl": 1},
        {"tags": ["{pk}"] * 17},
        {"key": "order"},
        {"ttl": 0},
        {"lease": 0},
        {"wait": -1},
        {"jitter": 1},
        {"negative_ttl": -1},
        {"break_after": 0},
    ],
)
def test_options_that_make_no_sense_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"must be|placeholder|at most"):
        CacheAside(None, **{"key": "{pk}", "load": print, **options})


def test_the_page_prints_the_scripts() -> None:
    page = (Path(__file__).parents[2] / "docs" / "cache.md").read_text()
    assert all(f"```lua\n{script.strip()}\n```" in page for script in SCRIPTS)


@pytest.mark.parametrize("values", [{}, {"pk": 1, "more": 2}, {"pk": True}, {"pk": 1.5}])
def test_a_key_needs_the_attributes_of_its_template(values: dict[str, Any]) -> None:
    with pytest.raises(TypeError):
        CacheAside(None, key="{pk}", load=print)._reader.policy.key(values)


def test_keys_are_escaped_as_the_daemon_does() -> None:
    policy = CacheAside(None, key="order:{a}:{b}", load=print)._reader.policy
    assert policy.key({"a": "x:%", "b": 7}) == "order:x%3A%25:7"
    assert policy.key({"a": b"\0", "b": "y"}) == "order:AA==:y"


def test_the_library_imports_redis_and_nothing_else_of_ours() -> None:
    program = """
import sys, replicator.cache
print(sorted({"aiobotocore", "botocore", "msgspec", "pydantic", "structlog", "aiohttp"} & set(sys.modules)))
print(sorted(name for name in sys.modules if name.startswith("replicator.") and "cache" not in name))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n['replicator.domain', 'replicator.domain.key_templates']\n"


async def test_whatever_a_client_raises_its_caller_gets_the_item() -> None:
    async def evalsha(*_: object) -> None:
        raise AttributeError(
            "'NoneType' object has no attribute 'writelines'"
        )  # as a client whose connection breaks does

    async def load(pk: str) -> dict[str, str]:
        return {"pk": pk}

    reading = await CacheAside(SimpleNamespace(evalsha=evalsha), key="order:{pk}", load=load).read(pk="7")
    assert (reading.value, reading.source) == ({"pk": "7"}, Source.DOWN)
