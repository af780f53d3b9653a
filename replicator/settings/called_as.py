"""How this program was called, for commands that are shown so that they work as they stand."""

from __future__ import annotations

import shlex
import shutil
import sys
from pathlib import Path


def program() -> str:
    """The program as a shell finds it from here."""
    called = sys.argv[0]
    if Path(called).name != "replicator":
        return f"{sys.executable} -m replicator" if Path(called).name == "__main__.py" else "replicator"
    found = shutil.which("replicator")
    return "replicator" if found and Path(found).resolve() == Path(called).resolve() else shlex.quote(called)
