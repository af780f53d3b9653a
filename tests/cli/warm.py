"""The program as a process, without paying for its imports every time.

One process per test process imports everything once; each command then is a fork of it, with arguments, environment and
output files of its own: run to its end, or left to run beside the test. It ends when its standard input does.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import pty
import select
import signal
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from pkgutil import iter_modules
from tempfile import TemporaryDirectory
from typing import Any

from replicator.laboratory.servers import clean_environment
from tests.patience import PATIENT_SECONDS

_PRELOADED = [
    "aiobotocore.session",
    "aiohttp.web",
    "concurrent.futures.thread",
    "replicator.adapters.redis.cluster",
    "replicator.adapters.redis.opening",
    "replicator.app.daemon",
    "replicator.app.supervisor",
    "replicator.checks.creation",
    "replicator.checks.survey",
    "typer._adapters",
    "typer._click.decorators",
    "uvloop",
]
"""What commands import as they need it, beside their own modules."""

_TURN = threading.Lock()


def command(arguments: Sequence[str], environment: Mapping[str, str]) -> tuple[int, str, str]:
    """Run a command to its end; returns exit code, standard output, standard error."""
    with TemporaryDirectory() as name:
        output, errors = Path(name) / "output", Path(name) / "errors"
        code = started(arguments, environment, output, errors).wait(PATIENT_SECONDS)
        return code, output.read_text(), errors.read_text()


def on_terminal(arguments: Sequence[str], environment: Mapping[str, str], columns: int = 80) -> tuple[int, str]:
    """Run a command to its end on a terminal so wide; returns its exit code and what it wrote there."""
    ours, theirs = pty.openpty()
    terminal = Path(os.ttyname(theirs))
    own = {"COLUMNS": str(columns), "TERM": "dumb", "NO_COLOR": "1"}
    running = started(arguments, {**environment, **own}, terminal, terminal)
    written = b""
    while running.poll() is None:
        if select.select([ours], [], [], 0.05)[0]:
            written += os.read(ours, 65_536)
    os.close(theirs)
    with suppress(OSError):  # how a terminal ends that is open nowhere else
        while data := os.read(ours, 65_536):
            written += data
    os.close(ours)
    return running.wait(PATIENT_SECONDS), written.decode().replace("\r\n", "\n")


def started(arguments: Sequence[str], environment: Mapping[str, str], output: Path, errors: Path) -> Running:
    """Start a command; what it says is appended to the files."""
    request = {
        "arguments": list(arguments),
        "environment": clean_environment() | dict(environment),
        "files": [str(output), str(errors)],
    }
    return Running(_ask(request))


class Running:
    """A command that runs."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._code: int | None = None

    def poll(self) -> int | None:
        """The exit code, as subprocess tells it; None while it runs."""
        if self._code is None:
            self._code = _ask({"poll": self.pid})
        return self._code

    def wait(self, seconds: float) -> int:
        """The exit code, once it ended."""
        deadline = time.monotonic() + seconds
        pause = 0.001
        while (code := self.poll()) is None:
            assert time.monotonic() < deadline, f"process {self.pid} did not end within {seconds} s"
            time.sleep(pause)
            pause = min(pause * 1.5, 0.05)
        return code

    def signal(self, number: signal.Signals) -> None:
        """Send a signal, unless it has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """End it whatever it does."""
        self.signal(signal.SIGKILL)
        self.wait(PATIENT_SECONDS)


def _ask(request: Mapping[str, object]) -> Any:
    process = _process()
    assert process.stdin is not None
    assert process.stdout is not None
    with _TURN:  # tests ask from several threads
        process.stdin.write(json.dumps(request) + "\n")
        process.stdin.flush()
        return json.loads(process.stdout.readline())


def end() -> None:
    """End the process that serves this one, if there is any, and wait for it: so its time is counted."""
    if _process.cache_info().currsize:
        process = _process()
        _process.cache_clear()
        process.communicate(timeout=PATIENT_SECONDS)


@cache
def _process() -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "tests.cli.warm"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


def _serve() -> None:
    from importlib import import_module

    import replicator.cli

    for module in (*_PRELOADED, *(f"replicator.cli.{own.name}" for own in iter_modules(replicator.cli.__path__))):
        import_module(module)
    _parse_what_clients_read()
    _make_what_every_command_makes()
    gc.freeze()
    for line in sys.stdin:
        request = json.loads(line)
        if "poll" in request:
            child, status = os.waitpid(request["poll"], os.WNOHANG)
            answer = os.waitstatus_to_exitcode(status) if child else None
        else:
            answer = os.fork()
            if answer == 0:
                _become(request["arguments"], request["environment"], request["files"])
        print(json.dumps(answer), flush=True)  # noqa: T201 - the answer


def _parse_what_clients_read() -> None:
    """Descriptions of the services, which every command would parse by itself."""
    from replicator.adapters.aws.descriptions import service_descriptions

    loader = service_descriptions(None)
    for service in ("dynamodb", "dynamodbstreams"):
        for kind in ("service-2", "endpoint-rule-set-1"):
            loader.load_service_model(service, kind)
    for name in ("endpoints", "partitions", "sdk-default-configuration"):
        loader.load_data(name)


def _make_what_every_command_makes() -> None:
    """The tree of commands, and what a session and its clients know of their handlers."""
    import botocore.hooks
    import typer.main
    from aiobotocore.session import AioSession

    from replicator.cli.commands import app

    typer.main.get_command = cache(typer.main.get_command)
    typer.main.get_command(app)
    botocore.hooks.accepts_kwargs = cache(botocore.hooks.accepts_kwargs)
    aliases: Any = botocore.hooks.EventAliaser
    alias_of = cache(aliases(botocore.hooks.HierarchicalEmitter())._alias_event_name)
    aliases._alias_event_name = lambda _, name: alias_of(name)
    session: Any = AioSession()
    session.set_credentials("none", "none")

    async def make_clients() -> None:
        for service in ("dynamodb", "dynamodbstreams"):
            async with session.create_client(service, region_name="us-east-1"):
                pass

    asyncio.run(make_clients())


def _become(arguments: list[str], environment: dict[str, str], files: list[str]) -> None:
    """Be the program: nothing of the parent is left but its imports."""
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = ["replicator", *arguments]
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    for descriptor, file in enumerate(files, start=1):
        os.dup2(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND), descriptor)
    if not stat.S_ISREG(os.fstat(1).st_mode):  # streams of a file believe that they can seek
        sys.stdout, sys.stderr = os.fdopen(1, "w", 1, "utf-8"), os.fdopen(2, "w", 1, "utf-8")
    from replicator.__main__ import main

    code = 1
    try:
        main()
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    _serve()
