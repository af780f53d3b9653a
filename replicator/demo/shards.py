"""What the stream laboratory counts of the shards: their number, the records each worker got, and the calls.

Invariant: the daemon is not asked whether it skipped something; the laboratory counts what it gave out.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from replicator.demo.daemon_figures import DaemonFigures
from replicator.demo.resharding import Resharding, streams_of
from replicator.laboratory.streamlab import StreamLab

_LOOK_SECONDS: Final = 0.5
_RATE_SECONDS: Final = 3.0


@dataclass(frozen=True, slots=True)
class StreamFigures:
    """One stream as it is."""

    table: str
    region: str
    """AWS's name."""

    open: int
    closed: int
    generations: int
    """The longest line from a first shard to a last one."""

    records: int


@dataclass(slots=True)
class ShardFigures:
    """All streams; what is counted is so since the start."""

    streams: list[StreamFigures] = field(default_factory=list)
    records: int = 0
    unread: int = 0
    """Records that the daemon was not given; at the end, those that it skipped."""

    read_early: int = 0
    """Times that a child was begun before its parent was read to its end."""

    describes: int = 0
    """DescribeStream calls."""

    most_describes: int = 0
    """In any second."""

    @property
    def open(self) -> int:
        """Shards that get records."""
        return sum(stream.open for stream in self.streams)

    @property
    def closed(self) -> int:
        """Shards that get no more."""
        return sum(stream.closed for stream in self.streams)

    @property
    def generations(self) -> int:
        """Of the stream that has most."""
        return max((stream.generations for stream in self.streams), default=0)


@dataclass(slots=True)
class ShardWatch:
    """Shards and their readers while the demo runs, and what is left to say at its end."""

    lab: StreamLab
    shards: int
    """Of each stream at the start."""

    workers: int
    resharding: Resharding | None
    figures: ShardFigures = field(default_factory=ShardFigures)
    owned: list[int] = field(default_factory=list)
    """Shards of each worker."""

    hand_overs: int = 0
    source: str = "streams"
    """Whose shards: those of the tables' streams, or of `kinesis`."""

    _began_at: float = field(default_factory=time.monotonic)
    _looked_at: float = -_LOOK_SECONDS
    _recent: deque[tuple[float, int]] = field(default_factory=deque)

    async def refresh(self, daemon: DaemonFigures) -> None:
        """Look again, unless that was done just now; to be called steadily."""
        self.owned, self.hand_overs = daemon.owned, daemon.hand_overs
        if time.monotonic() < self._looked_at + _LOOK_SECONDS:
            return
        self._looked_at = time.monotonic()
        self.figures = await asyncio.to_thread(look, self.lab, self.source)

    async def all_given(self, seconds: float) -> None:
        """Wait until the daemon was given what comes late: repeats, when everything is applied already."""
        await asyncio.to_thread(self.lab.command, "settle")
        until = time.monotonic() + seconds
        figures = await asyncio.to_thread(look, self.lab, self.source)
        while figures.unread and time.monotonic() < until:
            await asyncio.sleep(_LOOK_SECONDS)
            figures = await asyncio.to_thread(look, self.lab, self.source)

    async def finish(self) -> None:
        """Look once more when everything that was written is in the shards."""
        await asyncio.to_thread(self.lab.command, "settle")
        self.figures = await asyncio.to_thread(look, self.lab, self.source)

    def describes_per_second(self) -> float:
        """DescribeStream calls over the last seconds; call it steadily."""
        now = time.monotonic()
        self._recent.append((now, self.figures.describes))
        while self._recent[0][0] < now - _RATE_SECONDS:
            self._recent.popleft()
        first_at, first = self._recent[0]
        return (self.figures.describes - first) / (now - first_at) if now > first_at else 0.0

    @property
    def trouble(self) -> str | None:
        """What a verdict must say, at the end."""
        if self.figures.unread:
            return "records were skipped"
        if self.figures.read_early:
            return "a shard was read before its parent's end"
        return None

    @property
    def changes(self) -> Mapping[str, int]:
        """Splits, merges and rolls."""
        return {} if self.resharding is None else dict(self.resharding.counts)

    # -- the end -----------------------------------------------------------------------------------------------------

    def as_json(self) -> dict[str, Any]:
        """All of it as one JSON object."""
        figures = self.figures
        return {
            "per_stream_at_the_start": self.shards,
            "shards": figures.open + figures.closed,
            "open": figures.open,
            "generations": figures.generations,
            "changes": self.changes,
            "workers": self.workers,
            "owned": self.owned,
            "hand_overs": self.hand_overs,
            "records": figures.records,
            "records_skipped": figures.unread,
            "read_early": figures.read_early,
            "describe_stream": {"calls": figures.describes, "most_per_second": figures.most_describes},
        }

    def lines(self) -> list[str]:
        """The same for people."""
        figures = self.figures
        per_second = figures.describes / max(1.0, time.monotonic() - self._began_at)
        changed = f"; {counted(self.changes)}" if self.changes else ""
        all_of_them = f"{figures.open + figures.closed} shards in {figures.generations} generations"
        given = f"{figures.records} records in {len(figures.streams)} streams"
        listing = "ListShards" if self.source == "kinesis" else "DescribeStream"
        asked = f"{listing} {per_second:.1f}/s, at most {figures.most_describes} in a second"
        return [
            f"shards    {all_of_them}, {figures.unread} records skipped; {figures.open} open at the end{changed}",
            f"          {given}, {figures.read_early} children read before their parent's end",
            f"          {workers(self.workers)}, {self.hand_overs} hand-overs; {asked}",
        ]


def look(lab: StreamLab, source: str) -> ShardFigures:
    """What the laboratory says now."""
    streams, stats = streams_of(lab, source), lab.stats()
    records = sum(stream["records"] for stream in streams)
    listing = "ListShards" if source == "kinesis" else "DescribeStream"
    describes = stats["calls"].get(listing, {"total": 0, "most_per_second": 0})
    given = stats["skipped"].values()
    return ShardFigures(
        streams=[_figures(stream) for stream in streams],
        records=records,
        unread=sum(given) if given else records,
        read_early=stats["read_early"],
        describes=describes["total"],
        most_describes=describes["most_per_second"],
    )


def _figures(stream: Mapping[str, Any]) -> StreamFigures:
    shards = stream["shards"]
    is_open = sum(shard["open"] for shard in shards)
    return StreamFigures(
        stream["table"], stream["region"], is_open, len(shards) - is_open, generations(shards), stream["records"]
    )


def generations(shards: Iterable[Mapping[str, Any]]) -> int:
    """The longest line of descent among shards that are listed parents first."""
    depth: dict[str, int] = {}
    for shard in shards:
        depth[shard["shard"]] = 1 + max((depth.get(parent, 0) for parent in shard["parents"]), default=0)
    return max(depth.values(), default=0)


def counted(counts: Mapping[str, int]) -> str:
    """Counts by name (in the plural), for people."""
    return ", ".join(f"{count} {name if count != 1 else name[:-1]}" for name, count in sorted(counts.items()))


def workers(count: int) -> str:
    """A number of workers, for people."""
    return "1 worker" if count == 1 else f"{count} workers"
