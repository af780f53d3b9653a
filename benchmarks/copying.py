"""What a bootstrap costs beside bare conditional writes, and a comparison: `python -m benchmarks.copying`.

Both write the same items, as the transactions that a bootstrap needs, into empty tables of one local server, one after
the other and again. The local server bounds what passes in a second; what a worker could do is what a core could, had
it nothing else to do: one second divided by the processor time of an item in this process. The handler, its regions and
the transport are the program's own; only the wait for the stream is left out. The comparison is of what was copied,
both ways; it counts an item of each scan.
"""

from __future__ import annotations

import argparse
import asyncio
import resource
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

from pydantic import HttpUrl

from replicator.adapters.aws.clients import ClientTimes, Place, open_place
from replicator.adapters.clock import SystemClock
from replicator.adapters.dynamodb.lookups import DynamoLookups
from replicator.adapters.dynamodb.scans import DynamoScan
from replicator.adapters.dynamodb.tables import DynamoRegion
from replicator.domain.copying.ordered import base_version
from replicator.domain.identifiers import RegionId, RuleName, TableName
from replicator.domain.jobs import Job, JobKind, Part, Segment, added, place_name
from replicator.domain.modes.requests import AbsentOrStampBelow, GuardedPut, Put, TombstoneBelow
from replicator.domain.pacing import Pace
from replicator.domain.rules import Rule, Target
from replicator.domain.shards.leases import StreamRef
from replicator.engine.applying.context import TargetPorts
from replicator.engine.applying.paced_region import PacedRegion
from replicator.engine.copying import bootstraps, verification
from replicator.engine.copying.budgets import Budget
from replicator.engine.copying.handlers import Handler, JobContext
from replicator.engine.copying.region import CopyRegion
from replicator.laboratory.memory import MemoryConflictLog, MemoryJobs
from replicator.laboratory.servers import MiniStack, clean_environment
from replicator.ports.copying import ScannedItem
from replicator.ports.targets import OPEN
from replicator.settings import Region

_SIDE = "replicator-side-bench"
_ITEM_BYTES = 300
_AT_ONCE = 128
_MOST_UNITS = 10_000_000
LEAST_SHARE, LEAST_PER_CORE, LEAST_COMPARED = 0.4, 10_000, 20_000
CLOCK = SystemClock()
_HANDLERS: Mapping[JobKind, tuple[Callable[[JobContext], Handler], str]] = {
    JobKind.BOOTSTRAP: (bootstraps.KINDS[JobKind.BOOTSTRAP], "copied"),
    JobKind.VERIFY: (verification.KINDS[JobKind.VERIFY], "compared"),
}
"""Who does each kind, and the count of items that are done."""


@dataclass(frozen=True, slots=True)
class Cost:
    """What one way took: items, seconds on the wall, and processor seconds of this process."""

    items: int
    seconds: float
    processor_seconds: float

    @property
    def per_core(self) -> float:
        """Items that a core could bring in a second."""
        return self.items / self.processor_seconds


class _Passed:
    """A stream that has passed everything."""

    zombie_seconds = 0.0

    async def reads(self, rule: Rule, _: Target) -> StreamRef:
        return StreamRef(rule.source, rule.table, "", 1)


def _region(place: Place, table: str) -> DynamoRegion:
    return DynamoRegion(
        place.items,
        region_id="us",
        table=table,
        side_table=_SIDE,
        tombstone_ttl=timedelta(days=7),
        clock=CLOCK,
        metered=True,
    )


def _copy_region(place: Place, table: str) -> CopyRegion:
    def budget() -> Budget:
        return Budget(_MOST_UNITS, lambda: 1.0, CLOCK)

    writes = budget()
    return CopyRegion(
        RegionId("us"),
        TableName(table),
        PacedRegion(_region(place, table), Pace(_AT_ONCE, CLOCK.monotonic()), CLOCK, writes),
        DynamoScan(place.items, place.dynamodb, region_id="us", table=table),
        DynamoLookups(place.items, region_id="us", table=table),
        budget(),
        writes,
        1.0,
        asyncio.Event(),
        lambda: None,
    )


async def _create(place: Place, table: str, key: str = "pk") -> None:
    await place.dynamodb.create_table(
        TableName=table,
        KeySchema=[{"AttributeName": key, "KeyType": "HASH"}],
        AttributeDefinitions=[{"AttributeName": key, "AttributeType": "S"}],
        BillingMode="PAY_PER_REQUEST",
    )


async def _fill(place: Place, table: str, items: int) -> None:
    for first in range(0, items, 25):
        batch: Any = [
            {"PutRequest": {"Item": {"pk": {"S": f"item-{number}"}, "value": {"S": "x" * _ITEM_BYTES}}}}
            for number in range(first, min(first + 25, items))
        ]
        await place.dynamodb.batch_write_item(RequestItems={table: batch})


async def _measured(work: Callable[[], Awaitable[int]]) -> Cost:
    began, used = time.perf_counter(), time.process_time()
    items = await work()
    return Cost(items, time.perf_counter() - began, time.process_time() - used)


async def _bare(place: Place, source: str, table: str) -> int:
    """The same transactions, one behind the other in as many lanes, with items that are at hand."""
    scan, after, items = (
        DynamoScan(place.items, place.dynamodb, region_id="us", table=source),
        None,
        list[ScannedItem](),
    )
    while True:
        page = await scan.page(0, 1, after)
        items += page.items
        after = page.after
        if after is None:
            break
    region, base, left = _region(place, table), base_version(0, 1), iter(items)

    async def some() -> None:
        for item in left:
            put = Put(item.key, item.image, base, AbsentOrStampBelow(base))
            await region.execute(GuardedPut(put, TombstoneBelow(base)), OPEN)

    async with asyncio.TaskGroup() as group:
        for _ in range(_AT_ONCE):
            group.create_task(some())
    return len(items)


async def _job(place: Place, source: str, table: str, kind: JobKind) -> int:
    """What a worker does with a job, page after page of two segments side by side; how many items it brought."""
    us, rule_name = RegionId("us"), RuleName("bench")
    target = Target(rule_name, us, TableName(table))
    rule = Rule(rule_name, us, TableName(source), (target,))
    tables = {place_name(us, TableName(name)): _copy_region(place, name) for name in (source, table)}
    scanned = list(tables) if kind is JobKind.VERIFY else list(tables)[:1]
    parts = tuple(Part(name, 2) for name in scanned)
    job = Job("bench", kind, rule_name, rule.table, (target.target_id,), parts)
    ports = TargetPorts(None, {}, MemoryConflictLog())
    applied: Any = _Passed()
    members: Any = None
    context = JobContext(
        job, [rule], tables, {(us, target.target_id): ports}, applied, members, MemoryJobs(), CLOCK, asyncio.Event()
    )
    handler, counted = _HANDLERS[kind][0](context), _HANDLERS[kind][1]

    async def segment(part: Part, index: int) -> int:
        one, position, done = Segment(job.job_id, part.name, index, 2), None, 0
        while True:
            look = await handler.look(one, position)
            counts = added(look.counts, await handler.act(one, look, OPEN))
            assert not counts.get("differences"), "what was copied is equal"
            done += int(counts.get(counted, 0))
            position = look.after
            if position is None:
                return done

    return sum(await asyncio.gather(*(segment(part, index) for part in parts for index in range(2))))


async def measure(items: int, rounds: int) -> bool:
    """Print a line per round; returns whether the bars are held."""
    with tempfile.TemporaryDirectory() as directory, MiniStack.start(Path(directory)) as server:
        settings = Region(region="us-east-1", endpoint_url=HttpUrl(server.endpoint_url))
        async with open_place("us", settings, ClientTimes(), connections=_AT_ONCE, lean=_refuse) as place:
            await _create(place, _SIDE, "k")
            await _create(place, "source")
            await _fill(place, "source", items)
            shares = []
            for number in range(rounds):
                await _create(place, f"bare-{number}")
                await _create(place, f"copy-{number}")
                bare = await _measured(partial(_bare, place, "source", f"bare-{number}"))
                job = partial(_job, place, "source", f"copy-{number}")
                copy = await _measured(partial(job, JobKind.BOOTSTRAP))
                compared = await _measured(partial(job, JobKind.VERIFY))
                assert compared.items == items, f"{compared.items} of {items} items were compared"
                assert bare.items == copy.items == items, f"{bare.items} and {copy.items} of {items} items were written"
                shares.append(copy.per_core / bare.per_core)
                peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
                sys.stdout.write(
                    f"bare {bare.per_core:,.0f} items/s/core ({bare.items / bare.seconds:,.0f}/s on the wall),"
                    f" bootstrap {copy.per_core:,.0f} ({copy.items / copy.seconds:,.0f}/s):"
                    f" {shares[-1]:.0%} of bare writes; comparison {compared.per_core:,.0f}"
                    f" ({compared.items / compared.seconds:,.0f}/s); peak memory {peak} MB\n"
                )
            held = max(shares) >= LEAST_SHARE or copy.per_core >= LEAST_PER_CORE
            sys.stdout.write(f"bar ({LEAST_SHARE:.0%} of bare writes, or {LEAST_PER_CORE:,}/s/core): {held}\n")
            sys.stdout.write(f"bar ({LEAST_COMPARED:,} compared/s/core): {compared.per_core >= LEAST_COMPARED}\n")
            return held and compared.per_core >= LEAST_COMPARED


def _refuse(region: str, why: str) -> None:
    raise SystemExit(f"the lean transport does not serve in {region}: {why}")


def main() -> int:
    """Measure, and fail below the bars."""
    import os

    os.environ.update({name: value for name, value in clean_environment().items() if name.startswith("AWS_")})
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--items", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    return 0 if asyncio.run(measure(options.items, options.rounds)) else 1


if __name__ == "__main__":
    sys.exit(main())
