"""This process as a worker of jobs alone: for commands, where no daemon of the group lives.

Invariant: it reads no stream and counts for no shard; others see a worker that is about to leave.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING

from replicator.adapters.clients import open_caches, open_places
from replicator.adapters.dynamodb.coordination import CoordinationTable
from replicator.app.bounds import HOME_CONNECTIONS, caches_of, regions_of
from replicator.app.job_worlds import job_places, job_ports
from replicator.app.wiring import Assembly
from replicator.app.worker_ids import new_id
from replicator.engine.applying.gate import Gates
from replicator.engine.copying.runner import JobRunner
from replicator.engine.worker import Worker
from replicator.observability.logs import configure
from replicator.observability.metrics import Metrics
from replicator.observability.observer import LiveObserver
from replicator.observability.status_board import Board
from replicator.settings.compiled_rules import rules_of

if TYPE_CHECKING:
    from replicator.settings import Settings


@asynccontextmanager
async def working_on_jobs(settings: Settings, *, uninstalls: bool = False) -> AsyncIterator[None]:
    """Work on the group's jobs meanwhile; then finish the pages in hand. `settings`: with the tables of choices.

    `uninstalls`: on uninstallations alone. Trouble goes to standard error, as a daemon logs it.
    """
    configure("error", settings.log.format)
    lean = _no_matter if settings.client == "lean" else None
    async with AsyncExitStack() as stack:
        places = await stack.enter_async_context(open_places(settings, regions_of(settings), lean=lean))
        home = await stack.enter_async_context(places[settings.coordination.region].beside(HOME_CONNECTIONS))
        caches = await stack.enter_async_context(open_caches(settings, caches_of(settings)))
        for_jobs = await stack.enter_async_context(job_places(settings, lean))
        where = settings.coordination
        rows = CoordinationTable(home, table=where.table, group=settings.group, region_id=where.region)
        clock = await rows.time()  # not that of an operator's machine
        observer = LiveObserver(Board(settings.group, rules_of(settings), clock), Metrics(), clock)
        assembly = Assembly(settings, places, home, caches, {}, clock, observer, Gates(), settles=False)
        assembly.sources(settings)
        stop = asyncio.Event()
        ports = job_ports(settings, assembly, for_jobs, clock, uninstalls=uninstalls)
        jobs = JobRunner(ports, limits=assembly.limits, clock=clock, observer=observer)
        worker = Worker(
            (),
            assembly.membership,
            new_id=new_id,
            limits=assembly.limits,
            clock=clock,
            observer=observer,
            stop=stop,
            jobs=jobs,
            only_jobs=True,
        )
        async with asyncio.TaskGroup() as group:
            group.create_task(worker.run(), name="work on jobs")
            try:
                yield
            finally:
                stop.set()


def _no_matter(region: str, why: str) -> None:
    """A command does not say which client serves."""
    del region, why
