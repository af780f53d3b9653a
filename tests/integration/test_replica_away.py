"""One of two replicas is away: the other one waits for nothing, and the first is level soon after it is back."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from subprocess import CompletedProcess

import pytest

from tests.integration.faulty_endpoint import Fault
from tests.integration.harness import Daemon, World
from tests.integration.outages import Endpoints, open_failing_world, through, wait_for
from tests.integration.true_lag import Table, TrueLag
from tests.patience import PATIENT_SECONDS

pytestmark = pytest.mark.servers

TABLES = {
    "us": Table("us-east-1"),
    "eu": Table("eu-west-1"),
    "ap": Table("ap-northeast-1", "orders-copy"),
}
PATHS = [("us", "eu"), ("us", "ap")]
LONG_SECONDS = 30.0


@dataclass
class Running:
    """A daemon with two replicas behind endpoints that fail, and what is measured beside it."""

    world: World
    endpoints: Endpoints
    config: Path
    daemon: Daemon
    lag: TrueLag

    def outage(self, fault: Fault, seconds: float) -> None:
        """Take one replica away for at least so long, and bring it back.

        It stays away until the other one is level: one that waits for the end of the outage never is.
        """
        lag, began = self.lag, time.monotonic()
        self.endpoints["ap"].fail(fault)
        time.sleep(seconds)
        lag.wait_until_level("us", "eu", PATIENT_SECONDS)
        assert not lag.is_level("us", "ap"), "it is away"
        self.endpoints["ap"].heal()
        healed = time.monotonic()
        took = lag.wait_until_level("us", "ap", PATIENT_SECONDS)
        healthy = lag.figures("us", "eu", began, healed)
        print(f"\n{fault.value} for {healed - began:.1f} s: beside it {healthy}; level after {took:.1f} s")  # noqa: T201

    def pause(self, seconds: float) -> None:
        """Let one replica rest by an operator's word, and go on."""
        lag = self.lag
        self.command("pause", "orders", "--region", "ap")
        wait_for("that it rests", lambda: not lag.is_level("us", "ap"), PATIENT_SECONDS)
        began, before = time.monotonic(), self.endpoints["ap"].writes["orders-copy"]
        time.sleep(seconds)
        lag.wait_until_level("us", "eu", PATIENT_SECONDS)
        assert self.endpoints["ap"].writes["orders-copy"] == before, "it rests"
        assert "orders/ap is paused" in self.world.command("status", config=self.config).stdout
        self.command("resume", "orders", "--region", "ap")
        healthy = lag.figures("us", "eu", began, time.monotonic())
        print(f"\npaused for {seconds:.0f} s: beside it {healthy}")  # noqa: T201
        lag.wait_until_level("us", "ap", PATIENT_SECONDS)

    def command(self, *arguments: str) -> CompletedProcess[str]:
        """A command that succeeds."""
        done = self.world.command(*arguments, config=self.config)
        assert done.returncode == 0, done.stdout + done.stderr
        return done

    def converge(self) -> None:
        """Wait until both replicas hold exactly what was measured."""
        self.lag.stop_writing()
        for origin, destination in PATHS:
            self.lag.wait_until_level(origin, destination, PATIENT_SECONDS)

        def same() -> bool:
            return all(items.keys() == self.lag.keys("us") for items in asyncio.run(self.world.replicas()).values())

        wait_for("convergence", same, PATIENT_SECONDS)


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Running]:
    with open_replicas(tmp_path) as opened:
        yield opened


@contextmanager
def open_replicas(directory: Path) -> Iterator[Running]:
    """Two replicas that are level."""
    with open_failing_world(directory) as (world, endpoints):
        asyncio.run(world.create_tables())
        config = world.write_settings(through(endpoints, world.settings(rule={"cache": []}, caches={})))
        world.initialise(config)
        daemon = world.daemon(config)
        with TrueLag(world.dynamodb_port, TABLES, PATHS) as lag:
            for origin, destination in PATHS:
                lag.wait_until_level(origin, destination, PATIENT_SECONDS)
            yield Running(world, endpoints, config, daemon, lag)


@pytest.mark.long
def test_a_replica_that_is_away_holds_no_other_one_back(running: Running) -> None:
    running.outage(Fault.HANG, 3)
    running.pause(2)
    running.converge()
    assert running.daemon.terminate() == 0


@pytest.mark.long
def test_no_kind_of_outage_holds_the_other_replica_back(running: Running) -> None:
    for fault in Fault:
        running.outage(fault, LONG_SECONDS if fault is Fault.HANG else 3)
    running.converge()
