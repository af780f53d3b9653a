"""The ports to time."""

from __future__ import annotations

from typing import Protocol


class Clock(Protocol):
    """Time, as far as the engine needs it."""

    def now(self) -> float:
        """Seconds since 1970; for lags only."""

    def monotonic(self) -> float:
        """Seconds of a clock that never jumps and counts suspended time."""


class ServersTime(Clock, Protocol):
    """Servers' time, as far as answers told it: for what is stored, and compared with what others stored.

    What is kept for a while ends by it, and what was made, or is owed, is as old as it says: a machine's own clock may
    be wrong by days, and requests are signed all the same.
    """

    def latest(self) -> float:
        """No earlier than servers' time."""
