"""Driving mode `ordered`: all records of a key in a page become one change, which is brought to one replica.

A change that the replica refuses for good is set aside, if its rule says so, and what is behind it goes on.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from replicator.domain.cache_keys import plan_cache, plan_invalidation
from replicator.domain.coalescing import (
    Run,
    as_the_source_says,
    behind,
    goes_behind,
    in_order,
    is_guessed,
    is_left,
    plan_run,
)
from replicator.domain.conflicts import LogConflict
from replicator.domain.errors import PoisonRecord, ReplicatorError
from replicator.domain.image import Image
from replicator.domain.item_size import LARGEST_ITEM, STAMP_BYTES, excess
from replicator.domain.modes.ordered import Action, Change, Effect, Outcome, replicate_ordered
from replicator.domain.modes.requests import Done, Found, GetItem, GuardedPut, Put, Request, Response
from replicator.domain.owed_keys import is_refusal, settles
from replicator.domain.records import ChangeRecord
from replicator.domain.transforms import held_under, shaped_if_it_can_be
from replicator.domain.values import replace
from replicator.domain.versions import is_tied
from replicator.engine.applying.cache_batcher import CacheRequest, request_of
from replicator.engine.applying.context import Behind, Tally, TargetContext, Written, one_by_one
from replicator.engine.applying.usual_puts import UsualPut, UsualPuts
from replicator.ports.targets import Chains


class _Plan(msgspec.Struct, frozen=True):
    """What a run asks for: a change of the replica, and cache actions behind it."""

    change: Change
    caches: Sequence[CacheRequest]


class OrderedDriver:
    """One replica, with its caches."""

    idle = None

    def __init__(self, context: TargetContext) -> None:
        assert context.ports.region is not None, "a replica is written"
        self._context = context
        self._region = context.ports.region
        self._usual = UsualPuts(context.rule, context.place.target, context.place.stream.generation)
        self._chains = self._region if isinstance(self._region, Chains) else None
        self.chain = None if self._chains is None else self._in_chains

    splits = False

    def units(self, run: Run) -> Sequence[Run]:
        """The whole run at once: its last image stands for all."""
        return (run,)

    def superseded(self, unit: Run) -> Run:
        """With the later records of its key that were read ahead: the last image stands for them too."""
        last = max(record.number for record in unit.records)
        return Run(unit.key, in_order((*unit.records, *self._context.ahead.behind(unit.key, last))))

    async def apply(self, unit: Run, tally: Tally) -> bool | Written:
        """Bring a run to the replica; its cache actions are left: behind every answer, stale and duplicate included.

        What is refused for good is set aside instead; what was set aside before and is taken now is settled.
        """
        usual = self._usual_of(unit)
        if usual is None:
            return await self._apply(unit, tally)
        try:
            answer = await self._region.execute(usual.request, self._context.fence)
        except ReplicatorError as error:
            return await self._refused(unit, error, tally)
        if isinstance(answer, Done):
            return Written(unit, usual.version, usual.drops, Effect.APPLIED)
        return await self._apply(unit, tally, answer)

    async def _in_chains(self, unit: Run, tally: Tally, behind: Behind) -> bool | Written:
        """The same of usual changes that follow each other; `unit` and `usual` are the one that was begun last."""
        assert self._chains is not None, "else there is no chain"
        aside, usual_of = self._context.aside, self._usual.of
        usual = self._usual_of(unit)
        if usual is None:
            return await self._apply(unit, tally)

        def following() -> Put | GuardedPut | None:
            nonlocal unit, usual
            assert usual is not None, "what takes effect is what was begun"
            then = behind.taken(Written(unit, usual.version, usual.drops, Effect.APPLIED))
            if then is None or (aside is not None and aside.owes(then.key) is not None):
                return None
            asked = usual_of(then)
            if asked is None:
                return None
            behind.begin()
            unit, usual = then, asked
            return asked.request

        try:
            answer = await self._chains.execute_chain(usual.request, self._context.fence, following)
        except ReplicatorError as error:
            return await self._refused(unit, error, tally)
        if isinstance(answer, Done):
            return Written(unit, usual.version, usual.drops, Effect.APPLIED)
        return await self._apply(unit, tally, answer)

    def _usual_of(self, unit: Run) -> UsualPut | None:
        """What a unit asks for, if that is usual and nothing of its key is owed."""
        aside = self._context.aside
        return self._usual.of(unit) if aside is None or aside.owes(unit.key) is None else None

    async def _refused(self, unit: Run, error: ReplicatorError, tally: Tally) -> bool:
        """A usual change was not taken: it is set aside, if it was refused for good and its rule says so."""
        if self._context.aside is None or not is_refusal(error):
            raise error
        return await self._set_aside(unit, self._plan(unit), error, tally)

    async def _apply(self, unit: Run, tally: Tally, first: Response | None = None) -> bool | Written:
        """The same for whatever a rule may ask; `first`: how its first request was answered already."""
        context = self._context
        plan: _Plan | None = None
        try:
            if context.ports.source is not None and is_guessed(unit):
                unit = as_the_source_says(unit, await self._at_source(unit))
            plan = self._plan(unit)
            if plan is None:
                tally.skipped += len(unit.records)
                return False
            outcome = await self._bring(unit, plan.change, tally, first)
            if outcome.tied is not None:
                tally.ties += 1
                is_later = goes_behind(unit, outcome, await self._at_source(unit))
                if is_later and (later := behind(unit, outcome.tied)) is not None:
                    return await self.apply(later, tally)
                # The version says nothing of which is older, so nothing that is there may be taken for older.
                plan = _Plan(plan.change, self._invalidations(unit))
        except ReplicatorError as error:
            if context.aside is None or not is_refusal(error):
                raise
            return await self._set_aside(unit, plan, error, tally)
        is_later = await self._is_later_than_owed(unit, plan.change)
        return Written(unit, plan.change.version, plan.caches, outcome.effect, outcome.adopted, is_later)

    async def _is_later_than_owed(self, unit: Run, change: Change) -> bool:
        """Whether a change that was taken is later than what is set aside of its key, if its version is.

        Of one millisecond versions do not say that: it is, if it left what the source holds.
        """
        owed = None if self._context.aside is None else self._context.aside.owes(unit.key)
        if owed is None or not (change.is_coarse and is_tied(owed, change.version)):
            return True
        return is_left(unit, await self._at_source(unit))

    async def _at_source(self, unit: Run) -> Image | None:
        """What the source holds now: only it knows which of two changes of one millisecond is later."""
        context = self._context
        assert context.ports.source is not None, "a source whose times are coarse can be looked at"
        found = await context.ports.source.execute(GetItem(unit.key), context.fence)
        assert isinstance(found, Found), "an item was read"
        return found.item

    def _plan(self, unit: Run) -> _Plan | None:
        """What a run asks of the replica and of its caches; None when the rule lets none of it pass.

        Where something of the key is owed, a removal is made even where nothing is there to be removed, so that what is
        owed meets its tombstone; and where that is newer, nothing is refreshed, for the replica is known to be behind.
        """
        context, caches = self._context, self._context.place.target.caches
        change = plan_run(context.rule, unit, context.place.stream.generation, context.place.target.transform)
        if change is None:
            return None
        owed = None if context.aside is None else context.aside.owes(unit.key)
        if owed is not None and change.action is Action.REMOVE_IF_PRESENT:
            change = msgspec.structs.replace(change, action=Action.REMOVE)
        if owed is not None and not settles(change.version, owed):
            return _Plan(change, self._invalidations(unit))
        records = self._as_held(unit) if caches else ()
        if not records:
            return _Plan(change, ())
        there = change if records is unit.records else msgspec.structs.replace(change, key=records[-1].key)
        return _Plan(change, [request_of(each, plan_cache(each, records, there)) for each in caches])

    def _invalidations(self, unit: Run) -> Sequence[CacheRequest]:
        caches = self._context.place.target.caches
        records = self._as_held(unit) if caches else ()
        return [request_of(each, plan_invalidation(each, records)) for each in caches] if records else ()

    def _as_held(self, unit: Run) -> Sequence[ChangeRecord]:
        """The records with keys and images as the replica holds them, since readers name cache entries by these.

        None where the item can have no key there, so that nothing is cached of it.
        """
        transform = self._context.place.target.transform
        if transform is None:
            return unit.records
        key = held_under(transform, unit.key)
        if key is None:
            return ()
        return [
            msgspec.structs.replace(
                record,
                key=key,
                old=shaped_if_it_can_be(transform, unit.key, record.old),
                new=shaped_if_it_can_be(transform, unit.key, record.new),
            )
            for record in unit.records
        ]

    # -- what is refused -----------------------------------------------------------------------------------------------

    async def _set_aside(self, unit: Run, plan: _Plan | None, error: ReplicatorError, tally: Tally) -> bool:
        """Keep a refused change; its cache entries are dropped at once, for the replica stays behind.

        Records that could not be planned together are taken one by one, so that a bad one hides no other.
        """
        assert self._context.aside is not None, "asked before"
        if plan is None and len(unit.records) > 1:
            return await one_by_one(self, self._context, unit, tally)
        await self._context.aside.change(unit, None if plan is None else plan.change, error)
        try:
            drops = self._invalidations(unit)
        except ReplicatorError as keyless:
            if not is_refusal(keyless):
                raise
        else:
            await self._context.sync_caches(drops, tally)
        tally.parked += 1
        return False

    # -- the replica ---------------------------------------------------------------------------------------------------

    async def _bring(self, unit: Run, change: Change, tally: Tally, first: Response | None = None) -> Outcome:
        """Bring a change to the replica, unless it has no room for its version; `first`: how it was answered already.

        That drives the mode to its end; one failure ends it, and it is begun anew: every step may be repeated.
        """
        context = self._context
        size = None if change.new is None else excess(change.new, STAMP_BYTES)
        if size is not None:
            raise PoisonRecord(
                f"The item has {size} bytes with its version, and no table takes more than {LARGEST_ITEM}.",
                advice="Shorten the item at the source: on a replica its version needs 60 more bytes.",
            )
        steps = replicate_ordered(change, context.rule.policy)
        request: Request = next(steps)
        while True:
            response: Response
            if first is not None:
                response, first = first, None
            elif isinstance(request, LogConflict):
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
