"""Losses under `on_gap: resync` with the program as it is started: recorded, passed, repaired and closed by itself.

The laboratory's stream forgets what its readers have not read: while no daemon runs, and while a replica is away for
longer than records are kept.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from replicator.laboratory.streamlab import StreamLab
from tests.integration.harness import AWS_REGIONS, Daemon, Item, Valve, World, eventually, open_world, plain

pytestmark = [pytest.mark.servers, pytest.mark.long]

NAMES = [f"k{number}" for number in range(12)]


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with open_world(tmp_path) as opened:
        yield opened


async def put(world: World, names: list[str], value: str) -> None:
    async with world.client("us") as client:
        for name in names:
            await client.put_item(TableName="orders", Item={"pk": {"S": name}, "value": {"S": value}})


async def change(world: World, value: str) -> None:
    """Change, delete, create and create anew, so that a loss has something of each; a last write comes behind it."""
    async with world.client("us") as client:
        for name in NAMES[4:8]:
            await client.delete_item(TableName="orders", Key={"pk": {"S": name}})
    await put(world, [*NAMES[:4], *NAMES[6:8], f"new-{value}"], value)


async def create_again(world: World, region: str, items: list[Item]) -> None:
    """Drop a table, and restore it with what a backup of it had."""
    async with world.client(region) as client:
        await client.delete_table(TableName="orders")
        await eventually("the table is gone", lambda: gone(client))
    await world.create_table(region, "orders")
    async with world.client(region) as client:
        for item in items:
            await client.put_item(TableName="orders", Item=item)


async def gone(client: Any) -> bool:
    try:
        await client.describe_table(TableName="orders")
    except client.exceptions.ResourceNotFoundException:
        return True
    return False


def retries(daemon: Daemon) -> float:
    """How often requests to the replica got no answer."""
    lines = daemon.get("/metrics")[1].splitlines()
    return sum(float(line.split()[-1]) for line in lines if re.match(r"replicator_\w*retries_total{.*eu", line))


class Loss:
    """What becomes of a loss, seen from outside."""

    def __init__(self, world: World, config: Path, lab: StreamLab) -> None:
        self.world, self.config, self.lab = world, config, lab

    async def lab_does(self, name: str, **arguments: Any) -> None:
        await asyncio.to_thread(lambda: self.lab.command(name, **arguments))

    async def nothing_is_read(self) -> bool:
        counts: list[int] = []
        for _ in range(2):
            (stream,) = await asyncio.to_thread(self.lab.streams)
            counts.append(sum(shard["reads"] for shard in stream["shards"]))
            await asyncio.sleep(2)
        return counts[0] == counts[1]

    async def same(self) -> bool:
        items = [await self.world.scan(region, "orders") for region in ("us", "eu")]
        return {key: plain(item) for key, item in items[1].items()} == items[0]

    async def listed(self) -> list[dict[str, Any]]:
        answer = await asyncio.to_thread(self.world.command, "gaps", "list", "--all", "--json", config=self.config)
        assert answer.returncode == 0, answer.stderr
        found: list[dict[str, Any]] = json.loads(answer.stdout)["gaps"]
        return found

    async def heals(self, daemon: Daemon, before: int) -> int:
        """Wait until losses beyond those known `before` are found and all are closed by jobs; returns how many are."""
        found = "gap_found"
        await eventually("the loss is recorded", lambda: len(daemon.events(found)) > before)
        await eventually("both tables are the same", self.same)
        await eventually("all is closed", lambda: len(daemon.events("gap_closed")) >= len(daemon.events(found)))
        gaps = await self.listed()
        assert gaps
        assert all(gap["acknowledged_by"] == f"job {gap['job']}" for gap in gaps), gaps
        assert await self.same()
        return len(daemon.events(found))


async def test_what_the_stream_forgot_is_repaired_whether_the_daemon_or_a_replica_was_away(
    world: World, tmp_path: Path
) -> None:
    await world.create_table("us", "orders", stream=True)
    await world.create_table("eu", "orders")
    valve = Valve(world.dynamodb_port)
    with StreamLab.start(tmp_path, world.endpoint, shards=1) as lab:
        settings = world.settings(rule={"cache": [], "replicas": ["eu"]}, caches={}, copying={"margin": "300ms"})
        settings["regions"]["us"] = {"region": AWS_REGIONS["us"], "endpoint_url": lab.url}
        settings["regions"]["eu"] = {"region": AWS_REGIONS["eu"], "endpoint_url": f"http://127.0.0.1:{valve.port}"}
        settings["regions"]["hm"] = {"region": "us-west-2", "endpoint_url": world.endpoint}
        settings["coordination"] |= {"region": "hm"}
        settings["polling"] |= {"page": 2}  # so little is read ahead while nothing is applied
        config = world.write_settings(settings)
        world.initialise(config)
        loss = Loss(world, config, lab)
        daemon = world.daemon(config)
        await eventually("the daemon reads", lambda: bool(daemon.events("lease_claimed")))
        await put(world, NAMES, "first")
        await eventually("the replica is level", loss.same)

        assert daemon.terminate() == 0
        await change(world, "unread")
        await loss.lab_does("settle")
        await loss.lab_does("trim", table="orders")
        await put(world, ["behind"], "read")
        daemon.start()
        known = await loss.heals(daemon, 0)
        assert set(await world.scan("eu", "orders")) == {*NAMES[:4], *NAMES[6:], "new-unread", "behind"}

        valve.close()
        await put(world, ["in hand"], "is tried again")
        await eventually("the replica is away", lambda: retries(daemon) > 0)
        await change(world, "aged")
        await loss.lab_does("settle")
        await eventually("nothing more is read", loss.nothing_is_read)
        await loss.lab_does("set", retention_seconds=1.0)
        await asyncio.sleep(3)
        await loss.lab_does("set", retention_seconds=86_400.0)
        valve.open()
        await loss.heals(daemon, known)
        assert "new-aged" in await world.scan("eu", "orders")
        assert daemon.terminate() == 0


async def test_a_replica_that_is_restored_from_a_backup_heals_by_itself(world: World) -> None:
    await world.create_table("us", "orders", stream=True)
    await world.create_table("eu", "orders")
    rule = {"cache": [], "replicas": ["eu"]}
    settings = world.settings(rule=rule, caches={}, copying={"margin": "300ms"})
    settings["coordination"] |= {"held": "2s"}
    config = world.write_settings(settings)
    world.initialise(config)
    daemon = world.daemon(config)
    await put(world, NAMES, "first")

    async def same() -> bool:
        items = [await world.scan(region, "orders") for region in ("us", "eu")]
        return {key: plain(item) for key, item in items[1].items()} == items[0]

    await eventually("the replica is level", same)
    backup = list((await world.scan("eu", "orders")).values())
    await change(world, "behind the backup")
    await eventually("the replica is level again", same)
    await create_again(world, "eu", backup)
    await eventually("the other table is noticed", lambda: bool(daemon.events("table_taken_over")))
    await eventually("it is healed", same)
    await eventually("the gap is closed", lambda: bool(daemon.events("gap_closed")))
    answer = await asyncio.to_thread(world.command, "gaps", "list", "--all", "--json", config=config)
    (gap,) = json.loads(answer.stdout)["gaps"]
    assert gap["acknowledged_by"] == f"job {gap['job']}"
    assert "restored from a backup" in gap["why"]
    assert daemon.terminate() == 0
