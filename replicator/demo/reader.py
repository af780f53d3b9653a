"""A cache reader that counts: the scripts of the reader library, one step at a time.

Source: `docs/cache.md`. Invariant: an entry is filled only under a lease, and only from a
consistent read of the replica beside the cache; the daemon drops the lease when a newer write passes it.
"""

from __future__ import annotations

import asyncio
import enum
import secrets
from collections import Counter
from dataclasses import dataclass, field
from typing import Final

import redis.asyncio as redis_asyncio
from redis.commands.core import AsyncScript
from redis.exceptions import RedisError

from replicator.cache.scripts import FILL, LOOK
from replicator.demo.dynamodb import LocalRegion
from replicator.demo.items import DemoKey
from replicator.demo.layout import DemoCache, DemoTable
from replicator.demo.world import World
from replicator.domain.errors import Unreachable
from replicator.domain.image import unreserved
from replicator.domain.versions import UNSTAMPED

LEASE_MS: Final = 2_000
ENTRY_MS: Final = 3_600_000


class Read(enum.StrEnum):
    """What happened at the cache."""

    HIT = "hits"
    ABSENT = "known_absent"
    FILLED = "fills"
    WAITED = "waits"
    MISSING = "misses_without_item"
    OVERTAKEN = "fills_refused"
    EVICTED = "evictions"
    """Not a read: an entry that was dropped, as a cache does that is short of memory."""


@dataclass(frozen=True, slots=True)
class CacheReader:
    """Reads one table's items in one region through the cache there."""

    table: DemoTable
    cache: DemoCache
    region: LocalRegion
    client: redis_asyncio.Redis
    look: AsyncScript
    fill: AsyncScript
    counts: Counter[Read] = field(default_factory=Counter)

    def key(self, state: DemoKey) -> str:
        """The cache key of an item."""
        values = {name: value for name, typed in state.key.items() for value in typed.values()}
        return self.cache.key.format(**values)

    async def read(self, state: DemoKey, *, pause_seconds: float = 0.0) -> Read:
        """Read an item; a miss fills the cache if no other reader does.

        `pause_seconds` lies between reading the replica and filling: time in which a newer write may pass, as it may in
        an application that works on what it read.
        """
        try:
            found = await self._read(state, pause_seconds)
        except RedisError as error:
            raise self._unreachable(error) from error
        self.counts[found] += 1
        return found

    async def evict(self, state: DemoKey) -> None:
        """Drop an entry."""
        try:
            self.counts[Read.EVICTED] += await self.client.unlink(self.key(state))
        except RedisError as error:
            raise self._unreachable(error) from error

    def _unreachable(self, error: RedisError) -> Unreachable:
        return Unreachable(f"Cache {self.cache.name} did not answer a reader: {error!r}.")

    async def _read(self, state: DemoKey, pause_seconds: float) -> Read:
        key, token = self.key(state), secrets.token_hex(8)
        said, *given = await self.look(keys=[key], args=[token, LEASE_MS, 0])
        if said == b"hit":
            return Read.HIT
        if said == b"absent":
            return Read.ABSENT
        image = await self.region.get(state.table.names[self.cache.region], state.key)
        if said == b"wait":
            return Read.WAITED
        if image is None:
            return Read.MISSING  # the lease runs out by itself
        await asyncio.sleep(pause_seconds)
        version = image.stamp or UNSTAMPED
        entry = b"V:%b|%b" % (version.encode(), unreserved(image).wire)
        filled = await self.fill(keys=[key], args=[given[-1], entry, ENTRY_MS])
        return Read.FILLED if filled else Read.OVERTAKEN


def cache_readers(world: World) -> tuple[CacheReader, ...]:
    """A reader for every cache of the world; close their clients when done."""
    readers = []
    for table, cache in world.layout.used_caches():
        client = redis_asyncio.Redis.from_url(world.caches[cache.name].url, socket_timeout=10)
        look, fill = client.register_script(LOOK), client.register_script(FILL)
        readers.append(CacheReader(table, cache, world.regions[cache.region], client, look, fill))
    return tuple(readers)
