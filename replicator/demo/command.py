"""The demonstration from start to verdict.

Invariant: the verdict is reached on what stands in tables and caches after the daemon stopped (with `--keep`: after it
fell idle), and is `identical` only when enough was compared.
"""

from __future__ import annotations

import asyncio
import shlex
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from random import SystemRandom
from typing import Final

import msgspec

from replicator.demo.compare import compare, wait_until_caught_up, wait_until_settled
from replicator.demo.items import Keyspace, keyspace
from replicator.demo.lag import LagSampler
from replicator.demo.reader import CacheReader, cache_readers
from replicator.demo.report import Report
from replicator.demo.servers import ACCESS_KEY, REQUIRED, SECRET_KEY, ServerFailed, require_servers
from replicator.demo.traffic import READERS_PER_CACHE, Writers, read_until, warm
from replicator.demo.view import Stage, View
from replicator.demo.world import SOURCE, World, open_world
from replicator.domain.errors import EXIT_FAULT, ReplicatorError

CATCH_UP_SECONDS: Final = 30.0
SETTLE_SECONDS: Final = 5.0
_VIEW_SECONDS = 0.25


@dataclass(frozen=True, slots=True)
class DemoOptions:
    """What the command line says."""

    duration: float = 20.0
    """Seconds of traffic."""

    rate: float = 150.0
    """Writes per second."""

    keep: bool = False
    """Leave everything running after the verdict, until interrupted."""

    json: bool = False
    """One JSON object as the last line of standard output; progress on standard error."""


async def demo(options: DemoOptions) -> int:
    """Run the demonstration; returns the exit code: 0 only when everything is identical and enough was compared."""
    require_servers()
    view = View(json=options.json)
    interruption = Interruption()
    try:
        with _interruptible(interruption), _directory(view) as directory:
            return await _demo(options, view, directory, interruption)
    except (asyncio.CancelledError, ReplicatorError, BaseExceptionGroup) as error:
        if not interruption.wanted:
            raise _first(error) from error
        view.say("interrupted")
        return EXIT_FAULT


@dataclass(slots=True)
class Interruption:
    """SIGINT and SIGTERM: they cancel the demo, or end the wait of `--keep`."""

    wanted: bool = False
    wait: asyncio.Event | None = None


async def _demo(options: DemoOptions, view: View, directory: Path, interruption: Interruption) -> int:
    started = time.monotonic()
    versions = ", ".join(f"{package} {version}" for package, version in REQUIRED.items())
    view.say(f"starting {versions}")
    async with open_world(directory) as world, _readers(world) as readers:
        _say_where(view, world)
        random = SystemRandom()
        keys = keyspace(random)
        samplers = tuple(
            LagSampler(name, region, world.tables) for name, region in world.regions.items() if name != SOURCE
        )
        writers = Writers(world, keys, random, samplers)
        run = Run(options, view, world, keys, writers, samplers, readers)
        report = await run.to_verdict(started)
        for line in report.lines():
            view.console.print(line, soft_wrap=True, markup=False)
        if options.json:
            sys.stdout.write(msgspec.json.encode(report.as_json()).decode() + "\n")
            sys.stdout.flush()
        if options.keep:
            await run.keep(interruption)
        return report.exit_code


@dataclass(frozen=True, slots=True)
class Run:
    """One run of the demonstration in a world that is open."""

    options: DemoOptions
    view: View
    world: World
    keys: Keyspace
    writers: Writers
    samplers: tuple[LagSampler, ...]
    readers: tuple[CacheReader, ...]

    async def to_verdict(self, started: float) -> Report:
        """Traffic, drain, comparison."""
        world, view = self.world, self.view
        await world.create_tables()
        seeded = await self.writers.seed()
        view.say(f"wrote {seeded} items; now `replicator init` and `replicator run`")
        await world.start_daemon()
        view.say("the daemon is ready")
        async with _supervised(world):
            caught_up = await self._traffic()
            view.say("comparing")
            findings = await wait_until_settled(world, self.keys, self.readers, SETTLE_SECONDS)
        daemon_exit = None
        if not self.options.keep:
            daemon_exit = await world.daemon.drain()
            findings = await compare(world, self.keys, self.readers)
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
        )

    async def _traffic(self) -> bool:
        """Writers and readers, until all is written and applied; whether it was applied in time."""
        options, view, world, keys = self.options, self.view, self.world, self.keys
        await wait_until_caught_up(world, keys, CATCH_UP_SECONDS)
        view.say("the replicas show all of them; now readers fill the caches and writers write")
        await self._warm()
        stop = asyncio.Event()
        stage = Stage(self.writers, self.samplers, self.readers)
        with view.live():
            async with asyncio.TaskGroup() as group:
                try:
                    for sampler in self.samplers:
                        group.create_task(sampler.run(stop), name=f"lag-{sampler.name}")
                    for reader in self.readers:
                        for n in range(READERS_PER_CACHE):
                            reading = read_until(stop, reader, keys, self.writers.random)
                            group.create_task(reading, name=f"reader-{reader.cache.name}-{n}")
                    group.create_task(self._show(stop, stage), name="view")
                    await self.writers.run(options.rate, options.duration)
                    view.say(f"{self.writers.writes} writes done; draining")
                    await self._warm()
                    caught_up = await wait_until_caught_up(world, keys, CATCH_UP_SECONDS)
                finally:
                    stop.set()
        return caught_up

    async def _warm(self) -> None:
        async with asyncio.TaskGroup() as group:
            for reader in self.readers:
                group.create_task(warm(reader, self.keys), name=f"warm-{reader.cache.name}")

    async def _show(self, stop: asyncio.Event, stage: Stage) -> None:
        while not stop.is_set():
            await stage.daemon.refresh(self.world)
            self.view.show(stage)
            await asyncio.sleep(_VIEW_SECONDS)

    async def keep(self, interruption: Interruption) -> None:
        """Leave everything running until SIGINT or SIGTERM, and say how to look at it."""
        for line in _examples(self.world):
            self.view.console.print(line, soft_wrap=True, markup=False)
        interruption.wait = asyncio.Event()
        async with _supervised(self.world):
            await interruption.wait.wait()
        self.view.say(f"stopping; the daemon's exit code: {await self.world.daemon.drain()}")


def _say_where(view: View, world: World) -> None:
    caches = ", ".join(f"{name} {valkey.url}" for name, valkey in world.caches.items())
    view.say(f"DynamoDB of three regions at {world.ministack.endpoint_url}; {caches}")


def _examples(world: World) -> Iterator[str]:
    config = shlex.quote(str(world.daemon.config))
    yield ""
    yield "Everything keeps running until Ctrl-C. In another terminal:"
    yield f"  export AWS_ACCESS_KEY_ID={ACCESS_KEY} AWS_SECRET_ACCESS_KEY={SECRET_KEY}"
    yield f"  replicator status --config {config}"
    yield f'  replicator inspect --config {config} orders \'{{"customer": "c-0001", "order": 1}}\''
    yield f"  curl -s {world.daemon.admin_url}/status"
    yield f"  curl -s {world.daemon.admin_url}/metrics"
    yield f"  aws --endpoint-url {world.ministack.endpoint_url} --region eu-west-1 dynamodb scan --table-name orders"
    for name, valkey in world.caches.items():
        yield f"  redis-cli -p {valkey.port} --scan   # {name}"
    yield f"  ls {shlex.quote(str(world.directory))}   # configuration and logs"


# -- lifetimes -----------------------------------------------------------------------------------------------------


@asynccontextmanager
async def _readers(world: World) -> AsyncIterator[tuple[CacheReader, ...]]:
    readers = cache_readers(world)
    try:
        yield readers
    finally:
        for reader in readers:
            await reader.client.aclose()


@asynccontextmanager
async def _supervised(world: World) -> AsyncIterator[None]:
    """Fail as soon as the daemon ends by itself."""
    async with asyncio.TaskGroup() as group:
        watcher = group.create_task(world.daemon.watch(), name="watch-daemon")
        yield
        watcher.cancel()


@contextmanager
def _directory(view: View) -> Iterator[Path]:
    """A directory for configuration and logs; it stays when something went wrong."""
    directory = Path(tempfile.mkdtemp(prefix="replicator-demo-"))
    try:
        yield directory
    except (ReplicatorError, BaseExceptionGroup):
        view.say(f"the logs are in {directory}")
        raise
    except asyncio.CancelledError:
        shutil.rmtree(directory, ignore_errors=True)
        raise
    shutil.rmtree(directory, ignore_errors=True)


@contextmanager
def _interruptible(interruption: Interruption) -> Iterator[None]:
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    assert task is not None

    def interrupted(cancel: Callable[[], bool] = task.cancel) -> None:
        again, interruption.wanted = interruption.wanted, True
        if interruption.wait is not None and not again:
            interruption.wait.set()
        else:
            cancel()

    signals = (signal.SIGINT, signal.SIGTERM)
    for number in signals:
        loop.add_signal_handler(number, interrupted)
    try:
        yield
    finally:
        for number in signals:
            loop.remove_signal_handler(number)


def _first(error: BaseException) -> BaseException:
    """The error that says most: one of ours if there is one, the daemon's own end first."""
    leaves = list(_leaves(error))
    ours = [error for error in leaves if isinstance(error, ReplicatorError)]
    return min(ours or leaves, key=lambda error: not isinstance(error, ServerFailed))


def _leaves(error: BaseException) -> Iterator[BaseException]:
    if not isinstance(error, BaseExceptionGroup):
        yield error
        return
    for inner in error.exceptions:
        yield from _leaves(inner)
