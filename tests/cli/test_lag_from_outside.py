"""Lag as it is seen from outside: across a kill with a backlog, and while the coordination table does not answer."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.cli.daemons import Daemon, running, wait_until
from tests.cli.proxy import WRITES, serving
from tests.cli.worlds import World

pytestmark = pytest.mark.servers

COORDINATION = ("GetItem", "Query", "UpdateItem", "DeleteItem")
EXACT_SECONDS = 2.0
"""Stream times are whole seconds, and a scrape takes its time."""


def metric(daemon: Daemon, name: str, **labels: str) -> float | None:
    """A sample of /metrics; None when there is none."""
    for family in text_string_to_metric_families(daemon.answers("/metrics") or ""):
        for sample in family.samples:
            if sample.name == f"replicator_{name}" and labels.items() <= sample.labels.items():
                return sample.value
    return None


def assert_counts_from(
    told: Callable[[], float | None], since: float, at_latest: float | None = None, *, exact: float = EXACT_SECONDS
) -> None:
    """It counts on from that time, or from one until `at_latest`, whenever it was looked at while this asks."""
    began = time.time()
    found = told()
    assert found is not None
    assert began - (at_latest or since) - exact < found < time.time() - since + exact


def put(world: World, *numbers: int) -> None:
    for number in numbers:
        world.put("us", "orders", pk={"S": "a"}, sk={"N": str(number)})


def target_of(found: Any) -> dict[str, Any]:
    """The one target of `status --json`."""
    (rule,) = found["rules"]
    (shard,) = [shard for shard in rule["shards"] if shard["over"] is None]
    (target,) = shard["targets"]
    return {**target, "rule": rule}


@pytest.mark.long
def test_a_kill_with_a_backlog_loses_nothing_of_the_lag(world: World) -> None:
    world.sound()
    world.rule.pop("cache")
    with serving(world.endpoint_url) as eu:
        world.config["regions"]["eu"]["endpoint_url"] = eu.url
        with running(world, name="first") as daemon:
            put(world, 0)
            wait_until(lambda: len(world.items("eu", "orders")) == 1, "the item does not arrive")
            level_at = time.time()
            wait_until(lambda: metric(daemon, "lag_seconds") == 0.0, "the target is not level")
            eu.page, eu.status, eu.denied = b"<html></html>", 503, frozenset(WRITES)
            written_at = time.time()
            put(world, 1, 2, 3)
            there_at = time.time()
            wait_until(lambda: (metric(daemon, "lag_seconds") or 0.0) > 2.0, "the lag does not count")
            daemon.process.kill()
        truth = time.time() - there_at
        dead = target_of(world.run("status", "--json").json)
        assert dead["lag_seconds"] >= truth - EXACT_SECONDS, "what is stored bounds it"
        assert dead["lag_seconds"] < time.time() - level_at + 2 * EXACT_SECONDS
        assert dead["rule"]["targets"][0]["lag_seconds"] == dead["lag_seconds"]
        with running(world, name="second") as daemon:
            wait_until(lambda: metric(daemon, "target_shards", state="blocked") == 1.0, "the target is not read")
            for _ in range(3):
                assert_counts_from(lambda: metric(daemon, "lag_seconds"), written_at, there_at)
                left = lambda: 24 * 3600 - (metric(daemon, "retention_left_seconds") or 0.0)  # noqa: E731
                assert_counts_from(left, written_at, there_at)
                time.sleep(0.5)
            eu.denied = frozenset()
            wait_until(lambda: metric(daemon, "lag_seconds") == 0.0, "the target does not catch up")
            assert daemon.stop() == 0


@pytest.mark.long
def test_lag_counts_on_while_the_coordination_table_does_not_answer(world: World) -> None:
    world.sound()
    world.rule.pop("cache")
    with serving(world.endpoint_url) as us:
        world.config["regions"]["us"]["endpoint_url"] = us.url
        with running(world) as daemon:
            put(world, 0)
            wait_until(lambda: metric(daemon, "lag_seconds") == 0.0, "the target is not level")
            before = len(daemon.said())
            us.denied = frozenset(COORDINATION)
            wait_until(lambda: metric(daemon, "target_shards", state="lost") == 1.0, "no lease is lost")
            assert metric(daemon, "owned_shards") == 0.0
            at = time.time()
            first = metric(daemon, "coordination_unreachable_seconds")
            assert first
            since, at_latest = at - first, time.time() - first
            wait_until(lambda: (metric(daemon, "lag_seconds") or 0.0) > 16.0, "the lag does not count")
            unreachable = lambda: metric(daemon, "coordination_unreachable_seconds")  # noqa: E731
            assert_counts_from(unreachable, since, at_latest)
            # Nothing is known since heartbeats are refused.
            assert_counts_from(lambda: metric(daemon, "lag_seconds"), since, at_latest, exact=2 * EXACT_SECONDS)
            answer = world.run("status", "--json")
            assert answer.code == 69
            assert answer.json["coordination_error"]
            assert (target_of(answer.json)["state"], target_of(answer.json)["lag_seconds"] > 16.0) == ("lost", True)
            shown = world.run("status")
            assert shown.code == 69
            assert "lost: no worker may read it" in shown.output
            assert shown.output.startswith("cannot know, ")
            assert "recovered" not in daemon.said()[before:]
            us.denied = frozenset()
            wait_until(lambda: metric(daemon, "target_shards", state="ok") == 1.0, "it does not go on")
            wait_until(lambda: metric(daemon, "target_shards", state="lost") is None, "the lost shard is not left")
            wait_until(lambda: metric(daemon, "lag_seconds") == 0.0, "the target is not level")
            assert metric(daemon, "coordination_unreachable_seconds") == 0.0
            assert daemon.stop() == 0
