"""What was read of a shard and is not yet applied, by key.

A later record of a key can settle an earlier one: it supersedes a record that a replica refuses for good, and tells a
mesh who removed an item. Bounded: reading goes on only while there is room, in records and in bytes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from replicator.domain.records import ChangeRecord, ItemKey

_MOST_BYTES = 8 * 1024 * 1024


class ReadAhead:
    """Records of one pipeline that were read and not yet passed."""

    def __init__(self, most_records: int = 1000) -> None:
        self._by_key: dict[ItemKey, list[ChangeRecord]] = {}
        self._most_records = most_records
        self._records = 0
        self._bytes = 0
        self.grown = asyncio.Event()
        """Set, and replaced, whenever a page is added."""
        self.room = asyncio.Event()
        """Set while another page may be read."""
        self.room.set()

    def add(self, records: Sequence[ChangeRecord]) -> None:
        """A page was read; pages come in stream order."""
        for record in records:
            self._by_key.setdefault(record.key, []).append(record)
        self._count(records, 1)
        grown, self.grown = self.grown, asyncio.Event()
        grown.set()

    def drop(self, records: Sequence[ChangeRecord]) -> None:
        """A page was passed; it is the oldest that was added."""
        for record in records:
            later = self._by_key[record.key]
            del later[0]
            if not later:
                del self._by_key[record.key]
        self._count(records, -1)

    def _count(self, records: Sequence[ChangeRecord], sign: int) -> None:
        self._records += sign * len(records)
        images = (image for record in records for image in (record.old, record.new) if image is not None)
        self._bytes += sign * sum(len(image.wire) for image in images)
        if self._records < self._most_records and self._bytes < _MOST_BYTES:
            self.room.set()
        else:
            self.room.clear()

    def behind(self, key: ItemKey, number: int) -> tuple[ChangeRecord, ...]:
        """Records of a key behind a sequence number, in stream order."""
        return tuple(record for record in self._by_key.get(key, ()) if record.number > number)


class ByteBudget:
    """Bytes of records that were read and not yet applied, over all shards of a process."""

    def __init__(self, most_bytes: int) -> None:
        self._most_bytes = most_bytes
