"""A daemon under the sampling profiler."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.integration.harness import CREDENTIALS, Daemon
from tests.integration.own_process import OwnProcess


class ProfiledDaemon(Daemon):
    """One `replicator run` that writes, when it ends, where its processor time went (`benchmarks.sampling`)."""

    def __init__(self, config: Path, log: Path, profile: Path) -> None:
        self._profile = profile
        super().__init__(config, log)

    def start(self) -> None:
        """Start it."""
        with self.log.open("ab") as output:
            self._process = OwnProcess(
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
