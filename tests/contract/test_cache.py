"""The contract of a cache, in memory and on a real Valkey."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random
from urllib.parse import urlsplit

import pytest
import redis.asyncio as redis_asyncio

from replicator.domain.cache_keys import CacheAction, Invalidate, Refresh
from replicator.domain.errors import Throttled, Unreachable
from replicator.domain.versions import UNSTAMPED, ordered_version
from replicator.laboratory.memory import acted, value_entry
from replicator.laboratory.servers import Valkey
from tests.contract.worlds import CacheBench, fresh, redis_bench

V1, V2, V3 = (ordered_version(0, 1_700_000_000_000, number) for number in (1, 2, 3))
PAYLOAD = '{"pk":{"S":"ü|\\n"}}'.encode()
HOUR_MS = 3_600_000


def refresh(key: str, version: str = V2, payload: bytes | None = PAYLOAD) -> Refresh:
    return Refresh(key, version, payload, HOUR_MS)


async def after(bench: CacheBench, entry: bytes | None, action: CacheAction) -> tuple[bytes | None, int]:
    """What becomes of one entry by one action, and how many entries the cache says it changed."""
    if entry is not None:
        await bench.seed({action.key: entry})
    changed = await bench.cache.apply([action])
    return (await bench.found([action.key]))[action.key], changed


@pytest.mark.parametrize("payload", [PAYLOAD, None], ids=["value", "deleted"])
async def test_a_refresh_creates_nothing(cache_bench: CacheBench, payload: bytes | None) -> None:
    assert await after(cache_bench, None, refresh(fresh("k"), payload=payload)) == (None, 0)


@pytest.mark.parametrize("payload", [PAYLOAD, None], ids=["value", "deleted"])
async def test_a_refresh_drops_the_lease_of_a_reader(cache_bench: CacheBench, payload: bytes | None) -> None:
    assert await after(cache_bench, b"L:token", refresh(fresh("k"), payload=payload)) == (None, 1)


@pytest.mark.parametrize(
    "entry",
    [value_entry(V1, b"{}"), b"T:" + V1.encode(), value_entry(UNSTAMPED, b"{}")],
    ids=["value", "marker", "zeros"],
)
async def test_a_refresh_replaces_what_is_older(cache_bench: CacheBench, entry: bytes) -> None:
    assert await after(cache_bench, entry, refresh(fresh("k"))) == (b"V:" + V2.encode() + b"|" + PAYLOAD, 1)
    assert await after(cache_bench, entry, refresh(fresh("k"), payload=None)) == (b"T:" + V2.encode(), 1)


@pytest.mark.parametrize("version", [V2, V3], ids=["equal", "newer"])
@pytest.mark.parametrize("payload", [PAYLOAD, None], ids=["value", "deleted"])
async def test_a_refresh_keeps_what_is_not_older(cache_bench: CacheBench, version: str, payload: bytes | None) -> None:
    for entry in (value_entry(version, b"{}"), b"T:" + version.encode()):
        assert await after(cache_bench, entry, refresh(fresh("k"), payload=payload)) == (entry, 0)


async def test_a_refresh_drops_what_is_no_entry_of_ours(cache_bench: CacheBench) -> None:
    other_lengths = (b"V:zzz-unversioned", b"V:" + b"9" * 60 + b"|{}", b"T:" + b"9" * 60, b"V:" + b"9" * 56, b"T:9")
    for entry in (b"hello", b"", b"V", b'{"json":1}', *other_lengths):
        assert await after(cache_bench, entry, refresh(fresh("k"))) == (None, 1)


async def test_a_refreshed_entry_lives_as_long_as_it_may(cache_bench: CacheBench) -> None:
    key = fresh("k")
    await after(cache_bench, value_entry(V1, b"{}"), refresh(key))
    assert 0 < await cache_bench.life_ms(key) <= HOUR_MS


async def test_an_entry_that_is_kept_keeps_its_life(cache_bench: CacheBench) -> None:
    key = fresh("k")
    await after(cache_bench, value_entry(V3, b"{}"), refresh(key))
    assert await cache_bench.life_ms(key) < 0


@pytest.mark.parametrize("entry", [value_entry(V3, b"{}"), b"T:" + V3.encode(), b"L:token", b"hello"])
async def test_an_invalidation_drops_whatever_stands_there(cache_bench: CacheBench, entry: bytes) -> None:
    assert await after(cache_bench, entry, Invalidate(fresh("k"))) == (None, 1)


async def test_an_invalidation_of_nothing_changes_nothing(cache_bench: CacheBench) -> None:
    assert await after(cache_bench, None, Invalidate(fresh("k"))) == (None, 0)


async def test_no_action_is_no_change(cache_bench: CacheBench) -> None:
    assert await cache_bench.cache.apply([]) == 0


async def test_many_actions_act_in_their_order(cache_bench: CacheBench) -> None:
    """More keys than fit one round trip, each refreshed twice: the newer one wins, wherever the older one stands."""
    keys = [fresh("k") for _ in range(700)]
    await cache_bench.seed(dict.fromkeys(keys, value_entry(V1, b"{}")))
    actions = [refresh(key, V3, b"3") for key in keys] + [refresh(key, V2, b"2") for key in keys]
    assert await cache_bench.cache.apply(actions) == 700
    assert set((await cache_bench.found(keys)).values()) == {value_entry(V3, b"3")}


async def test_every_action_on_every_entry_does_what_the_pure_function_says(cache_bench: CacheBench) -> None:
    dice = Random(9)
    entries: dict[str, bytes | None] = {}
    actions: list[CacheAction] = []
    for _ in range(1000):
        key = fresh("k")
        stands, comes = (ordered_version(0, 1, dice.randrange(1, 4)) for _ in range(2))
        entries[key] = dice.choice(
            [None, b"L:t", b"x", value_entry(stands, b"{}"), b"T:" + stands.encode(), b"V:" + b"9" * 55 + b"|"]
        )
        choices: list[CacheAction] = [Invalidate(key), refresh(key, comes), refresh(key, comes, None)]
        actions.append(dice.choice(choices))
    await cache_bench.seed({key: entry for key, entry in entries.items() if entry is not None})
    expected = {action.key: acted(entries[action.key], action) for action in actions}
    changed = await cache_bench.cache.apply(actions)
    assert await cache_bench.found(list(entries)) == expected
    assert changed == sum(entries[key] != expected[key] for key in entries)


@pytest.mark.servers
async def test_a_value_of_another_redis_type_is_dropped(redis_url: str) -> None:
    async with redis_bench(redis_url) as bench:
        key = fresh("list")
        await bench.client.rpush(key, "a")
        assert await bench.cache.apply([refresh(key)]) == 1
        assert not await bench.client.exists(key)


@pytest.mark.servers
async def test_a_server_that_forgot_its_scripts_is_taught_again(redis_url: str) -> None:
    async with redis_bench(redis_url) as bench:
        keys = [fresh("k"), fresh("k")]
        for key in keys:
            await bench.client.script_flush()
            await bench.seed({key: value_entry(V1, b"{}")})
            assert await bench.cache.apply([refresh(key)]) == 1


class Address:
    """An address that leads to one server and then to another, as behind a failover; open connections stay."""

    def __init__(self, port: int) -> None:
        self.leads_to = port
        self._tasks: set[asyncio.Task[None]] = set()

    @asynccontextmanager
    async def serve(self) -> AsyncIterator[str]:
        server = await asyncio.start_server(self._accept, "127.0.0.1")
        try:
            yield f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}/0"
        finally:
            server.close()
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self.leads_to)
        for source, sink in ((reader, far_writer), (far_reader, writer)):
            self._tasks.add(asyncio.create_task(_pump(source, sink)))


async def _pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    try:
        while data := await source.read(65536):
            sink.write(data)
            await sink.drain()
    finally:
        sink.close()


@pytest.mark.servers
async def test_after_a_failover_the_retry_reaches_the_new_primary(redis_url: str, tmp_path: Path) -> None:
    with Valkey.start(tmp_path) as second:
        old, new = (redis_asyncio.Redis.from_url(url) for url in (redis_url, second.url))
        address, key = Address(int(urlsplit(redis_url).port or 0)), fresh("k")
        try:
            async with address.serve() as url, redis_bench(url) as bench:
                assert await bench.cache.apply([refresh(key)]) == 0
                address.leads_to = int(urlsplit(second.url).port or 0)
                await new.set(key, value_entry(V1, b"{}"))
                await old.set(key, value_entry(V1, b"{}"))
                await old.slaveof("127.0.0.1", 1)
                with pytest.raises(Unreachable):
                    await bench.cache.apply([refresh(key)])
                assert await bench.cache.apply([refresh(key)]) == 1
                assert await new.get(key) == value_entry(V2, PAYLOAD)
        finally:
            await old.slaveof()
            await old.aclose()
            await new.aclose()


@pytest.mark.servers
async def test_a_full_cache_asks_for_memory(redis_url: str) -> None:
    async with redis_bench(redis_url) as bench:
        key = fresh("k")
        await bench.seed({key: value_entry(V1, b"{}")})
        await bench.client.config_set("maxmemory", "1")
        try:
            with pytest.raises(Throttled, match="out of memory") as caught:
                await bench.cache.apply([refresh(key)])
        finally:
            await bench.client.config_set("maxmemory", "0")
        assert "maxmemory" in caught.value.advice
