"""Runs the commands of a page as they stand, in one shell, from an empty directory, against local servers.

`aws` is a stand-in for the AWS command line at that server; where helm is at hand, `kubectl` and `helm` stand in for a
cluster (`cluster.py`).
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from replicator.laboratory.servers import MiniStack, clean_environment, free_port
from tests.patience import PATIENT_SECONDS
from tests.tutorial.cluster import stop
from tests.tutorial.pages import Page

HERE = Path(__file__).parent
_LONGEST_SECONDS = 4 * PATIENT_SECONDS
"""A page starts forty processes, one after the other."""


def run(page: Page, directory: Path, *, first: str = "", tree: Path | None = None, helm: str | None = None) -> str:
    """Fails when a command does, or when a line that the page shows was not printed; returns what was.

    `first`: commands before those of the page. `tree`: a source tree that stands for the clone in which they are typed.
    """
    work, programs = directory / "work", directory / "bin"
    for each in (work, programs):
        each.mkdir()
    for path in () if tree is None else tree.iterdir():
        (work / path.name).symlink_to(path)
    for name, text in page.files.items():
        (work / name).write_text(text)
    _stand_in(programs / "aws", HERE / "aws.py")
    if helm is not None:
        for name in ("helm", "kubectl"):
            _stand_in(programs / name, HERE / "cluster.py", name)
    script = "set -emx\ntrap 'jobs -p | xargs -r kill' EXIT\n" + "\n".join([first, *page.commands]) + "\n"
    with MiniStack.start(directory) as server:
        environment = clean_environment() | {
            "LOCAL_DYNAMODB": server.endpoint_url,
            "LOCAL_CLUSTER": str(directory / "cluster"),
            "HELM": helm or "",
            "REPLICATOR_ADMIN__PORT": str(free_port()),
            "PATH": f"{programs}:{Path(sys.executable).parent}:/usr/bin:/bin",
            **{f"REPLICATOR_REGIONS__{name}__ENDPOINT_URL": server.endpoint_url for name in ("US", "EU")},
        }
        try:
            done = subprocess.run(
                ["bash", "-c", script],
                cwd=work,
                env=environment,
                capture_output=True,
                text=True,
                timeout=_LONGEST_SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired as late:
            raise AssertionError(f"it hangs: {(late.stderr or b'').decode()[-2000:]}") from late
        finally:
            stop(directory / "cluster")
    logs = "".join(log.read_text() for log in [*work.glob("*.log"), *directory.glob("cluster/*.log")])
    assert done.returncode == 0, f"{done.stderr[-4000:]}\n{done.stdout[-2000:]}\n{logs[-8000:]}"
    assert [line for line in page.shown if line not in done.stdout.splitlines()] == []
    assert "Traceback" not in done.stdout + done.stderr + logs
    return done.stdout


def _stand_in(path: Path, script: Path, *words: str) -> None:
    path.write_text(f'#!/bin/sh\nexec {sys.executable} {script} {" ".join(words)} "$@"\n')
    path.chmod(0o755)
