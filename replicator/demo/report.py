"""The result of a run of mode `ordered`, as JSON or as lines for people; and parts of every mode's result."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from replicator.demo.compare import LEAST_CACHE_ENTRIES, Difference, Findings
from replicator.demo.events import EventConsumers
from replicator.demo.lag import POLL_SECONDS, Lags, LagSampler, figures
from replicator.demo.layout import SOURCE
from replicator.demo.reader import CacheReader, Read
from replicator.demo.shards import ShardWatch
from replicator.demo.traffic import Writers
from replicator.demo.view import ways
from replicator.domain.errors import EXIT_FAULT, EXIT_STOPPED

MOST_DIFFERENCES: Final = 10


@dataclass(frozen=True, slots=True)
class Report:
    """Everything a run showed."""

    rate: float
    seconds: float
    """The whole run, from the first server's start."""

    seeded: int
    writers: Writers
    samplers: tuple[LagSampler, ...]
    readers: tuple[CacheReader, ...]
    findings: Findings
    caught_up: bool
    daemon_exit: int | None
    """None: left running."""

    shards: ShardWatch | None
    """None: streams of one shard."""

    events: EventConsumers | None = None
    """None: no change went anywhere as an event."""

    @property
    def verdict(self) -> str:
        """`identical`, or why not."""
        if not self.findings.identical:
            return "different"
        if not self.caught_up:
            return "not drained in time"
        if not self.findings.enough:
            return "too little compared"
        trouble = self._trouble
        return "identical" if trouble is None else f"identical, but {trouble}"

    @property
    def _trouble(self) -> str | None:
        """What is wrong though everything is identical."""
        if self.shards is not None and self.shards.trouble is not None:
            return self.shards.trouble
        if self.events is not None and not self.events.is_well:
            return "a consumer of events did not see every change in order"
        if self.daemon_exit not in (None, EXIT_STOPPED):
            return "the daemon did not stop cleanly"
        return None

    @property
    def exit_code(self) -> int:
        """0 only for `identical`."""
        return EXIT_STOPPED if self.verdict == "identical" else EXIT_FAULT

    @property
    def writes_per_second(self) -> float:
        """What was reached, not what was asked."""
        return round(self.writers.writes / self.writers.seconds, 1) if self.writers.seconds else 0.0

    def as_json(self) -> dict[str, Any]:
        """The report as one JSON object."""
        return {
            "verdict": self.verdict,
            "seconds": round(self.seconds, 1),
            "source": {
                "seeded": self.seeded,
                "writes": self.writers.writes,
                "kinds": dict(sorted(self.writers.counts.items())),
                "seconds": round(self.writers.seconds, 1),
                "writes_per_second": self.writes_per_second,
                "writes_per_second_asked": self.rate,
            },
            "replicas": {sampler.name: {"lag": lag_json(sampler.lags[SOURCE])} for sampler in self.samplers},
            "lag_measured": lag_method(POLL_SECONDS),
            "caches": {
                reader.cache.name: cache_json(reader, self.findings.entries[reader.cache.name])
                for reader in self.readers
            },
            "compared": {
                "items": dict(self.findings.items),
                "deleted_keys": self.findings.deleted,
                "tombstones": self.findings.tombstones,
                "cache_entries": self.findings.live_entries,
                "cache_entries_required": LEAST_CACHE_ENTRIES,
            },
            "shards": None if self.shards is None else self.shards.as_json(),
            "events": None if self.events is None else self.events.as_json(),
            "differences": [str(difference) for difference in self.findings.differences[:MOST_DIFFERENCES]],
            "differences_found": len(self.findings.differences),
            "drained": self.caught_up,
            "daemon_exit_code": self.daemon_exit,
            "exit_code": self.exit_code,
        }

    def lines(self) -> list[str]:
        """The report for people."""
        writers, findings = self.writers, self.findings
        kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(writers.counts.items()))
        done = f"{writers.writes} in {writers.seconds:.1f} s ({self.writes_per_second:.0f}/s)"
        lines = [f"writes    {done}: {kinds}; {self.seeded} before the daemon started"]
        lines += [lag_line(f"lag {way}", lags) for way, lags in ways(self.samplers)]
        lines.append(f"          {lag_method(POLL_SECONDS)}")
        places = [f"{count} in {place}" for place, count in findings.items.items()]
        per_table = len(places) // len(self.writers.world.tables)
        for start in range(0, len(places), per_table):
            title = "          " if start else "tables    "
            lines.append(title + ", ".join(places[start : start + per_table]))
        lines.append(f"deleted   {findings.deleted} absences checked, {findings.tombstones} tombstones")
        lines += [cache_line(reader, findings.entries[reader.cache.name]) for reader in self.readers]
        lines.append(f"          {findings.live_entries} live entries compared, {LEAST_CACHE_ENTRIES} required")
        if self.shards is not None:
            lines += self.shards.lines()
        if self.events is not None:
            lines += self.events.lines()
        lines += difference_lines(findings.differences)
        if self.daemon_exit is not None:
            lines.append(f"daemon    exit code {self.daemon_exit} after SIGTERM")
        return [*lines, f"verdict   {self.verdict}"]


# -- parts of every report -----------------------------------------------------------------------------------------


def lag_method(poll_seconds: float) -> str:
    """How lags are measured."""
    return (
        "the writer's own time in the item, until a consistent read of the replica shows it; polled every"
        f" {poll_seconds * 1000:.0f} ms"
    )


def lag_json(lags: Lags) -> dict[str, int | None]:
    """The lags of one way."""
    lag = figures(lags.milliseconds)
    return {
        "p50_ms": lag.p50_ms,
        "p99_ms": lag.p99_ms,
        "max_ms": lag.max_ms,
        "samples": lag.samples,
        "overtaken_by_delete": lags.overtaken_by_delete,
        "never_seen": lags.unseen,
    }


def lag_line(title: str, lags: Lags) -> str:
    """The lags of one way, for people."""
    lag = figures(lags.milliseconds)
    left_out = f", {lags.overtaken_by_delete} more deleted before they were seen" if lags.overtaken_by_delete else ""
    left_out += f", {lags.unseen} never seen" if lags.unseen else ""
    times = f"p50 {lag.p50_ms} ms, p99 {lag.p99_ms} ms, max {lag.max_ms} ms"
    return f"{title:<10}{times} ({lag.samples} writes sampled{left_out})"


def cache_json(reader: CacheReader, compared: Counter[str]) -> dict[str, Any]:
    """What happened at a cache, and what was compared there."""
    return {
        "region": reader.cache.region,
        "action": reader.cache.action,
        "readers": {kind.value: count for kind, count in sorted(reader.counts.items())},
        "compared": dict(sorted(compared.items())),
    }


def cache_line(reader: CacheReader, compared: Counter[str]) -> str:
    """The same, for people."""
    markers = f" {compared['deletion_markers']} deletion markers;" if reader.cache.action == "refresh" else ""
    return (
        f"cache     {reader.cache.name} ({reader.cache.action}): {compared['values']} values;{markers}"
        f" {reader.counts[Read.HIT]} hits, {reader.counts[Read.FILLED]} fills,"
        f" {reader.counts[Read.OVERTAKEN]} fills refused, {reader.counts[Read.EVICTED]} evictions"
    )


def difference_lines(differences: Sequence[Difference]) -> list[str]:
    """The first differences, and how many more there are."""
    lines = [f"different {difference}" for difference in differences[:MOST_DIFFERENCES]]
    more = len(differences) - MOST_DIFFERENCES
    return [*lines, f"          and {more} more differences"] if more > 0 else lines
