"""Driving mode `ordered`: all records of a key in a page become one change, which is brought to one replica."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from replicator.domain.cache_keys import plan_cache
from replicator.domain.coalescing import Run, plan_run
from replicator.domain.conflicts import LogConflict
from replicator.domain.modes.ordered import Change, Outcome, replicate_ordered
from replicator.domain.modes.requests import Done, Request, Response
from replicator.engine.applying.context import Tally, TargetContext


class OrderedDriver:
    """One replica, with its caches."""

    def __init__(self, context: TargetContext) -> None:
        assert context.ports.region is not None, "a replica is written"
        self._context = context
        self._region = context.ports.region

    def units(self, run: Run) -> Sequence[Run]:
        """The whole run at once: its last image stands for all."""
        return (run,)

    def superseded(self, unit: Run) -> Run:
        """With the later records of its key that were read ahead: the last image stands for them too."""
        return Run(unit.key, (*unit.records, *self._context.ahead.behind(unit.key, unit.records[-1].number)))

    async def apply(self, unit: Run, tally: Tally) -> None:
        """Bring a run to the replica, then its cache actions: behind every answer, stale and duplicate included."""
        context = self._context
        change = plan_run(context.rule, unit, context.place.stream.generation)
        if change is None:
            tally.skipped += len(unit.records)
            return
        outcome = await self._replicate(unit, change, tally)
        plans = [
            (cache_rule, plan_cache(cache_rule, unit.records, change)) for cache_rule in context.place.target.caches
        ]
        await context.sync_caches(plans, tally)
        tally.changes += 1
        tally.effects[outcome.effect] += 1
        tally.adopted += outcome.adopted

    async def _replicate(self, unit: Run, change: Change, tally: Tally) -> Outcome:
        """Drive the mode to its end; one failure ends it, and it is begun anew: every step may be repeated."""
        context = self._context
        steps = replicate_ordered(change, context.rule.policy)
        request: Request = next(steps)
        while True:
            response: Response
            if isinstance(request, LogConflict):
                located = replace(request, loser_region=context.place.target.region)
                await context.log(located, unit.records[-1].sequence, tally)
                response = Done()
            else:
                response = await self._region.execute(request, context.fence)
            try:
                request = steps.send(response)
            except StopIteration as end:
                outcome: Outcome = end.value
                return outcome
