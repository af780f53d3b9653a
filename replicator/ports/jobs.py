"""Port to jobs and their segments in the coordination table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from replicator.domain.identifiers import WorkerId
from replicator.domain.jobs import Counts, Job, JobState, Segment
from replicator.domain.targets import TargetId


class Jobs(Protocol):
    """Jobs: one row each, one per segment that was ever claimed, and rows of what a job has to say."""

    async def jobs(self) -> list[Job]:
        """Every job that is known, oldest first; those that are over, too."""

    async def create(self, job: Job) -> Job | None:
        """Store a job, or nothing: the job that is on one of its targets already, and that is not it.

        A sweep is hindered by no other kind, and hinders none. The same job again changes nothing.
        """

    async def segments(self, job_id: str) -> list[Segment]:
        """The segments of a job that were ever claimed."""

    async def claim(self, seen: Segment, owner: WorkerId) -> Segment | None:
        """Take a segment if it still has the owner and epoch of `seen`; None when another worker was faster."""

    async def save(self, held: Segment, position: str | None, counts: Counts, *, done: bool = False) -> Segment:
        """Store how far a segment is, all counts included; `LeaseLost` unless owner and epoch are those of `held`.

        One that is done is given back.
        """

    async def release(self, held: Segment) -> None:
        """Give a segment back; quiet when it is no longer ours."""

    async def change(self, seen: Job, state: JobState, *, note: str = "") -> bool:
        """Let a job rest or go on, if its state is still as seen."""

    async def end(  # noqa: PLR0913 - what is stored of an end
        self, seen: Job, state: JobState, *, at: float, counts: Counts, note: str = "", follows: Job | None = None
    ) -> bool:
        """Let a job be over, its targets free, and its segments forgotten; False when it was over already.

        `follows`: a job on the same targets that is there in the same moment. Targets of a bootstrap that is done are
        filled from then on.
        """

    async def filled(self) -> Mapping[TargetId, float]:
        """Targets that a bootstrap has filled, and when, in seconds since 1970."""

    async def forget(self, job_id: str) -> None:
        """Delete a job that is over, with all that it said."""

    async def note(self, job_id: str, notes: Mapping[str, Any]) -> None:
        """Store what a job has to say, by name; said again, it is replaced."""

    async def notes(self, job_id: str, limit: int | None = None) -> Sequence[tuple[str, Any]]:
        """What a job has said, by name; at most so many."""
