"""This process as a worker of jobs alone: for commands, where no daemon of the group lives.

Invariant: it reads no stream and counts for no shard; others see a worker that is about to leave.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
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
from replicator.engine.waiting import pause
from replicator.engine.worker import Worker
from replicator.observability.logs import configure
from replicator.observability.metrics import Metrics
from replicator.observability.observer import LiveObserver
from replicator.observability.status_board import Board
from replicator.settings.compiled_rules import debt_policy, rules_of

if TYPE_CHECKING:
    from replicator.engine.applying.cache_settling import Settler
    from replicator.settings import RuleSettings, Settings

_SETTLE_SECONDS = 1.0
"""Time between two tries to drop what a cache did not take."""


@asynccontextmanager
async def working_on_jobs(
    settings: Settings, rules: Sequence[RuleSettings] | None = None, *, uninstalls: bool = False
) -> AsyncIterator[dict[str, int]]:
    """Work on the group's jobs meanwhile, of some rules or all; then finish the pages in hand.

    `settings`: with the tables of choices. `uninstalls`: on uninstallations alone. Trouble goes to standard error, as a
    daemon logs it. When it is over, what it yields says how many entries it left each cache owed: rows that workers
    settle.
    """
    every_rule = settings
    if rules is not None:
        settings = settings.model_copy(update={"rules": [*rules]})
    left: dict[str, int] = {}
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
        assembly = Assembly(settings, places, home, caches, {}, clock, observer, Gates(), settles=not uninstalls)
        assembly.sources(settings)
        for settler in assembly.debts:  # a flush drops entries of every rule
            settler.debt.policy = settler.debt.policy.along(debt_policy(every_rule, settler.debt.name))
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
            group.create_task(_settle(assembly.debts, stop), name="what caches are owed")
            try:
                yield left
            finally:
                stop.set()
        for settler in assembly.debts:
            if owed := await settler.settle_own():
                left[settler.debt.name] = owed


async def _settle(settlers: Sequence[Settler], stop: asyncio.Event) -> None:
    """Drop what this process owes caches as soon as they take it. What others owe is not looked at: workers do that."""
    while not await pause(stop, _SETTLE_SECONDS):
        for settler in settlers:
            if settler.debt.mine or settler.debt.error is not None:
                await settler.settle_own()


def _no_matter(region: str, why: str) -> None:
    """A command does not say which client serves."""
    del region, why
