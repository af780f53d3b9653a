"""Rules that choose their tables, in the real daemon: tables come and go while it runs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.integration.harness import Daemon, World, eventually, open_world, plain
from tests.patience import PATIENT_SECONDS

pytestmark = pytest.mark.servers


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with open_world(tmp_path) as opened:
        yield opened


def configure(world: World, *rules: dict[str, Any]) -> Path:
    settings = world.settings(caches={})
    settings["coordination"]["tables"] = "1s"
    settings["rules"] = [{"source": "us", "replicas": ["eu"], **rule} for rule in rules]
    config = world.write_settings(settings)
    world.initialise(config)
    return config


async def pair(world: World, *tables: str) -> None:
    """A source with a stream and its replica."""
    for table in tables:
        await world.create_table("us", table, stream=True)
        await world.create_table("eu", table)


async def write(world: World, table: str, key: str) -> None:
    async with world.client("us") as client:
        await client.put_item(TableName=table, Item={"pk": {"S": key}, "table": {"S": table}})


async def arrived(world: World, table: str, *keys: str) -> bool:
    items = {key: plain(item) for key, item in (await world.scan("eu", table)).items()}
    return items == {key: {"pk": {"S": key}, "table": {"S": table}} for key in keys}


def choice(daemon: Daemon, rule: str = "orders") -> dict[str, Any]:
    return next(found for found in daemon.status()["choices"] if found["rule"] == rule)


def json_of(world: World, config: Path, *arguments: str, code: int = 0) -> Any:
    done = world.command(*arguments, "--json", config=config)
    assert done.returncode == code, done.stdout + done.stderr
    return json.loads(done.stdout)


async def test_tables_of_a_glob_come_and_go_while_one_process_replicates_them(world: World) -> None:
    tables = [f"orders-{number}" for number in range(1, 6)]
    await pair(world, *tables)
    await world.create_table("us", "orders-mute")
    await pair(world, "carts")
    config = configure(world, {"name": "orders", "table": "orders-*"})
    daemon = world.daemon(config)
    for table in tables:
        await write(world, table, "same key")
    for table in tables:
        await eventually(f"the item in {table}", partial(arrived, world, table, "same key"))
    assert await arrived(world, "carts")
    found = choice(daemon)
    assert found["tables"] == tables
    assert [left["table"] for left in found["left_out"]] == ["orders-mute"]
    assert "no stream" in found["left_out"][0]["reason"]
    totals = {
        rule["table"]: rule["totals"][f"orders/replica/eu:{rule['table']}"]["records"]
        for rule in daemon.status()["rules"]
    }
    assert totals == dict.fromkeys(tables, 1)

    # a new table is left out until it has a replica; what was written meanwhile is not lost
    await world.create_table("us", "orders-6", stream=True)
    await write(world, "orders-6", "early")
    await eventually("a remark", lambda: "orders-6" in {left["table"] for left in choice(daemon)["left_out"]})
    await world.create_table("eu", "orders-6")
    await eventually("the new table", lambda: arrived(world, "orders-6", "early"))

    # and one that is deleted is left, without harm to the others
    async with world.client("us") as client:
        await client.delete_table(TableName="orders-2")
    await eventually("the end of a table", lambda: daemon.events("table_left"))
    await eventually("readiness", lambda: daemon.get("/readyz")[0] == 200)
    assert [line["table"] for line in daemon.events("table_left")] == ["orders-2"]
    assert "orders-2" not in {rule["table"] for rule in daemon.status()["rules"]}
    await write(world, "orders-3", "later")
    await eventually("work as before", lambda: arrived(world, "orders-3", "same key", "later"))

    # every command knows the tables
    (rule,) = json_of(world, config, "status")["rules"]
    assert {"region": "us", "table": "orders-6"} in rule["sources"]
    assert {shard["table"] for shard in rule["shards"]} >= {"orders-1", "orders-6"}
    inspected = json_of(world, config, "inspect", "orders", "later", "--table", "orders-3")
    assert inspected["agree"] is True
    assert json_of(world, config, "conflicts", "list", "--key", "later")["conflicts"] == []
    assert json_of(world, config, "check")["exit_code"] == 0
    assert json_of(world, config, "init")["exit_code"] == 0
    assert "with --table" in world.command("inspect", "orders", "later", config=config).stderr
    assert (
        "does not choose carts" in world.command("inspect", "orders", "later", "--table", "carts", config=config).stderr
    )
    assert daemon.terminate() == 0
    assert not daemon.events("shard_failed")


async def test_tables_are_chosen_by_their_tags(world: World) -> None:
    await pair(world, "one", "two", "three")

    async def tag(table: str) -> None:
        async with world.client("us") as client:
            arn = (await client.describe_table(TableName=table))["Table"]["TableArn"]
            await client.tag_resource(ResourceArn=arn, Tags=[{"Key": "team", "Value": "shop"}])

    async def untag(table: str) -> None:
        async with world.client("us") as client:
            arn = (await client.describe_table(TableName=table))["Table"]["TableArn"]
            await client.untag_resource(ResourceArn=arn, TagKeys=["team"])

    await tag("one")
    config = configure(world, {"name": "shop", "table": {"tag": {"team": "shop"}}})
    daemon = world.daemon(config)
    for table in ("one", "two", "three"):
        await write(world, table, "a")
    await eventually("the tagged table", lambda: arrived(world, "one", "a"))
    assert choice(daemon, "shop")["tables"] == ["one"]
    await tag("two")
    await eventually("the table that was tagged later", lambda: arrived(world, "two", "a"))
    await untag("one")
    await eventually("the end of a table", lambda: choice(daemon, "shop")["tables"] == ["two"])
    await write(world, "one", "b")
    await write(world, "two", "b")
    await eventually("work as before", lambda: arrived(world, "two", "a", "b"))
    assert await arrived(world, "one", "a")
    assert await arrived(world, "three")
    await tag("one")
    await eventually("what was written meanwhile", lambda: arrived(world, "one", "a", "b"))
    assert daemon.terminate() == 0


async def test_a_choice_without_tables_waits_for_one(world: World) -> None:
    config = configure(world, {"name": "orders", "table": "orders-*"})
    daemon = world.daemon(config)
    await eventually("a start", lambda: daemon.get("/readyz")[0] == 200)
    assert [line for line in daemon.events("noticed") if "does nothing until there is one" in line["found"]]
    await pair(world, "orders-1")
    await write(world, "orders-1", "a")
    await eventually("the first table", lambda: arrived(world, "orders-1", "a"))
    assert daemon.terminate() == 0


async def test_rules_whose_tables_meet_refuse_the_start_and_later_leave_the_newcomer_out(world: World) -> None:
    await pair(world, "orders-1")
    config = configure(world, {"name": "orders", "table": "orders-*"}, {"name": "ones", "table": "*-1"})
    refused = world.daemon(config)
    assert refused.process.wait(PATIENT_SECONDS) == 78
    assert "is already written by rule 'orders'" in refused.log.read_text()
    config = configure(world, {"name": "orders", "table": "orders-*"}, {"name": "twos", "table": "*-2"})
    daemon = world.daemon(config)
    await write(world, "orders-1", "a")
    await eventually("work", lambda: arrived(world, "orders-1", "a"))
    await pair(world, "orders-2")
    await eventually("a newcomer that is left out", lambda: daemon.events("table_left_out"))
    await write(world, "orders-2", "a")
    await eventually("the other rule's work", lambda: arrived(world, "orders-2", "a"))
    reasons = [line["reason"] for line in daemon.events("table_left_out") if "already written" in line["reason"]]
    assert reasons == ["rules[1].replicas[0]: table 'orders-2' in region 'eu' is already written by rule 'orders'."]
    assert daemon.terminate() == 0


async def test_a_mesh_has_every_table_of_a_glob_in_each_of_its_regions(world: World) -> None:
    for table in ("carts-1", "carts-2"):
        for region in ("us", "eu"):
            await world.create_table(region, table, stream=True)
    settings = world.settings(caches={})
    settings["coordination"]["tables"] = "1s"
    settings["rules"] = [{"name": "carts", "table": "carts-*", "mode": "active-active", "regions": ["us", "eu"]}]
    config = world.write_settings(settings)
    world.initialise(config)
    daemon = world.daemon(config)

    async def written(region: str, table: str, key: str) -> None:
        async with world.client(region) as client:
            await client.put_item(TableName=table, Item={"pk": {"S": key}, "said": {"S": f"{region} {table}"}})

    async def holds(region: str, table: str) -> dict[str, str]:
        return {key: item["said"]["S"] for key, item in (await world.scan(region, table)).items()}

    async def agree(table: str) -> bool:
        wanted = {"a": f"us {table}", "b": f"eu {table}"}
        return [await holds("us", table), await holds("eu", table)] == [wanted, wanted]

    for table in ("carts-1", "carts-2"):
        await written("us", table, "a")
        await written("eu", table, "b")
    for table in ("carts-1", "carts-2"):
        await eventually(f"agreement on {table}", partial(agree, table))
    for region in ("us", "eu"):
        await world.create_table(region, "carts-3", stream=True)
        await written(region, "carts-3", {"us": "a", "eu": "b"}[region])
    await eventually("agreement on the new table", partial(agree, "carts-3"))
    assert choice(daemon, "carts")["tables"] == ["carts-1", "carts-2", "carts-3"]
    assert json_of(world, config, "conflicts", "list")["conflicts"] == []
    assert daemon.terminate() == 0
