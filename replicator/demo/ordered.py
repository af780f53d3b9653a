"""A run of mode `ordered`: writers in one region, replicas and their caches in the others."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from random import SystemRandom
from typing import Final, Self

from replicator.demo.compare import compare, wait_until_caught_up, wait_until_settled
from replicator.demo.items import Keyspace, KeyState, keyspace
from replicator.demo.lag import LagSampler
from replicator.demo.layout import SOURCE
from replicator.demo.reader import CacheReader
from replicator.demo.report import Report
from replicator.demo.run import SETTLE_SECONDS, DemoOptions, Run, supervised, watch_of
from replicator.demo.traffic import Writers
from replicator.demo.view import View, outcome
from replicator.demo.world import World

CATCH_UP_SECONDS: Final = 120.0
_WRITING_SECONDS: Final = 10.0
"""So long writers write beside a bootstrap."""


@dataclass(frozen=True, slots=True)
class OrderedRun(Run):
    """One run of mode `ordered`."""

    keys: Keyspace[KeyState]
    writers: Writers

    @classmethod
    def of(cls, options: DemoOptions, view: View, world: World, readers: tuple[CacheReader, ...]) -> Self:
        """Compose a run."""
        random = SystemRandom()
        keys = keyspace(random)
        samplers = tuple(
            LagSampler(name, region, world.tables, [SOURCE]) for name, region in world.regions.items() if name != SOURCE
        )
        writers = Writers(world, keys, random, samplers)
        shards = watch_of(options, world, random)
        return cls(options, view, world, readers, samplers, random, shards, keys, writers)

    async def to_verdict(self, started: float) -> Report:
        """Traffic, drain, comparison."""
        world, view = self.world, self.view
        await world.create_tables(streams=not self.options.bootstrap)
        seeded = await self.writers.seed()
        if self.options.bootstrap:
            await world.enable_streams()
        view.say(f"wrote {seeded} items; now `replicator init` and `replicator run`")
        await world.start_daemon(by_functions=self.options.engine == "lambda")
        view.say("the daemon is ready")
        async with supervised(world), self.driven():
            caught_up = await self._traffic()
            view.say("comparing")
            findings = await wait_until_settled(world, self.keys, self.readers, SETTLE_SECONDS)
            if self.shards is not None:
                await self.shards.all_given(SETTLE_SECONDS)
        daemon_exit = None
        if not self.options.keep:
            daemon_exit = await world.daemon.drain()
            findings = await compare(world, self.keys, self.readers)
        if self.shards is not None:
            await self.shards.finish()
        return Report(
            rate=self.options.rate,
            seconds=time.monotonic() - started,
            seeded=seeded,
            writers=self.writers,
            samplers=self.samplers,
            readers=self.readers,
            findings=findings,
            caught_up=caught_up,
            daemon_exit=daemon_exit,
            shards=self.shards,
            events=world.events,
        )

    async def _traffic(self) -> bool:
        """Writers and readers, until all is written and applied; whether it was applied in time."""
        options, view, world, keys = self.options, self.view, self.world, self.keys
        if options.bootstrap:
            async with self.busy(self.writers, keys):
                await self._bootstrap()
        is_so = await wait_until_caught_up(world, keys, CATCH_UP_SECONDS)
        standing = outcome(
            "the replicas show all of them", "the replicas lack some of them", is_so=is_so, seconds=CATCH_UP_SECONDS
        )
        view.say(f"{standing}; now readers fill the caches and writers write")
        await self.warm(keys)
        async with self.busy(self.writers, keys):
            async with asyncio.TaskGroup() as group:
                if world.events is not None:
                    group.create_task(world.events.refuse_for_a_while(options.duration), name="refusing")
                await self.writers.run(options.rate, options.duration)
            view.say(f"{self.writers.writes} writes done; draining")
            await self.warm(keys)
            caught_up = await wait_until_caught_up(world, keys, CATCH_UP_SECONDS)
            if world.events is not None:
                view.say("the consumers of events take what is left")
                await world.events.wait(world.regions[SOURCE], world.caches["eu_cache"].url, CATCH_UP_SECONDS)
            return caught_up

    async def _bootstrap(self) -> None:
        """Bring what no stream shows, while writers write."""
        self.view.say("no stream shows them: `replicator bootstrap` brings them while writers write")
        async with asyncio.TaskGroup() as group:
            group.create_task(self.world.bootstrap(), name="bootstrap")
            await self.writers.run(self.options.rate / 2, min(self.options.duration, _WRITING_SECONDS))
        self.view.say("every bootstrap ended with a comparison that found no difference")
