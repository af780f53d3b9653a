"""Shards that split, merge and roll while the demo runs, as they do on AWS over days.

Invariant: the open shards of a stream stay between half and twice as many as at the start.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from random import Random
from typing import Any, Final

from replicator.laboratory.streamlab import StreamLab

PAUSE_SECONDS: Final = 1.0
_ROLL_ALL_EVERY: Final = 5
"""So many changes, the last of which lets every shard of a stream roll at once."""


def streams_of(lab: StreamLab, source: str) -> list[dict[str, Any]]:
    """The laboratory's streams of one kind: of tables, or of `kinesis`."""
    return [stream for stream in lab.streams() if (":kinesis:" in stream["arn"]) == (source == "kinesis")]


@dataclass(slots=True)
class Resharding:
    """Changes the shards of all streams of a laboratory."""

    lab: StreamLab
    shards: int
    """Of each stream at the start."""

    random: Random
    source: str = "streams"
    """Whose shards: those of the tables' streams, or of `kinesis`."""

    counts: Counter[str] = field(default_factory=Counter)
    """Splits, merges and rolls of single shards."""

    last: str = ""
    """The last change, for people."""

    _steps: int = 0

    async def run(self, stop: asyncio.Event) -> None:
        """Change something about once a second until `stop` is set."""
        while not stop.is_set():
            await asyncio.to_thread(self.step)
            try:
                async with asyncio.timeout(PAUSE_SECONDS):
                    await stop.wait()
            except TimeoutError:
                continue

    def step(self) -> None:
        """One change of one stream. It blocks for a moment."""
        streams = [stream for stream in streams_of(self.lab, self.source) if not stream["closed"]]
        if not streams:  # no caller described one yet
            return
        self._steps += 1
        stream = self.random.choice(streams)
        names = [shard["shard"] for shard in stream["shards"] if shard["open"]]
        where = {"table": stream["table"], "region": stream["region"]}
        if self._steps % _ROLL_ALL_EVERY == 0:
            self._do("rolls", f"rolled all {len(names)}", where, len(names))
            return
        match self._wanted(len(names)):
            case "split":
                self._do("splits", f"split one of {len(names)}", where)
            case "merge":
                self._do("merges", f"merged two of {len(names)}", where)
            case _:
                self._do("rolls", f"rolled one of {len(names)}", where | {"shard": self.random.choice(names)})

    def _wanted(self, count: int) -> str:
        if count <= max(1, self.shards // 2):
            return "split"
        if count >= 2 * self.shards:
            return "merge"
        return self.random.choice(("split", "split", "merge", "merge", "roll"))

    def _do(self, kind: str, what: str, where: Mapping[str, Any], count: int = 1) -> None:
        self.lab.command(kind.removesuffix("s"), **where)
        self.counts[kind] += count
        self.last = f"{where['table']} ({where['region']}) {what} shards"
