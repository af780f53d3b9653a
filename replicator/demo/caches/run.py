"""A run of the demonstration of caches: writers and readers on a hot set, failures, and a last look at every entry."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from dataclasses import dataclass
from random import SystemRandom
from typing import Final, Self

from replicator.demo.cache_servers import ALONE, REPLACEABLE
from replicator.demo.caches.chaos import Chaos
from replicator.demo.caches.readers import Crowd, payload_of, plain_key
from replicator.demo.caches.report import CacheReport
from replicator.demo.caches.truth import HORIZONS
from replicator.demo.compare import Difference, compare, items_of, wait_until_caught_up
from replicator.demo.items import Keyspace, KeyState, hot_keyspace
from replicator.demo.ordered import CATCH_UP_SECONDS
from replicator.demo.reader import CacheReader
from replicator.demo.run import SETTLE_SECONDS, DemoOptions, Run
from replicator.demo.traffic import Writers
from replicator.demo.view import LINE_SECONDS, View
from replicator.demo.world import World
from replicator.domain.copying.entries import as_read
from replicator.domain.errors import MalformedRecord
from replicator.domain.image import Image, canonical

HOT_KEYS: Final = 80
_WRITERS = 5
_WATCH_SECONDS = 0.1
_AFTER_SECONDS = 5.0
"""So long behind the last write readers go on."""


@dataclass(frozen=True, slots=True)
class CacheRun(Run):
    """One run."""

    keys: Keyspace[KeyState]
    writers: Writers
    crowds: tuple[Crowd, ...]

    @classmethod
    def of(cls, options: DemoOptions, view: View, world: World, readers: tuple[CacheReader, ...]) -> Self:
        """Compose a run."""
        random = SystemRandom()
        (table,) = world.tables
        keys = hot_keyspace(table, HOT_KEYS, random)
        servers = world.cache_servers
        assert servers is not None, "the world is opened with them"
        clients = {ALONE: servers.alone.client(), REPLACEABLE: servers.replaceable.client()}
        crowds = tuple(
            Crowd(table, cache, world.regions[cache.region], clients[cache.name])
            for _, cache in world.layout.used_caches()
        )
        for place, crowd in enumerate(crowds):
            crowd.join(len(range(place, options.readers, len(crowds))), random, plain=options.plain)
        writers = Writers(world, keys, random, (), writers=_WRITERS)
        return cls(options, view, world, readers, (), random, None, keys, writers, crowds)

    async def to_verdict(self, started: float) -> CacheReport:
        """Traffic, drain, and a look at what stays."""
        world, view, options = self.world, self.view, self.options
        await world.create_tables()
        seeded = await self.writers.seed()
        view.say(f"wrote {seeded} items; now `replicator init` and `replicator run`")
        await world.start_daemon()
        view.say("the daemon is ready")
        caught_up = await wait_until_caught_up(world, self.keys, CATCH_UP_SECONDS)
        chaos = await self._traffic() if caught_up else None
        caught_up = caught_up and await wait_until_caught_up(world, self.keys, CATCH_UP_SECONDS)
        if not caught_up:
            view.say(f"the replicas lack some changes after {CATCH_UP_SECONDS:.0f} s")
        view.say("looking at every entry")
        stale, entries = await self._wait_until_settled()
        daemon_exit = None
        if not options.keep:
            daemon_exit = await world.daemon.drain()
            stale, entries = await self._stale()
        tables = await compare(world, self.keys, ())
        for crowd in self.crowds:
            await crowd.client.aclose()
        return CacheReport(
            action=self.crowds[0].cache.action,
            plain=options.plain,
            seconds=time.monotonic() - started,
            duration=options.duration,
            writers=self.writers,
            crowds=self.crowds,
            tables=tables,
            entries=entries,
            stale=stale,
            keys=len(self.keys.keys),
            caught_up=caught_up,
            failures=chaos.happened if chaos is not None else [],
            failed_as_meant=not options.chaos or (chaos is not None and chaos.complete),
            daemon_exit=daemon_exit,
        )

    async def _traffic(self) -> Chaos:
        """Writers, readers and failures; readers go on for a while behind the last write."""
        options, view = self.options, self.view
        first, second = self.crowds
        chaos = Chaos(self.world, view, self.keys, first, second)
        stop = asyncio.Event()
        async with asyncio.TaskGroup() as group:
            for crowd in self.crowds:
                group.create_task(crowd.watch_until(stop, self.keys, _WATCH_SECONDS), name=f"watch-{crowd.cache.name}")
                for n, reader in enumerate(crowd.readers):
                    reading = crowd.read_until(stop, reader, self.keys, self.random)
                    group.create_task(reading, name=f"reader-{crowd.cache.name}-{n}")
            group.create_task(self._tell(stop), name="view")
            async with asyncio.TaskGroup() as work:
                if options.chaos:
                    work.create_task(chaos.run(options.duration), name="chaos")
                work.create_task(self._write(chaos), name="writers")
            view.say(f"{self.writers.writes} writes done; draining")
            await wait_until_caught_up(self.world, self.keys, CATCH_UP_SECONDS)
            await asyncio.sleep(_AFTER_SECONDS)
            for crowd in self.crowds:
                await crowd.read_all(self.keys)
            stop.set()
        return chaos

    async def _write(self, chaos: Chaos) -> None:
        """Write for as long as was asked, and until every failure happened."""
        await self.writers.run(self.options.rate, self.options.duration)
        while self.options.chaos and not chaos.over:
            await self.writers.run(self.options.rate, 1.0)

    async def _tell(self, stop: asyncio.Event) -> None:
        while not stop.is_set():
            reads = sum(crowd.staleness.reads for crowd in self.crowds)
            stale = sum(crowd.staleness.beyond[HORIZONS[0]] for crowd in self.crowds)
            self.view.say(
                f"{self.writers.writes} writes | {reads} reads, {stale} stale by more than {HORIZONS[0]:.0f} s"
            )
            with suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), LINE_SECONDS)

    async def _wait_until_settled(self) -> tuple[list[Difference], dict[str, int]]:
        """Look until nothing is stale or the time is over: what a cache is owed is settled moments after its return."""
        end = time.monotonic() + SETTLE_SECONDS
        while True:
            stale, entries = await self._stale()
            if not stale or time.monotonic() > end:
                return stale, entries
            await asyncio.sleep(_WATCH_SECONDS)

    async def _stale(self) -> tuple[list[Difference], dict[str, int]]:
        """The entries that are not what the table beside them holds, and how many there are in each cache."""
        stale: list[Difference] = []
        counts: dict[str, int] = {}
        for crowd in self.crowds:
            items = await items_of(self.world, crowd.table, crowd.cache.region)
            names = [crowd.cache.key.format(**plain_key(state)) for state in self.keys.keys]
            found = await crowd.client.mget(names)
            counts[crowd.cache.name] = 0
            for state, name, entry in zip(self.keys.keys, names, found, strict=True):
                if entry is None or (as_read(entry)).startswith(b"L:"):
                    continue
                counts[crowd.cache.name] += 1
                if not _is_current(payload_of(entry), items.get(state.shown)):
                    stale.append(Difference(crowd.cache.name, name, "is stale"))
        return stale, counts


def _is_current(payload: bytes | None, item: Image | None) -> bool:
    if payload is None or item is None:
        return payload is None and item is None
    try:
        return canonical(Image(payload)) == canonical(item)
    except MalformedRecord:
        return False
