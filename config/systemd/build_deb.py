"""A Debian package: the program in /opt/replicator, its units and an example. The same sources give the same.

It holds an environment for Debian's own Python 3.11 (/usr/bin/python3.11) with what requirements/runtime.txt pins, so
that installing it downloads nothing and runs nothing but `systemctl daemon-reload`. The service is neither enabled nor
started: it needs a configuration first.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
UNITS = Path(__file__).parent
PYTHON = "/usr/bin/python3.11"
HOME = "opt/replicator"
ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
_EPOCH = "1735689600"
_OF_OLD_PATCHES = re.compile(r" ; python_full_version < '3\.11\.\d+'")
_CONTROL = """\
Package: replicator
Version: {version}
Architecture: {architecture}
Maintainer: The replicator authors <replicator@localhost>
Installed-Size: {kilobytes}
Depends: python3.11, ca-certificates, procps
Recommends: systemd
Section: database
Priority: optional
Description: cross-region replication and cache sync for Amazon DynamoDB
 A daemon that copies every change of DynamoDB tables to tables in other regions,
 last writer wins, and keeps the Redis or Valkey entries beside them in step.
"""
_RELOAD = "if [ -d /run/systemd/system ]; then systemctl daemon-reload; fi\n"
_SCRIPTS = {
    "postinst": f"#!/bin/sh\nset -e\n{_RELOAD}",
    "prerm": (
        "#!/bin/sh\nset -e\n"
        'if [ "$1" = remove ] && [ -d /run/systemd/system ]; then\n'
        "  systemctl stop replicator.service 'replicator@*.service' || true\nfi\n"
    ),
    "postrm": f"#!/bin/sh\nset -e\n{_RELOAD}",
}


def main() -> int:
    """Build it; returns the exit code."""
    parser = argparse.ArgumentParser(description="Build the Debian package.")
    parser.add_argument("--output", type=Path, default=ROOT / "dist", help="directory (default: %(default)s)")
    options = parser.parse_args()
    if sys.version_info[:2] != (3, 11) or shutil.which("dpkg-deb") is None:
        print("The package is for Python 3.11: build it with that, where dpkg-deb is.", file=sys.stderr)
        return 1
    print(build(options.output))
    return 0


def build(output: Path) -> Path:
    """Build the package for this machine's processor; returns its path."""
    version = re.search(r'^version = "(.+)"$', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    assert version is not None
    architecture = ARCHITECTURES[platform.machine()]
    output.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as directory:
        stage = Path(directory) / "stage"
        _fill_environment(stage, Path(directory))
        _add_files(stage)
        control = stage / "DEBIAN"
        control.mkdir()
        kilobytes = sum(path.stat().st_size for path in stage.rglob("*") if path.is_file()) // 1024
        fields = {"version": version[1], "architecture": architecture, "kilobytes": kilobytes}
        (control / "control").write_text(_CONTROL.format(**fields))
        for name, text in _SCRIPTS.items():
            (control / name).write_text(text)
            (control / name).chmod(0o755)
        made = output / f"replicator_{version[1]}_{architecture}.deb"
        environment = {**os.environ, "SOURCE_DATE_EPOCH": _EPOCH}
        command = ["dpkg-deb", "--root-owner-group", "-Zxz", "-z1", "--build", str(stage), str(made)]
        _date(stage)
        subprocess.run(command, check=True, env=environment, stdout=subprocess.DEVNULL)
    return made


def _fill_environment(stage: Path, scratch: Path) -> None:
    """The environment, as it will lie in /opt: no pip, and its Python that of the system."""
    home = stage / HOME
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(home)], check=True)
    hatchling = Path(sys.executable).with_name("hatchling")
    wheels = scratch / "wheels"
    environment = {**os.environ, "SOURCE_DATE_EPOCH": _EPOCH}
    wheel = [str(hatchling), "build", "-t", "wheel", "-d", str(wheels)]
    subprocess.run(wheel, check=True, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL)
    pip = (sys.executable, "-m", "pip", "--python", str(home / "bin" / "python"), "install", "--quiet")
    options = ("--no-deps", "--no-compile")
    lock = scratch / "runtime.txt"
    # Debian's patch release is older than the one that builds may be: what only old ones need is there in any case.
    lock.write_text(_OF_OLD_PATCHES.sub("", (ROOT / "requirements" / "runtime.txt").read_text()))
    subprocess.run([*pip, *options, "--require-hashes", "-r", str(lock)], check=True)
    subprocess.run([*pip, *options, "--no-index", *map(str, wheels.glob("*.whl"))], check=True)
    programs = home / "bin"
    for program in programs.iterdir():
        if program.name == "replicator":
            program.write_bytes(program.read_bytes().replace(bytes(home), f"/{HOME}".encode()))
        else:
            program.unlink()
    (programs / "python3.11").symlink_to(PYTHON)
    (programs / "python").symlink_to("python3.11")
    (programs / "python3").symlink_to("python3.11")
    settings = {"home": str(Path(PYTHON).parent), "include-system-site-packages": "false", "version": "3.11"}
    (home / "pyvenv.cfg").write_text("".join(f"{name} = {value}\n" for name, value in settings.items()))
    for path in home.rglob("direct_url.json"):
        path.unlink()  # it names the directory of this build
    for path in home.rglob("RECORD"):
        path.write_text("".join(_recorded(path)))
    for path in home.rglob("__pycache__"):
        shutil.rmtree(path)
    # The service may not write here, so it finds its bytecode, which is the same whenever it was made.
    compiling = ("-m", "compileall", "-q", "-j", "0", "--invalidation-mode", "unchecked-hash")
    subprocess.run([sys.executable, *compiling, "-s", str(stage), "-p", "/", str(home / "lib")], check=True)


def _recorded(record: Path) -> Iterator[str]:
    """The lines of a list of installed files, as they are now."""
    for line in record.read_text().splitlines(keepends=True):
        name, _, _ = line.partition(",")
        path = record.parents[1] / name
        if name.startswith("../") and path.is_file():
            digest = base64.urlsafe_b64encode(hashlib.sha256(path.read_bytes()).digest()).decode().rstrip("=")
            yield f"{name},sha256={digest},{path.stat().st_size}\n"
        elif path.is_file():
            yield line


def _add_files(stage: Path) -> None:
    documentation = stage / "usr/share/doc/replicator"
    for source, to in {
        UNITS / "replicator.service": stage / "usr/lib/systemd/system",
        UNITS / "replicator@.service": stage / "usr/lib/systemd/system",
        ROOT / "config" / "replicator.yaml": documentation / "examples",
        ROOT / "config" / "prometheus" / "alerts.yaml": documentation / "examples",
        ROOT / "README.md": documentation,
        ROOT / "CHANGELOG.md": documentation,
    }.items():
        to.mkdir(parents=True, exist_ok=True)
        shutil.copy(source, to)
    shutil.copy(ROOT / "LICENSE", documentation / "copyright")
    (stage / "usr/bin").mkdir()
    (stage / "usr/bin/replicator").symlink_to(f"/{HOME}/bin/replicator")
    (stage / "etc/replicator").mkdir(parents=True)


def _date(stage: Path) -> None:
    """One time and plain permissions for all files, so that the same content is the same package."""
    for path in (stage, *stage.rglob("*")):
        os.utime(path, (int(_EPOCH), int(_EPOCH)), follow_symlinks=False)
        if not path.is_symlink():
            path.chmod(0o755 if path.is_dir() or path.stat().st_mode & 0o100 else 0o644)


if __name__ == "__main__":
    sys.exit(main())
