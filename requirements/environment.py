"""The development environment `.venv`: exactly what requirements/dev.txt pins, and the program itself.

Needs Python, pip and venv only. The lock is complete, so pip resolves nothing: it installs what the lock names and
`pip check` then judges the result; what else an index lists by then has no say. Of what a user's pip is configured with
counts what leads it to an index; where, what and how it installs is said here. The last step writes what the
environment was made from into a stamp; while that still holds nothing is done. Otherwise the environment is made anew,
because a leftover of an interrupted installation, of another checkout or of an older lock looks like what
belongs there. If only the program's own metadata changed, only the program is installed again.
"""

from __future__ import annotations

import ast
import fcntl
import functools
import hashlib
import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
STAMP = VENV / "made-from.json"
LOCK = ROOT / "requirements" / "dev.txt"
# What is imported compiles itself; compiling everything would take longer than the rest of the installation.
INSTALL = ("install", "--quiet", "--no-compile", "--no-deps")
# How pip reaches an index, and the sections of its configuration that an installation reads, the strongest last.
NETWORK = {
    *("index-url", "extra-index-url", "no-index", "find-links", "keyring-provider", "cache-dir", "no-cache-dir"),
    *("cert", "client-cert", "trusted-host", "proxy", "timeout", "default-timeout", "retries", "resume-retries"),
    *("use-feature", "use-deprecated"),
}
SECTIONS = ("global", "install", ":env:")


def main() -> int:
    """Bring the environment up to date; returns the exit code."""
    lock = os.open(LOCK.parent, os.O_RDONLY)
    os.set_inheritable(lock, True)  # noqa: FBT003 - a pip that outlives this process keeps the lock
    fcntl.flock(lock, fcntl.LOCK_EX)  # two makes at once: the second one waits and finds the work done
    wanted, found = _wanted(), _found()
    if wanted == found:
        return 0
    STAMP.unlink(missing_ok=True)
    try:
        if {**wanted, "program": None} != {**found, "program": None}:
            print("Making .venv from requirements/dev.txt", file=sys.stderr)
            _run(_interpreter(), "-m", "venv", "--clear", str(VENV))
            fill(VENV / "bin" / "python")
        else:
            install_program(VENV / "bin" / "python")
    except subprocess.CalledProcessError as error:
        print(f"The environment could not be made: {' '.join(error.cmd)} failed.{_advice()}", file=sys.stderr)
        return 1
    STAMP.write_text(json.dumps(wanted, indent=2))
    return 0


def fill(python: Path) -> None:
    """Install what the lock pins, and the program, into the environment of this Python, which has nothing but pip."""
    pip(python, *INSTALL, "--require-hashes", "-r", str(LOCK))
    install_program(python)


def install_program(python: Path) -> None:
    """Install the program beside what it needs, built by what the lock pins; then judge the whole."""
    pip(python, *INSTALL, "--no-build-isolation", "--editable", str(ROOT))
    pip(python, "check")


def pip(python: Path, *arguments: str) -> None:
    """Run pip with the user's settings of the network, and with no other setting of theirs."""
    _run(str(python), "-m", "pip", *arguments, environment=_pip_environment(python))


@functools.cache
def _pip_environment(python: Path) -> dict[str, str]:
    environment = _environment()
    listing = [str(python), "-m", "pip", "config", "list", "-vvv"]  # as loud as the user's `quiet` may need
    said = subprocess.run(listing, env=environment, check=True, stdout=subprocess.PIPE, text=True).stdout
    settings = re.findall(r"^(\S+?)\.([a-z-]+)=(['\"].*)$", said, re.MULTILINE)
    kept = {
        f"PIP_{key.upper().replace('-', '_')}": str(ast.literal_eval(value))
        for section in SECTIONS
        for where, key, value in settings
        if where == section and key in NETWORK
    }
    others = {name: value for name, value in environment.items() if not name.startswith("PIP_")}
    own = {"PIP_CONFIG_FILE": os.devnull, "PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_NO_INPUT": "1"}
    return others | kept | own


def _environment() -> dict[str, str]:
    """This process's, without what leads Python to modules of elsewhere."""
    return {name: value for name, value in os.environ.items() if name not in {"PYTHONHOME", "PYTHONPATH"}}


def _run(*command: str, environment: dict[str, str] | None = None) -> None:
    subprocess.run(command, check=True, stdout=sys.stderr, env=environment or _environment(), close_fds=False)


def _advice() -> str:
    """What to do, where the lock may not fit."""
    tested = re.findall(r"Python :: (3\.\d+)", (ROOT / "pyproject.toml").read_text())
    here = f"3.{sys.version_info.minor}"
    if here in tested:
        return ""
    return f"\nWheels are pinned for Python {', '.join(tested)}, not for {here}: make PYTHON=python{tested[0]} setup"


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
