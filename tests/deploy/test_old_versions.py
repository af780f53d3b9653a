"""Programs of earlier versions beside this one's, under load, with workers that are killed: what a roll-out is.

They are taken from the repository's history and run in an environment of their own, of what they pinned.
"""

from __future__ import annotations

import asyncio
import io
import json
import os
import re
import subprocess
import sys
import tarfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from replicator.laboratory.servers import clean_environment
from tests.integration.harness import CREDENTIALS, Daemon, Item, Users, World, eventually, open_world
from tests.integration.own_process import OwnProcess
from tests.patience import PATIENT_SECONDS

ROOT = Path(__file__).parents[2]
FIRST = "79edd0c7abea95d33603ee3fc34544298549a6a6"
"""0.1.0: mode `ordered` alone, and nothing of shards' parents in the rows."""
BY_REGION = "fbd4169a2bf4c63eae5f64fa04441f878aff4a75"
"""The last state in which positions were stored under rule and region, not under the table that is written."""
RECORDED = ROOT / "tests" / "cli" / "rows_of_0_1_0.json"

pytestmark = [
    pytest.mark.skipif("RELEASE_CHECK" not in os.environ, reason="only `make release-check` runs earlier versions"),
    pytest.mark.timeout(900),
]


@dataclass(frozen=True)
class Program:
    """An earlier version: its sources, and a Python that has what it needs."""

    python: Path
    sources: Path

    def command(self, *arguments: str) -> list[str]:
        return [str(self.python), "-P", "-m", "replicator", *arguments]

    def run(self, *arguments: str) -> None:
        """Run a command to its end, which must be a good one."""
        command = self.command(*arguments)
        subprocess.run(command, env=self.environment, check=True, capture_output=True, timeout=PATIENT_SECONDS)

    @property
    def environment(self) -> dict[str, str]:
        return clean_environment() | CREDENTIALS | {"PYTHONPATH": str(self.sources)}


class Earlier(Daemon):
    """`replicator run` of an earlier version, as a process of its own."""

    def __init__(self, program: Program, config: Path, log: Path) -> None:
        self._program = program
        super().__init__(config, log)

    def start(self) -> None:
        with self.log.open("a") as log:
            command = self._program.command("run", "--config", str(self._config))
            self._process = OwnProcess(
                subprocess.Popen(command, env=self._program.environment, stdout=log, stderr=subprocess.STDOUT)
            )


@pytest.fixture(scope="module")
def pinned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Python with what the first version pinned; later ones needed the same."""
    environment = tmp_path_factory.mktemp("pinned")
    lock = environment / "runtime.txt"
    lock.write_bytes(_git("show", f"{FIRST}:requirements/runtime.txt"))
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", environment], check=True)
    python = environment / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet", "--no-deps"]
    subprocess.run([*pip, "--require-hashes", "-r", str(lock)], check=True, timeout=PATIENT_SECONDS)
    return python


def _git(*arguments: str) -> bytes:
    done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, check=False)
    if done.returncode:
        pytest.skip(f"this clone does not hold the history that earlier versions are taken from: {done.stderr!r}")
    return done.stdout


def _program(pinned: Path, commit: str, directory: Path) -> Program:
    with tarfile.open(fileobj=io.BytesIO(_git("archive", commit, "replicator"))) as archive:
        archive.extractall(directory, filter="data")
    return Program(pinned, directory)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with open_world(tmp_path) as opened:
        yield opened


async def _prepared(world: World, program: Program) -> Path:
    """Tables and a configuration that both versions understand; what the earlier one needs it makes itself."""
    await world.create_tables()
    settings = world.settings()
    del settings["coordination"]["drained"]
    config = world.write_settings(settings)
    await asyncio.to_thread(program.run, "init", "--config", str(config))
    return config


def _earlier(world: World, program: Program, config: Path) -> Daemon:
    daemon = Earlier(program, config, world.directory / f"daemon-{len(world.daemons)}.log")
    world.daemons.append(daemon)
    return daemon


@asynccontextmanager
async def _load(world: World, seed: int) -> AsyncIterator[Users]:
    """Users who write as long as the block lasts."""
    users, enough = Users(world, seed=seed, keys=40), asyncio.Event()

    async def write() -> None:
        while not enough.is_set():
            await users.write(40, per_second=60)

    load = asyncio.ensure_future(write())
    try:
        yield users
    finally:
        enough.set()
        await load


async def _identical(world: World, users: Users) -> None:
    async def holds() -> bool:
        return all(items == users.truth for items in (await world.replicas()).values())

    await eventually("identical tables", holds)
    assert await world.scan("us", "orders") == users.truth


async def _progress(world: World, users: Users) -> None:
    """Wait until something that is written from now on is everywhere."""
    before = users.written

    async def seen() -> bool:
        shown = (await world.replicas()).values()
        return all(any(_number(item) > before for item in items.values()) for items in shown)

    await eventually("progress", seen)


def _number(item: Item) -> int:
    """Behind how many writes an item was written."""
    return int(item["serial"]["S"].partition(".")[0])


def _nothing_lost(world: World) -> None:
    said = "".join(daemon.log.read_text() for daemon in world.daemons)
    assert not re.search(r'"event": "(gap_found|target_begun_anew|fault)"|Traceback', said)


async def test_a_roll_out_worker_by_worker_loses_nothing_and_can_be_taken_back(
    world: World, pinned: Path, tmp_path: Path
) -> None:
    program = _program(pinned, BY_REGION, tmp_path / "earlier")
    config = await _prepared(world, program)
    old = [_earlier(world, program, config) for _ in range(3)]
    async with _load(world, seed=1) as users:
        await _progress(world, users)
        old[0].kill()
        world.initialise(config)
        new = [world.daemon(config)]
        await _progress(world, users)
        old[1].terminate()
        new.append(world.daemon(config))
        await eventually("a worker of this version", lambda: new[1].events("ready"))
        new[0].kill()
        new[0].start()
        await _progress(world, users)
        old[2].kill()
        await _progress(world, users)
    await _identical(world, users)
    async with _load(world, seed=2) as more:
        more.truth.update(users.truth)
        await _progress(world, more)
        back = _earlier(world, program, config)
        for daemon in new:
            assert daemon.terminate() == 0
        await _progress(world, more)
    await _identical(world, more)
    assert back.terminate() == 0
    _nothing_lost(world)


async def test_0_1_0_is_replaced_at_once_under_load_and_its_rows_are_those_that_are_kept(
    world: World, pinned: Path, tmp_path: Path
) -> None:
    program = _program(pinned, FIRST, tmp_path / "first")
    config = await _prepared(world, program)
    old = [_earlier(world, program, config) for _ in range(2)]
    async with _load(world, seed=3) as users:
        await _progress(world, users)
        old[0].kill()
        await _progress(world, users)
        old[1].terminate()
        left = {row["sk"]["S"].partition("|")[0]: _members(row) for row in await _rows(world)}
        world.initialise(config)
        new = [world.daemon(config) for _ in range(2)]
        await _progress(world, users)
        new[0].kill()
        await _progress(world, users)
    await _identical(world, users)
    assert new[1].terminate() == 0
    _nothing_lost(world)
    recorded = json.loads(RECORDED.read_text())["tables"]["us/replicator-coordination"]
    kept = {row["sk"]["S"].partition("|")[0]: _members(row) for row in recorded}
    assert {kind: left[kind] for kind in ("shard", "target")} == {kind: kept[kind] for kind in ("shard", "target")}


def _members(row: dict[str, dict[str, str]]) -> set[str]:
    """What a row of 0.1.0 consists of, whatever the replicas; its owner is there or was taken away."""
    return {re.sub("^at:orders/(eu|ap)$", "at:orders/region", name) for name in row} - {"owner"}


async def _rows(world: World) -> list[dict[str, dict[str, str]]]:
    async with world.client("us") as client:
        rows: list[dict[str, dict[str, str]]] = (await client.scan(TableName="replicator-coordination"))["Items"]
        return rows
