"""Records that a replica refuses, with the real daemon as a process: killed, and refused without end."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.integration.harness import World, eventually, open_world
from tests.patience import PATIENT_SECONDS

pytestmark = [pytest.mark.servers, pytest.mark.long]

TO_EU = "orders/replica/eu:orders"
LARGEST = 409_600
CHANGES = 6
CANARIES_PER_SECOND = 20


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with open_world(tmp_path) as opened:
        yield opened


def large(number: int) -> dict[str, Any]:
    """An item as large as a table takes it, which leaves no room for its version."""
    text = f"{number:02}"
    return {"pk": {"S": "hot"}, "x": {"S": text + "x" * (LARGEST - len("pk") - len("hot") - len("x") - len(text))}}


def settings(world: World, **changes: Any) -> Path:
    path = world.write_settings(world.settings(rule={"replicas": ["eu"], "cache": []}, caches={}, **changes))
    world.initialise(path)
    return path


def parked(world: World, config: Path) -> list[dict[str, Any]]:
    answer = world.command("parked", "list", "--json", config=config)
    assert answer.returncode == 0, answer.stderr
    rows: list[dict[str, Any]] = json.loads(answer.stdout)["parked"]
    return rows


class Canaries:
    """Small items with the time at which they were written, and how late each is seen at the replica."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.written: dict[str, float] = {}
        self.lags: list[float] = []

    async def write(self, stop: asyncio.Event) -> None:
        async with self._world.client("us") as client:
            while not stop.is_set():
                key = f"canary-{len(self.written)}"
                await client.put_item(TableName="orders", Item={"pk": {"S": key}})
                self.written[key] = time.monotonic()
                await asyncio.sleep(1 / CANARIES_PER_SECOND)

    async def watch(self, stop: asyncio.Event) -> None:
        """See every canary in its order."""
        async with self._world.client("eu") as client:
            seen = 0
            while not (stop.is_set() and seen == len(self.written)):
                key = f"canary-{seen}"
                answer = await client.get_item(TableName="orders", Key={"pk": {"S": key}}, ConsistentRead=True)
                if "Item" in answer and key in self.written:
                    self.lags.append(time.monotonic() - self.written[key])
                    seen += 1
                else:
                    await asyncio.sleep(0.02)


async def test_an_item_without_room_for_its_version_stops_nothing_and_heals(world: World) -> None:
    for region in ("us", "eu"):
        await world.create_table(region, "orders", stream=region == "us")
    config = settings(world)
    daemon = world.daemon(config)
    await eventually("a lease", lambda: daemon.events("lease_claimed"))
    canaries, stop = Canaries(world), asyncio.Event()
    tasks = [asyncio.ensure_future(act(stop)) for act in (canaries.write, canaries.watch)]
    async with world.client("us") as client:
        for number in range(CHANGES // 2):
            await client.put_item(TableName="orders", Item=large(number))
            await asyncio.sleep(1)
        undisturbed = list(canaries.lags)
        for number in range(CHANGES // 2, CHANGES):
            await client.put_item(TableName="orders", Item=large(number))
            await asyncio.sleep(0.3)
            daemon.kill()
            daemon.start()
            await asyncio.sleep(1)
        await eventually("the last change", lambda: _body(world, config).startswith(f"{CHANGES - 1:02}"))
        (row,) = parked(world, config)
        assert (row["shown"], row["target"], row["size"]) == ("pk=hot", TO_EU, LARGEST + 60)
        assert row["tries"] > 1
        stop.set()
        await asyncio.wait_for(asyncio.gather(*tasks), PATIENT_SECONDS)
        assert undisturbed, "others arrive while the item is refused"
        assert "hot" not in await world.scan("eu", "orders")
        small = {"pk": {"S": "hot"}, "x": {"S": "small"}}
        await client.put_item(TableName="orders", Item=small)
    await eventually("healing", lambda: parked(world, config) == [])
    held = await world.scan("eu", "orders")
    assert held["hot"]["x"] == {"S": "small"}
    assert set(held) == {"hot", *canaries.written}
    assert daemon.terminate() == 0


def _body(world: World, config: Path) -> str:
    (row,) = parked(world, config)
    shown = world.command("parked", "show", row["row"], "--values", "--json", config=config)
    kept: str = json.loads(json.loads(shown.stdout)["kept"])["x"]["S"]
    return kept


async def test_refusals_without_end_stop_the_target_and_say_so(world: World) -> None:
    for region in ("us", "eu"):
        await world.create_table(region, "orders", stream=region == "us")
    config = settings(world, parking={"max": 5})
    daemon = world.daemon(config)
    async with world.client("us") as client:
        for number in range(7):
            await client.put_item(TableName="orders", Item={**large(number), "pk": {"S": f"h{number:02}"}})
        sentence = f"Target {TO_EU} has 5 parked keys, the most that is kept: when so much is refused, it is the table"
        await eventually("the stop", lambda: sentence in str(daemon.targets()[TO_EU]["blocked"]))
        assert [row["shown"] for row in parked(world, config)] == [f"pk=h{number:02}" for number in range(5)]
        assert sentence in world.command("status", config=config).stdout
        assert daemon.get("/readyz")[0] == 503
        for number in range(7):
            await client.put_item(TableName="orders", Item={"pk": {"S": f"h{number:02}"}, "x": {"S": "fits"}})
        await eventually("the end of the stop", lambda: daemon.targets()[TO_EU]["blocked"] is None)
        await eventually("healing", lambda: parked(world, config) == [])

    async def level() -> bool:
        held = await world.scan("eu", "orders")
        return {key: item["x"]["S"] for key, item in held.items()} == {f"h{number:02}": "fits" for number in range(7)}

    await eventually("convergence", level)
    assert daemon.terminate() == 0
