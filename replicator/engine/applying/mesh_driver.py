"""Driving the modes of a mesh: one record after another is brought to every region of its rule.

Invariant: a record counts as done when every region has answered, or something newer was seen at home. Records of one
key are never merged: each carries a write that a conflict log may have to show.
"""

from __future__ import annotations

import asyncio
from collections.abc import Generator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from replicator.domain.cache_keys import plan_invalidation
from replicator.domain.coalescing import Run
from replicator.domain.conflicts import LogConflict
from replicator.domain.errors import Disposition, ReplicatorError
from replicator.domain.identifiers import RegionId
from replicator.domain.image import canonical, unreserved
from replicator.domain.modes.active_active import replicate as active_active
from replicator.domain.modes.active_active.classify import Origin, classify
from replicator.domain.modes.active_active.mesh import Mesh
from replicator.domain.modes.active_active.replicate import Ending, replicate_active
from replicator.domain.modes.ordered import Effect
from replicator.domain.modes.requests import (
    At,
    Done,
    FoundAhead,
    LookAhead,
    MeshResponse,
    Remover,
    Request,
    Response,
    SettleTombstone,
    Wait,
)
from replicator.domain.modes.versioned.replicate import Joined, VersionedMesh, replicate_versioned
from replicator.domain.records import ChangeRecord, Event
from replicator.domain.rules import ActivePlan, VersionedPlan
from replicator.domain.stamps import held
from replicator.domain.versions import SEQUENCE_DIGITS, STAMP
from replicator.engine.applying.context import Desk, Tally
from replicator.engine.waiting import Stopped, pause_for_any, pause_or_raise

_WAIT_SECONDS = 0.04
"""Time between two looks at an item that its region has not stamped yet. Two regions that write one key wait for each
other, so all looks together stay well below a second.
"""

_LOOK_AHEAD_SECONDS = 3.0
"""How long a removal that must be ahead in the stream is waited for."""

_SEQUENCES = 10**SEQUENCE_DIGITS
"""A place in a region's history modulo this is the sequence number inside its stream."""

_USERS = frozenset({Origin.LOCAL_PUT, Origin.LOCAL_DELETE, Origin.LOCAL_EXPIRY})

_EFFECTS: Mapping[Ending, Effect] = {
    Ending.PUT: Effect.APPLIED,
    Ending.DELETED: Effect.DELETED,
    Ending.SUPERSEDED: Effect.STALE,
    Ending.BEATEN: Effect.STALE,
    Ending.GONE: Effect.STALE,
    Ending.VERIFIED: Effect.ECHO,
}


class MeshDriver:
    """One region's stream of a mesh."""

    def __init__(self, desk: Desk, plan: VersionedPlan | ActivePlan) -> None:
        assert desk.ports.region is not None, "a mesh writes in its home region too"
        home = desk.rule.source
        self._desk = desk
        self._plan = plan
        self._suspects: set[RegionId] = set()
        """Regions that did not answer when they were last asked."""
        self._regions = {home: desk.ports.region, **desk.ports.others}
        self._stamp = plan.policy.attribute if isinstance(plan, ActivePlan) else STAMP
        if isinstance(plan, ActivePlan):
            self._active = Mesh(home, plan.others, desk.place.stream.generation, plan.policy)
        else:
            self._versioned = VersionedMesh(home, plan.others, plan.version)

    def units(self, run: Run) -> Sequence[Run]:
        """One record each."""
        return [Run(run.key, (record,)) for record in run.records]

    def superseded(self, unit: Run) -> Run:
        """Nothing, once a later write of a user here was read, which owns the key; else the same again.

        So a user can shorten or delete an item that left no room for its stamp.
        """
        return Run(unit.key, ()) if self._is_overwritten_here(unit) else unit

    def _is_overwritten_here(self, unit: Run) -> bool:
        if isinstance(self._plan, VersionedPlan):
            return False  # a later write may be the lesser one
        later = self._desk.ahead.behind(unit.key, unit.records[-1].number)
        return any(self._origin(record) in _USERS for record in later)

    def _origin(self, record: ChangeRecord) -> Origin:
        old, new = held(record.old, self._stamp), held(record.new, self._stamp)
        return classify(old, new, by_ttl=record.by_ttl)

    async def apply(self, unit: Run, tally: Tally) -> None:
        """Drop the cache entries beside the home table, whose write is durable, then bring records to every region."""
        for record in unit.records:
            if not (self._desk.rule.filter.matches(record.new) or self._desk.rule.filter.matches(record.old)):
                tally.skipped += 1
                continue
            await self._drop_cache_entries(record, tally)
            tally.effects[await self._replicate(record, tally)] += 1
            tally.changes += 1

    async def _drop_cache_entries(self, record: ChangeRecord, tally: Tally) -> None:
        caches = self._desk.place.target.caches
        if caches and self._content(record.old) != self._content(record.new):
            plans = [(cache_rule, plan_invalidation(cache_rule, (record,))) for cache_rule in caches]
            await self._desk.sync_caches(plans, tally)

    def _content(self, image: Any) -> bytes | None:
        return None if image is None else canonical(unreserved(image, self._stamp))

    async def _replicate(self, record: ChangeRecord, tally: Tally) -> Effect:
        desk = self._desk
        if isinstance(self._plan, ActivePlan):
            active = replace(self._active, others=self._in_order(self._plan.others))
            outcome: active_active.Outcome = await self._drive(replicate_active(record, active), record, tally)
            return _EFFECTS[outcome.ending]
        own_writes = desk.ports.own_writes
        known = own_writes.known(record.key, desk.clock.monotonic())
        versioned = replace(self._versioned, others=self._in_order(self._plan.others))
        joined: Joined = await self._drive(replicate_versioned(record, versioned, known), record, tally)
        own_writes.note(record.key, joined, desk.clock.monotonic())
        return strongest(joined, ours=(self._versioned.home, joined.rank) in known)

    async def _drive(self, steps: Generator[Any, Any, Any], record: ChangeRecord, tally: Tally) -> Any:
        """Drive a mode to its end; one failure ends it, and it is begun anew: every step may be repeated."""
        response: MeshResponse | None = None
        while True:
            try:
                request = steps.send(response)
            except StopIteration as end:
                return end.value
            response = await self._answer(request, record, tally)

    async def _answer(
        self, request: At | Wait | LookAhead | LogConflict, record: ChangeRecord, tally: Tally
    ) -> MeshResponse:
        desk = self._desk
        match request:
            case At(region, inner):
                answer = await self._execute(region, inner)
                if isinstance(inner, SettleTombstone) and inner.removed_at is None and isinstance(answer, Done):
                    tally.kept_removals += 1
                return answer
            case LogConflict():
                await desk.log(request, record.sequence, tally)
                return Done()
            case Wait():
                await pause_or_raise(desk.stop, _WAIT_SECONDS)
                return Done()
            case LookAhead():
                return FoundAhead(await self._look_ahead(request))

    async def _execute(self, region: RegionId, request: Request) -> Response:
        try:
            response = await self._regions[region].execute(request, self._desk.fence)
        except ReplicatorError as error:
            if error.disposition is Disposition.RETRY:
                self._suspects.add(region)
            raise
        self._suspects.discard(region)
        return response

    def _in_order(self, others: tuple[RegionId, ...]) -> tuple[RegionId, ...]:
        """Other regions, those last that did not answer lately: they hold back none that does."""
        return tuple(sorted(others, key=self._suspects.__contains__)) if self._suspects else others

    async def _look_ahead(self, request: LookAhead) -> Remover:
        """Who removed the item first behind a record; waits a bounded time for what was not read yet."""
        self._desk.ahead.need(1)
        try:
            async with asyncio.timeout(_LOOK_AHEAD_SECONDS):
                return await self._first_remover(request)
        except TimeoutError:
            return Remover.UNKNOWN
        finally:
            self._desk.ahead.need(-1)

    async def _first_remover(self, request: LookAhead) -> Remover:
        desk = self._desk
        while True:
            grown = desk.ahead.grown
            for later in desk.ahead.behind(request.key, request.after % _SEQUENCES):
                if later.event is Event.REMOVE:
                    return self._remover(later)
            if desk.ahead.ended:
                return Remover.UNKNOWN  # it is in a child of this shard, or not at all
            if desk.stop.is_set():
                raise Stopped  # nobody reads on, and an item that was put back would stand there until somebody does
            await pause_for_any(float("inf"), grown, desk.stop)

    def _remover(self, record: ChangeRecord) -> Remover:
        return Remover.USER if self._origin(record) in _USERS else Remover.DAEMON


def strongest(joined: Joined, *, ours: bool = False) -> Effect:
    """What a record did to its mesh, in one word. `ours`: this process itself had brought it to the home region."""
    for effect in (Effect.APPLIED, Effect.DELETED):
        if effect in joined.effects.values():
            return effect
    return Effect.ECHO if ours else Effect.STALE
