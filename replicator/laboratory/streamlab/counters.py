"""What consumers did: calls per second, records delivered, readers of a shard at once, children read too early.

Invariant: a record counts as delivered when its answer went out whole, not when it was made. A consumer is the path of
its endpoint URL (`http://host:port/NAME`; `-` without one), so several workers of one group count as one.
"""

from __future__ import annotations

from collections import Counter, defaultdict, deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Final

from replicator.laboratory.streamlab.shard import LabShard
from replicator.laboratory.streamlab.stream import LabStream

MOST_EXAMPLES: Final = 20
_MOST_READERS: Final = 32
_MOST_RECENT: Final = 100_000


@dataclass(slots=True)
class Rate:
    """Calls in all, and the most of them in any window of one second."""

    total: int = 0
    most: int = 0
    _recent: deque[float] = field(default_factory=lambda: deque(maxlen=_MOST_RECENT))

    def count(self, now: float) -> int:
        """Count a call; returns how many the last second saw, with this one."""
        recent = self._recent
        recent.append(now)
        while recent[0] <= now - 1.0:
            recent.popleft()
        self.total += 1
        self.most = max(self.most, len(recent))
        return len(recent)

    def would_be(self, now: float) -> int:
        """How many calls the last second saw."""
        while self._recent and self._recent[0] <= now - 1.0:
            self._recent.popleft()
        return len(self._recent)


@dataclass(frozen=True, slots=True)
class Reading:
    """One GetRecords answer: which places of a shard it holds, and the reader that asked (see `Readers`)."""

    consumer: str
    stream: LabStream
    shard: LabShard
    reader: int
    from_horizon: bool
    start: int
    stop: int
    ended: bool


@dataclass(slots=True)
class Readers:
    """Readers of one shard. A reader is the chain of iterators that begins with one GetShardIterator.

    Two of them read at once when one reads between two reads of the other: a reader that took over does not count.
    """

    reads: int = 0
    most: int = 0
    _last: dict[int, int] = field(default_factory=dict)

    def read(self, reader: int) -> bool:
        """Count a read; says whether it was this reader's first."""
        self.reads += 1
        before = self._last.pop(reader, None)
        others = 0 if before is None else sum(last > before for last in self._last.values())
        self.most = max(self.most, others + 1)
        self._last[reader] = self.reads
        if len(self._last) > _MOST_READERS:
            del self._last[next(iter(self._last))]
        return before is None


@dataclass(slots=True)
class Coverage:
    """The places of a shard that one consumer was given, as intervals in order; whether it saw the shard's end."""

    ended: bool = False
    intervals: list[tuple[int, int]] = field(default_factory=list)

    def add(self, start: int, stop: int) -> None:
        """These places were delivered."""
        if self.intervals and self.intervals[-1][0] <= start <= self.intervals[-1][1]:
            self.intervals[-1] = (self.intervals[-1][0], max(stop, self.intervals[-1][1]))
            return
        merged: list[tuple[int, int]] = []
        for low, high in sorted([*self.intervals, (start, stop)]):
            if merged and low <= merged[-1][1]:
                merged[-1] = (merged[-1][0], max(high, merged[-1][1]))
            else:
                merged.append((low, high))
        self.intervals = merged

    @property
    def count(self) -> int:
        """Distinct records."""
        return sum(stop - start for start, stop in self.intervals)

    def reaches(self, place: int) -> bool:
        """Whether the record before this place was delivered."""
        return any(start < place <= stop for start, stop in self.intervals)


@dataclass(slots=True)
class Counters:
    """Everything that is counted."""

    calls: dict[str, Rate] = field(default_factory=lambda: defaultdict(Rate))
    refused: Counter[str] = field(default_factory=Counter)
    """Errors given, by code."""
    broken: Counter[str] = field(default_factory=Counter)
    """Answers that were dropped or cut, by operation."""
    delivered: Counter[str] = field(default_factory=Counter)
    """Records by consumer, repeats counted."""
    early: list[str] = field(default_factory=list)
    """Examples of children that were read before the end of a parent."""
    early_count: int = 0
    unrecorded: int = 0
    """Changes made while a stream was off."""
    readers: dict[LabShard, Readers] = field(default_factory=lambda: defaultdict(Readers))
    coverage: dict[tuple[str, LabShard], Coverage] = field(default_factory=lambda: defaultdict(Coverage))

    def reading(self, reading: Reading) -> None:
        """A GetRecords call found its shard."""
        first = self.readers[reading.shard].read(reading.reader)
        if first and reading.from_horizon:
            self._judge(reading)

    def went_out(self, reading: Reading) -> None:
        """Its answer was sent whole."""
        covered = self.coverage[reading.consumer, reading.shard]
        covered.ended = covered.ended or reading.ended
        if reading.stop > reading.start:
            covered.add(reading.start, reading.stop)
            self.delivered[reading.consumer] += reading.stop - reading.start

    def _judge(self, reading: Reading) -> None:
        for name in reading.shard.parents:
            parent = reading.stream.shards.get(name)
            if parent is not None and not self._has_read(reading.consumer, parent):
                self.early_count += 1
                if len(self.early) < MOST_EXAMPLES:
                    self.early.append(f"{reading.consumer}: {reading.shard.shard_id} before the end of {name}")

    def _has_read(self, consumer: str, shard: LabShard) -> bool:
        covered = self.coverage.get((consumer, shard))
        return shard.total == 0 or (covered is not None and (covered.ended or covered.reaches(shard.total)))

    def skipped(self, consumer: str, shards: Iterable[LabShard]) -> int:
        """Records of these shards that a consumer was never given."""
        return sum(
            shard.total - (covered.count if (covered := self.coverage.get((consumer, shard))) else 0)
            for shard in shards
        )

    def as_json(self) -> dict[str, Any]:
        """For `GET /_lab/stats`."""
        return {
            "calls": {name: {"total": rate.total, "most_per_second": rate.most} for name, rate in self.calls.items()},
            "refused": dict(self.refused),
            "broken": dict(self.broken),
            "delivered": dict(self.delivered),
            "read_early": self.early_count,
            "read_early_examples": self.early,
            "unrecorded": self.unrecorded,
            "most_readers_at_once": max((readers.most for readers in self.readers.values()), default=0),
        }
