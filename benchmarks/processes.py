"""The daemon as a process of its own, as an operator starts it, and what the kernel says of a process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.integration.harness import CREDENTIALS

_LEAVE_SECONDS = 120.0


@contextmanager
def daemon(
    config: Path, log: Path, *, under: Sequence[str] = (), environment: Mapping[str, str] | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """Start `replicator run`, by another module of ours if `under` names one, and end it."""
    module = [*under, "replicator"] if under else ["replicator"]
    with log.open("ab") as output:
        process = subprocess.Popen(  # noqa: S603 - every argument is composed here
            [sys.executable, "-m", *module, "run", "--config", str(config)],
            stdout=output,
            stderr=output,
            env=surroundings() | CREDENTIALS | dict(environment or {}),
        )
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(_LEAVE_SECONDS)


def surroundings() -> dict[str, str]:
    """The environment, without what keeps bytecode from being written: an installed program has it."""
    return {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}


def cpu_seconds(pid: int) -> float:
    """Processor time so far, user and system."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def mebibytes(pid: int) -> float:
    """Resident memory."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmRSS")).split()[1]) / 1024
