"""Cache actions, gathered: whoever waits while one batch is under way travels in the next.

Invariant: an action is sent only after the write it follows is durable, because its caller waits for the write first.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field

from replicator.domain.cache_keys import CacheAction
from replicator.domain.errors import LeaseLost, ReplicatorError, Unreachable
from replicator.ports.targets import Cache, Fence

_MOST_ACTIONS = 2000


@dataclass(slots=True)
class _Passenger:
    actions: Sequence[CacheAction]
    fence: Fence
    error: ReplicatorError | None = None


@dataclass(slots=True)
class _Batch:
    passengers: list[_Passenger] = field(default_factory=list)
    size: int = 0
    sent: bool = False


class CacheFunnel:
    """One cache, shared by every shard of the process."""

    def __init__(self, cache: Cache) -> None:
        self._cache = cache
        self._turn = asyncio.Lock()
        self._open = _Batch()

    async def apply(self, actions: Sequence[CacheAction], fence: Fence) -> None:
        """Return when the actions took effect; raise what kept them from it."""
        if not actions:
            return
        if self._open.size >= _MOST_ACTIONS:
            self._open = _Batch()
        batch, passenger = self._open, _Passenger(actions, fence)
        batch.passengers.append(passenger)
        batch.size += len(actions)
        async with self._turn:
            if not batch.sent:
                await self._send(batch)
        if passenger.error is not None:
            raise passenger.error

    async def _send(self, batch: _Batch) -> None:
        batch.sent = True
        if self._open is batch:
            self._open = _Batch()
        aboard = [passenger for passenger in batch.passengers if _may_send(passenger)]
        try:
            if aboard:
                await self._cache.apply([action for passenger in aboard for action in passenger.actions])
        except ReplicatorError as error:
            for passenger in aboard:
                passenger.error = error
        except BaseException:
            for passenger in aboard:
                passenger.error = Unreachable("A batch of cache actions was given up before it was answered.")
            raise


def _may_send(passenger: _Passenger) -> bool:
    try:
        passenger.fence.check()
    except LeaseLost as error:
        passenger.error = error
        return False
    return True
