"""A rule that pods drive, then functions, then pods again, under load, while shards roll and records leave."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import random
import signal
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from replicator.adapters.clock import SystemClock
from replicator.adapters.dynamodb.streams import DynamoStreams
from replicator.app.invocations import Process
from replicator.domain.identifiers import TableName
from replicator.laboratory import emulator
from replicator.laboratory.emulator import Emulator
from replicator.laboratory.event_source import Event, EventSource, Handler, Handlers, MappingOptions, TableFeed
from replicator.laboratory.streamlab import StreamLab
from tests.contract.worlds import place
from tests.integration.harness import AWS_REGIONS, CREDENTIALS, Daemon, Users, Valve, World, eventually, open_world

pytestmark = [pytest.mark.servers, pytest.mark.long]

SHARDS = 3
SECONDS = 20
"""Of an invocation under the emulator, which ends it then, with its process."""
MOST_KILLS = 4
CHANGES = 300


class Times(logging.Handler):
    """When functions in this process applied something."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        if isinstance(record.msg, dict) and record.msg["event"] == "batch_applied":
            self.seen.append(record.msg["timestamp"])


def applied(daemons: list[Daemon]) -> list[str]:
    """When pods applied something."""
    return [line["timestamp"] for daemon in daemons for line in daemon.events("batch_applied")]


class Ending:
    """A function that now and then ends before its time, with a part of its batch done."""

    def __init__(self, function: Handler, dice: random.Random) -> None:
        self._function = function
        self._dice = dice

    def handle(self, event: Event, milliseconds: int) -> Any:
        if self._dice.random() < 0.2:
            records = event["Records"]
            self._function.handle({"Records": records[: len(records) // 2 + 1]}, milliseconds)
            raise TimeoutError
        return self._function.handle(event, milliseconds)

    def close(self) -> None:
        self._function.close()


class Attacks:
    """What becomes of the processes of a function under the emulator, of all of them together."""

    def __init__(self, dice: random.Random) -> None:
        self._dice = dice
        self.killed = 0
        self.frozen: list[int] = []
        self.may_kill = self.may_freeze = 0
        """The emulator ends a process that is frozen, when its time is over; unless it is thawed before."""

    def attack(self, function: Emulator) -> None:
        process = function.runtime
        if process is None:
            return
        if self.may_freeze:
            self.may_freeze -= 1
            os.kill(process, signal.SIGSTOP)
            self.frozen.append(process)
        elif self.may_kill:
            self.may_kill -= 1
            self.killed += 1
            os.kill(process, signal.SIGKILL)

    def next(self) -> float | None:
        """How long after its beginning an invocation is attacked."""
        return self._dice.uniform(0.0, 0.1) if self._dice.random() < 0.3 else None


class Attacked:
    """One execution environment whose process is attacked in the middle of invocations."""

    def __init__(self, function: Emulator, attacks: Attacks) -> None:
        self._function = function
        self._attacks = attacks

    def handle(self, event: Event, milliseconds: int) -> Any:
        after = self._attacks.next()
        timer = threading.Timer(after or 0.0, self._attacks.attack, (self._function,))
        if after is not None:
            timer.start()
        try:
            return self._function.handle(event, milliseconds)
        finally:
            timer.cancel()
            if after is not None:
                timer.join()

    def close(self) -> None:
        self._function.close()


class Functions:
    """The function under the emulator where it is found, else in this process; `applied`: when it applied something."""

    def __init__(self, directory: Path, config: Path) -> None:
        self._directory = directory
        self._config = config
        self._times = Times()
        self._dice = random.Random(5)
        self.attacks = Attacks(self._dice)
        self.handlers = Handlers(self._make, SECONDS * 1000, most=2)

    @property
    def emulated(self) -> bool:
        return emulator.missing() is None

    @property
    def applied(self) -> list[str]:
        lines = (line for log in self._directory.glob("function-*.log") for line in log.read_text().splitlines())
        found = (json.loads(line) for line in lines if line.startswith("{") and line.endswith("}"))
        return self._times.seen + [line["timestamp"] for line in found if line.get("event") == "batch_applied"]

    @property
    def timed_out(self) -> bool:
        """Whether the emulator ended a process whose time was over."""
        return any("Reset initiated: Timeout" in log.read_text() for log in self._directory.glob("function-*.log"))

    def _make(self) -> Handler:
        if not self.emulated:
            logging.getLogger("replicator").addHandler(self._times)
            return Ending(Process(), self._dice)
        variables = {**CREDENTIALS, "REPLICATOR_CONFIG": str(self._config)}
        return Attacked(Emulator.start(self._directory, variables, seconds=SECONDS), self.attacks)

    async def close(self) -> None:
        await self.handlers.close()
        logging.getLogger("replicator").removeHandler(self._times)


async def test_a_rule_goes_from_pods_to_functions_and_back_and_nothing_is_lost_nor_taken_for_lost(  # noqa: PLR0915 - one story
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Under load: pods are killed, functions are killed, frozen until their time is over, and a region is away."""
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    with open_world(tmp_path) as world, StreamLab.start(tmp_path, world.endpoint, seed=5, shards=SHARDS) as lab:
        await world.create_tables()
        valve = Valve(world.dynamodb_port)
        config = configured(world, lab.url, f"http://127.0.0.1:{valve.port}")
        monkeypatch.setenv("REPLICATOR_CONFIG", str(config))
        users = Users(world, seed=5, keys=30)
        pods = [world.daemon(config)]
        await eventually("a lease", lambda: pods[0].events("lease_claimed"))
        functions = Functions(tmp_path, config)
        async with place(lab.url, region=AWS_REGIONS["us"]) as there:
            streams = DynamoStreams(there)
            options = MappingOptions(batch_size=25, window_seconds=0.2, factor=2)
            feed = TableFeed(streams, await streams.current(TableName("orders")), AWS_REGIONS["us"])
            source = EventSource(feed, functions.handlers.invoke, SystemClock(), options)
            mapping = asyncio.create_task(source.run())
            await users.write(CHANGES // 3, per_second=150)
            pods[0].kill()
            pods[0].start()
            await eventually("pods", lambda: identical(world, users))
            assert source.counts.records == 0, "the function refuses what pods drive"
            functions.attacks.may_kill, functions.attacks.may_freeze = MOST_KILLS, 1
            # -- functions -------------------------------------------------------------------------------------------
            await drive(world, config, "lambda")
            writing = asyncio.create_task(users.write(CHANGES // 3, per_second=50))
            await eventually("functions", lambda: source.counts.records > 0)
            assert min(functions.applied) > max(applied(pods))
            reported = source.counts.partial
            assert pods[0].terminate() == 0
            valve.close()
            for _ in range(2):
                await asyncio.to_thread(lab.command, "roll", table="orders")
            await eventually("reports of failures", lambda: source.counts.partial > reported)
            valve.open()
            await writing
            await asyncio.to_thread(lab.command, "settle")
            await eventually("all of it", lambda: source.counts.records > CHANGES // 3 and not source.waiting)
            await eventually("functions", lambda: identical(world, users))
            # What pods stand behind, and a shard that they never saw, leave the stream.
            await asyncio.to_thread(lab.command, "trim", table="orders")
            await asyncio.to_thread(lab.command, "vanish", table="orders")
            # -- pods again ------------------------------------------------------------------------------------------
            functions.attacks.may_freeze += 1
            writing = asyncio.create_task(users.write(CHANGES // 3, per_second=50))
            if functions.emulated:
                await eventually("a frozen function", lambda: len(functions.attacks.frozen) > 1)
            pods += [world.daemon(config)]
            await drive(world, config, "pods")
            await eventually("pods", lambda: applied(pods[1:]))
            if functions.emulated:
                with suppress(ProcessLookupError):
                    os.kill(functions.attacks.frozen[-1], signal.SIGCONT)
            pods[1].kill()
            pods[1].start()
            await writing
            await eventually("pods", lambda: identical(world, users))
            assert min(applied(pods[1:])) > max(functions.applied), "functions had ended before pods began"
            source.stop()
            await mapping
        await functions.close()
        assert said(world, config, "gaps", "list")["gaps"] == []
        assert source.counts.failed > 0
        assert source.counts.discarded == []
        assert not functions.emulated or (functions.attacks.killed > 0 and functions.timed_out)
        assert pods[1].terminate() == 0
        valve.close()


def configured(world: World, url: str, eu: str) -> Path:
    """The coordination table does not lie behind the laboratory."""
    times = {"lease": "3s", "heartbeat": "1s"}
    settings = world.settings(coordination={"region": "ap", **times}, log={"level": "debug"})
    settings["regions"]["us"] = {"region": AWS_REGIONS["us"], "endpoint_url": url}
    settings["regions"]["eu"]["endpoint_url"] = eu
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
