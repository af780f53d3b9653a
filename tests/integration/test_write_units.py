"""`write_units` from outside: two real daemons bring one table to two replicas, one of them bounded."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from tests.integration.harness import Daemon, eventually, open_world

pytestmark = [pytest.mark.servers, pytest.mark.long]

UNITS = 80
_UNITS_OF_AN_INSERT = 4


def bounded(daemon: Daemon) -> dict[str, Any]:
    """What a worker says of the bounded replica."""
    (table,) = [table for table in daemon.status()["writes"] if table["region"] == "ap"]
    units: dict[str, Any] = table["write_units"]
    return units


async def test_a_bounded_replica_gets_what_it_may_while_the_other_is_level_and_both_become_equal(
    tmp_path: Path,
) -> None:
    with open_world(tmp_path) as world:
        await world.create_tables()
        replicas = ["eu", {"region": "ap", "table": "orders-copy", "write_units": UNITS}]
        config = world.write_settings(world.settings(rule={"replicas": replicas, "cache": []}))
        world.initialise(config)
        daemons = [world.daemon(config) for _ in range(2)]
        count = 500
        async with world.client("us") as client:
            for number in range(count):
                await client.put_item(TableName="orders", Item={"pk": {"S": f"k{number}"}, "v": {"N": "1"}})

        async def sizes() -> dict[str, int]:
            return {name: len(items) for name, items in (await world.replicas()).items()}

        began = time.monotonic()

        async def first_is_level() -> bool:
            return (await sizes())["eu"] == count

        await eventually("the replica without a bound is level", first_is_level)
        assert (await sizes())["ap"] < count
        slowed = world.command("status", "--json", config=config)
        assert [rule["write_units"] for rule in json.loads(slowed.stdout)["pacing"]["slowed"]] == [UNITS]
        assert "limited by write_units" in world.command("status", config=config).stderr
        rates = []

        async def second_is_level() -> bool:
            told = [bounded(daemon) for daemon in daemons]
            rates.append(sum(each["taken_per_second"] for each in told))
            return (await sizes())["ap"] == count

        await eventually("the bounded replica is level", second_is_level)
        print(  # noqa: T201 - what the test is asked for
            f"level after {time.monotonic() - began:.1f} s; at most {max(rates):.1f} of {UNITS} units a second"
        )
        assert max(rates) <= 1.2 * UNITS
        assert sum(bounded(daemon)["taken"] for daemon in daemons) >= (_UNITS_OF_AN_INSERT // 2) * count
