"""What a kind of job must answer, and what it is given.

A new kind is a handler, and an entry in a table `KINDS` beside it; `app/job_worlds.py` joins these tables. Invariant: a
handler decides what a page means and makes its effects durable; which worker does it, when, and where the position
stands is the frame's.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from msgspec import Struct, field

from replicator.domain.errors import ReplicatorError
from replicator.domain.identifiers import RegionId
from replicator.domain.jobs import Counts, Job, Segment
from replicator.domain.rules import Rule
from replicator.domain.targets import TargetId
from replicator.engine.applying.context import TargetPorts
from replicator.engine.copying.applied import Applied, Followed
from replicator.engine.copying.region import CopyRegion
from replicator.engine.membership.members import Members
from replicator.ports.clock import Clock
from replicator.ports.exports import ExportFiles
from replicator.ports.jobs import Jobs
from replicator.ports.targets import Fence


class JobImpossible(ReplicatorError):
    """A job cannot be done as it was asked for: it fails, and is not tried again."""


class Look(Struct, frozen=True):
    """What was seen of a page. `after`: the position behind it; None: it is the segment's last.

    `at`: the server's time of the look: nothing is done about it before what the handler follows has passed that, with
    the margin; None: nothing is waited for. `work` is the handler's own. `counts` are stored with the position.
    `passed`: False when that is not known, because no worker replicates.
    """

    after: str | None
    at: float | None
    work: Any
    counts: Counts = field(default_factory=dict)
    passed: bool = True


class Handler(Protocol):
    """One job in one worker; segments of it run side by side."""

    @property
    def follows(self) -> Sequence[Followed]:
        """The targets whose progress looks wait for, and whose lag makes the job rest."""

    async def look(self, segment: Segment, position: str | None) -> Look:
        """Read the page behind a position. Looks run ahead of what is done, within a bound."""

    async def act(self, segment: Segment, look: Look, fence: Fence) -> Counts:
        """Do what the page asks for; durable when it returns. In order per segment; once more after a kill."""

    async def finish(self, job: Job, counts: Counts) -> Job | None:
        """All segments are done: the job that follows, if one does.

        May be called again, also by another worker: the same job follows, with the same id.
        """


class JobContext(Struct, frozen=True):
    """What handlers work with.

    `rules`: the job's rule on its table, once per source that it reads. `regions`: its tables, by `region:table`
    (`place_name`). `targets`: conflict log, caches and parked rows of its targets, as the live worker has them, by the
    region that is read, for a mesh is one target of every region's stream, and each region keeps rows of its own.
    """

    job: Job
    rules: Sequence[Rule]
    regions: Mapping[str, CopyRegion]
    targets: Mapping[tuple[RegionId, TargetId], TargetPorts]
    applied: Applied
    members: Members
    jobs: Jobs
    clock: Clock
    stop: asyncio.Event
    """Set when this worker is to leave the job: it was paused or cancelled, or the worker stops."""
    exports: Callable[[str], tuple[ExportFiles, str]] | None = None
    """The files of an export, and the folder to look in, by where it lies (`s3://bucket/prefix`, or a directory)."""
