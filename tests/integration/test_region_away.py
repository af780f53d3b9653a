"""One region of three is away: the others go on exchanging, and all three are the same soon after it is back."""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import permutations
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest

from tests.integration.faulty_endpoint import Fault
from tests.integration.harness import Daemon, World, plain
from tests.integration.outages import REGION_OF, Endpoints, open_failing_world, silent, through, wait_for
from tests.integration.true_lag import EVERY_SECONDS, LOOK_SECONDS, Direct, TrueLag
from tests.patience import PATIENT_SECONDS

pytestmark = [pytest.mark.servers, pytest.mark.long]

REGIONS = ["us", "eu", "ap"]
HERE = (("us", "eu"), ("eu", "us"))
LONG_SECONDS = 12.0
BOTH = 10
"""Keys that two regions write while they do not see each other."""


@dataclass
class Mesh:
    """A daemon of three regions behind endpoints that fail, and what is measured beside it."""

    world: World
    config: Path
    endpoints: Endpoints
    daemon: Daemon
    lag: TrueLag
    written: int = 0

    def put(self, region: str, key: str, content: str) -> None:
        """A user's write in one region, through nothing that fails."""
        self.written += 1
        direct = Direct(self.world.dynamodb_port, REGION_OF[region].region)
        item = {"pk": {"S": key}, "ver": {"N": str(self.written)}, "content": {"S": content}}
        direct.call("PutItem", TableName="orders", Item=item)
        direct.close()

    def delete(self, region: str, key: str) -> None:
        """A user's delete in one region."""
        direct = Direct(self.world.dynamodb_port, REGION_OF[region].region)
        direct.call("DeleteItem", TableName="orders", Key={"pk": {"S": key}})
        direct.close()

    def tables(self) -> list[dict[str, Any]]:
        """Every region's items without their stamps."""

        async def scans() -> list[dict[str, Any]]:
            return [await self.world.scan(region, "orders") for region in REGIONS]

        return [{key: plain(item) for key, item in table.items()} for table in asyncio.run(scans())]

    def identical(self) -> bool:
        """Whether every region holds the same, and everything that was measured."""
        tables = self.tables()
        return all(table == tables[0] for table in tables) and all(
            self.lag.keys(region) <= tables[0].keys() for region in REGIONS
        )

    def command(self, *arguments: str) -> CompletedProcess[str]:
        """A command that succeeds."""
        done = self.world.command(*arguments, config=self.config)
        assert done.returncode == 0, done.stdout + done.stderr
        return done

    def losers(self) -> set[str]:
        """Contents that lost, as the conflict log has them."""
        done = self.command("conflicts", "list", "--json", "--limit", "1000")
        return {
            entry["loser"]["content"]["S"]
            for entry in json.loads(done.stdout)["conflicts"]
            if entry["loser"] and "content" in entry["loser"]
        }


@contextmanager
def open_mesh(
    directory: Path, mode: str, *, every: float = EVERY_SECONDS, looks: float = LOOK_SECONDS
) -> Iterator[Mesh]:
    """Three regions that exchange."""
    with open_failing_world(directory) as (world, endpoints):
        for region in REGIONS:
            asyncio.run(world.create_table(region, "orders", stream=True))
        settings = world.settings(caches={})
        settings["coordination"] |= {"lease": "10s", "heartbeat": "3s"}  # one server answers for everything here
        version = {"version": "ver"} if mode == "versioned" else {}
        settings["rules"] = [{"name": "orders", "table": "orders", "mode": mode, "regions": REGIONS, **version}]
        config = world.write_settings(through(endpoints, settings))
        world.initialise(config)
        daemon = world.daemon(config)
        paths = list(permutations(REGIONS, 2))
        with TrueLag(world.dynamodb_port, REGION_OF, paths, every=every, looks=looks, ver={"N": "1"}) as lag:
            for origin, destination in paths:
                lag.wait_until_level(origin, destination, PATIENT_SECONDS)
            yield Mesh(world, config, endpoints, daemon, lag)


def outage(mesh: Mesh, fault: Fault, seconds: float) -> None:
    """Take one region away, have every region written, and bring it back."""
    lag, began = mesh.lag, time.monotonic()
    for number in range(BOTH):
        mesh.put("us", f"{fault.value}-gone-{number}", "before")
    wait_for("those items", lambda: f"{fault.value}-gone-{BOTH - 1}" in mesh.tables()[2])
    mesh.endpoints["ap"].fail(fault)
    time.sleep(1)
    for number in range(BOTH):
        mesh.put("us", f"{fault.value}-both-{number}", f"{fault.value} us {number}")
        mesh.put("ap", f"{fault.value}-both-{number}", f"{fault.value} ap {number}")
        mesh.put("eu", f"{fault.value}-often", f"{fault.value} often {number}")
        mesh.delete("eu", f"{fault.value}-gone-{number}")
    time.sleep(seconds)
    # The outage lasts until the others are level: those that wait for its end never are.
    for path in HERE:
        lag.wait_until_level(*path, PATIENT_SECONDS)
    for path in (("us", "ap"), ("eu", "ap"), ("ap", "us"), ("ap", "eu")):
        assert not lag.is_level(*path), f"{path} goes on without ap"
    healed = time.monotonic()
    figures = [(path, lag.figures(*path, began, healed)) for path in HERE]
    mesh.endpoints["ap"].heal()
    for origin, destination in permutations(REGIONS, 2):
        lag.wait_until_level(origin, destination, PATIENT_SECONDS)
    took = time.monotonic() - healed
    print(f"\n{fault.value} for {healed - began:.1f} s: level after {took:.1f} s")  # noqa: T201
    for path, each in figures:
        print(f"  {path[0]} to {path[1]}: {each}")  # noqa: T201


def pause(mesh: Mesh, seconds: float) -> None:
    """Declare a region away, and let it come back."""
    lag = mesh.lag
    mesh.command("pause", "orders", "--region", "ap")
    wait_for("that it rests", lambda: not lag.is_level("us", "ap"), PATIENT_SECONDS)
    began, before = time.monotonic(), mesh.endpoints["ap"].writes["orders"]
    time.sleep(seconds)
    for path in HERE:
        lag.wait_until_level(*path, PATIENT_SECONDS)
    assert not lag.is_level("us", "ap")
    assert not lag.is_level("eu", "ap")
    said = re.compile(r"ap: paused, ([1-9]\d*) keys? owed")

    def told() -> re.Match[str] | None:
        return said.search(mesh.world.command("status", config=mesh.config).stderr)

    wait_for("what it is owed", told, PATIENT_SECONDS)
    stamped = mesh.endpoints["ap"].writes["orders"] - before
    print(f"\npaused for {seconds:.0f} s: {lag.figures(*HERE[0], began, time.monotonic())}; {stamped} writes")  # noqa: T201
    mesh.command("resume", "orders", "--region", "ap")
    for origin, destination in permutations(REGIONS, 2):
        lag.wait_until_level(origin, destination, PATIENT_SECONDS)


def conclude(mesh: Mesh, *faults: Fault) -> None:
    """Users fall silent: the regions become identical and silent, and every write that lost is in the log."""
    mesh.lag.stop_writing()
    wait_for("agreement", mesh.identical, PATIENT_SECONDS)
    (table, *_) = mesh.tables()
    wrote = [(f"{fault.value}-both-{number}", f"{fault.value}", number) for fault in faults for number in range(BOTH)]
    lost = {
        f"{fault} {region} {number}"
        for key, fault, number in wrote
        for region in ("us", "ap")
        if table[key]["content"]["S"] != f"{fault} {region} {number}"
    }
    assert len(lost) == len(wrote), "of two writes one wins"
    assert lost <= mesh.losers(), "every write that lost is logged"
    assert not [key for key in table if "-gone-" in key], "what was deleted stays deleted"
    wait_for("silence", lambda: silent(mesh.endpoints, 3), PATIENT_SECONDS)
    assert mesh.daemon.terminate() == 0


@pytest.mark.parametrize(("mode", "other"), [("active-active", Fault.ERROR), ("versioned", Fault.DENIED)])
def test_a_region_that_is_away_for_long_owes_and_is_owed_nothing_afterwards(
    tmp_path: Path, mode: str, other: Fault
) -> None:
    with open_mesh(tmp_path, mode, every=0.5, looks=0.25) as mesh:
        outage(mesh, Fault.HANG, LONG_SECONDS)
        outage(mesh, other, 5)
        pause(mesh, 5)
        conclude(mesh, Fault.HANG, other)
