"""Readers on a hot set: through the reader library, or by plain look-aside, which is what most applications do.

Both read the table consistently, take their time before they store, and find an entry evicted now and then. What they
got is compared with what the table had shown (`truth`).
"""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any, Final, Protocol

from redis.exceptions import RedisError

from replicator.cache import CacheAside, Source, dynamodb_loader
from replicator.demo.caches.truth import Shown, Staleness
from replicator.demo.dynamodb import LocalRegion, Typed
from replicator.demo.items import COUNTER, DemoKey, Keyspace, KeyState
from replicator.demo.layout import DemoCache, DemoTable
from replicator.domain.copying.entries import as_read

READS_PER_SECOND: Final = 20.0
"""Of one reader."""

LONGEST_PAUSE_SECONDS: Final = 0.3
EVICTED: Final = 0.02
ENTRY_SECONDS: Final = 3600
"""No entry runs out while the demo lasts, so what stays stale stays so for good."""


class Reader(Protocol):
    """One way to read."""

    @property
    def counts(self) -> Counter[str]:
        """Reads by where their values came from."""

    async def read(self, values: dict[str, Any]) -> dict[str, Any] | None:
        """The item with this key as plain values, or None."""


@dataclass(slots=True)
class Table:
    """The table beside a cache, as a client of boto3's shape; an answer takes a while to be worked on."""

    region: LocalRegion
    random: Random

    async def get_item(self, **request: Any) -> dict[str, Any]:
        """One consistent read."""
        image = await self.region.get(request["TableName"], request["Key"])
        await asyncio.sleep(self.random.random() * LONGEST_PAUSE_SECONDS)
        return {} if image is None else {"Item": image.attributes}


class LibraryReader:
    """Reads by `replicator.cache`."""

    def __init__(self, client: Any, cache: DemoCache, load: Any) -> None:
        self._cache = CacheAside(client, key=cache.key, load=load, ttl=ENTRY_SECONDS, wait=0.2)

    @property
    def counts(self) -> Counter[str]:
        """Reads by where their values came from."""
        return Counter({source.value: count for source, count in self._cache.counts.items()})

    async def read(self, values: dict[str, Any]) -> dict[str, Any] | None:
        """The item with this key, or None."""
        found: dict[str, Any] | None = await self._cache.get(**values)
        return found


class PlainReader:
    """GET; on a miss read the table, and SET."""

    def __init__(self, client: Any, cache: DemoCache, load: Any) -> None:
        self._client = client
        self._key = cache.key
        self._load = load
        self.counts: Counter[str] = Counter()

    async def read(self, values: dict[str, Any]) -> dict[str, Any] | None:
        """The item with this key, or None."""
        key, codec = self._key.format(**values), self._load.codec
        try:
            entry = await self._client.get(key)
        except (RedisError, OSError):
            entry = None
        if entry is not None:
            self.counts[Source.HIT] += 1
            payload = payload_of(entry)
            return None if payload is None else codec.decode(payload)
        loaded = await self._load(**values)
        if loaded is None:
            self.counts[Source.MISSING] += 1
            return None
        self.counts[Source.FILLED] += 1
        try:
            await self._client.set(key, loaded.payload, ex=ENTRY_SECONDS)
        except (RedisError, OSError):
            self.counts[Source.DOWN] += 1
        return codec.decode(loaded.payload)  # type: ignore[no-any-return]


@dataclass(slots=True)
class Crowd:
    """All readers of one cache."""

    table: DemoTable
    cache: DemoCache
    region: LocalRegion
    client: Any
    shown: Shown = field(default_factory=Shown)
    staleness: Staleness = field(default_factory=Staleness)
    readers: list[Reader] = field(default_factory=list)
    evictions: int = 0

    def join(self, count: int, random: Random, *, plain: bool) -> None:
        """Add readers."""
        load = dynamodb_loader(self.table.names[self.cache.region], Table(self.region, random))
        kind = PlainReader if plain else LibraryReader
        self.readers += [kind(self.client, self.cache, load) for _ in range(count)]

    @property
    def counts(self) -> Counter[str]:
        """Reads of all of them, by where their values came from."""
        return sum((reader.counts for reader in self.readers), Counter())

    async def read_until(self, stop: asyncio.Event, reader: Reader, keys: Keyspace[KeyState], random: Random) -> None:
        """Let one reader read, popular keys more often."""
        slot = time.monotonic() + random.random() / READS_PER_SECOND
        while not stop.is_set():
            await asyncio.sleep(max(0.0, slot - time.monotonic()))
            slot = max(slot + 1 / READS_PER_SECOND, time.monotonic() - 1.0)
            state = keys.popular(random)
            if random.random() < EVICTED:
                await self._evict(state)
            began = time.monotonic()
            item = await reader.read(plain_key(state))
            number = None if item is None else int(item[COUNTER])
            self.staleness.take(self.shown.stale_for(state, number, began))

    async def read_all(self, keys: Keyspace[KeyState]) -> None:
        """Let every reader read a part of the keys, so that most of them have an entry."""

        async def some(reader: Reader, states: Sequence[KeyState]) -> None:
            for state in states:
                await reader.read(plain_key(state))

        async with asyncio.TaskGroup() as group:
            for n, reader in enumerate(self.readers):
                group.create_task(some(reader, keys.keys[n :: len(self.readers)]), name=f"last-{self.cache.name}-{n}")

    async def _evict(self, state: DemoKey) -> None:
        try:
            self.evictions += await self.client.unlink(self.cache.key.format(**plain_key(state)))
        except (RedisError, OSError):
            return

    async def watch_until(self, stop: asyncio.Event, keys: Keyspace[KeyState], pause_seconds: float) -> None:
        """See which writes the table shows."""
        name = self.table.names[self.cache.region]
        parts = [part for part, _ in self.table.key]
        by_key = {_identity(state.key, parts): state for state in keys.keys}
        wanted = [state.key for state in keys.keys]
        while not stop.is_set():
            answer = await self.region.get_some({name: wanted}, [*parts, COUNTER])
            now = time.monotonic()
            found = {_identity(item, parts): int(item[COUNTER]["N"]) for item in answer.get(name, ())}
            for identity, state in by_key.items():
                self.shown.saw(state, found.get(identity), now)
            await asyncio.sleep(pause_seconds)


def payload_of(entry: bytes) -> bytes | None:
    """What an entry holds of an item, whether the daemon, the library or a plain reader stored it; None of a marker."""
    entry = as_read(entry)
    if entry.startswith(b"V:"):
        return entry.partition(b"|")[2]
    return None if entry.startswith((b"T:", b"L:")) else entry


def plain_key(state: DemoKey) -> dict[str, Any]:
    """The key of an item as a reader names it."""
    return {name: typed["S"] if "S" in typed else int(typed["N"]) for name, typed in state.key.items()}


def _identity(item: Typed, parts: list[str]) -> str:
    return json.dumps([item[part] for part in parts])
