"""The whole engine in a hostile world, in virtual time: every seed is another history.

Users write while shards roll, split, merge and are listed late, and iterators expire; two to five processes are killed
(their requests stay on the wire and land later), suspended, stopped and started; every port fails before or behind its
effect, throttles and dawdles; readers fill the caches throughout. Watched all the time: no checkpoint passes an
effect, no child is begun before its parent's end, no cache entry is older than what a checkpoint covers. At the end
everything must be identical, and a sink of events has every change of every key in order.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Coroutine
from dataclasses import dataclass, field
from random import Random

import pytest

from replicator.domain.cache_keys import CacheVerb
from replicator.domain.identifiers import RuleName, ShardId
from replicator.domain.image import unreserved
from replicator.domain.modes.requests import Request, Response
from replicator.domain.progress import END
from replicator.domain.records import ChangeRecord, ItemKey
from replicator.domain.rules import Target
from replicator.domain.targets import TargetId, TargetKind
from replicator.domain.versions import ordered_version
from replicator.engine import waiting as pacing
from replicator.engine.limits import Limits
from replicator.laboratory.memory import (
    Fault,
    Faults,
    MemoryCache,
    MemoryRegion,
    OpenFence,
    filled,
    leased,
    value_entry,
)
from replicator.ports.targets import Fence
from tests.engine.world import AP, CA, EU, US, Process, World, cache_rule, key_of, rule, target, until
from tests.seeds import seeds

FEW, SEEDS = 3, 12
SECONDS = 90
KEYS = [f"k{number}" for number in range(14)]
RULES = (
    rule(
        "orders",
        target("orders", EU, cache_rule("eu_main", EU)),
        target("orders", AP, cache_rule("ap_main", AP, CacheVerb.REFRESH)),
    ),
    rule("copies", target("copies", CA), Target(RuleName("copies"), US, None, sink="sqs:copies")),
)
TARGETS = {each.target_id: each for chosen in RULES for each in chosen.targets}
CACHES = {"eu_main": EU, "ap_main": AP}

pytestmark = pytest.mark.usefixtures("virtual_time")


@dataclass
class LongWire:
    """A region behind a wire on which a request stays under way although its sender died."""

    region: MemoryRegion
    dice: Random
    tasks: set[asyncio.Task[Response]]

    async def execute(self, request: Request, fence: Fence) -> Response:
        fence.check()
        task = asyncio.get_running_loop().create_task(self._travel(request))
        self.tasks.add(task)
        task.add_done_callback(self._arrived)
        return await asyncio.shield(task)

    async def _travel(self, request: Request) -> Response:
        await asyncio.sleep(self.dice.choice([0.0, 0.01, 0.05, 0.05, 0.2, 2.0]) * self.dice.random())
        return await self.region.execute(request, OpenFence())

    def _arrived(self, task: asyncio.Task[Response]) -> None:
        self.tasks.discard(task)
        if not task.cancelled():
            task.exception()  # its sender may be gone


@dataclass
class History:
    """One seed's world, its processes, and what goes wrong in it."""

    seed: int
    processes: dict[int, Process | None] = field(default_factory=dict)
    checks: int = 0
    merges: int = 0
    fills: int = 0

    def __post_init__(self) -> None:
        self.dice = Random(self.seed)
        self.world = World("s0", "s1", seed=self.seed)
        self.wires: set[asyncio.Task[Response]] = set()
        self.shards = itertools.count(2)
        self.ends: list[Process] = []
        for port in self.ports():
            self.trouble(port)

    def ports(self) -> list[Faults]:
        world = self.world
        return [
            *(region.faults for region in world.regions.values()),
            *(cache.faults for cache in world.caches.values()),
            world.streams.faults,
            world.registry.faults,
            world.coordination.faults,
            world.membership.faults,
            world.sink.faults,
            world.sink.entries,
        ]

    def trouble(self, faults: Faults) -> None:
        chance = self.dice.choice([0.0, 0.02, 0.05, 0.15])
        faults._chances = ((Fault.BEFORE, chance), (Fault.AFTER, chance), (Fault.THROTTLE, chance))
        slowness = self.dice.choice([0.0, 0.01, 0.1, 0.4])

        async def pause(call: str) -> None:
            await asyncio.sleep(slowness * self.dice.random())

        faults.pause = pause

    def calm(self) -> None:
        self.world.reveal_all()
        for faults in self.ports():
            faults._chances = ((Fault.BEFORE, 0.0), (Fault.AFTER, 0.0), (Fault.THROTTLE, 0.0))
            faults.pause = None

    # -- who does what ---------------------------------------------------------------------------------------------

    async def users(self) -> None:
        for number in itertools.count():
            name = self.dice.choice(KEYS)
            if self.dice.random() < 0.25 and key_of(name) in self.world.source.items:
                self.world.delete(name)
            else:
                self.world.put(name, number)
            if self.dice.random() < 0.9:
                await asyncio.sleep(self.dice.random() * 0.4)

    async def shards_change(self) -> None:
        """Shards roll, split and merge; what is new is often listed late, page by page, and sometimes parents too."""
        streams, ref = self.world.streams, self.world.ref
        streams.shards_per_page = self.dice.choice([1, 3, 100])
        streams.filters_children = self.dice.random() < 0.7
        while True:
            await asyncio.sleep(self.dice.uniform(3, 25))
            open_shards = sorted(set(self.world.routes))
            if len(open_shards) > 1 and self.dice.random() < 0.4:
                children = [f"s{next(self.shards)}"]
                self.world.merge(self.dice.sample(open_shards, 2), *children)
                self.merges += 1
            else:
                children = [f"s{next(self.shards)}" for _ in range(self.dice.choice([1, 1, 2]))]
                self.world.roll(self.dice.choice(open_shards), *children)
            if self.dice.random() < 0.4:
                streams.expire_iterators()
            streams.empty_pages = self.dice.choice([0, 0, 3])
            if self.dice.random() < 0.5:
                streams.hide(ref, *(ShardId(child) for child in self.dice.sample(children, 1)))
                asyncio.get_running_loop().call_later(self.dice.uniform(0.5, 10), self.world.reveal_all)

    async def readers(self, name: str, cache: MemoryCache, region: MemoryRegion) -> None:
        for number in itertools.count():
            await asyncio.sleep(self.dice.random() * 0.3)
            key = self.dice.choice(KEYS)
            token = f"{number}"
            entry, ours = leased(cache.entries.get(f"order:{key}"), token)
            if not ours:
                if entry.startswith(b"L:") or self.dice.random() < 0.05:
                    cache.evict(f"order:{key}")
                continue
            cache.entries[f"order:{key}"] = entry
            item = region.item(key_of(key))
            await asyncio.sleep(self.dice.random() * 0.5)
            if item is not None and item.stamp is not None:
                value = value_entry(item.stamp, unreserved(item).wire)
                after = filled(cache.entries.get(f"order:{key}"), token, value)
                self.fills += after == value
                if after is not None:
                    cache.entries[f"order:{key}"] = after

    def all_readers(self) -> list[Coroutine[None, None, None]]:
        world = self.world
        return [self.readers(name, world.caches[name], world.regions[region]) for name, region in CACHES.items()]

    async def fate(self, place: int) -> None:
        """One of the processes: what becomes of it, again and again."""
        while True:
            limits = Limits(
                page_records=self.dice.choice([2, 7, 1000]),
                concurrency=self.dice.choice([1, 4, 64]),
                checkpoint_seconds=self.dice.choice([0.2, 1.0, 5.0]),
                backoff_seconds=self.dice.choice([1.0, 5.0]),
            )
            process = self.world.process(*RULES, limits=limits, wire_to=self._wire).start()
            self.processes[place] = process
            assert process.task is not None
            await asyncio.sleep(self.dice.uniform(2, 40))
            match self.dice.choice(["kill", "kill", "suspend", "drain"]):
                case "suspend":
                    process.suspend(self.dice.uniform(1, 60))
                    await asyncio.sleep(self.dice.uniform(2, 40))
                    await process.kill()
                case "drain":
                    process.stop.set()
                    await asyncio.wait([process.task], timeout=self.dice.uniform(0.1, 20))
                    await process.kill()
                case _:
                    await process.kill()
            self.ends.append(process)
            self.processes[place] = None
            await asyncio.sleep(self.dice.choice([0.0, 1.0, 15.0]))

    def _wire(self, region: MemoryRegion) -> LongWire:
        return LongWire(region, self.dice, self.wires)

    async def watch(self) -> None:
        while True:
            await asyncio.sleep(self.dice.uniform(0.2, 2.0))
            self.check()

    # -- what must hold --------------------------------------------------------------------------------------------

    def records(self, shard_id: ShardId) -> list[ChangeRecord]:
        return self.world.streams._shards[self.world.ref.arn][shard_id].records

    def check(self) -> None:
        self.checks += 1
        stored = {
            (shard_id, target_id): position
            for (_, shard_id), row in self.world.coordination._rows.items()
            for target_id, position in row.checkpoints.items()
        }
        for (shard_id, target_id), position in stored.items():
            covered = [record for record in self.records(shard_id) if position.covers(record.number)]
            self.no_checkpoint_passes_an_effect(target_id, covered)
            self.no_cache_entry_is_older_than_a_checkpoint(target_id, covered)
            for parent in self.world.streams._shards[self.world.ref.arn][shard_id].parents:
                assert stored.get((parent, target_id)) == END, (
                    f"{shard_id} was begun for {target_id} before the end of {parent}"
                )

    def no_checkpoint_passes_an_effect(self, target_id: TargetId, covered: list[ChangeRecord]) -> None:
        if target_id.kind is TargetKind.EVENTS:
            seen = {int(event.id.rpartition("/")[2]) for event in self.world.sink.taken}
            missing = [record.sequence for record in covered if record.number not in seen]
            assert not missing, f"the checkpoint of {target_id} covers {missing}, which the sink did not take"
            return
        region = self.world.regions[TARGETS[target_id].region]
        for record in covered:
            assert _version_at(region, record.key) >= self.version(record), (
                f"the checkpoint of {target_id} covers {record.sequence}, whose effect is missing"
            )

    def no_cache_entry_is_older_than_a_checkpoint(self, target_id: TargetId, covered: list[ChangeRecord]) -> None:
        for cache_rule_ in TARGETS[target_id].caches:
            entries = self.world.caches[cache_rule_.cache].entries
            for record in covered:
                entry = entries.get(f"order:{record.key.parts[0][2]}", b"")
                if entry.startswith((b"V:", b"T:")):
                    assert entry[2:58].decode() >= self.version(record), (
                        f"an entry of {cache_rule_.cache} is older than {record.sequence}, which a checkpoint covers"
                    )

    def version(self, record: ChangeRecord) -> str:
        return ordered_version(0, self.world.ref.generation, record.number)

    def applied_everywhere(self) -> bool:
        shards = self.world.streams._shards[self.world.ref.arn]
        return all(self.world.same(region) for region in (EU, AP, CA)) and all(
            self.world.stored(shard_id, target_id) in {"SHARD_END", held.records[-1].sequence}
            for shard_id, held in shards.items()
            if held.records
            for target_id in TARGETS
        )

    def events_came_in_order(self) -> None:
        """Every change of every key, first seen in the order of its changes."""
        seen = dict.fromkeys(int(event.id.rpartition("/")[2]) for event in self.world.sink.taken)
        records = [record for shard in self.world.streams._shards[self.world.ref.arn] for record in self.records(shard)]
        keys = {record.number: record.key for record in records}
        wanted: dict[ItemKey, list[int]] = {}
        came: dict[ItemKey, list[int]] = {}
        for number in sorted(keys):
            wanted.setdefault(keys[number], []).append(number)
        for number in seen:
            came.setdefault(keys[number], []).append(number)
        assert came == wanted

    def caches_are_coherent(self) -> None:
        for name, region in CACHES.items():
            for key, entry in self.world.caches[name].entries.items():
                item = self.world.regions[region].item(key_of(key.removeprefix("order:")))
                match entry[:2]:
                    case b"V:":
                        assert item is not None, f"{name} holds {key}, which was deleted"
                        assert entry == value_entry(item.stamp or "", unreserved(item).wire)
                    case b"T:":
                        assert item is None, f"{name} says that {key} was deleted, and it was not"


def _version_at(region: MemoryRegion, key: ItemKey) -> str:
    slot = region.slot(key)
    stamp = "" if slot.item is None else slot.item.stamp or ""
    return max(stamp, slot.tombstone or "")


async def lived_through(history: History) -> None:
    """Let everything go wrong for a while."""
    reading = history.all_readers()
    fates = [history.fate(place) for place in range(history.dice.choice([2, 3, 5]))]
    acts = [history.users(), history.shards_change(), history.watch(), *reading, *fates]
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


@pytest.mark.parametrize("seed", seeds(FEW, SEEDS))
async def test_whatever_happens_replicas_become_identical_and_no_checkpoint_passes_an_effect(seed: int) -> None:
    pacing._JITTER.seed(seed)
    history = History(seed)
    world = history.world
    await lived_through(history)
    history.calm()
    async with world.process(*RULES) as first, world.process(*RULES) as second:
        await until(history.applied_everywhere, within=120)
        history.check()
        history.caches_are_coherent()
        history.events_came_in_order()
        fills = history.fills
        reading = [asyncio.ensure_future(readers) for readers in history.all_readers()]
        await asyncio.wait(reading, timeout=30)
        for task in reading:
            task.cancel()
        await asyncio.wait(reading)
        history.caches_are_coherent()
        await asyncio.gather(first.drain(), second.drain())
        history.ends += [first, second]
    assert [error for process in history.ends for error in process.observer.faults] == []
    assert world.registry.gaps == []
    for row in world.coordination._rows.values():
        assert row.owner is None or {*row.checkpoints.values()} == {END}, "a drained process released what it read"
    records = sum(len(held.records) for held in world.streams._shards[world.ref.arn].values())
    taken_over = sum(row.epoch > 1 for row in world.coordination._rows.values())
    happened = records > 200, history.checks > 30, history.fills > fills, taken_over > 0
    assert happened == (True,) * 4, "nothing happened"
