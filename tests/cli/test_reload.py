"""A changed configuration is taken up by a daemon that runs, rule by rule; what cannot be, changes nothing."""

from __future__ import annotations

import json
import signal
import urllib.error
import urllib.request
from typing import Any

import pytest
import redis

from tests.cli import worlds
from tests.cli.daemons import Daemon, running, wait_until
from tests.cli.worlds import Answer, World

pytestmark = pytest.mark.servers

VIEW = "NEW_AND_OLD_IMAGES"
USERS = {"name": "users", "table": "users", "source": "us", "replicas": ["eu"]}
LATER = {**USERS, "name": "later", "table": "nowhere"}
TOKENS = {"one": "0123456789abcdef0123456789abcdef", "two": "fedcba9876543210fedcba9876543210"}


def write(world: World, table: str, number: int, text: str = "x") -> None:
    world.put("us", table, pk={"S": "a"}, sk={"N": str(number)}, text={"S": text})


def await_numbers(world: World, table: str, *numbers: int, region: str = "eu") -> None:
    def have_arrived() -> bool:
        return {int(item["sk"]["N"]) for item in world.items(region, table)} == set(numbers)

    wait_until(have_arrived, f"{table} has not got {numbers} in {region}")


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


def applied(world: World, daemon: Daemon, what: str) -> None:
    """The configuration as it is now is taken up: by the command, or before it by the worker's own look at the file."""
    answer = world.run("reload", "--json")
    found = [(each["result"], each["changes"]) for each in answer.json["workers"]]
    lines = [json.loads(line) for line in daemon.said().splitlines() if '"configuration_applied"' in line]
    assert lines[-1]["changes"] == what, answer
    assert found in ([("applied", what)], [("unchanged", "changes nothing")])


def problems(answer: Answer) -> dict[str, str]:
    return {problem["kind"]: problem["reason"] for problem in answer.json["problems"]}


def session(daemon: Daemon, token: str) -> str | None:
    """The name that a token has; None when it is none."""
    url = f"http://127.0.0.1:{daemon.port}/api/v1/session"
    request = urllib.request.Request(url, headers={"Authorization": f"Bearer {TOKENS[token]}"})
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            name: str = json.loads(answer.read())["token"]
            return name
    except urllib.error.HTTPError as error:
        assert error.code == 401  # noqa: PT017 - it is the answer
        return None


def test_a_changed_configuration_is_taken_up_rule_by_rule_or_changes_nothing(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.table("us", "users", view=VIEW)
    world.table("eu", "users")
    world.table("us", "carts", view=VIEW)
    world.table("eu", "carts", keys={"other": "S"})
    world.sound()
    world.config["log"] = {"format": "json"}
    world.config["coordination"]["tables"] = "1s"
    world.config["admin"]["api"] = {"enabled": True, "tokens": {"first": {"secret": "one"}}}
    world.config["secrets"] = TOKENS
    orders = world.rule
    world.config["rules"] = [orders, LATER]
    with running(world) as daemon:
        daemon.await_ready()
        write(world, "orders", 1)
        await_numbers(world, "orders", 1)
        assert [each["result"] for each in world.run("reload", "--json").json["workers"]] == ["unchanged"]
        alone = {rule: world.run("status", "--rule", rule, "--json") for rule in ("orders", "later")}
        assert {rule: list(problems(answer)) for rule, answer in alone.items()} == {"orders": [], "later": ["held"]}
        assert [rule["name"] for rule in alone["orders"].json["rules"]] == ["orders"]
        assert (alone["orders"].code, alone["later"].code) == (0, 1)
        assert "Perhaps orders is meant" in world.run("status", "--rule", "order").errors
        let_it_refuse(world, daemon, orders)
        write(world, "orders", 2)
        await_numbers(world, "orders", 1, 2)
        let_it_take_up_rules(world, daemon, orders)
        monkeypatch.setitem(worlds.REGIONS, "ap", "ap-south-1")
        let_it_take_up_more_than_rules(world, daemon, orders)
        write(world, "orders", 3)
        await_numbers(world, "orders", 1, 2, 3)
        assert began(daemon, "orders") == 1, "a rule that did not change was begun again"
        assert daemon.stop() == 0


def let_it_refuse(world: World, daemon: Daemon, orders: dict[str, Any]) -> None:
    """What is wrong, or cannot be applied now, changes nothing, and is seen."""
    refused(world, "polling.page is read at the start only", polling={"page": 9})
    refused(world, "Rule orders has progress, so it is not removed while it runs", rules=[LATER, USERS])
    before, world.config["rules"] = world.config["rules"], [LATER, USERS]
    (dry,) = world.run("reload", "--dry-run", "--json").json["workers"]
    world.config["rules"] = before
    assert (dry["result"], "has progress" in str(dry["reasons"])) == ("refused", True), dry
    refused(world, "table of rule orders say what its progress", rules=[{**orders, "table": "users"}, LATER])
    carts = {**USERS, "name": "carts", "table": "carts"}
    wrong_key = "us has pk (S), sk (N). Create the replica of rule carts again"
    refused(world, wrong_key, rules=[orders, LATER, carts, USERS])
    rekeyed = {"region": "eu", "transform": {"key": {"pk": "v1|{pk}", "sk": "{sk}"}}}
    refused(world, "Name another table for the replica", rules=[{**orders, "replicas": [rekeyed]}, LATER])
    refused(world, "Table gone in us does not exist", rules=[orders, LATER, {**carts, "table": "gone"}])
    assert "Table gone" in problems(world.run("status", "--json"))["configuration"]
    right = world.path.read_text()
    for word, written, seen in (
        ("replicas:", "replicsa:", "replicsa"),
        ("group: test", "group: other", "group is read at the start only"),
    ):
        world.path.write_text(right.replace(word, written))
        wait_until(lambda seen=seen: seen in (daemon.answers("/status") or ""), seen)  # type: ignore[misc]
    # The next command writes the right file again.
    wait_until(lambda: "configuration" not in problems(world.run("status", "--json")), "it is still refused")


def let_it_take_up_rules(world: World, daemon: Daemon, orders: dict[str, Any]) -> None:
    """A good one starts its rule, and touches no other. One that never ran goes, and one that changed goes on."""
    world.config["rules"] = [orders, USERS]
    preview = world.run("reload", "--dry-run")
    assert preview.code == 0
    assert preview.output.rpartition(": ")[2] in {"adds users; removes later\n", "changes nothing\n"}
    applied(world, daemon, "adds users; removes later")
    assert "held" not in problems(world.run("status", "--json"))
    write(world, "users", 1)
    await_numbers(world, "users", 1)

    # So does one that chooses its tables, and goes while it has none.
    for many in ({**USERS, "name": "many", "table": "car*"}, {**USERS, "name": "none", "table": "none-*"}):
        world.config["rules"].append(many)
    applied(world, daemon, "adds many, none")
    assert "carts" in json.dumps(json.loads(daemon.answers("/status") or "{}")["choices"])
    world.table("us", "cars", view=VIEW)
    world.table("eu", "cars")
    write(world, "cars", 1)
    await_numbers(world, "cars", 1)
    refused(world, "Rule many has progress", rules=[orders, USERS])
    world.config["rules"].pop()
    applied(world, daemon, "removes none")

    # SIGHUP is as good as the command.
    many = world.config["rules"][-1]
    world.config["rules"] = [orders, {**USERS, "filter": {"equals": {"text": "public"}}}, many]
    assert world.path.exists()
    daemon.process.signal(signal.SIGHUP)
    wait_until(lambda: began(daemon, "users") == 2, "the filter is not taken up")
    write(world, "users", 2, "private")
    write(world, "users", 3, "public")
    await_numbers(world, "users", 1, 3)


def let_it_take_up_more_than_rules(world: World, daemon: Daemon, orders: dict[str, Any]) -> None:
    """A region and a cache that no rule used before, tokens, and how much is logged."""
    world.config["regions"]["ap"] = {**world.config["regions"]["eu"], "region": "ap-south-1"}
    world.table("ap", "users")
    world.table("ap", "replicator-side-test", {"k": "S"})
    world.config["caches"]["near"] = {**world.config["caches"]["eu_main"], "region": "ap"}
    entry = f"near:{world.account}:"
    cached = {"cache": "near", "key": entry + "{pk}:{sk}", "action": "write_through"}
    many = world.config["rules"][-1]
    world.config["rules"] = [orders, {**USERS, "replicas": ["eu", "ap"], "cache": [cached]}, many]
    world.config["log"]["level"] = "debug"
    world.config["admin"]["api"]["tokens"]["second"] = {"secret": "two"}
    assert (session(daemon, "one"), session(daemon, "two")) == ("first", None)
    assert "batch_applied" not in daemon.said()
    changed = "regions.ap, admin.api.tokens.second, log.level, caches.near"
    applied(world, daemon, f"changes users (cache, replicas, filter); changes {changed}")
    assert (session(daemon, "one"), session(daemon, "two")) == ("first", "second")
    write(world, "users", 4)
    await_numbers(world, "users", 1, 3, 4)
    await_numbers(world, "users", 1, 2, 3, 4, region="ap")
    with redis.Redis.from_url(world.redis_url) as client:
        wait_until(lambda: client.get(f"{entry}a:4") is not None, "the new cache has no entry")
    assert "batch_applied" in daemon.said()
    caches = {**world.config["caches"], "near": {**world.config["caches"]["near"], "prefix": "other:"}}
    refused(world, "caches.near is read at the start only", caches=caches)


def test_a_cache_that_was_taken_out_and_put_back_has_no_entry_that_is_older_than_the_table(world: World) -> None:
    world.sound()
    world.config["coordination"]["tables"] = "1s"
    world.config["admin"]["api"] = {"enabled": True, "tokens": {"first": {"secret": "one"}}}
    world.config["secrets"] = TOKENS
    cached = {"cache": "eu_main", "key": f"back:{world.account}:{{sk}}"}
    world.rule["cache"] = [cached]
    with running(world) as daemon, redis.Redis.from_url(world.redis_url) as cache:
        daemon.await_ready()
        write(world, "orders", 1)
        await_numbers(world, "orders", 1)
        cache.set(f"back:{world.account}:1", "V:0|what a reader filled")
        world.rule["cache"] = []
        applied(world, daemon, "changes orders (cache)")
        write(world, "orders", 1, "newer")
        write(world, "orders", 2)
        await_numbers(world, "orders", 1, 2)
        assert cache.exists(f"back:{world.account}:1")
        world.rule["cache"] = [cached]
        applied(world, daemon, "changes orders (cache)")
        wait_until(lambda: not cache.exists(f"back:{world.account}:1"), "the entry is stale for good")
        assert '"cache_entries_dropped"' in daemon.said()


@pytest.mark.long
def test_workers_that_run_a_rule_differently_are_seen(world: World) -> None:
    world.sound()
    with running(world, name="old") as old:
        old.await_ready()
        world.rule["filter"] = {"equals": {"text": "public"}}
        with running(world, name="new") as new:  # its port is another one, so the first one refuses the file
            new.await_ready()

            def seen() -> set[str]:
                found = world.run("status", "--json").json["problems"]
                return {each["text"] for each in found if each["kind"] == "configuration"}

            wait_until(lambda: seen() == {"workers differ in orders", "a changed configuration is refused"}, "unseen")
            assert old.stop() == 0
            wait_until(lambda: seen() == set(), "workers still differ")


def test_reload_without_a_worker_says_so(world: World) -> None:
    world.sound()
    answer = world.run("reload", "--json")
    assert (answer.code, "answers on its admin port" in answer.errors) == (69, True)
