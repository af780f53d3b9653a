"""Jobs: work over whole tables that workers share out segment by segment, and how it goes on. Values and decisions.

A job scans its parts, each cut into segments. A segment is claimed by a worker as a shard is, and its position says how
far it is done. Invariant: a segment that was never claimed has no row and stands at its beginning, so a job is there as
a whole as soon as its row is; what ended stays ended.
"""

from __future__ import annotations

import enum
import math
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from replicator.domain.identifiers import RegionId, RuleName, TableName, WorkerId
from replicator.domain.targets import TargetId
from replicator.domain.values import replace

SEGMENT_BYTES = 64 * 1024 * 1024
"""So much of a table makes a segment, unless workers are many."""

MOST_SEGMENTS = 4096
SEGMENTS_PER_WORKER = 4

Counts = Mapping[str, float]
"""What was counted, by name."""

ITEMS = "items"
"""The count that progress is shown by: items of the scans that are done."""


class JobKind(enum.StrEnum):
    """What a job does. Who does it is in the tables `KINDS` of `engine/copying/`."""

    BOOTSTRAP = "bootstrap"
    VERIFY = "verify"
    REPAIR = "repair"
    RESYNC = "resync"
    SWEEP = "sweep"
    UNINSTALL = "uninstall"


class JobState(enum.StrEnum):
    """How a job stands."""

    RUNNING = "running"
    PAUSED = "paused"
    DONE = "done"
    CANCELLED = "cancelled"
    FAILED = "failed"

    @property
    def is_open(self) -> bool:
        """Whether it is not over."""
        return self in {JobState.RUNNING, JobState.PAUSED}


class Part(msgspec.Struct, frozen=True):
    """A table that is scanned in so many segments, `region:table`. `chosen`: only these of them; None: all."""

    name: str
    segments: int
    chosen: tuple[int, ...] | None = None

    @property
    def indices(self) -> Sequence[int]:
        """The segments that are scanned."""
        return range(self.segments) if self.chosen is None else self.chosen


class Job(msgspec.Struct, frozen=True):
    """A job as it is stored.

    `table`: the table as the rule reads it, in the region of its first part. `options` are JSON. `items`: about how
    many will be scanned. `counts` are those of a job that is over: of others they are in the segments. `created_at` and
    `ended_at` are in seconds since 1970. `note`: why it rests or failed.
    """

    job_id: str
    kind: JobKind
    rule: RuleName
    table: TableName
    targets: tuple[TargetId, ...]
    parts: tuple[Part, ...]
    options: Mapping[str, Any] = msgspec.field(default_factory=dict)
    state: JobState = JobState.RUNNING
    by: str = ""
    created_at: float = 0.0
    items: int = 0
    counts: Counts = msgspec.field(default_factory=dict)
    ended_at: float | None = None
    note: str = ""

    @property
    def segments(self) -> int:
        """How many there are, of all parts."""
        return sum(len(part.indices) for part in self.parts)

    def fills(self, state: JobState) -> bool:
        """Whether its targets are filled when it ends so."""
        return self.kind is JobKind.BOOTSTRAP and state is JobState.DONE

    @property
    def gives_way(self) -> bool:
        """Whether it rests while another job is at work on one of its targets."""
        return self.kind is JobKind.SWEEP


@dataclass(frozen=True, slots=True)
class Segment:
    """One segment of a part of a job: who owns it, under which epoch, and how far it is done.

    `position` is opaque to all but the kind's handler; None: at the beginning. `counts` are of what is done.
    """

    job_id: str
    part: str
    index: int
    of: int
    owner: WorkerId | None = None
    epoch: int = 0
    position: str | None = None
    counts: Counts = field(default_factory=dict)
    done: bool = False
    seized_at: float | None = field(default=None, compare=False)
    """When its present owner took it from one that fell silent; known to that owner only."""

    @property
    def name(self) -> str:
        """What distinguishes it in its job."""
        return f"{self.part}|{self.index:04d}"


def segments_for(table_bytes: int, workers: int) -> int:
    """How many segments a table is cut into."""
    by_size = math.ceil(table_bytes / SEGMENT_BYTES)
    return max(1, min(MOST_SEGMENTS, max(by_size, SEGMENTS_PER_WORKER * workers)))


def all_segments(job: Job, stored: Iterable[Segment]) -> list[Segment]:
    """Every segment of a job: as its row says, or untouched."""
    known = {segment.name: segment for segment in stored}
    places = ((part, index) for part in job.parts for index in part.indices)
    fresh = (Segment(job.job_id, part.name, index, part.segments) for part, index in places)
    return [known.get(segment.name, segment) for segment in fresh]


def added(*counts: Counts) -> dict[str, float]:
    """The sums of some counts."""
    total: Counter[str] = Counter()
    for each in counts:
        total.update(each)
    return dict(total)


# -- who works on what -------------------------------------------------------------------------------------------------


def runnable(jobs: Iterable[Job]) -> list[Job]:
    """The jobs that are to be worked on now, oldest first: a sweep gives way to whatever is on one of its targets."""
    wanted = (job for job in jobs if job.state is JobState.RUNNING)
    running = sorted(wanted, key=lambda job: (job.created_at, job.job_id))
    taken = {target for job in running if not job.gives_way for target in job.targets}
    return [job for job in running if not job.gives_way or taken.isdisjoint(job.targets)]


def to_claim(  # noqa: PLR0913 - what is known, given once
    segments: Sequence[Segment],
    me: WorkerId,
    running: Collection[str],
    *,
    live: Collection[WorkerId],
    expired: Collection[WorkerId],
    most: int,
) -> list[Segment]:
    """Segments that this worker should claim now: free ones and those of dead workers, up to its fair share.

    `running`: names of those that it is at work on; one that is its own and not among them is as good as free. `most`:
    how many it may have beside those. Workers begin at different places, so that they seldom want the same one.
    """
    left = [segment for segment in segments if not segment.done]
    free = [
        segment
        for segment in left
        if segment.owner is None or segment.owner in expired or (segment.owner == me and segment.name not in running)
    ]
    workers = sorted({me, *live, *(each.owner for each in left if each.owner is not None)} - set(expired))
    share = math.ceil(len(left) / len(workers))
    first = workers.index(me) * len(free) // len(workers)
    return [*free[first:], *free[:first]][: max(0, min(most, share - len(running)))]


def share_of(segments: Iterable[Segment], me: WorkerId) -> float:
    """Our part of a job's budget: of the segments that are held, those that we hold."""
    owners = [segment.owner for segment in segments if segment.owner is not None and not segment.done]
    return owners.count(me) / len(owners) if owners else 0.0


# -- how far it is -----------------------------------------------------------------------------------------------------

_RATE_SECONDS = 15.0


class JobProgress(msgspec.Struct, frozen=True):
    """How far a job is: segments and items that are done, of how many, how fast, and for how long still.

    `rate`: items per second, over the last seconds; `eta_seconds` None: not known. `seen_at`: when (monotonic).
    """

    job: Job
    done: int
    owners: int
    counts: Counts
    seen_at: float
    rate: float | None = None
    eta_seconds: float | None = None

    @property
    def items(self) -> float:
        """Items that are done."""
        return self.counts.get(ITEMS, 0.0)

    @property
    def total(self) -> float:
        """About how many there are in all: what was estimated is corrected by what is done."""
        if self.job.segments == self.done or not self.job.state.is_open:
            return self.items
        return max(float(self.job.items), self.items)

    def ended(self, state: JobState, note: str) -> JobProgress:
        """The same of the job as it is over."""
        return replace(self, job=replace(self.job, state=state, note=note), eta_seconds=None)


def progress_of(job: Job, segments: Iterable[Segment], now: float, before: JobProgress | None = None) -> JobProgress:
    """How far a job is, from its rows; `before`: as it was seen last, so that there is a rate."""
    known = list(segments)
    counts = added(job.counts, *(segment.counts for segment in known)) if job.state.is_open else job.counts
    done = sum(segment.done for segment in known) if job.state.is_open else job.segments
    owners = len({segment.owner for segment in known if segment.owner is not None and not segment.done})
    fresh = JobProgress(job, done, owners, counts, now)
    if before is None or now <= before.seen_at:
        return fresh
    took = now - before.seen_at
    measured = max(0.0, fresh.items - before.items) / took
    weight = 1.0 if before.rate is None else 1 - math.exp(-took / _RATE_SECONDS)
    rate = measured if before.rate is None else before.rate + (measured - before.rate) * weight
    left = fresh.total - fresh.items
    eta = left / rate if rate > 0 and job.state is JobState.RUNNING else None
    return replace(fresh, rate=rate, eta_seconds=eta)


# -- parts -------------------------------------------------------------------------------------------------------------


def place_name(region: RegionId, table: TableName) -> str:
    """The name of a table among those of a job."""
    return f"{region}:{table}"


def parts_of(members: Iterable[tuple[RegionId, TableName]], segments: int) -> tuple[Part, ...]:
    """A part per table, each in so many segments."""
    return tuple(Part(place_name(region, table), segments) for region, table in members)
