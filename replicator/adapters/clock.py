"""The system's clocks."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial

_NEVER_JUMPS = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


class SystemClock:
    """Wall time, and a monotonic time in which suspended machines count (CLOCK_BOOTTIME where there is one).

    Both are asked several times a record, so they are no methods of Python.
    """

    now = staticmethod(time.time)
    """Seconds since 1970."""

    monotonic = staticmethod(partial(time.clock_gettime, _NEVER_JUMPS))
    """Seconds since boot."""


class ServersClock:
    """Servers' time, as far as it is known: for what compares times of several machines."""

    def __init__(self, behind: Callable[[], float]) -> None:
        """`behind`: how many seconds this machine's clock is behind that of servers."""
        self._behind = behind

    def now(self) -> float:
        """Seconds since 1970."""
        return SystemClock.now() + self._behind()

    def monotonic(self) -> float:
        """Seconds since boot."""
        return SystemClock.monotonic()
