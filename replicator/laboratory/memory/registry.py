"""Members and the registry in memory: pulses, paused rules, targets' starts, gaps, streams.

Invariant: a start and a gap are stored once, an acknowledgement is of the gap as it was shown; a rule that is through
with a stream stays so.
"""

from __future__ import annotations

from collections.abc import Callable, Collection

from replicator.domain.driving import Driving
from replicator.domain.gaps import Gap, OpenGap
from replicator.domain.identifiers import RegionId, RuleName, TableName, WorkerId
from replicator.domain.rules import Rule, Target
from replicator.domain.shards.leases import KnownStream, Pulse, StreamRef, TargetStart
from replicator.domain.targets import TargetId
from replicator.domain.values import replace
from replicator.laboratory.memory.faults import Faults

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
        self._paused: dict[RuleName, float] = {}
        self.driving: dict[RuleName, Driving] = {}
        self._resting: set[tuple[RuleName, RegionId]] = set()

    def pause(self, rule: RuleName, at: float = 0.0) -> None:
        """Pause a rule, as an operator does."""
        self._paused.setdefault(rule, at)

    def resume(self, rule: RuleName) -> None:
        """Let a rule go on, as an operator does."""
        self._paused.pop(rule, None)

    def pause_region(self, rule: RuleName, region: RegionId) -> None:
        """Pause one region of a rule, as an operator does."""
        self._resting.add((rule, region))

    def resume_region(self, rule: RuleName, region: RegionId) -> None:
        """Let it go on, as an operator does."""
        self._resting.discard((rule, region))

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

    async def driven(self) -> dict[RuleName, Driving]:
        """What drives the rules that were ever handed over."""
        async with self.faults.around("driven"):
            return dict(self.driving)

    async def paused(self) -> dict[RuleName, float]:
        """Rules that are paused, and since when."""
        async with self.faults.around("paused"):
            return dict(self._paused)

    async def resting(self) -> frozenset[tuple[RuleName, RegionId]]:
        """Regions that are paused for a rule."""
        async with self.faults.around("resting"):
            return frozenset(self._resting)


class MemoryClaims:
    """Which tables rules have written: all of them but those that a script names."""

    def __init__(self, faults: Faults | None = None) -> None:
        self.faults = faults or Faults()
        self.unwritten: set[TargetId] = set()

    async def wrote(self, rule: Rule, target: Target, names: Collection[RuleName]) -> bool:
        """Whether a target's table was written before."""
        async with self.faults.around("wrote"):
            assert rule.name in names, "a rule is asked for by its own name, too"
            return target.target_id not in self.unwritten


class MemoryRegistry:
    """Targets' starts, gaps, and streams that are being read."""

    def __init__(self, now: Callable[[], float], faults: Faults | None = None) -> None:
        """`now`: the store's own clock, in seconds since 1970."""
        self.faults = faults or Faults()
        self._now = now
        self.names: dict[RuleName, frozenset[RuleName]] = {}
        """The names that rules had before, as an operator gave them others."""
        self._starts: dict[tuple[StreamId, TargetId], TargetStart] = {}
        self._gaps: dict[str, Gap] = {}
        self._acknowledged: set[str] = set()
        self._grown_at: dict[str, float] = {}
        self.resyncs: dict[str, str] = {}
        """Jobs that repair losses, or have, by the gap's id."""
        self._streams: dict[StreamRef, KnownStream] = {}
        """Streams that were ever read."""

    # -- the script ------------------------------------------------------------------------------------------------

    @property
    def gaps(self) -> list[Gap]:
        """Every loss interval, in the order in which they were found."""
        return list(self._gaps.values())

    def acknowledge(self, gap_id: str) -> None:
        """Accept a loss, as an operator does."""
        self._acknowledged.add(gap_id)

    def put_start(self, stream: StreamRef, start: TargetStart) -> None:
        """Store this start over whatever was there."""
        self._starts[identity(stream), start.target_id] = start

    def started(self, stream: StreamRef) -> dict[TargetId, TargetStart]:
        """Targets that ever started on a stream, seen from the side."""
        return {target: start for (owner, target), start in self._starts.items() if owner == identity(stream)}

    # -- the port --------------------------------------------------------------------------------------------------

    async def starts(self, stream: StreamRef) -> dict[TargetId, TargetStart]:
        """Targets that ever started on this stream, by target id."""
        async with self.faults.around("starts"):
            return self.started(stream)

    async def start(self, stream: StreamRef, target: Target, *, started_at: float | None = None) -> TargetStart:
        """Store the start of a target, unless it is stored already."""
        async with self.faults.around("start"):
            members = target.parts if target.members else frozenset[str]()
            fresh = TargetStart(target.target_id, self._now() if started_at is None else started_at, members)
            return self._starts.setdefault((identity(stream), target.target_id), fresh)

    async def record_gap(self, gap: Gap) -> None:
        """Store a loss interval; found again, it is the same one, and accepted no more when it ends elsewhere."""
        async with self.faults.around("record_gap"):
            known = self._gaps.setdefault(gap.gap_id, gap)
            if known.until != gap.until:
                self._gaps[gap.gap_id] = replace(known, until=gap.until)
                self._grown_at[gap.gap_id] = gap.found_at
                self._acknowledged.discard(gap.gap_id)
                self.resyncs.pop(gap.gap_id, None)

    async def former_names(self, rule: RuleName) -> frozenset[RuleName]:
        """The names that a rule had before."""
        async with self.faults.around("former_names"):
            return self.names.get(rule, frozenset())

    async def carry_gaps_over(self, stream: StreamRef, former: TargetId, target_id: TargetId) -> None:
        """Let a target's losses on a stream be another one's, too."""
        async with self.faults.around("carry_gaps_over"):
            for gap in self.gaps:
                if identity(gap.stream) == identity(stream) and gap.target_id == former:
                    copy = replace(gap, target_id=target_id)
                    if copy.gap_id not in self._gaps:
                        self._gaps[copy.gap_id] = copy
                        self._acknowledged |= {copy.gap_id} if gap.gap_id in self._acknowledged else set()
                        if gap.gap_id in self._grown_at:
                            self._grown_at[copy.gap_id] = self._grown_at[gap.gap_id]
                        if gap.gap_id in self.resyncs:
                            self.resyncs[copy.gap_id] = self.resyncs[gap.gap_id]

    async def acknowledged(self, gap: Gap) -> bool:
        """Whether an operator accepted the loss as it is."""
        async with self.faults.around("acknowledged"):
            return gap.gap_id in self._acknowledged and self._gaps[gap.gap_id].until == gap.until

    async def open_gaps(self) -> list[OpenGap]:
        """Every loss interval that is neither accepted nor repaired, oldest first."""
        async with self.faults.around("open_gaps"):
            found = [gap for gap in self.gaps if gap.gap_id not in self._acknowledged]
            found.sort(key=lambda gap: (gap.found_at, gap.gap_id))
            return [
                OpenGap(gap, self._grown_at.get(gap.gap_id, gap.found_at), self.resyncs.get(gap.gap_id))
                for gap in found
            ]

    async def note_resync(self, gap: Gap, job_id: str) -> None:
        """Note which job repairs a loss."""
        async with self.faults.around("note_resync"):
            if gap.gap_id in self._gaps and gap.gap_id not in self._acknowledged:
                self.resyncs[gap.gap_id] = job_id

    async def close_gap(self, gap: Gap, job_id: str, at: float) -> bool:
        """Close a loss as it was seen."""
        del at
        async with self.faults.around("close_gap"):
            known = self._gaps.get(gap.gap_id)
            if known is None or known.until != gap.until or gap.gap_id in self._acknowledged:
                return False
            self._acknowledged.add(gap.gap_id)
            self.resyncs[gap.gap_id] = job_id
            return True

    async def streams(self, region: RegionId, table: TableName) -> list[KnownStream]:
        """Streams of this table that were read before, oldest first."""
        async with self.faults.around("streams"):
            found = [each for ref, each in self._streams.items() if (ref.region, ref.table) == (region, table)]
            return sorted(found, key=lambda known: known.ref.generation)

    async def remember_stream(
        self, stream: StreamRef, drained: Collection[TargetId] = (), *, kept_seconds: float | None = None
    ) -> None:
        """Note that a stream is being read, who is through with it, how long it keeps records; what is noted stays."""
        async with self.faults.around("remember_stream"):
            known = self._streams.get(stream, KnownStream(stream))
            kept = known.kept_seconds if kept_seconds is None else kept_seconds
            self._streams[stream] = replace(known, drained=known.drained.union(drained), kept_seconds=kept)
