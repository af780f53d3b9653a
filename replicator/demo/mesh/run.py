"""A run of a mesh: writers, readers and a cache in every region, until all of them are silent and alike."""

from __future__ import annotations

import time
from dataclasses import dataclass
from random import SystemRandom
from typing import Final, Self

from replicator.demo.items import Keyspace
from replicator.demo.lag import LagSampler
from replicator.demo.mesh.compare import alike, compare_mesh
from replicator.demo.mesh.echo import QUIET_SECONDS, Streams
from replicator.demo.mesh.keys import MeshKey, mesh_keyspace
from replicator.demo.mesh.report import MeshReport, Records
from replicator.demo.mesh.traffic import MeshWriters
from replicator.demo.reader import CacheReader
from replicator.demo.run import SETTLE_SECONDS, DemoOptions, Run, supervised, watch_of
from replicator.demo.view import View, outcome
from replicator.demo.world import World

ALIKE_SECONDS: Final = 180.0
SILENT_SECONDS: Final = 180.0
_PAUSE_SECONDS = 1.0
LAG_POLL_SECONDS: Final = 0.05
"""Of each region's sampler: there are more of them than in mode `ordered`."""


@dataclass(frozen=True, slots=True)
class MeshRun(Run):
    """One run of mode `versioned` or `active-active`."""

    keys: Keyspace[MeshKey]
    writers: MeshWriters

    @classmethod
    def of(cls, options: DemoOptions, view: View, world: World, readers: tuple[CacheReader, ...]) -> Self:
        """Compose a run."""
        random = SystemRandom()
        keys = mesh_keyspace(world.layout, random)
        samplers = {
            name: LagSampler(
                name, region, world.tables, [other for other in world.regions if other != name], LAG_POLL_SECONDS
            )
            for name, region in world.regions.items()
        }
        writers = MeshWriters(world, keys, random, samplers)
        shards = watch_of(options, world, random)
        return cls(options, view, world, readers, tuple(samplers.values()), random, shards, keys, writers)

    async def to_verdict(self, started: float) -> MeshReport:
        """Traffic, silence, comparison."""
        world, view, writers = self.world, self.view, self.writers
        await world.create_tables()
        seeded = await writers.seed()
        view.say(f"wrote {seeded} items, some of them in two regions; now `replicator init` and `replicator run`")
        await world.start_daemon(by_functions=self.options.engine == "lambda")
        view.say("the daemon is ready")
        streams = Streams.of(world)
        async with supervised(world), self.driven():
            is_so = await streams.wait_for_silence(lambda: alike(world), _PAUSE_SECONDS, ALIKE_SECONDS)
            regions = f"the {len(world.regions)} regions"
            standing = outcome(
                f"{regions} hold the same items", f"{regions} still differ", is_so=is_so, seconds=ALIKE_SECONDS
            )
            view.say(f"{standing}; now readers and writers begin in every region")
            silent_seconds = await self._traffic(streams)
            silent = silent_seconds is not None
            total = await streams.count()
            view.say("silence; comparing" if silent else "no silence in time; comparing")
            findings = await compare_mesh(world, self.keys, self.readers)
            if self.shards is not None:
                await self.shards.all_given(SETTLE_SECONDS)
        daemon_exit = None
        if not self.options.keep:
            daemon_exit = await world.daemon.drain()
            findings = await compare_mesh(world, self.keys, self.readers)
        if self.shards is not None:
            await self.shards.finish()
        return MeshReport(
            mode=self.options.mode,
            regions=tuple(world.regions),
            rate=self.options.rate,
            seconds=time.monotonic() - started,
            seeded=seeded,
            writers=writers,
            readers=self.readers,
            findings=findings,
            records=Records(total, seeded + writers.writes, await streams.count() - total),
            silent_seconds=silent_seconds,
            daemon_exit=daemon_exit,
            shards=self.shards,
        )

    async def _traffic(self, streams: Streams) -> float | None:
        """Writers and readers, until all writes have ceased; returns how long that took, None: too long."""
        view, writers, keys, world = self.view, self.writers, self.keys, self.world
        await self.warm(keys)
        async with self.busy(writers, keys):
            await writers.run(self.options.rate, self.options.duration)
            view.say(f"{writers.writes} writes done, {writers.clashes} clashes; waiting for silence")
            ended = time.monotonic()
            await self.warm(keys)
            silent = await streams.wait_for_silence(lambda: alike(world), QUIET_SECONDS, SILENT_SECONDS)
            return time.monotonic() - ended if silent else None
