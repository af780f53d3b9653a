"""The laboratory as a child process, for demonstrations and for tests of real daemons.

Invariant: as with every server of the demo, no other process can have its port, and it ends with its parent.
"""

from __future__ import annotations

import json
import socket
import sys
import time
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from replicator.laboratory.servers import LOOPBACK, READY_SECONDS, Child, clean_environment
from replicator.laboratory.streamlab.refusals import Refused

COMMAND_SECONDS: Final = 60.0
_POLL_SECONDS: Final = 0.02
_OK: Final = 200


@dataclass(frozen=True, slots=True)
class StreamLab:
    """A running laboratory. Its calls block: from a loop, run them in a thread."""

    url: str
    port: int
    child: Child

    @classmethod
    def start(cls, directory: Path, upstream: str, *, seed: int = 0, **options: Any) -> Self:
        """Start it in front of the MiniStack at `upstream`, with its log in `directory`, and wait until it answers."""
        with socket.socket() as listener:
            listener.bind((LOOPBACK, 0))
            port = int(listener.getsockname()[1])
            child = Child.spawn(
                "The stream laboratory",
                [
                    *("exec", sys.executable, "-m", "replicator.laboratory.streamlab"),
                    *("--upstream", upstream, "--seed", str(seed), "--descriptor", str(listener.fileno())),
                    *(f"--option={name}={json.dumps(value)}" for name, value in options.items()),
                ],
                log=directory / f"streamlab-{port}.log",
                environment=clean_environment(),
                descriptors=[listener.fileno()],
            )
        lab = cls(f"http://{LOOPBACK}:{port}", port, child)
        try:
            lab._wait()
        except BaseException:
            child.stop()
            raise
        return lab

    def command(self, name: str, **arguments: Any) -> Any:
        """Run a command; returns its result, raises `Refused`."""
        return self._ask("POST", name, arguments)["result"]

    def stats(self) -> dict[str, Any]:
        """What was counted."""
        return dict(self._ask("GET", "stats"))

    def streams(self) -> list[dict[str, Any]]:
        """Every stream with its shards."""
        return list(self._ask("GET", "streams"))

    def stop(self) -> None:
        """End it."""
        self.child.stop()

    def _wait(self) -> None:
        deadline = time.monotonic() + READY_SECONDS
        while not self._answers():
            if not self.child.alive:
                raise self.child.failed(f"ended with exit code {self.child.process.returncode} before it was ready")
            if time.monotonic() > deadline:
                raise self.child.failed(f"was not ready after {READY_SECONDS:.0f} s")
            time.sleep(_POLL_SECONDS)

    def _answers(self) -> bool:
        try:
            self.stats()
        except (OSError, HTTPException):
            return False
        return True

    def _ask(self, method: str, name: str, body: dict[str, Any] | None = None) -> Any:
        connection = HTTPConnection(LOOPBACK, self.port, timeout=COMMAND_SECONDS)
        try:
            connection.request(method, f"/_lab/{name}", None if body is None else json.dumps(body))
            answer = connection.getresponse()
            document = json.loads(answer.read())
        finally:
            connection.close()
        if answer.status != _OK:
            raise Refused(str(document.get("error")))
        return document

    def __enter__(self) -> Self:
        """The running laboratory."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """End it."""
        self.stop()
