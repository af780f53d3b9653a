"""A machine without a machine: Debian's files in a directory, and its systemd as process 1 of namespaces of their own.

Its network is this machine's. Nothing of this machine is changed: services that set up a kernel are masked.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from tests.patience import PATIENT_SECONDS

_SUITE = "bookworm"
_MIRROR = "http://deb.debian.org/debian"
_INSTALL_SECONDS = 1200
_MASKED = (
    "kmod-static-nodes",
    "systemd-binfmt",
    "systemd-modules-load",
    "systemd-remount-fs",
    "systemd-sysctl",
    "systemd-tmpfiles-setup-dev",
    "systemd-udevd",
    "systemd-update-utmp",
)
_CGROUPS = Path("/sys/fs/cgroup")
_found = partial(shutil.which, path=f"{os.environ['PATH']}:/usr/sbin:/sbin")
_BOOT = """
set -e
for group in $GROUPS_OF_IT; do echo $$ > $group/cgroup.procs; done
exec unshare --mount --pid --uts --ipc --cgroup --fork sh -c '
set -e
mount --make-rprivate /
mount --bind "$1" "$1"
mount -t proc proc "$1/proc"
mount -t sysfs -o ro sysfs "$1/sys"
mount --rbind /dev "$1/dev"
for place in run tmp; do mount -t tmpfs tmpfs "$1/$place"; done
if [ "$UNIFIED" ]; then mount -t cgroup2 cgroup2 "$1/sys/fs/cgroup"
else
  mount -t tmpfs tmpfs "$1/sys/fs/cgroup"
  mkdir "$1/sys/fs/cgroup/unified" "$1/sys/fs/cgroup/systemd"
  mount -t cgroup2 cgroup2 "$1/sys/fs/cgroup/unified"
  mount -t cgroup -o none,name=systemd cgroup "$1/sys/fs/cgroup/systemd"
fi
cd "$1"
mkdir -p old
pivot_root . old
umount -l /old
mount --make-rshared /
exec env -i container=other PATH=/usr/sbin:/usr/bin:/sbin:/bin /lib/systemd/systemd --system --show-status=0 \
  --log-target=journal systemd.unit=basic.target
' sh "$1"
"""


class NoMachine(Exception):
    """This machine does not let another one run in it."""


def make(root: Path, package: Path) -> None:
    """Debian's files with systemd and with this package, which finds there what it says that it depends on."""
    if _found("mmdebstrap") is None:
        raise NoMachine("`mmdebstrap` is not installed (Debian: apt-get install mmdebstrap)")
    needed = _output("dpkg-deb", "--field", str(package), "Depends").replace(" ", "").strip()
    done = _done(
        "mmdebstrap", "--quiet", "--variant=essential", f"--include=systemd,{needed}", _SUITE, str(root), _MIRROR
    )
    if done.returncode:
        raise NoMachine(f"mmdebstrap cannot make it: {done.stderr[-1000:]}")
    for service in _MASKED:
        (root / "etc/systemd/system" / f"{service}.service").symlink_to("/dev/null")
    shutil.copy(package, root / "package.deb")
    _output("chroot", str(root), "dpkg", "--install", "/package.deb")


def _output(*command: str) -> str:
    done = _done(*command)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def _done(command: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(_found(command)), *arguments], capture_output=True, text=True, timeout=_INSTALL_SECONDS, check=False
    )


@dataclass(frozen=True)
class Machine:
    """One that runs."""

    root: Path
    first: int
    """Its process 1, as this machine counts."""

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        """A command there, as root."""
        entered = ["nsenter", "-t", str(self.first), "--mount", "--pid", "--uts", "--ipc", "--cgroup"]
        clean = ["/usr/bin/env", "-i", "PATH=/usr/sbin:/usr/bin:/sbin:/bin"]
        inside = [f"--root=/proc/{self.first}/root", "--wd=/"]
        return subprocess.run(
            [*entered, *inside, *clean, *command], capture_output=True, text=True, timeout=PATIENT_SECONDS, check=False
        )

    def property(self, unit: str, name: str) -> str:
        """What systemd says of a unit."""
        return self.run("systemctl", "show", "--value", "-p", name, unit).stdout.strip()

    def journal(self, unit: str) -> str:
        """The end of what a unit and systemd said of it."""
        return self.run("journalctl", "--no-pager", "-n", "60", "-u", unit).stdout


@contextmanager
def booted(root: Path) -> Iterator[Machine]:
    """Boot it; everything in it ends with the context."""
    unified = (_CGROUPS / "cgroup.procs").exists()
    hierarchies = [_CGROUPS] if unified else [_CGROUPS / "unified", _CGROUPS / "systemd"]
    groups = [hierarchy / f"replicator-{root.name}-{os.getpid()}" for hierarchy in hierarchies]
    log = root.with_suffix(".log")
    process = None
    try:
        try:
            for group in groups:
                group.mkdir()
        except OSError as error:
            raise NoMachine(f"this machine gives no control group ({error.strerror})") from error
        environment = {
            **os.environ,
            "PATH": f"{os.environ['PATH']}:/usr/sbin:/sbin",
            "GROUPS_OF_IT": " ".join(map(str, groups)),
            "UNIFIED": "yes" if unified else "",
        }
        with log.open("w") as output:
            process = subprocess.Popen(
                ["sh", "-c", _BOOT, "sh", str(root)], stdout=output, stderr=output, env=environment
            )
        machine = Machine(root, _first(process, log))
        end = time.monotonic() + PATIENT_SECONDS
        while machine.run("systemctl", "is-active", "basic.target").stdout.strip() != "active":
            if process.poll() is not None or time.monotonic() > end:
                raise NoMachine(f"systemd does not run here: {log.read_text()[-1000:]}")
            time.sleep(0.2)
        yield machine
    finally:
        if process is not None:
            for child in _children(process):
                os.kill(child, signal.SIGKILL)
            process.kill()
            process.wait(PATIENT_SECONDS)
        for group in groups:
            _remove(group)


def _children(process: subprocess.Popen[bytes]) -> list[int]:
    try:
        return [int(pid) for pid in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()]
    except OSError:
        return []


def _first(process: subprocess.Popen[bytes], log: Path) -> int:
    """Process 1, once it is systemd."""
    end = time.monotonic() + PATIENT_SECONDS
    while process.poll() is None and time.monotonic() < end:
        for child in _children(process):
            with suppress(OSError):
                if "/lib/systemd/systemd\0" in Path(f"/proc/{child}/cmdline").read_text():
                    return child
        time.sleep(0.05)
    raise NoMachine(f"systemd does not start here: {log.read_text()[-1000:]}")


def _remove(group: Path) -> None:
    """A control group with those in it, once their processes are gone."""
    end = time.monotonic() + 10
    while group.is_dir() and time.monotonic() < end:
        for each in sorted((path for path in group.rglob("*") if path.is_dir()), reverse=True):
            with suppress(OSError):
                each.rmdir()
        with suppress(OSError):
            group.rmdir()
        time.sleep(0.05)
