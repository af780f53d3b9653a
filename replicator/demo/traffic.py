"""Real traffic: several writers on the source, several readers at every cache.

Invariant: the writers know the truth. A key is written by one writer at a time, and its state is taken over when the
service acknowledged the write; a write that fails ends the demo, because its effect would be unknown.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Final

from replicator.demo.items import WRITTEN_AT, DemoKey, Keyspace, KeyState, attributes, marks, new_item
from replicator.demo.lag import LagSampler
from replicator.demo.layout import SOURCE
from replicator.demo.reader import CacheReader
from replicator.demo.world import World

WRITERS: Final = 8
READERS_PER_CACHE: Final = 3
READS_PER_SECOND: Final = 60.0
"""Of one reader."""

LONGEST_PAUSE_SECONDS: Final = 0.3
"""Of a reader between its read and its fill; about as long as a write needs to reach the replica."""

EVICTED: Final = 0.05
"""Share of reads that find the entry evicted."""

WARMERS: Final = 8

_SEEDED = 0.95
_POPULAR = 0.7
_DELETES = 0.2
_REPLACES = 0.35


@dataclass(slots=True)
class Writers:
    """All writers, on one schedule of writes."""

    world: World
    keyspace: Keyspace[KeyState]
    random: Random
    samplers: Sequence[LagSampler]
    counts: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0
    """How long they took."""

    writers: int = WRITERS

    @property
    def writes(self) -> int:
        """Acknowledged writes, without the seed."""
        return self.counts.total()

    async def seed(self) -> int:
        """Write a first item for most keys, in batches; returns how many."""
        region = self.world.regions[SOURCE]
        seeded = 0
        for table in self.world.tables:
            chosen = [state for state in self.keyspace.of(table) if self.random.random() < _SEEDED]
            for state in chosen:
                state.counter = 1
                state.item = new_item(state, state.counter, self.random)
            await region.put_all(table.names[SOURCE], [state.item for state in chosen if state.item is not None])
            seeded += len(chosen)
        return seeded

    async def run(self, rate: float, duration: float) -> None:
        """Write at `rate` per second for `duration` seconds; slower when the service cannot keep up."""

        async def one() -> int:
            await self.write(self._choose())
            return 1

        self.seconds += await on_schedule(rate, duration, self.writers, one)

    def _choose(self) -> KeyState:
        if self.random.random() < _POPULAR:
            return self.keyspace.popular(self.random)
        return self.random.choice(self.keyspace.keys)

    async def write(self, state: KeyState) -> None:
        """One write to this key: create, update, replace, delete or re-create."""
        async with state.lock:
            counter = state.counter + 1
            kind = await self._write(state, counter)
            state.counter = counter
            self.counts[kind] += 1
            if state.item is not None:
                written_at_ms = int(state.item[WRITTEN_AT]["N"])
                for sampler in self.samplers:
                    sampler.offer(state, counter, written_at_ms, SOURCE)

    async def _write(self, state: KeyState, counter: int) -> str:
        region, table = self.world.regions[SOURCE], state.table.names[SOURCE]
        if state.item is None:
            item = new_item(state, counter, self.random)
            await region.put(table, item)
            state.item = item
            return "re-creates" if state.deleted else "creates"
        chance = self.random.random()
        if chance < _DELETES:
            state.deletes.append(counter)
            await region.delete(table, state.key)
            state.item = None
            return "deletes"
        if chance < _DELETES + _REPLACES:
            item = new_item(state, counter, self.random)
            await region.put(table, item)
            state.item = item
            return "replaces"
        values = attributes(self.random)
        changed = self.random.sample(sorted(values), 3)
        gone = changed.pop()
        setting = {name: values[name] for name in changed} | marks(counter)
        await region.update(table, state.key, setting, [gone])
        state.item = {name: typed for name, typed in state.item.items() if name != gone} | setting
        return "updates"


async def on_schedule(rate: float, duration: float, workers: int, work: Callable[[], Awaitable[int]]) -> float:
    """Let `workers` work side by side, `rate` writes per second in all; returns the seconds that it took.

    `work` says how many writes it made; when they take too long, there are fewer.
    """
    started = time.monotonic()
    end = started + duration
    slots = (started + n / rate for n in itertools.count())

    async def until_the_end() -> None:
        for slot in slots:
            if max(slot, time.monotonic()) >= end:
                return
            await asyncio.sleep(max(0.0, slot - time.monotonic()))
            for _ in range(await work() - 1):
                next(slots)

    async with asyncio.TaskGroup() as group:
        for n in range(workers):
            group.create_task(until_the_end(), name=f"writer-{n}")
    return time.monotonic() - started


async def read_until(stop: asyncio.Event, reader: CacheReader, keyspace: Keyspace[DemoKey], random: Random) -> None:
    """One reader: half of its reads go to popular keys, the other half walk over all of them."""
    states = keyspace.of(reader.table)
    walk = itertools.cycle(random.sample(states, len(states)))
    slot = time.monotonic()
    while not stop.is_set():
        popular = keyspace.popular(random)
        state = popular if popular.table == reader.table and random.random() < 0.5 else next(walk)  # noqa: PLR2004
        if random.random() < EVICTED:
            await reader.evict(state)
        await reader.read(state, pause_seconds=random.random() * LONGEST_PAUSE_SECONDS)
        slot = max(slot + 1 / READS_PER_SECOND, time.monotonic() - 1.0)
        await asyncio.sleep(max(0.0, slot - time.monotonic()))


async def warm(reader: CacheReader, keyspace: Keyspace[DemoKey]) -> None:
    """Read every key once through the cache, several at a time."""
    states = iter(keyspace.of(reader.table))

    async def some() -> None:
        for state in states:
            await reader.read(state)

    async with asyncio.TaskGroup() as group:
        for n in range(WARMERS):
            group.create_task(some(), name=f"warmer-{n}")
