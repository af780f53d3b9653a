"""Driving the modes of a mesh: one record after another is brought to every region of its rule.

Invariant: a record counts as done when every region has answered, or is owed its key, or something newer was seen at
home. Records of one key are never merged: each carries a write that a conflict log may have to show.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Generator, Sequence
from typing import Any, assert_never

from replicator.domain.cache_keys import CachePlan, CacheRule, plan_invalidation, plan_refill
from replicator.domain.coalescing import Run
from replicator.domain.conflicts import LogConflict
from replicator.domain.errors import Disposition, MalformedRecord, ReplicatorError
from replicator.domain.identifiers import RegionId
from replicator.domain.modes.active_active import usual
from replicator.domain.modes.active_active.classify import USERS, Origin, classify
from replicator.domain.modes.active_active.echoes import is_own_stamp
from replicator.domain.modes.active_active.mesh import Mesh
from replicator.domain.modes.active_active.replicate import Settled
from replicator.domain.modes.ordered import Effect
from replicator.domain.modes.requests import (
    At,
    Done,
    Found,
    FoundAhead,
    FoundRow,
    GetItem,
    GetSideRow,
    LookAhead,
    MeshRequest,
    MeshResponse,
    Remover,
    Response,
    SettleTombstone,
    Wait,
)
from replicator.domain.modes.versioned.replicate import VersionedMesh
from replicator.domain.owed_keys import decided_in, is_refusal
from replicator.domain.records import ChangeRecord, Event, ItemKey
from replicator.domain.rules import ActivePlan, VersionedPlan
from replicator.domain.stamps import Stamp, held
from replicator.domain.values import replace
from replicator.domain.versions import SEQUENCE_DIGITS, STAMP
from replicator.engine.applying.bringing import bring
from replicator.engine.applying.cache_batcher import CacheRequest, request_of
from replicator.engine.applying.context import Applied, Begun, Tally, TargetContext, Written
from replicator.engine.applying.mesh_records import ActiveRecord, MeshRecord, VersionedRecord
from replicator.engine.applying.owing import Owed, Owing
from replicator.engine.applying.partner import Missing
from replicator.engine.waiting import pause_or_raise

_WAIT_SECONDS = 0.04
"""Time between two looks at an item that its region has not stamped yet. Two regions that write one key wait for each
other, so all looks together stay well below a second.
"""

_FRESH_SECONDS = 10.0
"""A record older than this waits for nothing: what it would wait for is as old, so most likely it does not come soon,
and a backlog is brought at the speed of its writes.
"""

_SEQUENCES = 10**SEQUENCE_DIGITS
"""A place in a region's history modulo this is the sequence number inside its stream."""


class MeshDriver:
    """One region's stream of a mesh.

    It is longer than a class should be because both modes of a mesh settle, deliver and owe in the same order: what a
    region that does not answer changes of it stands in one place.
    """

    chain = None
    splits = True

    def __init__(self, context: TargetContext, plan: VersionedPlan | ActivePlan) -> None:
        assert context.ports.region is not None, "a mesh writes in its home region too"
        self._context = context
        self._plan = plan
        self._home = context.rule.source
        self._suspects: set[RegionId] = set()
        """Regions that did not answer when they were last asked."""
        partners = {region: owing.partner for region, owing in context.ports.owing.items()}
        for owing in context.ports.owing.values():
            owing.doubt()
        self._regions = {self._home: context.ports.region, **context.ports.others, **partners}
        self._stamp = STAMP
        self.idle: Callable[[ChangeRecord], bool] | None = None
        self._may_pass = True
        if isinstance(plan, ActivePlan):
            self._stamp = plan.policy.attribute
            self._patient = Mesh(self._home, plan.others, context.place.stream.generation, plan.policy)
            self._hasty = replace(self._patient, policy=replace(plan.policy, waits=0))
            self.idle = self._is_own_stamp
        else:
            self._versioned = VersionedMesh(self._home, plan.others, plan.version)
            stores = any(each.verb.stores for each in context.place.target.caches)
            self._may_pass = not (stores or context.ports.verifiers)  # what is stored is filled, or read again, at once

    def units(self, run: Run) -> Sequence[Run]:
        """One record each, and those of a source without order that came later and were made before."""
        return [Run(run.key, (record,)) for record in self._context.ahead.in_order(run.key, run.records)]

    def superseded(self, unit: Run) -> Run:
        """Nothing, once a later write of a user here was read, which owns the key; else the same again.

        So a user can shorten or delete an item that left no room for its stamp.
        """
        if not self._is_overwritten_here(unit):
            return unit
        for record in unit.records:
            self._context.unfinished.pop(record.sequence, None)
        return Run(unit.key, ())

    def _is_overwritten_here(self, unit: Run) -> bool:
        if isinstance(self._plan, VersionedPlan):
            return False  # a later write may be the lesser one
        last = unit.records[-1]
        later = self._context.ahead.behind(unit.key, last.number)
        return any(
            int(record.rank) > int(last.rank) and not record.partial and self._origin(record) in USERS
            for record in later
        )

    def _origin(self, record: ChangeRecord) -> Origin:
        old, new = held(record.old, self._stamp), held(record.new, self._stamp)
        return classify(old, new, by_ttl=record.by_ttl)

    def apply(self, unit: Run, tally: Tally) -> Applied | Coroutine[Any, Any, Applied]:
        """Bring a record to every region, the home region and the caches beside it first.

        A write of the daemon that asks no region for anything leaves cache actions at most, and waits for none of them.
        """
        if not unit.records:
            return False
        (record,) = unit.records
        if record.partial:
            raise MalformedRecord(
                f"Record {record.sequence} changes an item that was there before, without its image, which mode"
                f" {self._context.rule.mode} needs.",
                advice="Use an endpoint that sends old images, as DynamoDB does; mode ordered works without them.",
            )
        if not self._is_let_pass(record):
            tally.skipped += 1
            return False
        taken = self._taken(record)
        if not (self._may_pass and taken.is_passed) or self._is_owed(record.key):
            return self._replicate(record, taken, tally)
        requests = self._cache_requests(record, taken)
        if requests:
            return Written(unit, None, requests, Effect.ECHO)
        tally.seen()
        return True

    def _is_let_pass(self, record: ChangeRecord) -> bool:
        return self._context.rule.filter.matches(record.new) or self._context.rule.filter.matches(record.old)

    def _is_owed_by_refusal(self, key: ItemKey) -> bool:
        """Whether there is a row of something that was refused of a key, which its next change may settle."""
        aside = self._context.aside
        if aside is not None and aside.owes(key) is not None:
            return True
        return any(
            owing.refused is not None and owing.refused.owes(key) is not None
            for owing in self._context.ports.owing.values()
        )

    def _is_owed(self, key: ItemKey) -> bool:
        """The same, or in mode `versioned` of a region that is missing: it may come back without what it had.

        So it is owed each image that others have by now, also one that it was brought before.
        """
        if self._is_owed_by_refusal(key):
            return True
        owing = self._context.ports.owing.values()
        return isinstance(self._plan, VersionedPlan) and any(each.partner.is_missing for each in owing)

    def _is_own_stamp(self, record: ChangeRecord) -> bool:
        """Whether a record shows just that the daemon stamped an item, and nothing waits for one of its key."""
        return (
            is_own_stamp(record, self._stamp) and self._is_let_pass(record) and not self._is_owed_by_refusal(record.key)
        )

    def _cache_requests(self, record: ChangeRecord, taken: MeshRecord[Any]) -> list[CacheRequest]:
        caches = self._context.place.target.caches
        if not caches or not taken.is_content_changed:
            return []
        return [request_of(cache_rule, self._cache_plan(cache_rule, record)) for cache_rule in caches]

    async def _drop_cache_entries(self, record: ChangeRecord, requests: list[CacheRequest], tally: Tally) -> None:
        await self._context.sync_caches(requests, tally, record.key)
        self._context.verify(requests, record.key, None, judged=isinstance(self._plan, ActivePlan))

    def _cache_plan(self, cache_rule: CacheRule, record: ChangeRecord) -> CachePlan:
        if cache_rule.verb.stores and isinstance(self._plan, VersionedPlan):
            return plan_refill(cache_rule, record)
        return plan_invalidation(cache_rule, (record,))

    async def _replicate(self, record: ChangeRecord, taken: MeshRecord[Any], tally: Tally) -> bool:
        """Settle a record at home, then bring it to every other region; another try goes on where this one failed.

        Cache entries beside the home table, whose write is durable, are dropped first. Entries of the log count in
        `tally` whatever comes of this try.
        """
        unfinished = self._context.unfinished
        begun = unfinished.get(record.sequence)
        if begun is None:
            counted = Tally()
            try:
                if requests := self._cache_requests(record, taken):
                    await self._drop_cache_entries(record, requests, counted)
                settled = await self._settle(record, taken, counted)
            finally:
                if counted.entries:
                    tally.entries.update(counted.entries)
            if isinstance(settled, Effect):
                if settled is Effect.ECHO:
                    await self._overtaken(record, taken)
                return _counted(settled, counted, tally)
            begun = unfinished[record.sequence] = Begun(settled, counted)
        for region in self._in_order(begun):
            begun.answered[region] = await self._bring(region, taken, begun, record, tally)
        del unfinished[record.sequence]
        return _counted(taken.finish(begun), begun.counted, tally)

    async def _overtaken(self, record: ChangeRecord, taken: MeshRecord[Any]) -> None:
        """Another region wrote over what was refused of a key, and brings that to all: the row is settled."""
        context = self._context
        for owing in context.ports.owing.values():
            owed = None if owing.refused is None else owing.refused.owes(record.key)
            if owed is not None and taken.overtakes(decided_in(owed)):
                await owing.taken(Owed(record, context.place, "", (), None, context.by), context.fence)

    async def _bring(
        self, region: RegionId, taken: MeshRecord[Any], begun: Begun, record: ChangeRecord, tally: Tally
    ) -> Effect:
        """Bring a settled record to another region; what that misses or refuses is owed to it from then on."""
        owing = self._context.ports.owing.get(region)
        if owing is None:
            return await self._deliver(region, taken, begun, record, tally)
        fence = self._context.fence

        def change() -> Owed:
            context, decided = self._context, taken.decided(begun.settled)
            return Owed(record, context.place, decided, taken.replaced, taken.left, context.by)

        owing.partner.key = record.key
        if isinstance(self._plan, VersionedPlan) and await owing.missed_before(record.key):
            return await self._through_its_row(owing, change(), begun.counted)
        try:
            with owing.partner.awaited():
                effect = await self._deliver(region, taken, begun, record, tally)
        except Missing:
            return await self._miss(owing, change(), begun.counted)
        except ReplicatorError as error:
            if is_refusal(error) and owing.refused is not None:
                await owing.refuse(change(), error, fence)
                begun.counted.parked += 1
                return Effect.OWED
            if error.disposition is not Disposition.RELINQUISH and owing.partner.is_missing:
                return await self._miss(owing, change(), begun.counted)
            raise
        if owing.refused is not None and owing.refused.owes(record.key) is not None:
            await owing.taken(change(), fence)
        return effect

    async def _miss(self, owing: Owing, change: Owed, counted: Tally) -> Effect:
        await owing.miss(change, self._context.fence)
        counted.missed += 1
        return Effect.OWED

    async def _through_its_row(self, owing: Owing, change: Owed, counted: Tally) -> Effect:
        """Bring a change as a drain does, because the region has missed what this one replaced.

        Mode `versioned` judges by what a change replaced whether it overwrites something unseen; the row knows what
        those that were missed had replaced. What fails is the drainer's from here on.
        """
        context = self._context
        try:
            async with owing.alone(change.record.key):
                with owing.partner.awaited():
                    row = await owing.miss(change, context.fence)
                    await bring(context, row, owing.partner.name, owing.partner)
                    await owing.drained(row, context.by, context.fence)
        except Missing:
            return await self._miss(owing, change, counted)
        except ReplicatorError as error:
            if error.disposition is Disposition.RELINQUISH:
                raise
            return await self._miss(owing, change, counted)
        else:
            await owing.taken(change, context.fence)
        return Effect.OWED

    def _taken(self, record: ChangeRecord) -> MeshRecord[Any]:
        """A record as the rule's mode takes it."""
        context = self._context
        match self._plan:
            case VersionedPlan():
                return VersionedRecord(record, self._versioned, context.ports.own_writes, context.clock.monotonic())
            case ActivePlan():
                waits = context.clock.now() - record.created_at <= _FRESH_SECONDS
                return ActiveRecord(record, self._patient if waits else self._hasty)
            case _:
                assert_never(self._plan)

    def _in_order(self, begun: Begun) -> list[RegionId]:
        """Regions that have not answered yet, those last that failed lately: they hold back none that answers."""
        missing = [region for region in self._plan.others if region not in begun.answered]
        return sorted(missing, key=self._suspects.__contains__) if self._suspects else missing

    async def _settle(self, record: ChangeRecord, taken: MeshRecord[Any], tally: Tally) -> Any:
        """What a record asks of its home region; a usual put asks it without the steps of its mode (`usual.py`).

        Where an answer is not as usual, these go on from it, so nothing is asked twice.
        """
        write = taken.usual
        answers: Sequence[Response] = ()
        if write is not None:
            home, fence = self._regions[self._home], self._context.fence
            try:
                found = await home.execute(GetItem(record.key), fence)
                self._suspects.discard(self._home)
                row = await home.execute(GetSideRow(record.key), fence)
                answers = found, row
                assert isinstance(found, Found) and isinstance(row, FoundRow), "both were read"  # noqa: PT018
                request = usual.stamped_at_home(write, found.item, row.row)
                if request is not None:
                    answer = await home.execute(request, fence)
                    answers = found, row, answer
                    if isinstance(answer, Done):
                        return Settled(Origin.LOCAL_PUT, request.stamp)
            except ReplicatorError as error:
                self._suspect(self._home, error)
                raise
        return await self._drive(taken.settle(), record, tally, answers)

    async def _deliver(
        self, region: RegionId, taken: MeshRecord[Any], begun: Begun, record: ChangeRecord, tally: Tally
    ) -> Effect:
        """What a settled record asks of another region; a usual put asks it without the steps of its mode, too."""
        write = taken.usual
        answers: Sequence[Response] = ()
        if write is not None and isinstance(stamp := begun.settled.version, Stamp):
            there, fence = self._regions[region], self._context.fence
            try:
                found = await there.execute(GetItem(record.key), fence)
                self._suspects.discard(region)
                answers = (found,)
                assert isinstance(found, Found), "an item was read"
                request = usual.put_elsewhere(write, stamp, found.item)
                if request is not None:
                    answer = await there.execute(request, fence)
                    answers = found, answer
                    if isinstance(answer, Done):
                        return Effect.APPLIED
            except ReplicatorError as error:
                self._suspect(region, error)
                raise
        effect: Effect = await self._drive(taken.deliver(region, begun.settled), record, tally, answers)
        return effect

    async def _drive(
        self, steps: Generator[Any, Any, Any], record: ChangeRecord, tally: Tally, answers: Sequence[Response] = ()
    ) -> Any:
        """Drive a part of a mode to its end; a failure ends it, and it is begun anew: every step may be repeated.

        `answers`: to its first requests, which were made already.
        """
        response: MeshResponse | None = None
        answered = iter(answers)
        while True:
            try:
                request = steps.send(response)
            except StopIteration as end:
                return end.value
            response = next(answered, None)
            if response is None:
                is_asked = isinstance(request, At)  # nearly always
                response = await (self._ask(request, tally) if is_asked else self._answer(request, record, tally))

    async def _ask(self, request: At, tally: Tally) -> Response:
        """Carry a request out in a region, and note which of them fail."""
        try:
            response = await self._regions[request.region].execute(request.request, self._context.fence)
        except ReplicatorError as error:
            self._suspect(request.region, error)
            raise
        self._suspects.discard(request.region)
        inner = request.request
        if isinstance(inner, SettleTombstone) and inner.removed_at is None and isinstance(response, Done):
            tally.kept_removals += 1
        return response

    def _suspect(self, region: RegionId, error: ReplicatorError) -> None:
        """Note that a region failed, if it may answer another time."""
        if error.disposition is Disposition.RETRY:
            self._suspects.add(region)

    async def _answer(self, request: MeshRequest, record: ChangeRecord, tally: Tally) -> MeshResponse:
        context = self._context
        match request:
            case At():
                return await self._ask(request, tally)
            case LogConflict():
                await context.log(request, record.sequence, tally)
            case Wait():
                await pause_or_raise(context.stop, _WAIT_SECONDS)
            case LookAhead(key, after):
                later = context.ahead.behind(key, after % _SEQUENCES)
                return FoundAhead(self._first_remover(later))
            case _:
                assert_never(request)
        return Done()

    def _first_remover(self, records: Sequence[ChangeRecord]) -> Remover:
        for record in records:
            if record.event is Event.REMOVE and not record.partial:
                return Remover.USER if self._origin(record) in USERS else Remover.DAEMON
        return Remover.UNKNOWN


def _counted(effect: Effect, counted: Tally, tally: Tally) -> bool:
    """Count a record that is done, and what was counted of it."""
    tally.take(counted)
    tally.effects[effect] += 1
    tally.changes += 1
    return True
