"""What the drivers of all modes work with: a target's ports, the conflict log, the caches, the counts of a page."""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, Protocol

import msgspec

from replicator.domain.canary import is_canary
from replicator.domain.coalescing import Run
from replicator.domain.conflicts import ConflictEntry, ConflictKind, LogConflict, Resolution, Witness
from replicator.domain.errors import ReplicatorError
from replicator.domain.identifiers import RegionId, SequenceNumber
from replicator.domain.modes.ordered import Effect
from replicator.domain.modes.versioned.own_writes import OwnWrites
from replicator.domain.records import ChangeRecord, ItemKey
from replicator.domain.rules import ActivePlan, Rule
from replicator.domain.versions import STAMP
from replicator.engine.applying.cache_batcher import CacheFunnel, CacheRequest
from replicator.engine.applying.cache_verifying import CacheVerifier, ItemPlace
from replicator.engine.applying.event_funnel import EventFunnel
from replicator.engine.applying.gate import Gate
from replicator.engine.applying.look_ahead import ReadAhead
from replicator.engine.applying.owing import Owing
from replicator.engine.applying.parking import Parking
from replicator.engine.applying.set_aside import SetAside
from replicator.engine.applying.write_through import fill_leased
from replicator.engine.limits import Limits
from replicator.engine.probing import Probing
from replicator.ports.clock import Clock
from replicator.ports.events import Observer, Place
from replicator.ports.targets import ConflictLog, Fence, Region


class TargetPorts(msgspec.Struct, frozen=True):
    """What a target needs of the outside.

    `region` is where it writes: its replica, or the home region of a mesh, whose other regions are `others`; None
    beside the source of a rule of mode `ordered`, where only caches are kept. `own_writes` is shared by all streams of
    a rule.
    """

    region: Region | None
    caches: Mapping[str, CacheFunnel]
    conflicts: ConflictLog
    others: Mapping[RegionId, Region] = msgspec.field(default_factory=dict)
    own_writes: OwnWrites = msgspec.field(default_factory=lambda: OwnWrites(0))
    parking: Parking | None = None
    """Where refusals are set aside; None of a target that waits for them."""
    gate: Gate = msgspec.field(default_factory=Gate)
    """Closed while the target's world is wrong."""
    owing: Mapping[RegionId, Owing] = msgspec.field(default_factory=dict)
    """What the other regions of a mesh are owed; one that is not named is waited for."""
    probing: Probing = msgspec.field(default_factory=Probing)
    """Whether it answers; shared by all shards of the process."""
    events: EventFunnel | None = None
    """Where a sink's events go; None of other targets."""
    verifiers: Mapping[str, CacheVerifier] = msgspec.field(default_factory=dict)
    """Which caches are read again behind their actions."""
    source: Region | None = None
    """Where changes are made, of a rule whose times do not tell their order; None of others."""

    @property
    def parkings(self) -> list[Parking]:
        """Every place where refusals are set aside: of the target, and of each other region of a mesh."""
        refused = [owing.refused for owing in self.owing.values()]
        return [parking for parking in (self.parking, *refused) if parking is not None]


class Tally(msgspec.Struct):
    """Counts of one page, or of one record of it."""

    effects: dict[Effect, int] = msgspec.field(default_factory=partial(defaultdict, int))
    changes: int = 0
    skipped: int = 0
    adopted: int = 0
    entries: dict[str, tuple[ConflictKind, Resolution]] = msgspec.field(default_factory=dict)
    """Conflict entries written, by id: kind and outcome. Written again, an entry is the same one."""
    cache_actions: int = 0
    keyless: int = 0
    unstored: int = 0
    too_large: int = 0
    kept_removals: int = 0
    parked: int = 0
    foreign: int = 0
    """Records of other tables on the same stream."""
    ties: int = 0
    """Changes of one key whose order only their images or ids tell."""
    late: int = 0
    """Events of changes that came behind a later one of their key, which was sent before."""
    missed: int = 0
    retries: int = 0

    @property
    def conflicts(self) -> Counter[tuple[ConflictKind, Resolution]]:
        """Entries written, by kind and outcome."""
        return Counter(self.entries.values())

    def seen(self) -> None:
        """Count a write of the daemon itself that came back and asks for nothing."""
        self.changes += 1
        self.effects[Effect.ECHO] += 1

    def cached(self, requests: Sequence[CacheRequest]) -> None:
        """Count cache actions that took effect."""
        for request in requests:
            self.cache_actions += len(request.actions)
            self.keyless += request.keyless
            self.unstored += request.unstored
            self.too_large += request.too_large

    def completed(self, written: Written) -> None:
        """Count a change that is done."""
        self.changes += 1
        self.adopted += written.adopted
        if written.effect is not None:
            self.effects[written.effect] += 1
        self.cached(written.requests)

    def completed_all(self, changes: Sequence[Written], requests: Sequence[CacheRequest]) -> None:
        """Count changes that are done, with all of their cache actions."""
        self.changes += len(changes)
        self.adopted += sum([written.adopted for written in changes])
        for effect, number in Counter([written.effect for written in changes]).items():
            if effect is not None:
                self.effects[effect] += number
        self.cached(requests)

    def take(self, tried: Tally) -> None:
        """Add what a try did that succeeded."""
        for effect, number in tried.effects.items():
            self.effects[effect] += number
        self.changes += tried.changes
        self.skipped += tried.skipped
        self.adopted += tried.adopted
        self.entries.update(tried.entries)
        self.cache_actions += tried.cache_actions
        self.keyless += tried.keyless
        self.unstored += tried.unstored
        self.too_large += tried.too_large
        self.kept_removals += tried.kept_removals
        self.parked += tried.parked
        self.late += tried.late
        self.missed += tried.missed


class Begun(msgspec.Struct):
    """A record of a mesh that its home region has answered: how it was settled there, and what was counted.

    `answered`: the effects in other regions that have answered since.
    """

    settled: Any
    counted: Tally
    answered: dict[RegionId, Effect] = msgspec.field(default_factory=dict)


Unfinished = dict[SequenceNumber, Begun]
"""Records of a target on a shard that wait for a region, by sequence number: no more than are in hand.

Another try goes on from there. So what a user deletes meanwhile, at home or in a region that has answered, is not put
back at every try because a third region is away.
"""


class Written(msgspec.Struct, eq=False):
    """A change that a target took; it counts when the cache actions behind it have taken effect."""

    unit: Run
    version: str | None
    requests: Sequence[CacheRequest]
    effect: Effect | None = None
    adopted: bool = False
    settles: bool = True
    """Whether it settles what the target refused of its key before, up to its version."""


Applied = bool | Written
"""Whether a target took a change, or the change with what is left of it."""


class Behind(Protocol):
    """What is behind a unit that is applied, and may be applied in the same go."""

    def taken(self, written: Written) -> Run | None:
        """The target took the unit that is in hand; what may come next, None: nothing, or not in this go."""

    def begin(self) -> None:
        """What may come next is in hand from now on."""


Chain = Callable[[Run, Tally, Behind], Applied | Coroutine[Any, Any, Applied]]
"""Applies a unit and users' others behind it, and raises what prevented the last one that it began.

Whatever it returns is about that one; it has no meaning where that one was `taken` before.
"""


class Driver(Protocol):
    """How a mode applies what was read."""

    @property
    def chain(self) -> Chain | None:
        """Applies more than one unit in a go, which costs less than `apply` for each; None: each is for that one."""

    @property
    def idle(self) -> Callable[[ChangeRecord], bool] | None:
        """Tells at a glance a record that asks for nothing, whatever comes of others of its key; None: no record does.

        Such a write of the daemon itself counts as seen (`Effect.ECHO`), without a try.
        """

    @property
    def splits(self) -> bool:
        """Whether it takes runs in pieces; else there is no need to ask for its units."""

    def units(self, run: Run) -> Sequence[Run]:
        """A run in pieces that are applied one after another and repeated by themselves."""

    def superseded(self, unit: Run) -> Run:
        """What to apply in place of a unit that is refused for good: more of its key, or the same again."""

    def apply(self, unit: Run, tally: Tally) -> Applied | Coroutine[Any, Any, Applied]:
        """Apply a unit once, or set it aside; raises what prevented both, and may be asked again.

        Counts when that succeeded, conflict entries at once. What is left of a change that was taken may be carried
        out with that of others (`TargetContext.complete`). What needs no waiting is there at once.
        """


async def applied(driver: Driver, context: TargetContext, unit: Run, tally: Tally) -> bool:
    """Apply a unit to the end; returns whether the target took a change."""
    begun = driver.apply(unit, tally)
    took = begun if isinstance(begun, (bool, Written)) else await begun
    if not isinstance(took, Written):
        return took
    for error in await context.complete([took], tally):
        if error is not None:
            raise error
    return True


async def one_by_one(driver: Driver, context: TargetContext, unit: Run, tally: Tally) -> bool:
    """Apply the records of a unit each by itself; it is tried again as a whole, so they count together."""
    tried, took = Tally(), False
    try:
        for record in unit.records:
            took = await applied(driver, context, Run(unit.key, (record,)), tried) or took
    finally:
        tally.entries.update(tried.entries)
    tally.take(tried)
    return took


class TargetContext(msgspec.Struct, frozen=True):
    """One target of one rule on one shard: what its applier and its driver work with.

    `stop` ends what is done now; `unfinished` outlives it, as long as the shard is owned.
    """

    rule: Rule
    place: Place
    ports: TargetPorts
    ahead: ReadAhead
    limits: Limits
    clock: Clock
    observer: Observer
    fence: Fence
    stop: asyncio.Event
    unfinished: Unfinished = msgspec.field(default_factory=dict)
    aside: SetAside | None = None
    """Where refusals go; None: nowhere, and the target waits."""
    by: str = ""
    """The worker, as rows name it."""

    async def log(self, conflict: LogConflict, sequence: SequenceNumber, tally: Tally) -> None:
        """Make a conflict entry durable; a canary is written over and over, and its conflicts are no user's."""
        if is_canary(conflict.key):
            return
        entry = ConflictEntry(
            conflict=conflict,
            table=self.rule.table,
            rule=self.rule.name,
            mode=self.rule.mode,
            witness=Witness(self.place.stream.region, self.place.shard_id, sequence),
            detected_at=self.clock.now(),
        )
        self.fence.check()
        await self.ports.conflicts.write(entry)
        tally.entries[entry.id] = (conflict.kind, conflict.outcome)

    async def complete(self, changes: Sequence[Written], tally: Tally) -> list[ReplicatorError | None]:
        """Carry out what is left of changes that the target took, and count them; returns what kept each from it.

        A cache that fails keeps no other one back, and a change no other one.
        """
        requests = [request for written in changes for request in written.requests]
        await self._carry_out(requests)
        asks_for_more = [each for each in requests if each.error is not None or each.leased]
        if self.aside is None and not self.ports.verifiers and not asks_for_more:
            tally.completed_all(changes, requests)
            return [None] * len(changes)
        leased = [(each.unit.key, request) for each in changes for request in each.requests if request.leased]
        if leased and self.ports.region is not None:
            await fill_leased(leased, self.ports.region, self.ports.caches, self.fence)
        errors: list[ReplicatorError | None] = []
        is_verified = bool(self.ports.verifiers)
        for written in changes:
            error = None
            for request in written.requests:
                error = error or request.error
            if (
                error is None
                and written.settles
                and self.aside is not None
                and self.aside.owes(written.unit.key) is not None
            ):
                try:
                    assert written.version is not None, "it was brought under its version"
                    await self.aside.taken(written.unit, written.version)
                except ReplicatorError as why:
                    error = why
            if error is None:
                tally.completed(written)
                if is_verified:
                    self.verify(written.requests, written.unit.key, written.version)
            errors.append(error)
        return errors

    def verify(
        self, requests: Sequence[CacheRequest], key: ItemKey, version: str | None, *, judged: bool = True
    ) -> None:
        """Let entries that were acted on be read again beside their item, which is at `version` at least."""
        ports, mesh = self.ports, self.rule.mesh
        if not ports.verifiers or ports.region is None:
            return
        stamp = mesh.policy.attribute if isinstance(mesh, ActivePlan) else STAMP
        for request in requests:
            if (verifier := ports.verifiers.get(request.cache)) is not None and request.actions:
                verifier.acted(request, ItemPlace(key, ports.region, stamp, judged), version)

    async def sync_caches(self, requests: Sequence[CacheRequest], tally: Tally, key: ItemKey | None = None) -> None:
        """Carry out cache actions of one change, and count them; a cache that fails keeps no other one back.

        `key`: of the item in a mesh, from which what is leased is filled.
        """
        await self._carry_out(requests)
        leased = [(key, request) for request in requests if request.leased and key is not None]
        if leased and self.ports.region is not None:
            await fill_leased(leased, self.ports.region, self.ports.caches, self.fence, versioned=False)
        for request in requests:
            if request.error is not None:
                raise request.error
        tally.cached(requests)

    async def _carry_out(self, requests: Iterable[CacheRequest]) -> None:
        """Gathered by cache; each request gets what became of it."""
        caches = self.ports.caches
        asked: dict[str, list[CacheRequest]] = {}
        for request in requests:
            of_cache = asked.get(request.cache)
            if of_cache is None:
                asked[request.cache] = [request]
            else:
                of_cache.append(request)
        if len(asked) == 1:
            ((cache, wanted),) = asked.items()
            await caches[cache].carry_out(wanted, self.fence)
            return
        sent = (caches[cache].carry_out(wanted, self.fence) for cache, wanted in asked.items())
        for answer in await asyncio.gather(*sent, return_exceptions=True):
            if isinstance(answer, BaseException):
                raise answer
