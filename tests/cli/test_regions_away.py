"""A region of a mesh that an operator declares away, beside a living daemon: owed, shown, and brought on `resume`."""

from __future__ import annotations

import json
import socket
from typing import Any

import pytest

from replicator.adapters.dynamodb.owed_rows import attributes, owner
from replicator.domain.identifiers import RegionId, RuleName, SequenceNumber, ShardId, TableName
from replicator.domain.owed_keys import OwedKey, OwedTo, mesh_version
from replicator.domain.records import Event, item_key
from replicator.domain.targets import replica_id
from tests.cli.daemons import running, wait_until
from tests.cli.worlds import World

pytestmark = pytest.mark.servers


def numbers(world: World, region: str) -> set[str]:
    return {item["sk"]["N"] for item in world.items(region, "orders")}


def test_a_region_that_is_paused_is_owed_what_it_misses_until_it_is_resumed(world: World) -> None:
    world.mesh("active-active")
    with running(world) as daemon:
        daemon.await_ready()
        world.put("us", "orders", pk={"S": "a"}, sk={"N": "1"})
        wait_until(lambda: numbers(world, "eu") == {"1"}, "the first item does not arrive")
        paused = world.run("pause", "orders", "--region", "eu", "--note", "upgrade").output
        assert "is paused in eu" in paused and "as its backlog" in paused  # noqa: PT018
        assert "already paused in eu" in world.run("pause", "orders", "--region", "eu").output
        assert world.run("pause", "orders", "--region", "ap").code == 2
        wait_until(lambda: "region_away" in daemon.said(), "the worker does not hear of it")
        for number in ("2", "3"):
            world.put("us", "orders", pk={"S": "a"}, sk={"N": number})

        def counted() -> bool:
            (region,) = world.run("status", "--json").json["regions"]
            return (region["rule"], region["region"], region["paused"], region["keys"]) == ("orders", "eu", True, 2)

        wait_until(counted, "what is owed is not counted")
        inspected = world.run("inspect", "orders", '{"pk": "a", "sk": 3}', "--json").json
        assert [
            (place["role"], place["region"], place["owed_by"], place["state"])
            for place in inspected["places"]
            if "owed_by" in place
        ] == [("owed", "eu", "us", "missed, owed by us")]
        assert inspected["agree"] is False
        said = world.run("status").errors
        assert "rule orders, eu: paused, 2 keys owed, the oldest for " in said
        assert "`replicator resume orders --region eu` lets it go on." in said
        assert 'replicator_region_away{region="eu",rule="orders"} 1.0' in (daemon.answers("/metrics") or "")
        wait_until(
            lambda: 'replicator_owed_keys{region="eu",rule="orders"} 2.0' in (daemon.answers("/metrics") or ""),
            "the gauge does not say what is owed",
        )
        answered = daemon.answers("/status")
        assert answered, daemon.said()[-3000:]
        rules = json.loads(answered)["rules"]
        assert [region["standing"] for rule in rules for region in rule["regions"] if region["region"] == "eu"] == [
            "away"
        ]
        assert world.run("parked", "list").errors == "replicator: nothing is parked.\n"
        assert numbers(world, "eu") == {"1"}
        resumed = world.run("resume", "orders", "--region", "eu", "--json").json
        assert resumed == {"rule": "orders", "region": "eu", "paused": False, "changed": True}
        wait_until(lambda: numbers(world, "eu") == {"1", "2", "3"}, "what is owed is not brought")
        wait_until(lambda: world.run("status", "--json").json["regions"] == [], "it is shown after all is brought")
        assert daemon.stop() == 0
    assert "region_back" in daemon.said()


def test_what_a_region_of_a_mesh_refused_is_listed_tried_again_and_given_up(world: World) -> None:
    world.mesh("versioned")
    to = OwedTo(TableName("orders"), replica_id(RuleName("orders"), RegionId("eu"), TableName("orders")))
    for number, sequence in (("1", 5), ("2", 6)):
        world.put("us", "orders", pk={"S": "a"}, sk={"N": number}, ver={"N": "1"})
        key = item_key(b'{"pk":{"S":"a"},"sk":{"N":"%s"}}' % number.encode())
        row = OwedKey(
            to, key, mesh_version(1_700_000_000_000, sequence, ""),
            ShardId("s0"), SequenceNumber(str(sequence)), Event.INSERT, "too large", 1.0, 1.0, 1.0, "me",
        )  # fmt: skip
        place = {"pk": {"S": f"test|{owner(to)}"}, "sk": {"S": f"key|{row.row_id}"}}
        rest: Any = attributes(row, row.body)
        world.put("us", "replicator-owed-test", **place, **rest)
    world.put("us", "replicator-owed-test", pk={"S": "test|targets"}, sk={"S": owner(to)}, sv={"N": "1"})
    listed = world.run("parked", "list", "--json").json["parked"]
    assert {(row["target"], row["region"], row["shown"]) for row in listed} == {
        ("orders/replica/eu:orders", "us", f"pk=a, sk={number}") for number in ("1", "2")
    }
    first = next(row for row in listed if row["shown"] == "pk=a, sk=1")
    assert "applied to its target" in world.run("parked", "retry", first["row"]).output
    assert numbers(world, "eu") == {"1"}
    (second,) = world.run("parked", "list", "--json").json["parked"]
    assert world.run("parked", "drop", second["row"], "--yes").code == 0
    assert world.run("parked", "list").errors == "replicator: nothing is parked.\n"
    (entry,) = world.run("conflicts", "list", "--kind", "dropped", "--json").json["conflicts"]
    assert entry["mode"] == "versioned"


def test_what_shows_does_not_wait_for_a_region_that_hangs_and_names_it(world: World) -> None:
    world.mesh("active-active")
    world.put("us", "orders", pk={"S": "a"}, sk={"N": "1"})
    world.config["apply"] = {"read_timeout": "10m"}
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        world.config["regions"]["eu"]["endpoint_url"] = f"http://127.0.0.1:{silent.getsockname()[1]}"
        shown, parked = world.run("status", "--json"), world.run("parked", "list")
        inspected = world.run("inspect", "orders", '{"pk": "a", "sk": 1}', "--json")
    assert (shown.code, shown.json["unanswered"], shown.json["coordination_error"]) == (69, ["eu"], None)
    assert [rule["name"] for rule in shown.json["rules"]] == ["orders"]
    assert [sentence.partition(":")[0] for sentence in shown.json["unreadable"]] == ["region eu"]
    assert (parked.code, "in eu" in parked.errors) == (69, True)
    places = [(place["role"], place["region"], place["state"]) for place in inspected.json["places"]]
    assert ("region", "us", "present, not stamped yet") in places
    assert ("region", "eu", "unreachable") in places
    assert (inspected.code, inspected.json["agree"]) == (69, None)


def test_a_daemon_that_starts_while_a_region_is_away_runs_the_others(world: World) -> None:
    world.mesh("active-active")
    eu = world.config["regions"]["eu"]
    working = eu["endpoint_url"]
    eu["endpoint_url"] = "http://127.0.0.1:9"
    with running(world) as daemon:
        wait_until(lambda: "shard_started" in daemon.said(), "the regions that answer are not read")
        world.put("us", "orders", pk={"S": "a"}, sk={"N": "1"})
        wait_until(lambda: "region_away" in daemon.said(), "a region that does not answer is not told of")

        def owed() -> int:
            eu["endpoint_url"] = working
            try:
                return sum(region["keys"] for region in world.run("status", "--json").json["regions"])
            finally:
                eu["endpoint_url"] = "http://127.0.0.1:9"

        wait_until(lambda: owed() == 1, "what it misses is not owed to it")
        assert numbers(world, "eu") == set()
        assert daemon.stop() == 0
    eu["endpoint_url"] = working
    with running(world) as daemon:
        daemon.await_ready()
        wait_until(lambda: numbers(world, "eu") == {"1"}, "another daemon does not bring what is owed")
        assert daemon.stop() == 0
