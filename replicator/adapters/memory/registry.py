"""Members and the registry in memory: pulses, paused rules, targets' starts, gaps, streams.

Invariant: a start, a gap and its acknowledgement are stored once; a stream that is drained stays drained.
"""

from __future__ import annotations

from collections.abc import Callable

from replicator.adapters.memory.faults import Faults
from replicator.domain.records import RegionId, RuleName, TableName, WorkerId
from replicator.domain.rules import Target
from replicator.ports import Gap, Pulse, StreamRef, TargetStart

StreamId = tuple[RegionId, str]
"""What makes a stream: its region counts, because ARNs of two regions may be equal."""


def identity(stream: StreamRef) -> StreamId:
    """A stream's identity."""
    return stream.region, stream.arn


class MemoryMembership:
    """Workers and their pulses, and the rules that are paused."""

    def __init__(self, faults: Faults | None = None) -> None:
        self.faults = faults or Faults()
        self._pulses: dict[WorkerId, Pulse] = {}
        self._paused: set[RuleName] = set()

    def pause(self, rule: RuleName) -> None:
        """Pause a rule, as an operator does."""
        self._paused.add(rule)

    def resume(self, rule: RuleName) -> None:
        """Let a rule go on, as an operator does."""
        self._paused.discard(rule)

    async def beat(self, worker: WorkerId, pulse: Pulse) -> None:
        """Show a sign of life."""
        async with self.faults.around("beat"):
            self._pulses[worker] = pulse

    async def members(self) -> dict[WorkerId, Pulse]:
        """Every worker's last pulse."""
        async with self.faults.around("members"):
            return dict(self._pulses)

    async def leave(self, worker: WorkerId) -> None:
        """Remove a worker."""
        async with self.faults.around("leave"):
            self._pulses.pop(worker, None)

    async def paused(self) -> frozenset[RuleName]:
        """Rules that are paused."""
        async with self.faults.around("paused"):
            return frozenset(self._paused)


class MemoryRegistry:
    """Targets' starts, gaps, and streams that are being read."""

    def __init__(self, now: Callable[[], float], faults: Faults | None = None) -> None:
        """`now`: the store's own clock, in seconds since 1970."""
        self.faults = faults or Faults()
        self._now = now
        self._starts: dict[tuple[StreamId, str], TargetStart] = {}
        self._gaps: dict[str, Gap] = {}
        self._acknowledged: set[str] = set()
        self._streams: dict[StreamRef, bool] = {}
        """Streams that were ever read, and whether they are drained."""

    # -- the script ------------------------------------------------------------------------------------------------

    @property
    def gaps(self) -> list[Gap]:
        """Every loss interval, in the order in which they were found."""
        return list(self._gaps.values())

    def acknowledge(self, gap_id: str) -> None:
        """Accept a loss, as an operator does."""
        self._acknowledged.add(gap_id)

    def started(self, stream: StreamRef) -> dict[str, TargetStart]:
        """Targets that ever started on a stream, seen from the side."""
        return {target: start for (owner, target), start in self._starts.items() if owner == identity(stream)}

    # -- the port --------------------------------------------------------------------------------------------------

    async def starts(self, stream: StreamRef) -> dict[str, TargetStart]:
        """Targets that ever started on this stream, by target id."""
        async with self.faults.around("starts"):
            return self.started(stream)

    async def start(self, stream: StreamRef, target: Target, *, started_at: float | None = None) -> TargetStart:
        """Store the start of a target, unless it is stored already."""
        async with self.faults.around("start"):
            fresh = TargetStart(target.rule, target.target_id, self._now() if started_at is None else started_at)
            return self._starts.setdefault((identity(stream), target.target_id), fresh)

    async def record_gap(self, gap: Gap) -> None:
        """Store a loss interval; found again, it is the same one."""
        async with self.faults.around("record_gap"):
            self._gaps.setdefault(gap.gap_id, gap)

    async def acknowledged(self, gap: Gap) -> bool:
        """Whether an operator accepted the loss."""
        async with self.faults.around("acknowledged"):
            return gap.gap_id in self._acknowledged

    async def streams(self, region: RegionId, table: TableName) -> list[StreamRef]:
        """Streams of this table that were read before and not yet drained, oldest first."""
        async with self.faults.around("streams"):
            left = [
                stream
                for stream, drained in self._streams.items()
                if not drained and (stream.region, stream.table) == (region, table)
            ]
            return sorted(left, key=lambda stream: stream.generation)

    async def remember_stream(self, stream: StreamRef, *, drained: bool) -> None:
        """Note that a stream is being read, or that it was read to its end."""
        async with self.faults.around("remember_stream"):
            self._streams[stream] = drained or self._streams.get(stream, False)
