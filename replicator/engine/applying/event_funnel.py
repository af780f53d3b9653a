"""Events of many keys, gathered into calls of their sink.

A key has one event here at a time, so the events of a call may be taken or refused each by itself and keep the order of
their keys. Invariant: an event is sent only while its sender's fence stands, and each sender gets what became of its
own event. One sender of a batch sends it for all of them.
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

    def settle(self, error: ReplicatorError | None) -> None:
        if not self.answer.done():
            self.answer.set_result(error)


class EventFunnel:
    """One sink, shared by every shard of the process."""

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self._calls = asyncio.Semaphore(sink.at_once)
        self._waiting: deque[_Request] = deque()

    @property
    def shape(self) -> EventShape:
        """What its events show."""
        return self._sink.shape

    async def send(self, event: ItemEvent, fence: Fence) -> None:
        """Return when the event is durable at the sink; raise what kept it from that."""
        request = _Request(event, fence, asyncio.get_running_loop().create_future())
        self._waiting.append(request)
        try:
            while not request.is_taken:
                async with self._calls:
                    if not request.is_taken:
                        await self._send_next()
            error = await request.answer
        finally:
            if not request.is_taken:
                self._waiting.remove(request)
        if error is not None:
            raise error

    async def _send_next(self) -> None:
        if len(self._waiting) < self._sink.most:
            await asyncio.sleep(_GATHER_SECONDS)
        batch: list[_Request] = []
        while self._waiting and len(batch) < self._sink.most:
            request = self._waiting.popleft()
            request.is_taken = True
            try:
                request.fence.check()
            except LeaseLost as error:
                request.settle(error)
            else:
                batch.append(request)
        if not batch:
            return
        try:
            answers = await self._sink.send([request.event for request in batch])
        except ReplicatorError as error:
            answers = [type(error)(error.message, advice=error.advice) for _ in batch]
        except BaseException:
            for request in batch:
                request.settle(Unreachable("A batch of events was given up before it was answered."))
            raise
        for request, answer in zip(batch, answers, strict=True):
            request.settle(answer)
