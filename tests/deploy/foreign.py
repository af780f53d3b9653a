"""Another processor than this machine's: Debian's files for it, and an emulator that the kernel calls for its programs.

The same Dockerfile is built on it, and the same tests run what comes of it, many times slower.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_SUITE, _MIRROR = "bookworm", "http://deb.debian.org/debian"
_PACKAGES = "python3.11,python3.11-venv,ca-certificates,dash,coreutils,libc6,libstdc++6"
_SECONDS = 1200
_HANDLERS = Path("/proc/sys/fs/binfmt_misc")
_OF_PATCHES = re.compile(r" ; python_full_version < '3\.\d+\.\d+'")

PLATFORMS = {
    "amd64": {
        "manylinux": ("manylinux2014_x86_64", "manylinux_2_17_x86_64", "manylinux_2_28_x86_64"),
        "musllinux": ("musllinux_1_1_x86_64", "musllinux_1_2_x86_64"),
    },
    "arm64": {
        "manylinux": ("manylinux2014_aarch64", "manylinux_2_17_aarch64", "manylinux_2_28_aarch64"),
        "musllinux": ("musllinux_1_1_aarch64", "musllinux_1_2_aarch64"),
    },
}
"""What wheels for a processor are called, by the C library that they expect."""

_EMULATORS = {"arm64": ("qemu-aarch64-static", "b700")}
"""The program, and the number of the processor in the head of its programs."""


@contextmanager
def emulated(processor: str) -> Iterator[None]:
    """Let this machine run programs of another processor."""
    name, number = _EMULATORS[processor]
    emulator = shutil.which(name)
    assert emulator is not None, f"{name} is not installed (Debian: apt-get install qemu-user-static)"
    if not (_HANDLERS / "register").exists():
        subprocess.run(["mount", "-t", "binfmt_misc", "none", str(_HANDLERS)], check=True)
    handler = _HANDLERS / f"replicator-{os.getpid()}"
    head = "7f454c460201010000000000000000000200" + number
    mask = "ffffffffffffff00fffffffffffffffffeff" + "ffff"
    escaped = ("".join(f"\\x{text[at : at + 2]}" for at in range(0, len(text), 2)) for text in (head, mask))
    (_HANDLERS / "register").write_text(f":{handler.name}:M::{':'.join(escaped)}:{emulator}:F")
    try:
        yield
    finally:
        handler.write_text("-1")


def make_base(files: Path, processor: str) -> None:
    """Debian's Python for it, where an image of Python has it."""
    files.parent.mkdir(parents=True, exist_ok=True)
    command = ["mmdebstrap", "--quiet", f"--arch={processor}", "--variant=extract", f"--include={_PACKAGES}"]
    subprocess.run([*command, _SUITE, str(files), _MIRROR], check=True, timeout=_SECONDS)
    for place in ("etc/replicator", "proc", "run", "usr/local/bin", "usr/local/lib"):
        (files / place).mkdir(parents=True, exist_ok=True)
    shutil.move(files / "usr/lib/python3.11", files / "usr/local/lib/python3.11")
    shutil.move(files / "usr/bin/python3.11", files / "usr/local/bin/python3.11")
    for name in ("python", "python3"):
        (files / "usr/local/bin" / name).symlink_to("python3.11")
    for place in ("usr/share/doc", "usr/share/man", "usr/share/locale", "var/lib/apt"):
        shutil.rmtree(files / place, ignore_errors=True)
    (files / "etc/passwd").write_text("root:x:0:0::/:/bin/sh\n")


def fetch_wheels(pip: list[str], lock: Path, wheels: Path, platforms: tuple[str, ...] = ()) -> None:
    """Every wheel of a lock, checked by its hash; `platforms`: for another machine than this one.

    What only older patch releases of Python need is fetched in any case: the other machine may have one.
    """
    wheels.mkdir(parents=True, exist_ok=True)
    whole = wheels / lock.name
    whole.write_text(_OF_PATCHES.sub("", lock.read_text()))
    options = ["download", "--quiet", "--no-deps", "--only-binary=:all:", "--require-hashes", "-r", str(whole)]
    named = [word for platform in platforms for word in ("--platform", platform)]
    version = ["--python-version", "3.11", "--implementation", "cp"] if platforms else []
    subprocess.run([*pip, *options, *named, *version, "-d", str(wheels)], check=True, timeout=_SECONDS)
    whole.unlink()
