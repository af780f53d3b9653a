"""The ports to time."""

from __future__ import annotations

from typing import Protocol


class Clock(Protocol):
    """Time, as far as the engine needs it."""

    def now(self) -> float:
        """Seconds since 1970; for lags only."""

    def monotonic(self) -> float:
        """Seconds of a clock that never jumps and counts suspended time."""


class ServersTime(Protocol):
    """Servers' time, as far as answers told it: for what is stored, and compared with what others stored."""

    def now(self) -> float:
        """Seconds since 1970."""

    def latest(self) -> float:
        """No earlier than servers' time."""
