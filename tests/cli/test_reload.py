"""A changed configuration is taken up by a daemon that runs, rule by rule; what cannot be, changes nothing."""

from __future__ import annotations

import json
import signal
from typing import Any

import pytest

from tests.cli.daemons import Daemon, running, wait_until
from tests.cli.worlds import Answer, World

pytestmark = pytest.mark.servers

VIEW = "NEW_AND_OLD_IMAGES"
USERS = {"name": "users", "table": "users", "source": "us", "replicas": ["eu"]}


def write(world: World, table: str, number: int, text: str = "x") -> None:
    world.put("us", table, pk={"S": "a"}, sk={"N": str(number)}, text={"S": text})


def await_numbers(world: World, table: str, *numbers: int) -> None:
    def have_arrived() -> bool:
        return {int(item["sk"]["N"]) for item in world.items("eu", table)} == set(numbers)

    wait_until(have_arrived, f"{table} has not got {numbers}")


def began(daemon: Daemon, rule: str) -> int:
    """How often a shard was begun for a rule."""
    lines = [json.loads(line) for line in daemon.said().splitlines() if '"shard_started"' in line]
    return sum(line["rule"] == rule for line in lines)


def refused(world: World, reason: str, **changed: Any) -> None:
    """A configuration with these changes is refused for this reason, and then the former one stands again."""
    before = dict(world.config)
    world.config.update(changed)
    answer = world.run("reload", "--json")
    assert answer.code == 78, answer
    (worker,) = answer.json["workers"]
    assert worker["result"] == "refused"
    assert any(reason in said for said in worker["reasons"]), worker
    world.config = before


def problems(answer: Answer) -> dict[str, str]:
    return {problem["kind"]: problem["reason"] for problem in answer.json["problems"]}


def test_a_changed_configuration_is_taken_up_rule_by_rule_or_changes_nothing(world: World) -> None:
    world.table("us", "users", view=VIEW)
    world.table("eu", "users")
    world.table("us", "carts", view=VIEW)
    world.table("eu", "carts", keys={"other": "S"})
    world.sound()
    world.config["log"] = {"format": "json"}
    with running(world) as daemon:
        daemon.await_ready()
        write(world, "orders", 1)
        await_numbers(world, "orders", 1)
        assert began(daemon, "orders") == 1
        assert [each["result"] for each in world.run("reload", "--json").json["workers"]] == ["unchanged"]

        # What is wrong, or cannot be applied now, changes nothing, and is seen.
        orders = world.config["rules"]
        refused(world, "drain is read at the start only", drain="19s")
        refused(world, "Rule orders cannot be removed while it runs", rules=[USERS])
        refused(world, "table of rule orders say what its progress", rules=[{**orders[0], "table": "users"}])
        carts = {**USERS, "name": "carts", "table": "carts"}
        refused(world, "us has pk (S), sk (N). Create the replica of rule carts anew", rules=[*orders, carts, USERS])
        refused(world, "Table nowhere in us does not exist", rules=[*orders, {**carts, "table": "nowhere"}])
        assert "Table nowhere" in problems(world.run("status", "--json"))["configuration"]
        right = world.path.read_text()
        world.path.write_text(right.replace("replicas:", "replicsa:"))
        wait_until(
            lambda: "replicsa" in json.dumps(json.loads(daemon.answers("/status") or "{}")), "the typo is not seen"
        )
        # The next command writes the right file again.
        wait_until(lambda: "configuration" not in problems(world.run("status", "--json")), "it is still refused")

        # A good one starts its rule, and touches no other.
        world.config["rules"] = [*orders, USERS]
        preview = world.run("reload", "--dry-run")
        assert (preview.code, preview.output.rpartition(": ")[2]) == (0, "adds users\n")
        applied = world.run("reload", "--json")
        assert [each["result"] for each in applied.json["workers"]] == ["applied"], daemon.said()[-3000:]
        write(world, "users", 1)
        await_numbers(world, "users", 1)

        # A rule that changes goes on where it stood; SIGHUP is as good as the command.
        world.config["rules"] = [*orders, {**USERS, "filter": {"equals": {"text": "public"}}}]
        assert world.path.exists()
        daemon.process.signal(signal.SIGHUP)
        wait_until(lambda: began(daemon, "users") == 2, "the filter is not taken up")
        write(world, "users", 2, "private")
        write(world, "users", 3, "public")
        await_numbers(world, "users", 1, 3)
        write(world, "orders", 2)
        await_numbers(world, "orders", 1, 2)
        assert began(daemon, "orders") == 1, "a rule that did not change was begun again"
        assert daemon.stop() == 0
    applied_at = [line for line in daemon.said().splitlines() if '"configuration_applied"' in line]
    assert [json.loads(line)["changes"] for line in applied_at] == ["adds users", "changes users (filter)"]


def test_reload_without_a_worker_says_so(world: World) -> None:
    world.sound()
    answer = world.run("reload", "--json")
    assert (answer.code, "answers on its admin port" in answer.errors) == (69, True)
