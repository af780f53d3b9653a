"""The conflict log of a running daemon: silent without conflicts, complete with them, and a loser comes back."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.integration.harness import World, eventually, open_world, plain

pytestmark = pytest.mark.servers

REGIONS = ["us", "eu", "ap"]


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with open_world(tmp_path) as opened:
        yield opened


async def versioned(world: World) -> Path:
    for region in REGIONS:
        await world.create_table(region, "orders", stream=True)
    settings = world.settings()
    settings["rules"] = [
        {"name": "orders", "table": "orders", "mode": "versioned", "regions": REGIONS, "version": "ver"}
    ]
    settings["caches"] = {}
    settings["conflicts"] = {"file": str(world.directory / "conflicts.jsonl")}
    config = world.write_settings(settings)
    world.initialise(config)
    return config


def listed(world: World, config: Path) -> list[dict[str, Any]]:
    done = world.command("conflicts", "list", "--json", config=config)
    assert done.returncode == 0, done.stderr
    found: list[dict[str, Any]] = json.loads(done.stdout)["conflicts"]
    return found


async def agree(world: World, wanted: dict[str, str | None]) -> bool:
    """Whether every region holds these notes and nothing else."""
    tables = [await world.scan(region, "orders") for region in REGIONS]
    notes = {key: note for key, note in wanted.items() if note is not None}
    return all({key: plain(item)["note"]["S"] for key, item in table.items()} == notes for table in tables)


def item(key: str, version: int, note: str) -> dict[str, Any]:
    return {"pk": {"S": key}, "ver": {"N": str(version)}, "note": {"S": note}}


async def test_writers_that_do_not_meet_leave_no_entry(world: World) -> None:
    config = await versioned(world)
    world.daemon(config)
    async with world.client("us") as us, world.client("eu") as eu:
        for number in range(20):
            client, other = (us, eu) if number % 2 else (eu, us)
            for version in (1, 2, 3):
                await client.put_item(TableName="orders", Item=item(f"kept {number}", version, f"v{version}"))
                await other.put_item(TableName="orders", Item=item(f"brief {number}", version, f"v{version}"))
        both: dict[str, str | None] = {f"{name} {number}": "v3" for name in ("kept", "brief") for number in range(20)}
        await eventually("agreement", lambda: agree(world, both))
        await asyncio.sleep(3)  # what the daemon wrote comes back to it: deletes that overtake that may be logged
        for number in range(20):
            other = eu if number % 2 else us
            await other.delete_item(TableName="orders", Key={"pk": {"S": f"brief {number}"}})
        await eventually("deletes", lambda: agree(world, {f"kept {number}": "v3" for number in range(20)}))
        await asyncio.sleep(3)
    assert listed(world, config) == []


async def test_a_loser_is_listed_with_both_images_and_comes_back_everywhere(world: World) -> None:
    config = await versioned(world)
    async with world.client("us") as us, world.client("eu") as eu:
        await us.put_item(TableName="orders", Item=item("a", 5, "from us"))
        await eu.put_item(TableName="orders", Item=item("a", 4, "from eu"))
    world.daemon(config)
    await eventually("agreement", lambda: agree(world, {"a": "from us"}))
    await eventually("an entry", lambda: listed(world, config))
    (entry,) = listed(world, config)
    assert (entry["winner"]["note"]["S"], entry["loser"]["note"]["S"]) == ("from us", "from eu")
    assert (entry["kind"], entry["reason"], entry["mode"]) == ("put_put", "version", "versioned")
    lines = (world.directory / "conflicts.jsonl").read_text().splitlines()
    assert [json.loads(line)["id"] for line in lines] == [entry["id"]]
    done = world.command("conflicts", "promote", entry["id"], "--yes", "--json", config=config)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["after"] == item("a", 6, "from eu")
    await eventually("the loser everywhere", lambda: agree(world, {"a": "from eu"}))
    assert len(listed(world, config)) == 1
