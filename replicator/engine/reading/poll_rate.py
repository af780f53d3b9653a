"""Calls that read one shard: one at a time, first come, first served, and never more often than the poll interval.

What a source pushes is asked for at once: that call waits for it, and sends nothing.
"""

from __future__ import annotations

import asyncio

from replicator.engine.limits import Limits
from replicator.engine.waiting import Stopped, jitter, pause_or_raise
from replicator.ports.clock import Clock
from replicator.ports.sources import RecordPage, Stream
from replicator.ports.targets import Fence

_INSTANT = 1e-5
"""Seconds that no clock need distinguish."""


class ShardCalls:
    """One shard's calls for records at one kind of place. A reader takes the `turn` also to ask for an iterator."""

    def __init__(self, stream: Stream, *, limits: Limits, clock: Clock, fence: Fence, stop: asyncio.Event) -> None:
        self.turn = asyncio.Lock()
        self._stream = stream
        self._limits = limits
        self._clock = clock
        self._fence = fence
        self._stop = stop
        self._next_at = clock.monotonic() + limits.poll_seconds * jitter()
        self.answered_at = clock.monotonic()
        """When a call last had an answer."""
        self.asked_at = 0.0
        """The server's time, in seconds since 1970, when the call that was answered last was sent, or before that."""
        self.behind: float | None = None
        """How far our clock is behind the server's, by the answer; None: it does not say."""

    async def ask(self, iterator: str, limit: int) -> RecordPage:
        """Ask for records when the next call is due."""
        async with self.turn:
            await self.until_due()
            self._next_at = self._clock.monotonic() + self._limits.poll_seconds
            self._fence.check()
            sent_at = self._clock.monotonic()
            answer = await self._stream.read(iterator, limit)
            self.answered_at = self._clock.monotonic()
            if answer.pushed:
                self._next_at = self.answered_at
            answered = self._clock.now() if answer.at is None else answer.at
            self.asked_at = answered - (self.answered_at - sent_at)
            self.behind = None if answer.at is None else answer.at - self._clock.now()
            return answer

    async def until_due(self) -> None:
        """Wait for the next call's time; raise `Stopped` when the program stops."""
        while (wait := self._next_at - self._clock.monotonic()) > _INSTANT:
            await pause_or_raise(self._stop, wait)
        if self._stop.is_set():
            raise Stopped
