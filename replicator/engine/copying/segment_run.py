"""One segment of a job: looks run ahead of what is done about them, and its position follows what is durable.

Invariant: a position is stored behind the effects of every page before it, under the epoch of our claim; a page that
was looked at and not begun is forgotten when the work stops, and one that was begun is finished first.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress

from replicator.domain.errors import ReplicatorError
from replicator.domain.jobs import ITEMS, Counts, Segment, added
from replicator.domain.values import replace
from replicator.engine.copying.applied import Applied
from replicator.engine.copying.handlers import Handler, Look
from replicator.engine.membership.session import ShardFence
from replicator.engine.waiting import Stopped, unless_stopped
from replicator.ports.jobs import Jobs


class SegmentRun:
    """A segment that is ours, from its stored position to its end, or until `stop`."""

    def __init__(  # noqa: PLR0913 - its collaborators, given once
        self,
        segment: Segment,
        handler: Handler,
        *,
        jobs: Jobs,
        applied: Applied,
        fence: ShardFence,
        pages: asyncio.Semaphore,
        stop: asyncio.Event,
        spent: Callable[[float], Counts],
    ) -> None:
        """`pages`: what all segments of the process may hold together.

        `spent`: units that were taken since it was asked last; it is given how many items are done since.
        """
        self._segment = segment
        self._handler = handler
        self._jobs = jobs
        self._applied = applied
        self._fence = fence
        self._pages = pages
        self._stop = stop
        self._spent = spent
        self._looks: asyncio.Queue[Look] = asyncio.Queue()
        self._held = 0

    async def run(self) -> None:
        """Work; raises what keeps it from going on, `LeaseLost` among it."""
        looking = asyncio.ensure_future(self._look_ahead())
        acting = asyncio.ensure_future(self._act())
        try:
            await asyncio.wait((looking, acting), return_when=asyncio.FIRST_EXCEPTION)
            for work in (acting, looking):
                if work.done():
                    work.result()
        except Stopped:
            pass
        finally:
            await _ended(looking, acting)
            for _ in range(self._held):
                self._pages.release()
            await self._give_back()

    async def _look_ahead(self) -> None:
        position = self._segment.position
        while not self._stop.is_set():
            await self._keep_up()
            await unless_stopped(self._stop, self._pages.acquire())
            self._held += 1
            look = await self._handler.look(self._segment, position)
            self._looks.put_nowait(look)
            if look.after is None:
                return
            position = look.after

    async def _act(self) -> None:
        while not self._stop.is_set():
            look = await unless_stopped(self._stop, self._looks.get())
            if look.at is not None:
                at = look.at
                passed = [await self._applied.passed(each, at, self._stop) for each in self._handler.follows]
                look = replace(look, passed=all(passed))
            counts = await self._handler.act(self._segment, look, self._fence)
            spent = self._spent(look.counts.get(ITEMS, 0))
            done, total = look.after is None, added(self._segment.counts, look.counts, counts, spent)
            self._fence.check()
            self._segment = await self._jobs.save(self._segment, look.after, total, done=done)
            self._pages.release()
            self._held -= 1
            if done:
                return

    async def _keep_up(self) -> None:
        for followed in self._handler.follows:
            await self._applied.keeps_up(followed, self._stop)

    async def _give_back(self) -> None:
        """A row that still names us is claimed by us again, or by others when we are gone."""
        with suppress(ReplicatorError):
            self._fence.check()
            if self._segment.owner is not None:
                await self._jobs.release(self._segment)


async def _ended(*works: asyncio.Future[None]) -> None:
    for work in works:
        work.cancel()
    await asyncio.gather(*works, return_exceptions=True)
