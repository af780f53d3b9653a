"""A signal while the program starts, also to process 1, for which the kernel drops a signal without a handler."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import pytest
import yaml

from replicator.laboratory.servers import clean_environment
from tests.cli.worlds import REGIONS
from tests.patience import PATIENT_SECONDS

EXAMPLE = Path(__file__).parents[2] / "config" / "replicator.yaml"
SLOW_MODULE = """
import pathlib, time
pathlib.Path({mark!r}).touch()
while True:
    time.sleep(0.05)
"""


@cache
def _namespaces() -> tuple[str, ...]:
    """What makes a program process 1 of a namespace of its own; nothing where that is not permitted."""
    program = shutil.which("unshare")
    for command in (("--pid", "--fork"), ("--user", "--map-root-user", "--pid", "--fork")):
        if program and subprocess.run([program, *command, "true"], capture_output=True, check=False).returncode == 0:
            return (program, *command, "--kill-child")
    return ()


@contextmanager
def _starting(
    arguments: Sequence[str], environment: Mapping[str, str], *, alone: bool = True
) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """The program, as process 1 where that is permitted and it is to be `alone`, and its id as this process sees it.

    As any other process it would end by the signal, with another exit code.
    """
    prefix = _namespaces() if alone else ()
    process = subprocess.Popen(
        [*prefix, sys.executable, "-m", "replicator", *arguments],
        env={**clean_environment(), "REPLICATOR_CONFIG": str(EXAMPLE), **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        yield process, _child_of(process.pid) if prefix else process.pid
    finally:
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


def _child_of(pid: int) -> int:
    children = Path(f"/proc/{pid}/task/{pid}/children")
    deadline = time.monotonic() + PATIENT_SECONDS
    while not (found := children.read_text().split()):
        assert time.monotonic() < deadline, "no process was made"
        time.sleep(0.005)
    return int(found[0])


def _await(path: Path, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + PATIENT_SECONDS
    while not path.exists():
        assert process.poll() is None, process.stdout.read() if process.stdout else ""
        assert time.monotonic() < deadline, f"{path.name} does not appear"
        time.sleep(0.005)


def _slow(directory: Path, module: str) -> dict[str, str]:
    """An environment in which a package takes for ever to be imported."""
    (directory / f"{module}.py").write_text(SLOW_MODULE.format(mark=str(directory / "begun")))
    return {"PYTHONPATH": str(directory)}


@pytest.mark.parametrize(
    ("arguments", "module", "number"),
    [
        (("run",), "aiohttp", signal.SIGTERM),
        (("run",), "aiohttp", signal.SIGINT),
        (("-c", str(EXAMPLE), "run"), "pydantic", signal.SIGTERM),
        (("run", "--workers=2"), "structlog", signal.SIGTERM),
        (("run", "--workers=2"), "typer", signal.SIGTERM),
        (("run",), "uvloop", signal.SIGTERM),
    ],
    ids=["the first import", "Ctrl-C", "the configuration", "the workers", "arguments of another form", "the loop"],
)
def test_a_daemon_that_is_still_imported_stops_at_once_and_in_order(
    tmp_path: Path, arguments: tuple[str, ...], module: str, number: signal.Signals
) -> None:
    with _starting(arguments, _slow(tmp_path, module)) as (process, pid):
        _await(tmp_path / "begun", process)
        os.kill(pid, number)
        assert process.communicate(timeout=PATIENT_SECONDS)[0] == ""
        assert process.returncode == 0


@pytest.mark.parametrize("module", ["pydantic", "uvloop"])
def test_a_request_to_read_the_configuration_again_ends_no_daemon_that_starts(tmp_path: Path, module: str) -> None:
    """systemd would take it for one that ended in order, and start no other one."""
    with _starting(["run"], _slow(tmp_path, module), alone=False) as (process, pid):
        _await(tmp_path / "begun", process)
        os.kill(pid, signal.SIGHUP)
        time.sleep(0.2)
        os.kill(pid, signal.SIGTERM)
        assert process.communicate(timeout=PATIENT_SECONDS)[0] == ""
        assert process.returncode == 0


def test_a_daemon_that_waits_for_an_answer_before_its_start_stops_at_once(tmp_path: Path) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        silent.settimeout(PATIENT_SECONDS)
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        config = {
            "group": "test",
            "regions": {region: {"region": name, "endpoint_url": url} for region, name in REGIONS.items()},
            "coordination": {"region": "us"},
            "admin": {"port": 0},
            "apply": {"read_timeout": "10m"},
            "drain": "10m",
            "rules": [{"name": "orders", "table": "orders", "source": "us", "replicas": ["eu"]}],
        }
        (tmp_path / "replicator.yaml").write_text(yaml.safe_dump(config))
        environment = {"REPLICATOR_CONFIG": str(tmp_path / "replicator.yaml"), "AWS_ACCESS_KEY_ID": "test"}
        with _starting(["run"], environment) as (process, pid):
            asked, _ = silent.accept()
            with asked:
                os.kill(pid, signal.SIGTERM)
                said, _ = process.communicate(timeout=PATIENT_SECONDS)
    assert process.returncode == 0, said
    assert "stopped" in said


def test_another_command_that_is_ended_does_not_say_that_it_did_its_work(tmp_path: Path) -> None:
    with _starting(["--config", "run", "status"], _slow(tmp_path, "typer")) as (process, pid):
        _await(tmp_path / "begun", process)
        os.kill(pid, signal.SIGTERM)
        assert process.wait(PATIENT_SECONDS) == 143


def test_ctrl_c_ends_another_command_without_a_traceback(tmp_path: Path) -> None:
    with _starting(["status"], _slow(tmp_path, "typer")) as (process, pid):
        _await(tmp_path / "begun", process)
        os.kill(pid, signal.SIGINT)
        assert process.communicate(timeout=PATIENT_SECONDS)[0] == ""
        assert process.returncode == 130
