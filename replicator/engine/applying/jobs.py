"""What is left of a page at a target: the keys that were not tried yet, and those that failed.

Invariant: a key's records are tried in their order, one at a time.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Hashable, Iterable, Sequence

import msgspec

from replicator.domain.coalescing import Run
from replicator.domain.records import StreamRecord, UnreadRecord

_MOST_CARRIED_KEYS = 256
_MOST_CARRIED_BYTES = 2 * 1024 * 1024
"""Keys may wait by themselves as long as there are no more of them and their records weigh no more."""

Unit = Run | UnreadRecord


def asked_by(unit: Unit) -> Hashable:
    """What distinguishes a unit from others that are tried: its key, or its place."""
    return unit.key if isinstance(unit, Run) else unit.sequence


def records_of(unit: Unit) -> Sequence[StreamRecord]:
    """The records that are done with a unit."""
    return unit.records if isinstance(unit, Run) else (unit,)


class Job(msgspec.Struct, eq=False, gc=False):
    """What is left of one key's records in a page, or a record that cannot be understood."""

    units: list[Unit]
    wanted: Unit
    """What is tried in place of the first unit."""
    attempt: int = 0
    due_at: float = 0.0
    in_trouble: bool = False
    refused: bool = False
    weight: int = 0
    by_itself: bool = False
    """Whether it failed by itself, so that it may wait alone; `weight`: about how many bytes it holds then."""


class Jobs:
    """Jobs that were not tried yet, in stream order, then those that failed, as they fall due."""

    def __init__(self, jobs: Iterable[Job]) -> None:
        self.fresh = deque(jobs)
        """What was not tried yet."""
        self._failed: list[tuple[float, int, Job]] = []
        self._count = 0
        self._alone = 0
        self._weight = 0
        self.begun = 0
        """How often one was taken so far."""
        self.returned = 0
        """How many came back that others than the worker that took them had gone on with."""

    def __len__(self) -> int:
        return len(self.fresh) + len(self._failed)

    def next(self) -> Job:
        """What is tried next."""
        self.begun += 1
        if self.fresh:
            return self.fresh.popleft()
        job = heapq.heappop(self._failed)[2]
        if job.by_itself:
            self._alone -= 1
            self._weight -= job.weight
        return job

    def add(self, job: Job) -> None:
        """A job that was not tried yet."""
        self.fresh.append(job)

    def wait_by_themselves(self) -> bool:
        """Whether nothing is left but keys that failed by themselves, and not too many of them."""
        if self.fresh or self._alone != len(self._failed):
            return False
        return self._alone <= _MOST_CARRIED_KEYS and self._weight <= _MOST_CARRIED_BYTES

    def rest(self) -> list[Job]:
        """Everything that is left."""
        return [*self.fresh, *(job for _, _, job in sorted(self._failed))]

    def put_back(self, job: Job) -> None:
        """A job whose next unit may be tried now, or as soon as it is due."""
        if not job.attempt:
            self.fresh.appendleft(job)
            return
        self._count += 1
        heapq.heappush(self._failed, (job.due_at, self._count, job))
        if job.by_itself:
            self._alone += 1
            self._weight += job.weight
