"""Daemons on a world of the command line: started, watched and ended.

Every wait has a bound that a machine many times slower than needed keeps: a bound is there to end a test that hangs.
"""

from __future__ import annotations

import signal
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from replicator.laboratory.servers import free_ports
from tests.cli.warm import Running, started
from tests.cli.worlds import World
from tests.patience import PATIENT_SECONDS

_MOST_WORKERS = 3


def wait_until(holds: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + PATIENT_SECONDS
    while not holds():
        assert time.monotonic() < deadline, what
        time.sleep(0.05)


@dataclass(frozen=True)
class Daemon:
    """One `replicator run` and where it tells things."""

    process: Running
    log: Path
    port: int

    def said(self) -> str:
        return self.log.read_text()

    def answers(self, path: str) -> str | None:
        """What its admin server says with 200; None when it says something else or nothing."""
        assert self.process.poll() is None, self.said()
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=60) as answer:
                return answer.read().decode() if answer.status == 200 else None
        except (urllib.error.URLError, OSError):
            return None

    def is_ready(self) -> bool:
        return self.answers("/readyz") is not None

    def await_ready(self) -> None:
        wait_until(self.is_ready, "the daemon is not ready")

    def stop(self) -> int:
        """SIGTERM; returns the exit code."""
        self.process.signal(signal.SIGTERM)
        return self.process.wait(PATIENT_SECONDS)


@contextmanager
def running(world: World, *arguments: str, name: str = "daemon") -> Iterator[Daemon]:
    """`replicator run`, from its first moment on; killed at the end if it still runs."""
    world.config["coordination"]["lease"] = "5s"  # a busy machine ends no session
    world.config["admin"]["port"] = free_ports(_MOST_WORKERS)
    log = world.directory / f"{name}.log"
    log.touch()
    daemon = Daemon(started(["run", *arguments], world.environment, log, log), log, world.config["admin"]["port"])
    try:
        yield daemon
    finally:
        daemon.process.kill()


def owners(world: World) -> dict[str, set[str]]:
    """Who owns shards, by the region of their stream, as the coordination table has it."""
    found: dict[str, set[str]] = {}
    for row in world.items("us", "replicator-coordination"):
        if row["sk"]["S"].startswith("shard|") and "owner" in row:
            found.setdefault(row["pk"]["S"].split("|")[1], set()).add(row["owner"]["S"])
    return found
