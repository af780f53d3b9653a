"""A table of any size is brought to a replica beside everything that may go wrong, by real processes.

    python -m benchmarks.copying_scenario --items 200000

Users write, delete and create anew all the while, at the scanned items too; each of four workers is killed (-9) once,
and the coordination table is away for half a minute. Ends with an error unless the bootstrap ends, `verify` says
identical, a comparison of its own agrees, no more pages were done twice than kills and the outage explain, and units
per second stay within the budget.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.processes import cpu_seconds
from replicator.domain.copying.page_sizes import PAGE_SECONDS
from replicator.domain.write_units import BURST_SECONDS
from tests.integration.harness import AWS_REGIONS, CREDENTIALS, Users, Valve, World, eventually, open_world, plain
from tests.integration.test_bootstrap import enable_stream, fill

WORKERS = 4
WRITERS, KEYS = 8, 60
_LOOK_SECONDS = 1.0
_LONGEST_SECONDS = 7200.0


@dataclass(slots=True)
class Seen:
    """How a job went, by its listing: the moment (monotonic), items, write units."""

    samples: list[tuple[float, float, float]] = field(default_factory=list)

    @property
    def items(self) -> float:
        """Items that are done."""
        return self.samples[-1][1] if self.samples else 0.0

    def most_units(self, over: float = 20.0) -> float:
        """The most write units per second over any such time."""
        most = 0.0
        for begin, _, units in self.samples:
            later = next((each for each in self.samples if each[0] >= begin + over), None)
            if later is not None:
                most = max(most, (later[2] - units) / (later[0] - begin))
        return most


def config_of(world: World, valve: Valve) -> Path:
    """One replica; coordination in a region of its own, behind the valve; a worker is at one segment at a time."""
    settings = world.settings(rule={"cache": [], "replicas": ["eu"]}, caches={}, copying={"segments": 1, "pages": 2})
    settings["regions"]["hm"] = {"region": "us-west-2", "endpoint_url": f"http://127.0.0.1:{valve.port}"}
    settings["coordination"] |= {"region": "hm", "lease": "10s", "heartbeat": "3s"}
    assert set(AWS_REGIONS) <= set(settings["regions"])
    return world.write_settings(settings)


def listed(world: World, config: Path, kind: str) -> dict[str, Any]:
    """A job that is under way; empty when there is none, or coordination does not answer."""
    answer = world.command("jobs", "list", "--json", config=config)
    jobs = json.loads(answer.stdout)["jobs"] if answer.returncode == 0 else []
    return next((job for job in jobs if job["kind"] == kind), {})


async def watched(world: World, config: Path, seen: Seen, over: asyncio.Event) -> None:
    """Look at the bootstrap until it is over."""
    while not over.is_set():
        job = await asyncio.to_thread(listed, world, config, "bootstrap")
        if job:
            seen.samples.append((time.monotonic(), job["items"], job["counts"].get("write_units", 0.0)))
        await asyncio.sleep(_LOOK_SECONDS)


async def disturb(world: World, valve: Valve, seen: Seen, items: int, away: float) -> None:
    """Kill one worker after the other as the job goes on, and cut coordination off between two of them."""
    for number, daemon in enumerate(world.daemons):
        at = items * (number + 1) / (WORKERS + 2)
        await eventually("pages are done", lambda at=at: seen.items >= at, seconds=_LONGEST_SECONDS)  # type: ignore[misc]
        sys.stdout.write(f"kill -9 of worker {number + 1} at {seen.items:,.0f} items\n")
        daemon.kill()
        daemon.start()
        if number == WORKERS // 2:
            sys.stdout.write(f"the coordination table is away for {away:.0f} s\n")
            valve.close()
            await asyncio.sleep(away)
            valve.open()


async def same(world: World, users: Users) -> bool:
    """Whether both tables are what users wrote."""
    source, replica = [await world.scan(region, "orders") for region in ("us", "eu")]
    return {key: plain(item) for key, item in replica.items()} == source == users.truth


async def command(config: Path, *arguments: str) -> dict[str, Any]:
    """A command, however long it takes: what it printed."""
    whole = ("-m", "replicator", *arguments, "--json", "--config", str(config))
    process = await asyncio.create_subprocess_exec(
        sys.executable, *whole, stdout=asyncio.subprocess.PIPE, env=os.environ | CREDENTIALS
    )
    said, _ = await process.communicate()
    assert process.returncode == 0, said.decode()
    shown: dict[str, Any] = json.loads(said)
    return shown


async def run(world: World, items: int, write_units: int, away: float) -> bool:
    """The whole of it; prints figures and returns whether all holds."""
    for region in ("us", "eu"):
        await world.create_table(region, "orders")
    began = time.monotonic()
    before = await fill(world, items)
    for writer in range(WRITERS):
        for number in range(KEYS):
            key = f"u{writer}-{number}"
            before[key] = {"pk": {"S": key}, "serial": {"S": "before"}}
    async with world.client("us") as client:
        for key in [key for key in before if key.startswith("u")]:
            await client.put_item(TableName="orders", Item=before[key])
    await enable_stream(world)
    sys.stdout.write(f"{len(before):,} items were written in {time.monotonic() - began:.0f} s\n")
    valve = Valve(world.dynamodb_port)
    config = config_of(world, valve)
    world.initialise(config)
    for _ in range(WORKERS):
        world.daemon(config)
    users = Users(world, seed=1, writers=WRITERS, keys=KEYS)
    users.truth.update(before)
    seen, over = Seen(), asyncio.Event()
    writing = asyncio.create_task(users.write(1_000_000, per_second=20))
    watching = asyncio.create_task(watched(world, config, seen, over))
    disturbing = asyncio.create_task(disturb(world, valve, seen, len(before), away))
    began = time.monotonic()
    told = await command(config, "bootstrap", "orders", "--yes", "--write-units", str(write_units))
    took = time.monotonic() - began
    over.set()
    await disturbing
    await watching
    written, still = users.written, not writing.done()
    writing.cancel()
    await asyncio.gather(writing, return_exceptions=True)
    # A write that was cut off may have arrived or not.
    users.truth = await world.scan("us", "orders")
    used = [cpu_seconds(daemon.process.pid) for daemon in world.daemons]
    began = time.monotonic()
    compared = await command(config, "verify", "orders")
    spent = sum(cpu_seconds(daemon.process.pid) for daemon in world.daemons) - sum(used)
    seconds = time.monotonic() - began
    sys.stdout.write(
        f"verify: {compared['compared']:,} compared in {seconds:.0f} s,"
        f" {compared['compared'] / max(spent, 0.01):,.0f} per second of all workers' processor time\n"
    )
    agrees = await same(world, users)
    return judge(told, seen, took, write_units, written if still else 0) and agrees and compared["identical"]


def judge(told: dict[str, Any], seen: Seen, took: float, budget: int, written: int) -> bool:
    """Print the figures against their bounds."""
    counts, plan = told["job"]["counts"], json.dumps(told["plan"]["regions"])
    per_item = counts["write_units"] / counts["items"]
    page = budget / (WORKERS - 1) * PAGE_SECONDS / per_item
    again = max(0.0, counts.get("newer", 0) - WRITERS * KEYS)
    most = seen.most_units()
    checks = {
        "the bootstrap and its comparison are done": (told["job"]["state"], told["verify"]["state"])
        == ("done", "done"),
        "users wrote all the while": written > 0,
        # A worker that loses its session leaves the page in hand, as one that is killed does.
        f"done twice is a page of {page:,.0f} items for each kill, and each worker in the outage": (
            again <= page * 2 * WORKERS
        ),
        "units stay within the budget": most <= budget * (1 + BURST_SECONDS),
    }
    sys.stdout.write(
        f"bootstrap: {counts['items']:,.0f} items in {took:.0f} s with its comparison, beside {written:,} user writes;"
        f" {counts['copied']:,.0f} copied, {counts.get('newer', 0):,.0f} newer (at most {WRITERS * KEYS} by users),"
        f" so {again:,.0f} done twice\n"
        f"units: {counts['read_units']:,.0f} read, {counts['write_units']:,.0f} written"
        f" ({per_item:.2f} per item); at most {most:,.0f} per second of {budget:,}\n"
        f"planned: {plan}\n"
    )
    for what, holds in checks.items():
        sys.stdout.write(f"{what}: {holds}\n")
    return all(checks.values())


def main() -> int:
    """Parse the command line and run."""
    parser = argparse.ArgumentParser(prog="copying_scenario", description=__doc__)
    parser.add_argument("--items", type=int, default=200_000)
    parser.add_argument("--write-units", type=int, default=4000)
    parser.add_argument("--away", type=float, default=30.0, help="seconds without the coordination table")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name, open_world(Path(name)) as world:
        work = asyncio.wait_for(run(world, options.items, options.write_units, options.away), _LONGEST_SECONDS)
        return 0 if asyncio.run(work) else 1


if __name__ == "__main__":
    sys.exit(main())
