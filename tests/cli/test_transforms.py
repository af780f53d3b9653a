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


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"secrets": {}}, "rules[0].replicas[0].transform.mask.hmac`: 'masks' is not one of secrets"),
        ({"secrets": {"masks": "short"}}, "must have at least 16 characters"),
        ({"primary_key": ["mail"]}, "changes mail of the primary key"),
        ({"mode": "versioned"}, "transform` is not a known key"),
        ({"transform": {"key": {"pk": "x"}}}, "key"),
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
