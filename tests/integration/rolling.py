"""A rolling restart under load, as a StatefulSet does it: worker after worker ends and comes back with a changed file.

A changed ConfigMap is seen by every pod at once, while each still runs (`at_once`), or every pod brings its own when it
comes back, so that workers of both configurations share the work for a while.
"""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from replicator.domain.errors import EXIT_STOPPED
from tests.integration.harness import AWS_REGIONS, Daemon, Users, World, eventually, open_world, plain
from tests.integration.true_lag import Figures, Table, TrueLag
from tests.patience import PATIENT_SECONDS

RULES = ("orders", "users", "carts")
_WORKERS = 3
_PER_SECOND = 30.0
"""Writes of users at every table, beside those that are timed."""


@dataclass(frozen=True, slots=True)
class Restarted:
    """What came of it: the true lag of each path from the first signal until all was level again."""

    lags: dict[tuple[str, str], Figures]
    seconds: float

    @property
    def longest(self) -> float:
        return max(each.greatest for each in self.lags.values())


def configurations(world: World, lease: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Before and after: one rule gets a replica, one a filter that lets all pass, and one another field of its own."""
    before = world.settings()
    for key in ("caches", "apply", "polling"):
        del before[key]
    before["coordination"] = {"region": "us", "lease": lease}
    before["rules"] = [
        {"name": name, "table": name, "source": "us", "start": "trim_horizon", "replicas": ["eu"]} for name in RULES
    ]
    after = json.loads(json.dumps(before))
    after["rules"][0]["replicas"] = ["eu", "ap"]
    after["rules"][1]["filter"] = {"events": ["INSERT", "MODIFY", "REMOVE"]}
    after["rules"][2]["replicas"] = [{"region": "eu", "write_units": 5000}]
    after["polling"] = {
        "interval": "200ms"
    }  # no worker takes this up while it runs: the whole file waits for a restart
    return before, after


async def restart(directory: Path, *, at_once: bool, settle: float = 2.0, lease: str = "10s") -> Restarted:
    """Three workers restart one after another under load; raises when anything is lost or differs."""
    with open_world(directory) as world:
        for name in RULES:
            for region in AWS_REGIONS:
                await world.create_table(region, name, stream=region == "us")
        before, after = configurations(world, lease)
        files = [world.write_settings(before, f"worker-{number}.yaml") for number in range(_WORKERS)]
        world.initialise(files[0])
        world.initialise(
            world.write_settings(after, "after.yaml")
        )  # as docs/operations.md says, before it is put in place
        workers = [world.daemon(file) for file in files]
        await eventually("that the work is shared", lambda: _owned(workers) == [1, 1, 1])
        tables = {f"us {name}": Table(AWS_REGIONS["us"], name) for name in RULES}
        tables |= {f"eu {name}": Table(AWS_REGIONS["eu"], name) for name in RULES}
        paths = [(f"us {name}", f"eu {name}") for name in RULES]
        users = [Users(world, seed=seed, writers=2, keys=20, table=name) for seed, name in enumerate(RULES)]
        stop = asyncio.Event()
        with TrueLag(world.dynamodb_port, tables, paths) as lag:
            for path in paths:
                await asyncio.to_thread(lag.wait_until_level, *path, PATIENT_SECONDS)
            load = [asyncio.create_task(_keep_writing(each, stop)) for each in users]
            began = time.monotonic()
            if at_once:
                for file in files:
                    _replace(file, after)
                await asyncio.sleep(settle)
            for worker, file in zip(workers, files, strict=True):
                assert await asyncio.to_thread(worker.terminate) == EXIT_STOPPED
                _replace(file, after)
                worker.start()
                await eventually("that it is ready", partial(_is_ready, worker))
                await asyncio.sleep(settle)
            await eventually("that the work is shared again", lambda: _owned(workers) == [1, 1, 1])
            stop.set()
            await asyncio.gather(*load)
            lag.stop_writing()
            for path in paths:
                await asyncio.to_thread(lag.wait_until_level, *path, PATIENT_SECONDS)
            ended = time.monotonic()
            figures = {path: lag.figures(*path, began, ended) for path in paths}
            await eventually("that all replicas hold what their sources hold", lambda: _are_identical(world, after))
        for name, each in zip(RULES, users, strict=True):
            held = await world.scan("us", name)
            assert {key: item for key, item in held.items() if not key.startswith("lag-")} == each.truth
        for worker in workers:
            assert worker.terminate() == EXIT_STOPPED
        return Restarted(figures, ended - began)


def _replace(file: Path, settings: dict[str, Any]) -> None:
    """As a mounted volume changes: from one content to the other, with nothing between."""
    new = file.with_suffix(".new")
    new.write_text(yaml.safe_dump(settings))
    new.replace(file)


async def _keep_writing(users: Users, stop: asyncio.Event) -> None:
    while not stop.is_set():
        await users.write(4, per_second=_PER_SECOND)


def _is_ready(worker: Daemon) -> bool:
    return worker.get("/readyz")[0] == 200


def _owned(workers: list[Daemon]) -> list[int]:
    """How many shards each worker owns, as it says."""
    return [sum(len(rule["shards"]) for rule in worker.status()["rules"]) for worker in workers]


async def _are_identical(world: World, settings: dict[str, Any]) -> bool:
    """Whether every replica holds what its source holds: read anew, by nothing of the program."""
    for rule in settings["rules"]:
        source = await world.scan("us", rule["table"])
        for each in rule["replicas"]:
            replica = await world.scan(each if isinstance(each, str) else each["region"], rule["table"])
            if {key: plain(item) for key, item in replica.items()} != source:
                return False
    return True
