"""What runs beside the server: followers, the clock's tick, the script.

A task group would wrap the errors of the laboratory's user, above all those of a test. Invariant: every task ends
with `close`; the first error of one is raised there, unless the user's own is on its way.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from dataclasses import dataclass, field
from typing import Any


@dataclass(slots=True)
class Background:
    """Named tasks with one end. `broken` is set when one of them failed."""

    broken: asyncio.Event = field(default_factory=asyncio.Event)
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)
    _errors: list[BaseException] = field(default_factory=list)

    def start(self, work: Coroutine[Any, Any, None], name: str) -> None:
        """Run a coroutine until it ends, or `close` is called."""
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    async def close(self) -> None:
        """End all of them."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def check(self) -> None:
        """Raise the first error of a task."""
        if self._errors:
            raise self._errors[0]

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._errors.append(error)
            self.broken.set()
