"""The tutorial runs as it stands: every command of the page, in its order, in one shell, from an empty directory."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from replicator.laboratory.servers import MiniStack, clean_environment
from tests.patience import PATIENT_SECONDS

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "tutorial.md"
pytestmark = [pytest.mark.servers, pytest.mark.long]


def told(page: str) -> tuple[list[str], list[str], str]:
    """The commands of a page, the lines that it shows as their output, and its configuration."""
    blocks = re.findall(r"^```console\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    lines = [line for block in blocks for line in block.splitlines()]
    (configuration,) = re.findall(r"^```yaml\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    commands = [line[2:] for line in lines if line.startswith("$ ")]
    return commands, [line for line in lines if not line.startswith("$ ")], configuration


def test_every_command_of_the_tutorial_does_what_the_page_says(tmp_path: Path) -> None:
    commands, shown, configuration = told(PAGE.read_text())
    assert len(commands) > 25
    work, programs = tmp_path / "work", tmp_path / "bin"
    for directory in (work, programs):
        directory.mkdir()
    (work / "replicator.yaml").write_text(configuration)
    aws = programs / "aws"
    aws.write_text(f'#!/bin/sh\nexec {sys.executable} {Path(__file__).with_name("aws.py")} "$@"\n')
    aws.chmod(0o755)
    with MiniStack.start(tmp_path) as server:
        environment = clean_environment() | {
            "LOCAL_DYNAMODB": server.endpoint_url,
            "PATH": f"{programs}:{Path(sys.executable).parent}:/usr/bin:/bin",
            **{f"REPLICATOR_REGIONS__{name}__ENDPOINT_URL": server.endpoint_url for name in ("US", "EU")},
        }
        script = "set -emx\ntrap 'kill %1' EXIT\n" + "\n".join(commands) + "\ntrap - EXIT\n"
        done = subprocess.run(
            ["bash", "-c", script],
            cwd=work,
            env=environment,
            capture_output=True,
            text=True,
            timeout=PATIENT_SECONDS,
            check=False,
        )
    log = work / "worker.log"
    assert done.returncode == 0, (
        f"{done.stderr[-4000:]}\n{done.stdout[-2000:]}\n{log.read_text() if log.exists() else ''}"
    )
    assert [line for line in shown if line not in done.stdout.splitlines()] == []
    assert "Traceback" not in done.stdout + done.stderr + log.read_text()
