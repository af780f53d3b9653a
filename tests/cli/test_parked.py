"""`replicator parked` beside a living daemon: refused items are listed, shown, tried again, given up, and heal."""

from __future__ import annotations

import json

import pytest

from tests.cli.daemons import running, wait_until
from tests.cli.worlds import World

pytestmark = pytest.mark.servers

TARGET = "orders/replica/eu:orders"
NO_ROOM = 409_600 - len("pk") - len("a") - len("sk") - 2 - len("text") - 30
"""Characters of a text with which an item has room at the source, and none for its version."""


def write(world: World, number: int, text: str, **more: dict[str, str]) -> None:
    world.put("us", "orders", pk={"S": "a"}, sk={"N": str(number)}, text={"S": text}, **more)


def texts(world: World) -> dict[str, str]:
    return {item["sk"]["N"]: item["text"]["S"] for item in world.items("eu", "orders")}


def keys(world: World) -> list[str]:
    return [row["shown"] for row in world.run("parked", "list", "--json").json["parked"]]


def test_a_refused_item_is_parked_and_everything_else_goes_on(world: World) -> None:
    world.sound()
    with running(world) as daemon:
        daemon.await_ready()
        assert world.run("parked", "list").errors == "replicator: nothing is parked.\n"
        write(world, 1, "x" * NO_ROOM)
        write(world, 2, "small")
        wait_until(lambda: set(texts(world)) == {"2"}, "what is behind a refused item does not arrive")
        wait_until(lambda: keys(world) == ["pk=a, sk=1"], "the refused item is not listed")
        (row,) = world.run("parked", "list", "--json").json["parked"]
        assert (row["target"], row["region"], row["table"], row["change"], row["tries"]) == (
            TARGET, "us", "orders", "put", 1,
        )  # fmt: skip
        assert row["why"].startswith("The item has 409")
        listed = world.run("parked", "list", "--rule", "orders").output
        assert row["row"] in listed
        assert "xxx" not in listed
        shown = world.run("parked", "show", row["row"][:6], "--json")
        assert "xxx" not in shown.output
        assert shown.json["key"] == {"pk": {"S": "a"}, "sk": {"N": "1"}}
        assert "x" * 1000 in world.run("parked", "show", row["row"], "--values").output

        status = world.run("status")
        assert status.code == 1
        assert status.output.startswith("1 problem: 1 key of orders/eu is parked for ")
        assert [(rows["target"], rows["keys"]) for rows in world.run("status", "--json").json["parked"]] == [
            (TARGET, 1)
        ]
        (rule,) = json.loads(daemon.answers("/status") or "")["rules"]
        assert [(rows["target"], rows["keys"], rows["records"]) for rows in rule["parked"]] == [(TARGET, 1, 0)]
        metrics = (daemon.answers("/metrics") or "").splitlines()
        assert 'replicator_parked_keys{region="eu",rule="orders"} 1.0' in metrics
        assert 'replicator_refused_changes_total{region="eu",rule="orders"} 1.0' in metrics
        assert "\nparked\torders" not in world.run("inspect", "orders", '{"pk": "a", "sk": 2}').output
        inspected = world.run("inspect", "orders", "pk=a, sk=1").output
        assert "parked\treplicator-owed-test in eu\trefused 1 time" in inspected
        assert inspected.startswith("Places differ from the source.\n  orders in eu: is absent\n")
        assert "  parked of this key in eu: The item has 409" in inspected
        assert "  1 key of orders/eu is parked for " in inspected

        again = world.run("parked", "retry", row["row"])
        assert (again.code, "stays: The item has" in again.output) == (78, True)
        write(world, 1, "fits")
        wait_until(lambda: texts(world) == {"1": "fits", "2": "small"}, "the item that fits does not arrive")
        wait_until(lambda: not keys(world), "a row outlives what was taken")
        (settled,) = world.run("parked", "list", "--all", "--json").json["parked"]
        assert (settled["row"], settled["settled"]) == (row["row"], "applied")
        wait_until(
            lambda: 'replicator_parked_keys{region="eu",rule="orders"} 0.0' in (daemon.answers("/metrics") or ""),
            "the gauge does not fall",
        )
        assert daemon.stop() == 0
    assert "record_parked" in daemon.said()
    assert "xxx" not in daemon.said()


def test_a_corrected_replica_takes_what_is_tried_again_and_the_rest_can_be_dropped(world: World) -> None:
    world.table("us", view="NEW_AND_OLD_IMAGES")
    world.table("eu", index={"by": "N"})
    world.initialise()
    with running(world) as daemon:
        daemon.await_ready()
        for number in (1, 2, 3):
            write(world, number, f"text {number}", by={"S": "not a number"})
        wait_until(lambda: len(keys(world)) == 3, "the refused items are not listed")
        rows = {row["shown"]: row["row"] for row in world.run("parked", "list", "--json").json["parked"]}
        dropped = rows["pk=a, sk=3"]
        asked = world.run("parked", "drop", dropped)
        assert (asked.code, "Add --yes" in asked.errors) == (2, True)
        assert world.run("parked", "drop", dropped, "--yes").code == 0
        (entry,) = world.run("conflicts", "list", "--kind", "dropped", "--json").json["conflicts"]
        assert (entry["loser"]["text"], entry["winner"], entry["outcome"]) == ({"S": "text 3"}, None, "given_up")
        world.call("eu", "DeleteTable", TableName="orders")
        world.table("eu")
        assert world.run("parked", "retry").code == 2
        retried = world.run("parked", "retry", "--rule", "orders", "--json")
        assert [each["settled"] for each in retried.json["retried"]] == ["retried", "retried"]
        assert texts(world) == {"1": "text 1", "2": "text 2"}
        assert world.run("parked", "retry", "--all").errors == "replicator: nothing is parked.\n"
        assert daemon.stop() == 0
