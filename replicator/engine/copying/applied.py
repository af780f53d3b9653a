"""Up to when targets have every change of their source, as jobs wait for it.

Invariant: what is not known is never level: a look counts as passed only when rows and heartbeats say so.
"""

from __future__ import annotations

import asyncio

from msgspec import Struct

from replicator.domain.errors import WorldMismatch
from replicator.domain.identifiers import RegionId
from replicator.domain.rules import Rule, Target
from replicator.domain.shards.applied_through import applied_through, covered_from, frontier
from replicator.domain.shards.leases import KnownStream, StreamRef
from replicator.domain.shards.snapshot import Snapshot
from replicator.domain.targets import TargetId
from replicator.engine.membership.members import Members
from replicator.engine.waiting import pause_or_raise
from replicator.ports.clock import Clock
from replicator.ports.coordination import Coordination, Registry

Followed = tuple[Rule, Target]
"""A target of a rule, whose stream a job must not outrun."""

_FRESH_SECONDS = 0.5
_LOOK_SECONDS = 0.2


class Margins(Struct, frozen=True):
    """How careful jobs are, in seconds: what is added to every wait, and behind which lag they rest."""

    margin_seconds: float
    yield_seconds: float
    zombie_seconds: float = 21.0
    """How long requests of a worker that fell silent may still arrive."""


class Applied:
    """Where targets stand; rows are read anew at most twice a second, whatever waits for them."""

    def __init__(
        self, coordination: Coordination, registry: Registry, members: Members, *, clock: Clock, margins: Margins
    ) -> None:
        self._coordination = coordination
        self._registry = registry
        self._members = members
        self._clock = clock
        self._margins = margins
        self._turn = asyncio.Lock()
        self._known: dict[tuple[RegionId, TargetId], tuple[float, float | None]] = {}

    async def through(self, rule: Rule, target: Target) -> float | None:
        """The latest time before which a target has every change, in seconds since 1970; None while it is not known."""
        async with self._turn:
            read_at, through = self._known.get((rule.source, target.target_id), (float("-inf"), None))
            if self._clock.monotonic() - read_at >= _FRESH_SECONDS:
                self._members.hurry()
                through = await self._look(rule, target)
                self._known[rule.source, target.target_id] = self._clock.monotonic(), through
            return through

    @property
    def zombie_seconds(self) -> float:
        """How long requests of a worker that fell silent may still arrive."""
        return self._margins.zombie_seconds

    async def seized_at(self, rule: Rule, target: Target) -> float | None:
        """When a lease of the rule was last taken from a worker that did not give it back; always read anew."""
        states = [await self._coordination.state(ref) for ref in await self._standing(rule, target)]
        times = [row.seized_at for state in states for row in state.rows.values() if row.seized_at is not None]
        return max(times, default=None)

    async def reads(self, rule: Rule, target: Target) -> StreamRef:
        """The stream that the rule reads now for a target: the oldest that it is not through with."""
        known = await self._standing(rule, target)
        if not known:
            raise WorldMismatch(f"Rule {rule.name} has not read table {rule.table} in {rule.source} yet.")
        return known[0]

    async def covered_from(self, rule: Rule, target: Target) -> float | None:
        """Since when a target has got every change of the table; None: it never started."""
        return await covered_since(self._registry, rule, target)

    async def _standing(self, rule: Rule, target: Target) -> list[StreamRef]:
        known = await _read(self._registry, rule)
        return [each.ref for each in known if not each.is_drained(target.target_id)]

    async def _look(self, rule: Rule, target: Target) -> float | None:
        """While a rule reads an older stream to its end, that one decides."""
        statements = {**self._members.statements, self._members.me: self._members.reach.statements()}
        times: list[float | None] = []
        for known in await _read(self._registry, rule):
            state = None if known.is_drained(target.target_id) else await self._coordination.state(known.ref)
            if state is not None and target.target_id in state.starts:
                standing = frontier(Snapshot(state, [rule]), rule, target, known.ref, statements)
                times.append(applied_through(standing))
        known_times = [time for time in times if time is not None]
        return min(known_times) if known_times and len(known_times) == len(times) else None

    async def lag(self, followed: Followed) -> float | None:
        """At most how far a target is behind, in seconds; None: not known."""
        through = await self.through(*followed)
        return None if through is None else max(0.0, self._clock.now() - through)

    async def passed(self, followed: Followed, at: float, stop: asyncio.Event) -> bool:
        """Wait until a target has everything from before `at`, with the margin; `Stopped` when the work is to stop.

        False: no worker replicates, and none came within the margin.
        """
        alone_since: float | None = None
        while True:
            through = await self.through(*followed)
            if through is not None and through > at + self._margins.margin_seconds:
                return True
            now = self._clock.monotonic()
            alone_since = None if self._members.live else alone_since or now
            if alone_since is not None and now - alone_since > self._margins.margin_seconds:
                return False
            await pause_or_raise(stop, _LOOK_SECONDS)

    async def keeps_up(self, followed: Followed, stop: asyncio.Event) -> None:
        """Wait while a target is further behind than jobs may let it be, or while that is not known.

        Where no worker replicates there is none that could be held back.
        """
        while self._members.live:
            lag = await self.lag(followed)
            if lag is not None and lag <= self._margins.yield_seconds:
                return
            await pause_or_raise(stop, _LOOK_SECONDS)


async def covered_since(registry: Registry, rule: Rule, target: Target) -> float | None:
    """Since when a target has got every change of the table, in seconds since 1970; None: it never started."""
    for known in await _read(registry, rule):
        start = (await registry.starts(known.ref)).get(target.target_id)
        if start is not None:
            return covered_from(start.started_at, known.ref.generation, rule.start)
    return None


async def _read(registry: Registry, rule: Rule) -> list[KnownStream]:
    """The streams that a rule reads, or read before; not those of another kind, which it may have left."""
    known = await registry.streams(rule.source, rule.table)
    return [each for each in known if each.ref.kinesis == rule.kinesis]
