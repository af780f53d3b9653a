"""The system's clocks."""

from __future__ import annotations

import time

_NEVER_JUMPS = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


class SystemClock:
    """Wall time, and a monotonic time in which suspended machines count (CLOCK_BOOTTIME where there is one)."""

    def now(self) -> float:
        """Seconds since 1970."""
        return time.time()

    def monotonic(self) -> float:
        """Seconds since boot."""
        return time.clock_gettime(_NEVER_JUMPS)
