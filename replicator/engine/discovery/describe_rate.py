"""The budget of DescribeStream calls: so many a second and region, of all workers together.

Invariant: as long as all agree on the live workers, no second sees more calls than the budget; callers in one process
are served in turn. AWS throttles a stream at ten calls a second, and every other program that reads it is
served from the same ten. Up to as many workers as calls each has whole calls a second of its own. More workers take
slots by the wall clock: a wrong one costs a throttled call and nothing else.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Collection

from replicator.domain.identifiers import WorkerId
from replicator.ports.clock import Clock


class DescribeBudget:
    """One process's turns to call DescribeStream in one region."""

    def __init__(self, clock: Clock, per_second: float) -> None:
        """`per_second`: calls of all workers together."""
        self._clock = clock
        self._per_second = per_second
        self._turn = asyncio.Lock()
        self._free_at = float("-inf")

    async def turn(self, me: WorkerId, live: Collection[WorkerId]) -> None:
        """Wait until a call may be sent; the workers that live share the rate."""
        async with self._turn:
            workers = sorted({*live, me})
            whole = math.floor(self._per_second / len(workers))
            wait = self._free_at - self._clock.monotonic()
            if not whole:
                wait = max(wait, self._until_slot(workers.index(me), len(workers), max(0.0, wait)))
            if wait > 0:
                await asyncio.sleep(wait)
            self._free_at = self._clock.monotonic() + (1 / whole if whole else 1 / self._per_second)

    def _until_slot(self, place: int, workers: int, earliest: float) -> float:
        """Seconds until our next slot begins, `earliest` seconds from now or later."""
        round_seconds = workers / self._per_second
        since = self._clock.now() + earliest - place / self._per_second
        return earliest + -since % round_seconds
