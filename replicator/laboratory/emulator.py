"""The function under its real runtime client (`awslambdaric`) and AWS's runtime interface emulator, as child processes.

The emulator is one execution environment: one invocation at a time, and one that outlives its time is ended, with its
process. Its program is found by the variable `AWS_LAMBDA_RIE` or on the path as `aws-lambda-rie`.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from http.client import HTTPConnection
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Self

from replicator.domain.errors import ReplicatorError
from replicator.laboratory.servers import LOOPBACK, READY_SECONDS, Child, ServerFailed, clean_environment, free_ports

HANDLER = "replicator.lambda_handler.handler"
VARIABLE = "AWS_LAMBDA_RIE"
_PATH = "/2015-03-31/functions/function/invocations"
_POLL_SECONDS = 0.05


class InvocationFailed(ReplicatorError):
    """An invocation ended without an answer of the handler."""


def missing() -> str | None:
    """What keeps the emulator from being used; None when nothing does."""
    if program() is None:
        return f"aws-lambda-rie is neither on the path nor named by {VARIABLE}"
    return None if find_spec("awslambdaric") else "awslambdaric is not installed (requirements/function.txt)"


def program() -> str | None:
    """The emulator's program, if there is one."""
    return os.environ.get(VARIABLE) or shutil.which("aws-lambda-rie")


@dataclass(frozen=True, slots=True)
class Emulator:
    """One execution environment of the function."""

    port: int
    seconds: int
    child: Child

    @classmethod
    def start(cls, directory: Path, variables: Mapping[str, str], *, seconds: int = 30) -> Self:
        """Start it with its log in `directory`; `variables`: the function's; `seconds`: of an invocation."""
        found = program()
        assert found is not None, "asked before"
        port = free_ports(2)
        addresses = ("--runtime-interface-emulator-address", f"{LOOPBACK}:{port}")
        runtime = ("--runtime-api-address", f"{LOOPBACK}:{port + 1}")
        child = Child.spawn(
            "The emulator of the function's runtime",
            ["exec", found, *addresses, *runtime, sys.executable, "-m", "awslambdaric", HANDLER],
            log=directory / f"function-{port}.log",
            environment=clean_environment() | dict(variables) | {"AWS_LAMBDA_FUNCTION_TIMEOUT": str(seconds)},
        )
        emulator = cls(port, seconds, child)
        try:
            emulator._wait()
        except BaseException:
            child.stop()
            raise
        return emulator

    def handle(self, event: Mapping[str, Any], milliseconds: int) -> Any:
        """The function's answer; raises when it gave none. The time of an invocation is the environment's own."""
        del milliseconds
        connection = HTTPConnection(LOOPBACK, self.port, timeout=self.seconds + READY_SECONDS)
        try:
            connection.request("POST", _PATH, json.dumps(event))
            answer = connection.getresponse().read()
        finally:
            connection.close()
        with suppress(ValueError):
            found = json.loads(answer)
            if isinstance(found, dict) and "batchItemFailures" in found:
                return found
        raise InvocationFailed(f"The function answered {answer[:200]!r}.")

    @property
    def runtime(self) -> int | None:
        """The function's process, if there is one now: one that ended is replaced by the next invocation."""
        threads = Path(f"/proc/{self.child.process.pid}/task").glob("*/children")
        return next((int(pid) for each in threads for pid in each.read_text().split()), None)

    def close(self) -> None:
        """End it, and the function's process with it."""
        self.child.stop()

    def _wait(self) -> None:
        deadline = time.monotonic() + READY_SECONDS
        while True:
            connection = HTTPConnection(LOOPBACK, self.port, timeout=1)
            try:
                connection.connect()
            except OSError:
                if not self.child.alive:
                    raise self.child.failed("ended before it was ready") from None
                if time.monotonic() > deadline:
                    raise ServerFailed(f"{self.child.name} does not listen.") from None
                time.sleep(_POLL_SECONDS)
            else:
                return
            finally:
                connection.close()
