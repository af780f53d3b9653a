"""Cache actions, gathered: what arrives while one batch is under way is sent with the next.

Invariant: an action is sent only after the write it follows is durable, because its caller waits for the write first.
A refused action fails the call that asked for it and no other.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field

from replicator.domain.cache_keys import CacheAction
from replicator.domain.errors import LeaseLost, ReplicatorError, Unreachable
from replicator.ports.targets import Cache, CacheAnswer, Fence

_MOST_ACTIONS = 2000


@dataclass(slots=True)
class _Request:
    actions: Sequence[CacheAction]
    fence: Fence
    error: ReplicatorError | None = None
    unstored: int = 0


@dataclass(slots=True)
class _Batch:
    requests: list[_Request] = field(default_factory=list)
    size: int = 0
    sent: bool = False


class CacheFunnel:
    """One cache, shared by every shard of the process."""

    def __init__(self, cache: Cache) -> None:
        self._cache = cache
        self._turn = asyncio.Lock()
        self._open = _Batch()

    async def apply(self, actions: Sequence[CacheAction], fence: Fence) -> int:
        """Return when the actions took effect; raise what kept one of them from it.

        Returns how many entries were dropped because there is no room to refresh them.
        """
        if not actions:
            return 0
        if self._open.size >= _MOST_ACTIONS:
            self._open = _Batch()
        batch, request = self._open, _Request(actions, fence)
        batch.requests.append(request)
        batch.size += len(actions)
        async with self._turn:
            if not batch.sent:
                await self._send(batch)
        if request.error is not None:
            raise request.error
        return request.unstored

    async def _send(self, batch: _Batch) -> None:
        batch.sent = True
        if self._open is batch:
            self._open = _Batch()
        sent = [request for request in batch.requests if _may_send(request)]
        try:
            if sent:
                answer = await self._cache.apply([action for request in sent for action in request.actions])
                for request in sent:
                    _hand_out(answer, request)
        except ReplicatorError as error:
            for request in sent:
                request.error = error
        except BaseException:
            for request in sent:
                request.error = Unreachable("A batch of cache actions was given up before it was answered.")
            raise


def _hand_out(answer: CacheAnswer, request: _Request) -> None:
    keys = {action.key for action in request.actions}
    request.unstored = len(answer.unstored & keys)
    request.error = next((error for key, error in answer.refused.items() if key in keys), None)


def _may_send(request: _Request) -> bool:
    try:
        request.fence.check()
    except LeaseLost as error:
        request.error = error
        return False
    return True
