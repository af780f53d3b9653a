"""Meshes: users write in every region, daemons are killed, and every region ends with the same items."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.integration.harness import Daemon, Item, World, eventually, open_world, plain

pytestmark = pytest.mark.servers

MODES = ["active-active", "versioned"]


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with open_world(tmp_path) as opened:
        yield opened


def mesh(world: World, mode: str, regions: list[str], **rule: Any) -> dict[str, Any]:
    """A configuration of one mesh."""
    settings = world.settings()
    version = {"version": "ver"} if mode == "versioned" else {}
    settings["rules"] = [{"name": "orders", "table": "orders", "mode": mode, "regions": regions, **version, **rule}]
    settings["caches"] = {}
    return settings


async def create(world: World, regions: list[str]) -> None:
    for region in regions:
        await world.create_table(region, "orders", stream=True)


class MeshUsers:
    """Users of every region on shared keys. What each region was written last is no truth here: regions must agree."""

    def __init__(self, world: World, regions: list[str], *, seed: int, keys: int = 25) -> None:
        self._world = world
        self._regions = regions
        self._dice = random.Random(seed)
        self._keys = keys
        self._version = Counter[str]()
        self.contents: set[str] = set()
        self.written = 0

    async def write(self, count: int, *, per_second: float) -> None:
        await asyncio.gather(
            *(self._region(region, count // len(self._regions), per_second) for region in self._regions)
        )

    async def _region(self, region: str, count: int, per_second: float) -> None:
        async with self._world.client(region) as client:
            for _ in range(count):
                key = f"k{self._dice.randrange(self._keys)}"
                await self._one(client, region, key)
                self.written += 1
                await asyncio.sleep(len(self._regions) / per_second)

    async def _one(self, client: Any, region: str, key: str) -> None:
        content = f"{region}-{self.written}-{self._dice.randrange(10**9)}"
        self._version[key] += 1
        version = {"N": str(self._version[key])}
        dice = self._dice.random()
        if dice < 0.2:
            await client.delete_item(TableName="orders", Key={"pk": {"S": key}})
            return
        self.contents.add(content)
        if dice < 0.6:
            item = {"pk": {"S": key}, "content": {"S": content}, "ver": version}
            await client.put_item(TableName="orders", Item=item)
        else:
            await client.update_item(
                TableName="orders",
                Key={"pk": {"S": key}},
                UpdateExpression="SET content = :c, ver = :v",
                ExpressionAttributeValues={":c": {"S": content}, ":v": version},
            )


async def regions_of(world: World, regions: list[str]) -> list[dict[str, Item]]:
    tables = [await world.scan(region, "orders") for region in regions]
    return [{key: plain(item) for key, item in items.items()} for items in tables]


async def quiet(world: World, daemons: list[Daemon], regions: list[str]) -> bool:
    """Every target idle, and every region the same."""
    for daemon in daemons:
        status = daemon.status()
        for rule in status["rules"]:
            for shard in rule["shards"]:
                if any(target["blocked"] or target["lag_seconds"] for target in shard["targets"]):
                    return False
    tables = await regions_of(world, regions)
    return all(table == tables[0] for table in tables)


@pytest.mark.parametrize(
    ("mode", "regions"), [("versioned", ["us", "eu"]), ("active-active", ["us", "eu", "ap"])], ids=["two", "three"]
)
async def test_regions_that_write_the_same_keys_end_identical(world: World, mode: str, regions: list[str]) -> None:
    await create(world, regions)
    config = world.write_settings(mesh(world, mode, regions))
    world.initialise(config)
    daemon = world.daemon(config)
    users = MeshUsers(world, regions, seed=1)
    await users.write(300, per_second=60)
    await eventually("agreement", lambda: quiet(world, [daemon], regions))
    tables = await regions_of(world, regions)
    assert {item["content"]["S"] for item in tables[0].values()} <= users.contents
    async with world.client("us") as client:
        conflicts = (await client.scan(TableName="replicator-conflicts-test"))["Items"]
    assert conflicts
    before = writes_of(daemon)
    await asyncio.sleep(3)
    assert writes_of(daemon) == before, "the daemon is silent when users are"
    assert daemon.terminate() == 0


def writes_of(daemon: Daemon) -> int:
    """Records that the daemon read: its own writes come back as records."""
    return sum(line["records"] for line in daemon.events("batch_applied"))


@pytest.mark.slow
@pytest.mark.parametrize("mode", MODES)
async def test_kills_of_two_daemons_in_a_mesh_leave_the_regions_identical(world: World, mode: str) -> None:
    regions = ["us", "eu", "ap"]
    await create(world, regions)
    config = world.write_settings(mesh(world, mode, regions))
    world.initialise(config)
    daemons = [world.daemon(config), world.daemon(config)]
    users = MeshUsers(world, regions, seed=2)
    load = asyncio.ensure_future(users.write(540, per_second=45))
    for number in range(4):
        await asyncio.sleep(2.5)
        daemons[number % 2].kill()
        daemons[number % 2].start()
    await load
    await eventually("agreement", lambda: quiet(world, daemons, regions))
    tables = await regions_of(world, regions)
    assert {item["content"]["S"] for item in tables[0].values()} <= users.contents
    assert [daemon.terminate() for daemon in daemons] == [0, 0]


async def test_a_write_of_one_region_arrives_unchanged_in_the_others(world: World) -> None:
    regions = ["us", "eu", "ap"]
    await create(world, regions)
    config = world.write_settings(mesh(world, "active-active", regions))
    world.initialise(config)
    world.daemon(config)
    item = {
        "pk": {"S": 'k"\n€'},
        "number": {"N": "12345678901234567890123456789012345678"},
        "bytes": {"B": b"\x00\xff"},
        "set": {"NS": ["1", "2.5"]},
        "nested": {"M": {"list": {"L": [{"NULL": True}, {"S": ""}]}}},
    }
    async with world.client("eu") as client:
        await client.put_item(TableName="orders", Item=item)

        async def everywhere() -> bool:
            return [list(table.values()) for table in await regions_of(world, regions)] == [[item]] * 3

        await eventually("the item", everywhere)
        await client.delete_item(TableName="orders", Key={"pk": item["pk"]})

        async def nowhere() -> bool:
            return await regions_of(world, regions) == [{}] * 3

        await eventually("the delete", nowhere)
