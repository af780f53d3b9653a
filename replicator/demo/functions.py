"""Functions in place of the daemon: event source mappings that call them, as AWS Lambda does.

The daemon runs beside them and lets its rules rest, as in a group where functions drive some rules. There is a mapping
for every stream that is read: those of the tables, or Kinesis streams, in every region where users write.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Final

from replicator.adapters.aws.clients import ClientTimes, open_place
from replicator.adapters.clock import SystemClock
from replicator.adapters.dynamodb.streams import DynamoStreams
from replicator.adapters.kinesis.streams import KinesisStreams
from replicator.app.invocations import Process
from replicator.laboratory import emulator
from replicator.laboratory.event_source import (
    EventSource,
    Feed,
    Handler,
    Handlers,
    KinesisFeed,
    MappingOptions,
    TableFeed,
)
from replicator.laboratory.servers import clean_environment
from replicator.settings.compiled_rules import rules_of
from replicator.settings.loading import load

if TYPE_CHECKING:
    from replicator.adapters.aws.clients import Place
    from replicator.demo.view import View
    from replicator.demo.world import World
    from replicator.domain.rules import Rule

INVOCATION_SECONDS: Final = 60
_MAPPING: Final = MappingOptions(batch_size=100, window_seconds=0.2, factor=2)
_CONCURRENCY: Final = 2
"""Invocations at once, of all mappings."""
_ROUNDED_SECONDS = 3.0
"""What the sides wait beyond a lease, at most."""


@asynccontextmanager
async def functions(world: World, view: View) -> AsyncIterator[list[EventSource]]:
    """Call functions for every rule until the block ends; they were handed the rules before the daemon started."""
    missing = emulator.missing()
    where = f"in this process: {missing}" if missing else "under awslambdaric and the runtime interface emulator"
    view.say(f"functions drive the rules, {where}")
    async with AsyncExitStack() as stack:
        stack.enter_context(_environment(world))
        settings = load(world.daemon.config)
        await asyncio.sleep(settings.coordination.lease.total_seconds() + _ROUNDED_SECONDS)
        handlers = Handlers(lambda: _handler(world), INVOCATION_SECONDS * 1000, most=_CONCURRENCY)
        stack.push_async_callback(handlers.close)
        places = {
            name: await stack.enter_async_context(
                open_place(name, settings.regions[name], ClientTimes(), connections=16)
            )
            for name in world.layout.written
        }
        feeds = [await _feed(places[rule.source], rule) for rule in rules_of(settings)]
        sources = [EventSource(feed, handlers.invoke, SystemClock(), _MAPPING) for feed in feeds]
        async with asyncio.TaskGroup() as group:
            for source in sources:
                group.create_task(source.run(), name="mapping")
            try:
                yield sources
            finally:
                for source in sources:
                    source.stop()


async def _feed(place: Place, rule: Rule) -> Feed:
    """What a rule reads in a region; no two rules of the demo read the same."""
    if rule.stream is not None:
        kinesis = KinesisStreams(place, rule.stream)
        return KinesisFeed(place, kinesis, await kinesis.current(rule.table))
    streams = DynamoStreams(place)
    return TableFeed(streams, await streams.current(rule.table), place.settings.region)


def _handler(world: World) -> Handler:
    if emulator.missing() is not None:
        return Process()
    variables = {"REPLICATOR_CONFIG": str(world.daemon.config)}
    return emulator.Emulator.start(world.directory, variables, seconds=INVOCATION_SECONDS)


@contextmanager
def _environment(world: World) -> Iterator[None]:
    """What a function, and the mapping, find in their environment."""
    before = dict(os.environ)
    os.environ.clear()
    os.environ.update(clean_environment())
    os.environ.update(REPLICATOR_CONFIG=str(world.daemon.config), REPLICATOR_LOG__LEVEL="error")
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)
