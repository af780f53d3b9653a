"""Driving the caches beside a source: every change drops its entries, whatever the rule lets pass to replicas."""

from __future__ import annotations

from collections.abc import Sequence

from replicator.domain.cache_keys import plan_invalidation
from replicator.domain.coalescing import Run
from replicator.engine.applying.context import Tally, TargetContext


class SourceCachesDriver:
    """The caches beside the source of a rule of mode `ordered`."""

    def __init__(self, context: TargetContext) -> None:
        self._context = context

    def units(self, run: Run) -> Sequence[Run]:
        """The whole run at once: the keys of every image in it are dropped together."""
        return (run,)

    def superseded(self, unit: Run) -> Run:
        """The same again: a later record drops other keys, too, but none of these in its place."""
        return unit

    async def apply(self, unit: Run, tally: Tally) -> None:
        """Drop the entries of every image, whose write in the source is durable."""
        caches = self._context.place.target.caches
        plans = [(cache_rule, plan_invalidation(cache_rule, unit.records)) for cache_rule in caches]
        await self._context.sync_caches(plans, tally)
        tally.changes += 1
