"""How long changes of a source without order are held back, so that what was made before them is brought before them.

A change comes at most `reorder` later than others that were made after it. So of what was made at a time everything has
come once something is read that was made so much later, or once nothing more stood in the shard so much later. In a
mesh the clock alone decides, because versions tell the order of what comes later still; events have nothing else, so
for them it is also asked how far the shard is read. Invariant: the wait is bounded, whatever the source answers.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from replicator.domain.progress import END
from replicator.domain.records import StreamRecord
from replicator.domain.rules import ActivePlan, Rule, Target
from replicator.domain.targets import TargetKind
from replicator.engine.limits import Limits
from replicator.engine.reading.cursors import Page
from replicator.engine.reading.reader import ShardReader
from replicator.engine.waiting import pause
from replicator.ports.clock import Clock

_POLLS_LATE = 2
"""A change that came in time is read so many polls later at most."""

_PAGES_AHEAD = 4
"""So many full pages are read ahead to find what was made before."""


class HoldBack:
    """What one target waits for before it takes records."""

    def __init__(self, rule: Rule, target: Target, limits: Limits, clock: Clock) -> None:
        self._clock = clock
        self._disorder = rule.disorder_seconds
        self._sorts = self._disorder > 0 and target.kind is TargetKind.EVENTS
        self._waits = self._disorder > 0 and target.kind is TargetKind.MESH and isinstance(rule.mesh, ActivePlan)
        self._longest = self._disorder + _POLLS_LATE * limits.poll_seconds
        self._poll_seconds = limits.poll_seconds
        self._longest_look = self._longest + limits.idle_seconds
        """Seconds that what is not read yet is waited for at most."""
        self.held_at = float("-inf")
        """Until when something was held back (monotonic)."""
        self.pages_ahead = _PAGES_AHEAD if self._sorts else 1

    def seconds(self, records: Sequence[StreamRecord]) -> float:
        """Seconds until what was made before these has come to a mesh."""
        if not self._waits or not records:
            return 0.0
        newest = max(record.created_at for record in records)
        return min(newest + self._longest - self._clock.now(), self._longest)

    async def wait(
        self,
        records: Sequence[StreamRecord],
        read: Sequence[Page],
        reader: ShardReader,
        room: Sequence[asyncio.Event],
        stop: asyncio.Event,
    ) -> None:
        """Return when what was made before these records is read, or will not be.

        `read`: pages that were read so far, these too; it grows. `room`: set while more may be read; none: nothing is.
        """
        wait = max(self.seconds(records), 0.0)
        self.held_at = self._clock.monotonic() + wait
        if wait and await pause(stop, wait):
            return
        until = self.held_at + self._longest_look
        while (
            self.held_at < until and any(event.is_set() for event in room) and not self._is_read(records, read, reader)
        ):
            self.held_at = self._clock.monotonic()
            if await pause(stop, self._poll_seconds):
                return

    def _is_read(self, records: Sequence[StreamRecord], read: Sequence[Page], reader: ShardReader) -> bool:
        """Whether everything that was made before these has been read."""
        if not self._sorts or not records or read[-1].then == END:
            return True
        needed = max(record.created_at for record in records) + self._disorder
        if reader.at(read[-1].then).level_at >= needed:
            return True
        return any(record.created_at >= needed for page in reversed(read) for record in page.records)
