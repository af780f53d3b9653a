"""The demonstration from start to verdict.

Invariant: the verdict is reached on what tables and caches hold after the daemon stopped (with `--keep`: after it
fell idle), and is `identical` only when enough was compared.
"""

from __future__ import annotations

import asyncio
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import msgspec

from replicator.demo.cache_servers import cache_servers
from replicator.demo.caches.run import CacheRun
from replicator.demo.layout import cached, layout_of
from replicator.demo.mesh.run import MeshRun
from replicator.demo.ordered import OrderedRun
from replicator.demo.reader import CacheReader, cache_readers
from replicator.demo.run import DemoOptions, Interruption
from replicator.demo.shards import workers
from replicator.demo.view import View
from replicator.demo.world import World, open_world
from replicator.domain.errors import EXIT_FAULT, ReplicatorError
from replicator.laboratory.servers import REQUIRED, ServerFailed, require_servers


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


async def _demo(options: DemoOptions, view: View, directory: Path, interruption: Interruption) -> int:
    started = time.monotonic()
    versions = ", ".join(f"{package} {version}" for package, version in REQUIRED.items())
    view.say(f"starting {versions}")
    async with _world(options, directory) as world, _readers(world) as readers:
        _say_where(view, world)
        kind = CacheRun if options.cache else OrderedRun if options.mode == "ordered" else MeshRun
        run = kind.of(options, view, world, readers)
        report = await run.to_verdict(started)
        for line in report.lines():
            view.console.print(line, soft_wrap=True, markup=False)
        if options.json:
            sys.stdout.write(msgspec.json.encode(report.as_json()).decode() + "\n")
            sys.stdout.flush()
        if options.keep:
            await run.keep(interruption)
        return report.exit_code


def _say_where(view: View, world: World) -> None:
    caches = ", ".join(f"{name} {valkey.url}" for name, valkey in world.caches.items())
    view.say(f"DynamoDB of {len(world.regions)} regions at {world.ministack.endpoint_url}; {caches}")
    if world.lab is not None:
        view.say(
            f"their streams from the stream laboratory at {world.lab.url}, read by {workers(world.daemon.workers)}"
        )


# -- lifetimes -----------------------------------------------------------------------------------------------------


@asynccontextmanager
async def _world(options: DemoOptions, directory: Path) -> AsyncIterator[World]:
    if options.cache:
        with cache_servers(directory) as servers:
            async with open_world(directory, cached(options.cache), cache_servers=servers) as world:
                yield world
        return
    kinesis = options.source == "kinesis"
    layout = layout_of(options.mode, options.regions, kinesis=kinesis, fan_out=options.fan_out)
    async with open_world(
        directory, layout, shards=options.shards, workers=options.workers, events=options.events
    ) as world:
        yield world


@asynccontextmanager
async def _readers(world: World) -> AsyncIterator[tuple[CacheReader, ...]]:
    readers = cache_readers(world)
    try:
        yield readers
    finally:
        for reader in readers:
            await reader.client.aclose()


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
