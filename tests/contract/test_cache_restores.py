"""A real server that comes back with what it had saved before an entry was dropped."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from replicator.adapters.clock import SystemClock
from replicator.adapters.redis.cache import RedisCache
from replicator.domain.cache_debt import DebtPolicy
from replicator.domain.cache_keys import Invalidate
from replicator.domain.errors import Unreachable
from replicator.domain.identifiers import RegionId
from replicator.engine.applying.cache_debt import CacheDebt, Share
from replicator.engine.applying.cache_settling import Settler
from replicator.laboratory.memory import MemoryCacheDebt
from replicator.laboratory.servers import Valkey
from tests.engine.world import Recorder

pytestmark = pytest.mark.servers

SEAT = Share(seated=True, workers=1)


async def test_a_server_that_comes_back_from_a_snapshot_keeps_no_entry_of_the_rules(tmp_path: Path) -> None:
    options = ("--dir", str(tmp_path), "--dbfilename", "old.rdb")
    server = Valkey.start(tmp_path, options=options)
    cache = RedisCache("main", server.url, username=None, password=None, connect_seconds=1, read_seconds=5)
    policy = DebtPolicy(patterns=("order:*",))
    recorder = Recorder()
    debt = CacheDebt("main", RegionId("eu"), cache, MemoryCacheDebt(), policy, clock=SystemClock(), observer=recorder)
    settler = Settler(debt)
    try:
        await cache._client.mset({"order:1": b"V:old", "order:2": b"V:sound", "other": b"kept"})
        await settler.look(SEAT)
        await cache._client.save()
        await debt.apply([Invalidate("order:1")])
        server.child.process.kill()
        server.child.process.wait()
        await debt.apply([Invalidate("order:2")])
        assert debt.error is not None
        server = Valkey.start(tmp_path, port=server.port, options=options)
        assert await cache.get("order:1") == b"V:old", "it went back"
        for _ in range(5):
            await settler.look(SEAT)
        assert recorder.caches["main"].error is None
        assert (recorder.caches["main"].restores, recorder.caches["main"].flushes) == (1, 1)
        assert [await cache.get(key) for key in ("order:1", "order:2", "other")] == [None, None, b"kept"]
    finally:
        await cache.close()
        server.stop()


async def test_a_flush_during_which_another_server_took_over_is_done_again(tmp_path: Path) -> None:
    """A cursor means nothing to another server: most of its entries would be passed over, and count as dropped."""
    options = ("--dir", str(tmp_path), "--appendonly", "yes", "--appendfsync", "always")
    server = Valkey.start(tmp_path, options=options)
    cache = RedisCache("main", server.url, username=None, password=None, connect_seconds=1, read_seconds=5)
    policy = DebtPolicy(patterns=("order:*",), restore_window=0.0)  # nothing else drops entries
    recorder = Recorder()
    debt = CacheDebt("main", RegionId("eu"), cache, MemoryCacheDebt(), policy, clock=SystemClock(), observer=recorder)
    settler = Settler(debt)
    scan = cache._client.scan
    scans = 0

    async def scanned(*arguments: Any, **choices: Any) -> Any:
        nonlocal server, scans
        scans += 1
        if scans == 2:
            server.child.process.kill()
            server.child.process.wait()
            server = Valkey.start(tmp_path, port=server.port, options=options)
            with suppress(Unreachable):
                await debt.heads(["order:1"])  # a look behind an action meets the broken connection
        return await scan(*arguments, **choices)

    try:
        await cache._client.mset({f"order:{number}": b"V:old" for number in range(20_000)})
        await settler.look(SEAT)
        cache._client.scan = scanned
        assert await debt.drop_all()
        for _ in range(6):
            with suppress(Unreachable):
                await settler.look(SEAT)
        assert debt.flush is None
        assert not [key async for keys in cache.matching("order:*") for key in keys]
        assert recorder.caches["main"].error is None
    finally:
        await cache.close()
        server.stop()
