"""Events of many keys, gathered into calls of their sink.

A key has one event here at a time, so the events of a call may be taken or refused each by itself and keep the order of
their keys, also when a sender is gone and another one sends for its key. Invariant: an event is sent only while its
sender's fence stands, and each sender gets what became of its own event. One sender of a batch sends it for all.
"""

from __future__ import annotations

import asyncio
from collections import deque

import msgspec

from replicator.domain.errors import LeaseLost, ReplicatorError, Unreachable
from replicator.domain.item_events import EventShape, ItemEvent
from replicator.ports.targets import Fence, Sink

_GATHER_SECONDS = 0.002
"""A batch that is not full waits so long for more: a call costs as much as many events in one."""


class _Request(msgspec.Struct, eq=False):
    event: ItemEvent
    fence: Fence
    answer: asyncio.Future[ReplicatorError | None]
    is_taken: bool = False

    @property
    def key(self) -> tuple[str, str]:
        """What its event is of: table and key."""
        return self.event.source, self.event.partition_key


class EventFunnel:
    """One sink, shared by every shard of the process."""

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self._calls = asyncio.Semaphore(sink.at_once)
        self._waiting: deque[_Request] = deque()
        self._under_way: dict[tuple[str, str], asyncio.Future[ReplicatorError | None]] = {}
        """What was begun and is not answered, by table and key."""

    @property
    def shape(self) -> EventShape:
        """What its events show."""
        return self._sink.shape

    async def send(self, event: ItemEvent, fence: Fence) -> None:
        """Return when the event is durable at the sink; raise what kept it from that.

        What was begun for its key is waited for, though its sender may be gone: it must not come behind this one.
        """
        request = _Request(event, fence, asyncio.get_running_loop().create_future())
        while (before := self._under_way.get(request.key)) is not None:
            await asyncio.wait([before])
        self._under_way[request.key] = request.answer
        self._waiting.append(request)
        try:
            while not request.is_taken:
                async with self._calls:
                    if not request.is_taken:
                        await self._send_next()
            error = await asyncio.shield(request.answer)
        finally:
            if not request.is_taken:
                self._waiting.remove(request)
                self._settle(request, None)
        if error is not None:
            raise error

    def _settle(self, request: _Request, error: ReplicatorError | None) -> None:
        if not request.answer.done():
            del self._under_way[request.key]
            request.answer.set_result(error)

    async def _send_next(self) -> None:
        if len(self._waiting) < self._sink.most:
            await asyncio.sleep(_GATHER_SECONDS)
        batch = self._next_batch()
        if not batch:
            return
        try:
            answers = await self._sink.send([each.event for each in batch], [each.fence for each in batch])
            for request, answer in zip(batch, answers, strict=True):
                self._settle(request, answer)
        except ReplicatorError as error:
            for request in batch:
                self._settle(request, type(error)(error.message, advice=error.advice))
        except BaseException:
            for request in batch:
                self._settle(request, Unreachable("A batch of events was given up before it was answered."))
            raise

    def _next_batch(self) -> list[_Request]:
        batch: list[_Request] = []
        while self._waiting and len(batch) < self._sink.most:
            request = self._waiting.popleft()
            request.is_taken = True
            try:
                request.fence.check()
            except LeaseLost as error:
                self._settle(request, error)
            else:
                batch.append(request)
        return batch
