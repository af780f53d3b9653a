"""Failures on demand, for every memory adapter.

Invariant: the same seed and the same calls give the same failures. A fault before the effect leaves the world as it
was; one after the effect changed it, and the caller cannot distinguish the two: that is what a lost answer looks like.
"""

from __future__ import annotations

import enum
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from random import Random

from replicator.domain.errors import ReplicatorError, Throttled, Unreachable


class Fault(enum.Enum):
    """What goes wrong with one call."""

    BEFORE = "before"
    AFTER = "after"
    THROTTLE = "throttle"


class Faults:
    """A plan of failures: seeded chances, a script for the next calls, and outages that last until they are lifted."""

    def __init__(
        self,
        seed: int = 0,
        *,
        before: float = 0.0,
        after: float = 0.0,
        throttle: float = 0.0,
        pause: Callable[[str], Awaitable[None]] | None = None,
    ) -> None:
        """`before`, `after`, `throttle`: chances per call; `pause` is awaited ahead of every call, with its name."""
        self._random = Random(seed)  # noqa: S311 - a reproducible plan, no secret
        self._chances = ((Fault.BEFORE, before), (Fault.AFTER, after), (Fault.THROTTLE, throttle))
        self._script: deque[Fault | None] = deque()
        self.pause = pause
        self.outage: type[ReplicatorError] | None = None
        """While set, every call raises this and does nothing."""
        self.struck = 0
        """How many calls failed so far."""

    def script(self, *faults: Fault | None) -> None:
        """Decide the next calls, one each; None lets a call pass. Chances count again afterwards."""
        self._script.extend(faults)

    @asynccontextmanager
    async def around(self, call: str) -> AsyncIterator[None]:
        """Stand around the effect of one call."""
        if self.pause is not None:
            await self.pause(call)
        if self.outage is not None:
            self.struck += 1
            raise self.outage(f"{call} failed: the memory world has an outage.")
        fault = self._next()
        if fault is not None:
            self.struck += 1
        if fault is Fault.THROTTLE:
            raise Throttled(f"{call} was throttled.")
        if fault is Fault.BEFORE:
            raise Unreachable(f"{call} got no answer.")
        yield
        if fault is Fault.AFTER:
            raise Unreachable(f"{call} got no answer.")

    def _next(self) -> Fault | None:
        if self._script:
            return self._script.popleft()
        drawn = self._random.random()
        for fault, chance in self._chances:
            drawn -= chance
            if drawn < 0:
                return fault
        return None
