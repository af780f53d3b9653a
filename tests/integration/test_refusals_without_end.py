"""A replica that refuses everything: rows are kept up to their bound, the next refusal stops it, nothing is lost."""

from __future__ import annotations

import asyncio
import json
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from replicator.adapters.dynamodb.owed_rows import attributes, owner
from replicator.domain.identifiers import RegionId, RuleName, SequenceNumber, ShardId, TableName
from replicator.domain.owed_keys import OwedKey, OwedTo
from replicator.domain.records import Event, item_key
from replicator.domain.targets import replica_id
from replicator.domain.versions import ordered_version
from tests.integration.harness import World, open_world
from tests.integration.outages import wait_for
from tests.integration.true_lag import Direct

pytestmark = [pytest.mark.servers, pytest.mark.long]

TO_EU = "orders/replica/eu:orders"
MOST = 100
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


def owe(direct: Direct, count: int) -> None:
    """Rows as a worker writes them of keys that were refused before; their items are gone at the source since."""
    to = OwedTo(TableName("orders"), replica_id(RuleName("orders"), RegionId("eu"), TableName("orders")))
    place = {"pk": {"S": "test|targets"}, "sk": {"S": owner(to)}}
    for start in range(0, count, _BATCH):
        rows = [refused(to, number) for number in range(start, min(start + _BATCH, count))]
        puts = [{"PutRequest": {"Item": item}} for item in map(stored, rows)]
        direct.call("BatchWriteItem", RequestItems={"replicator-owed-test": puts})
    if count:
        direct.call("PutItem", TableName="replicator-owed-test", Item={**place, "sv": {"N": "1"}})


def refused(to: OwedTo, number: int) -> OwedKey:
    """A key that was refused an hour ago."""
    key, at = item_key(b'{"pk":{"S":"k%05d"}}' % number), time.time() - 3600
    version = ordered_version(0, 1_600_000_000_000, number)
    return OwedKey(
        to,
        key,
        version,
        ShardId("s0"),
        SequenceNumber(str(number)),
        Event.INSERT,
        "An index refuses it.",
        at,
        at,
        at,
        "me",
    )


def stored(row: OwedKey) -> Any:
    """A row as the table has it."""
    place = {"pk": {"S": f"test|{owner(row.to)}"}, "sk": {"S": f"key|{row.row_id}"}}
    return {**place, **attributes(row, row.body)}


def test_rows_are_kept_up_to_the_bound_and_the_next_refusal_stops_the_target(tmp_path: Path) -> None:
    refuse_everything(tmp_path, MOST)


def refuse_everything(directory: Path, most: int | None, known: int = 0) -> None:
    """Write one item more than rows are kept: `most`, None being the default; so many `known` rows are there before."""
    bound = 10_000 if most is None else most
    with (
        open_world(directory) as world,
        closing(Direct(world.dynamodb_port, "us-east-1")) as direct,
        closing(Direct(world.dynamodb_port, "eu-west-1")) as replica,
    ):
        asyncio.run(create(world))
        settings = world.settings(rule={"replicas": ["eu"], "cache": []}, caches={})
        settings["coordination"] |= {"lease": "10s", "heartbeat": "3s"}  # one server answers for everything here
        if most is not None:
            settings["parking"] = {"max": most}
        config = world.write_settings(settings)
        world.initialise(config)
        owe(direct, known)
        daemon = world.daemon(config)

        def blocked() -> Any:
            return daemon.targets()[TO_EU]["blocked"]

        def parked() -> int:
            answer = world.command("parked", "list", "--json", config=config)
            assert answer.returncode == 0, answer.stderr
            return len(json.loads(answer.stdout)["parked"])

        began = time.monotonic()
        write(direct, known, bound + 1)
        sentence = f"Target {TO_EU} has {bound} parked keys, the most that is kept"
        wait_for("the stop", lambda: sentence in str(blocked()), 3600)
        print(f"\n{bound - known} refusals were set aside in {time.monotonic() - began:.0f} s")  # noqa: T201
        print(blocked()["reason"])  # noqa: T201
        assert parked() == bound
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
        assert held.keys() == {f"k{number:05}" for number in range(known, bound + 1)}
        assert daemon.terminate() == 0
