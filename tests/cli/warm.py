"""The program as a process, without paying for its imports every time.

One process per test process imports everything once; each command then is a fork of it, with arguments, environment and
output files of its own. It ends when its standard input does.
"""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

from replicator.demo.servers import clean_environment

_PRELOADED = [
    "replicator.app",
    "replicator.cli.boundary",
    "replicator.cli.check",
    "replicator.cli.commands",
    "replicator.cli.init",
    "replicator.cli.inspect",
    "replicator.cli.rules",
    "replicator.cli.schema",
    "replicator.cli.status",
    "replicator.adapters.provisioning.check",
    "replicator.adapters.provisioning.creation",
]


def command(arguments: Sequence[str], environment: Mapping[str, str]) -> tuple[int, str, str]:
    """Run a command to its end; returns exit code, standard output, standard error."""
    process = _process()
    assert process.stdin is not None
    assert process.stdout is not None
    with TemporaryDirectory() as name:
        output, errors = Path(name) / "output", Path(name) / "errors"
        request = {
            "arguments": list(arguments),
            "environment": clean_environment() | dict(environment),
            "files": [str(output), str(errors)],
        }
        process.stdin.write(json.dumps(request) + "\n")
        process.stdin.flush()
        code = int(process.stdout.readline())
        return code, output.read_text(), errors.read_text()


@cache
def _process() -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "tests.cli.warm"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


def _serve() -> None:
    from importlib import import_module

    for module in _PRELOADED:
        import_module(module)
    gc.freeze()
    for line in sys.stdin:
        request = json.loads(line)
        child = os.fork()
        if child == 0:
            _become(request["arguments"], request["environment"], request["files"])
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)  # noqa: T201 - the answer


def _become(arguments: list[str], environment: dict[str, str], files: list[str]) -> None:
    """Be the program: nothing of the parent is left but its imports."""
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = ["replicator", *arguments]
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    for descriptor, file in enumerate(files, start=1):
        os.dup2(os.open(file, os.O_WRONLY | os.O_CREAT), descriptor)
    from replicator.cli.boundary import run

    code = 1
    try:
        code = run()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    _serve()
