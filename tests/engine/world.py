"""A small world for the engine: one source table, two replicas with caches, coordination, and processes in it.

Everything stands on the memory adapters and lives in the loop's virtual time. A process can be stopped, killed (nothing
is stored or released behind its back) and suspended (its clock jumps, as a machine's does that slept).
"""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Self
from zlib import crc32

from replicator.domain.cache_debt import DebtPolicy
from replicator.domain.cache_horizons import VerifyPolicy
from replicator.domain.cache_keys import CacheRule, CacheVerb
from replicator.domain.canary import Arrivals, CanaryPlace
from replicator.domain.errors import ReplicatorError, Unreachable
from replicator.domain.gaps import Gap
from replicator.domain.held import HeldId
from replicator.domain.identifiers import RegionId, RuleName, ShardId, TableName, WorkerId
from replicator.domain.image import Image, unreserved
from replicator.domain.jobs import Job, JobProgress
from replicator.domain.key_templates import KeyTemplate
from replicator.domain.owed_keys import OwedKey, OwedTo, Settlement
from replicator.domain.pacing import Pace
from replicator.domain.progress import Position
from replicator.domain.records import ChangeRecord, ItemKey, item_key
from replicator.domain.rules import Rule, Target
from replicator.domain.shards.holdings import Holdings
from replicator.domain.shards.leases import Lease, StreamRef
from replicator.domain.shards.standstill import Standstill
from replicator.domain.targets import TargetId, TargetKind, replica_id
from replicator.domain.write_units import UnitBucket
from replicator.engine.applying.cache_batcher import CacheFunnel
from replicator.engine.applying.cache_debt import CacheDebt
from replicator.engine.applying.cache_settling import Settler
from replicator.engine.applying.cache_verifying import CacheVerifier
from replicator.engine.applying.canary_driver import canary_caches
from replicator.engine.applying.context import TargetPorts
from replicator.engine.applying.event_funnel import EventFunnel
from replicator.engine.applying.gate import Gate, Gates
from replicator.engine.applying.paced_region import PacedRegion
from replicator.engine.applying.parking import Parking, ParkingBounds
from replicator.engine.applying.write_budget import WriteBudget
from replicator.engine.canaries import Canaries, CanarySource
from replicator.engine.copying.runner import JobRunner
from replicator.engine.limits import Limits
from replicator.engine.mapped_tables import as_mapped
from replicator.engine.membership.overview import GroupPorts
from replicator.engine.ownership.sources import Source, Sources
from replicator.engine.ownership.target_succession import TargetSuccession
from replicator.engine.reading.memory_budget import ByteBudget
from replicator.engine.shard.worker import ShardPorts
from replicator.engine.waiting import Flag
from replicator.engine.worker import Worker
from replicator.laboratory.memory import (
    Faults,
    MemoryCache,
    MemoryCacheDebt,
    MemoryCanaryTable,
    MemoryClaims,
    MemoryConflictLog,
    MemoryCoordination,
    MemoryMembership,
    MemoryOwedKeys,
    MemoryRegion,
    MemoryRegistry,
    MemorySink,
    MemorySource,
    MemoryStream,
)
from replicator.ports.clock import Clock
from replicator.ports.events import (
    BatchReport,
    CacheHorizons,
    CacheState,
    Inconsistency,
    Observer,
    Overview,
    OwedRows,
    PacedTable,
    Place,
    RegionState,
)
from replicator.ports.services import OF_A_STREAM, ServiceId, stream_service
from replicator.ports.targets import Region

US, EU, AP, CA = RegionId("us"), RegionId("eu"), RegionId("ap"), RegionId("ca")
ORDERS = TableName("orders")
EPOCH_SECONDS = 1_700_000_000.0
"""Wall time at which the loop's time is zero."""


_SLOTS = 16


def id_of(name: str) -> TargetId:
    """A replica of these tests by rule and region, as in `orders/eu`."""
    rule, _, region = name.partition("/")
    return replica_id(RuleName(rule), RegionId(region), ORDERS)


def short(target_id: TargetId) -> str:
    """The other way round; of a mesh `orders/mesh`."""
    return f"{target_id.rule}/{target_id.region or TargetKind.MESH}"


class LoopClock:
    """The loop's virtual time; a jump is time that passed while the process was suspended.

    `ahead`: how far the machine's wall clock is ahead of the true time.
    """

    def __init__(self) -> None:
        self.jumped = 0.0
        self.ahead = 0.0

    def now(self) -> float:
        return EPOCH_SECONDS + self.monotonic() + self.ahead

    @property
    def servers(self) -> ServersLoopClock:
        """Servers' time, as answers tell it."""
        return ServersLoopClock(self)

    def latest(self) -> float:
        """Never later than a second than the true time, as answers tell it."""
        return EPOCH_SECONDS + self.monotonic() + 1.0

    def monotonic(self) -> float:
        return asyncio.get_running_loop().time() + self.jumped


class ServersLoopClock:
    """The true time beside a machine's clock."""

    def __init__(self, machine: LoopClock) -> None:
        self._machine = machine

    def now(self) -> float:
        return EPOCH_SECONDS + self.monotonic()

    def latest(self) -> float:
        return self._machine.latest()

    def monotonic(self) -> float:
        return self._machine.monotonic()


@dataclass
class Recorder:
    """An observer that remembers every report."""

    told: list[tuple[Any, ...]] = field(default_factory=list)
    reports: list[BatchReport] = field(default_factory=list)
    faults: list[BaseException] = field(default_factory=list)
    troubles: dict[str, ReplicatorError] = field(default_factory=dict)
    """Services that failed and did not recover since."""
    kept_seconds: dict[StreamRef, float] = field(default_factory=dict)
    stalls: set[tuple[ShardId, str]] = field(default_factory=set)
    """Targets that stand still now on shards of this process."""
    standing: dict[StreamRef, tuple[Standstill, ...]] = field(default_factory=dict)
    """Rules that stand still now, as the watchdogs of streams tell."""
    blocked_keys: dict[str, str | None] = field(default_factory=dict)
    """Targets that cannot go on now, by `target on shard`, with the key in their way."""
    overviews: list[Overview | None] = field(default_factory=list)
    """What belongs to the group, as this process told it; None when another one does."""
    owed: dict[str, OwedRows] = field(default_factory=dict)
    """What targets were last said to be owed."""
    caches: dict[str, CacheState] = field(default_factory=dict)
    """How caches were last said to stand."""
    paced: dict[RegionId, PacedTable] = field(default_factory=dict)
    verified: dict[str, dict[float, dict[str, int]]] = field(default_factory=dict)
    passed_over: dict[str, int] = field(default_factory=dict)
    canaries: dict[tuple[RegionId, str], Arrivals] = field(default_factory=dict)
    """How the rule's canary arrives, by region and cache, where this process writes it."""
    unrepaired: dict[TargetId, int] = field(default_factory=dict)
    """Losses of the group that were last said to be open."""
    swept: list[str] = field(default_factory=list)
    """The last full comparisons that were reported."""
    progress: dict[str, JobProgress] = field(default_factory=dict)
    """How far open jobs were last said to be, by id."""

    def of(self, what: str) -> list[tuple[Any, ...]]:
        return [event[1:] for event in self.told if event[0] == what]

    def polled(  # noqa: PLR0917 - what one answer says
        self,
        stream: StreamRef,
        shard_id: ShardId,
        position: Position,
        records: int,
        level_at: float | None = None,
        behind: float | None = None,
    ) -> None:
        self.told.append(("polled", shard_id, position.text, records))

    def batch_began(self, place: Place, oldest: float) -> None:
        self.told.append(("batch_began", short(place.target.target_id), oldest))

    def batch_applied(self, report: BatchReport) -> None:
        self.reports.append(report)
        self.told.append(("batch_applied", short(report.place.target.target_id), report.position.text))

    def retrying(self, place: Place, error: ReplicatorError, attempt: int) -> None:
        self.told.append(("retrying", short(place.target.target_id), type(error).__name__, attempt))

    def blocked(self, place: Place, error: ReplicatorError, key: str | None) -> None:
        self.blocked_keys[f"{short(place.target.target_id)} on {place.shard_id}"] = key
        self.told.append(("blocked", short(place.target.target_id), key, error.message))

    def unblocked(self, place: Place) -> None:
        del self.blocked_keys[f"{short(place.target.target_id)} on {place.shard_id}"]
        self.told.append(("unblocked", short(place.target.target_id)))

    def parked(self, place: Place, owed: OwedKey) -> None:
        self.told.append(("parked", short(place.target.target_id), owed.shown, int(owed.sequence), owed.tries))

    def unparked(self, place: Place, owed: OwedKey, how: Settlement) -> None:
        self.told.append(("unparked", short(place.target.target_id), owed.shown, how.value))

    def owed_rows(self, rows: OwedRows) -> None:
        self.owed[short(rows.to.target_id)] = rows

    def paces(self, table: PacedTable) -> None:
        self.paced[table.region] = table

    def region_stands(self, state: RegionState) -> None:
        self.told.append(("region_stands", state.region, state.standing.value))

    def cache_stands(self, state: CacheState) -> None:
        self.caches[state.cache] = state

    def cache_verified(self, found: CacheHorizons) -> None:
        self.verified[found.cache] = {
            each.seconds: {meaning.value: count for meaning, count in each.found.items()} for each in found.horizons
        }
        self.passed_over[found.cache] = found.passed_over

    def canary(self, place: CanaryPlace, arrivals: Arrivals | None) -> None:
        if arrivals is None:
            self.canaries.pop((place.region, place.cache), None)
        else:
            self.canaries[place.region, place.cache] = arrivals

    def cache_inconsistent(self, found: Inconsistency) -> None:
        self.told.append(("cache_inconsistent", found.entry, found.seconds))

    def moved(self, place: Place, position: Position) -> None:
        self.told.append(("moved", short(place.target.target_id), place.shard_id, position.text))

    def stands(self, place: Place, position: Position) -> None:
        self.told.append(("stands", short(place.target.target_id), place.shard_id, position.text))

    def checkpoint_saved(self, lease: Lease, positions: Mapping[TargetId, Position]) -> None:
        self.told.append(
            ("checkpoint_saved", lease.shard_id, {short(target): place.text for target, place in positions.items()})
        )

    def shard_started(self, lease: Lease, target: Target) -> None:
        self.told.append(("shard_started", lease.shard_id, short(target.target_id)))

    def shard_stopped(self, lease: Lease, target: Target, why: str) -> None:
        name = short(target.target_id)
        self.blocked_keys.pop(f"{name} on {lease.shard_id}", None)
        self.stalls.discard((lease.shard_id, name))
        self.told.append(("shard_stopped", lease.shard_id, name, why))

    def shard_failed(self, lease: Lease, target: Target, error: BaseException) -> None:
        self.faults.append(error)
        self.told.append(("shard_failed", lease.shard_id, short(target.target_id)))

    def lease_claimed(self, lease: Lease) -> None:
        self.told.append(("lease_claimed", lease.shard_id, lease.owner, lease.epoch))

    def lease_ended(self, lease: Lease, why: str) -> None:
        self.told.append(("lease_ended", lease.shard_id, why))

    def target_carried_over(
        self, stream: StreamRef, target_id: TargetId, former: Sequence[TargetId], joins: Collection[str]
    ) -> None:
        self.told.append(("target_carried_over", target_id.text, [other.text for other in former], sorted(joins)))

    def target_begun_anew(self, stream: StreamRef, target_id: TargetId, former: TargetId) -> None:
        self.told.append(("target_begun_anew", target_id.text, former.text))

    def entries_not_kept(self, place: Place, cache: str, *, dropped: bool) -> None:
        self.told.append(("entries_not_kept", place.shard_id, cache, dropped))

    def gap_found(self, gap: Gap) -> None:
        self.told.append(("gap_found", short(gap.target_id), gap.shard_id, gap.after.text))

    def gap_passed(self, gap: Gap, why: str) -> None:
        self.told.append(("gap_passed", short(gap.target_id), gap.shard_id, gap.after.text, why))

    def stalled(self, lease: Lease, target: Target, reason: str, remedy: str) -> None:
        self.stalls.add((lease.shard_id, short(target.target_id)))
        self.told.append(("stalled", lease.shard_id, short(target.target_id), reason, remedy))

    def unstalled(self, lease: Lease, target: Target) -> None:
        self.stalls.discard((lease.shard_id, short(target.target_id)))
        self.told.append(("unstalled", lease.shard_id, short(target.target_id)))

    def standstills(self, stream: StreamRef, found: Sequence[Standstill]) -> None:
        self.standing[stream] = tuple(found)
        for each in found:
            self.told.append(("standstill", each.rule, each.why, each.shards))

    def service_hangs(self, service: ServiceId, seconds: float) -> None:
        self.troubles[service.shown] = Unreachable("It has waited for an answer for too long.")
        self.told.append(("service_hangs", service.shown, seconds))

    def iterator_expired(self, stream: StreamRef, shard_id: ShardId) -> None:
        self.told.append(("iterator_expired", shard_id))

    def session_began(self, worker: WorkerId) -> None:
        self.told.append(("session_began", worker))

    def kept(self, stream: StreamRef, seconds: float) -> None:
        self.kept_seconds[stream] = seconds

    def cycle(self, stream: StreamRef | None, shards: int, owned: int, open_shards: int | None = None) -> None:
        self.told.append(("cycle", stream, shards, owned, open_shards))

    def described(self, stream: StreamRef) -> None:
        self.told.append(("described", stream))

    def paused(self, rules: Mapping[RuleName, float], driven: object = ()) -> None:
        self.told.append(("paused", *sorted(rules)))

    def gap_closed(self, gap: Gap, job_id: str) -> None:
        self.told.append(("gap_closed", short(gap.target_id), gap.shard_id, job_id))

    def open_gaps(self, gaps: Mapping[TargetId, int]) -> None:
        self.unrepaired = dict(gaps)

    def sweeps(self, passes: Sequence[Job]) -> None:
        self.swept = [job.job_id for job in passes]

    def jobs(self, seen: Sequence[JobProgress]) -> None:
        self.progress = {each.job.job_id: each for each in seen}

    def job_ended(self, progress: JobProgress) -> None:
        self.told.append(("job_ended", progress.job.job_id, progress.job.state, dict(progress.counts)))

    def service_failed(self, service: ServiceId, error: ReplicatorError) -> None:
        self.troubles[service.shown] = error
        self.told.append(("service_failed", service.shown, error.message))

    def overview(self, overview: Overview | None) -> None:
        self.overviews.append(overview)

    def stream_left(self, stream: StreamRef) -> None:
        for shown in [stream_service(kind, stream).shown for kind in OF_A_STREAM]:
            if self.troubles.pop(shown, None) is not None:
                self.told.append(("service_ended", shown))
        self.standing.pop(stream, None)
        self.told.append(("stream_left", stream))

    def service_recovered(self, service: ServiceId) -> None:
        if self.troubles.pop(service.shown, None) is not None:
            self.told.append(("service_recovered", service.shown))


def key_of(name: str) -> ItemKey:
    return item_key(wire({"pk": {"S": name}}))


def wire(item: Mapping[str, Any]) -> bytes:
    return json.dumps(item, separators=(",", ":")).encode()


def image(name: str, value: object) -> Image:
    return Image(wire({"pk": {"S": name}, "value": {"S": str(value)}}))


def stream_ref(number: int = 1) -> StreamRef:
    return StreamRef(US, ORDERS, f"arn:stream/{number}", 1_000_000_000_000 + number)


def target(rule: str, region: RegionId, *caches: CacheRule) -> Target:
    return Target(RuleName(rule), region, ORDERS, caches)


def cache_rule(
    cache: str, region: RegionId, verb: CacheVerb = CacheVerb.INVALIDATE, template: str = "order:{pk}"
) -> CacheRule:
    return CacheRule(cache, region, KeyTemplate(template), verb, timedelta(hours=1))


def rule(name: str, *targets: Target, **choices: Any) -> Rule:
    return Rule(name=RuleName(name), source=US, table=ORDERS, targets=targets, **choices)


def eu_rule(**choices: Any) -> Rule:
    return rule("orders", target("orders", EU), **choices)


@dataclass
class Latency:
    """A pause ahead of every call, and how many calls were in it at once."""

    seconds: float
    under_way: int = 0
    most_under_way: int = 0

    async def __call__(self, call: str) -> None:
        self.under_way += 1
        self.most_under_way = max(self.most_under_way, self.under_way)
        try:
            await asyncio.sleep(self.seconds)
        finally:
            self.under_way -= 1


class World:
    """The outside of every process."""

    def __init__(self, *shards: str, seed: int = 0) -> None:
        clock = LoopClock()
        self.now = clock.now
        self.streams = MemoryStream(Faults(seed))
        self.membership = MemoryMembership(Faults(seed + 2))
        self.registry = MemoryRegistry(clock.now, Faults(seed + 3))
        self.coordination = MemoryCoordination(Faults(seed + 1), registry=self.registry, now=clock.now)
        self.regions = {region: MemoryRegion(Faults(seed + 4)) for region in (EU, AP, CA)}
        self.caches = {name: MemoryCache(Faults(seed + 5)) for name in ("eu_main", "ap_main")}
        self.debts: dict[str, MemoryCacheDebt] = {}
        """What caches are owed; one that is not named is waited for."""
        self.debt_policy = DebtPolicy()
        self.verify_policy: VerifyPolicy | None = None
        self.conflicts = MemoryConflictLog(Faults(seed + 6))
        self.owed = MemoryOwedKeys(Faults(seed + 7))
        self.sink = MemorySink(Faults(seed + 8))
        self.bounds = ParkingBounds()
        self.ref = stream_ref()
        self.streams.enable(self.ref)
        self.routes: list[ShardId] = []
        """The open shard of every slot of the key space; a key never leaves the line of its shard's children."""
        for name in shards or ("s0",):
            self.streams.add_shard(self.ref, ShardId(name))
        self.route_to(*(shards or ("s0",)))
        self.source = self.new_source(self.ref)
        self.claims = MemoryClaims(Faults(seed + 7))
        self._ids = itertools.count(1)

    def new_source(self, ref: StreamRef, first_sequence: int = 1) -> MemorySource:
        return MemorySource(self.streams, ref, shard_of=self.shard_of, now=self.now, first_sequence=first_sequence)

    def shard_of(self, key: ItemKey) -> ShardId:
        return self.routes[crc32(key.wire) % _SLOTS]

    def route_to(self, *shards: str) -> None:
        """Divide the key space between these shards."""
        self.routes = [ShardId(shards[slot % len(shards)]) for slot in range(_SLOTS)]

    def records(self, shard: str = "s0") -> tuple[ChangeRecord, ...]:
        """Every record of a shard."""
        return tuple(self.streams._shards[self.ref.arn][ShardId(shard)].records)

    @property
    def region(self) -> MemoryRegion:
        return self.regions[EU]

    def put(self, name: str, value: object) -> None:
        self.source.put(key_of(name), image(name, value))

    def write(self, names: Iterable[str], value: object = 0) -> None:
        for name in names:
            self.put(name, value)

    def delete(self, name: str) -> None:
        self.source.delete(key_of(name))

    def roll(self, shard: str, *children: str) -> None:
        """Close an open shard and divide its part of the key space between its children."""
        self.streams.close(self.ref, ShardId(shard))
        for child in children:
            self.streams.add_shard(self.ref, ShardId(child), ShardId(shard))
        slots = [slot for slot, route in enumerate(self.routes) if route == shard]
        for number, slot in enumerate(slots if children else ()):
            self.routes[slot] = ShardId(children[number % len(children)])

    def merge(self, parents: Sequence[str], child: str) -> None:
        """Close some open shards and give their parts of the key space to a common child."""
        self.streams.merge(self.ref, [ShardId(parent) for parent in parents], ShardId(child))
        self.routes = [ShardId(child) if route in parents else route for route in self.routes]

    def reveal_all(self) -> None:
        """List every shard that was hidden."""
        self.streams.reveal(self.ref, *self.streams._shards[self.ref.arn])

    def holds(self, region: RegionId = EU) -> dict[str, str]:
        """What a replica's items say, by key."""
        return {
            key.parts[0][2]: item.attributes["value"]["S"]
            for key, item in sorted(self.regions[region].items(), key=lambda pair: pair[0].parts)
        }

    def truth(self) -> dict[str, str]:
        """What the source's items say, by key."""
        return {
            key.parts[0][2]: item.attributes["value"]["S"]
            for key, item in sorted(self.source.items.items(), key=lambda pair: pair[0].parts)
        }

    def same(self, region: RegionId = EU) -> bool:
        """Whether a replica's items are the source's, byte for byte beside the stamp."""
        return {key: unreserved(item) for key, item in self.regions[region].items()} == self.source.items

    def stored(
        self, shard: str = "s0", target_id: str | TargetId = "orders/eu", ref: StreamRef | None = None
    ) -> str | None:
        """The stored checkpoint of a target."""
        row = self.row(shard, ref)
        position = (
            None if row is None else row.checkpoints.get(id_of(target_id) if isinstance(target_id, str) else target_id)
        )
        return None if position is None else position.text

    def row(self, shard: str = "s0", ref: StreamRef | None = None) -> Any:
        return self.coordination._rows.get((((ref or self.ref).region, (ref or self.ref).arn), ShardId(shard)))

    def owner(self, shard: str = "s0") -> WorkerId | None:
        row = self.row(shard)
        return None if row is None else row.owner

    def parking(self, place: Target, clock: Clock, observer: Observer) -> Parking:
        """Where a process sets aside what a target refuses."""
        to = OwedTo(self.ref.table, place.target_id)
        return Parking(self.owed, self.ref.region, to, bounds=self.bounds, clock=clock, observer=observer)

    def process(self, *rules: Rule, limits: Limits | None = None, **choices: Any) -> Process:
        limits = limits or Limits(drained_seconds=3.0)
        return Process(self, rules or (eu_rule(),), limits, f"p{next(self._ids)}", **choices)


MakesRunner = Callable[["Process", Sequence[Rule], Mapping[TargetId, TargetPorts], Limits], JobRunner | None]


class Process:
    """One daemon process: the real worker over this world's ports."""

    def __init__(
        self,
        world: World,
        rules: Sequence[Rule],
        limits: Limits,
        name: str,
        wire_to: Callable[[MemoryRegion], Region] = lambda region: region,
        *,
        write_units: int | None = None,
        gates: Gates | None = None,
        observed_by: Callable[[Clock, Sequence[Rule]], Any] = lambda _, __: Recorder(),
        jobs: MakesRunner = lambda *_: None,
        only_jobs: bool = False,
    ) -> None:
        """`write_units`: of every rule in every region. `gates`: without them nothing is doubted.

        `observed_by` makes the observer, `jobs` what works on jobs; with `only_jobs` nothing is read.
        """
        self.name = name
        self.holdings = Holdings()
        self.write_units = write_units
        self.clock = LoopClock()
        self.paces: dict[TargetId, Pace] = {}
        self.observer = observed_by(self.clock, rules)
        self.stop = Flag()
        self.resting: tuple[Rule, ...] = ()
        """Rules that are held."""
        debts = [
            CacheDebt(cache, EU, port, world.debts[cache], world.debt_policy, clock=self.clock, observer=self.observer)
            for cache, port in world.caches.items()
            if cache in world.debts
        ]
        verifiers = {
            debt.name: CacheVerifier(debt.name, EU, debt, policy, clock=self.clock, observer=self.observer)
            for debt in debts
            if (policy := world.verify_policy) is not None
        }
        funnels = {cache: CacheFunnel(port) for cache, port in world.caches.items()}
        funnels |= {debt.name: CacheFunnel(debt, debt) for debt in debts}
        ports = ShardPorts(
            stream=world.streams,
            coordination=world.coordination,
            registry=world.registry,
            targets={
                place.target_id: TargetPorts(
                    None
                    if place.table is None
                    else self._paced(place, as_mapped(wire_to(world.regions[place.region]), place.keys), limits),
                    funnels,
                    world.conflicts,
                    parking=world.parking(place, self.clock.servers, self.observer),
                    gate=Gate() if gates is None else gates.of(HeldId(each.name, each.table, place.target_id)),
                    events=None if place.sink is None else EventFunnel(world.sink),
                    source=world.source,
                    verifiers=verifiers,
                )
                for each in rules
                for place in each.targets
            },
            clock=self.clock,
            servers=self.clock.servers,
            observer=self.observer,
            budget=ByteBudget(limits.in_flight_bytes),
            holdings=self.holdings,
        )
        canaries = [
            CanarySource(
                each,
                MemoryCanaryTable(world.source.put),
                {
                    place.region: region
                    for place in each.targets
                    if (region := ports.targets[place.target_id].region) is not None
                },
                {
                    (beside.region, beside.cache): (world.caches[beside.cache], beside.key)
                    for place in each.targets
                    for beside in canary_caches(place)
                },
            )
            for each in rules
            if each.canary is not None
        ]
        succession = TargetSuccession(world.coordination, world.registry, world.claims, self.observer)
        self.sources = Sources([Source(US, ORDERS, tuple(rules), ports, succession)])
        sessions = itertools.count(1)
        self.debts = [Settler(debt) for debt in debts]
        self.worker = Worker(
            () if only_jobs else self.sources,
            world.membership,
            new_id=lambda: WorkerId(f"{name}.{next(sessions)}"),
            limits=limits,
            clock=self.clock,
            observer=self.observer,
            stop=self.stop,
            group=GroupPorts(world.coordination, world.registry, lambda: rules, lambda: self.resting),
            jobs=jobs(self, rules, ports.targets, limits),
            only_jobs=only_jobs,
            debts=self.debts,
            verifiers=tuple(verifiers.values()),
            canaries=Canaries(lambda: canaries, self.clock, self.observer) if canaries else None,
        )
        self.task: asyncio.Task[None] | None = None

    def _paced(self, place: Target, region: Region, limits: Limits) -> Region:
        """A replica within the bounds that all shards of this process have there together."""
        now = self.clock.monotonic()
        pace = self.paces[place.target_id] = Pace(limits.concurrency, now)
        if self.write_units is None:
            return PacedRegion(region, pace, self.clock)
        bucket = UnitBucket(self.write_units, now)
        return PacedRegion(
            region, pace, self.clock, WriteBudget(bucket, lambda: self.holdings.share({(US, ORDERS)}), self.clock)
        )

    def start(self) -> Self:
        self.task = asyncio.get_running_loop().create_task(self.worker.run(), name=self.name)
        return self

    async def drain(self, within: float = 60.0) -> None:
        """Stop as SIGTERM does, and wait for the end."""
        assert self.task is not None
        self.stop.set()
        async with asyncio.timeout(within):
            await self.task

    async def kill(self) -> None:
        """End at once: nothing is stored, released or taken leave of."""
        assert self.task is not None
        self.task.cancel()
        await asyncio.wait([self.task])
        if not self.task.cancelled():
            self.task.result()

    def suspend(self, seconds: float) -> None:
        """Let time pass that the process does not notice until it looks at its clock."""
        self.clock.jumped += seconds

    async def __aenter__(self) -> Self:
        return self.start()

    async def __aexit__(self, *_: object) -> None:
        if self.task is not None and not self.task.done():
            await self.kill()


async def until(condition: Callable[[], bool], within: float = 60.0) -> None:
    """Wait in virtual time until something holds."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + within
    while not condition():
        assert loop.time() < deadline, f"it did not become true within {within} s"
        await asyncio.sleep(0.05)


def hold(faults: Faults, *calls: str) -> asyncio.Event:
    """Let these calls wait, with their effect still to come, until the event is set."""
    gate = asyncio.Event()

    async def pause(call: str) -> None:
        if call in calls:
            await gate.wait()

    faults.pause = pause
    return gate


def slow(faults: Faults, seconds: float) -> Latency:
    """Let every call take a while; the latency knows how many are under way."""
    latency = Latency(seconds)
    faults.pause = latency
    return latency
