"""Jobs and their segments in memory.

Invariant: as in the table: one job on a target, and a segment's position only under its owner and epoch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from replicator.domain.errors import LeaseLost
from replicator.domain.identifiers import WorkerId
from replicator.domain.jobs import Counts, Job, JobState, Segment
from replicator.domain.targets import TargetId
from replicator.domain.values import replace
from replicator.laboratory.memory.faults import Faults


class MemoryJobs:
    """Jobs of one group."""

    def __init__(self, faults: Faults | None = None) -> None:
        self.faults = faults or Faults()
        self._jobs: dict[str, Job] = {}
        self._segments: dict[tuple[str, str], Segment] = {}
        self._notes: dict[str, dict[str, Any]] = {}
        self._filled: dict[TargetId, float] = {}
        self.saves: list[Segment] = []
        """Every position that was stored, in order."""

    async def jobs(self) -> list[Job]:
        """Every job that is known, oldest first."""
        async with self.faults.around("jobs"):
            return sorted(self._jobs.values(), key=lambda job: (job.created_at, job.job_id))

    async def create(self, job: Job) -> Job | None:
        """Store a job, or nothing: the job that is on one of its targets already, and that is not it."""
        async with self.faults.around("create"):
            if job.job_id in self._jobs:
                return None
            for other in self._jobs.values():
                same_kind = other.gives_way == job.gives_way
                if other.state.is_open and same_kind and not set(other.targets).isdisjoint(job.targets):
                    return other
            self._jobs[job.job_id] = job
            return None

    async def change(self, seen: Job, state: JobState, *, note: str = "") -> bool:
        """Let a job rest or go on, if its state is still as seen."""
        async with self.faults.around("change"):
            return self._change(seen, state=state, note=note)

    async def end(  # noqa: PLR0913 - what is stored of an end
        self, seen: Job, state: JobState, *, at: float, counts: Counts, note: str = "", follows: Job | None = None
    ) -> bool:
        """Let a job be over; False when it was over already."""
        async with self.faults.around("end"):
            ended = self._change(seen, state=state, ended_at=at, counts=dict(counts), note=note)
            if ended:
                self._filled |= dict.fromkeys(seen.targets, at) if seen.fills(state) else {}
                self._drop_segments(seen.job_id)
                if follows is not None:
                    self._jobs[follows.job_id] = follows
            return ended

    async def filled(self) -> dict[TargetId, float]:
        """Targets that a bootstrap has filled, and when."""
        async with self.faults.around("filled"):
            return dict(self._filled)

    async def forget(self, job_id: str) -> None:
        """Delete a job that is over, with all that it said."""
        async with self.faults.around("forget"):
            self._jobs.pop(job_id, None)
            self._notes.pop(job_id, None)
            self._drop_segments(job_id)

    async def segments(self, job_id: str) -> list[Segment]:
        """The segments of a job that were ever claimed."""
        async with self.faults.around("segments"):
            return [segment for _, segment in sorted(self._segments.items()) if segment.job_id == job_id]

    async def claim(self, seen: Segment, owner: WorkerId) -> Segment | None:
        """Take a segment if it still is as seen, and raise its epoch."""
        async with self.faults.around("claim"):
            place = seen.job_id, seen.name
            held = self._segments.get(place, replace(seen, owner=None, epoch=0))
            if held.done or (held.owner, held.epoch) != (seen.owner, seen.epoch):
                return None
            self._segments[place] = replace(held, owner=owner, epoch=held.epoch + 1)
            return self._segments[place]

    async def save(self, held: Segment, position: str | None, counts: Counts, *, done: bool = False) -> Segment:
        """Store how far a segment is; `LeaseLost` unless owner and epoch are those of `held`."""
        async with self.faults.around("save"):
            row = self._ours(held)
            if row is None:
                raise LeaseLost(f"Segment {held.name} of job {held.job_id} is no longer ours.")
            stored = replace(
                row,
                owner=None if done else row.owner,
                position=row.position if position is None else position,
                counts=dict(counts),
                done=done,
            )
            self._segments[held.job_id, held.name] = stored
            self.saves.append(stored)
            return stored

    async def release(self, held: Segment) -> None:
        """Give a segment back; quiet when it is no longer ours."""
        async with self.faults.around("release"):
            row = self._ours(held)
            if row is not None:
                self._segments[held.job_id, held.name] = replace(row, owner=None)

    async def note(self, job_id: str, notes: Mapping[str, Any]) -> None:
        """Store what a job has to say, by name."""
        async with self.faults.around("note"):
            self._notes.setdefault(job_id, {}).update(notes)

    async def notes(self, job_id: str, limit: int | None = None) -> Sequence[tuple[str, Any]]:
        """What a job has said, by name; at most so many."""
        async with self.faults.around("notes"):
            return sorted(self._notes.get(job_id, {}).items())[slice(limit)]

    def _ours(self, held: Segment) -> Segment | None:
        row = self._segments.get((held.job_id, held.name))
        return row if row is not None and (row.owner, row.epoch) == (held.owner, held.epoch) else None

    def _change(self, seen: Job, **changes: Any) -> bool:
        job = self._jobs.get(seen.job_id)
        if job is None or job.state is not seen.state:
            return False
        self._jobs[job.job_id] = replace(job, **changes)
        return True

    def _drop_segments(self, job_id: str) -> None:
        for place in [place for place in self._segments if place[0] == job_id]:
            del self._segments[place]
