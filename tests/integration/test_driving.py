"""A rule that pods drive, then functions, then pods again, under load, while shards roll and records leave."""

from __future__ import annotations

import asyncio
import json
import logging
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from replicator.adapters.clock import SystemClock
from replicator.adapters.dynamodb.streams import DynamoStreams
from replicator.app.invocations import Process
from replicator.domain.identifiers import TableName
from replicator.laboratory.event_source import Event, EventSource, Handlers, MappingOptions, TableFeed
from replicator.laboratory.streamlab import StreamLab
from tests.contract.worlds import place
from tests.integration.harness import AWS_REGIONS, CREDENTIALS, Daemon, Users, World, eventually, open_world

pytestmark = [pytest.mark.servers, pytest.mark.long, pytest.mark.timeout(600)]

SHARDS = 3
CHANGES = 300


class Times(logging.Handler):
    """When functions applied something."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        if isinstance(record.msg, dict) and record.msg["event"] == "batch_applied":
            self.seen.append(record.msg["timestamp"])


def applied(daemons: list[Daemon]) -> list[str]:
    """When pods applied something."""
    return [line["timestamp"] for daemon in daemons for line in daemon.events("batch_applied")]


def unsteady(invoke: Callable[[Event], Any], dice: random.Random) -> Callable[[Event], Any]:
    """A function that now and then ends before its time, with a part of its batch done."""

    async def one(event: Event) -> Any:
        if dice.random() < 0.2:
            records = event["Records"]
            await invoke({"Records": records[: len(records) // 2 + 1]})
            raise TimeoutError
        return await invoke(event)

    return one


async def test_a_rule_goes_from_pods_to_functions_and_back_and_nothing_is_lost_nor_taken_for_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    times, dice = Times(), random.Random(5)
    logging.getLogger("replicator").addHandler(times)
    with open_world(tmp_path) as world, StreamLab.start(tmp_path, world.endpoint, seed=5, shards=SHARDS) as lab:
        await world.create_tables()
        config = configured(world, lab.url)
        monkeypatch.setenv("REPLICATOR_CONFIG", str(config))
        users = Users(world, seed=5, keys=30)
        pods = [world.daemon(config)]
        await eventually("a lease", lambda: pods[0].events("lease_claimed"))
        handlers = Handlers(Process, 60_000)
        async with place(lab.url, region=AWS_REGIONS["us"]) as there:
            streams = DynamoStreams(there)
            options = MappingOptions(batch_size=25, window_seconds=0.2, factor=2)
            source = EventSource(
                TableFeed(streams, await streams.current(TableName("orders")), AWS_REGIONS["us"]),
                unsteady(handlers.invoke, dice),
                SystemClock(),
                options,
            )
            mapping = asyncio.create_task(source.run())
            await users.write(CHANGES // 3, per_second=150)
            pods[0].kill()
            pods[0].start()
            await eventually("pods", lambda: identical(world, users))
            assert source.counts.records == 0, "the function refuses what pods drive"
            # -- functions -------------------------------------------------------------------------------------------
            await drive(world, config, "lambda")
            writing = asyncio.create_task(users.write(CHANGES // 3, per_second=100))
            await eventually("functions", lambda: source.counts.records > 0)
            assert min(times.seen) > max(applied(pods))
            assert pods[0].terminate() == 0
            for _ in range(2):
                await asyncio.to_thread(lab.command, "roll", table="orders")
            await writing
            await asyncio.to_thread(lab.command, "settle")
            await eventually("all of it", lambda: source.counts.records > CHANGES // 3 and not source.waiting)
            await eventually("functions", lambda: identical(world, users))
            # What pods stand behind, and a shard that they never saw, leave the stream.
            await asyncio.to_thread(lab.command, "trim", table="orders")
            await asyncio.to_thread(lab.command, "vanish", table="orders")
            # -- pods again ------------------------------------------------------------------------------------------
            until = len(times.seen)
            writing = asyncio.create_task(users.write(CHANGES // 3, per_second=100))
            pods += [world.daemon(config)]
            await drive(world, config, "pods")
            await writing
            await eventually("pods", lambda: identical(world, users))
            mine = applied(pods[1:])
            assert min(mine) > max(times.seen), "functions had ended before pods began"
            assert len(times.seen) >= until
            source.stop()
            await mapping
        await handlers.close()
        assert said(world, config, "gaps", "list")["gaps"] == []
        assert source.counts.failed > 0
        assert source.counts.discarded == []
        assert pods[1].terminate() == 0
    logging.getLogger("replicator").removeHandler(times)


def configured(world: World, url: str) -> Path:
    """The coordination table does not lie behind the laboratory."""
    times = {"lease": "3s", "heartbeat": "1s"}
    settings = world.settings(coordination={"region": "eu", **times}, log={"level": "debug"})
    settings["regions"]["us"] = {"region": AWS_REGIONS["us"], "endpoint_url": url}
    config = world.write_settings(settings)
    world.initialise(config)
    return config


def said(world: World, config: Path, *command: str) -> dict[str, Any]:
    """What a command says."""
    done = world.command(*command, "--json", config=config)
    assert done.returncode == 0, done.stderr
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


async def drive(world: World, config: Path, by: str) -> None:
    assert (await asyncio.to_thread(said, world, config, "rules", "drive", "orders", "--by", by))["changed"]


async def identical(world: World, users: Users) -> bool:
    return all(items == users.truth for items in (await world.replicas()).values())
