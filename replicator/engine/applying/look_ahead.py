"""What was read of a shard and is not yet applied, searched for later records of a key."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Mapping, Sequence

from replicator.domain.coalescing import in_order
from replicator.domain.records import ChangeRecord, ItemKey, StreamRecord, changes
from replicator.engine.reading.memory_budget import _MOST_BYTES, weight


class ReadAhead:
    """Records of one pipeline that were read and not yet passed.

    `along`: asked with the bytes that are held, whether more are kept that another target has read.
    """

    def __init__(self, most_records: int = 1000, along: Callable[[int], bool] = lambda _: False) -> None:
        self._pages: deque[tuple[Sequence[StreamRecord], int]] = deque()
        """With their bytes."""
        self._by_key: dict[ItemKey, list[ChangeRecord]] | None = None
        """Their records by key; made when it is first asked for, which most targets never do."""
        self._most_records = most_records
        self._along = along
        self._records = 0
        self._bytes = 0
        self._carried: Mapping[ItemKey, Sequence[ChangeRecord]] = {}
        self._wanted = 0
        self._rests = False
        self.room = asyncio.Event()
        """Set while another page may be read."""
        self.room.set()

    def add(self, records: Sequence[StreamRecord]) -> None:
        """A page was read; pages come in stream order."""
        size = weight(records)
        self._pages.append((records, size))
        if self._by_key is not None:
            _index(self._by_key, records)
        self._count(len(records), size)

    def drop(self, records: Sequence[StreamRecord]) -> None:
        """A page was passed; it is the oldest that was added."""
        _, size = self._pages.popleft()
        if self._by_key is not None:
            for record in changes(records):
                later = self._by_key[record.key]
                del later[0]
                if not later:
                    del self._by_key[record.key]
        self._rests = False
        self._count(-len(records), -size)

    def _count(self, records: int, size: int) -> None:
        self._records += records
        self._bytes += size
        self._open()

    def _open(self) -> None:
        has_use = self._wanted > 0 or not self._rests
        if has_use and self._records < self._most_records and self._bytes < _MOST_BYTES:
            self.room.set()
        else:
            self.room.clear()

    def behind(self, key: ItemKey, number: int) -> tuple[ChangeRecord, ...]:
        """Records of a key behind a sequence number, in stream order."""
        if self._by_key is None:
            self._by_key = {}
            for page, _ in self._pages:
                _index(self._by_key, page)
        carried = self._carried.get(key, ())
        first = max(number, *(record.number for record in carried)) if carried else number
        return (
            *(record for record in carried if record.number > number),
            *(record for record in self._by_key.get(key, ()) if record.number > first),
        )

    def in_order(self, key: ItemKey, records: Sequence[ChangeRecord]) -> Sequence[ChangeRecord]:
        """Records of a key as they were made: of a source without order with those that come later, made before."""
        if not records[0].micros:
            return records
        later = self.behind(key, max(record.number for record in records))
        earlier = [record for record in later if record.micros < records[-1].micros]
        return in_order((*records, *earlier)) if earlier else records

    def carry(self, records: Mapping[ItemKey, Sequence[ChangeRecord]]) -> None:
        """Records of keys that wait while their pages are passed, in stream order: no others are kept from now on."""
        self._carried = records

    def need(self, by: int) -> None:
        """One more (1) or less (-1) is refused for good until more was read: then no bytes are waited for."""
        self._wanted += by
        self._open()

    def rest(self) -> None:
        """Nothing is applied: what comes next is of no use before a page was passed, unless something waits for it."""
        self._rests = True
        self._open()

    def takes_along(self) -> bool:
        """Whether a page that another target has read is kept for this one, though there is no room to read one."""
        return self._along(self._bytes)

    def urgent(self) -> bool:
        """Whether something waits for what comes next."""
        return self._wanted > 0


def _index(by_key: dict[ItemKey, list[ChangeRecord]], records: Sequence[StreamRecord]) -> None:
    for record in changes(records):
        by_key.setdefault(record.key, []).append(record)
