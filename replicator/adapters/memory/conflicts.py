"""A conflict log in memory. Invariant: an entry that is written again is there once."""

from __future__ import annotations

from replicator.adapters.memory.faults import Faults
from replicator.domain.requests import LogConflict
from replicator.domain.rules import Target


class MemoryConflictLog:
    """Entries by target, in the order in which they were first written."""

    def __init__(self, faults: Faults | None = None) -> None:
        self.faults = faults or Faults()
        self._entries: dict[tuple[str, LogConflict], None] = {}

    async def write(self, target: Target, entry: LogConflict) -> None:
        """Make the entry durable."""
        async with self.faults.around("conflict"):
            self._entries[(target.target_id, entry)] = None

    def entries(self, target_id: str) -> list[LogConflict]:
        """What was logged for one target."""
        return [entry for owner, entry in self._entries if owner == target_id]
