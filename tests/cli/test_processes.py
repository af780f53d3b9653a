"""The parent of several workers, with small programs in their place."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Self

import pytest
from structlog.testing import capture_logs

from replicator.app.supervisor import Launch, Patience, Workers, WorkersInvalid, launch_of, number_of_workers, worst
from replicator.domain.errors import ConfigurationInvalid
from replicator.settings import Settings
from tests.cli.worlds import World
from tests.patience import PATIENT_SECONDS

WORKER = """
import os, signal, sys, threading, time
from pathlib import Path
from replicator.app.parent_death import bind_to_parent
from replicator.observability.systemd import notify

directory, index, plan = Path(sys.argv[1]), sys.argv[2], sys.argv[3:]
lives = directory / f"lives-{index}"
with lives.open("a") as file:
    file.write(f"{os.getpid()}\\n")
life = len(lives.read_text().splitlines())
step = plan[min(life, len(plan)) - 1]
told = threading.Event()

def ended(*_):
    if step == "stubborn":
        return
    (directory / f"drained-{index}").touch()
    code = int(step.removeprefix("ends ")) if step.startswith("ends ") else 0
    os._exit(code)

signal.signal(signal.SIGTERM, ended)
bind_to_parent()
if step.startswith("dies "):
    sys.exit(int(step.removeprefix("dies ")))
notify("READY=1")
if step.startswith("ready, dies "):
    sys.exit(int(step.removeprefix("ready, dies ")))
(directory / f"ready-{index}-{life}").touch()
while True:
    if step != "hangs":
        notify("WATCHDOG=1")
    time.sleep(0.05)
"""

PATIENCE = Patience(drain=30, beyond=30, first_pause=0.05, longest_pause=0.2, long_life=1000, silence=60, start=90)


class House:
    """A parent in this process, and its workers: what each does in its first, second, ... life."""

    def __init__(self, directory: Path, plans: Sequence[Sequence[str]], patience: Patience = PATIENCE) -> None:
        self.directory = directory
        script = directory / "worker.py"
        script.write_text(WORKER)
        self._launches = [
            Launch((sys.executable, str(script), str(directory), str(index), *plan), {"PYTHONPATH": str(Path.cwd())})
            for index, plan in enumerate(plans)
        ]
        self._patience = patience
        self.code: int | None = None

    def lives(self, index: int) -> list[int]:
        file = self.directory / f"lives-{index}"
        return [int(line) for line in file.read_text().splitlines()] if file.exists() else []

    async def until(self, name: str) -> None:
        await self.holds((self.directory / name).exists, name)

    @staticmethod
    async def holds(condition: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + PATIENT_SECONDS
        while not condition():
            assert time.monotonic() < deadline, what
            await asyncio.sleep(0.02)

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(Workers(self._launches, self._patience).run())
        return self

    async def __aexit__(self, kind: object, *_: object) -> None:
        if kind is not None:
            self._task.cancel()
            return
        async with asyncio.timeout(PATIENT_SECONDS):
            self.code = await self._task

    @staticmethod
    def terminate() -> None:
        os.kill(os.getpid(), signal.SIGTERM)


@pytest.fixture(autouse=True)
def _no_manager(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    monkeypatch.delenv("WATCHDOG_USEC", raising=False)
    yield
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)


async def test_a_signal_drains_every_worker(tmp_path: Path) -> None:
    async with House(tmp_path, [["works"], ["works"], ["works"]]) as house:
        for index in range(3):
            await house.until(f"ready-{index}-1")
        house.terminate()
    assert house.code == 0
    assert all((tmp_path / f"drained-{index}").exists() for index in range(3))


async def test_the_exit_code_is_the_worst_of_the_workers(tmp_path: Path) -> None:
    async with House(tmp_path, [["works"], ["ends 75"]]) as house:
        await house.until("ready-0-1")
        await house.until("ready-1-1")
        house.terminate()
    assert house.code == 75


async def test_a_worker_that_died_is_started_again_and_the_others_go_on(tmp_path: Path) -> None:
    async with House(tmp_path, [["works"], ["works"]]) as house:
        await house.until("ready-0-1")
        await house.until("ready-1-1")
        os.kill(house.lives(1)[0], signal.SIGKILL)
        await house.until("ready-1-2")
        house.terminate()
    assert house.code == 0
    assert len(house.lives(0)) == 1


@pytest.mark.parametrize("code", [69, 78])
async def test_what_the_first_worker_is_refused_for_ends_all_with_its_code_and_the_others_do_not_begin(
    tmp_path: Path, code: int
) -> None:
    async with House(tmp_path, [[f"dies {code}"], ["works"]]) as house:
        pass
    assert house.code == code
    assert house.lives(1) == []


async def test_what_another_worker_is_refused_for_ends_all_with_its_code(tmp_path: Path) -> None:
    async with House(tmp_path, [["works"], ["dies 78"]]) as house:
        pass
    assert house.code == 78
    assert (tmp_path / "drained-0").exists()


async def test_a_worker_that_worked_before_is_tried_again_when_it_is_refused(tmp_path: Path) -> None:
    async with House(tmp_path, [["works"], ["ready, dies 1", "dies 69", "dies 78", "works"]]) as house:
        await house.until("ready-1-4")
        house.terminate()
    assert house.code == 0


async def test_a_worker_that_never_gets_ready_ends_all_after_a_few_deaths(tmp_path: Path) -> None:
    async with House(tmp_path, [["works"], ["dies 1"]]) as house:
        pass
    assert house.code == 1
    assert len(house.lives(1)) == PATIENCE.most_deaths


async def test_a_worker_that_hangs_is_killed_and_started_again(tmp_path: Path) -> None:
    patience = Patience(drain=30, beyond=30, first_pause=0.05, silence=3)
    async with House(tmp_path, [["works"], ["hangs", "works"]], patience) as house:
        await house.until("ready-1-2")
        house.terminate()
    assert house.code == 0


async def test_a_worker_that_does_not_end_is_killed_in_the_end(tmp_path: Path) -> None:
    patience = Patience(drain=0.2, beyond=0.2)
    async with House(tmp_path, [["stubborn"], ["works"]], patience) as house:
        await house.until("ready-0-1")
        house.terminate()
    assert house.code == 75


async def test_a_stop_while_a_worker_waits_for_its_next_life_ends_at_once(tmp_path: Path) -> None:
    patience = Patience(drain=30, beyond=30, first_pause=1000, longest_pause=1000)
    with capture_logs() as logged:
        async with House(tmp_path, [["works"], ["ready, dies 1"]], patience) as house:
            await house.holds(lambda: "worker_died" in [line["event"] for line in logged], "it does not die")
            house.terminate()
    assert house.code == 0


def alive(pid: int) -> bool:
    with suppress(ProcessLookupError):
        os.kill(pid, 0)
        return True
    return False


# -- what a manager hears ------------------------------------------------------------------------------------------


async def test_the_manager_hears_that_all_are_ready_once_all_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import socket

    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        address = f"\0replicator-test-{os.getpid()}"
        manager.bind(address)
        manager.setblocking(False)
        monkeypatch.setenv("NOTIFY_SOCKET", address.replace("\0", "@"))
        monkeypatch.setenv("WATCHDOG_USEC", "100000")
        heard: list[str] = []

        def told(what: str) -> bool:
            with suppress(BlockingIOError):
                while True:
                    heard.append(manager.recv(4096).decode())
            return what in heard

        async with House(tmp_path, [["works"], ["dies 1", "works"]]) as house:
            await house.holds(lambda: told("READY=1"), "READY is not told")
            assert len(house.lives(1)) == 2
            await house.holds(lambda: told("WATCHDOG=1"), "the watchdog is not fed")
            house.terminate()
        assert told("STOPPING=1")
        assert heard.count("READY=1") == 1


# -- the parent dies -----------------------------------------------------------------------------------------------

PARENT = """
import asyncio, json, sys
from replicator.app.supervisor import Launch, Patience, Workers
asyncio.run(Workers([Launch(*launch) for launch in json.loads(sys.argv[1])], Patience()).run())
"""


async def test_workers_drain_when_their_parent_is_killed(tmp_path: Path) -> None:
    house = House(tmp_path, [["works"], ["works"]])
    launches = json.dumps([[launch.arguments, launch.environment] for launch in house._launches])
    parent = await asyncio.create_subprocess_exec(sys.executable, "-c", PARENT, launches)
    try:
        await house.until("ready-0-1")
        await house.until("ready-1-1")
    finally:
        parent.kill()
        await parent.wait()
    for index in range(2):
        await house.until(f"drained-{index}")


# -- what is asked for ---------------------------------------------------------------------------------------------


def test_the_number_of_workers_is_a_number_or_one_per_core() -> None:
    assert number_of_workers("3") == 3
    assert 1 <= number_of_workers("auto") <= (os.cpu_count() or 1)


@pytest.mark.parametrize("text", ["0", "-1", "257", "many", "", "1.5", "٣"])
def test_what_is_no_number_of_workers_is_refused(text: str) -> None:
    with pytest.raises(WorkersInvalid):
        number_of_workers(text)


def test_the_worst_code_is_the_one_that_says_most() -> None:
    assert worst([0, 75, 0]) == 75
    assert worst([75, 69]) == 69
    assert worst([78, 1]) == 1
    assert worst([0, 3]) == 1
    assert worst([]) == 0


@pytest.fixture
def paper_world(tmp_path: Path) -> World:
    """A configuration without servers."""
    return World("http://127.0.0.1:1", "redis://127.0.0.1:1", "1", tmp_path)


def test_every_worker_has_a_port_and_a_file_of_its_own(paper_world: World) -> None:
    paper_world.config["admin"]["port"] = 9000
    paper_world.config["conflicts"] = {"file": "/var/lib/conflicts.jsonl"}
    settings = Settings(**paper_world.config)
    assert launch_of(settings, 0, 2, paper_world.path, strict=True).arguments[-1] == "--strict"
    first, second = (launch_of(settings, index, 2, paper_world.path).environment for index in range(2))
    assert (first["REPLICATOR_ADMIN__PORT"], second["REPLICATOR_ADMIN__PORT"]) == ("9000", "9001")
    assert first["REPLICATOR_CONFLICTS__FILE"] == "/var/lib/conflicts-0.jsonl"
    assert second["REPLICATOR_CONFLICTS__FILE"] == "/var/lib/conflicts-1.jsonl"


def test_a_free_port_stays_free_and_ports_beyond_the_last_are_refused(paper_world: World) -> None:
    settings = Settings(**paper_world.config)
    assert "REPLICATOR_ADMIN__PORT" not in launch_of(settings, 1, 2, paper_world.path).environment
    paper_world.config["admin"]["port"] = 65535
    with pytest.raises(ConfigurationInvalid, match="need the ports from 65535"):
        launch_of(Settings(**paper_world.config), 0, 2, paper_world.path)
