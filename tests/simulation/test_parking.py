"""Parking in a hostile world, in virtual time: every seed is another history.

Replicas take against keys and take to them again; shards roll and split; processes are killed between a row and a
position, suspended and stopped; every port fails before or behind its effect; an operator tries rows again that were
looked at a while before. Watched all the time: what a checkpoint covers is at the replica or owed, and no row outlives
its key's newer state. At the end everything is identical and nothing is owed.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from random import Random
from typing import Any

import pytest

from replicator.domain.cache_keys import CacheVerb
from replicator.domain.errors import ReplicatorError
from replicator.domain.image import unreserved
from replicator.domain.modes.requests import Found, Request, Response
from replicator.domain.owed_keys import OwedKey, OwedTo, Settlement
from replicator.domain.records import ItemKey
from replicator.domain.rules import OnRefusal
from replicator.domain.targets import TargetId
from replicator.domain.versions import ordered_version
from replicator.engine import waiting as pacing
from replicator.engine.applying.cache_batcher import CacheFunnel
from replicator.engine.applying.context import TargetPorts
from replicator.engine.applying.parking import Parking
from replicator.engine.applying.retrying import Retrial
from replicator.engine.applying.set_aside import SetAside
from replicator.engine.limits import Limits
from replicator.laboratory.memory import Fault, Faults, MemorySource, OpenFence, value_entry
from replicator.ports.targets import Fence
from tests.engine.world import (
    AP,
    EU,
    ORDERS,
    LoopClock,
    Process,
    Recorder,
    World,
    cache_rule,
    key_of,
    rule,
    target,
    until,
)
from tests.production.guarantee import Mutant
from tests.seeds import seeds

FEW, SEEDS = 1, 5
SECONDS = 60
KEYS = [f"k{number}" for number in range(4)]
RULE = rule(
    "orders",
    target("orders", EU, cache_rule("eu_main", EU, CacheVerb.REFRESH)),
    target("orders", AP),
    refused=OnRefusal.PARK,
)
TARGETS = {each.target_id: each for each in RULE.targets}
WHY = "Item size has exceeded the maximum allowed size"

pytestmark = pytest.mark.usefixtures("virtual_time")


class SourceTable:
    """The source's items, as a region that is only read."""

    def __init__(self, source: MemorySource) -> None:
        self._source = source

    async def execute(self, request: Request, fence: Fence) -> Response:
        fence.check()
        return Found(item=self._source.items.get(request.key))  # type: ignore[union-attr]


def unparsed(raw: bytes) -> Any:
    raise AssertionError("no record here is unreadable")


@dataclass
class History:
    """One seed's world, its processes, and what goes wrong in it."""

    seed: int
    processes: dict[int, Process | None] = field(default_factory=dict)
    checks: int = 0
    parked: int = 0
    retried: int = 0

    def __post_init__(self) -> None:
        self.dice = Random(self.seed)
        self.world = World("s0", "s1", seed=self.seed)
        self.world.owed.rows_per_page = 2
        self.shards = itertools.count(2)
        self.ends: list[Process] = []
        for port in self.ports():
            self.trouble(port)

    def ports(self) -> list[Faults]:
        world = self.world
        return [
            *(region.faults for region in world.regions.values()),
            world.streams.faults,
            world.coordination.faults,
            world.owed.faults,
        ]

    def trouble(self, faults: Faults) -> None:
        chance = self.dice.choice([0.0, 0.02, 0.1])
        faults._chances = ((Fault.BEFORE, chance), (Fault.AFTER, chance), (Fault.THROTTLE, chance))
        slowness = self.dice.choice([0.0, 0.05, 0.4])

        async def pause(call: str) -> None:
            await asyncio.sleep(slowness * self.dice.random())

        faults.pause = pause

    def calm(self) -> None:
        for faults in self.ports():
            faults._chances = ((Fault.BEFORE, 0.0), (Fault.AFTER, 0.0), (Fault.THROTTLE, 0.0))
            faults.pause = None
        for name in KEYS:
            for region in (EU, AP):
                self.like(region, name)

    # -- who does what -------------------------------------------------------------------------------------------------

    async def users(self) -> None:
        for number in itertools.count():
            name = self.dice.choice(KEYS)
            if self.dice.random() < 0.25 and key_of(name) in self.world.source.items:
                self.world.delete(name)
            else:
                self.world.put(name, number)
            await asyncio.sleep(self.dice.random() * 0.4)

    async def replicas(self) -> None:
        """Each takes against a key, or to it again."""
        while True:
            region, name = self.dice.choice([EU, AP]), self.dice.choice(KEYS)
            if self.dice.random() < 0.5:
                self.world.regions[region].poison(key_of(name), WHY)
            else:
                self.like(region, name)
            await asyncio.sleep(self.dice.random())

    def like(self, region: Any, name: str) -> None:
        self.world.regions[region]._poisoned.pop(key_of(name), None)

    async def shards_change(self) -> None:
        while True:
            await asyncio.sleep(self.dice.uniform(5, 20))
            children = [f"s{next(self.shards)}" for _ in range(self.dice.choice([1, 2]))]
            self.world.roll(self.dice.choice(sorted(set(self.world.routes))), *children)

    async def operator(self) -> None:
        """Looks at a row, thinks, mends its replica, and tries it again."""
        while True:
            await asyncio.sleep(self.dice.uniform(0.5, 4))
            rows = list(self.world.owed.rows.values())
            if rows:
                row = self.dice.choice(rows)
                await asyncio.sleep(self.dice.choice([0.0, 0.2, 3.0]))
                if row.key is not None and self.dice.random() < 0.7:
                    self.like(TARGETS[row.to.target_id].region, row.key.parts[0][2])
                await self.retry(row)

    async def retry(self, row: OwedKey) -> None:
        world, place = self.world, TARGETS[row.to.target_id]
        retrial = Retrial(
            RULE,
            place,
            TargetPorts(
                world.regions[place.region],
                {name: CacheFunnel(cache) for name, cache in world.caches.items()},
                world.conflicts,
            ),
            SourceTable(world.source),
            world.owed,
            unparsed,
            7 * 86_400.0,
            LoopClock(),
            Recorder(),
            OpenFence(),
            "operator",
        )
        self.retried += 1
        try:
            await retrial.retry(row)
        except ReplicatorError:  # as a command that fails
            return

    async def fate(self, place: int) -> None:
        while True:
            limits = Limits(
                page_records=self.dice.choice([2, 7, 1000]),
                checkpoint_seconds=self.dice.choice([0.05, 1.0]),
                backoff_seconds=self.dice.choice([1.0, 5.0]),
                owed_seconds=self.dice.choice([1.0, 10.0]),
            )
            process = self.world.process(RULE, limits=limits).start()
            self.processes[place] = process
            await asyncio.sleep(self.dice.uniform(1, 15))
            match self.dice.choice(["kill", "kill", "suspend", "drain"]):
                case "suspend":
                    process.suspend(self.dice.uniform(1, 60))
                    await asyncio.sleep(self.dice.uniform(1, 10))
                case "drain":
                    process.stop.set()
                    await asyncio.sleep(self.dice.uniform(0.1, 5))
            await process.kill()
            self.ends.append(process)
            self.processes[place] = None

    async def watch(self) -> None:
        while True:
            await asyncio.sleep(self.dice.uniform(0.05, 0.5))
            self.check()

    # -- what must hold ------------------------------------------------------------------------------------------------

    def check(self) -> None:
        self.checks += 1
        for (_, shard_id), row in self.world.coordination._rows.items():
            for target_id, position in row.checkpoints.items():
                for record in self.world.streams._shards[self.world.ref.arn][shard_id].records:
                    if position.covers(record.number):
                        self.is_kept(target_id, record.key, self.version(record.number))
        self.parked += len(self.world.owed.rows)

    def is_kept(self, target_id: TargetId, key: ItemKey, version: str) -> None:
        """What a checkpoint covers is at the replica, or owed, or the source holds nothing any more."""
        held = _version_at(self.world, target_id, key)
        owing = next((row for row in self.world.owed.rows.values() if (row.to, row.key) == (to(target_id), key)), None)
        settled = [
            done.owed.version
            for done in self.world.owed.settled
            if (done.owed.to, done.owed.key, done.how) == (to(target_id), key, Settlement.ABSENT)
        ]
        kept = max([held, *settled, *([] if owing is None else [owing.version])])
        assert kept >= version, f"the checkpoint of {target_id} covers {version}, which is neither there nor owed"
        if owing is not None:
            assert owing.version >= version, f"a row of {target_id} outlives {version}, which a checkpoint covers"

    def version(self, number: int) -> str:
        return ordered_version(0, self.world.ref.generation, number)

    def caches_are_coherent(self) -> None:
        for key, entry in self.world.caches["eu_main"].entries.items():
            item = self.world.regions[EU].item(key_of(key.removeprefix("order:")))
            assert item is not None
            assert entry == value_entry(item.stamp or "", unreserved(item).wire)


def to(target_id: TargetId) -> OwedTo:
    return OwedTo(ORDERS, target_id)


def _version_at(world: World, target_id: TargetId, key: ItemKey) -> str:
    slot = world.regions[TARGETS[target_id].region].slot(key)
    stamp = "" if slot.item is None else slot.item.stamp or ""
    return max(stamp, slot.tombstone or "")


async def lived_through(history: History) -> None:
    fates = [history.fate(place) for place in range(2)]
    operators = [history.operator() for _ in range(3)]
    acts = [history.users(), history.replicas(), history.shards_change(), history.watch(), *operators, *fates]
    tasks = [asyncio.ensure_future(act) for act in acts]
    done, _ = await asyncio.wait(tasks, timeout=SECONDS, return_when=asyncio.FIRST_EXCEPTION)
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
    for task in done:
        task.result()
    for process in history.processes.values():
        if process is not None:
            await process.kill()
            history.ends.append(process)


async def settled(history: History) -> None:
    """Calm comes; an operator has everything tried again, or users write everything once more."""
    history.calm()
    world = history.world
    async with world.process(RULE) as process:
        await asyncio.sleep(30)
        history.check()
        if history.seed % 2:
            for row in list(world.owed.rows.values()):
                await history.retry(row)
        else:
            world.write(KEYS, "last")
        await until(lambda: world.same(EU) and world.same(AP) and not world.owed.rows, within=60)
        history.caches_are_coherent()
        await process.drain()
        history.ends.append(process)
    assert [error for process in history.ends for error in process.observer.faults] == []
    assert world.owed.bodies == {}


async def played(seed: int) -> History:
    pacing._JITTER.seed(seed)
    history = History(seed)
    await lived_through(history)
    await settled(history)
    return history


@pytest.mark.parametrize("seed", seeds(FEW, SEEDS))
async def test_whatever_happens_refused_changes_are_kept_and_nothing_outlives_them(seed: int) -> None:
    history = await played(seed)
    happened = history.checks > 30, history.parked > 20, history.retried > 0
    assert happened == (True, True, True), "nothing happened"


# -- mutants -----------------------------------------------------------------------------------------------------------


def _later(original: Any) -> Any:
    """The deed is done a moment after the record counted as done, unless the process is gone by then."""

    async def deferred(self: Any, *args: Any, **kwargs: Any) -> None:
        async def deed() -> None:
            await asyncio.sleep(0.3)
            try:
                await original(self, *args, **kwargs)
            except ReplicatorError:
                return

        _DEFERRED.add(asyncio.get_running_loop().create_task(deed()))

    return deferred


_DEFERRED: set[asyncio.Task[None]] = set()


def _no_rows(_: Any) -> Callable[[Any], Awaitable[None]]:
    async def load(self: Any) -> None:
        return

    return load


MUTANTS = {
    "row_before_position": Mutant(
        "a row is durable before the position passes its record", ((SetAside, "change", _later),)
    ),
    "settled_before_position": Mutant(
        "a row is settled before the position passes what settles it", ((SetAside, "taken", _later),)
    ),
    "rows_are_loaded": Mutant("rows are known before the first record is applied", ((Parking, "load", _no_rows),)),
}


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[pytest.mark.long] if name == "rows_are_loaded" else []) for name in MUTANTS],
)
async def test_a_mutant_is_caught(name: str) -> None:
    with MUTANTS[name].applied():
        for seed in range(SEEDS):
            try:
                await played(seed)
            except AssertionError:
                return
            finally:
                for task in _DEFERRED:
                    task.cancel()
    pytest.fail(f"no history shows what happens without: {MUTANTS[name].removed}")
