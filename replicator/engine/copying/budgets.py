"""What a job may take of a region: units per second, shared out among workers by the segments that they hold.

Invariant: what is sent stays within our part of the bound, and the bound itself gives way: a throttle halves it, at
most once a second, and it comes back by a twentieth of the whole each second without one.
"""

from __future__ import annotations

from collections.abc import Callable

from replicator.domain.write_units import UnitBucket
from replicator.engine.applying.write_budget import WriteBudget
from replicator.ports.clock import Clock

_STEP = 0.05
_LEAST = 0.01
_ROUND_SECONDS = 1.0


class AdaptiveShare:
    """The part of a bound that is in use: it falls on throttles, and rises again."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._part = 1.0
        self._at = clock.monotonic()

    @property
    def part(self) -> float:
        """The part now, from 0 to 1."""
        now = self._clock.monotonic()
        self._part = min(1.0, self._part + _STEP * max(0.0, now - self._at))
        self._at = max(self._at, now)
        return self._part

    def throttled(self) -> None:
        """The region asked for less; what it said to requests of one second counts once."""
        now = self._clock.monotonic()
        if now >= self._at + _ROUND_SECONDS or self._part == 1.0:
            self._part = max(_LEAST, self.part / 2)
            self._at = now + _ROUND_SECONDS


class Budget(WriteBudget):
    """One job's bound in one region, of read units or of write units."""

    def __init__(self, per_second: int, held: Callable[[], float], clock: Clock) -> None:
        """`held`: our part of the segments that are held, from 0 to 1, as it is now."""
        self._adaptive = AdaptiveShare(clock)
        super().__init__(UnitBucket(per_second, clock.monotonic()), lambda: held() * self._adaptive.part, clock)

    @property
    def rate(self) -> float:
        """Units per second that are ours now."""
        return self.bucket.per_second * self._share()

    @property
    def taken(self) -> float:
        """Units since this worker began with the job."""
        return self.bucket.taken

    def throttled(self) -> None:
        """The region asked for less."""
        self._adaptive.throttled()
