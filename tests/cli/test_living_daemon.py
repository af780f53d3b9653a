"""The commands beside a daemon that runs."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator

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


@pytest.fixture
def daemon(world: World) -> Iterator[subprocess.Popen[bytes]]:
    """`replicator run` on a sound world, ready."""
    world.sound()
    port = world.config["admin"]["port"] = free_port()
    variables = {"AWS_ACCESS_KEY_ID": world.account, "REPLICATOR_CONFIG": str(world.path)}
    log = world.directory / "daemon.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "replicator", "run"],
            env=clean_environment() | variables,
            stdout=output,
            stderr=subprocess.STDOUT,
        )

    def ready() -> bool:
        assert process.poll() is None, log.read_text()
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=2) as answer:
                return bool(answer.status == 200)
        except (urllib.error.URLError, OSError):
            return False

    try:
        wait_until(ready, "the daemon is not ready")
        yield process
    finally:
        process.kill()
        process.wait()


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
