"""Cache entries beside compared items: stale ones are read again before they count, and dropped where that is asked.

Invariant: an entry counts as stale only when it is older than the item in every look, the last of them a minute behind
the first: an action of a worker may be under way until then.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

from msgspec import Struct, field

from replicator.domain.cache_debt import OwedEntry
from replicator.domain.cache_keys import CacheAction, CacheRule, Invalidate
from replicator.domain.copying.entries import EntryState, entry_state, item_version
from replicator.domain.errors import Throttled
from replicator.domain.image import Image
from replicator.domain.records import ItemKey
from replicator.domain.rules import ActivePlan, Rule, Target, VersionedPlan
from replicator.domain.versions import STAMP
from replicator.engine.applying.cache_batcher import CacheFunnel
from replicator.engine.waiting import pause_or_raise
from replicator.ports.clock import Clock
from replicator.ports.targets import Fence

AGAIN_SECONDS = (1.0, 5.0, 60.0)
"""When a stale entry is read again, behind the look before."""

_BEGUN_SECONDS = 600.0
"""For so long a repair may wait for units of its table."""


class Entry(Struct, frozen=True):
    """A cache entry beside an item: the version that the item has."""

    cache: str
    cache_key: str
    key: ItemKey
    version: str | None


class Entries(Struct):
    """What a look at entries found."""

    checked: int
    opaque: int
    stale: Sequence[Entry]


class HoldOver(Throttled):
    """A change was not begun in the time for which its cache entries are held; it is looked at anew."""


class Hold(Struct, frozen=True):
    """Cache entries that are held for one change, which is begun under this fence."""

    fence: Fence
    clock: Clock
    until: float
    entries: list[tuple[CacheFunnel, Sequence[OwedEntry]]] = field(default_factory=list)

    def check(self) -> None:
        """Raise when nothing may be begun any more."""
        self.fence.check()
        if self.entries and self.clock.monotonic() > self.until:
            raise HoldOver("A repair waited too long for a write, and checks the item again.")

    def release(self) -> None:
        """The change came, or never will; without this its entries are dropped when it must be over."""
        for funnel, entries in self.entries:
            funnel.release(entries)


class CacheLooks:
    """The caches beside one rule's tables."""

    def __init__(self, rule: Rule, caches: Mapping[str, CacheFunnel], clock: Clock, stop: asyncio.Event) -> None:
        self._rule = rule
        self._caches = caches
        self._clock = clock
        self._stop = stop
        self._stamp = rule.mesh.policy.attribute if isinstance(rule.mesh, ActivePlan) else STAMP

    async def look(self, beside: Sequence[tuple[Target, ItemKey, Image]]) -> Entries:
        """Every entry that follows one of these items."""
        entries = [entry for target, key, image in beside for entry in self._entries(target, key, image)]
        return await self._judged(entries)

    def _entries(self, target: Target, key: ItemKey, image: Image) -> list[Entry]:
        versions = None if isinstance(self._rule.mesh, VersionedPlan) else item_version(image, self._stamp)
        keys = ((rule.cache, entry) for rule in target.caches if rule.publication is None for entry in rule.keys(image))
        return [Entry(cache, entry, key, versions) for cache, entry in keys]

    async def again(self, stale: Sequence[Entry]) -> Sequence[Entry]:
        """Those that stay stale. The item's version only grows, so that it was compared with stays good."""
        for seconds in AGAIN_SECONDS:
            if not stale:
                break
            await pause_or_raise(self._stop, seconds)
            stale = (await self._judged(stale)).stale
        return stale

    async def drop(self, stale: Sequence[Entry], fence: Fence) -> None:
        """Drop entries: readers fill them anew."""
        for cache in {entry.cache for entry in stale}:
            actions = [Invalidate(entry.cache_key) for entry in stale if entry.cache == cache]
            await self._caches[cache].apply(actions, fence)

    async def drop_of(self, target: Target, images: Sequence[Image], fence: Fence) -> None:
        """Drop every entry that one of these images has beside a target."""
        for rule in target.caches:
            await self._caches[rule.cache].apply(_drops(rule, images), fence)

    async def hold_of(self, target: Target, images: Sequence[Image], fence: Fence, *, after: float) -> Hold:
        """Note durably that they are to be dropped behind a change of theirs, which is begun under the hold's fence.

        What is begun until that refuses may come so many seconds `after`; so nothing is dropped before by others.
        """
        hold = Hold(fence, self._clock, self._clock.monotonic() + _BEGUN_SECONDS)
        for rule in target.caches:
            funnel = self._caches[rule.cache]
            hold.entries.append((funnel, await funnel.hold(_drops(rule, images), _BEGUN_SECONDS + after, fence)))
        return hold

    async def _judged(self, entries: Sequence[Entry]) -> Entries:
        found = Entries(0, 0, ())
        stale: list[Entry] = []
        for cache in dict.fromkeys(entry.cache for entry in entries):
            ours = [entry for entry in entries if entry.cache == cache]
            heads = await self._caches[cache].heads([entry.cache_key for entry in ours])
            for entry, head in zip(ours, heads, strict=True):
                state = entry_state(head, entry.version)
                found.checked += state is not EntryState.NONE
                found.opaque += state is EntryState.OPAQUE
                if state is EntryState.STALE:
                    stale.append(entry)
        found.stale = stale
        return found


def _drops(rule: CacheRule, images: Sequence[Image]) -> list[CacheAction]:
    return [rule.drop(key) for key in dict.fromkeys(key for image in images for key in rule.key.keys(image))]
