"""What jobs work with in this process: tables by connections of their own, and the ports of living targets.

Invariant: nothing is opened before the first job, and requests of jobs and of streams wait for no connection of the
other.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING

from replicator.adapters.clients import open_places
from replicator.adapters.dynamodb.coordination import DynamoJobs
from replicator.adapters.dynamodb.lookups import DynamoLookups
from replicator.adapters.dynamodb.scans import DynamoScan
from replicator.adapters.dynamodb.tables import DynamoRegion
from replicator.adapters.export_sources import export_files
from replicator.domain.identifiers import RegionId, TableName
from replicator.domain.jobs import Job, JobKind, place_name
from replicator.domain.pacing import Pace
from replicator.domain.rules import Rule
from replicator.engine.applying.paced_region import PacedRegion
from replicator.engine.copying import bootstraps, uninstalling, verification
from replicator.engine.copying.applied import Margins
from replicator.engine.copying.budgets import Budget
from replicator.engine.copying.region import CopyRegion
from replicator.engine.copying.runner import JobPorts, JobWorld
from replicator.engine.mapped_tables import MappedLookups, MappedScan, as_mapped
from replicator.engine.membership.session import SHARE_OF_LEASE

if TYPE_CHECKING:
    from replicator.adapters.aws.clients import Fallback, Place
    from replicator.app.wiring import Assembly
    from replicator.ports.clock import Clock
    from replicator.ports.copying import Scan
    from replicator.ports.lookups import Lookups
    from replicator.settings import Settings

_MORE_CONNECTIONS = 16
"""Connections per region beside those of writes: scans."""


class JobPlaces:
    """Clients of regions for jobs alone, opened when a job first needs them."""

    def __init__(self, settings: Settings, stack: AsyncExitStack, lean: Fallback | None) -> None:
        self._settings = settings
        self._stack = stack
        self._lean = lean
        self._places: dict[str, Place] = {}
        self._turn = asyncio.Lock()

    def rewritten(self, settings: Settings) -> None:
        """The configuration is another one from now on."""
        self._settings = settings

    async def of(self, region: RegionId) -> Place:
        """The clients of a region."""
        async with self._turn:
            if region not in self._places:
                most = self._settings.apply.concurrency + _MORE_CONNECTIONS
                opening = open_places(self._settings, {region}, {region: most}, stream_connections=1, lean=self._lean)
                self._places |= await self._stack.enter_async_context(opening)
            return self._places[region]


@asynccontextmanager
async def job_places(settings: Settings, lean: Fallback | None) -> AsyncIterator[JobPlaces]:
    """Clients for jobs, closed together."""
    async with AsyncExitStack() as stack:
        yield JobPlaces(settings, stack, lean)


def job_ports(
    settings: Settings, assembly: Assembly, places: JobPlaces, clock: Clock, *, uninstalls: bool = False
) -> JobPorts:
    """Everything that the runner of jobs needs. `uninstalls`: it does these, and nothing else; no worker does them."""

    async def world(job: Job) -> JobWorld | None:
        return await world_of(settings, assembly, places, job, clock)

    copying = settings.copying
    return JobPorts(
        DynamoJobs(assembly.rows),
        assembly.coordination,
        assembly.registry,
        world,
        lambda: [] if uninstalls else assembly.rules,
        uninstalling.KINDS if uninstalls else {**bootstraps.KINDS, **verification.KINDS},
        Margins(copying.margin.total_seconds(), copying.yield_lag.total_seconds(), _zombie_seconds(settings)),
    )


def _zombie_seconds(settings: Settings) -> float:
    """How long requests of a worker that fell silent may still arrive: docs/architecture.md, T_zombie."""
    waits = settings.apply.connect_timeout + settings.apply.read_timeout
    return SHARE_OF_LEASE * settings.coordination.lease.total_seconds() + waits.total_seconds()


async def world_of(
    settings: Settings, assembly: Assembly, places: JobPlaces, job: Job, clock: Clock
) -> JobWorld | None:
    """What a job works with; None when its rule does not run here now."""
    made = assembly.made(job.rule, job.table)
    if made is None:
        return None
    rules = tuple(made)
    tables = {(rule.source, rule.table): rule for rule in rules}
    for rule in rules:
        for target in rule.targets:
            if target.table is not None:
                tables.setdefault((target.region, target.table), rule)
    if job.kind is JobKind.UNINSTALL:
        side_table = TableName(settings.side_table_name)
        tables |= {(region, side_table): rule for (region, _), rule in tables.items()}
    opened = {region: await places.of(region) for region, _ in tables}

    def regions(
        share: Callable[[], float], stop: asyncio.Event, page_items: Callable[[], int | None]
    ) -> dict[str, CopyRegion]:
        def budgets(name: str, default: int) -> dict[RegionId, Budget]:
            units = {region: int(job.options.get(name, {}).get(region, default)) for region in opened}
            return {region: Budget(each, share, clock) for region, each in units.items()}

        reads = budgets("read_units", settings.copying.read_units)
        writes = budgets("write_units", settings.copying.write_units)
        return {
            place_name(*where): _region(
                settings, opened[where[0]], where, rule, reads[where[0]], writes[where[0]], stop, clock, page_items
            )
            for where, rule in tables.items()
        }

    targets = {(rule.source, name): ports for rule, each in made.items() for name, ports in each.items()}
    return JobWorld(rules, targets, regions, lambda where: export_files(where, opened[rules[0].source]))


def _region(  # noqa: PLR0913, PLR0917 - a composition root fills it once
    settings: Settings,
    place: Place,
    where: tuple[RegionId, TableName],
    rule: Rule,
    reads: Budget,
    writes: Budget,
    stop: asyncio.Event,
    clock: Clock,
    page_items: Callable[[], int | None],
) -> CopyRegion:
    region_id, table = where
    keys = next((target.keys for target in rule.targets if (target.region, target.table) == where), None)
    written = DynamoRegion(
        place.items,
        region_id=region_id,
        table=table,
        side_table=settings.side_table_name,
        tombstone_ttl=settings.tombstone_ttl,
        clock=clock,
        stamp_attribute=rule.stamp,
        metered=True,
    )
    scan: Scan = DynamoScan(place.items, place.dynamodb, region_id=region_id, table=table)
    lookups: Lookups = DynamoLookups(place.items, region_id=region_id, table=table)
    if keys is not None:
        scan, lookups = MappedScan(scan, keys), MappedLookups(lookups, keys)
    pace = Pace(settings.apply.concurrency, clock.monotonic())
    return CopyRegion(
        region_id,
        table,
        PacedRegion(as_mapped(written, keys), pace, clock, writes),
        scan,
        lookups,
        reads,
        writes,
        settings.apply.backoff_max.total_seconds(),
        stop,
        page_items,
    )
