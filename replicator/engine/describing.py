"""The budget of DescribeStream calls: so many a second and region, of all workers together.

Invariant: the calls of one process are spaced by its part of the rate, whoever asks; those who ask are served in turn.
AWS throttles a stream at ten calls a second, and every other program that reads it is served from the same ten.
"""

from __future__ import annotations

import asyncio

from replicator.ports import Clock


class DescribeBudget:
    """One process's turns to call DescribeStream in one region."""

    def __init__(self, clock: Clock, per_second: float) -> None:
        """`per_second`: calls of all workers together."""
        self._clock = clock
        self._per_second = per_second
        self._turn = asyncio.Lock()
        self._free_at = float("-inf")

    async def turn(self, workers: int) -> None:
        """Wait until a call may be sent; `workers` share the rate."""
        async with self._turn:
            wait = self._free_at - self._clock.monotonic()
            if wait > 0:
                await asyncio.sleep(wait)
            self._free_at = self._clock.monotonic() + max(1, workers) / self._per_second
