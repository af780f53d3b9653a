"""The lock files: what is installed, exactly, and proof that they belong to pyproject.toml.

`lock.py` compiles them anew, keeping every pin that still fits (`--upgrade` lets all of them move). `lock.py --check`
needs no network and no upstream state: each file records the digest of the declarations it was made from and of its own
pins, and every declared requirement is looked up among the pins.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import json
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
COMPILE = ("-m", "uv", "pip", "compile", "--quiet", "--universal", "--python-version", "3.11", "--generate-hashes")
# dev.txt holds everything but what only draws plots, so it comes first and the others are cut from it.
LOCKS: dict[str, tuple[str, ...]] = {
    "dev.txt": ("pyproject.toml", "--extra", "demo", "--extra", "cashews", "--extra", "telemetry", "--group", "dev"),
    "demo.txt": ("pyproject.toml", "--extra", "demo", "--constraint", "requirements/dev.txt"),
    "runtime.txt": ("pyproject.toml", "--constraint", "requirements/dev.txt"),
    "build.txt": ("--group", "build", "--constraint", "requirements/dev.txt"),
    "bench.txt": ("--group", "bench", "--constraint", "requirements/dev.txt"),
    "browser.txt": ("--group", "browser", "--constraint", "requirements/dev.txt"),
    "deploy.txt": ("--group", "deploy", "--constraint", "requirements/dev.txt"),
    "function.txt": ("--group", "function", "--constraint", "requirements/dev.txt"),
    "image.txt": ("--group", "image", "--constraint", "requirements/dev.txt"),
}
_BESIDE = {"bench.txt", "browser.txt", "deploy.txt", "function.txt", "image.txt"}
"""Locks of what is installed on top of dev.txt, and may name more."""

HEADER = """\
# Made by `make lock` from pyproject.toml. Do not edit: `make lint` compares the digests.
# declared sha256:{declared}
# pinned sha256:{pinned}
"""
_PIN = re.compile(r"^([A-Za-z0-9._-]+)==([^ ;\\]+)", re.MULTILINE)


def main() -> int:
    """Compile, or with `--check` only judge; returns the exit code."""
    parser = argparse.ArgumentParser(description="Compile requirements/*.txt from pyproject.toml.")
    parser.add_argument("--check", action="store_true", help="fail when they are stale or were changed by hand")
    parser.add_argument("--upgrade", action="store_true", help="take the newest versions that fit")
    options = parser.parse_args()
    if not options.check:
        compile_all(ROOT, upgrade=options.upgrade)
    found = problems(ROOT)
    for problem in found:
        print(problem, file=sys.stderr)
    if found:
        print("Run `make lock` and commit the result.", file=sys.stderr)
    return 1 if found else 0


def compile_all(root: Path, *, upgrade: bool) -> None:
    """Write every lock file, all or none."""
    with tempfile.TemporaryDirectory() as scratch:
        copy = Path(scratch)
        shutil.copy(root / "pyproject.toml", copy)
        shutil.copytree(root / "requirements", copy / "requirements")
        for name, sources in LOCKS.items():
            output = f"requirements/{name}"
            command = [sys.executable, *COMPILE, "--no-emit-index-url", "--no-header", *sources, "-o", output]
            subprocess.run(command + ["--upgrade"] * upgrade, cwd=copy, check=True)
        declared = _declared_digest(_declarations(root))
        for name in LOCKS:
            pins = (copy / "requirements" / name).read_text()
            header = HEADER.format(declared=declared, pinned=_digest(pins))
            (root / "requirements" / name).write_text(header + pins)


def problems(root: Path) -> list[str]:
    """What is wrong with the lock files, a sentence each; nothing when they are good."""
    declarations = _declarations(root)
    declared = _declared_digest(declarations)
    found = []
    everything: dict[str, str] = {}
    for name in LOCKS:
        path = root / "requirements" / name
        text = path.read_text() if path.is_file() else ""
        header, pins = _split(text)
        versions: dict[str, str] = dict(_PIN.findall(pins))
        everything = everything or versions
        if f"sha256:{declared}" not in header:
            found.append(f"requirements/{name} is stale: pyproject.toml now declares other dependencies.")
        if f"sha256:{_digest(pins)}" not in header:
            found.append(f"requirements/{name} was changed by hand: its pins are not those that were compiled.")
        for requirement in _wanted(declarations, name):
            version = versions.get(canonicalize_name(requirement.name))
            if version is None:
                found.append(f"requirements/{name} does not pin {requirement.name}, which pyproject.toml declares.")
            elif not requirement.specifier.contains(version, prereleases=True):
                found.append(f"requirements/{name} pins {requirement.name} {version}, but {requirement} is declared.")
        found += [
            f"requirements/{name} pins {package} {version}, but requirements/dev.txt pins {everything.get(package)}."
            for package, version in versions.items()
            if everything.get(package, version if name in _BESIDE else None) != version
        ]
    return found


def _declarations(root: Path) -> dict[str, Any]:
    document = tomllib.loads((root / "pyproject.toml").read_text())
    project = document["project"]
    return {
        "python": project["requires-python"],
        "runtime": project["dependencies"],
        "extras": project["optional-dependencies"],
        "groups": document["dependency-groups"],
    }


def _wanted(declarations: dict[str, Any], name: str) -> list[Requirement]:
    runtime, extras, groups = declarations["runtime"], declarations["extras"], declarations["groups"]
    declared = {
        "runtime.txt": runtime,
        "demo.txt": runtime + extras["demo"],
        "dev.txt": runtime + extras["demo"] + extras["cashews"] + extras["telemetry"] + groups["dev"],
        "build.txt": groups["build"],
        "bench.txt": groups["bench"],
        "browser.txt": groups["browser"],
        "deploy.txt": groups["deploy"],
        "function.txt": groups["function"],
        "image.txt": groups["image"],
    }[name]
    lines = [groups[entry["include-group"]] if isinstance(entry, dict) else [entry] for entry in declared]
    return [Requirement(line) for line in itertools.chain(*lines)]


def _declared_digest(declarations: dict[str, Any]) -> str:
    return _digest(json.dumps(declarations, sort_keys=True))


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _split(text: str) -> tuple[str, str]:
    lines = text.splitlines(keepends=True)
    height = HEADER.count("\n")
    return "".join(lines[:height]), "".join(lines[height:])


if __name__ == "__main__":
    sys.exit(main())
