"""Whether a cache shows what its table holds: some of the entries that were acted on are read again, and counted.

A sample is looked at 1, 5 and 60 seconds behind its action, the table consistently. Invariant: nothing waits for it,
and what it takes is bounded: reads per second, and samples kept, beyond which changes are passed over and counted.
Samples live in memory: another process begins anew.
"""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Sequence
from itertools import count

import msgspec

from replicator.domain.cache_horizons import HORIZONS, Horizon, Meaning, VerifyPolicy, meaning
from replicator.domain.cache_keys import Invalidate, Publish
from replicator.domain.errors import ReplicatorError
from replicator.domain.identifiers import RegionId
from replicator.domain.modes.requests import Found, GetItem
from replicator.domain.records import ItemKey
from replicator.domain.versions import STAMP
from replicator.engine.applying.cache_batcher import CacheRequest
from replicator.engine.waiting import Flag
from replicator.ports.clock import Clock
from replicator.ports.events import CacheHorizons, Inconsistency, Observer
from replicator.ports.targets import OPEN, Cache, Region

_REST_SECONDS = 600.0
_SECONDS = 3.0


class ItemPlace(msgspec.Struct, frozen=True, eq=False):
    """An item beside a cache, the attribute that holds its version, and whether versions of its entries compare."""

    key: ItemKey
    region: Region
    stamp: str = STAMP
    judged: bool = True


class _Sample(msgspec.Struct, frozen=True, eq=False):
    """An entry that was acted on at a time, and the version of the change."""

    entry: str
    item: ItemPlace
    version: str | None
    at: float


class CacheVerifier:
    """One cache, verified by this worker."""

    def __init__(  # noqa: PLR0913 - its collaborators, given once
        self,
        name: str,
        region: RegionId,
        cache: Cache,
        policy: VerifyPolicy,
        *,
        clock: Clock,
        observer: Observer,
    ) -> None:
        """`cache`: what stands in front of it, so that a repair that it does not carry out is owed."""
        self.name = name
        self.region = region
        self.wake = Flag()
        self._cache = cache
        self._policy = policy
        self._clock = clock
        self._observer = observer
        self._left = policy.every
        self._due: list[tuple[float, int, int, _Sample]] = []
        """When, a number that tells them apart, which horizon, and what."""
        self._numbers = count()
        self._horizons = tuple(map(Horizon, HORIZONS))
        self._passed_over = 0
        self._wrong: list[str] = []
        """Entries that are to be dropped; what could not be dropped or owed is tried again before anything is read."""

    def acted(self, request: CacheRequest, place: ItemPlace, version: str | None) -> None:
        """A change was acted on; some are taken. `version`: what it made of its item, None where that is not known."""
        if request.rule is not None and request.rule.publication is not None:
            return  # a message is no entry
        if self._left > len(request.actions):
            self._left -= len(request.actions)
            return
        for action in request.actions:
            if isinstance(action, Publish):
                continue
            self._left -= 1
            if self._left <= 0:
                self._left = self._policy.every
                if not place.judged or (request.rule is not None and request.rule.key.lacks(place.key.names)):
                    for horizon in self._horizons:  # another item may have the same entry, or versions say nothing
                        horizon.found[Meaning.OPAQUE] += 1
                    self._tell()
                else:
                    self._take(_Sample(action.key, place, version, self._clock.monotonic()))

    def _take(self, sample: _Sample) -> None:
        if len(self._due) >= self._policy.most:
            self._passed_over += 1
            return
        if not self._due:
            self.wake.set()
        self._put(sample, 0)

    def _put(self, sample: _Sample, place: int) -> None:
        heapq.heappush(self._due, (sample.at + HORIZONS[place], next(self._numbers), place, sample))

    async def look(self) -> float:
        """Read again what is due, a second's worth at most; returns in how many seconds to look again."""
        await self._repair()
        now = self._clock.monotonic()
        due: list[tuple[int, _Sample]] = []
        while self._due and self._due[0][0] <= now and len(due) < self._policy.reads:
            _, _, place, sample = heapq.heappop(self._due)
            due.append((place, sample))
        if due:
            await self._read(due)
            return 1.0
        return max(0.01, self._due[0][0] - now) if self._due else _REST_SECONDS

    async def _read(self, due: Sequence[tuple[int, _Sample]]) -> None:
        for (place, sample), found in zip(due, await self._meanings(due), strict=True):
            self._horizons[place].found[found] += 1
            if place + 1 < len(HORIZONS):
                self._put(sample, place + 1)
            if found is Meaning.INCONSISTENT:
                self._observer.cache_inconsistent(
                    Inconsistency(self.name, self.region, sample.entry, sample.version, HORIZONS[place])
                )
                self._wrong.append(sample.entry)
        self._tell()
        await self._repair()

    async def _repair(self) -> None:
        if self._wrong:
            await self._cache.apply([Invalidate(entry) for entry in self._wrong])
            self._wrong = []

    def _tell(self) -> None:
        self._observer.cache_verified(CacheHorizons(self.name, self.region, self._horizons, self._passed_over))

    async def _meanings(self, due: Sequence[tuple[int, _Sample]]) -> list[Meaning]:
        at = self._clock.now()
        try:
            async with asyncio.timeout(_SECONDS):
                heads = await self._cache.heads([sample.entry for _, sample in due])
        except (ReplicatorError, TimeoutError):
            return [Meaning.UNREAD] * len(due)
        begun = (at - HORIZONS[place] for place, _ in due)
        looks = zip(heads, due, begun, strict=True)
        return await asyncio.gather(*(self._meaning(head, sample, before) for head, (_, sample), before in looks))

    async def _meaning(self, head: bytes, sample: _Sample, before: float) -> Meaning:
        if not head:
            return Meaning.ABSENT  # and the table need not be read
        try:
            async with asyncio.timeout(_SECONDS):
                found = await sample.item.region.execute(GetItem(sample.item.key), OPEN)
        except (ReplicatorError, TimeoutError):
            return Meaning.UNREAD
        assert isinstance(found, Found), "a read answers with what it found"
        return meaning(head, found.item, sample.version, before, sample.item.stamp)
