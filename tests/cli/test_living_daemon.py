"""The commands beside a daemon that runs."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from replicator.demo.servers import clean_environment, free_port
from tests.cli.worlds import World

pytestmark = pytest.mark.servers

WAIT_SECONDS = 30.0


def wait_until(holds: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + WAIT_SECONDS
    while not holds():
        assert time.monotonic() < deadline, what
        time.sleep(0.05)


@contextmanager
def running(world: World) -> Iterator[subprocess.Popen[bytes]]:
    """`replicator run`, from its first moment on."""
    world.config["admin"]["port"] = free_port()
    variables = {"AWS_ACCESS_KEY_ID": world.account, "REPLICATOR_CONFIG": str(world.path)}
    with (world.directory / "daemon.log").open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "replicator", "run"],
            env=clean_environment() | variables,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def is_ready(world: World, process: subprocess.Popen[bytes]) -> bool:
    assert process.poll() is None, (world.directory / "daemon.log").read_text()
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{world.config['admin']['port']}/readyz", timeout=2) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False


@pytest.fixture
def daemon(world: World) -> Iterator[subprocess.Popen[bytes]]:
    """`replicator run` on a sound world, ready."""
    world.sound()
    with running(world) as process:
        wait_until(lambda: is_ready(world, process), "the daemon is not ready")
        yield process


def test_status_shows_lag_and_counts_while_it_lives_and_positions_when_it_is_gone(
    world: World, daemon: subprocess.Popen[bytes]
) -> None:
    for number in range(5):
        world.put("us", "orders", pk={"S": "a"}, sk={"N": str(number)})
    wait_until(lambda: len(world.items("eu", "orders")) == 5, "the items do not arrive")

    def target() -> dict[str, object]:
        (shard,) = world.run("status", "--json").json["rules"][0]["shards"]
        (found,) = shard["targets"]
        return {**found, "owner": shard["owner"]}

    wait_until(lambda: bool(target()["checkpoint"]), "no checkpoint is stored")
    living = target()
    assert living["owner"]
    assert living["lag_seconds"] is not None
    assert living["blocked"] is None
    assert living["counts"]
    assert world.run("inspect", "orders", '{"pk":"a","sk":1}', "--json").json["agree"] is True
    assert world.check().failures() == []
    os.kill(daemon.pid, signal.SIGTERM)
    assert daemon.wait(timeout=WAIT_SECONDS) == 0
    gone = target()
    assert gone["owner"] is None
    assert gone["lag_seconds"] is None
    assert gone["position"] == living["position"]


def test_its_progress_is_not_touched(world: World, daemon: subprocess.Popen[bytes]) -> None:
    world.rule["name"] = "renamed"
    answer = world.run("rules", "rename", "orders", "renamed")
    assert answer.code == 78
    assert "of group test is running" in answer.errors
    assert daemon.poll() is None


# -- meshes --------------------------------------------------------------------------------------------------------


def owned(world: World) -> list[str]:
    """The regions whose streams a worker reads."""
    (rule,) = world.run("status", "--json").json["rules"]
    return sorted({shard["region"] for shard in rule["shards"] if shard["owner"]})


@pytest.mark.parametrize("mode", ["versioned", "active-active"])
def test_a_mesh_is_read_in_every_region_and_shown_as_one_rule(world: World, mode: str) -> None:
    world.mesh(mode)
    with running(world) as process:
        wait_until(lambda: is_ready(world, process), "the daemon is not ready")
        world.put("us", "orders", pk={"S": "a"}, sk={"N": "1"}, ver={"N": "1"})
        world.put("eu", "orders", pk={"S": "b"}, sk={"N": "1"}, ver={"N": "1"})

        def agree(key: str) -> bool:
            answer = world.run("inspect", "orders", json.dumps({"pk": key, "sk": 1}), "--json").json
            regions = [place for place in answer["places"] if place["role"] == "region"]
            return answer["agree"] and {place["state"] for place in regions} == {"present"}

        wait_until(lambda: agree("a") and agree("b"), "the regions do not agree")
        (rule,) = world.run("status", "--json").json["rules"]
        targets = {(shard["region"], target["target"]) for shard in rule["shards"] for target in shard["targets"]}
        assert targets == {("us", "orders/mesh"), ("eu", "orders/mesh")}
        assert all(target["counts"] for shard in rule["shards"] for target in shard["targets"])
        assert world.check().failures() == []
        rows = [row["k"]["S"] for region in ("us", "eu") for row in world.items(region, "replicator-side-test")]
        assert not any(row.endswith("|epoch") for row in rows), "an epoch belongs to mode ordered"


@pytest.mark.slow
def test_a_mesh_starts_while_one_of_its_regions_does_not_answer(world: World) -> None:
    world.mesh("active-active")
    world.config["regions"]["eu"]["endpoint_url"] = "http://127.0.0.1:1"
    with running(world) as process:
        wait_until(lambda: owned(world) == ["us"], "the region that answers is not read")
        assert not is_ready(world, process)
        assert "See regions.eu in the configuration." in (world.directory / "daemon.log").read_text()


def test_a_mesh_does_not_begin_anew_under_another_name(world: World) -> None:
    world.mesh("active-active")
    with running(world) as process:
        wait_until(lambda: owned(world) == ["eu", "us"], "no stream is read")
        process.terminate()
        assert process.wait(timeout=WAIT_SECONDS) == 0
    world.rule["name"] = "renamed"
    answer = world.run("run")
    assert answer.code == 78, answer.said
    assert "Rule 'renamed' has no progress on the stream of orders in us, but rule 'orders' has" in answer.errors
    assert world.run("rules", "rename", "orders", "renamed").code == 0
    with running(world) as process:
        wait_until(lambda: is_ready(world, process), "the daemon is not ready under the new name")
