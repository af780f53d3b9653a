"""`replicator run --workers N`: N processes, one per core, that share the work by leases; and their parent.

The parent reads no stream. It starts the others, hands signals on, starts again what died or fell silent, and passes
their notifications to systemd. Invariant: no worker outlives the parent, because each holds the end of a pipe that
closes with it; and nothing is restarted once the end has begun.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from secrets import token_hex
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import structlog
from msgspec import Struct

from replicator.app.collector import keep_what_is_imported
from replicator.app.lifetime import signals_to
from replicator.domain.errors import (
    EXIT_DRAIN_TIMED_OUT,
    EXIT_FAULT,
    EXIT_STOPPED,
    EXIT_UNREACHABLE,
    EXIT_USAGE,
    EXIT_WRONG_WORLD,
    ConfigurationInvalid,
    ReplicatorError,
)
from replicator.observability.logs import configure, written_aside
from replicator.observability.systemd import notify, watchdog

if TYPE_CHECKING:
    from replicator.settings import Settings

LIFELINE = "REPLICATOR_LIFELINE"
"""Names the descriptor of the pipe that closes with the parent."""

PROCESS = "REPLICATOR_PROCESS"
"""Holds the number of a worker."""

_MOST_WORKERS = 256
_LAST_PORT = 65535
_REFUSALS = frozenset({EXIT_USAGE, EXIT_UNREACHABLE, EXIT_WRONG_WORLD})
"""How a worker ends that cannot work as things are."""

_WORST_FIRST = (EXIT_FAULT, EXIT_USAGE, EXIT_WRONG_WORLD, EXIT_UNREACHABLE, EXIT_DRAIN_TIMED_OUT, EXIT_STOPPED)


class WorkersInvalid(ReplicatorError):
    """The number of workers is none."""

    advice = f"Write a number from 1 to {_MOST_WORKERS}, or auto for one per core."
    exit_code = EXIT_USAGE


class Patience(Struct, frozen=True):
    """Bounds of the parent, in seconds."""

    drain: float = 20.0
    """What workers have for themselves; `beyond` later they are killed."""
    beyond: float = 15.0
    first_pause: float = 1.0
    longest_pause: float = 30.0
    long_life: float = 60.0
    """A worker that ran for so long is started again after the first pause."""
    silence: float = 60.0
    """A worker that was ready and says nothing for so long hangs."""
    start: float = 300.0
    """And one that is not ready by then."""
    most_deaths: int = 5
    """So many in a row before it was ever ready end everything."""

    def deadline(self, child: _Child) -> float:
        """When a worker hangs that is not heard until then."""
        return child.heard_at + self.silence if child.is_ready else child.began_at + self.start


class Launch(Struct, frozen=True):
    """How one worker is started."""

    arguments: Sequence[str]
    environment: Mapping[str, str]


def number_of_workers(text: str) -> int:
    """What `--workers` says."""
    if text == "auto":
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        return min(cores, _MOST_WORKERS)
    number = int(text) if text.isascii() and text.isdecimal() and len(text) <= len(str(_MOST_WORKERS)) else 0
    if not 1 <= number <= _MOST_WORKERS:
        raise WorkersInvalid(f"--workers {text} is not a number of processes.")
    return number


def run_workers(settings: Settings, count: int, *, config_path: Path, strict: bool = False) -> int:
    """Run so many workers until a signal; returns the exit code: the worst of theirs."""
    launches = [launch_of(settings, index, count, config_path, strict=strict) for index in range(count)]
    keep_what_is_imported()
    with written_aside():
        configure(settings.log.level, settings.log.format)
        return asyncio.run(Workers(launches, Patience(drain=settings.drain.total_seconds())).run())


def launch_of(settings: Settings, index: int, count: int, config_path: Path, *, strict: bool = False) -> Launch:
    """One worker: the same configuration, but a port and a file of its own."""
    environment = {}
    if settings.admin.port:
        if settings.admin.port + count - 1 > _LAST_PORT:
            raise ConfigurationInvalid(
                f"admin.port: {count} workers need the ports from {settings.admin.port} on, and there are only"
                f" {_LAST_PORT - settings.admin.port + 1} left.",
                advice="Set a lower admin.port, or 0 for any free port.",
            )
        environment["REPLICATOR_ADMIN__PORT"] = str(settings.admin.port + index)
    if settings.conflicts.file is not None:
        file = settings.conflicts.file
        environment["REPLICATOR_CONFLICTS__FILE"] = str(file.with_name(f"{file.stem}-{index}{file.suffix}"))
    options = ["--strict"] if strict else []
    command = (sys.executable, "-m", "replicator", "run", "--config", str(config_path), *options)
    return Launch(command, environment)


class _Child(Struct):
    process: asyncio.subprocess.Process
    began_at: float
    heard_at: float
    is_ready: bool = False


class Workers:
    """The parent of some workers."""

    def __init__(self, launches: Sequence[Launch], patience: Patience) -> None:
        self._launches = launches
        self._patience = patience
        self._children: dict[int, _Child] = {}
        self._addresses: list[str] = []
        self._been_ready: set[int] = set()
        self._first_ready = asyncio.Event()
        self._stop = asyncio.Event()
        self._refusal: int | None = None
        self._lifeline = -1
        self._log = structlog.get_logger("replicator")

    async def run(self) -> int:
        """Until a signal, or until a worker cannot start; returns the exit code."""
        self._log.info("starting_workers", workers=len(self._launches), pid=os.getpid())
        with ExitStack() as stack:
            stack.enter_context(signals_to(self._signalled))
            if not sys.stderr.isatty():  # there it says that the terminal is gone
                stack.enter_context(signals_to(self._hung_up, [signal.SIGHUP]))
            self._lifeline, kept = os.pipe()
            stack.callback(os.close, kept)
            stack.callback(os.close, self._lifeline)
            self._listen(stack)
            codes = await self._keep_all()
        code = worst(codes) if self._refusal is None else self._refusal
        self._log.info("stopped", exit_code=code)
        return code

    async def _keep_all(self) -> list[int]:
        """The first worker starts alone: what is wrong with the world is found and reported once."""
        async with asyncio.TaskGroup() as group:
            services = [
                group.create_task(watchdog(lambda: True), name="watchdog"),
                group.create_task(self._end_the_silent(), name="silence"),
                group.create_task(self._end_the_late(), name="deadline"),
            ]
            keepers = [group.create_task(self._keep(0), name="worker 0")]
            await self._first_ready.wait()
            keepers += [
                group.create_task(self._keep(index), name=f"worker {index}") for index in range(1, len(self._launches))
            ]
            await asyncio.wait(keepers)
            for service in services:
                service.cancel()
        return [keeper.result() for keeper in keepers]

    # -- one worker ------------------------------------------------------------------------------------------------

    async def _keep(self, index: int) -> int:
        """Start a worker, and again when it dies, until the end; returns its last exit code."""
        short_lives = unready_deaths = 0
        while not self._stop.is_set():
            child = await self._start(index)
            code = await child.process.wait()
            del self._children[index]
            if self._stop.is_set():
                return _ended(code)
            lived = time.monotonic() - child.began_at
            short_lives = 0 if lived >= self._patience.long_life else short_lives + 1
            unready_deaths = 0 if child.is_ready else unready_deaths + 1
            refused = code in _REFUSALS and not self._been_ready & {index}
            if refused or unready_deaths >= self._patience.most_deaths:
                self._give_up(index, max(code, EXIT_FAULT))
                return EXIT_STOPPED
            pause = min(self._patience.longest_pause, self._patience.first_pause * 2 ** max(0, short_lives - 1))
            self._log.error("worker_died", process=index, exit_code=code, again_in_seconds=pause)
            with suppress(TimeoutError):
                await asyncio.wait_for(self._stop.wait(), pause)
        return EXIT_STOPPED

    async def _start(self, index: int) -> _Child:
        launch = self._launches[index]
        process = await asyncio.create_subprocess_exec(
            *launch.arguments,
            env={
                **os.environ,
                **launch.environment,
                LIFELINE: str(self._lifeline),
                PROCESS: str(index),
                "NOTIFY_SOCKET": self._addresses[index],
                "WATCHDOG_USEC": str(int(self._patience.silence * 1_000_000 / 3)),
            },
            pass_fds=[self._lifeline],
            start_new_session=True,  # a Ctrl-C reaches it once: from us
        )
        now = time.monotonic()
        child = self._children[index] = _Child(process, now, now)
        self._log.info("worker_started", process=index, pid=process.pid)
        if self._stop.is_set():
            process.terminate()
        return child

    def _give_up(self, index: int, code: int) -> None:
        """What one worker cannot do the others cannot do either."""
        self._log.error("worker_cannot_start", process=index, exit_code=code)
        self._refusal = self._refusal if self._refusal is not None else code
        self._end()

    # -- the end ---------------------------------------------------------------------------------------------------

    def _signalled(self) -> None:
        self._log.info("now" if self._stop.is_set() else "stopping", drain_seconds=self._patience.drain)
        self._end()

    def _hung_up(self) -> None:
        """Every worker that is ready looks at the configuration; one that is not has just read it."""
        for child in self._children.values():
            if child.is_ready:
                with suppress(ProcessLookupError):
                    child.process.send_signal(signal.SIGHUP)

    def _end(self) -> None:
        """Every worker gets one signal more: the first drains it, the second ends it."""
        notify("STOPPING=1")
        self._stop.set()
        self._first_ready.set()  # workers that did not start yet see the stop
        for child in self._children.values():
            with suppress(ProcessLookupError):
                child.process.terminate()

    async def _end_the_late(self) -> None:
        """Workers have a deadline of their own; this is for those that do not keep it."""
        await self._stop.wait()
        await asyncio.sleep(self._patience.drain + self._patience.beyond)
        self._kill(range(len(self._launches)), "worker_late")

    async def _end_the_silent(self) -> None:
        """A worker that hangs is killed, and started again as any other that died."""
        while not self._stop.is_set():
            await asyncio.sleep(self._patience.silence / 6)
            now = time.monotonic()
            silent = [index for index, child in self._children.items() if now > self._patience.deadline(child)]
            self._kill(silent, "worker_silent")

    def _kill(self, indices: Sequence[int], event: str) -> None:
        for index in indices:
            child = self._children.get(index)
            if child is not None:
                self._log.error(event, process=index, pid=child.process.pid)
                with suppress(ProcessLookupError):
                    child.process.kill()

    # -- notifications of workers ----------------------------------------------------------------------------------

    def _listen(self, stack: ExitStack) -> None:
        """A socket per worker, in the place of systemd's."""
        loop = asyncio.get_running_loop()
        if sys.platform == "linux":
            name = f"replicator-{os.getpid()}-{token_hex(8)}"
            self._addresses = [f"@{name}-{index}" for index in range(len(self._launches))]
        else:
            directory = stack.enter_context(TemporaryDirectory(prefix="replicator-"))
            self._addresses = [f"{directory}/{index}" for index in range(len(self._launches))]
        for index, address in enumerate(self._addresses):
            ear = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM))
            ear.bind(address.replace("@", "\0", 1) if address.startswith("@") else address)
            ear.settimeout(0)
            loop.add_reader(ear, self._hear, index, ear)
            stack.callback(loop.remove_reader, ear)

    def _hear(self, index: int, ear: socket.socket) -> None:
        with suppress(BlockingIOError):
            while True:
                lines = ear.recv(4096).decode(errors="replace").splitlines()
                child = self._children.get(index)
                if child is not None:
                    child.heard_at = time.monotonic()
                    child.is_ready = child.is_ready or "READY=1" in lines
                    self._note_ready(index, child)

    def _note_ready(self, index: int, child: _Child) -> None:
        """Notify the manager once, when all are ready."""
        if not child.is_ready or index in self._been_ready:
            return
        self._been_ready.add(index)
        self._first_ready.set()
        if len(self._been_ready) == len(self._launches):
            notify("READY=1")
            self._log.info("workers_ready", workers=len(self._launches))


def _ended(code: int) -> int:
    """The exit code of a worker that was asked to end; SIGTERM before it could handle it is a stop."""
    if code >= 0:
        return code
    return {-signal.SIGTERM: EXIT_STOPPED, -signal.SIGKILL: EXIT_DRAIN_TIMED_OUT}.get(code, EXIT_FAULT)


def worst(codes: Sequence[int]) -> int:
    """The exit code that explains most about what went wrong."""
    known = [code if code in _WORST_FIRST else EXIT_FAULT for code in codes]
    return min(known, key=_WORST_FIRST.index, default=EXIT_STOPPED)
