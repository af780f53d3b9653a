"""Jobs in the small world of the engine: the rows of jobs, scans of every table, and processes that work on them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from replicator.domain.identifiers import RegionId, RuleName, TableName
from replicator.domain.image import Image
from replicator.domain.jobs import Job, JobKind, JobState, parts_of, place_name
from replicator.domain.pacing import Pace
from replicator.domain.records import ItemKey
from replicator.domain.rules import Rule
from replicator.domain.targets import TargetId
from replicator.domain.values import replace
from replicator.engine.applying.context import TargetPorts
from replicator.engine.applying.paced_region import PacedRegion
from replicator.engine.copying import bootstraps, uninstalling, verification
from replicator.engine.copying.applied import Margins
from replicator.engine.copying.budgets import Budget
from replicator.engine.copying.handlers import Handler, JobContext
from replicator.engine.copying.region import CopyRegion
from replicator.engine.copying.runner import JobPorts, JobRunner, JobWorld
from replicator.engine.limits import Limits
from replicator.engine.mapped_tables import MappedLookups, MappedRegion, MappedScan
from replicator.laboratory.memory import Faults, MemoryJobs, MemoryRegion, MemoryScan
from replicator.laboratory.memory.lookups import MemoryLookups
from replicator.ports.copying import Scan
from replicator.ports.exports import ExportFiles
from replicator.ports.lookups import Lookups
from replicator.ports.targets import Region
from tests.engine.world import EU, ORDERS, US, Process, World, eu_rule, id_of

SIDE = TableName("side")
MARGINS = Margins(margin_seconds=5.0, yield_seconds=60.0)


def job(kind: JobKind = JobKind.BOOTSTRAP, segments: int = 4, **choices: Any) -> Job:
    """A job of the small rule on its replica."""
    plain = Job(
        "a1", kind, eu_rule().name, ORDERS, (id_of("orders/eu"),), parts_of([(US, ORDERS)], segments), items=100
    )
    return replace(plain, **choices)


class Files:
    """An export's files below a directory, read without a thread: virtual time waits for none."""

    def __init__(self, root: Path) -> None:
        self._root = root

    async def names(self, under: str) -> list[str]:
        found = (path.relative_to(self._root).as_posix() for path in self._root.rglob("*") if path.is_file())
        return sorted(name for name in found if name.startswith(under))

    async def read(self, name: str) -> bytes:
        return (self._root / name).read_bytes()

    async def chunks(self, name: str) -> AsyncIterator[bytes]:
        content = (self._root / name).read_bytes()
        for first in range(0, len(content), 1000):
            yield content[first : first + 1000]


class JobWorldOf:
    """The jobs of a world."""

    def __init__(self, world: World, *, page_items: int = 10, seed: int = 0, write_units: int | None = None) -> None:
        """`write_units`: what a job may take of them per second; None: more than it needs."""
        self.world = world
        self.write_units = write_units
        self.rows = MemoryJobs(Faults(seed))
        self.kinds: dict[JobKind, Callable[[JobContext], Handler]] = {
            **bootstraps.KINDS,
            **verification.KINDS,
            **uninstalling.KINDS,
        }
        self.rewritten: dict[RuleName, Rule] = {}
        """Rules as they are since the configuration was read again."""
        self.side = MemoryRegion()
        """The replica's side table, as DynamoDB scans it: rows are items."""
        self.scans = {US: MemoryScan(lambda: world.source.items, world.now, page_items=page_items)}
        for region in world.regions:
            self.scans[region] = MemoryScan(partial(self._held, region), world.now, page_items=page_items)

    def _held(self, region: RegionId) -> dict[ItemKey, Image]:
        return dict(self.world.regions[region].items())

    def process(self, *rules: Rule, limits: Limits | None = None, **choices: Any) -> Process:
        return self.world.process(*rules, limits=limits, jobs=self._runner, **choices)

    def exports(self, where: str) -> tuple[ExportFiles, str]:
        """Where exports lie."""
        return Files(Path(where)), ""

    async def state(self, job_id: str = "a1") -> JobState:
        return next(job.state for job in await self.rows.jobs() if job.job_id == job_id)

    async def ended(self, job_id: str = "a1", within: float = 600.0) -> Job:
        """The job, once it is over."""
        async with asyncio.timeout(within):
            while True:
                for each in await self.rows.jobs():
                    if each.job_id == job_id and not each.state.is_open:
                        return each
                await asyncio.sleep(0.1)

    def _region(self, name: RegionId) -> Region:
        """A table of the world; the source can only be read."""
        return self.world.source if name == US else self.world.regions[name]

    def _lookups(self, name: RegionId) -> Lookups:
        world = self.world
        return MemoryLookups(world.source.items.get if name == US else world.regions[name].item)

    def _runner(
        self, process: Process, rules: Sequence[Rule], targets: Mapping[TargetId, TargetPorts], limits: Limits
    ) -> JobRunner:
        world, clock = self.world, process.clock

        def regions(
            share: Callable[[], float], stop: asyncio.Event, page_items: Callable[[], int | None]
        ) -> dict[str, CopyRegion]:
            def budget(units: int | None = None) -> Budget:
                return Budget(units or 1_000_000, share, clock)

            keys = {place.region: place.keys for each in rules for place in each.targets if place.table is not None}

            def copied(name: RegionId, table: TableName, region: Region, scan: Scan) -> CopyRegion:
                reads, writes, lookups = budget(), budget(self.write_units), self._lookups(name)
                mapping = keys.get(name) if table != SIDE else None
                if mapping is not None:
                    region, scan, lookups = (
                        MappedRegion(region, mapping), MappedScan(scan, mapping), MappedLookups(lookups, mapping)
                    )  # fmt: skip
                if self.write_units is not None:
                    region = PacedRegion(region, Pace(64, clock.monotonic()), clock, writes)
                return CopyRegion(name, table, region, scan, lookups, reads, writes, 20.0, stop, page_items)

            made = {
                place_name(name, ORDERS): copied(name, ORDERS, self._region(name), scan)
                for name, scan in self.scans.items()
            }
            side_scan = MemoryScan(lambda: dict(self.side.items()), world.now, page_items=3)
            return {**made, place_name(EU, SIDE): copied(EU, SIDE, self.side, side_scan)}

        by_source = {(US, name): ports for name, ports in targets.items()}

        def now() -> list[Rule]:
            return [self.rewritten.get(each.name, each) for each in rules]

        async def made(asked: Job) -> JobWorld | None:
            ours = [each for each in now() if each.name == asked.rule]
            return JobWorld(ours, by_source, regions, self.exports) if ours else None

        ports = JobPorts(self.rows, world.coordination, world.registry, made, now, self.kinds, MARGINS)
        return JobRunner(ports, limits=limits, clock=clock, observer=process.observer)
