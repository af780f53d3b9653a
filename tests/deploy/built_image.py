"""The image, built for real by buildah on a base made of this machine's Python, and run without a container engine.

No registry is asked: the base is a file system from scratch with this interpreter, what it is linked to and a shell.
The wheels come from the index that pip is configured with, and the build itself sees only the ones that were fetched.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import sysconfig
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from tests.deploy import foreign

ROOT = Path(__file__).parents[2]
PYTHON = f"python{sys.version_info.major}.{sys.version_info.minor}"
LOCKS = ("build.txt", "image.txt", "runtime.txt")
_BUILD_SECONDS = 2400
_PROGRAMS = ("sh", "rm", "env")
_LINKED = re.compile(r"(?:=> )?(/\S+) \(0x")
_UNUSED = shutil.ignore_patterns("__pycache__", "test", "idlelib", "tkinter", "site-packages", "config-*", "lib2to3")


class BuiltImage:
    """An image in a store of its own, with its file system at `root`."""

    def __init__(self, directory: Path, processor: str | None = None) -> None:
        """`processor`: another one than this machine's, which emulates it."""
        self._processor = processor
        self._store = directory / "store"
        self._run = directory / "run"
        self._said: dict[str, Any] = {}
        self.root = Path()

    def build(self, directory: Path) -> None:
        """Make the base, then the image as the Dockerfile says."""
        base = directory / "base"
        if self._processor is None:
            _make_base(base / "files")
        else:
            foreign.make_base(base / "files", self._processor)
        built_for = () if self._processor is None else ("--platform", f"linux/{self._processor}")
        (base / "Dockerfile").write_text("FROM scratch\nCOPY files /\nENV PATH=/usr/local/bin:/usr/bin:/bin\n")
        self.buildah("bud", *built_for, "--isolation", "chroot", "--format", "docker", "-t", "base", str(base))
        shutil.rmtree(base / "files")
        wheels = directory / "wheels"
        platforms = () if self._processor is None else foreign.PLATFORMS[self._processor]["manylinux"]
        for lock in LOCKS:
            foreign.fetch_wheels([sys.executable, "-m", "pip"], ROOT / "requirements" / lock, wheels, platforms)
        pip = directory / "pip.conf"
        pip.write_text("[global]\nno-index = true\nfind-links = /wheels\n")
        mounts = ["--volume", f"{wheels}:/wheels:ro", "--volume", f"{pip}:/etc/pip.conf:ro"]
        options = ["--isolation", "chroot", "--format", "docker", "--build-arg", "BASE=localhost/base", *mounts]
        self.buildah("bud", *built_for, *options, "-t", "replicator", str(ROOT))
        container = self.buildah("from", *built_for, "replicator").strip()
        self.root = Path(self.buildah("mount", container).strip())

    def configuration(self) -> dict[str, Any]:
        """What the image says of itself."""
        if not self._said:
            self._said = json.loads(self.buildah("inspect", "--type", "image", "replicator"))["Docker"]["config"]
        return self._said

    def buildah(self, command: str, *arguments: str) -> str:
        """Run buildah on this store; returns its standard output."""
        place = ["--storage-driver", "vfs", "--root", str(self._store), "--runroot", str(self._run)]
        result = subprocess.run(
            ["buildah", *place, command, *arguments],
            capture_output=True,
            text=True,
            check=False,
            timeout=_BUILD_SECONDS,
            env={**os.environ, "TMPDIR": str(self._run.parent)},
        )
        assert result.returncode == 0, result.stdout[-4000:] + result.stderr[-4000:]
        return result.stdout

    @contextmanager
    def running(
        self,
        *arguments: str,
        environment: Mapping[str, str] | None = None,
        mounts: Mapping[Path, str] | None = None,
        hostname: str = "replicator",
    ) -> Iterator[subprocess.Popen[str]]:
        """The image's command with these arguments, as process 1 and the image's user, on a root that is read-only.

        `mounts`: directories of this machine by where they are seen, read-only, too.
        """
        said = self.configuration()
        found = partial(shutil.which, path=f"{os.environ['PATH']}:/usr/sbin:/sbin")  # the image's own path has neither
        variables = {**dict(entry.split("=", 1) for entry in said["Env"]), **(environment or {})}
        binds = " ".join(
            f'&& mount --bind {shlex.quote(str(source))} "$1{target}" && mount -o remount,bind,ro "$1{target}"'
            for source, target in (mounts or {}).items()
        )
        script = (
            'mount --bind "$1" "$1" && mount --rbind /dev "$1/dev" && mount -t proc proc "$1/proc" '
            f"&& echo {hostname} > /proc/sys/kernel/hostname {binds} "
            '&& mount -o remount,bind,ro "$1" && root=$1 user=$2 && shift 2 '
            f'&& exec {found("setpriv")} --no-new-privs {found("chroot")} --groups= --userspec="$user" "$root" "$@"'
        )
        process = subprocess.Popen(
            [
                *("unshare", "--mount", "--uts", "--pid", "--fork", "--kill-child", "sh", "-c", script, "sh"),
                *(str(self.root), said["User"], *said["Entrypoint"], *(arguments or said["Cmd"])),
            ],
            env=variables,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        try:
            yield process
        finally:
            for child in children(process.pid) if process.poll() is None else ():  # as another user it outlives unshare
                os.kill(child, signal.SIGKILL)
            process.kill()
            process.wait()
            if process.stdout is not None:
                process.stdout.close()


def children(pid: int) -> list[int]:
    """Of a process that we started; none when it is gone."""
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def _make_base(files: Path) -> None:
    """This interpreter at /usr/local, a shell, what both are linked to, and the certificates of authorities."""
    for place in (
        "usr/local/bin",
        "usr/local/lib",
        "bin",
        "dev",
        "proc",
        "tmp",
        "run",
        "etc/replicator",
        "etc/ssl/certs",
    ):
        (files / place).mkdir(parents=True, exist_ok=True)
    library = files / "usr/local/lib" / PYTHON
    shutil.copytree(sysconfig.get_path("stdlib"), library, symlinks=True, ignore=_UNUSED)
    (library / "site-packages").mkdir()
    interpreter = Path(sys.executable).resolve()
    shutil.copy(interpreter, files / "usr/local/bin" / PYTHON)
    (files / "usr/local/bin/python").symlink_to(PYTHON)
    (files / "usr/local/bin/python3").symlink_to(PYTHON)
    programs = [Path(found) for name in _PROGRAMS if (found := shutil.which(name))]
    for program in programs:
        shutil.copy(program.resolve(), files / "bin" / program.name)
    for needed in _linked_to([interpreter, *programs, *library.rglob("*.so")]):
        target = files / needed.relative_to("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(needed, target)
    (files / "etc/passwd").write_text("root:x:0:0::/:/bin/sh\n")
    authorities = Path("/etc/ssl/certs/ca-certificates.crt")
    if authorities.is_file():
        shutil.copy(authorities, files / "etc/ssl/certs" / authorities.name)


def _linked_to(programs: Iterable[Path]) -> set[Path]:
    """The libraries of these, and those of C and C++, which wheels expect and every image with Python has."""
    known = subprocess.run(["/sbin/ldconfig", "-p"], capture_output=True, text=True, check=True).stdout
    found = {
        Path(path)
        for path in re.findall(
            r"(?:libgcc_s|libstdc\+\+|lib(?:c|m|rt|dl|util|pthread|resolv|nss_dns))\.so\.\d \(.*64.*\) => (\S+)", known
        )
    }
    for program in programs:
        listed = subprocess.run(["ldd", str(program)], capture_output=True, text=True, check=False).stdout
        found |= {Path(path) for path in _LINKED.findall(listed)}
    return found
