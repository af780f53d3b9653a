"""The system's clocks."""

from __future__ import annotations

import time
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
