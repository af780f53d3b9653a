"""A mesh for the engine: two to five regions whose users write, and whose every change becomes a record of its stream.

Two ways to bring daemons in. A `Reader` is a daemon's place in one region's stream and applies what a test says, when
it says so: it can be held before any request, crash there, or go on much later. A `MeshProcess` is the whole daemon.
"""

from __future__ import annotations

import asyncio
import itertools
import json
from collections import Counter
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any
from zlib import crc32

from replicator.domain.cache_keys import CacheRule
from replicator.domain.conflicts import ConflictEntry
from replicator.domain.errors import PoisonRecord, ReplicatorError
from replicator.domain.identifiers import RegionId, RuleName, SequenceNumber, ShardId, WorkerId
from replicator.domain.image import Image, unreserved
from replicator.domain.modes.requests import Replace, Request, Response, Restamp, StampedPut
from replicator.domain.modes.versioned.own_writes import OwnWrites
from replicator.domain.modes.versioned.ranks import VersionAttribute
from replicator.domain.owed_keys import OwedFor, OwedKey, OwedTo
from replicator.domain.pacing import Pace
from replicator.domain.progress import HORIZON, Position, after
from replicator.domain.records import ChangeRecord, Event, ItemKey
from replicator.domain.rules import ActivePlan, OnRefusal, Rule, Target, VersionedPlan
from replicator.domain.shards.leases import Lease, StreamRef
from replicator.domain.stamps import held
from replicator.domain.targets import TargetId
from replicator.domain.values import replace
from replicator.domain.versions import STAMP
from replicator.engine.applying.applier import TargetApplier
from replicator.engine.applying.cache_batcher import CacheFunnel
from replicator.engine.applying.canary_driver import canary_caches
from replicator.engine.applying.context import TargetContext, TargetPorts
from replicator.engine.applying.event_funnel import EventFunnel
from replicator.engine.applying.look_ahead import ReadAhead
from replicator.engine.applying.owing import Owing
from replicator.engine.applying.paced_region import PacedRegion
from replicator.engine.applying.parking import Parking, ParkingBounds
from replicator.engine.applying.partner import Partner
from replicator.engine.canaries import Canaries, CanarySource
from replicator.engine.limits import Limits
from replicator.engine.ownership.sources import Source
from replicator.engine.ownership.target_succession import TargetSuccession
from replicator.engine.reading.memory_budget import ByteBudget
from replicator.engine.shard.worker import ShardPorts
from replicator.engine.waiting import Flag
from replicator.engine.worker import Worker
from replicator.laboratory.memory import (
    EMPTY,
    Faults,
    MemoryCache,
    MemoryCanaryTable,
    MemoryClaims,
    MemoryConflictLog,
    MemoryCoordination,
    MemoryMembership,
    MemoryOwedKeys,
    MemoryRegion,
    MemoryRegistry,
    MemorySink,
    MemoryStream,
    OpenFence,
)
from replicator.ports.clock import Clock
from replicator.ports.events import Observer, Place
from replicator.ports.targets import Fence, Region
from tests.engine.world import AP, CA, EPOCH_SECONDS, EU, ORDERS, US, LoopClock, Process, Recorder, key_of, short, wire

SA = RegionId("sa")
ACTIVE, VERSIONED = "active-active", "versioned"
MODES = [ACTIVE, VERSIONED]
REGIONS = [US, EU, AP, CA, SA]
NAME = RuleName("orders")
STAMP_BYTES = 130
_SLOTS = 16
_MOST_ROUNDS = 40


def item(name: str, value: object, **attributes: Any) -> Image:
    """An item; a number among the attributes becomes an N."""
    typed = {
        other: {"N": str(given)} if isinstance(given, int) else {"S": given} for other, given in attributes.items()
    }
    return Image(wire({"pk": {"S": name}, "value": {"S": str(value)}, **typed}))


def value_of(image: Image | None) -> str | None:
    return None if image is None else image.attributes["value"]["S"]


class Table(MemoryRegion):
    """A region's table. Every change of an item, by a user or by the daemon, is a record of the region's stream."""

    def __init__(
        self,
        region: RegionId,
        tell: Callable[[ItemKey, Image | None, Image | None, bool], ChangeRecord],
        faults: Faults,
    ) -> None:
        nonces = itertools.count()
        super().__init__(faults, nonce=lambda: f"{region}{next(nonces):06d}")
        self._tell = tell
        self.made: list[ChangeRecord] = []
        """What users wrote."""
        self.effects: list[tuple[str, bool]] = []
        """The daemon's writes that changed something: the request, and whether the item (not the side row) changed."""
        self.reads = Counter[str]()
        self.longest: int | None = None
        """How many bytes an item may have."""

    async def execute(self, request: Request, fence: Fence) -> Response:
        """Carry a request out, unless it would make an item longer than a table takes."""
        if self.longest is not None and isinstance(request, StampedPut | Restamp | Replace):
            image = self.item(request.key) if isinstance(request, Restamp) else request.image
            stamp = 0 if isinstance(request, Replace) else STAMP_BYTES
            if image is not None and len(unreserved(image).wire) + stamp > self.longest:
                raise PoisonRecord("Item size has exceeded the maximum allowed size")
        return await super().execute(request, fence)

    def carry_out(self, request: Request) -> Response:
        """Carry the daemon's request out at once."""
        assert not hasattr(request, "put"), "a mesh knows no guarded puts"
        before = self.slot(request.key)  # type: ignore[union-attr]
        response = super().carry_out(request)
        after_it = self.slot(request.key)  # type: ignore[union-attr]
        name = type(request).__name__
        if name.startswith("Get"):
            self.reads[name] += 1
        if after_it != before:
            self.effects.append((name, after_it.item != before.item))
        if after_it.item != before.item:
            self._tell(request.key, before.item, after_it.item, False)  # type: ignore[union-attr]
        return response

    @property
    def item_writes(self) -> int:
        return sum(changed for _, changed in self.effects)

    @property
    def row_writes(self) -> int:
        return len(self.effects) - self.item_writes

    # -- users -----------------------------------------------------------------------------------------------------

    def write(self, name: str, new: Image | None, *, by_ttl: bool = False) -> None:
        """Put exactly this image, or delete; a write that changes nothing leaves no record."""
        key = key_of(name)
        old = self.item(key)
        if (old and old.attributes) == (new and new.attributes):
            return
        self.slots[key] = replace(self.slots.get(key, EMPTY), item=new)
        self.made.append(self._tell(key, old, new, by_ttl))

    def put(self, name: str, value: object, **attributes: Any) -> None:
        """Put a whole item, which wipes its stamp."""
        self.write(name, item(name, value, **attributes))

    def update(self, name: str, value: object, **attributes: Any) -> None:
        """Change an item in place, which keeps its stamp; without an item it is a put."""
        standing = self.item(key_of(name))
        stamp = {} if standing is None else {key: held for key, held in standing.attributes.items() if key == STAMP}
        image = item(name, value, **attributes)
        self.write(name, Image(json.dumps({**image.attributes, **stamp}).encode()))

    def delete(self, name: str, *, by_ttl: bool = False) -> None:
        self.write(name, None, by_ttl=by_ttl)

    def value(self, name: str) -> str | None:
        return value_of(self.item(key_of(name)))

    def holds(self) -> dict[str, str | None]:
        """What the items say, by key."""
        return {key.parts[0][2]: value_of(image) for key, image in sorted(self.items(), key=lambda pair: pair[0].parts)}


class MeshWorld:
    """The outside of every daemon: tables, streams, caches, coordination, and the users' clocks."""

    def __init__(self, mode: str, *regions: RegionId, seed: int = 0, shards: tuple[str, ...] = ("s0",)) -> None:
        self.mode = mode
        self.names = regions or (US, EU)
        self.clock = LoopClock()
        self.skew: dict[RegionId, float] = dict.fromkeys(self.names, 0.0)
        """What a region's clock is ahead."""
        self.refs = {
            region: StreamRef(region, ORDERS, f"arn:{region}/1", 1_000_000_000_000 + number)
            for number, region in enumerate(self.names)
        }
        self.streams = {region: MemoryStream(Faults(seed + 10 + n)) for n, region in enumerate(self.names)}
        self.routes = {region: [ShardId(shards[slot % len(shards)]) for slot in range(_SLOTS)] for region in self.names}
        for region, stream in self.streams.items():
            stream.enable(self.refs[region])
            for shard in shards:
                stream.add_shard(self.refs[region], ShardId(shard))
        self._sequences = {region: itertools.count(1) for region in self.names}
        self.tables = {
            region: Table(region, self._teller(region), Faults(seed + 20 + n)) for n, region in enumerate(self.names)
        }
        self.caches = {f"{region}_main": MemoryCache(Faults(seed + 30 + n)) for n, region in enumerate(self.names)}
        self.membership = MemoryMembership(Faults(seed + 2))
        self.registry = MemoryRegistry(self.clock.now, Faults(seed + 3))
        self.coordination = MemoryCoordination(Faults(seed + 1), registry=self.registry, now=self.clock.now)
        self.conflicts = MemoryConflictLog(Faults(seed + 4))
        self.claims = MemoryClaims(Faults(seed + 5))
        self.owed = {region: MemoryOwedKeys(Faults(seed + 40 + n)) for n, region in enumerate(self.names)}
        self.sink = MemorySink(Faults(seed + 6))
        self._ids = itertools.count(1)

    def __getitem__(self, region: RegionId) -> Table:
        return self.tables[region]

    def _teller(self, region: RegionId) -> Callable[[ItemKey, Image | None, Image | None, bool], ChangeRecord]:
        def tell(key: ItemKey, old: Image | None, new: Image | None, by_ttl: bool) -> ChangeRecord:
            event = Event.REMOVE if new is None else Event.INSERT if old is None else Event.MODIFY
            number = SequenceNumber(str(next(self._sequences[region])))
            created = float(int(self.clock.now() + self.skew[region]))
            record = ChangeRecord(event, key, old, new, number, created, by_ttl)
            self.streams[region].append(self.refs[region], self.shard_of(region, key), [record])
            return record

        return tell

    def shard_of(self, region: RegionId, key: ItemKey) -> ShardId:
        return self.routes[region][crc32(key.wire) % _SLOTS]

    def roll(self, region: RegionId, shard: str, *children: str) -> None:
        """Close an open shard and divide its keys between its children."""
        stream, ref = self.streams[region], self.refs[region]
        stream.close(ref, ShardId(shard))
        for child in children:
            stream.add_shard(ref, ShardId(child), ShardId(shard))
        slots = [slot for slot, route in enumerate(self.routes[region]) if route == shard]
        for number, slot in enumerate(slots):
            self.routes[region][slot] = ShardId(children[number % len(children)])

    def records(self, region: RegionId, shard: str = "s0") -> list[ChangeRecord]:
        return self.streams[region]._shards[self.refs[region].arn][ShardId(shard)].records

    def all_records(self) -> dict[RegionId, list[ChangeRecord]]:
        """Every record of a region, in the order of its writes."""
        return {
            region: sorted(
                (record for shard in self.streams[region]._shards[ref.arn].values() for record in shard.records),
                key=lambda record: record.number,
            )
            for region, ref in self.refs.items()
        }

    def at(self, second: float, *regions: RegionId) -> None:
        """Set the users' clocks of these regions, or of all, to this many seconds behind the epoch."""
        for region in regions or self.names:
            self.skew[region] = EPOCH_SECONDS + second - self.clock.now()

    # -- rules -----------------------------------------------------------------------------------------------------

    def plan(self, home: RegionId) -> ActivePlan | VersionedPlan:
        others = tuple(region for region in self.names if region != home)
        return ActivePlan(others) if self.mode == ACTIVE else VersionedPlan(others, VersionAttribute("ver"))

    def rule(self, home: RegionId, *caches: CacheRule, sinks: tuple[str, ...] = (), **choices: Any) -> Rule:
        place = Target(NAME, home, ORDERS, caches)
        events = (Target(NAME, home, None, sink=sink) for sink in sinks)
        return Rule(NAME, home, ORDERS, (place, *events), **{"mesh": self.plan(home), **choices})

    def parking(self, home: RegionId, target_id: TargetId, clock: Clock, observer: Observer) -> Parking:
        """Where a process sets aside what one target refuses of a region's keys."""
        to = OwedTo(ORDERS, target_id)
        return Parking(self.owed[home], home, to, bounds=ParkingBounds(), clock=clock, observer=observer)

    def owing(self, rule: Rule, partner: Partner, clock: Clock, observer: Observer) -> Owing:
        """What a process knows of what a region owes another one."""
        to = OwedTo(ORDERS, rule.as_replica(partner.name), OwedFor.AWAY)
        refused = None
        if rule.refused is OnRefusal.PARK:
            refused = self.parking(rule.source, rule.as_replica(partner.name), clock, observer)
        return Owing(partner, rule.source, to, self.owed[rule.source], refused, clock, observer)

    def missed(self, home: RegionId, region: RegionId) -> dict[str, OwedKey]:
        """Rows of what a region missed of another one's keys."""
        to = OwedTo(ORDERS, self.rule(home).as_replica(region), OwedFor.AWAY)
        rows = (row for (owner, _), row in self.owed[home].rows.items() if owner == to)
        return {row.key.parts[0][2]: row for row in rows if row.key is not None}

    def owes_nothing(self) -> bool:
        """Whether no region is owed a key that it missed."""
        return not any(to.owed_for is OwedFor.AWAY for owed in self.owed.values() for to, _ in owed.rows)

    def stored(self, region: RegionId, shard: str = "s0") -> str | None:
        """The stored checkpoint."""
        row = self.coordination._rows.get(((region, self.refs[region].arn), ShardId(shard)))
        position = None if row is None else row.checkpoints.get(self.rule(region).targets[0].target_id)
        return None if position is None else position.text

    def process(self, *rules: Rule, **choices: Any) -> MeshProcess:
        """A daemon that reads every region, or the home regions of these rules."""
        return MeshProcess(self, rules or tuple(map(self.rule, self.names)), f"p{next(self._ids)}", **choices)

    def readers(self, **choices: Any) -> list[Reader]:
        """One reader per region."""
        return [Reader(self, region, **choices) for region in self.names]

    # -- what became of it -----------------------------------------------------------------------------------------

    def entries(self) -> list[ConflictEntry]:
        return self.conflicts.entries(NAME)

    def losses(self) -> list[tuple[str, str | None, str | None]]:
        """Conflicts: kind, what won, what lost; a delete shows as None."""
        return [
            (entry.conflict.kind, value_of(entry.conflict.winner), value_of(entry.conflict.loser))
            for entry in self.entries()
        ]

    def agreed(self) -> dict[str, str | None]:
        """What every region holds; they hold the same, and every item is as its stamp says."""
        first = {key: unreserved(image).attributes for key, image in self.tables[self.names[0]].items()}
        for region in self.names:
            assert {key: unreserved(image).attributes for key, image in self.tables[region].items()} == first, region
            if self.mode == ACTIVE:
                for key, image in self.tables[region].items():
                    looked = held(image)
                    assert looked is not None and looked.intact, f"{key.shown} in {region} is not as it was stamped"  # noqa: PT018
        return self.tables[self.names[0]].holds()

    def changes(self) -> int:
        """How many writes of the daemon changed anything."""
        return sum(len(table.effects) for table in self.tables.values())


async def settle(*readers: Reader) -> None:
    """Let readers apply until nothing is left to read anywhere."""
    for _ in range(_MOST_ROUNDS):
        if not any([await reader.apply() for reader in readers]):
            return
    raise AssertionError("the daemon does not come to rest")


# -- a reader ------------------------------------------------------------------------------------------------------


class Gate:
    """A call that waits, with its effect still to come."""

    def __init__(self, region: RegionId | None, call: str) -> None:
        self.region, self.call = region, call
        self.arrived = asyncio.Event()
        self.opened = asyncio.Event()

    async def reached(self) -> None:
        """Wait until a call stands before the gate."""
        async with asyncio.timeout(60):
            await self.arrived.wait()

    def open(self) -> None:
        self.opened.set()


class _Held:
    """A region, or the conflict log, as one reader calls it."""

    def __init__(self, reader: Reader, region: RegionId | None) -> None:
        self._reader, self._region = reader, region

    async def execute(self, request: Request, fence: Fence) -> Response:
        assert self._region is not None
        await self._reader.pass_gates(self._region, type(request).__name__)
        self._reader.asked.append((self._region, type(request).__name__))
        return await self._reader.world[self._region].execute(request, fence)

    async def write(self, entry: ConflictEntry) -> None:
        await self._reader.pass_gates(None, "LogConflict")
        await self._reader.world.conflicts.write(entry)


class Reader:
    """One daemon's place in one region's stream: the real applier with the real driver, on command."""

    def __init__(
        self,
        world: MeshWorld,
        home: RegionId,
        *,
        position: Position = HORIZON,
        caches: tuple[CacheRule, ...] = (),
        own_writes: OwnWrites | None = None,
        limits: Limits | None = None,
        **choices: Any,
    ) -> None:
        self.world, self.home, self.position = world, home, position
        self.asked: list[tuple[RegionId, str]] = []
        self.ahead = ReadAhead()
        self.observer = Recorder()
        self.stop = asyncio.Event()
        self.task: asyncio.Task[bool] | None = None
        self._gates: list[Gate] = []
        self._fetched = 0
        self.limits = limits or Limits()
        started_at = choices.pop("started_at", None)
        rule = world.rule(home, *caches, **choices)
        regions: Mapping[RegionId, Region] = {region: _Held(self, region) for region in world.names}
        self.applier = TargetApplier(
            TargetContext(
                rule,
                Place(world.refs[home], ShardId("s0"), rule.targets[0]),
                TargetPorts(
                    regions[home],
                    {name: CacheFunnel(cache) for name, cache in world.caches.items()},
                    _Held(self, None),
                    {region: port for region, port in regions.items() if region != home},
                    own_writes or OwnWrites(0),
                ),
                self.ahead,
                limits=self.limits,
                clock=world.clock,
                observer=self.observer,
                fence=OpenFence(),
                stop=self.stop,
            ),
            started_at=started_at,
        )

    # -- what it does ----------------------------------------------------------------------------------------------

    def fetch(self) -> None:
        """Read what is new in the stream, as a page of its own."""
        records = self.world.records(self.home)
        fresh = [record for record in records[self._fetched :] if not self.position.covers(record.number)]
        self._fetched = len(records)
        self.ahead.add(fresh)

    async def apply(self, count: int | None = None) -> bool:
        """Fetch, then apply the next records, all of them by default; returns whether there were any."""
        self.fetch()
        known = self.world.records(self.home)[: self._fetched]
        page = [record for record in known if not self.position.covers(record.number)][:count]
        await self.applier.apply(page, self.position, self._moved)
        return bool(page)

    def _moved(self, position: Position) -> None:
        self.position = position

    def start(self, count: int | None = None) -> asyncio.Task[bool]:
        """Apply in the background."""
        self.task = asyncio.get_running_loop().create_task(self.apply(count))
        return self.task

    async def finish(self) -> None:
        """Let what was begun come to its end."""
        assert self.task is not None
        for gate in self._gates:
            gate.open()
        async with asyncio.timeout(60):
            await self.task

    async def crash(self) -> Reader:
        """End at once; returns who goes on from the last position."""
        assert self.task is not None
        self.task.cancel()
        await asyncio.wait([self.task])
        return Reader(self.world, self.home, position=self.position)

    def again(self, *, behind: int = 0) -> Reader:
        """Another daemon that has read this stream only up to `behind` records."""
        records = self.world.records(self.home)
        return Reader(self.world, self.home, position=after(records[behind - 1].sequence) if behind else HORIZON)

    # -- gates -----------------------------------------------------------------------------------------------------

    def hold(self, region: RegionId | None, call: str) -> Gate:
        """Let the next such call wait; None is the conflict log."""
        gate = Gate(region, call)
        self._gates.append(gate)
        return gate

    async def pass_gates(self, region: RegionId | None, call: str) -> None:
        for gate in self._gates:
            if (gate.region, gate.call) == (region, call) and not gate.arrived.is_set():
                gate.arrived.set()
                await gate.opened.wait()
                return


# -- a process -----------------------------------------------------------------------------------------------------


class MeshRecorder(Recorder):
    """An observer of several regions, whose shards may have the same names."""

    def blocked(self, place: Place, error: ReplicatorError, key: str | None) -> None:
        self.blocked_keys[_shard(place.stream, place.shard_id)] = key
        self.told.append(("blocked", place.stream.region, key, error.message))

    def unblocked(self, place: Place) -> None:
        del self.blocked_keys[_shard(place.stream, place.shard_id)]
        self.told.append(("unblocked", place.stream.region))

    def shard_stopped(self, lease: Lease, target: Target, why: str) -> None:
        self.blocked_keys.pop(_shard(lease.stream, lease.shard_id), None)
        self.told.append(("shard_stopped", lease.shard_id, short(target.target_id), why))


def _shard(stream: StreamRef, shard_id: ShardId) -> str:
    return f"{shard_id} in {stream.region}"


def _put(table: Table, key: ItemKey, image: Image) -> None:
    table.write(key.parts[0][2], image)


class MeshProcess(Process):
    """One daemon process: the real worker, which reads the streams of several regions."""

    def __init__(
        self,
        world: MeshWorld,
        rules: tuple[Rule, ...],
        name: str,
        *,
        limits: Limits | None = None,
        wire_to: Callable[[MemoryRegion], Region] = lambda region: region,
        own_writes: int = 1000,
    ) -> None:
        self.name = name
        self.clock = LoopClock()
        self.observer = MeshRecorder()
        self.stop = Flag()
        funnels = {cache: CacheFunnel(port) for cache, port in world.caches.items()}
        most = (limits or Limits()).concurrency
        self.region_paces = {region: Pace(most, self.clock.monotonic()) for region in world.tables}
        regions = {
            region: PacedRegion(wire_to(table), self.region_paces[region], self.clock)
            for region, table in world.tables.items()
        }
        written = OwnWrites(own_writes)
        partners = {
            region: Partner(NAME, region, port, away_after=5.0, observer=self.observer)
            for region, port in regions.items()
        }
        budget = ByteBudget((limits or Limits()).in_flight_bytes)
        succession = TargetSuccession(world.coordination, world.registry, world.claims, self.observer)
        sources = [
            Source(
                rule.source,
                ORDERS,
                (rule,),
                ShardPorts(
                    stream=world.streams[rule.source],
                    coordination=world.coordination,
                    registry=world.registry,
                    targets={
                        place.target_id: TargetPorts(
                            regions[rule.source],
                            funnels,
                            world.conflicts,
                            {region: port for region, port in regions.items() if region != rule.source},
                            written,
                            world.parking(rule.source, place.target_id, self.clock.servers, self.observer),
                            owing={
                                region: world.owing(rule, partner, self.clock.servers, self.observer)
                                for region, partner in partners.items()
                                if rule.mesh is not None and region in rule.mesh.others
                            },
                            events=None if place.sink is None else EventFunnel(world.sink),
                        )
                        for place in rule.targets
                    },
                    clock=self.clock,
                    servers=self.clock.servers,
                    observer=self.observer,
                    budget=budget,
                ),
                succession,
            )
            for rule in rules
        ]
        self.targets = {
            (source.region, name): ports for source in sources for name, ports in source.ports.targets.items()
        }
        canaries = [
            CanarySource(
                rule,
                MemoryCanaryTable(partial(_put, world[rule.source])),
                {region: port for region, port in regions.items() if region != rule.source},
                {
                    (each.region, each.cache): (world.caches[each.cache], each.key)
                    for known in rules
                    for each in canary_caches(known.targets[0])
                },
            )
            for rule in rules
            if rule.canary is not None
        ]
        sessions = itertools.count(1)
        self.worker = Worker(
            sources,
            world.membership,
            new_id=lambda: WorkerId(f"{name}.{next(sessions)}"),
            limits=limits or Limits(),
            clock=self.clock,
            observer=self.observer,
            stop=self.stop,
            canaries=Canaries(lambda: canaries, self.clock, self.observer) if canaries else None,
        )
        self.task: asyncio.Task[None] | None = None
