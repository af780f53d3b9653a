"""The write units that this process may take of a replica region: its share of what all workers may take together.

Invariant: no request is sent before its units are taken; shards that wait for units are served in turn.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Hashable

from replicator.domain.write_units import UnitBucket
from replicator.engine.turns import Turns
from replicator.ports.clock import Clock

_SHORTEST_LOOK_SECONDS = 0.001
"""A fraction of a unit is not waited for by itself."""

_LONGEST_LOOK_SECONDS = 0.5
"""A share may change while requests wait for it."""


class WriteBudget:
    """One rule's bound in one region, for all of its tables there."""

    def __init__(self, bucket: UnitBucket, share: Callable[[], float], clock: Clock) -> None:
        """`share`: our part of the bound, from 0 to 1, as it is now."""
        self.bucket = bucket
        self._share = share
        self._clock = clock
        self._turns = Turns()
        self._timer: asyncio.TimerHandle | None = None

    async def take(self, units: int, lane: Hashable) -> None:
        """Return when these units are taken."""
        bucket, now = self.bucket, self._clock.monotonic()
        if not self._turns and not bucket.wait(now, self._share()):
            bucket.take(units, now)
            return
        turn = self._turns.join(lane, units)
        bucket.slowed(now)
        bucket.waiting += 1
        try:
            self._serve()
            await turn
        finally:
            bucket.waiting -= 1

    def settle(self, estimated: int, taken: float) -> None:
        """What a request took is known now."""
        if taken != estimated:
            self.bucket.take(taken - estimated, self._clock.monotonic())

    def _serve(self) -> None:
        """Call those whose units are there; look again when the next ones are."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        while self._turns:
            now = self._clock.monotonic()
            wait = self.bucket.wait(now, self._share())
            if wait:
                loop = asyncio.get_running_loop()
                self._timer = loop.call_later(
                    min(max(wait, _SHORTEST_LOOK_SECONDS), _LONGEST_LOOK_SECONDS), self._serve
                )
                return
            units = self._turns.call_next()
            if units is not None:
                self.bucket.take(units, now)
