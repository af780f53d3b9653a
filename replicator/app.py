"""The composition root: settings -> adapters -> engine -> daemon. The only place that names concrete classes."""

from __future__ import annotations

import asyncio
import gc
import os
import socket
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import structlog

from replicator import __version__
from replicator.adapters.aws import Place
from replicator.adapters.clock import SystemClock
from replicator.adapters.conflicts import conflict_log
from replicator.adapters.coordination import (
    CoordinationTable,
    DynamoCoordination,
    DynamoMembership,
    DynamoRegistry,
)
from replicator.adapters.redis import RedisCache
from replicator.adapters.streams import DynamoStreams
from replicator.adapters.tables import DynamoRegion
from replicator.adapters.wire import prepare
from replicator.connections import open_caches, open_places
from replicator.daemon import live
from replicator.domain.ownwrites import OwnWrites
from replicator.domain.records import RegionId, TableName, WorkerId
from replicator.domain.rules import ActivePlan, Rule, Target
from replicator.domain.versions import STAMP
from replicator.engine.ahead import ByteBudget
from replicator.engine.cache import CacheFunnel
from replicator.engine.coordinator import Source
from replicator.engine.desk import TargetPorts
from replicator.engine.pacing import Limits
from replicator.engine.shard import ShardPorts
from replicator.engine.worker import Worker
from replicator.ops.admin import serve_admin
from replicator.ops.board import Board
from replicator.ops.logs import configure
from replicator.ops.metrics import Metrics
from replicator.ops.observer import LiveObserver
from replicator.ops.systemd import notify, watchdog
from replicator.rulebook import rules_of
from replicator.settings import Settings
from replicator.startup import Premises, prepare_start

_RESERVED_CONNECTIONS = 32
"""Connections per region beside those that write replicas: coordination, streams, conflicts."""

_OWN_WRITES_KEPT = 10_000
"""Keys per rule whose last write of our own is remembered, to save reads when it comes back."""


def run(settings: Settings, *, config_path: Path) -> int:
    """Run the daemon until a signal; returns the exit code."""
    configure(settings.log.level, settings.log.format)
    try:
        import uvloop

        factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    except ImportError:
        factory = asyncio.new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        return runner.run(_run(settings, config_path))


async def _run(settings: Settings, config_path: Path) -> int:
    log = structlog.get_logger("replicator")
    log.info("starting", version=__version__, group=settings.group, config=str(config_path), pid=os.getpid())
    clock, rules, metrics = SystemClock(), rules_of(settings), Metrics()
    board = Board(settings.group, rules, clock)
    observer = LiveObserver(board, metrics, clock)

    async def work(stop: asyncio.Event) -> None:
        async with AsyncExitStack() as stack:
            host, port = await stack.enter_async_context(
                serve_admin(settings.admin.host, settings.admin.port, board, metrics, observer)
            )
            log.info("admin_listening", host=host, port=port)
            regions, connections = _regions(settings, rules), _connections(settings, rules)
            parts = _Parts(
                settings=settings,
                places=await stack.enter_async_context(open_places(settings, regions, connections)),
                caches=await stack.enter_async_context(open_caches(settings, _caches(rules))),
                clock=clock,
                observer=observer,
            )
            await _serve(parts, rules, board, stop)

    def told(what: str) -> None:
        board.draining = True
        notify("STOPPING=1")
        log.info(what, drain_seconds=settings.drain.total_seconds())

    code = await live(work, drain_seconds=settings.drain.total_seconds(), told=told)
    log.info("stopped", exit_code=code)
    return code


async def _serve(parts: _Parts, rules: Sequence[Rule], board: Board, stop: asyncio.Event) -> None:
    """Look at the world, then replicate until `stop`."""
    for place in parts.places.values():
        prepare(place.dynamodb)
        prepare(place.streams)
    premises = Premises(parts.settings, parts.places, parts.caches, DynamoRegistry(parts.rows), parts.clock)
    await prepare_start(premises, rules, stop)
    if stop.is_set():
        return
    notify("READY=1")
    gc.collect()
    gc.freeze()
    async with asyncio.TaskGroup() as background:
        dog = background.create_task(watchdog(lambda: board.health() is None), name="watchdog")
        await parts.worker(rules, stop).run()
        dog.cancel()


@dataclass(frozen=True, slots=True)
class _Parts:
    """Adapters of this process, and how the engine is put together from them."""

    settings: Settings
    places: Mapping[str, Place]
    caches: Mapping[str, RedisCache]
    clock: SystemClock
    observer: LiveObserver

    @property
    def rows(self) -> CoordinationTable:
        """The group's rows: leases, progress, members."""
        where = self.settings.coordination
        return CoordinationTable(
            self.places[where.region].dynamodb, table=where.table, group=self.settings.group, region_id=where.region
        )

    def worker(self, rules: Sequence[Rule], stop: asyncio.Event) -> Worker:
        """The engine."""
        rows = self.rows
        coordination, registry = DynamoCoordination(rows), DynamoRegistry(rows)
        targets = self._targets(rules)
        limits = limits_of(self.settings)
        budget = ByteBudget(limits.in_flight_bytes)
        sources: dict[tuple[RegionId, TableName], list[Rule]] = {}
        for rule in rules:
            sources.setdefault((rule.source, rule.table), []).append(rule)
        return Worker(
            [
                Source(
                    region,
                    table,
                    tuple(group),
                    ShardPorts(
                        DynamoStreams(self.places[region]),
                        coordination,
                        registry,
                        {target.target_id: targets[target] for rule in group for target in rule.targets},
                        self.clock,
                        self.observer,
                        budget,
                    ),
                )
                for (region, table), group in sources.items()
            ],
            DynamoMembership(rows),
            new_id=lambda: WorkerId(f"{socket.gethostname()}-{os.getpid()}-{uuid4().hex[:8]}"),
            limits=limits,
            clock=self.clock,
            observer=self.observer,
            stop=stop,
        )

    def _targets(self, rules: Sequence[Rule]) -> dict[Target, TargetPorts]:
        """Ports of every target. All streams of a mesh write through the same regions and know each other's writes."""
        settings = self.settings
        funnels = {name: CacheFunnel(cache) for name, cache in self.caches.items()}
        conflicts = conflict_log(self.places[settings.coordination.region].dynamodb, settings)
        regions = {
            (rule.name, target.region): self._region(rule, target)
            for rule in rules
            for target in rule.targets
            if target.table is not None
        }
        own_writes = {rule.name: OwnWrites(_OWN_WRITES_KEPT) for rule in rules}
        return {
            target: TargetPorts(
                regions.get((rule.name, target.region)),
                funnels,
                conflicts,
                {other: regions[rule.name, other] for other in (rule.mesh.others if rule.mesh else ())},
                own_writes[rule.name],
            )
            for rule in rules
            for target in rule.targets
        }

    def _region(self, rule: Rule, target: Target) -> DynamoRegion:
        assert target.table is not None, "only tables are regions"
        return DynamoRegion(
            self.places[target.region].dynamodb,
            region_id=target.region,
            table=target.table,
            side_table=self.settings.side_table_name,
            tombstone_ttl=self.settings.tombstone_ttl,
            concurrency=self.settings.apply.concurrency,
            clock=self.clock,
            stamp_attribute=rule.mesh.policy.attribute if isinstance(rule.mesh, ActivePlan) else STAMP,
        )


def limits_of(settings: Settings) -> Limits:
    """The engine's bounds."""
    return Limits(
        poll_seconds=settings.polling.interval.total_seconds(),
        idle_seconds=settings.polling.idle_max.total_seconds(),
        page_records=settings.polling.page,
        concurrency=settings.apply.concurrency,
        backoff_seconds=settings.apply.backoff_max.total_seconds(),
        checkpoint_seconds=settings.coordination.checkpoint.total_seconds(),
        discovery_seconds=settings.coordination.discovery.total_seconds(),
        heartbeat_seconds=settings.coordination.heartbeat.total_seconds(),
        lease_seconds=settings.coordination.lease.total_seconds(),
    )


def _regions(settings: Settings, rules: Sequence[Rule]) -> set[str]:
    used: set[str] = {settings.coordination.region}
    for rule in rules:
        used |= {rule.source, *(target.region for target in rule.targets)}
    return used


def _caches(rules: Sequence[Rule]) -> set[str]:
    return {cache.cache for rule in rules for target in rule.targets for cache in target.caches}


def _connections(settings: Settings, rules: Sequence[Rule]) -> dict[str, int]:
    """Every target has its own share of a region's connections, so that a slow one starves no other."""
    connections: dict[str, int] = {}
    for rule in rules:
        for target in rule.targets:
            connections[target.region] = connections.get(target.region, _RESERVED_CONNECTIONS)
            connections[target.region] += settings.apply.concurrency
    return connections
