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
from typing import Any
from uuid import uuid4

import structlog

from replicator import __version__
from replicator.adapters.aws import Place
from replicator.adapters.clock import SystemClock
from replicator.adapters.conflicts import DynamoConflictLog
from replicator.adapters.coordination import DynamoCoordination
from replicator.adapters.provisioning.check import preflight
from replicator.adapters.provisioning.facts import Fact, Status, exit_code
from replicator.adapters.redis import RedisCache
from replicator.adapters.streams import DynamoStreams
from replicator.adapters.tables import DynamoRegion, note_epoch
from replicator.adapters.wire import prepare
from replicator.connections import open_caches, open_places
from replicator.daemon import live
from replicator.domain.errors import EXIT_UNREACHABLE, ReplicatorError, WorldMismatch
from replicator.domain.records import WorkerId
from replicator.domain.rules import Rule, Target
from replicator.engine.apply import TargetPorts
from replicator.engine.cache import CacheFunnel
from replicator.engine.coordinator import Source
from replicator.engine.pacing import Limits
from replicator.engine.shard import ShardPorts
from replicator.engine.worker import Worker
from replicator.ops.admin import serve_admin
from replicator.ops.board import Board
from replicator.ops.logs import configure
from replicator.ops.metrics import Metrics
from replicator.ops.observer import LiveObserver
from replicator.ops.systemd import notify, watchdog
from replicator.rulebook import rules_of, shape_of
from replicator.settings import Settings

_RESERVED_CONNECTIONS = 32
"""Connections per region beside those that write replicas: coordination, streams, conflicts."""

_START_SECONDS = 10.0
"""How long a start waits for what does not answer."""


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
    await _start(parts, rules, stop)
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
    def coordination(self) -> DynamoCoordination:
        """Leases and progress."""
        where = self.settings.coordination
        return DynamoCoordination(
            self.places[where.region].dynamodb, table=where.table, group=self.settings.group, region_id=where.region
        )

    def worker(self, rules: Sequence[Rule], stop: asyncio.Event) -> Worker:
        """The engine."""
        coordination = self.coordination
        targets = self._targets(rules)
        sources: dict[tuple[str, str], list[Rule]] = {}
        for rule in rules:
            sources.setdefault((rule.source, rule.table), []).append(rule)
        return Worker(
            [
                Source(
                    group[0].source,
                    group[0].table,
                    tuple(group),
                    ShardPorts(
                        DynamoStreams(self.places[region]),
                        coordination,
                        coordination,
                        targets,
                        self.clock,
                        self.observer,
                    ),
                )
                for (region, _), group in sources.items()
            ],
            coordination,
            new_id=lambda: WorkerId(f"{socket.gethostname()}-{os.getpid()}-{uuid4().hex[:8]}"),
            limits=limits_of(self.settings),
            clock=self.clock,
            observer=self.observer,
            stop=stop,
        )

    def _targets(self, rules: Sequence[Rule]) -> dict[str, TargetPorts]:
        settings = self.settings
        funnels = {name: CacheFunnel(cache) for name, cache in self.caches.items()}
        conflicts = DynamoConflictLog(
            self.places[settings.coordination.region].dynamodb,
            table=settings.conflict_table_name,
            region_id=settings.coordination.region,
            ttl=settings.conflicts.ttl,
            clock=self.clock,
        )
        return {
            target.target_id: TargetPorts(self._region(target), funnels, conflicts)
            for rule in rules
            for target in rule.targets
        }

    def _region(self, target: Target) -> DynamoRegion | None:
        if target.table is None:
            return None
        return DynamoRegion(
            self.places[target.region].dynamodb,
            region_id=target.region,
            table=target.table,
            side_table=self.settings.side_table_name,
            tombstone_ttl=self.settings.tombstone_ttl,
            concurrency=self.settings.apply.concurrency,
            clock=self.clock,
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


# -- before the start ----------------------------------------------------------------------------------------------


async def _start(parts: _Parts, rules: Sequence[Rule], stop: asyncio.Event) -> None:
    """Look at the world; raise what forbids a start, wait a little for what does not answer, tell the rest."""
    log = structlog.get_logger("replicator")
    deadline = parts.clock.monotonic() + _START_SECONDS
    warned = False
    while not stop.is_set():
        facts = await preflight(parts.settings, parts.places, parts.caches)
        failures = [fact for fact in facts if fact.status is Status.FAILED]
        if exit_code(failures) not in {0, EXIT_UNREACHABLE}:
            raise _refusal([fact for fact in failures if fact.exit_code != EXIT_UNREACHABLE])
        usable = [rule for rule in rules if not _hindered(parts.settings, rule, failures)]
        if not failures or (usable and parts.clock.monotonic() >= deadline):
            break
        if parts.clock.monotonic() >= deadline:
            raise _refusal(failures)
        if not warned:
            for fact in failures:
                log.warning("waiting", subject=fact.subject, reason=fact.found, advice=fact.remedy)
        warned = True
        await asyncio.sleep(1)
    for fact in facts:
        if fact.status is Status.WARNING:
            log.warning("noticed", subject=fact.subject, fact=fact.name, found=fact.found, advice=fact.remedy)
        elif fact.status is Status.FAILED:
            log.error("unreachable", subject=fact.subject, reason=fact.found, advice=fact.remedy)
    await _identities(parts, rules)
    await _epochs(parts, rules)


def _refusal(failures: Sequence[Fact]) -> ReplicatorError:
    first = failures[0]
    more = f" ({len(failures) - 1} more: see `replicator check`.)" if len(failures) > 1 else ""
    error = ReplicatorError(first.found, advice=first.remedy + more)
    error.exit_code = first.exit_code
    return error


def _hindered(settings: Settings, rule: Rule, failures: Sequence[Fact]) -> bool:
    """Whether a rule needs something that does not answer."""
    subjects = {f"region {region}" for region in (rule.source, settings.coordination.region)}
    for target in rule.targets:
        subjects.add(f"region {target.region}")
        subjects |= {f"cache {cache.cache}" for cache in target.caches}
    return any(fact.subject in subjects for fact in failures)


async def _identities(parts: _Parts, rules: Sequence[Rule]) -> None:
    """A rule's name is the identity of its progress: refuse to begin anew, silently, under another name."""
    log = structlog.get_logger("replicator")
    names = {rule.name for rule in rules}
    shapes = {rule.name: shape_of(rule) for rule in parts.settings.rules}
    coordination = parts.coordination
    for rule in rules:
        try:
            stream = await DynamoStreams(parts.places[rule.source]).current(rule.table)
            starts = await coordination.starts(stream)
            orphans = sorted({start.rule for start in starts.values()} - names)
            if orphans and not any(start.rule == rule.name for start in starts.values()):
                raise WorldMismatch(
                    f"Rule {rule.name!r} has no progress on the stream of {rule.table} in {rule.source}, but rule"
                    f" {orphans[0]!r} has and is no longer configured.",
                    advice=f"`replicator rules rename {orphans[0]} {rule.name}` keeps its progress,"
                    f" `replicator rules forget {orphans[0]}` drops it.",
                )
            if orphans:
                log.warning("orphaned_progress", rules=orphans, table=rule.table, region=rule.source)
            changed = False
            for target in rule.targets:
                changed |= await coordination.note_shape(stream, target, shapes[rule.name])
            if changed:
                log.warning(
                    "rule_changed",
                    rule=rule.name,
                    reason="The filter or a key template changed; existing items were not evaluated again.",
                )
        except ReplicatorError as error:
            if error.exit_code != EXIT_UNREACHABLE:
                raise
            log.warning("unreachable", rule=rule.name, reason=error.message, advice=error.advice)


async def _epochs(parts: _Parts, rules: Sequence[Rule]) -> None:
    """An epoch is never lowered: the highest one seen is kept in the side table."""
    for rule in rules:
        for target in rule.targets:
            if target.table is None:
                continue
            place: Any = parts.places[target.region]
            await note_epoch(
                place.dynamodb,
                side_table=parts.settings.side_table_name,
                table=target.table,
                region_id=target.region,
                epoch=rule.epoch,
                rule=rule.name,
            )
