"""A replica with a transform, by the program: replicated, compared, inspected; and refused where it cannot hold."""

from __future__ import annotations

from typing import Any

import pytest

from replicator.domain.versions import ordered_version
from tests.cli.daemons import running, wait_until
from tests.cli.worlds import Answer, World

TRANSFORM = {
    "drop": ["note"],
    "mask": {"attributes": ["mail"], "hmac": "masks"},
    "rename": {"total": "sum"},
    "constant": {"from": "us"},
}
SECRET = "a secret of sixteen"


@pytest.fixture
def transformed(world: World) -> World:
    world.config["secrets"] = {"masks": SECRET}
    world.rule["replicas"] = [{"region": "eu", "transform": dict(TRANSFORM)}]
    world.config["copying"] = {"margin": "10ms"}
    return world


def put(world: World, pk: str, total: int) -> None:
    private = {"mail": {"S": f"{pk}@private.example"}, "note": {"S": "private"}}
    world.put("us", "orders", pk={"S": pk}, sk={"N": "1"}, total={"N": str(total)}, **private)


def held(world: World) -> dict[str, tuple[list[str], str]]:
    """Attributes of every item at the replica, and its sum."""
    return {item["pk"]["S"]: (sorted(item), item["sum"]["N"]) for item in world.items("eu", "orders")}


def needs(planned: Answer, code: int) -> list[tuple[str, str]]:
    """What a plan names, by target."""
    assert planned.code == code, planned.said
    return [(step["target"], step["needs"]) for step in planned.json["steps"]]


TARGET = "orders/replica/eu:orders"
ATTRIBUTES = ["_rep", "from", "mail", "pk", "sk", "sum"]


@pytest.mark.servers
def test_a_replica_holds_what_its_transform_makes_and_everything_compares_that(transformed: World) -> None:
    world = transformed
    world.sound()
    assert needs(world.run("plan", "--json"), 1) == [(TARGET, "bootstrap")]
    with running(world) as daemon:
        daemon.await_ready()
        put(world, "a", 1)
        put(world, "b", 2)
        put(world, "a", 3)
        wait_until(lambda: held(world) == {"a": (ATTRIBUTES, "3"), "b": (ATTRIBUTES, "2")}, "not as the rule says")
        same = world.run("verify", "orders", "--json")
        assert (same.code, same.json["compared"]) == (0, 2), same.said
        assert world.run("inspect", "orders", '{"pk": "a", "sk": 1}', "--json").json["agree"] is True
        assert "private" not in str(world.items("eu", "orders"))
        assert "rule_changed" not in daemon.said()
        assert needs(world.run("plan", "--json"), 0) == []
        world.rule["replicas"][0]["transform"]["constant"] = {"from": "elsewhere"}
        planned = world.run("plan", "--sample", "5", "--json")
        assert needs(planned, 1) == [(TARGET, "repair")]
        assert (planned.json["steps"][0]["write_units"], planned.json["steps"][0]["sampled"]) == (2, 2)
        (sample,) = planned.json["samples"]
        assert [(each["becomes"], each["attributes"]) for each in sample["items"]] == [("changed", ["~from"])] * 2
        shown = world.run("plan", "--sample", "5")
        assert ("elsewhere" in shown.said, "of 2 items 2 changed" in shown.output) == (False, True), shown.said
        assert "elsewhere" in world.run("plan", "--sample", "5", "--values").output
        wait_until(lambda: "configuration_applied" in daemon.said(), "the changed file is not taken up")
        assert "rule_changed" in daemon.said()
        assert needs(world.run("plan", "--json"), 1) == [(TARGET, "repair")]
        assert world.run("verify", "orders").code == 1
        put(world, "c", 4)
        wait_until(lambda: "c" in held(world), "nothing is replicated after the change")
        assert world.run("repair", "orders", "--yes").code == 0
        assert needs(world.run("plan", "--json"), 0) == []
        assert daemon.stop() == 0
    assert {item["from"]["S"] for item in world.items("eu", "orders")} == {"elsewhere"}
    refused = world.run("conflicts", "promote", world.items("us", "replicator-conflicts-test")[0]["id"]["S"], "--yes")
    assert (refused.code, "are transformed" in refused.errors) == (2, True), refused.said


@pytest.mark.servers
def test_a_transform_of_the_key_is_refused_by_check_and_holds_its_rule(transformed: World) -> None:
    transformed.rule["replicas"][0]["transform"] = {"rename": {"sk": "number"}}
    transformed.sound()
    checked = transformed.check()
    assert checked.code == 78
    assert any("transform changes sk of the primary key" in sentence for sentence in checked.failures())
    version = ordered_version(0, 1_700_000_000_000, 7)
    transformed.put("eu", "orders", pk={"S": "a"}, sk={"N": "1"}, _rep={"S": version})
    assert transformed.run("run").code == 78


def merging(name: str) -> dict[str, Any]:
    key = {"origin": {"constant": name}, "id": "{pk}/{sk:N}"}
    replica = {"region": "eu", "table": "all", "transform": {"key": key, "drop": ["pk"]}}
    return {"name": name, "table": name, "source": "us", "replicas": [replica]}


def ids(world: World) -> dict[str, list[str]]:
    """What the merged table holds, by where it comes from."""
    found: dict[str, list[str]] = {}
    for item in world.items("eu", "all"):
        found.setdefault(item["origin"]["S"], []).append(item["id"]["S"])
    return {origin: sorted(names) for origin, names in found.items()}


@pytest.mark.servers
@pytest.mark.long
def test_two_tables_in_one_are_compared_and_mended_each_by_itself(world: World) -> None:
    world.config["copying"] = {"margin": "10ms"}
    world.config["rules"] = [merging("orders"), merging("bills")]
    world.table("us", view="NEW_AND_OLD_IMAGES")
    world.table("us", "bills", view="NEW_AND_OLD_IMAGES")
    world.table("eu", "all")
    world.initialise()
    checked = world.check()
    assert checked.code == 78
    assert any("of which transform.key makes origin (S), id (S)" in said for said in checked.failures())
    world.call("eu", "DeleteTable", TableName="all")
    made = world.run("init", "--replicas", "--json").json["steps"]
    assert ("table all in eu", "created") in [(step["subject"], step["action"]) for step in made]
    with running(world) as daemon:
        daemon.await_ready()
        for name in ("orders", "bills"):
            for pk in ("a", "b#"):
                world.put("us", name, pk={"S": pk}, sk={"N": "1.50"}, of={"S": name})
        wait_until(lambda: ids(world) == {"orders": ["a/1.5", "b#/1.5"], "bills": ["a/1.5", "b#/1.5"]}, "not merged")
        shown = world.run("inspect", "bills", '{"pk": "a", "sk": 1.5}', "--json").json
        assert (shown["agree"], shown["places"][1]["key"]) == (True, "id=a/1.5, origin=bills")
        for item in world.items("eu", "all"):
            if item["id"]["S"] == "a/1.5":
                world.put("eu", "all", **{**item, "of": {"S": "damaged"}})
        found = world.run("verify", "orders", "--json")
        assert (found.code, found.json["compared"], len(found.json["differences"])) == (1, 2, 1), found.said
        assert found.json["differences"][0]["key"] == {"pk": {"S": "a"}, "sk": {"N": "1.5"}}
        assert world.run("repair", "orders", "--yes").code == 0
        assert world.run("verify", "bills").code == 1
        planned = world.run("plan", "--sample", "1")
        assert "pk=a, sk=1.5 -> id=a/1.5, origin=orders" in planned.output or "pk=b#" in planned.output, planned.said
        world.config["rules"][0]["replicas"][0]["transform"]["key"]["id"] = "{sk:N}/{pk}"
        planned = world.run("plan", "--json")
        assert needs(planned, 1) == [("orders/replica/eu:all", "rebuild")]
        assert planned.json["steps"][0]["write_units"] > 0
        wait_until(lambda: "under keys that may be those of others" in daemon.said(), "a changed key is not refused")
        world.config["rules"][0] = merging("orders")
        assert daemon.stop() == 0
    world.config["rules"] = [merging("orders")]
    assert world.run("uninstall", "orders", "--yes").code == 0
    stamped = {(item["origin"]["S"], "_rep" in item) for item in world.items("eu", "all")}
    assert stamped == {("orders", False), ("bills", True)}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"secrets": {}}, "rules[0].replicas[0].transform.mask.hmac`: must be the name of one of secrets"),
        ({"secrets": {"masks": "short"}}, "must have at least 16 characters"),
        ({"primary_key": ["mail"]}, "changes mail of the primary key"),
        ({"mode": "versioned"}, "has a transform, but in a mesh every region is the source of the others"),
        ({"transform": {"key": {"pk": "x"}}}, "key.pk: 'x' has no placeholder"),
    ],
)
def test_a_transform_that_cannot_be_is_refused_with_the_file(
    transformed: World, change: dict[str, Any], words: str
) -> None:
    world = transformed
    if "secrets" in change:
        world.config |= change
    elif "transform" in change:
        world.rule["replicas"][0] |= change
    elif "mode" in change:
        members = [world.rule.pop("replicas")[0], world.rule.pop("source")]
        world.config["rules"][0] |= {"regions": members, "mode": "versioned", "version": "ver"}
    else:
        world.config["rules"][0] |= change
    answer = world.run("check", "--offline", "--json")
    assert (answer.code, words in answer.output) == (78, True), answer.said
    assert SECRET not in answer.said
