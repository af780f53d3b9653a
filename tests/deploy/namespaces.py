"""A network of its own for a part of a test: a loopback with addresses of IPv6 only, as a pod of such a cluster has."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

_NEW_NETWORK = 0x40000000  # CLONE_NEWNET of <linux/sched.h>


@contextmanager
def ipv6_alone(*addresses: str) -> Iterator[None]:
    """This thread, and the processes that it starts, with ::1 and these addresses and none of IPv4.

    Skips where this machine does not give a process a network of its own.
    """
    ip = shutil.which("ip", path=f"{os.environ['PATH']}:/usr/sbin:/sbin")
    if ip is None:
        pytest.skip("`ip` is not installed (Debian: apt-get install iproute2)")
    kernel = ctypes.CDLL(None, use_errno=True)
    with Path("/proc/thread-self/ns/net").open("rb") as before:
        if kernel.unshare(_NEW_NETWORK):
            pytest.skip(f"this machine gives a process no network of its own ({os.strerror(ctypes.get_errno())})")
        try:
            _run(ip, "link", "set", "lo", "up")
            if "::1" not in _run(ip, "-6", "address", "show", "dev", "lo"):
                pytest.skip("this machine has no IPv6")
            _run(ip, "address", "del", "127.0.0.1/8", "dev", "lo")
            for address in addresses:
                _run(ip, "-6", "address", "add", f"{address}/128", "dev", "lo", "nodad")
            yield
        finally:
            assert kernel.setns(before.fileno(), _NEW_NETWORK) == 0, os.strerror(ctypes.get_errno())


def _run(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout
