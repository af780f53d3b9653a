"""A conflict log in memory. Invariant: an entry that is written again is there once, as it was first written."""

from __future__ import annotations

from replicator.domain.conflicts import ConflictEntry
from replicator.domain.identifiers import RuleName
from replicator.laboratory.memory.faults import Faults


class MemoryConflictLog:
    """Entries in the order in which they were first written."""

    def __init__(self, faults: Faults | None = None) -> None:
        self.faults = faults or Faults()
        self._entries: dict[str, ConflictEntry] = {}

    async def write(self, entry: ConflictEntry) -> None:
        """Make the entry durable."""
        async with self.faults.around("conflict"):
            self._entries.setdefault(entry.id, entry)

    def entries(self, rule: RuleName) -> list[ConflictEntry]:
        """What was logged for one rule."""
        return [entry for entry in self._entries.values() if entry.rule == rule]
