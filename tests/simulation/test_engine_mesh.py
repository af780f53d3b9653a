"""Meshes in a hostile world, in virtual time: every seed is another history of the whole engine.

Users of every region write the same keys while shards roll; processes are killed (their requests stay on the wire and
land later), suspended, stopped and started; regions, streams, conflict log and coordination fail before or behind their
effect and throttle; regions are away for a while, their tables or all of them, or as an operator says. What users
really saw when they wrote is kept beside, where no daemon can read it.
"""

from __future__ import annotations

import asyncio
import itertools
from collections import defaultdict
from dataclasses import dataclass, field
from random import Random

import pytest

from replicator.domain.conflicts import Resolution
from replicator.domain.errors import AccessRefused, Unreachable
from replicator.domain.identifiers import RegionId, ShardId
from replicator.domain.image import Image
from replicator.domain.modes.requests import Response
from replicator.domain.stamps import StampKind, held
from replicator.domain.versions import STAMP
from replicator.engine import waiting as pacing
from replicator.engine.limits import Limits
from replicator.laboratory.memory import Fault, Faults, MemoryRegion
from tests.engine.mesh_world import ACTIVE, NAME, VERSIONED, MeshProcess, MeshWorld, item, value_of
from tests.engine.world import AP, EU, US, key_of, until
from tests.simulation.test_engine import LongWire

SEEDS = 4
SECONDS = 60.0
KEYS = [f"k{number}" for number in range(6)]
MOST_WRITES = 4
"""Item writes of the daemon per write of a user and region, whatever happens."""

pytestmark = pytest.mark.usefixtures("virtual_time")


@dataclass
class MeshHistory:
    """One seed's world, its processes, and what goes wrong in it."""

    mode: str
    regions: list[RegionId]
    seed: int
    ends: list[MeshProcess] = field(default_factory=list)
    versions: dict[str, int] = field(default_factory=dict)
    """Every value that a user wrote, with the version it carried."""
    overwrote: dict[str, list[int | None]] = field(default_factory=lambda: defaultdict(list))
    """Values over which a user wrote a greater version, with those versions; None: a delete."""
    met: set[str] = field(default_factory=set)
    """Values that stood there when a user wrote, whatever was written: what became of them is known to that user."""
    undecided: set[str] = field(default_factory=set)
    """Values that may come back: an expiry loses to every change, a delete of a marked item is the mark's (L4)."""
    written: int = 0

    def __post_init__(self) -> None:
        self.dice = Random(f"{self.mode} {self.regions} {self.seed}")
        self.world = MeshWorld(self.mode, *self.regions, seed=self.seed, shards=("s0", "s1"))
        self.wires: set[asyncio.Task[Response]] = set()
        self.shards = itertools.count(2)
        self.counter = itertools.count(1)
        for region in self.regions:
            self.world.skew[region] = self.dice.choice([0.0, -7.0, 3.0, 40.0])
        for port in self.ports():
            self.trouble(port)

    def ports(self) -> list[Faults]:
        world = self.world
        return [
            *(table.faults for table in world.tables.values()),
            *(stream.faults for stream in world.streams.values()),
            *(owed.faults for owed in world.owed.values()),
            world.conflicts.faults,
            world.registry.faults,
            world.coordination.faults,
            world.membership.faults,
        ]

    def trouble(self, faults: Faults) -> None:
        chance = self.dice.choice([0.0, 0.02, 0.1])
        faults._chances = ((Fault.BEFORE, chance), (Fault.AFTER, chance), (Fault.THROTTLE, chance))
        slowness = self.dice.choice([0.0, 0.01, 0.1, 0.3])

        async def pause(call: str) -> None:
            await asyncio.sleep(slowness * self.dice.random())

        faults.pause = pause

    def calm(self) -> None:
        for faults in self.ports():
            faults._chances = ((Fault.BEFORE, 0.0), (Fault.AFTER, 0.0), (Fault.THROTTLE, 0.0))
            faults.pause = None
            faults.outage = None
        for region in self.regions:
            self.world.membership.resume_region(NAME, region)

    # -- who does what ---------------------------------------------------------------------------------------------

    async def users(self, region: RegionId) -> None:
        """Bursts in which regions meet, and pauses behind which users write over what came from elsewhere."""
        while True:
            for _ in range(self.dice.choice([1, 2, 10])):
                await asyncio.sleep(self.dice.random() * self.dice.choice([0.05, 0.5]))
                self.write(region, self.dice.choice(KEYS))
            await asyncio.sleep(self.dice.choice([0.5, 3.0, 8.0]))

    def write_over_everything(self, region: RegionId) -> dict[str, str | None]:
        """Knowing what all hold, one region's users write over it once more; returns what they wrote.

        A missing key may hide a delete that found nothing here: no row knows that a later put has seen it.
        """
        for name in self.world[region].holds():
            number = next(self.counter)
            self.world[region].put(name, number, **({"ver": 10 * number} if self.mode == VERSIONED else {}))
        return self.world[region].holds()

    def write_below_everything(self, region: RegionId) -> int:
        """Mode versioned: users put every key with a version below all others; returns how many writes must be lost."""
        names = {record.key.parts[0][2] for records in self.world.all_records().values() for record in records}
        for name in sorted(names):
            self.world[region].put(name, "too low", ver=-next(self.counter))
        return len(names)

    def write(self, region: RegionId, name: str) -> None:
        table = self.world[region]
        standing = table.value(name)
        deed = self.dice.choice(["put", "put", "update", "delete", "expire", "stale"])
        if deed in {"delete", "expire"} and standing is None:
            return
        self.written += 1
        self.met |= {standing} if standing is not None else set()
        if deed in {"delete", "expire"}:
            assert standing is not None
            if self.mode == ACTIVE and (deed == "expire" or self.is_marked(region, name)):
                self.undecided.add(standing)
            else:
                self.overwrote[standing].append(None)
            table.delete(name, by_ttl=deed == "expire")
            return
        number = next(self.counter)
        value = f"{region} {number}"
        ver = 10 * number - (205 if self.dice.random() < 0.15 else 0)
        version = {"ver": ver} if self.mode == VERSIONED else {}
        if standing is not None and (self.mode == ACTIVE or ver > self.versions[standing]):
            self.overwrote[standing].append(ver)
        self.versions[value] = ver
        match deed:
            case "put":
                table.put(name, value, **version)
            case "update":
                table.update(name, value, **version)
            case _:
                table.write(name, self.from_a_stale_read(region, name, value, version))

    def is_marked(self, region: RegionId, name: str) -> bool:
        looked = held(self.world[region].item(key_of(name)))
        return looked is not None and looked.kind is StampKind.MARK

    def from_a_stale_read(self, region: RegionId, name: str, value: str, version: dict[str, int]) -> Image:
        """A whole image that a user read earlier, changed, and now puts back together with its old stamp."""
        seen = [
            record.new
            for record in self.world.all_records()[region]
            if record.key == key_of(name) and record.new is not None
        ]
        stamps = [image.attributes[STAMP] for image in seen[-6:] if STAMP in image.attributes]
        fresh = item(name, value, **version)
        if not stamps:
            return fresh
        return Image(fresh.wire[:-1] + b',"%b":{"S":"%b"}}' % (STAMP.encode(), self.dice.choice(stamps)["S"].encode()))

    async def shards_roll(self) -> None:
        while True:
            await asyncio.sleep(self.dice.uniform(3, 20))
            region = self.dice.choice(self.regions)
            children = [f"s{next(self.shards)}" for _ in range(self.dice.choice([1, 1, 2]))]
            self.world.roll(region, self.dice.choice(sorted(set(self.world.routes[region]))), *children)
            stream, ref = self.world.streams[region], self.world.refs[region]
            stream.filters_children = self.dice.random() < 0.5
            stream.shards_per_page = self.dice.choice([2, 100])
            if self.dice.random() < 0.5:
                late = ShardId(children[-1])
                stream.hide(ref, late)
                asyncio.get_running_loop().call_later(self.dice.uniform(0.5, 8), stream.reveal, ref, late)

    async def fate(self) -> None:
        """One of the processes: what becomes of it, again and again."""
        while True:
            limits = Limits(
                page_records=self.dice.choice([2, 7, 1000]),
                concurrency=self.dice.choice([1, 4, 64]),
                checkpoint_seconds=self.dice.choice([0.2, 1.0, 5.0]),
                backoff_seconds=self.dice.choice([1.0, 5.0]),
            )
            process = self.world.process(limits=limits, wire_to=self.wire).start()
            assert process.task is not None
            self.ends.append(process)
            await asyncio.sleep(self.dice.uniform(2, 30))
            match self.dice.choice(["kill", "kill", "suspend", "drain"]):
                case "suspend":
                    process.suspend(self.dice.uniform(1, 60))
                    await asyncio.sleep(self.dice.uniform(2, 20))
                case "drain":
                    process.stop.set()
                    await asyncio.wait([process.task], timeout=self.dice.uniform(0.1, 20))
                case _:
                    pass
            await process.kill()
            await asyncio.sleep(self.dice.choice([0.0, 1.0, 10.0]))

    async def outages(self) -> None:
        """One region after the other is away: its table, all of it, for one process only, or as an operator says."""
        while True:
            await asyncio.sleep(self.dice.uniform(1, 15))
            region, wholly = self.dice.choice(self.regions), self.dice.random() < 0.5
            dark = [self.world[region].faults]
            if wholly:
                dark += [self.world.streams[region].faults, self.world.owed[region].faults]
            if self.dice.random() < 0.2:
                self.world.membership.pause_region(NAME, region)
                dark = []
            error = self.dice.choice([Unreachable, Unreachable, AccessRefused])
            for faults in dark:
                faults.outage = error
            await asyncio.sleep(self.dice.choice([0.7, 3.0, 8.0, 25.0]))
            for faults in dark:
                faults.outage = None
            self.world.membership.resume_region(NAME, region)

    def wire(self, region: MemoryRegion) -> LongWire:
        return LongWire(region, self.dice, self.wires)

    async def live(self) -> None:
        """Let everything go wrong for a while."""
        acts = [*map(self.users, self.regions), self.shards_roll(), self.fate(), self.fate(), self.outages()]
        tasks = [asyncio.ensure_future(act) for act in acts]
        done, _ = await asyncio.wait(tasks, timeout=SECONDS, return_when=asyncio.FIRST_EXCEPTION)
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        for task in done:
            task.result()
        for process in self.ends:
            await process.kill()

    # -- what must hold at the end ---------------------------------------------------------------------------------

    def read_to_the_end(self) -> bool:
        """Whether every record of every shard is behind a stored checkpoint, and no region is owed a key."""
        if not self.world.owes_nothing():
            return False
        for region, ref in self.world.refs.items():
            for shard_id, shard in self.world.streams[region]._shards[ref.arn].items():
                ends = (
                    {"SHARD_END", shard.records[-1].sequence} if shard.records else {"SHARD_END", "TRIM_HORIZON", None}
                )
                if self.world.stored(region, shard_id) not in {"SHARD_END", *ends}:
                    return False
        return True

    def final(self) -> set[str]:
        return {value for value in self.world.agreed().values() if value is not None}

    def nothing_came_back(self) -> None:
        """What a user overwrote or deleted knowingly is not there at the end."""
        for value in self.final():
            assert value in self.versions, f"{value} was never written"
            over = self.overwrote[value]
            assert not over, f"{value} stands at the end, although {over} came over it"

    def lost_writes_are_logged(self) -> None:
        """What no user ever saw go, and is not there at the end, stands in the log as a loser."""
        losers = {value_of(entry.conflict.loser) for entry in self.world.entries()}
        exempt = self.deleted_by_the_daemon() if self.mode == VERSIONED else set()
        lost = self.versions.keys() - self.final() - self.met
        assert lost - exempt <= losers, f"{sorted(lost - exempt - losers)} were lost without an entry"

    def no_winner_is_called_lost(self) -> None:
        """What stands at the end is named as a loser only where the entry says that it came back."""
        gone = {
            value_of(entry.conflict.loser)
            for entry in self.world.entries()
            if entry.conflict.outcome is Resolution.OVERWRITTEN
        }
        assert not gone & self.final(), f"{sorted(map(str, gone & self.final()))} stand, and are called overwritten"

    def deleted_by_the_daemon(self) -> set[str | None]:
        """Mode versioned logs what went with a delete behind that delete, so that a crash may lose the entry."""
        return {
            value_of(record.old)
            for records in self.world.all_records().values()
            for record in records
            if record.new is None
        }


@pytest.mark.parametrize("seed", range(SEEDS))
@pytest.mark.parametrize("regions", [[US, EU], [US, EU, AP]], ids=["two", "three"])
@pytest.mark.parametrize("mode", [ACTIVE, VERSIONED])
async def test_whatever_happens_all_regions_become_identical_and_the_daemon_silent(
    mode: str, regions: list[RegionId], seed: int
) -> None:
    pacing._JITTER.seed(seed)
    history = MeshHistory(mode, regions, seed)
    world = history.world
    await history.live()
    history.calm()
    async with world.process() as first, world.process() as second:
        await until(history.read_to_the_end, within=600)
        history.nothing_came_back()
        history.lost_writes_are_logged()
        history.no_winner_is_called_lost()
        changes = world.changes()
        await asyncio.sleep(30)
        assert history.read_to_the_end()
        assert world.changes() == changes, "the daemon writes although no user did"
        entries = len(world.entries())
        if mode == VERSIONED:
            held_before = world.agreed()
            entries += history.write_below_everything(regions[-1])
            await until(history.read_to_the_end)
            assert world.agreed() == held_before
            assert len(world.entries()) == entries
        wanted = history.write_over_everything(min(regions, key=lambda region: world.skew[region]))
        await until(lambda: history.read_to_the_end() and world.agreed() == wanted, within=60)
        assert len(world.entries()) == entries, "what was seen when it was overwritten is no conflict"
        await asyncio.gather(first.drain(), second.drain())
        history.ends += [first, second]
    assert [error for process in history.ends for error in process.observer.faults] == []
    assert world.registry.gaps == []
    writes = sum(world[region].item_writes for region in regions)
    assert writes <= MOST_WRITES * len(regions) * history.written
    assert history.written > 40, "nothing happened"
    assert world.entries(), "nothing met"
