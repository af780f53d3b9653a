"""The workers that apply one page: as many as its answers take to come, and no more.

What is in flight is memory that the processor goes through with every answer. Where answers come as fast as they are
dealt with, more of it applies nothing sooner and makes each record dearer; where they come from far away, it is all
that helps. So a page begins with few workers, and has twice as many whenever they began nothing new for a while; those
that found nothing left come back then, for what failed behind their backs.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from replicator.engine.applying.jobs import Jobs

FEW = 64
"""Enough for what a shard delivers, about 1000 records a second, with answers that take up to 40 milliseconds."""

_LOOK_SECONDS = 0.02
_RARE_LOOK_SECONDS = 0.16
"""While nothing can be begun by more workers and answers are awaited, each look comes twice as late, up to this."""

_SLOW_LOOKS = 2
"""So many looks in a row must show long answers: beside much other work this process, or the one that answers, gets no
processor for a moment, and a connection that is opened for that under TLS costs as much as ten records.
"""


class Crew:
    """Workers of one page, a group of tasks; none begins once one of them has failed, or all have ended."""

    def __init__(self, jobs: Jobs, work: Callable[[], Coroutine[Any, Any, None]], *, most: int) -> None:
        self._group = asyncio.TaskGroup()
        self._jobs = jobs
        self._work = work
        self._most = most
        self._workers: list[asyncio.Task[None]] = []
        self.size = 0
        """How many workers there were at most."""
        self._begun = self._returned = self._slow = 0
        self._pause = _LOOK_SECONDS
        self._due = 0.0
        self._timer: asyncio.TimerHandle | None = None

    async def run(self, first: int) -> None:
        """Work on all jobs, by `first` workers to begin with; returns when every worker has ended."""
        try:
            async with self._group:
                self._grow(first)
                self._watch()
        finally:
            if self._timer is not None:
                self._timer.cancel()

    def _grow(self, count: int) -> None:
        self.size = min(count, self._most)
        for number in range(len(self._workers), self.size):
            self._workers.append(self._group.create_task(self._work(), name=f"apply-{number}"))

    def _watch(self) -> None:
        self._begun = self._jobs.begun
        loop = asyncio.get_running_loop()
        self._due = loop.time() + self._pause
        self._timer = loop.call_at(self._due, self._look)

    def _look(self) -> None:
        """See what was begun since the last look: less than by half of the workers shows that answers take longer."""
        working = self._workers = [worker for worker in self._workers if not worker.done()]
        if not working or any(worker.cancelling() for worker in working):
            return  # the group ends
        may_grow = self.size < self._most or self._jobs.returned != self._returned
        if 2 * (self._jobs.begun - self._begun) >= self.size:
            self._slow = 0
        elif asyncio.get_running_loop().time() - self._due < _LOOK_SECONDS / 2:  # else there was no processor
            self._slow += 1
        waits = self._begun == self._jobs.begun and not (self._jobs and may_grow)
        self._pause = min(self._pause * 2, _RARE_LOOK_SECONDS) if waits else _LOOK_SECONDS
        if self._jobs and may_grow and self._slow >= _SLOW_LOOKS:
            self._returned = self._jobs.returned
            self._grow(self.size * 2)
        self._watch()
