"""Writers in every region, on keys that they share: often two regions write one key within a second.

Invariant: the writes of one region to one key follow each other, so their order is known; writes of several regions do
not wait for each other. A write that fails ends the demo, because its effect would be unknown.
"""

from __future__ import annotations

import asyncio
import enum
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from random import Random
from typing import Final

from replicator.demo.dynamodb import Typed
from replicator.demo.items import COUNTER, Keyspace, attributes, marks, milliseconds, new_item
from replicator.demo.lag import LagSampler
from replicator.demo.layout import VERSION
from replicator.demo.mesh.keys import (
    MeshKey,
    Write,
    content_of,
    content_of_item,
    is_marked,
    number_of,
    version_of,
)
from replicator.demo.traffic import on_schedule
from replicator.demo.world import World
from replicator.domain.image import Image

WRITERS: Final = 24
OVERWROTE: Final = "overwrote"
"""An update leaves the number of the write whose image it changed here, as only the server knows it."""

CLASHES: Final = 0.25
"""Share of turns in which several regions write one key within `CLASH_SECONDS`."""

CLASH_SECONDS: Final = 0.4

_SEEDED = 0.95
_SEEDED_TWICE = 0.1
_POPULAR = 0.6
_DELETES = 0.2
_PUTS = 0.35
_FORGETS = 0.03
_REPEATS = 0.04
_FALLS = 0.04
_RESTARTS = 0.2


class Raise(enum.Enum):
    """What an application does with the version of its next write."""

    PROPERLY = "raises"
    REPEATED = "versions_repeated"
    LOWERED = "versions_lowered"
    FORGOTTEN = "versions_forgotten"
    RESTARTED = "versions_restarted"
    """A new item begins at 1, whatever was deleted."""


@dataclass(slots=True)
class MeshWriters:
    """All writers of all regions, on one schedule of writes."""

    world: World
    keyspace: Keyspace[MeshKey]
    random: Random
    samplers: Mapping[str, LagSampler]
    """By the region that they watch."""

    counts: Counter[str] = field(default_factory=Counter)
    by_region: Counter[str] = field(default_factory=Counter)
    clashes: int = 0
    """Turns in which several regions wrote one key within `CLASH_SECONDS`."""

    versions: Counter[str] = field(default_factory=Counter)
    """Mode `versioned`: what applications should not do, and did."""

    seconds: float = 0.0

    @property
    def writes(self) -> int:
        """Acknowledged writes that changed something, without the seed."""
        return self.counts.total()

    async def seed(self) -> int:
        """Write a first item for most keys, in batches, and for some a second one elsewhere; returns how many."""
        seeds: dict[tuple[str, str], list[tuple[MeshKey, Typed]]] = {}
        for key in self.keyspace.keys:
            if self.random.random() >= _SEEDED:
                continue
            count = 2 if key.shared and self.random.random() < _SEEDED_TWICE else 1
            for region in self.random.sample(key.writers, count):
                item = new_item(key, key.next_number(), self.random) | self._first_version()
                seeds.setdefault((region, key.table.names[region]), []).append((key, item))
        for (region, table), some in seeds.items():
            started_ms = milliseconds()
            await self.world.regions[region].put_all(table, [item for _, item in some])
            acknowledged_ms = milliseconds()
            for key, item in some:
                version = 1 if self._versioned else None
                number = int(item[COUNTER]["N"])
                key.history.append(
                    Write(number, region, content_of_item(item), 0, version, started_ms, acknowledged_ms)
                )
                key.highest[region] = 1
        return sum(len(some) for some in seeds.values())

    async def run(self, rate: float, duration: float) -> None:
        """Write at `rate` per second in all regions together; slower when the service cannot keep up."""
        self.seconds = await on_schedule(rate, duration, WRITERS, self.turn)

    async def turn(self) -> int:
        """One write, or a clash of several; returns how many writes that were."""
        popular = self.random.random() < _POPULAR
        key = self.keyspace.popular(self.random) if popular else self.random.choice(self.keyspace.keys)
        if not key.shared or self.random.random() >= CLASHES:
            await self.write(key, self.random.choice(key.writers))
            return 1
        regions = self.random.sample(key.writers, self.random.randint(2, min(3, len(key.writers))))
        self.clashes += 1
        async with asyncio.TaskGroup() as group:
            for region in regions:
                group.create_task(self._later(key, region))
        return len(regions)

    async def _later(self, key: MeshKey, region: str) -> None:
        await asyncio.sleep(self.random.random() * CLASH_SECONDS)
        await self.write(key, region)

    async def write(self, key: MeshKey, region: str) -> None:
        """One write to this key in this region: a put, an update or a delete."""
        async with key.locks[region]:
            chance = self.random.random()
            if chance < _DELETES:
                write, kind = await self._delete(key, region)
            elif chance < _DELETES + _PUTS:
                write, kind = await self._put(key, region)
            else:
                write, kind = await self._update(key, region)
            if write is None:  # it deleted nothing
                return
            key.history.append(write)
            if write.version is not None and write.content is not None:
                key.highest[region] = max(key.highest.get(region, 0), write.version)
        self.counts[kind] += 1
        self.by_region[region] += 1
        if not key.shared and write.content is not None and write in key.survivors(self.world.layout.mode):
            for watching, sampler in self.samplers.items():
                if watching != region:
                    sampler.offer(key, write.number, write.started_ms, region)

    async def _delete(self, key: MeshKey, region: str) -> tuple[Write | None, str]:
        number, started_ms = key.next_number(), milliseconds()
        deleted = await self.world.regions[region].delete(key.table.names[region], key.key)
        if deleted is None:
            return None, ""
        over, marked = number_of(deleted), is_marked(deleted)
        write = Write(number, region, None, over, version_of(deleted), started_ms, milliseconds(), marked)
        return write, "deletes"

    async def _put(self, key: MeshKey, region: str) -> tuple[Write, str]:
        version = await self._next_version(key, region, forgetful=True)
        number, started_ms = key.next_number(), milliseconds()
        item = new_item(key, number, self.random) | version
        replaced = await self.world.regions[region].put(key.table.names[region], item)
        left = content_of_item(item)
        write = Write(number, region, left, number_of(replaced), _number(version), started_ms, milliseconds())
        return write, "replaces" if replaced else "creates"

    async def _update(self, key: MeshKey, region: str) -> tuple[Write, str]:
        version = await self._next_version(key, region, forgetful=False)
        number, started_ms = key.next_number(), milliseconds()
        values = attributes(self.random)
        changed = self.random.sample(sorted(values), 3)
        gone = changed.pop()
        setting = {name: values[name] for name in changed} | marks(number) | version
        left = await self.world.regions[region].update(
            key.table.names[region], key.key, setting, [gone], {OVERWROTE: COUNTER}
        )
        over = int(left.attributes[OVERWROTE]["N"])
        write = Write(number, region, content_of(left), over, version_of(left), started_ms, milliseconds())
        return write, "updates" if over else "creates by update"

    # -- versions, as an application raises them -------------------------------------------------------------------

    @property
    def _versioned(self) -> bool:
        return self.world.layout.mode == "versioned"

    def _first_version(self) -> Typed:
        return {VERSION: {"N": "1"}} if self._versioned else {}

    async def _next_version(self, key: MeshKey, region: str, *, forgetful: bool) -> Typed:
        """Read the item and go one above its version; now and then do what an application should not."""
        if not self._versioned:
            return {}
        standing = await self.world.regions[region].get(key.table.names[region], key.key)
        raising = self._raising(standing, forgetful=forgetful)
        if raising is not Raise.PROPERLY:
            self.versions[raising.value] += 1
        known = max(key.highest.get(region, 0), (version_of(standing) if standing else None) or 0)
        match raising:
            case Raise.FORGOTTEN:
                return {}
            case Raise.RESTARTED:
                return {VERSION: {"N": "1"}}
            case Raise.REPEATED:
                return {VERSION: {"N": str(known)}}
            case Raise.LOWERED:
                return {VERSION: {"N": str(known - 2)}}
            case Raise.PROPERLY:
                return {VERSION: {"N": str(known + 1)}}

    def _raising(self, standing: Image | None, *, forgetful: bool) -> Raise:
        if standing is None:
            return Raise.RESTARTED if self.random.random() < _RESTARTS else Raise.PROPERLY
        faults = {Raise.REPEATED: _REPEATS, Raise.LOWERED: _FALLS} | ({Raise.FORGOTTEN: _FORGETS} if forgetful else {})
        chance = self.random.random()
        for raising, share in faults.items():
            if chance < share:
                return raising
            chance -= share
        return Raise.PROPERLY


def _number(version: Typed) -> int | None:
    return int(version[VERSION]["N"]) if version else None
