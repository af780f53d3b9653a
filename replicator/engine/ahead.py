"""What was read of a shard and is not yet applied, by key.

A later record of a key can settle an earlier one: it supersedes a record that a replica refuses for good. Bounded by
the pipeline: pages that were read ahead, and no more.
"""

from __future__ import annotations

from collections.abc import Sequence

from replicator.domain.records import ChangeRecord, ItemKey


class ReadAhead:
    """Records of one pipeline behind the page in hand."""

    def __init__(self) -> None:
        self._by_key: dict[ItemKey, list[ChangeRecord]] = {}

    def add(self, records: Sequence[ChangeRecord]) -> None:
        """A page was read; pages come in stream order."""
        for record in records:
            self._by_key.setdefault(record.key, []).append(record)

    def drop(self, records: Sequence[ChangeRecord]) -> None:
        """A page is in hand now; it is the oldest that was added."""
        for record in records:
            later = self._by_key[record.key]
            del later[0]
            if not later:
                del self._by_key[record.key]

    def of(self, key: ItemKey) -> tuple[ChangeRecord, ...]:
        """Records of a key behind the page in hand, in stream order."""
        return tuple(self._by_key.get(key, ()))
