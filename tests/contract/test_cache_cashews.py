"""The cashews backend on a real Valkey, beside the daemon's own actions."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from cashews import Cache

import replicator.cache.cashews  # noqa: F401 - registers its schemes
from replicator.domain.cache_keys import Invalidate, Refresh
from replicator.domain.versions import ordered_version
from replicator.laboratory.servers import free_port
from tests.contract.worlds import RedisCacheBench, fresh, redis_bench

pytestmark = [
    pytest.mark.servers,
    pytest.mark.filterwarnings("ignore:Call to deprecated close:DeprecationWarning"),  # cashews closes its client so
]
ACTIONS: list[Callable[[str], Any]] = [Invalidate, lambda key: Refresh(key, ordered_version(0, 1, 1), b"{}", 1000)]


@pytest.fixture
async def cache(redis_url: str) -> AsyncIterator[Cache]:
    opened = Cache()
    opened.setup(f"replicator+{redis_url}?wait=0.05")
    yield opened
    await opened.close()


@pytest.fixture
async def bench(redis_url: str) -> AsyncIterator[RedisCacheBench]:
    async with redis_bench(redis_url) as opened:
        yield opened


@pytest.mark.parametrize("value", [{"total": 3}, 7, b"x|y", None, "text"])
async def test_a_decorated_function_fills_and_hits(cache: Cache, bench: RedisCacheBench, value: Any) -> None:
    key, calls = fresh("k"), 0

    @cache(ttl=60, key="{key}")
    async def load(key: str) -> Any:
        nonlocal calls
        calls += 1
        return value

    assert [await load(key), await load(key)] == [value, value]
    assert calls == 1
    assert await cache.get_many(key, fresh("none")) == (value, None)
    assert 0 < await bench.life_ms(key) <= 60_000


@pytest.mark.parametrize("action", ACTIONS, ids=["invalidate", "refresh"])
async def test_a_change_while_it_loads_keeps_it_from_filling(
    cache: Cache, bench: RedisCacheBench, action: Callable[[str], Any]
) -> None:
    key = fresh("k")

    @cache(ttl=60, key="{key}")
    async def load(key: str) -> str:
        await bench.cache.apply([action(key)])
        return "old"

    assert await load(key) == "old"
    assert (await bench.found([key]))[key] is None


@pytest.mark.parametrize("action", ACTIONS, ids=["invalidate", "refresh"])
async def test_every_action_drops_what_it_filled(
    cache: Cache, bench: RedisCacheBench, action: Callable[[str], Any]
) -> None:
    key = fresh("k")
    assert await cache.get(key) is None
    assert await cache.set(key, "old", expire=60)
    await bench.cache.apply([action(key)])
    assert (await bench.found([key]))[key] is None


async def test_nothing_is_stored_without_a_miss_before_or_beside_another_filler(
    cache: Cache, bench: RedisCacheBench
) -> None:
    key = fresh("k")
    assert not await cache.set(key, 1, expire=60)
    await bench.seed({key: b"L:another"})
    assert await cache.get(key, default=2) == 2
    assert not await cache.set(key, 1, expire=60)
    assert (await bench.found([key]))[key] == b"L:another"


async def test_a_cache_that_is_away_is_a_miss() -> None:
    away = Cache()
    away.setup(f"replicator+redis://127.0.0.1:{free_port()}/0")
    assert await away.get("k", default=1) == 1
    assert not await away.set("k", 1, expire=60)
    await away.close()
