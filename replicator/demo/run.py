"""What runs of every mode have in common: readers and figures while the traffic runs, and the end of `--keep`."""

from __future__ import annotations

import asyncio
import shlex
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from random import SystemRandom
from typing import Any, Final, Protocol

from replicator.demo.functions import functions
from replicator.demo.items import DemoKey, Keyspace
from replicator.demo.lag import LagSampler
from replicator.demo.reader import CacheReader
from replicator.demo.resharding import Resharding
from replicator.demo.shards import ShardWatch
from replicator.demo.traffic import READERS_PER_CACHE, read_until, warm
from replicator.demo.view import Stage, Traffic, View
from replicator.demo.world import World
from replicator.laboratory.servers import ACCESS_KEY, SECRET_KEY
from replicator.settings.called_as import program

SETTLE_SECONDS: Final = 15.0
_VIEW_SECONDS = 0.25


@dataclass(frozen=True, slots=True)
class DemoOptions:
    """What the command line says."""

    duration: float = 20.0
    """Seconds of traffic."""

    rate: float = 150.0
    """Writes per second, in all regions together."""

    keep: bool = False
    """Leave everything running after the verdict, until interrupted."""

    json: bool = False
    """One JSON object as the last line of standard output; progress on standard error."""

    mode: str = "ordered"
    regions: int = 3
    shards: int | None = None
    """Of every stream at the start, in the stream laboratory; None: MiniStack's own streams, of one shard."""

    reshard: bool = False
    """Let shards split, merge and roll while traffic runs."""

    workers: int = 1

    engine: str = "pods"
    """What drives the rules: the daemon, or functions (`lambda`)."""

    source: str = "streams"
    """Where changes are read: the tables' own streams, or `kinesis`."""

    fan_out: bool = False
    """Kinesis pushes them."""

    bootstrap: bool = False
    """Mode ordered: the first items are older than the streams, and `replicator bootstrap` brings them."""

    events: bool = False
    """Mode ordered: every change goes to consumers as an event, too."""

    cache: str | None = None
    """Mode ordered: readers on a hot set, with this action for the caches; the options below are about them."""

    readers: int = 20
    plain: bool = False
    """Readers by plain look-aside, not by the library."""

    chaos: bool = False


@dataclass(slots=True)
class Interruption:
    """SIGINT and SIGTERM: they cancel the demo, or end the wait of `--keep`."""

    wanted: bool = False
    wait: asyncio.Event | None = None


class Verdict(Protocol):
    """The result of a run."""

    @property
    def exit_code(self) -> int:
        """0 only when everything is identical and enough was compared."""

    def as_json(self) -> dict[str, Any]:
        """The result as one JSON object."""

    def lines(self) -> list[str]:
        """The result for people."""


@dataclass(frozen=True, slots=True)
class Run(ABC):
    """One run of the demonstration in a world that is open."""

    options: DemoOptions
    view: View
    world: World
    readers: tuple[CacheReader, ...]
    samplers: tuple[LagSampler, ...]
    random: SystemRandom
    shards: ShardWatch | None
    """Where the streams have many."""

    @abstractmethod
    async def to_verdict(self, started: float) -> Verdict:
        """Traffic, drain, comparison. `started`: when the demo did, on the monotonic clock."""

    @asynccontextmanager
    async def busy(self, traffic: Traffic, keys: Keyspace[DemoKey]) -> AsyncIterator[None]:
        """Let readers read, samplers measure and the view show, as long as the block runs."""
        stop = asyncio.Event()
        stage = Stage(traffic, self.samplers, self.readers, self.shards)
        with self.view.live():
            async with asyncio.TaskGroup() as group:
                try:
                    for sampler in self.samplers:
                        group.create_task(sampler.run(stop), name=f"lag-{sampler.name}")
                    for reader in self.readers:
                        for n in range(READERS_PER_CACHE):
                            reading = read_until(stop, reader, keys, self.random)
                            group.create_task(reading, name=f"reader-{reader.cache.name}-{n}")
                    group.create_task(self._show(stop, stage), name="view")
                    if self.shards is not None and self.shards.resharding is not None:
                        group.create_task(self.shards.resharding.run(stop), name="resharding")
                    yield
                finally:
                    stop.set()

    @asynccontextmanager
    async def driven(self) -> AsyncIterator[None]:
        """Let functions drive the rules until the block ends, if that is asked for; else the daemon does."""
        if self.options.engine != "lambda":
            yield
            return
        async with functions(self.world, self.view) as mappings:
            yield
        for counts in (mapping.counts for mapping in mappings):
            self.view.say(f"a mapping: {counts.records} records in {counts.invocations} invocations")

    async def warm(self, keys: Keyspace[DemoKey]) -> None:
        """Read every key once through every cache."""
        async with asyncio.TaskGroup() as group:
            for reader in self.readers:
                group.create_task(warm(reader, keys), name=f"warm-{reader.cache.name}")

    async def _show(self, stop: asyncio.Event, stage: Stage) -> None:
        while not stop.is_set():
            await stage.daemon.refresh(self.world)
            if self.shards is not None:
                await self.shards.refresh(stage.daemon)
            self.view.show(stage)
            await asyncio.sleep(_VIEW_SECONDS)

    async def keep(self, interruption: Interruption) -> None:
        """Leave everything running until SIGINT or SIGTERM, and say how to look at it."""
        for line in _examples(self.world):
            self.view.console.print(line, soft_wrap=True, markup=False)
        interruption.wait = asyncio.Event()
        async with supervised(self.world):
            await interruption.wait.wait()
        self.view.say(f"stopping; the daemon's exit code: {await self.world.daemon.drain()}")


def watch_of(options: DemoOptions, world: World, random: SystemRandom) -> ShardWatch | None:
    """What watches the shards, where there are many."""
    if world.lab is None or options.shards is None:
        return None
    resharding = Resharding(world.lab, options.shards, random, options.source) if options.reshard else None
    return ShardWatch(world.lab, options.shards, options.workers, resharding, source=options.source)


@asynccontextmanager
async def supervised(world: World) -> AsyncIterator[None]:
    """Fail as soon as the daemon ends by itself."""
    async with asyncio.TaskGroup() as group:
        watcher = group.create_task(world.daemon.watch(), name="watch-daemon")
        yield
        watcher.cancel()


def _examples(world: World) -> Iterator[str]:
    config = shlex.quote(str(world.daemon.config))
    yield ""
    yield "Everything keeps running until Ctrl-C. In another terminal:"
    yield f"  export AWS_ACCESS_KEY_ID={ACCESS_KEY} AWS_SECRET_ACCESS_KEY={SECRET_KEY}"
    yield f"  {program()} status --config {config}"
    yield f'  {program()} inspect --config {config} orders \'{{"customer": "c-0001", "order": 1}}\''
    if world.layout.mode != "ordered":
        yield f"  {program()} conflicts list --config {config} --limit 10"
    if world.lab is not None:
        yield f"  {program()} leases list --config {config}"
        yield f"  curl -s {world.lab.url}/_lab/stats"
        split = '{"table": "orders", "region": "us-east-1"}'
        yield f"  curl -s {world.lab.url}/_lab/split -d '{split}'"
    yield f"  curl -s {world.daemon.admin_url}/status"
    yield f"  curl -s {world.daemon.admin_url}/metrics"
    yield f"  aws --endpoint-url {world.ministack.endpoint_url} --region eu-west-1 dynamodb scan --table-name sessions"
    for name, valkey in world.caches.items():
        yield f"  redis-cli -p {valkey.port} --scan   # {name}"
    yield f"  ls {shlex.quote(str(world.directory))}   # configuration and logs"
