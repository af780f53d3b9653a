"""Callers that wait for one thing, in lanes: each lane gets its turn, however many wait in another."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Hashable

_Waiting = tuple["asyncio.Future[int]", float]


class Turns:
    """Who waits, and how much of it each wants. A caller that is cancelled is passed over."""

    def __init__(self) -> None:
        self._lanes: dict[Hashable, deque[_Waiting]] = {}

    def __bool__(self) -> bool:
        return bool(self._lanes)

    def join(self, lane: Hashable, wants: float = 1) -> asyncio.Future[int]:
        """Wait behind the others of a lane; the future gets what `call_next` hands over."""
        turn: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._lanes.setdefault(lane, deque()).append((turn, wants))
        return turn

    def call_next(self, handed: int = 0) -> float | None:
        """Call the first of the lane whose turn it is, which then stands behind all others.

        Returns how much it wants; None when there is none.
        """
        while self._lanes:
            lane = next(iter(self._lanes))
            waiting = self._lanes.pop(lane)
            turn, wants = waiting.popleft()
            if waiting:
                self._lanes[lane] = waiting
            if not turn.done():
                turn.set_result(handed)
                return wants
        return None
