"""A replica that refuses everything: rows are kept up to their bound, the next refusal stops it, nothing is lost."""

from __future__ import annotations

import asyncio
import json
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.integration.harness import World, open_world
from tests.integration.outages import wait_for
from tests.integration.true_lag import Direct

pytestmark = [pytest.mark.servers, pytest.mark.long]

TO_EU = "orders/replica/eu:orders"
MOST = 500
_BATCH = 25


async def create(world: World) -> None:
    """The replica has an index that no item of the source fits."""
    await world.create_table("us", "orders", stream=True)
    async with world.client("eu") as client:
        await client.create_table(
            TableName="orders",
            KeySchema=[{"AttributeName": "pk", "KeyType": "HASH"}],
            AttributeDefinitions=[
                {"AttributeName": "pk", "AttributeType": "S"},
                {"AttributeName": "kind", "AttributeType": "S"},
            ],
            BillingMode="PAY_PER_REQUEST",
            GlobalSecondaryIndexes=[
                {
                    "IndexName": "by-kind",
                    "KeySchema": [{"AttributeName": "kind", "KeyType": "HASH"}],
                    "Projection": {"ProjectionType": "ALL"},
                }
            ],
        )


async def drop_index(world: World) -> None:
    async with world.client("eu") as client:
        await client.update_table(
            TableName="orders", GlobalSecondaryIndexUpdates=[{"Delete": {"IndexName": "by-kind"}}]
        )


def write(direct: Direct, first: int, last: int) -> None:
    for start in range(first, last, _BATCH):
        puts = [
            {"PutRequest": {"Item": {"pk": {"S": f"k{number:05}"}, "kind": {"N": "1"}}}}
            for number in range(start, min(start + _BATCH, last))
        ]
        direct.call("BatchWriteItem", RequestItems={"orders": puts})


def test_rows_are_kept_up_to_the_bound_and_the_next_refusal_stops_the_target(tmp_path: Path) -> None:
    with (
        open_world(tmp_path) as world,
        closing(Direct(world.dynamodb_port, "us-east-1")) as direct,
        closing(Direct(world.dynamodb_port, "eu-west-1")) as replica,
    ):
        asyncio.run(create(world))
        settings = world.settings(rule={"replicas": ["eu"], "cache": []}, caches={})
        settings["coordination"] |= {"lease": "10s", "heartbeat": "3s"}  # one server answers for everything here
        settings["parking"] = {"max": MOST}
        config = world.write_settings(settings)
        world.initialise(config)
        daemon = world.daemon(config)

        def blocked() -> Any:
            return daemon.targets()[TO_EU]["blocked"]

        def parked() -> int:
            answer = world.command("parked", "list", "--json", config=config)
            assert answer.returncode == 0, answer.stderr
            return len(json.loads(answer.stdout)["parked"])

        began = time.monotonic()
        write(direct, 0, MOST + 1)
        sentence = f"Target {TO_EU} has {MOST} parked keys, the most that is kept"
        wait_for("the stop", lambda: sentence in str(blocked()), 600)
        print(f"\n{MOST} refusals were set aside in {time.monotonic() - began:.0f} s")  # noqa: T201
        assert parked() == MOST
        asyncio.run(drop_index(world))
        wait_for("the end of the stop", lambda: blocked() is None)
        (item,) = replica.call("Scan", TableName="orders", ConsistentRead=True)["Items"]
        assert item["kind"] == {"N": "1"}
        began = time.monotonic()
        done = world.command("parked", "retry", "--all", "--yes", config=config)
        assert done.returncode == 0, done.stderr[-1000:]
        print(f"and tried again in {time.monotonic() - began:.0f} s")  # noqa: T201
        assert parked() == 0
        held = asyncio.run(world.scan("eu", "orders"))
        assert held.keys() == {f"k{number:05}" for number in range(MOST + 1)}
        assert daemon.terminate() == 0
