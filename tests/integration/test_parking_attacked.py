"""Refused records beside kills, zombies, deletes, shrinking, growing and retries: nothing lost, no row left behind.

The truth is kept by the writer. At the end every row is about an item that is too large at that moment, every such item
has a row, and everything else is at the replica as it is at the source.
"""

from __future__ import annotations

import asyncio
import json
import random
import signal
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.integration.faulty_endpoint import Fault
from tests.integration.harness import World, eventually, open_world, plain
from tests.integration.outages import open_failing_world, through

pytestmark = [pytest.mark.servers, pytest.mark.long]

LARGEST = 409_600
KEYS = [f"k{number}" for number in range(10)]
SECONDS = 20


@dataclass
class Writer:
    """Writes items that fit and items that do not, deletes them, and knows what stands."""

    world: World
    dice: random.Random
    truth: dict[str, str] = field(default_factory=dict)
    written: int = 0

    async def one(self, client: Any, key: str, *, large: bool) -> None:
        """A put whose content begins with its number."""
        self.written += 1
        content = f"{self.written}-"
        if large:
            content += "x" * (LARGEST - len("pk") - len(key) - len("x") - len(content))
        await client.put_item(TableName="orders", Item={"pk": {"S": key}, "x": {"S": content}})
        self.truth[key] = content

    async def delete(self, client: Any, key: str) -> None:
        """A delete."""
        await client.delete_item(TableName="orders", Key={"pk": {"S": key}})
        self.truth.pop(key, None)

    async def write(self, stop: asyncio.Event) -> None:
        """Anything at random."""
        async with self.world.client("us") as client:
            while not stop.is_set():
                key, dice = self.dice.choice(KEYS), self.dice.random()
                if dice < 0.2:
                    await self.delete(client, key)
                else:
                    await self.one(client, key, large=dice < 0.55)
                await asyncio.sleep(self.dice.random() * 0.2)


async def parked(world: World, config: Path) -> list[dict[str, Any]]:
    answer = await asyncio.to_thread(world.command, "parked", "list", "--json", config=config)
    assert answer.returncode == 0, answer.stderr
    rows: list[dict[str, Any]] = json.loads(answer.stdout)["parked"]
    return rows


async def operate(world: World, config: Path, stop: asyncio.Event) -> int:
    """An operator who tries everything again, over and over."""
    tries = 0
    while not stop.is_set():
        answer = await asyncio.to_thread(world.command, "parked", "retry", "--all", "--yes", config=config)
        assert "Traceback" not in answer.stderr, answer.stderr
        tries += 1
        await asyncio.sleep(1)
    return tries


async def trouble(world: World, dice: random.Random, stop: asyncio.Event) -> None:
    """Daemons are killed, and suspended for longer than their lease lasts."""
    while not stop.is_set():
        daemon = dice.choice(world.daemons)
        if dice.random() < 0.5:
            daemon.kill()
            daemon.start()
        else:
            daemon.signal(signal.SIGSTOP)
            await asyncio.sleep(6)
            daemon.signal(signal.SIGCONT)
        await asyncio.sleep(2)


async def test_what_is_wrong_with_an_endpoint_is_never_taken_for_a_refusal(tmp_path: Path) -> None:
    with open_failing_world(tmp_path) as (world, endpoints):
        for region in ("us", "eu"):
            await world.create_table(region, "orders", stream=region == "us")
        settings = world.settings(rule={"replicas": ["eu"], "cache": []}, caches={})
        config = world.write_settings(through(endpoints, settings))
        world.initialise(config)
        daemon = world.daemon(config)
        written: set[str] = set()

        async def arrived() -> bool:
            return (await world.scan("eu", "orders")).keys() == written

        async with world.client("us") as client:
            for fault in Fault:
                endpoints["eu"].fail(fault)
                before = endpoints["eu"].asked.total()
                for number in range(3):
                    key = f"{fault.value}-{number}"
                    await client.put_item(TableName="orders", Item={"pk": {"S": key}})
                    written.add(key)
                if fault is not Fault.REFUSE:
                    await eventually("tries", lambda: endpoints["eu"].asked.total() > before + 2)  # noqa: B023
                await asyncio.sleep(1)
                endpoints["eu"].heal()
                await eventually(f"the items behind {fault.value}", arrived)
            owed = await client.scan(TableName="replicator-owed-test", ConsistentRead=True)
        assert owed["Items"] == []
        assert not daemon.events("record_parked")
        assert daemon.terminate() == 0


@pytest.mark.parametrize("seed", [1])
async def test_nothing_is_lost_and_no_row_is_left_behind(tmp_path: Path, seed: int) -> None:
    with open_world(tmp_path) as world:
        for region in ("us", "eu"):
            await world.create_table(region, "orders", stream=region == "us")
        config = world.write_settings(world.settings(rule={"replicas": ["eu"], "cache": []}, caches={}))
        world.initialise(config)
        for _ in range(2):
            world.daemon(config)
        dice, stop = random.Random(seed), asyncio.Event()
        writer = Writer(world, dice)
        async with asyncio.TaskGroup() as group:
            tries = group.create_task(operate(world, config, stop))
            group.create_task(trouble(world, dice, stop))
            group.create_task(writer.write(stop))
            await asyncio.sleep(SECONDS)
            stop.set()
        large = {key for key, content in writer.truth.items() if len(content) > 100}
        print(f"{writer.written} writes, {tries.result()} retries of all, {len(large)} keys too large")  # noqa: T201

        async def rows_are_right() -> bool:
            return {row["shown"].removeprefix("pk=") for row in await parked(world, config)} == large

        async def replica_is_right() -> bool:
            held = {key: plain(item)["x"]["S"] for key, item in (await world.scan("eu", "orders")).items()}
            wanted = {key: content for key, content in writer.truth.items() if key not in large}
            return wanted.items() <= held.items() and held.keys() <= writer.truth.keys()

        await eventually("right rows", rows_are_right)
        await eventually("a right replica", replica_is_right)
        async with world.client("us") as client:
            for key in large:
                await writer.one(client, key, large=False)
        large.clear()
        await eventually("healing", rows_are_right)
        await eventually("convergence", replica_is_right)
        assert [daemon.terminate() for daemon in world.daemons] == [0, 0]
