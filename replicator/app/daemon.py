"""The composition root: settings -> adapters -> engine -> daemon, and what is one per process."""

from __future__ import annotations

import asyncio
import os
import resource
import socket
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import structlog
from msgspec import Struct

from replicator import __version__
from replicator.adapters.clock import SystemClock
from replicator.admin.server import serve_admin
from replicator.app.bounds import HOME_CONNECTIONS
from replicator.app.canary_sources import CanarySources
from replicator.app.collector import keep_what_is_imported, keep_what_is_made
from replicator.app.held_rules import HeldRules
from replicator.app.job_worlds import JobPlaces, job_places, job_ports
from replicator.app.lifetime import live, unless
from replicator.app.openings import Openings
from replicator.app.preflight import prepare_start
from replicator.app.reload import Reload
from replicator.app.reloaded_rules import ReloadedRules
from replicator.app.rule_preflight import Premises
from replicator.app.table_discovery import TableWatch
from replicator.app.wiring import Assembly
from replicator.app.worker_ids import new_id
from replicator.checks.table_choices import TableFinder
from replicator.engine.applying.gate import Gates
from replicator.engine.canaries import Canaries
from replicator.engine.copying.runner import JobRunner
from replicator.engine.membership.overview import GroupPorts
from replicator.engine.ownership.sources import Sources
from replicator.engine.worker import Worker
from replicator.observability.lag_history import SampledLags
from replicator.observability.logs import configure, written_aside
from replicator.observability.metrics import Metrics
from replicator.observability.observer import LiveObserver
from replicator.observability.status_board import Board
from replicator.observability.systemd import notify, watchdog
from replicator.observability.trace_export import open_traces
from replicator.settings import Settings
from replicator.settings.compiled_rules import meanings_of, rules_of

if TYPE_CHECKING:
    from types_aiobotocore_dynamodb.client import DynamoDBClient

    from replicator.observability.traces import Traces

_MOST_FILES = 65_536
"""Open files, connections above all, that are asked of the system when it grants them."""


def run(settings: Settings, *, config_path: Path, strict: bool = False) -> int:
    """Run the daemon until a signal; returns the exit code. `strict`: what would be held refuses the start."""
    keep_what_is_imported()
    with written_aside():
        configure(settings.log.level, settings.log.format)
        _allow_files()
        with asyncio.Runner(loop_factory=_loop_factory()) as runner:
            return runner.run(_run(settings, config_path, strict=strict))


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop]:
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop
    return uvloop.new_event_loop


def _allow_files() -> None:
    """Raise the limit of open files as far as this process may: every shard and target holds connections."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = _MOST_FILES if hard == resource.RLIM_INFINITY else min(hard, _MOST_FILES)
    if soft != resource.RLIM_INFINITY and soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


async def _run(settings: Settings, config_path: Path, *, strict: bool) -> int:
    log = structlog.get_logger("replicator")
    log.info("starting", version=__version__, group=settings.group, config=str(config_path), pid=os.getpid())
    clock, metrics = SystemClock(), Metrics()
    board = Board(settings.group, rules_of(settings), clock)
    observer = LiveObserver(board, metrics, clock)
    reload, history = Reload(config_path, settings, board), SampledLags(board)

    async def work(stop: asyncio.Event) -> None:
        async with AsyncExitStack() as stack:
            stack.enter_context(reload.at_hangup())
            host, port = await stack.enter_async_context(
                serve_admin(
                    settings.admin,
                    board,
                    metrics,
                    observer,
                    reload=reload.answer,
                    history=history,
                    settings=lambda: reload.settings,
                )
            )
            address = settings.admin.public_url(port, socket.gethostname())
            log.info("admin_listening", host=host, port=port, advertised=address)
            lean = fall_back if settings.client == "lean" else None
            openings = Openings(stack, clock, lean, lambda place: board.fatal_signs.append(place.credentials.stuck))
            async with openings.beyond(settings) as more:
                more.keep()
            places = openings.places
            home = await stack.enter_async_context(places[settings.coordination.region].beside(HOME_CONNECTIONS))
            traces = stack.enter_context(open_traces(settings.telemetry, settings.group))
            observer.traces = traces
            for_jobs = await stack.enter_async_context(job_places(settings, lean))
            parts = _Parts(
                settings, openings, home, for_jobs, clock, observer, board, address, strict, reload, history, traces
            )
            await _serve(parts, stop)

    def fall_back(region: str, why: str) -> None:
        if board.sent_by_stock(region, why):
            log.warning("stock_client_serves", region=region, reason=why)

    def report(what: str) -> None:
        board.draining = True
        notify("STOPPING=1")
        if what == "drain_timed_out":
            reason = "Some work did not end in time; records behind the checkpoints are read again after the lease."
            log.warning(what, drain_seconds=settings.drain.total_seconds(), reason=reason)
        else:
            log.info("stopping_at_once" if what == "now" else what, drain_seconds=settings.drain.total_seconds())

    code = await live(work, drain_seconds=settings.drain.total_seconds(), report=report)
    observer.summarise(all_of_them=True)
    log.info("stopped", exit_code=code)
    return code


class _Parts(Struct, frozen=True):
    """What is one per process."""

    settings: Settings
    openings: Openings
    home: DynamoDBClient
    for_jobs: JobPlaces
    clock: SystemClock
    observer: LiveObserver
    board: Board
    admin: str
    strict: bool
    reload: Reload
    history: SampledLags
    traces: Traces | None


async def _serve(parts: _Parts, stop: asyncio.Event) -> None:
    """Look at the world, then replicate until `stop`."""
    gates, places, caches = Gates(), parts.openings.places, parts.openings.caches
    assembly = Assembly(
        parts.settings,
        places,
        parts.home,
        caches,
        parts.openings.sinks,
        parts.clock,
        parts.observer,
        gates,
        traces=parts.traces,
    )
    finder = TableFinder(parts.settings, places)
    premises = Premises(
        parts.settings,
        places,
        caches,
        assembly.registry,
        assembly.succession,
        parts.clock,
        finder,
        assembly.identities,
    )
    start = await unless(stop, prepare_start(premises, strict=parts.strict))
    if start is None:
        return
    sources = Sources()

    def use() -> None:
        sources.put(assembly.sources(held.running(watch.settings)))
        parts.board.reads(assembly.rules, watch.choices)
        parts.board.resting = tuple(held.resting(watch.settings))
        parts.board.meanings = meanings_of(watch.written)

    watch = TableWatch(premises, start.survey, parts.observer)
    held = HeldRules(premises, start, gates, parts.observer, lambda: watch.settings)
    use()
    reloaded = ReloadedRules(
        premises, parts.openings, assembly, watch, held, parts.for_jobs, use, lambda: parts.reload.settings
    )
    parts.reload.take_up, parts.reload.kept = reloaded.take_up, reloaded.kept
    servers = assembly.rows.clock  # jobs compare times that several machines noted
    notify("READY=1")
    keep_what_is_made()
    async with asyncio.TaskGroup() as background:
        dog = background.create_task(watchdog(lambda: parts.board.health() is None), name="watchdog")
        watches = [
            background.create_task(watch.run(use), name="tables of the rules"),
            background.create_task(held.run(use), name="held rules"),
            background.create_task(parts.reload.run(), name="changed configuration"),
            background.create_task(parts.history.run(), name="history of lags"),
        ]
        await Worker(
            sources,
            assembly.membership,
            new_id=new_id,
            limits=assembly.limits,
            clock=parts.clock,
            observer=parts.observer,
            stop=stop,
            admin=parts.admin,
            jobs=JobRunner(
                job_ports(parts.settings, assembly, parts.for_jobs, servers),
                limits=assembly.limits,
                clock=servers,
                observer=parts.observer,
            ),
            debts=assembly.debts,
            verifiers=assembly.verifiers.values(),
            canaries=Canaries(CanarySources(assembly, places, caches).now, parts.clock, parts.observer),
            group=GroupPorts(
                assembly.coordination, assembly.registry, lambda: assembly.rules, lambda: parts.board.resting
            ),
        ).run()
        dog.cancel()
        for looking in watches:
            looking.cancel()
