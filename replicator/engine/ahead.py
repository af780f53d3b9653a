"""What was read of a shard and is not yet applied, by key.

A later record of a key can settle an earlier one: it supersedes a record that a replica refuses for good, and tells a
mesh who removed an item. Bounded by the pipeline: the page in hand, pages that were read ahead, and no more.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from replicator.domain.records import ChangeRecord, ItemKey


class ReadAhead:
    """Records of one pipeline that were read and not yet passed."""

    def __init__(self) -> None:
        self._by_key: dict[ItemKey, list[ChangeRecord]] = {}
        self.grown = asyncio.Event()
        """Set, and replaced, whenever a page is added."""

    def add(self, records: Sequence[ChangeRecord]) -> None:
        """A page was read; pages come in stream order."""
        for record in records:
            self._by_key.setdefault(record.key, []).append(record)
        grown, self.grown = self.grown, asyncio.Event()
        grown.set()

    def drop(self, records: Sequence[ChangeRecord]) -> None:
        """A page was passed; it is the oldest that was added."""
        for record in records:
            later = self._by_key[record.key]
            del later[0]
            if not later:
                del self._by_key[record.key]

    def behind(self, key: ItemKey, number: int) -> tuple[ChangeRecord, ...]:
        """Records of a key behind a sequence number, in stream order."""
        return tuple(record for record in self._by_key.get(key, ()) if record.number > number)
