"""What of sizing.md is computed: what a core does, as it was measured, and what the example costs, from its inputs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_MEASURED = Path(__file__).parents[1] / "benchmarks" / "hot_path.json"
_CASES = {
    "modify": "`ordered`, changed items, one replica and a cache",
    "modify-30": "the same, 30 % of the records change a key of shortly before",
    "modify/tls": "the same as the first, under TLS, as it is at AWS",
    "quarter-inserts": "the same as the first, a quarter of the items are new",
    "active-active/modify": "`active-active`, two regions, per write of a user",
    "versioned/modify": "`versioned`, two regions, per write of a user",
}
_MICROSECONDS = 1_000_000
_DAY = 86_400
_MILLION = 1_000_000


@dataclass(frozen=True, slots=True)
class Workload:
    """Changes of users per second, by kind; `kilobytes` of an item with its version, rounded up; what reads them."""

    new: int = 50
    changed: int = 400
    deleted: int = 50
    kilobytes: int = 1
    regions: int = 2
    shards: int = 4
    workers: int = 2

    @property
    def changes(self) -> int:
        """All of them, per second."""
        return self.new + self.changed + self.deleted


@dataclass(frozen=True, slots=True)
class Prices:
    """US dollars, us-east-1, on demand."""

    write_units: float = 0.625
    read_units: float = 0.125
    stream_reads: float = 0.2
    """Per million, as the two above."""
    gigabyte: float = 0.02
    """Between regions."""


@dataclass(frozen=True, slots=True)
class Cost:
    """Units a second, streams that are read, and gigabytes a day that cross between regions."""

    name: str
    writes: int
    reads: int
    streams: int

    def dollars(self, work: Workload, prices: Prices) -> Iterator[float]:
        """A day, by kind: writes, reads, reads of streams, traffic between regions, coordination."""
        yield self.writes * _DAY / _MILLION * prices.write_units
        yield self.reads * _DAY / _MILLION * prices.read_units
        yield self.streams * work.shards * 4 * _DAY / _MILLION * prices.stream_reads
        yield work.changes * (work.regions - 1) * work.kilobytes * 1.5 * _DAY / _MILLION * prices.gigabyte
        yield self.streams * _coordination(work, prices)


def ordered(work: Workload) -> Cost:
    """One source, every other region a replica."""
    size, others = work.kilobytes, work.regions - 1
    writes = others * (work.new * (2 * size + 2) + work.changed * size + work.deleted * (1 + size))
    return Cost("`ordered`", writes, 0, 1)


def versioned(work: Workload) -> Cost:
    """A mesh whose application raises a version."""
    size, others = work.kilobytes, work.regions - 1
    writes = others * size * (work.new + work.changed) + work.deleted * (2 + others * (1 + size))
    reads = work.new * (1 + others * 3) + work.changed * others
    return Cost("`versioned`", writes, reads, work.regions)


def active_active(work: Workload) -> Cost:
    """A mesh that stamps."""
    size, others = work.kilobytes, work.regions - 1
    writes = work.regions * size * (work.new + work.changed) + work.deleted * (1 + others * (2 + 2 * size))
    reads = work.new * (2 + others * 3) + (work.changed + work.deleted) * (2 + others)
    return Cost("`active-active`", writes, reads, work.regions)


def global_table(work: Workload) -> Cost:
    """What replicas of a global table add: a replicated write unit per kilobyte and other region."""
    return Cost("a global table (MREC)", (work.regions - 1) * work.kilobytes * work.changes, 0, 0)


def _coordination(work: Workload, prices: Prices) -> float:
    """Dollars a day of one stream: positions each second, heartbeats, and what workers look at."""
    writes = work.shards + work.workers / 3
    reads = work.workers * (2 + 2 / 3 + max(1, work.shards / 10) / 3)
    return (writes * prices.write_units + reads * prices.read_units) * _DAY / _MILLION


def cores() -> str:
    """What a core does, by case."""
    rows = [row for row in json.loads(_MEASURED.read_text())["rows"] if row["consumer"] == "lean"]
    lines = ["| records | CPU per record | a core does | 500 a second take | memory |", "|---|---|---|---|---|"]
    for row in rows:
        if row["case"] in _CASES:
            each = row["microseconds"]
            a_second = f"{round(_MICROSECONDS / each, -2):,.0f}".replace(",", " ")
            share = 500 * each / _MICROSECONDS
            lines.append(
                f"| {_CASES[row['case']]} | {each:.0f} µs | {a_second}/s | {share:.2f} cores | {row['mebibytes']} MiB |"
            )
    return "\n".join(lines) + "\n"


def example() -> str:
    """What the worked example costs a day."""
    work, prices = Workload(), Prices()
    heads = ["mode", "write units/s", "read units/s", "writes", "reads", "streams", "traffic", "coordination", "a day"]
    lines = ["| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
    for cost in (ordered(work), versioned(work), active_active(work), global_table(work)):
        dollars = list(cost.dollars(work, prices))
        cells = [
            cost.name,
            str(cost.writes),
            str(cost.reads),
            *(f"${each:.2f}" for each in dollars),
            f"**${sum(dollars):.2f}**",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


PARTS = {"cores": cores, "example": example}
