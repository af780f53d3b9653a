"""A replica that is damaged in a hundred known places, beside users: found, mended, and undone where that is asked for.

Every place is known to the test alone, and what it holds in the end is read by a reader of its own.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.integration.harness import Item, Users, World, eventually, open_world, plain
from tests.integration.outages import open_failing_world, through

pytestmark = [pytest.mark.servers, pytest.mark.long]

OF_A_KIND = 20
SETTINGS = {"copying": {"margin": "300ms", "pages": 4, "segments": 2}}
KIND_OF = {
    "gone": "missing",
    "changed": "differs",
    "foreign": "unstamped",
    "versioned": "extra",
    "unversioned": "extra",
}
"""What is done to an item of the replica, and what that is called."""


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with open_world(tmp_path) as opened:
        yield opened


def item(name: str, value: str) -> Item:
    return {"pk": {"S": name}, "value": {"S": value}}


def names(kind: str) -> list[str]:
    return [f"{kind}-{number}" for number in range(OF_A_KIND)]


async def put_all(client: Any, items: list[Item]) -> None:
    await asyncio.gather(*(client.put_item(TableName="orders", Item=each) for each in items))


async def damage(world: World) -> None:
    """Change the replica behind the back of the daemon, an equal number of items in each way."""
    stamp = (await world.scan("eu", "orders"))["changed-0"]["_rep"]
    async with world.client("eu") as client:
        for name in names("gone"):
            await client.delete_item(TableName="orders", Key={"pk": {"S": name}})
        for name in names("changed"):
            await client.update_item(
                TableName="orders",
                Key={"pk": {"S": name}},
                UpdateExpression="SET #v = :v",
                ExpressionAttributeNames={"#v": "value"},
                ExpressionAttributeValues={":v": {"S": f"wrong in {name}"}},
            )
        await put_all(client, [item(name, "not of ours") for name in names("foreign")])
        await put_all(client, [{**item(name, "left over"), "_rep": stamp} for name in names("versioned")])
        await put_all(client, [item(name, "left over") for name in names("unversioned")])


async def replica(world: World) -> dict[str, Item]:
    return {key: plain(found) for key, found in (await world.scan("eu", "orders")).items()}


async def test_a_hundred_damages_are_named_mended_beside_users_and_can_be_undone(world: World) -> None:
    await world.create_table("us", "orders", stream=True)
    await world.create_table("eu", "orders")
    config = world.write_settings(world.settings(rule={"cache": [], "replicas": ["eu"]}, caches={}, **SETTINGS))
    world.initialise(config)
    world.daemon(config)
    users = Users(world, seed=1, writers=4, keys=20)
    whole = [item(name, f"right in {name}") for kind in ("gone", "changed", "foreign", "whole") for name in names(kind)]
    async with world.client("us") as client:
        await put_all(client, whole)
    users.truth.update({each["pk"]["S"]: each for each in whole})

    async def same() -> bool:
        return await replica(world) == users.truth

    await eventually("the replica is level", same)
    await damage(world)
    writing = asyncio.create_task(users.write(1_000_000, per_second=20))

    async def run(*arguments: str) -> tuple[int, dict[str, Any]]:
        written = users.written
        answer = await asyncio.to_thread(world.command, *arguments, "--json", config=config)
        assert answer.returncode in {0, 1}, answer.stderr
        assert not writing.done()
        assert users.written > written, "users wrote all the while"
        return answer.returncode, json.loads(answer.stdout)

    code, found = await run("verify", "orders")
    assert code == 1
    named = [(each["key"]["pk"]["S"], each["kind"], each["target"]) for each in found["differences"]]
    expected = [(name, said, "eu:orders") for kind, said in KIND_OF.items() for name in names(kind)]
    assert sorted(named) == sorted(expected)
    assert (found["difference_count"], found["waited"]) == (len(KIND_OF) * OF_A_KIND, True)
    code, mended = await run("repair", "orders", "--yes", "--extra", "delete")
    assert (code, mended["mended"], mended["left"]) == (0, len(KIND_OF) * OF_A_KIND, 0)
    code, after = await run("verify", "orders")
    assert (code, after["differences"], after["identical"]) == (0, [], True)
    writing.cancel()
    await asyncio.gather(writing, return_exceptions=True)
    source = {key: plain(each) for key, each in (await world.scan("us", "orders")).items()}
    users.truth = source  # a write that was cut off may have arrived or not
    await eventually("the replica is level again", same)

    listed = json.loads(world.command("conflicts", "list", "--kind", "repair", "--json", config=config).stdout)
    entries = {entry["key"]["pk"]["S"]: entry["id"] for entry in listed["conflicts"]}
    replaced = {name for kind in KIND_OF if kind != "gone" for name in names(kind)}
    assert replaced == set(entries), "what was overwritten or deleted is kept"
    promoted = await asyncio.to_thread(
        world.command, "conflicts", "promote", entries["changed-7"], "--yes", config=config
    )
    assert promoted.returncode == 0, promoted.stderr
    users.truth["changed-7"] = item("changed-7", "wrong in changed-7")
    await eventually("what was brought back is at both", same)
    assert {key: plain(each) for key, each in (await world.scan("us", "orders")).items()} == users.truth


async def test_a_machine_whose_clock_is_wrong_by_minutes_does_its_part_of_a_job(tmp_path: Path) -> None:
    """Servers' time is what records and lags are in; by its own the stream would lag for ever, and the job rest."""
    with open_failing_world(tmp_path) as (world, endpoints):
        await world.create_tables()
        for endpoint in endpoints.values():
            endpoint.ahead_seconds = -120.0
        config = world.write_settings(through(endpoints, world.settings(caches={}, rule={"cache": []}, **SETTINGS)))
        world.initialise(config)
        users = Users(world, seed=1, writers=2, keys=5)
        daemon = world.daemon(config)
        await users.write(10)
        await eventually("its clock", lambda: daemon.status()["clock"]["behind_seconds"] < 0)
        asked = world.command("repair", "orders", "--yes", "--detach", config=config)
        assert asked.returncode == 0, asked.stderr

        async def is_over() -> bool:
            listed = await asyncio.to_thread(world.command, "jobs", "list", "--json", config=config)
            return not json.loads(listed.stdout)["jobs"]

        await eventually("the end of the job", is_over)
        assert daemon.terminate() == 0
