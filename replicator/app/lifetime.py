"""Lifetimes: signals, the drain and its deadline, exit codes.

The first SIGTERM or SIGINT sets `stop`: what was read is applied, stored and released. The deadline, or a second
signal, cancels what is left; nothing is lost by that, because whatever is not stored is read again.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable

from replicator.domain.errors import EXIT_DRAIN_TIMED_OUT, EXIT_STOPPED

_SIGNALS = (signal.SIGTERM, signal.SIGINT)
_LAST_RESORT_SECONDS = 5.0
"""So long after the deadline the process ends even if some library swallowed the cancellation."""


async def live(
    work: Callable[[asyncio.Event], Awaitable[None]], *, drain_seconds: float, told: Callable[[str], None]
) -> int:
    """Run `work` until it ends by itself or is stopped by a signal; returns the exit code.

    `told` hears "stopping", "now" and "drain_timed_out".
    """
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(None) as deadline:

            def signalled() -> None:
                again = stop.is_set()
                told("now" if again else "stopping")
                stop.set()
                seconds = 0 if again else drain_seconds
                deadline.reschedule(loop.time() + seconds)
                loop.call_later(seconds + _LAST_RESORT_SECONDS, os._exit, EXIT_DRAIN_TIMED_OUT)

            for number in _SIGNALS:
                loop.add_signal_handler(number, signalled)
            try:
                await work(stop)
            finally:
                for number in _SIGNALS:
                    loop.remove_signal_handler(number)
    except TimeoutError:
        if not deadline.expired():
            raise
        told("drain_timed_out")
        return EXIT_DRAIN_TIMED_OUT
    return EXIT_STOPPED
