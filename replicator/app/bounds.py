"""The bounds of one process, made of settings: connections, limits of the engine, and what they are for."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from replicator.domain.errors import ConfigurationInvalid
from replicator.engine.limits import Limits

if TYPE_CHECKING:
    from replicator.settings import Settings

_RESERVED_CONNECTIONS = 32
"""Connections per region beside those that write replicas: what is asked of tables, and conflicts."""

HOME_CONNECTIONS = 64
"""Connections for coordination: heartbeats, leases, checkpoints."""

_MOST_CONNECTIONS = 8192
"""Connections per region at most; requests beyond them wait for one."""

STREAM_CONNECTIONS = 256
"""Connections per region for reading streams: enough for a thousand shards, whose polls are short and spread."""

_TABLES_AT_ONCE = 8
"""A rule that chooses its tables has connections for so many of them; they share these."""

_CONCURRENCY = "LAMBDA_CONCURRENCY"
"""Names how many functions there are at most: write units are divided by it."""

_DAY_SECONDS = 86_400.0
"""What is owed must be brought so long before tombstones expire."""


def limits_of(settings: Settings) -> Limits:
    """The engine's bounds."""
    polling, coordination = settings.polling, settings.coordination
    return Limits(
        poll_seconds=polling.interval.total_seconds(),
        idle_seconds=polling.idle_max.total_seconds(),
        page_records=polling.page,
        concurrency=settings.apply.concurrency,
        backoff_seconds=settings.apply.backoff_max.total_seconds(),
        away_seconds=settings.away_after.total_seconds(),
        overdue_seconds=settings.tombstone_ttl.total_seconds() - _DAY_SECONDS,
        checkpoint_seconds=coordination.checkpoint.total_seconds(),
        discovery_seconds=coordination.discovery.total_seconds(),
        heartbeat_seconds=coordination.heartbeat.total_seconds(),
        lease_seconds=coordination.lease.total_seconds(),
        watch_seconds=min(coordination.watch, coordination.heartbeat).total_seconds(),
        moves_per_cycle=coordination.moves,
        describes_per_second=coordination.describes_per_second,
        in_flight_bytes=polling.memory,
        drained_seconds=coordination.drained.total_seconds(),
        stall_seconds=max(coordination.stall, coordination.lease).total_seconds(),
        job_segments=settings.copying.segments,
        job_pages=settings.copying.pages,
    )


def regions_of(settings: Settings) -> set[str]:
    """Ids of the regions that are used."""
    used = {settings.coordination.region, *(region for rule in settings.rules for region in rule.regions_used)}
    return used | {region for rule in settings.rules for region in rule.regions_of_sinks}


def caches_of(settings: Settings) -> set[str]:
    """Names of the caches that rules act on, or whose servers hold their events."""
    return {name for rule in settings.rules for name in rule.caches_used}


def connections_of(settings: Settings) -> dict[str, int]:
    """Every target has its own share of a region's connections, so that a slow one starves no other."""
    connections: dict[str, int] = dict.fromkeys(regions_of(settings), _RESERVED_CONNECTIONS)
    for rule in settings.rules:
        for region in rule.regions_written:
            connections[region] += settings.apply.concurrency * (_TABLES_AT_ONCE if rule.choice else 1)
    return {region: min(most, _MOST_CONNECTIONS) for region, most in connections.items()}


def processes_of(settings: Settings) -> int:
    """How many functions there are at most at one time; only write units ask."""
    said = os.environ.get(_CONCURRENCY, "")
    if said.isascii() and said.isdecimal() and int(said):
        return int(said)
    bounded = [rule.name for rule in settings.rules if rule.write_units]
    if said or bounded:
        why = (
            f"{_CONCURRENCY} is {said!r}, which is no number." if said else f"Rule {bounded[0]} bounds its write units."
        )
        raise ConfigurationInvalid(
            why, advice=f"Set {_CONCURRENCY} to the function's reserved concurrency, by which they are divided."
        )
    return 1
