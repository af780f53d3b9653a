"""Driving the caches beside a source: every change drops its entries, whatever the rule lets pass to replicas."""

from __future__ import annotations

from collections.abc import Sequence

from replicator.domain.cache_keys import plan_invalidation
from replicator.domain.coalescing import Run
from replicator.domain.errors import ReplicatorError
from replicator.domain.owed_keys import is_refusal
from replicator.domain.versions import version_of
from replicator.engine.applying.cache_batcher import request_of
from replicator.engine.applying.context import Tally, TargetContext, Written, one_by_one


class SourceCachesDriver:
    """The caches beside the source of a rule of mode `ordered`."""

    chain = None
    splits = True
    idle = None

    def __init__(self, context: TargetContext) -> None:
        self._context = context

    def units(self, run: Run) -> Sequence[Run]:
        """The whole run at once: the keys of every image in it are dropped together."""
        return (run,)

    def superseded(self, unit: Run) -> Run:
        """The same again: a later record drops other keys, too, but none of these in its place."""
        return unit

    async def apply(self, unit: Run, tally: Tally) -> bool | Written:
        """Drop the entries of every image, whose write in the source is durable; set aside what has no keys to tell."""
        context = self._context
        try:
            caches = context.place.target.caches
            requests = [request_of(each, plan_invalidation(each, unit.records)) for each in caches]
        except ReplicatorError as error:
            if context.aside is None or not is_refusal(error):
                raise
            if len(unit.records) == 1:
                await context.aside.change(unit, None, error)
                tally.parked += 1
                return False
            return await one_by_one(self, context, unit, tally)
        version = version_of(context.rule.epoch, context.place.stream.generation, unit.records[-1].rank)
        return Written(unit, version, requests)
