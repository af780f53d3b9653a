"""What a start costs: processor time from the start of the process until it is ready, and memory with one shard.

    python -m benchmarks.starting --rounds 5
    python -m benchmarks.starting --imports 25

Each round starts `replicator run` as a process of its own, the way an operator does, on local servers. Ready is
what the notify socket reports. `--imports N` also names the N modules whose own code takes longest to
import until then.
"""

from __future__ import annotations

import argparse
import asyncio
import re
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.processes import cpu_seconds, mebibytes, surroundings
from tests.integration.harness import CREDENTIALS, World, open_world

CPU_BOUND = 0.7
"""Seconds of processor time until ready."""

MEMORY_BOUND = 90.0
"""Mebibytes with one shard."""

_READY_SECONDS = 120.0
_SETTLED_SECONDS = 3.0
_IMPORT = re.compile(r"import time:\s+(\d+) \|\s+(\d+) \| +(\S+)")


@dataclass(frozen=True, slots=True)
class Start:
    """One start."""

    cpu_seconds: float
    wall_seconds: float
    mebibytes: float
    """A few seconds later, with its shard."""


@contextmanager
def _manager(directory: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        place = directory / "notify"
        place.unlink(missing_ok=True)
        manager.bind(str(place))
        manager.settimeout(_READY_SECONDS)
        yield manager


def start(world: World, config: Path, *options: str) -> tuple[Start, str]:
    """Start it, look, and end it; also what it said."""
    log = world.directory / "starting.log"
    with _manager(world.directory) as manager, log.open("wb") as output:
        environment = surroundings() | CREDENTIALS | {"NOTIFY_SOCKET": str(manager.getsockname())}
        began = time.monotonic()
        process = subprocess.Popen(  # noqa: S603 - every argument is composed here
            [sys.executable, *options, "-m", "replicator", "run", "--config", str(config)],
            stdout=output,
            stderr=output,
            env=environment,
        )
        try:
            while manager.recv(4096) != b"READY=1":
                pass
            spent, wall = cpu_seconds(process.pid), time.monotonic() - began
            time.sleep(_SETTLED_SECONDS)
            found = Start(spent, wall, mebibytes(process.pid))
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(_READY_SECONDS)
    return found, log.read_text()


def imports(said: str, count: int) -> list[str]:
    """The modules that took longest by themselves, and all of them together."""
    taken = [(int(own), name) for own, _, name in _IMPORT.findall(said)]
    whole = sum(own for own, _ in taken)
    lines = [f"{own / 1000:8.1f} ms  {name}" for own, name in sorted(taken, reverse=True)[:count]]
    return [f"{whole / 1000:8.1f} ms  {len(taken)} modules", *lines]


def main() -> int:
    """Parse, start, report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--imports", type=int, default=0, metavar="N")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory, open_world(Path(directory)) as world:
        asyncio.run(world.create_tables())
        config = world.write_settings(world.settings(coordination={"region": "us"}, polling={}, apply={}))
        world.initialise(config)
        start(world, config)  # writes the bytecode
        starts = [start(world, config)[0] for _ in range(options.rounds)]
        said = start(world, config, "-X", "importtime")[1] if options.imports else ""
    cpu = statistics.median(each.cpu_seconds for each in starts)
    memory = max(each.mebibytes for each in starts)
    spread = sorted(each.cpu_seconds for each in starts)
    wall = statistics.median(each.wall_seconds for each in starts)
    print(f"start to ready: {cpu:.2f} s of processor time ({spread[0]:.2f} to {spread[-1]:.2f}), {wall:.2f} s in all")
    print(f"memory with one shard: {memory:.0f} MiB")
    for line in imports(said, options.imports) if options.imports else ():
        print(line)
    met = cpu < CPU_BOUND and memory < MEMORY_BOUND
    print(f"verdict: {'bounds met' if met else 'BOUNDS MISSED'}")
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
