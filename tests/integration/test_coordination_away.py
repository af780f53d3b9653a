"""The coordination table is away: nothing is replicated, and what is said of it is the truth all the time."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.integration.faulty_endpoint import Fault, about
from tests.integration.harness import Daemon, World
from tests.integration.outages import REGION_OF, Endpoints, open_failing_world, through
from tests.integration.true_lag import TrueLag
from tests.patience import PATIENT_SECONDS

pytestmark = [pytest.mark.servers, pytest.mark.long]

COORDINATION = "replicator-coordination"
TO_EU = ("us", "eu")
SETTLED_SECONDS = 8.0
"""By then leases are lost; the times of a stream are whole seconds."""

ENOUGH = 3
"""Looks at what is settled."""


@dataclass
class Running:
    """A daemon, the configuration that commands use, and what is measured beside it."""

    world: World
    endpoints: Endpoints
    config: Path
    daemon: Daemon
    lag: TrueLag

    def said(self) -> float | None:
        """The lag of the replica as the worker exports it; None when it exports none."""
        found = re.findall(
            r'^replicator_lag_seconds\{[^}]*region="eu"[^}]*\} (\S+)$', self.daemon.get("/metrics")[1], re.MULTILINE
        )
        return float(found[0]) if found else None

    def true(self) -> float:
        """How old the oldest item is that is missing."""
        return self.lag.oldest_missing(*TO_EU)


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Running]:
    with open_failing_world(tmp_path) as (world, endpoints):
        for region in ("us", "eu"):
            asyncio.run(world.create_table(region, "orders", stream=region == "us"))
        settings = world.settings(rule={"replicas": ["eu"], "cache": []}, caches={})
        config = world.write_settings(through(endpoints, settings))
        world.initialise(config)
        daemon = world.daemon(config)
        with TrueLag(world.dynamodb_port, REGION_OF, [TO_EU]) as lag:
            lag.wait_until_level(*TO_EU, PATIENT_SECONDS)
            yield Running(world, endpoints, config, daemon, lag)


def outage(running: Running, fault: Fault, seconds: float) -> None:
    """Deny the coordination table; compare what is said with what is true all the time."""
    recovered = len(running.daemon.events("service_recovered"))
    running.endpoints["us"].fail(fault, about(COORDINATION))
    began, settled = time.monotonic(), list[tuple[float | None, float, float]]()
    while time.monotonic() < began + seconds or len(settled) < ENOUGH:
        time.sleep(0.5)
        at, least, said, most = time.monotonic() - began, running.true(), running.said(), running.true()
        assert at < PATIENT_SECONDS, "it goes on without coordination"
        if at > SETTLED_SECONDS and least > SETTLED_SECONDS:
            settled.append((said, least, most))
    told = running.world.command("status", config=running.config)
    after = len(running.daemon.events("service_recovered")) - recovered
    running.endpoints["us"].heal()
    took = running.lag.wait_until_level(*TO_EU, PATIENT_SECONDS)
    off = [max(least - said, said - most) for said, least, most in settled if said is not None]
    print(f"\n{fault.value} for {seconds:.0f} s: {len(off)} of {len(settled)} samples say a lag", end="")  # noqa: T201
    print(f", at most {max(off, default=0):.1f} s off; level after {took:.1f} s")  # noqa: T201
    assert len(off) == len(settled), "a lag that counts on is said"
    assert max(off) < SETTLED_SECONDS + seconds / 4, "and it is the true one"
    assert not after, "nothing recovered while it was away"
    assert told.returncode != 0, told.stdout
    assert COORDINATION in told.stdout + told.stderr


def test_lag_goes_on_counting_whatever_the_fault(running: Running) -> None:
    outage(running, Fault.ERROR, 12)
    outage(running, Fault.DENIED, 12)
    outage(running, Fault.HANG, 15)
