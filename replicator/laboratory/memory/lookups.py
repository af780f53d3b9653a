"""Items of a region in memory by their keys, many at a time."""

from __future__ import annotations

from collections.abc import Sequence

from replicator.domain.records import ItemKey
from replicator.laboratory.memory.region import MemoryRegion
from replicator.ports.lookups import LookedUp


class MemoryLookups:
    """One table; an item costs a unit."""

    def __init__(self, region: MemoryRegion) -> None:
        self._region = region

    async def items(self, keys: Sequence[ItemKey]) -> LookedUp:
        """The items of these keys."""
        async with self._region.faults.around("BatchGetItem"):
            found = ((key, self._region.item(key)) for key in keys)
            return LookedUp({key: item for key, item in found if item is not None}, float(len(keys)))
