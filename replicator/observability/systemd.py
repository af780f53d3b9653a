"""systemd's notify protocol: ready, watchdog, stopping. Silent where there is no systemd."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable


def notify(state: str) -> None:
    """Send one state to the manager named by NOTIFY_SOCKET, if any."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    if address.startswith("@"):
        address = "\0" + address[1:]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.settimeout(0)
        try:
            manager.sendto(state.encode(), address)
        except OSError:
            return  # the manager went away; there is nothing to notify


async def watchdog(healthy: Callable[[], bool]) -> None:
    """Notify the manager that we live, twice per WATCHDOG_USEC, while we are healthy."""
    microseconds = int(os.environ.get("WATCHDOG_USEC", "0"))
    while microseconds:
        if healthy():
            notify("WATCHDOG=1")
        await asyncio.sleep(microseconds / 2_000_000)
