"""Functions in place of the daemon: event source mappings that call them, as AWS Lambda does.

The daemon runs beside them and lets its rules rest, as in a group where functions drive some rules.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Final

from replicator.adapters.aws.clients import ClientTimes, open_place
from replicator.adapters.clock import SystemClock
from replicator.adapters.dynamodb.streams import DynamoStreams
from replicator.app.invocations import Process
from replicator.demo.layout import SOURCE
from replicator.domain.identifiers import TableName
from replicator.laboratory import emulator
from replicator.laboratory.event_source import EventSource, Handler, Handlers, MappingOptions
from replicator.laboratory.servers import clean_environment
from replicator.settings.loading import load

if TYPE_CHECKING:
    from replicator.demo.view import View
    from replicator.demo.world import World

INVOCATION_SECONDS: Final = 60
_MAPPING: Final = MappingOptions(batch_size=100, window_seconds=0.2, factor=2)
_ROUNDED_SECONDS = 3.0
"""What the sides wait beyond a lease, at most."""


@asynccontextmanager
async def functions(world: World, view: View) -> AsyncIterator[list[EventSource]]:
    """Hand every rule to functions, and call them until the block ends."""
    missing = emulator.missing()
    where = f"in this process: {missing}" if missing else "under awslambdaric and the runtime interface emulator"
    view.say(f"functions drive the rules, {where}")
    for rule in world.layout.rules():
        await world.daemon.drive_by_functions(rule["name"])
    with _environment(world):
        settings = load(world.daemon.config)
        await asyncio.sleep(settings.coordination.lease.total_seconds() + _ROUNDED_SECONDS)
        handlers = Handlers(lambda: _handler(world), INVOCATION_SECONDS * 1000)
        try:
            region = settings.regions[SOURCE]
            async with open_place(SOURCE, region, ClientTimes(), connections=16) as there:
                streams, clock, sources = DynamoStreams(there), SystemClock(), []
                for table in world.tables:
                    stream = await streams.current(TableName(table.names[SOURCE]))
                    sources.append(EventSource(streams, stream, region.region, handlers.invoke, clock, _MAPPING))
                async with asyncio.TaskGroup() as group:
                    for source in sources:
                        group.create_task(source.run(), name="mapping")
                    try:
                        yield sources
                    finally:
                        for source in sources:
                            source.stop()
        finally:
            await handlers.close()


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
