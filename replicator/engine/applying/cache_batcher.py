"""Cache actions, gathered: what arrives while one batch is under way is sent with the next.

Invariant: an action is sent only after the write it follows is durable, because its caller waits for the write first.
A refused action fails the call that asked for it and no other. One caller of a batch sends it for all of them; when
that one is cancelled before, the next one does.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Protocol

import msgspec

from replicator.domain.cache_debt import OwedEntry
from replicator.domain.cache_keys import CacheAction, CachePlan, CacheRule
from replicator.domain.errors import LeaseLost, ReplicatorError, Unreachable
from replicator.ports.targets import Cache, CacheAnswer, CacheFill, Fence

_MOST_ACTIONS = 2000
_ENOUGH_ACTIONS = 64
_GATHER_SECONDS = 0.002
"""A batch with fewer actions waits so long for more: a call costs as much as many keys in one."""


class CacheRequest(msgspec.Struct, eq=False):
    """What one change asks of one cache, and what became of it.

    `keyless`: how many of its images have no entry. `unstored`: how many entries were dropped because there is no room
    to refresh them, `too_large`: because of what the rule allows. `leased`: leases of entries that are to be filled.
    """

    cache: str
    actions: Sequence[CacheAction]
    keyless: int = 0
    error: ReplicatorError | None = None
    unstored: int = 0
    too_large: int = 0
    rule: CacheRule | None = None
    leased: Mapping[str, str] = {}


def request_of(rule: CacheRule, plan: CachePlan) -> CacheRequest:
    """What a rule's plan asks of its cache."""
    return CacheRequest(rule.cache, plan.actions, plan.keyless, too_large=plan.too_large, rule=rule)


class _Call(msgspec.Struct, eq=False):
    requests: Sequence[CacheRequest]
    fence: Fence
    waiter: asyncio.Future[bool] | None = None
    """Of a caller that does not send: gets whether it is to send after all."""


class _Batch:
    __slots__ = ("calls", "sent", "size")

    def __init__(self) -> None:
        self.calls: list[_Call] = []
        self.size = 0
        self.sent = False


class Owes(Protocol):
    """Where a cache is noted to be owed drops of what is changed without a record."""

    async def hold(self, keys: Sequence[str], seconds: float) -> list[OwedEntry]:
        """Note durably that these entries are to be dropped when a change of theirs came, within so many seconds."""

    def release(self, entries: Sequence[OwedEntry]) -> None:
        """It came, or never will."""

    async def drop_all(self) -> bool:
        """Note durably that all entries of the rules are to be dropped; False when nothing tells them from others."""


class CacheFunnel:
    """One cache, shared by every shard of the process."""

    def __init__(self, cache: Cache, debt: Owes | None = None) -> None:
        """`debt`: of the cache; one without is waited for."""
        self._cache = cache
        self._debt = debt
        self._turn = asyncio.Lock()
        self._open: _Batch | None = None

    async def apply(self, actions: Sequence[CacheAction], fence: Fence) -> int:
        """Return when the actions took effect; raise what kept one of them from it.

        Returns how many entries were dropped because there is no room to refresh them.
        """
        request = CacheRequest("", actions)
        await self.carry_out([request], fence)
        if request.error is not None:
            raise request.error
        return request.unstored

    async def carry_out(self, requests: Sequence[CacheRequest], fence: Fence) -> None:
        """Return when every request has its answer: none that is refused keeps another one back."""
        size = sum([len(request.actions) for request in requests])
        if not size:
            return
        batch, call = self._open, _Call(requests, fence)
        sends = batch is None or batch.size >= _MOST_ACTIONS
        if batch is None or sends:
            batch = self._open = _Batch()
        else:
            call.waiter = asyncio.get_running_loop().create_future()
        batch.calls.append(call)
        batch.size += size
        try:
            sends = sends or (call.waiter is not None and await call.waiter)
            if sends:
                await self._send_in_turn(batch)
        except BaseException:
            if not batch.sent and (sends or _was_called(call.waiter)):
                self._hand_on(batch)
            raise

    async def hold(self, actions: Sequence[CacheAction], seconds: float, fence: Fence) -> list[OwedEntry]:
        """Note that entries are to be dropped, ahead of a change that no record tells of; until when it is to come."""
        if self._debt is None or not actions:
            return []
        fence.check()
        return await self._debt.hold([action.key for action in actions], seconds)

    def release(self, entries: Sequence[OwedEntry]) -> None:
        """The change came, or never will."""
        if self._debt is not None:
            self._debt.release(entries)

    async def drop_all(self, fence: Fence) -> bool:
        """Note durably that all entries of the rules are to be dropped; False when none can be told from others."""
        fence.check()
        return self._debt is not None and await self._debt.drop_all()

    async def fill(self, fills: Sequence[CacheFill], fence: Fence) -> int:
        """Store entries whose leases still stand; returns how many. What fails leaves them absent."""
        fence.check()
        try:
            return await self._cache.fill(fills)
        except (ReplicatorError, TimeoutError):
            return 0

    async def heads(self, keys: Sequence[str]) -> list[bytes]:
        """The first bytes of entries, in the order of their keys."""
        return await self._cache.heads(keys) if keys else []

    def _hand_on(self, batch: _Batch) -> None:
        """Let another caller send a batch; without one it is given up."""
        for call in batch.calls:
            if call.waiter is not None and not call.waiter.done():
                call.waiter.set_result(True)
                return
        if self._open is batch:
            self._open = None

    async def _send_in_turn(self, batch: _Batch) -> None:
        async with self._turn:
            if batch.size < _ENOUGH_ACTIONS:
                await asyncio.sleep(_GATHER_SECONDS)
            batch.sent = True
            if self._open is batch:
                self._open = None
            try:
                await self._send([request for call in batch.calls if _may_send(call) for request in call.requests])
            finally:
                for call in batch.calls:
                    if call.waiter is not None and not call.waiter.done():
                        call.waiter.set_result(False)

    async def _send(self, requests: Sequence[CacheRequest]) -> None:
        try:
            if requests:
                answer = await self._cache.apply([action for request in requests for action in request.actions])
                if answer.unstored or answer.refused or answer.leased:
                    for request in requests:
                        _hand_out(answer, request)
        except ReplicatorError as error:
            for request in requests:
                request.error = error
        except BaseException:
            for request in requests:
                request.error = Unreachable("A batch of cache actions was given up before it was answered.")
            raise


def _was_called(waiter: asyncio.Future[bool] | None) -> bool:
    return waiter is not None and waiter.done() and not waiter.cancelled() and waiter.result()


def _hand_out(answer: CacheAnswer, request: CacheRequest) -> None:
    keys = {action.key for action in request.actions}
    request.unstored = len(answer.unstored & keys)
    request.leased = {key: answer.leased[key] for key in answer.leased.keys() & keys}
    request.error = next((error for key, error in answer.refused.items() if key in keys), None)


def _may_send(call: _Call) -> bool:
    try:
        call.fence.check()
    except LeaseLost as error:
        for request in call.requests:
            request.error = error
        return False
    return True
