"""What a daemon does about a target that is not the one of before: another table, or stored by earlier versions."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.cli.daemons import Daemon, running, wait_until
from tests.cli.worlds import World

pytestmark = pytest.mark.servers


TABLE = "replicator-coordination"
TARGET, EARLIER = "orders/replica/eu:orders", "orders/eu"


def write(world: World, *numbers: int) -> None:
    for number in numbers:
        world.put("us", "orders", pk={"S": "a"}, sk={"N": str(number)})


def replicate(world: World, *numbers: int, table: str = "orders", name: str) -> list[dict[str, Any]]:
    """Run a daemon until a replica has these items; returns what it logged."""

    def arrived(daemon: Daemon) -> bool:
        assert daemon.process.poll() is None, daemon.said()
        found = {int(item["sk"]["N"]) for item in world.items("eu", table)}
        positions = [row.get(f"at:orders/replica/eu:{table}") for row in world.items("us", TABLE)]
        return found == set(numbers) and any(position and position["S"].isdecimal() for position in positions)

    world.config["log"] = {"format": "json"}
    with running(world, name=name) as daemon:
        wait_until(lambda: arrived(daemon), f"{table} has not got {numbers}")
        assert daemon.stop() == 0
        return [json.loads(line) for line in daemon.said().splitlines() if line.startswith("{")]


def said(lines: list[dict[str, Any]], event: str) -> list[dict[str, Any]]:
    return [line for line in lines if line["event"] == event]


def as_an_earlier_version_stored_it(world: World) -> None:
    """Let every row name the target by rule and region alone."""
    for row in world.items("us", TABLE):
        old = {name.replace(TARGET, EARLIER): value for name, value in row.items()}
        old["sk"] = {"S": row["sk"]["S"].replace(TARGET, EARLIER)}
        key = {"pk": row["pk"], "sk": row["sk"]}
        if old != row:
            world.call("us", "DeleteItem", TableName=TABLE, Key=key)
            world.put("us", TABLE, **old)


def test_another_replica_table_gets_what_the_old_one_got(world: World) -> None:
    world.sound()
    write(world, 1, 2)
    replicate(world, 1, 2, name="first")
    world.table("eu", "orders-v2")
    world.rule["replicas"] = [{"region": "eu", "table": "orders-v2"}]
    write(world, 3)
    replicate(world, 1, 2, 3, table="orders-v2", name="second")
    assert len(world.items("eu", "orders")) == 2
    world.rule["replicas"] = ["eu"]
    lines = replicate(world, 1, 2, 3, name="third")
    (report, *_) = said(lines, "rule_applied")
    assert report["records"] == 1, "the first table's target goes on where it stood"


def test_progress_of_an_earlier_version_goes_on_for_the_same_table_alone(world: World) -> None:
    world.sound()
    write(world, 1, 2)
    replicate(world, 1, 2, name="first")
    as_an_earlier_version_stored_it(world)
    world.table("eu", "orders-v2")
    world.rule["replicas"] = [{"region": "eu", "table": "orders-v2"}]
    lines = replicate(world, 1, 2, table="orders-v2", name="other")
    assert [line["former"] for line in said(lines, "target_begun_anew")] == [EARLIER]
    world.rule["replicas"] = ["eu"]
    write(world, 3)
    lines = replicate(world, 1, 2, 3, name="same")
    assert [line["former"] for line in said(lines, "target_carried_over")] == [[EARLIER]]
    assert sum(line["records"] for line in said(lines, "rule_applied")) == 1, "nothing is read again"
    assert said(lines, "gap_found") == []
