"""Many targets on one stream, of which one never answers: the others keep pace, and the process does not grow."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Sequence
from itertools import islice, product
from pathlib import Path
from string import ascii_lowercase

import pytest

from tests.integration.faulty_endpoint import Fault, FaultyEndpoint
from tests.integration.harness import Daemon, World, open_world
from tests.integration.true_lag import Figures, Table, TrueLag
from tests.patience import PATIENT_SECONDS

pytestmark = [pytest.mark.servers, pytest.mark.long]

TARGETS = 20
SECONDS = 30
EVERY_SECONDS = 2.0
MEGABYTES_MORE = 40


def configure(world: World, away: str, names: Sequence[str]) -> Path:
    """One rule with many replicas, the first of them behind an endpoint that fails."""
    settings = world.settings(caches={})
    settings["coordination"] |= {"lease": "10s", "heartbeat": "3s"}  # one server answers for everything here
    us = settings["regions"]["us"]
    eu = settings["regions"]["eu"]
    settings["regions"] = {"us": us, **dict.fromkeys(names, eu)}
    settings["regions"][names[0]] = {**eu, "endpoint_url": away}
    replicas = [{"region": name, "table": f"copy-{name}"} for name in names]
    settings["rules"] = [{"name": "orders", "table": "orders", "source": "us", "replicas": replicas}]
    config = world.write_settings(settings)
    world.initialise(config)
    return config


async def create(world: World, names: Sequence[str]) -> None:
    await world.create_table("us", "orders", stream=True)
    for name in names:
        await world.create_table("eu", f"copy-{name}")


def megabytes(daemon: Daemon) -> float:
    """What a process holds of the memory now."""
    status = Path(f"/proc/{daemon.process.pid}/status").read_text()
    return int(re.findall(r"VmRSS:\s+(\d+) kB", status)[0]) / 1024


def test_one_of_many_targets_that_hangs_holds_no_other_one_back(tmp_path: Path) -> None:
    hang_one(tmp_path, TARGETS, SECONDS)


def hang_one(directory: Path, targets: int, seconds: float) -> None:
    """Let one of so many targets hang for so long."""
    names = ["".join(pair) for pair in islice(product(ascii_lowercase, repeat=2), targets)]
    with open_world(directory) as world, FaultyEndpoint(world.dynamodb_port) as away:
        asyncio.run(create(world, names))
        daemon = world.daemon(configure(world, away.url, names))
        tables = {"us": Table("us-east-1"), **{name: Table("eu-west-1", f"copy-{name}") for name in names}}
        paths = [("us", name) for name in names]
        with TrueLag(world.dynamodb_port, tables, paths, every=EVERY_SECONDS) as lag:
            for path in paths:
                lag.wait_until_level(*path, PATIENT_SECONDS)
            away.fail(Fault.HANG)
            began, held = time.monotonic(), [megabytes(daemon)]
            while time.monotonic() < began + seconds:
                time.sleep(5)
                held.append(megabytes(daemon))
            for path in paths[1:]:
                lag.wait_until_level(*path, PATIENT_SECONDS)
            assert not lag.is_level(*paths[0]), "it hangs"
            until = time.monotonic()
            others = Figures.of([each for path in paths[1:] for each in lag.lags(*path, began, until)])
            half = len(held) // 2
            print(f"\n{targets - 1} others beside one that hangs for {until - began:.0f} s: {others}")  # noqa: T201
            print(f"memory: {held[0]:.0f} MB before, {held[half]:.0f} MB halfway, {max(held):.0f} MB at most")  # noqa: T201
            assert max(held[half:]) < max(held[:half]) + MEGABYTES_MORE, "it grows"
            away.heal()
            lag.wait_until_level(*paths[0], PATIENT_SECONDS)
            print(f"the one that hung was level {time.monotonic() - until:.1f} s after its return")  # noqa: T201
        assert daemon.terminate() == 0
