"""Items of a table in memory by their keys, many at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from replicator.domain.image import Image
from replicator.domain.records import ItemKey
from replicator.laboratory.memory.faults import Faults
from replicator.ports.lookups import LookedUp


class MemoryLookups:
    """One table; an item costs a unit."""

    def __init__(self, item: Callable[[ItemKey], Image | None], faults: Faults | None = None) -> None:
        """`item`: what a key holds."""
        self._item = item
        self.faults = faults or Faults()

    async def items(self, keys: Sequence[ItemKey]) -> LookedUp:
        """The items of these keys."""
        async with self.faults.around("BatchGetItem"):
            found = ((key, self._item(key)) for key in keys)
            return LookedUp({key: item for key, item in found if item is not None}, float(len(keys)))
