"""A sink of events in memory, which takes some events of a call and not others, and remembers what it took."""

from __future__ import annotations

from collections.abc import Sequence

from replicator.domain.errors import LeaseLost, PoisonRecord, ReplicatorError, Throttled
from replicator.domain.item_events import EventShape, ItemEvent
from replicator.laboratory.memory.faults import Faults
from replicator.ports.targets import OPEN, Fence


class MemorySink:
    """One place of events."""

    def __init__(self, faults: Faults | None = None, *, most: int = 10, at_once: int = 4) -> None:
        self.shape = EventShape()
        self.most = most
        self.at_once = at_once
        self.faults = faults or Faults()
        self.entries = Faults()
        """Failures of single events of a call that succeeds."""
        self.taken: list[ItemEvent] = []
        self.poisoned: set[str] = set()
        """Partition keys whose events are refused."""
        self.calls: list[int] = []

    async def send(self, events: Sequence[ItemEvent], fences: Sequence[Fence] = ()) -> Sequence[ReplicatorError | None]:
        """Take events of different keys."""
        async with self.faults.around("Send"):
            self.calls.append(len(events))
            standing = fences or [OPEN] * len(events)
            return [await self._take(event, fence) for event, fence in zip(events, standing, strict=True)]

    async def _take(self, event: ItemEvent, fence: Fence) -> ReplicatorError | None:
        try:
            fence.check()
        except LeaseLost as error:
            return error
        if event.partition_key in self.poisoned:
            return PoisonRecord("The sink refuses this event.")
        try:
            async with self.entries.around("An event"):
                self.taken.append(event)
        except ReplicatorError as error:
            return Throttled(error.message) if isinstance(error, Throttled) else error
        return None
