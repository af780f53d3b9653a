"""A real server that comes back with what it had saved before an entry was dropped."""

from __future__ import annotations

from pathlib import Path

import pytest

from replicator.adapters.clock import SystemClock
from replicator.adapters.redis.cache import RedisCache
from replicator.domain.cache_debt import DebtPolicy
from replicator.domain.cache_keys import Invalidate
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
