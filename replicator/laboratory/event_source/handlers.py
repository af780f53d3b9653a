"""Processes of a function, and which of them is called."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Protocol

from replicator.laboratory.event_source.options import Event


class Handler(Protocol):
    """One process of a function."""

    def handle(self, event: Event, milliseconds: int) -> Any:
        """The answer to an event."""

    def close(self) -> None:
        """End it."""


class Handlers:
    """As many processes of a function as there are invocations at once, each in a thread.

    `most`: the function's reserved concurrency; an invocation beyond it waits.
    """

    def __init__(self, make: Callable[[], Handler], milliseconds: int, *, most: int = 1000) -> None:
        self._make = make
        self._milliseconds = milliseconds
        self._slots = asyncio.Semaphore(most)
        self._idle: list[Handler] = []
        self.all: list[Handler] = []

    async def invoke(self, event: Event) -> Any:
        """Call one that is idle; a new one when none is."""
        async with self._slots:
            if not self._idle:
                self._idle.append(self._make())
                self.all.append(self._idle[-1])
            handler = self._idle.pop()
            try:
                return await asyncio.to_thread(handler.handle, event, self._milliseconds)
            finally:
                self._idle.append(handler)

    async def close(self) -> None:
        """End all of them, when nothing is invoked any more."""
        for handler in self.all:
            await asyncio.to_thread(handler.close)
