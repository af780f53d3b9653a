"""Bootstrap by the program as it is started, from the command line to the comparison at its end.

A table held items before its stream was enabled. Users write all the while, workers are killed, and the coordination
table is away for a time. What is at the replicas in the end is compared by a reader of its own.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.integration.harness import Item, Users, Valve, World, eventually, open_world, plain

pytestmark = [pytest.mark.servers, pytest.mark.long]

ITEMS = 1200
WORKERS = 4
AWAY_SECONDS = 8.0
QUICK = {"copying": {"margin": "300ms", "pages": 4, "segments": 2}}


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with open_world(tmp_path) as opened:
        yield opened


async def fill(
    world: World, items: int, region: str = "us", table: str = "orders", value: str = "old"
) -> dict[str, Item]:
    """Items that no stream shows: it is enabled behind them."""
    truth = {
        f"before-{number}": {"pk": {"S": f"before-{number}"}, "value": {"S": value + "x" * 280}}
        for number in range(items)
    }
    async with world.client(region) as client:
        keys = list(truth)
        for first in range(0, items, 25):
            batch = [{"PutRequest": {"Item": truth[key]}} for key in keys[first : first + 25]]
            await client.batch_write_item(RequestItems={table: batch})
    return truth


async def enable_stream(world: World, region: str = "us", table: str = "orders") -> None:
    async with world.client(region) as client:
        await client.update_table(
            TableName=table,
            StreamSpecification={"StreamEnabled": True, "StreamViewType": "NEW_AND_OLD_IMAGES"},
        )


async def in_background(world: World, *arguments: str, config: Path) -> Any:
    return await asyncio.to_thread(world.command, *arguments, config=config)


async def started(world: World, config: Path, workers: int = 1) -> None:
    for _ in range(workers):
        world.daemon(config)
    await eventually("the workers read", lambda: sum(len(each.events("lease_claimed")) for each in world.daemons) > 0)


def ended(answer: Any) -> dict[str, Any]:
    assert answer.returncode == 0, answer.stdout + answer.stderr
    document: dict[str, Any] = json.loads(answer.stdout)
    return document


async def test_a_table_with_data_is_brought_to_its_replicas_beside_users_kills_and_an_outage(world: World) -> None:
    for region, name in (("us", "orders"), ("eu", "orders"), ("ap", "orders-copy")):
        await world.create_table(region, name)
    before = await fill(world, ITEMS)
    await enable_stream(world)
    settings = world.settings(rule={"cache": []}, caches={}, **QUICK)
    settings["coordination"] |= {
        "lease": "6s",
        "heartbeat": "1s",
    }  # one local server stands for all of them, and queues
    valve = Valve(world.dynamodb_port)
    settings["regions"]["hm"] = {"region": "us-west-2", "endpoint_url": f"http://127.0.0.1:{valve.port}"}
    settings["coordination"] |= {"region": "hm"}
    config = world.write_settings(settings)
    world.initialise(config)
    await started(world, config, WORKERS)
    users = Users(world, seed=1)
    users.truth.update(before)
    writing = asyncio.create_task(users.write(400, per_second=20))
    command = asyncio.create_task(
        in_background(world, "bootstrap", "orders", "--yes", "--json", "--read-units", "40", config=config)
    )

    def worked(number: int) -> bool:
        jobs = json.loads(world.command("jobs", "list", "--json", config=config).stdout)["jobs"]
        return any(each["items"] >= number for each in jobs)

    for number, daemon in enumerate(world.daemons):
        await eventually("pages are done", partial(worked, ITEMS // 10 * (number + 1)))
        daemon.kill()
        daemon.start()
        if number == WORKERS // 2:
            valve.close()
            await asyncio.sleep(AWAY_SECONDS)
            valve.open()
    await writing
    answer = ended(await command)
    assert (answer["job"]["state"], answer["verify"]["state"]) == ("done", "done")
    assert answer["verify"]["counts"].get("differences", 0) == 0
    counts = answer["job"]["counts"]
    assert counts["items"] >= ITEMS * 0.9
    await eventually("both replicas are the truth", lambda: _same(world, users.truth))
    source = {key: plain(item) for key, item in (await world.scan("us", "orders")).items()}
    assert source == users.truth


async def _same(world: World, truth: dict[str, Item]) -> bool:
    return all(items == truth for items in (await world.replicas()).values())


async def test_a_bootstrap_waits_for_a_worker_says_so_and_can_be_steered(world: World) -> None:
    for region, name in (("us", "orders"), ("eu", "orders")):
        await world.create_table(region, name)
    before = await fill(world, 300)
    await enable_stream(world)
    config = world.write_settings(world.settings(rule={"cache": [], "replicas": ["eu"]}, caches={}, **QUICK))
    world.initialise(config)
    asked = world.command("bootstrap", "orders", "--json", config=config)
    assert asked.returncode == 2, "there is no terminal to ask on"
    planned = json.loads(world.command("bootstrap", "orders", "--dry-run", "--json", config=config).stdout)
    assert planned["job"] is None
    detached = world.command("bootstrap", "orders", "--yes", "--detach", config=config)
    assert detached.returncode == 0, detached.stderr
    assert "No worker of group test is alive" in detached.stderr
    (job,) = json.loads(world.command("jobs", "list", "--json", config=config).stdout)["jobs"]
    refused = world.command("bootstrap", "orders", "--yes", config=config)
    assert refused.returncode == 2
    assert f"`replicator jobs cancel {job['job']}`" in refused.stderr
    assert world.command("jobs", "pause", job["job"], config=config).returncode == 0
    await started(world, config)
    await eventually("the worker shows it", lambda: bool(world.daemons[0].status()["jobs"]))
    assert world.daemons[0].status()["jobs"][0]["state"] == "paused"
    assert await world.scan("eu", "orders") == {}
    assert world.command("jobs", "resume", job["job"], config=config).returncode == 0
    shown = ended(await in_background(world, "jobs", "show", job["job"], "--watch", "--json", config=config))
    assert (shown["state"], shown["counts"]["copied"]) == ("done", 300)
    assert {key: plain(item) for key, item in (await world.scan("eu", "orders")).items()} == before
    again = world.command("bootstrap", "orders", "--yes", config=config)
    assert (again.returncode, "bootstrapped before" in again.stderr) == (2, True)
    elsewhere = world.command("bootstrap", "orders", "--region", "ap", "--yes", config=config)
    assert (elsewhere.returncode, "has no replica in ap. It has one in eu." in elsewhere.stderr) == (2, True)
    _, metrics = world.daemons[0].get("/metrics")
    assert 'replicator_jobs_ended_total{kind="bootstrap",state="done"} 1.0' in metrics


async def test_regions_of_a_mesh_with_old_and_differing_items_are_brought_together(world: World) -> None:
    for region in ("us", "eu", "ap"):
        await world.create_table(region, "orders")
        await fill(world, 40, region, value="same")
        async with world.client(region) as client:
            for number in range(20):
                item = {"pk": {"S": f"differs-{number}"}, "value": {"S": f"of {region}"}}
                await client.put_item(TableName="orders", Item=item)
            await client.put_item(TableName="orders", Item={"pk": {"S": f"only-{region}"}})
        await enable_stream(world, region)
    rule = {"mode": "active-active", "regions": ["us", "eu", "ap"]}
    changes: dict[str, Any] = {"caches": {}, "rules": [{"name": "orders", "table": "orders", **rule}], **QUICK}
    config = world.write_settings(world.settings(**changes))
    world.initialise(config)
    await started(world, config, 2)
    answer = ended(await in_background(world, "bootstrap", "orders", "--yes", "--json", config=config))
    assert answer["verify"]["counts"].get("differences", 0) == 0
    tables = [
        {key: plain(item) for key, item in (await world.scan(region, "orders")).items()}
        for region in ("us", "eu", "ap")
    ]
    assert tables[0] == tables[1] == tables[2]
    assert len(tables[0]) == 63
    logged = json.loads(world.command("conflicts", "list", "--json", config=config).stdout)["conflicts"]
    lost = [entry["key"]["pk"]["S"] for entry in logged]
    assert {key.partition("-")[0] for key in lost} == {"differs"}, "what was equal is no conflict"
    assert len(lost) == 40, "every image that lost is kept"
