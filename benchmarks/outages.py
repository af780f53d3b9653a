"""Outages that last, by hand: real daemons, real servers, endpoints that hang, and the true lag measured outside.

    python -m benchmarks.outages replica --seconds 60
    python -m benchmarks.outages mesh --mode versioned --seconds 60
    python -m benchmarks.outages targets --targets 50 --seconds 600
    python -m benchmarks.outages refusals --known 9000
    python -m benchmarks.outages cache --seconds 60 --per-second 200
    python -m benchmarks.outages attack --mode active-active --seconds 60 --seed 2

Prints the lag of what is not away, how soon what was away is level, memory, and what stops a target that refuses
everything; `attack` kills and suspends workers beside that. Ends with an error when something is lost, differs, or is
not logged. The tests do the same, shorter.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import time
from pathlib import Path

from tests.integration.faulty_endpoint import Fault
from tests.integration.harness import CacheReader, Daemon, Users, Valve, eventually, open_world
from tests.integration.test_many_targets import hang_one
from tests.integration.test_mesh_attacked import attack
from tests.integration.test_refusals_without_end import refuse_everything
from tests.integration.test_region_away import conclude, open_mesh, outage
from tests.integration.test_replica_away import open_replicas
from tests.integration.true_lag import Table, TrueLag


async def take_cache_away(directory: Path, seconds: float, per_second: float) -> None:
    """A cache is away for a while beside traffic: the lag of its replica, how soon it is settled, and what is stale."""
    tables = {"us": Table("us-east-1"), "eu": Table("eu-west-1")}
    with open_world(directory) as world:
        valve = Valve(world.valkey_port)
        await world.create_tables()
        settings = world.settings(rule={"cache": [{"cache": "eu_main", "key": "order:{pk}"}]})
        settings["caches"] = {"eu_main": {"region": "eu", "url": f"redis://127.0.0.1:{valve.port}/0"}}
        config = world.write_settings(settings)
        world.initialise(config)
        users, daemon, stop = Users(world, seed=4, keys=500), world.daemon(config), asyncio.Event()
        with (
            CacheReader(world, database=0, region="eu", table="orders", template="order:{pk}") as reader,
            TrueLag(world.dynamodb_port, tables, [("us", "eu")]) as lag,
        ):
            await asyncio.to_thread(lag.wait_until_level, "us", "eu", 60.0)
            reading = asyncio.ensure_future(reader.keep_reading(lambda: list(users.truth), stop))
            await users.write(500, per_second=per_second)
            began = time.monotonic()
            valve.close()
            await users.write(int(seconds * per_second), per_second=per_second)
            valve.open()
            back = time.monotonic()
            most = daemon.status()["caches"][0]["keys"]
            await eventually("that it is settled", lambda: _is_settled(daemon))
            settled = time.monotonic()
            print(f"away for {back - began:.1f} s: {lag.figures('us', 'eu', began, back)}")
            print(f"{most} entries owed, settled {settled - back:.1f} s after its return")
            await asyncio.to_thread(lag.wait_until_level, "us", "eu", 60.0)
            await asyncio.sleep(5)
            stop.set()
            await reading
            entries, stale = await reader.incoherent()
            print(f"{len(stale)} of {entries} entries stale 5 s after the last write")
            assert not stale, stale[:5]
        valve.close()


def _is_settled(daemon: Daemon) -> bool:
    cache = daemon.status()["caches"][0]
    return (cache["standing"], cache["keys"]) == ("here", 0)


def main() -> int:
    """Parse the command line and let things fail."""
    parser = argparse.ArgumentParser(prog="outages", description=__doc__)
    parser.add_argument("what", choices=["replica", "mesh", "targets", "refusals", "cache", "attack"])
    parser.add_argument("--seconds", type=float, default=60.0, help="how long it is away")
    parser.add_argument("--fault", type=Fault, choices=Fault, default=Fault.HANG, help="how it does not answer")
    parser.add_argument("--mode", choices=["active-active", "versioned"], default="versioned")
    parser.add_argument("--targets", type=int, default=50)
    parser.add_argument("--per-second", type=float, default=200.0, help="changes beside a cache that is away")
    parser.add_argument("--known", type=int, default=0, help="so many of 10000 refused keys are there before")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        match options.what:
            case "replica":
                with open_replicas(directory) as running:
                    running.outage(options.fault, options.seconds)
                    running.converge()
            case "mesh":
                with open_mesh(directory, options.mode, every=0.5) as mesh:
                    outage(mesh, options.fault, options.seconds)
                    conclude(mesh, options.fault)
            case "targets":
                hang_one(directory, options.targets, options.seconds)
            case "cache":
                asyncio.run(take_cache_away(directory, options.seconds, options.per_second))
            case "attack":
                asyncio.run(attack(directory, options.mode, options.seconds, options.seed))
            case _:
                refuse_everything(directory, None, options.known)
    return 0


if __name__ == "__main__":
    sys.exit(main())
