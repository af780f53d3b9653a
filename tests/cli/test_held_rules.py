"""A rule that cannot run holds only itself: at the start and while it runs, and it goes on when its world is mended."""

from __future__ import annotations

import json
import re
import time
from typing import Any

import pytest

from tests.cli.daemons import Daemon, running, wait_until
from tests.cli.proxy import WRITES, serving
from tests.cli.worlds import KEYS, World

pytestmark = pytest.mark.servers

GOOD = [f"good-{number}" for number in range(9)]
VIEW = "NEW_AND_OLD_IMAGES"


def quick(world: World) -> None:
    world.config["coordination"]["held"] = "1s"


def rule(name: str, table: str, **more: Any) -> dict[str, Any]:
    return {"name": name, "table": table, "source": "us", "replicas": ["eu"], **more}


def write(world: World, table: str, number: int) -> None:
    world.put("us", table, pk={"S": "a"}, sk={"N": str(number)})


def numbers(world: World, table: str, region: str = "eu") -> set[int]:
    return {int(item["sk"]["N"]) for item in world.items(region, table)}


def await_number(world: World, table: str, number: int) -> None:
    wait_until(lambda: number in numbers(world, table), f"{number} has not arrived in {table}")


def held(daemon: Daemon) -> dict[str, dict[str, Any]]:
    """What /status shows as held, by rule or target."""
    status = json.loads(daemon.answers("/status") or "{}")
    return {row["target"] or row["rule"]: row for row in status.get("held", ())}


def metric(daemon: Daemon) -> set[tuple[str, str]]:
    """(rule, cause) of everything that the metric shows as held."""
    lines = re.findall(r"^replicator_rule_held\{(.*)\} 1.0$", daemon.answers("/metrics") or "", re.MULTILINE)
    labels = [dict(re.findall(r'(\w+)="([^"]*)"', line)) for line in lines]
    return {(each["rule"], each["cause"]) for each in labels}


def test_nine_rules_run_beside_one_with_a_table_that_is_not_there(world: World) -> None:
    world.sound()
    quick(world)
    for table in GOOD:
        world.table("us", table, view=VIEW)
        world.table("eu", table)
    world.config["rules"] = [rule("typo", "ordesr"), *(rule(table, table) for table in GOOD)]
    refused = world.run("run", "--strict")
    assert refused.code == 78
    assert "Table ordesr in us does not exist" in refused.errors.strip().splitlines()[-1]
    with running(world) as daemon:
        daemon.await_ready()
        for number, table in enumerate(GOOD):
            write(world, table, number)
        for number, table in enumerate(GOOD):
            await_number(world, table, number)
        assert "typo on ordesr is held: Table ordesr in us does not exist." in (daemon.answers("/readyz") or "")
        assert metric(daemon) == {("typo", "missing")}
        shown = world.run("status")
        assert shown.code == 1
        verdict, problem, why, *_ = shown.output.splitlines()
        assert verdict == "1 problem: typo is held (missing)"
        assert problem == "  typo is held (missing): replicator check --failed"
        assert why.strip().startswith("Table ordesr in us does not exist. Create it")
        (line,) = [line for line in shown.output.splitlines() if line.startswith("typo\t")]
        assert line.rpartition("\t")[2].startswith("held: Table ordesr in us does not exist. Create it, or correct")
        (row,) = next(each for each in world.run("status", "--json").json["rules"] if each["name"] == "typo")["held"]
        assert (row["cause"], row["target"], row["table"]) == ("missing", None, "ordesr")
        world.table("us", "ordesr", view=VIEW)
        wait_until(lambda: list(held(daemon)) == ["typo/replica/eu:ordesr"], "the source was not looked at again")
        write(world, "ordesr", 77)
        world.table("eu", "ordesr")
        await_number(world, "ordesr", 77)
        wait_until(lambda: not held(daemon), "what is mended is still held")
        assert metric(daemon) == set()
        assert (daemon.answers("/readyz") or "") == "ready\n"
        assert daemon.stop() == 0


@pytest.mark.long
def test_a_denied_permission_holds_one_rule_until_it_is_given_back(world: World) -> None:
    world.sound()
    quick(world)
    world.table("us", "secret", view=VIEW)
    world.table("eu", "secret")
    with serving(world.endpoint_url) as proxy:
        world.config["regions"]["ap"] = {"region": "eu-west-1", "endpoint_url": proxy.url}
        world.config["rules"] += [{**rule("secret", "secret"), "replicas": ["ap"]}]
        with running(world) as daemon:
            daemon.await_ready()
            proxy.denied = frozenset({*WRITES, "DescribeTable"})
            write(world, "secret", 1)
            wait_until(lambda: metric(daemon) == {("secret", "denied")}, "what is denied is not shown")
            write(world, "orders", 2)
            await_number(world, "orders", 2)
            assert daemon.is_ready()
            proxy.denied = frozenset()
            await_number(world, "secret", 1)
            wait_until(lambda: not held(daemon), "what is granted is still held")
            proxy.page, proxy.denied = b"<html>Sorry.</html>", frozenset({*WRITES, "DescribeTable"})
            write(world, "secret", 5)
            time.sleep(3)  # some looks, which show nothing
            assert held(daemon) == {}, "what does not answer is not held"
            proxy.page, proxy.denied = b"", frozenset()
            await_number(world, "secret", 5)
            proxy.denied = frozenset({*WRITES, "DescribeTable"})
            assert daemon.stop() == 0
        with running(world, name="again") as daemon:  # denied from the first moment on
            daemon.await_ready()
            assert metric(daemon) == {("secret", "denied")}
            write(world, "secret", 3)
            write(world, "orders", 4)
            await_number(world, "orders", 4)
            assert 3 not in numbers(world, "secret")
            proxy.denied = frozenset()
            await_number(world, "secret", 3)
            assert daemon.stop() == 0


def test_a_dropped_replica_waits_alone_until_it_is_what_it_should_be(world: World) -> None:
    world.sound()
    quick(world)
    world.table("eu", "copies")
    world.rule["replicas"] = ["eu"]
    world.config["rules"] += [{**rule("copies", "orders"), "replicas": [{"region": "eu", "table": "copies"}]}]
    world.config["rules"][-1]["on_gap"] = "stop"
    with running(world) as daemon:
        daemon.await_ready()
        write(world, "orders", 1)
        await_number(world, "copies", 1)
        world.call("eu", "DeleteTable", TableName="copies")
        write(world, "orders", 2)
        await_number(world, "orders", 2)
        wait_until(lambda: metric(daemon) == {("copies", "missing")}, "a missing table is not shown")
        assert daemon.is_ready()
        world.table("eu", "copies", {"pk": "S"})
        wait_until(lambda: metric(daemon) == {("copies", "schema")}, "another key is not shown")
        (row,) = held(daemon).values()
        assert "Table copies in eu has the key pk (S), but its source orders in us has pk (S), sk (N)." in row["reason"]
        write(world, "orders", 3)
        await_number(world, "orders", 3)
        assert world.items("eu", "copies") == []
        world.call("eu", "DeleteTable", TableName="copies")
        world.table("eu", "copies", KEYS)
        wait_until(lambda: metric(daemon) == {("copies", "replaced")}, "another table is not shown")
        (row,) = held(daemon).values()
        assert "Table copies in eu is another one than the one that rule copies wrote" in row["reason"]
        assert world.items("eu", "copies") == []
        assert daemon.stop() == 0
    world.config["rules"][-1]["on_gap"] = "resync"  # while no daemon is there that would take it over
    warned = [fact for fact in world.check().json["facts"] if fact["fact"] == "same table" and fact["remedy"]]
    assert [(fact["status"], fact["subject"]) for fact in warned] == [("warning", "table copies in eu")]
    assert "the rule accepts it, and a repair copies what it lacks" in warned[0]["remedy"]
    world.config["rules"][-1]["on_gap"] = "stop"
    with running(world, name="again") as daemon:
        daemon.await_ready()
        assert metric(daemon) == {("copies", "replaced")}
        assert row["reason"] in world.check().failures()[0]
        command = re.search(r"`replicator (.*)`", row["advice"])
        assert command is not None
        assert "copies in eu is accepted" in world.run(*command[1].split()).output
        await_number(world, "copies", 3)
        await_number(world, "copies", 2)
        wait_until(lambda: not held(daemon), "what is accepted is still held")
        assert numbers(world, "copies") == {2, 3}
        again = world.run(*command[1].split())
        assert again.code == 2
        assert "No table copies of rule copies in eu is known to be another one than before." in again.errors
        assert daemon.stop() == 0


def test_a_region_of_a_mesh_that_was_created_anew_in_silence_is_noticed_and_written_once_it_is_accepted(
    world: World,
) -> None:
    world.mesh("active-active")
    quick(world)
    with running(world) as daemon:
        daemon.await_ready()
        write(world, "orders", 1)
        await_number(world, "orders", 1)
        world.call("eu", "DeleteTable", TableName="orders")
        world.table("eu", "orders", view=VIEW)
        wait_until(lambda: "orders/replica/eu:orders" in held(daemon), "another table is not noticed")
        assert held(daemon)["orders/replica/eu:orders"]["cause"] == "replaced"
        write(world, "orders", 2)
        wait_until(lambda: ("orders", "replaced") in metric(daemon), "another table is not shown")
        assert world.items("eu", "orders") == []
        assert world.run("rules", "accept", "orders", "--region", "eu").code == 0
        await_number(world, "orders", 2)
        assert numbers(world, "orders") == {2}
        assert daemon.stop() == 0


@pytest.mark.long
def test_a_mesh_begins_without_a_region_that_is_not_there_and_takes_it_in_later(world: World) -> None:
    world.mesh("active-active")
    quick(world)
    world.config["regions"]["ap"] = {"region": "eu-west-1", "endpoint_url": world.endpoint_url}
    world.rule["regions"] += [{"region": "ap", "table": "orders-ap"}]
    world.table("eu", "orders-ap", view=VIEW)
    assert world.run("init").code == 0
    world.call("eu", "DeleteTable", TableName="orders-ap")
    assert world.run("run", "--strict").code == 78
    with running(world) as daemon:
        daemon.await_ready()
        assert metric(daemon) == {("orders", "missing")}
        assert list(held(daemon)) == ["orders/replica/ap:orders-ap"]
        write(world, "orders", 1)
        await_number(world, "orders", 1)
        world.table("eu", "orders-ap", view=VIEW)
        await_number(world, "orders-ap", 1)
        wait_until(lambda: not held(daemon), "what is mended is still held")
        world.put("eu", "orders-ap", pk={"S": "a"}, sk={"N": "2"})
        await_number(world, "orders", 2)
        assert daemon.stop() == 0


@pytest.mark.long
def test_a_stream_that_is_taken_away_or_shows_too_little_holds_its_rule_alone(world: World) -> None:
    def stream(view: str | None) -> None:
        specification = {"StreamEnabled": True, "StreamViewType": view} if view else {"StreamEnabled": False}
        world.call("us", "UpdateTable", TableName="shy", StreamSpecification=specification)

    def tells(daemon: Daemon, words: str) -> bool:
        """Whether it is held for this reason, and the worker is ready all the same."""
        return words in held(daemon).get("shy", {}).get("reason", "") and "shy on shy is held" in (
            daemon.answers("/readyz") or ""
        )

    world.sound()
    quick(world)
    world.config["coordination"].update(drained="1s", discovery="300ms")
    world.table("us", "shy", view=VIEW)
    world.table("eu", "shy")
    world.config["rules"] += [rule("shy", "shy")]
    with running(world) as daemon:
        daemon.await_ready()
        write(world, "shy", 1)
        await_number(world, "shy", 1)
        write(world, "shy", 2)
        stream(None)
        await_number(world, "shy", 2)
        wait_until(lambda: tells(daemon, "has no stream"), "a stream that is gone is not told")
        wait_until(lambda: "shards of shy in us" in (daemon.answers("/status") or ""), "the old stream is not left")
        assert tells(daemon, "has no stream")
        stream("KEYS_ONLY")
        wait_until(lambda: tells(daemon, "view type KEYS_ONLY"), "a stream that shows too little is not told")
        write(world, "shy", 3)
        write(world, "orders", 3)
        await_number(world, "orders", 3)
        stream(None)
        stream(VIEW)
        write(world, "shy", 4)
        await_number(world, "shy", 4)
        wait_until(lambda: not held(daemon), "what is mended is still held")
        assert numbers(world, "shy") == {1, 2, 4}
        assert "record_parked" not in daemon.said()
        assert daemon.stop() == 0


@pytest.mark.long
def test_a_wrong_cache_holds_nothing_and_is_owed_what_it_misses(world: World) -> None:
    world.sound()
    quick(world)
    world.config["caches"]["eu_main"]["url"] = world.redis_url.replace("/0", "/99")
    with running(world) as daemon:
        daemon.await_ready()
        assert metric(daemon) == set()
        write(world, "orders", 1)
        await_number(world, "orders", 1)
        wait_until(lambda: "no database of this number" in daemon.said(), "the reason is not told")
        assert daemon.stop() == 0
