"""Driving what is no user's: a rule's own canary is brought as it is, and other canaries are passed over."""

from __future__ import annotations

from collections.abc import Coroutine, Sequence
from typing import Any

from replicator.domain.cache_keys import CacheRule, CacheVerb
from replicator.domain.canary import canary_entry, is_canary, is_canary_of
from replicator.domain.coalescing import Run
from replicator.domain.filters import Filter
from replicator.domain.identifiers import RuleName
from replicator.domain.records import ChangeRecord
from replicator.domain.rules import Target, TtlDeletes
from replicator.domain.targets import TargetKind
from replicator.domain.values import replace
from replicator.engine.applying.context import Applied, Behind, Driver, Tally, TargetContext


class CanaryDriver:
    """A target's driver, and beside it the one that brings its rule's canary there; None: none is brought."""

    def __init__(self, rule: RuleName, driver: Driver, canaries: Driver | None) -> None:
        self._rule = rule
        self._driver = driver
        self._canaries = canaries
        self._is_idle, self._chain = driver.idle, driver.chain
        self.chain = None if self._chain is None else self._chain_of_users
        self.splits = driver.splits
        self.idle = None if self._is_idle is None else self._is_users_and_idle

    def _is_users_and_idle(self, record: ChangeRecord) -> bool:
        assert self._is_idle is not None, "else it is not asked"
        return not is_canary(record.key) and self._is_idle(record)

    def units(self, run: Run) -> Sequence[Run]:
        """As the driver takes them."""
        driver = self._of(run) if is_canary(run.key) else self._driver
        return driver.units(run)

    def superseded(self, unit: Run) -> Run:
        """As the driver says."""
        driver = self._of(unit) if is_canary(unit.key) else self._driver
        return driver.superseded(unit)

    def apply(self, unit: Run, tally: Tally) -> Applied | Coroutine[Any, Any, Applied]:
        """Bring what is a user's, or the rule's own canary."""
        driver = self._of(unit) if is_canary(unit.key) else self._driver
        return driver.apply(unit, tally)

    def _chain_of_users(self, unit: Run, tally: Tally, behind: Behind) -> Applied | Coroutine[Any, Any, Applied]:
        assert self._chain is not None, "else there is none"
        return self.apply(unit, tally) if is_canary(unit.key) else self._chain(unit, tally, behind)

    def _of(self, unit: Run) -> Driver:
        """What brings a canary."""
        return self._canaries if self._canaries and is_canary_of(unit.key, self._rule) else _PASSED_OVER


class _PassedOver:
    """What is done with the canaries of others."""

    chain = None
    idle = None
    splits = False

    def units(self, run: Run) -> Sequence[Run]:
        return (run,)

    def superseded(self, unit: Run) -> Run:
        return unit

    def apply(self, unit: Run, tally: Tally) -> bool:
        tally.skipped += len(unit.records)
        return False


_PASSED_OVER = _PassedOver()


def for_canaries(context: TargetContext) -> TargetContext | None:
    """A target's context for its rule's canary, which no filter holds back and no transform changes.

    Of each cache one entry is dropped. None where none is brought: to sinks, and of a rule that has no canary.
    """
    rule, target = context.rule, context.place.target
    if rule.canary is None or target.kind is TargetKind.EVENTS:
        return None
    plain = replace(target, transform=None, caches=canary_caches(target))
    return replace(
        context,
        rule=replace(rule, filter=Filter(), ttl_deletes=TtlDeletes.REPLICATE),
        place=replace(context.place, target=plain),
        ports=replace(context.ports, verifiers={}),
    )


def canary_caches(target: Target) -> tuple[CacheRule, ...]:
    """Which entry of each cache a canary drops: one that begins as those of the first action there."""
    firsts: dict[str, CacheRule] = {}
    for each in target.caches:
        firsts.setdefault(each.cache, each)
    return tuple(
        CacheRule(name, each.region, canary_entry(each.key), CacheVerb.INVALIDATE, each.ttl)
        for name, each in firsts.items()
    )
