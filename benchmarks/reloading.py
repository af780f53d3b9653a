"""How long a reload takes to start a rule, and whether the other rules feel it: a real daemon, local servers.

    python -m benchmarks.reloading --rounds 10

Users write to one rule four times a second all the time. Each round puts an item into the table of a rule that is not
configured yet, writes the file with that rule, sends SIGHUP, and takes the time until the item is at its replica. The
first new rule has its replica in a region that no rule used before. All times are of the writers' own clock. Exits 1
when a rule took 3 seconds or the other rule's lag rose by more than half a second.
"""

from __future__ import annotations

import argparse
import asyncio
import signal
import statistics
import sys
import tempfile
import time
from http import HTTPStatus
from pathlib import Path
from typing import Any

from tests.integration.harness import AWS_REGIONS, Daemon, World, eventually, open_world
from tests.integration.true_lag import Table, TrueLag

START_BOUND = 3.0
RISE_BOUND = 0.5
_CALM_SECONDS = 8.0
_ROUND_SECONDS = 4.0
_LOOK_SECONDS = 0.01
_LAG = ("us", "eu")


async def _new_rule(world: World, number: int, region: str) -> dict[str, Any]:
    """A rule whose tables are there, with an item at its source."""
    name = f"new-{number}"
    await world.create_table("us", name, stream=True)
    await world.create_table(region, name)
    async with world.client("us") as client:
        await client.put_item(TableName=name, Item={"pk": {"S": "first"}})
    return {"name": name, "table": name, "source": "us", "replicas": [region]}


async def _until_there(world: World, table: str, region: str) -> float:
    """Seconds until the item is at the replica."""
    began = time.monotonic()
    async with world.client(region) as client:
        asked: dict[str, Any] = {"TableName": table, "Key": {"pk": {"S": "first"}}, "ConsistentRead": True}
        while not (await client.get_item(**asked)).get("Item"):  # noqa: ASYNC110 - what arrives says nothing
            await asyncio.sleep(_LOOK_SECONDS)
    return time.monotonic() - began


async def _rounds(world: World, settings: dict[str, Any], daemon: Daemon, lag: TrueLag, rounds: int) -> bool:
    calm_at = time.monotonic()
    await asyncio.sleep(_CALM_SECONDS)
    began, took = time.monotonic(), []
    for number in range(rounds):
        region = "eu" if number % 2 else "ap"
        settings["rules"].append(await _new_rule(world, number, region))
        world.write_settings(settings)
        daemon.signal(signal.SIGHUP)
        took.append(await _until_there(world, f"new-{number}", region))
        print(f"{number + 1}. rule, replica in {region}: {took[-1]:.2f} s", flush=True)
        await asyncio.sleep(_ROUND_SECONDS)
    ended = time.monotonic()
    lag.stop_writing()
    lag.wait_until_level(*_LAG, 60)
    before, during = (lag.lags(*_LAG, *span) for span in ((calm_at, began), (began, ended)))
    for when, lags in (("before", before), ("while rules come", during)):
        ordered = sorted(lags)
        high = ordered[int(0.99 * (len(ordered) - 1))]
        print(f"lag of the other rule {when}: median {statistics.median(lags):.2f} s, p99 {high:.2f} s,"
              f" longest {max(lags):.2f} s of {len(lags)}")  # fmt: skip
    print(f"started in {statistics.median(took):.2f} s, at most {max(took):.2f} s")
    return max(took) < START_BOUND and max(during) < max(before) + RISE_BOUND


async def _measure(directory: Path, rounds: int) -> bool:
    with open_world(directory) as world:
        await world.create_tables()
        settings = world.settings(rule={"replicas": ["eu"], "cache": []}, polling={}, coordination={"region": "us"})
        settings["rules"][0]["name"] = "orders"
        everywhere = {**settings, "rules": [{**settings["rules"][0], "replicas": [*AWS_REGIONS][1:]}]}
        everywhere["rules"][0]["replicas"] = ["eu", {"region": "ap", "table": "orders-copy"}]
        world.initialise(world.write_settings(everywhere, "everywhere.yaml"))
        daemon = world.daemon(world.write_settings(settings))
        await eventually("the daemon is ready", lambda: daemon.get("/readyz")[0] == HTTPStatus.OK)
        tables = {name: Table(AWS_REGIONS[name]) for name in _LAG}
        with TrueLag(world.dynamodb_port, tables, [_LAG]) as lag:
            return await _rounds(world, settings, daemon, lag, rounds)


def main() -> int:
    """Parse, measure, report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=10)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        met = asyncio.run(_measure(Path(directory), options.rounds))
    print(f"verdict: {'bounds met' if met else 'BOUNDS MISSED'}")
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
