"""Repairs that follow losses of records: asked for, noted at the losses, and losses closed when they are done."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

from replicator.domain.copying.resyncs import plan
from replicator.domain.jobs import Job
from replicator.domain.rules import Rule
from replicator.ports.clock import Clock
from replicator.ports.coordination import Registry
from replicator.ports.events import Observer
from replicator.ports.jobs import Jobs

_LOOK_SECONDS = 5.0


class Resyncing:
    """Looks at the losses of the group, as every worker does: what is asked for has the same name for all of them."""

    def __init__(
        self, jobs: Jobs, registry: Registry, rules: Callable[[], Sequence[Rule]], *, clock: Clock, observer: Observer
    ) -> None:
        """`rules`: those that run here."""
        self._jobs = jobs
        self._registry = registry
        self._rules = rules
        self._clock = clock
        self._observer = observer
        self._looked_at = float("-inf")

    async def look(self, jobs: Sequence[Job]) -> None:
        """Do what follows from the losses that are open; `jobs`: all that are known."""
        now = self._clock.monotonic()
        if now - self._looked_at < _LOOK_SECONDS:
            return
        self._looked_at = now
        gaps = await self._registry.open_gaps()
        self._observer.open_gaps(Counter(each.gap.target_id for each in gaps))
        planned = plan(gaps, jobs, self._rules(), self._clock.now())
        for job in planned.create:
            await self._jobs.create(job)
        for gap, job_id in planned.note:
            await self._registry.note_resync(gap, job_id)
        for gap, job_id in planned.close:
            if await self._registry.close_gap(gap, job_id, self._clock.now()):
                self._observer.gap_closed(gap, job_id)
