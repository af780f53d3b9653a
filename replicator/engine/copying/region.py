"""A region's table as one job reads and writes it: within its budget, and tried again until the work is to stop."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from msgspec import Struct

from replicator.domain.canary import is_canary
from replicator.domain.errors import Disposition, ReplicatorError, Throttled
from replicator.domain.identifiers import RegionId, TableName
from replicator.domain.modes.requests import Request, Response
from replicator.domain.records import ItemKey
from replicator.domain.values import replace
from replicator.engine.copying.budgets import Budget
from replicator.engine.waiting import pause_or_raise, retry_in
from replicator.ports.copying import Scan, ScannedPage
from replicator.ports.lookups import LookedUp, Lookups
from replicator.ports.targets import Fence, Region

_PAGE_UNITS = 32
"""What a page of a scan is taken to cost before it is known; what it did cost is set right behind it."""

Answer = TypeVar("Answer")


class CopyRegion(Struct, frozen=True):
    """One region of a job. `region` stands behind the job's pace and its write units.

    `page_items`: how many items a page may have now; None: as many as an answer holds.
    """

    name: RegionId
    table: TableName
    region: Region
    table_scan: Scan
    lookups: Lookups
    reads: Budget
    writes: Budget
    longest_backoff: float
    stop: asyncio.Event
    page_items: Callable[[], int | None]

    async def scan(self, segment: int, of: int, after: str | None) -> ScannedPage:
        """The next page of a segment, as soon as its read units are there; without canaries."""
        lane = segment

        async def page() -> ScannedPage:
            await self.reads.take(_PAGE_UNITS, lane)
            try:
                found = await self.table_scan.page(segment, of, after, self.page_items())
            except ReplicatorError:
                self.reads.settle(_PAGE_UNITS, 0)
                raise
            self.reads.settle(_PAGE_UNITS, found.units)
            return replace(found, items=tuple(item for item in found.items if not is_canary(item.key)))

        return await self.until_answered(page, self.reads)

    async def lookup(self, keys: Sequence[ItemKey]) -> LookedUp:
        """The items of at most `MOST_KEYS` keys."""
        expected = len(keys)

        async def look() -> LookedUp:
            await self.reads.take(expected, keys[0])
            try:
                found = await self.lookups.items(keys)
            except ReplicatorError:
                self.reads.settle(expected, 0)
                raise
            self.reads.settle(expected, found.units)
            return found

        return await self.until_answered(look, self.reads)

    async def execute(self, request: Request, fence: Fence) -> Response:
        """Carry a request out; what is thrown back or gets no answer is tried again, `Stopped` ends that."""
        return await self.until_answered(lambda: self.region.execute(request, fence), self.writes)

    async def until_answered(self, call: Callable[[], Awaitable[Answer]], budget: Budget) -> Answer:
        """The answer of a call that may be repeated."""
        attempt = 0
        while True:
            try:
                return await call()
            except ReplicatorError as error:
                if error.disposition is not Disposition.RETRY:
                    raise
                if isinstance(error, Throttled):
                    budget.throttled()
                attempt += 1
                await pause_or_raise(self.stop, retry_in(error, attempt, self.longest_backoff))
