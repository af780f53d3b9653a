"""A daemon under the sampling profiler."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

from tests.integration.harness import CREDENTIALS, Daemon
from tests.patience import PATIENT_SECONDS


class ProfiledProcess:
    """A process with an interpreter of its own."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process
        self.pid = process.pid

    def poll(self) -> int | None:
        """The exit code; None while it runs."""
        return self._process.poll()

    def wait(self, seconds: float) -> int:
        """The exit code, once it ended."""
        return self._process.wait(seconds)

    def signal(self, number: signal.Signals) -> None:
        """Send a signal, unless it has ended."""
        self._process.send_signal(number)

    def kill(self) -> None:
        """End it whatever it does."""
        self._process.kill()
        self._process.wait(PATIENT_SECONDS)


class ProfiledDaemon(Daemon):
    """One `replicator run` that writes, when it ends, where its processor time went (`benchmarks.sampling`)."""

    def __init__(self, config: Path, log: Path, profile: Path) -> None:
        self._profile = profile
        super().__init__(config, log)

    def start(self) -> None:
        """Start it."""
        with self.log.open("ab") as output:
            self._process = ProfiledProcess(
                subprocess.Popen(  # noqa: S603 - every argument is composed here
                    [
                        *(sys.executable, "-m", "benchmarks.sampling", str(self._profile)),
                        *("replicator", "run", "--config", str(self._config)),
                    ],
                    stdout=output,
                    stderr=output,
                    env={**os.environ, **CREDENTIALS},
                )
            )
