"""A daemon beside a cluster: what check and people are shown, a slot that moves and a node that dies under traffic."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from redis.cluster import RedisCluster
from redis.crc import key_slot

from tests.contract.cluster_servers import VALKEY, Cluster, cluster
from tests.integration.harness import Users, World, eventually, open_world

pytestmark = [pytest.mark.servers, pytest.mark.long]


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with open_world(tmp_path) as opened:
        yield opened


@pytest.fixture
def nodes(tmp_path: Path) -> Iterator[Cluster]:
    with cluster(tmp_path, VALKEY) as started:
        yield started


async def test_a_daemon_keeps_a_cluster_in_step_while_a_slot_moves_and_a_node_dies(  # noqa: PLR0915
    world: World, nodes: Cluster
) -> None:
    await world.create_tables()
    settings = world.settings(rule={"cache": [{"cache": "eu_main", "key": "order:{pk}", "action": "refresh"}]})
    settings["caches"] = {"eu_main": {"region": "eu", "url": nodes.url}}
    config = world.write_settings(settings)
    world.initialise(config)
    checked = world.command("check", config=config)
    assert checked.returncode == 0, checked.stdout
    assert "+asking +cluster|slots +cluster|info" in checked.stdout
    assert checked.stdout.count("5461 slots") == 2
    users, daemon = Users(world, seed=3), world.daemon(config)
    client = RedisCluster(host="127.0.0.1", port=nodes.nodes[0].port)

    def fill() -> dict[str, object]:
        """A lease under every key, which whatever acts on an item drops; returns the items of now."""
        for pk in users.truth:
            client.set(f"order:{pk}", "L:of a reader that is slow")
        return dict(users.truth)

    def undone(before: dict[str, object]) -> list[str]:
        """Items that changed since, and were not acted on."""
        changed = [pk for pk in before if users.truth.get(pk) != before[pk]]
        assert changed
        return [pk for pk in changed if client.get(f"order:{pk}") is not None]

    async def converged() -> bool:
        return all(items == users.truth for items in (await world.replicas()).values())

    def cache() -> dict[str, object]:
        return daemon.status()["caches"][0]  # type: ignore[no-any-return]

    await users.write(40)
    await eventually("convergence", converged)
    slot = key_slot(b"order:" + next(iter(users.truth)).encode())
    to = next(node for node in nodes.primaries if node is not nodes.holder(slot))
    before = fill()
    source = nodes.begin_to_move(slot, to)
    await asyncio.gather(users.write(60), asyncio.to_thread(nodes.moved, slot, source, to))
    nodes.end_move(slot, source, to)
    await eventually("convergence over the move", converged)
    assert (undone(before), cache()["owed"]) == ([], 0)
    dead = next(node for node in nodes.primaries if node.port not in {source.port, to.port})
    before = fill()
    dead.kill()
    await users.write(60)
    await eventually("convergence without a node", converged)
    await eventually("that it is reported", lambda: bool(cache()["refuses"]) and bool(cache()["keys"]))
    status = world.command("status", config=config)
    assert "cache eu_main in eu refuses some entries" in status.stdout
    dead.start()
    nodes.until_up()
    await eventually("that it is settled", lambda: (cache()["refuses"], cache()["keys"]) == ("", 0))
    asked = world.command("caches", "--json", config=config)
    (shown,) = json.loads(asked.stdout)["caches"]
    assert asked.returncode == 0, asked.stdout
    assert [node["role"] for node in shown["nodes"]] == ["primary"] * 3
    assert not any(target["blocked"] for target in daemon.targets().values())
    assert undone(before) == [], "of the node that came back empty, too"
    before = fill()
    await users.write(60)
    await eventually("convergence", converged)
    assert undone(before) == []
    client.close()
