"""The development environment `.venv`: exactly what requirements/dev.txt pins, and the program itself.

Needs Python, pip and venv only. The lock is complete, so pip resolves nothing: it installs what the lock names and
`pip check` then judges the result; what else an index lists by then has no say. The last step writes what the
environment was made from into a stamp; while that still holds nothing is done. Otherwise the environment is made anew,
because a leftover of an interrupted installation, of another checkout or of an older lock cannot be told from what
belongs there. If only the program's own metadata changed, only the program is installed again.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
STAMP = VENV / "made-from.json"
LOCK = ROOT / "requirements" / "dev.txt"
# What is imported compiles itself; compiling everything would take longer than the rest of the installation.
PIP = ("-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-input", "--no-compile")


def main() -> int:
    """Bring the environment up to date; returns the exit code."""
    lock = os.open(LOCK.parent, os.O_RDONLY)
    fcntl.flock(lock, fcntl.LOCK_EX)  # two makes at once: the second one waits and finds the work done
    wanted, found = _wanted(), _found()
    if wanted == found:
        return 0
    STAMP.unlink(missing_ok=True)
    python = str(VENV / "bin" / "python")
    try:
        if {**wanted, "program": None} != {**found, "program": None}:
            print("Making .venv from requirements/dev.txt", file=sys.stderr)
            subprocess.run([_interpreter(), "-m", "venv", "--clear", str(VENV)], check=True)
            subprocess.run([python, *PIP, "--no-deps", "--require-hashes", "-r", str(LOCK)], check=True)
        subprocess.run([python, *PIP, "--no-deps", "--no-build-isolation", "--editable", str(ROOT)], check=True)
        subprocess.run([python, "-m", "pip", "--disable-pip-version-check", "check"], check=True, stdout=sys.stderr)
    except subprocess.CalledProcessError as error:
        print(f"The environment could not be made: {' '.join(error.cmd)} failed.", file=sys.stderr)
        return 1
    STAMP.write_text(json.dumps(wanted, indent=2))
    return 0


def _wanted() -> dict[str, str]:
    document = tomllib.loads((ROOT / "pyproject.toml").read_text())
    program = {key: document.get(key) for key in ("build-system", "project")}
    return {
        "checkout": str(ROOT),
        "interpreter": f"{_interpreter()} {sys.version}",
        "lock": hashlib.sha256(LOCK.read_bytes()).hexdigest(),
        "program": hashlib.sha256(json.dumps(program, sort_keys=True).encode()).hexdigest(),
    }


def _found() -> dict[str, str]:
    try:
        content: dict[str, str] = json.loads(STAMP.read_text())
    except (OSError, ValueError):
        return {}
    return content


def _interpreter() -> str:
    """The Python outside of any environment, so that an activated `.venv` does not found itself."""
    return os.path.realpath(getattr(sys, "_base_executable", sys.executable))


if __name__ == "__main__":
    sys.exit(main())
