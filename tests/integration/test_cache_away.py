"""A cache is away under traffic: its replica waits for nothing, and nothing stays stale once it is back."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from tests.integration.harness import CacheReader, Users, Valve, World, eventually, open_world

pytestmark = pytest.mark.servers


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with open_world(tmp_path) as opened:
        yield opened


def restricted(world: World, config: Path) -> Any:
    """Make the user that `check` prints; a client of the server beside it."""
    told = world.command("check", config=config).stdout
    (line,) = re.findall(r"ACL SETUSER rep .*", told)
    server: Any = redis.Redis(port=world.valkey_port)
    server.execute_command(*line.strip().replace(">PASSWORD", ">pw").split())
    server.execute_command("ACL", "LOG", "RESET")
    return server


@pytest.mark.long
async def test_a_cache_that_is_away_delays_no_replica_and_keeps_nothing_stale(world: World) -> None:  # noqa: PLR0915
    valve = Valve(world.valkey_port)
    await world.create_tables()
    settings = world.settings(rule={"cache": [{"cache": "eu_main", "key": "order:{pk}"}]})
    settings["caches"] = {"eu_main": {"region": "eu", "url": f"redis://127.0.0.1:{valve.port}/0"}}
    settings["caches"]["eu_main"] |= {"verify": {"share": "100%", "reads": 100}, "username": "rep", "password": "pw"}
    config = world.write_settings(settings)
    server = restricted(world, config)
    world.initialise(config)
    users = Users(world, seed=4)
    daemon = world.daemon(config)

    async def converged() -> bool:
        return all(items == users.truth for items in (await world.replicas()).values())

    def cache() -> dict[str, Any]:
        return daemon.status()["caches"][0]  # type: ignore[no-any-return]

    stop = asyncio.Event()
    with CacheReader(world, database=0, region="eu", table="orders", template="order:{pk}") as reader:
        reading = asyncio.ensure_future(reader.keep_reading(lambda: list(users.truth), stop))
        await users.write(60)
        await eventually("convergence", converged)
        valve.close()
        await users.write(60)
        await eventually("convergence while the cache is away", converged)
        await eventually("that it is known", lambda: cache()["standing"] == "away")
        assert not any(target["blocked"] for target in daemon.targets().values())
        status = world.command("status", config=config)
        assert "cache eu_main in eu is away for" in status.stdout
        owed = world.command("caches", "--json", config=config)
        (listed,) = json.loads(owed.stdout)["caches"]
        assert owed.returncode == 1
        assert (listed["away"], listed["workers"], listed["keys"] > 0) == (1, 1, True)
        assert "got no answer" in listed["trouble"]
        _, stale = await reader.incoherent()
        assert stale, "its readers were not told of a change yet"
        daemon.kill()  # what is owed outlives a worker
        daemon.start()
        await users.write(30)
        valve.open()
        await eventually("convergence", converged)
        await eventually("that it is back", lambda: (cache()["standing"], cache()["keys"]) == ("here", 0))
        stop.set()
        await reading

        async def coherent() -> bool:
            return not (await reader.incoherent())[1]

        await eventually("coherence", coherent)
    level = 'replicator_cache_owed_entries{cache="eu_main",region="eu"} 0.0'
    await eventually("the metric", lambda: level in daemon.get("/metrics")[1])
    assert daemon.events("cache_settled")
    asked = world.command("caches", config=config)
    assert asked.returncode == 0, asked.stderr
    assert cache()["horizons"][0]["checked"] + cache()["horizons"][0]["absent"] > 0
    assert server.acl_log() == [], "the user has what check printed, and nothing is missing"
    server.close()
    assert 'replicator_cache_verified_entries_total{cache="eu_main",horizon="1s"' in daemon.get("/metrics")[1]
    assert asked.stdout.splitlines()[1].startswith("eu_main\teu\there\t0\t")
    assert "standalone, master" in asked.stdout
    valve.close()
