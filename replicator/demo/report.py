"""The result of a demo run: one value, shown as JSON for scripts or as lines for people."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from replicator.demo.compare import LEAST_CACHE_ENTRIES, Findings
from replicator.demo.lag import POLL_SECONDS, LagSampler, figures
from replicator.demo.reader import CacheReader, Read
from replicator.demo.traffic import Writers
from replicator.domain.errors import EXIT_FAULT, EXIT_STOPPED

MOST_DIFFERENCES: Final = 10
LAG_METHOD: Final = (
    "the writer's own time in the item, until a consistent read of the replica shows it; polled every"
    f" {POLL_SECONDS * 1000:.0f} ms"
)


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

    @property
    def verdict(self) -> str:
        """`identical`, or why not."""
        if not self.findings.identical:
            return "different"
        if not self.caught_up:
            return "not drained in time"
        if not self.findings.enough:
            return "too little compared"
        if self.daemon_exit not in (None, EXIT_STOPPED):
            return "identical, but the daemon did not stop cleanly"
        return "identical"

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
            "replicas": {sampler.name: {"lag": _lag(sampler)} for sampler in self.samplers},
            "lag_measured": LAG_METHOD,
            "caches": {
                reader.cache.name: {
                    "region": reader.cache.region,
                    "action": reader.cache.action,
                    "readers": {kind.value: count for kind, count in sorted(reader.counts.items())},
                    "compared": dict(sorted(self.findings.entries[reader.cache.name].items())),
                }
                for reader in self.readers
            },
            "compared": {
                "items": dict(self.findings.items),
                "deleted_keys": self.findings.deleted,
                "tombstones": self.findings.tombstones,
                "cache_entries": self.findings.live_entries,
                "cache_entries_required": LEAST_CACHE_ENTRIES,
            },
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
        for sampler in self.samplers:
            lag = figures(sampler.lags)
            lines.append(
                f"lag {sampler.name}    p50 {lag.p50_ms} ms, p99 {lag.p99_ms} ms, max {lag.max_ms} ms"
                f" ({lag.samples} writes sampled{_left_out(sampler)})"
            )
        lines.append(f"          {LAG_METHOD}")
        places = [f"{count} in {place}" for place, count in findings.items.items()]
        per_table = len(places) // len(self.writers.world.tables)
        for start in range(0, len(places), per_table):
            title = "          " if start else "tables    "
            lines.append(title + ", ".join(places[start : start + per_table]))
        lines.append(f"deleted   {findings.deleted} absences checked, {findings.tombstones} tombstones")
        for reader in self.readers:
            counts = findings.entries[reader.cache.name]
            lines.append(
                f"cache     {reader.cache.name} ({reader.cache.action}): {counts['values']} values,"
                f" {counts['deletion_markers']} deletion markers; {reader.counts[Read.HIT]} hits,"
                f" {reader.counts[Read.FILLED]} fills, {reader.counts[Read.OVERTAKEN]} fills refused,"
                f" {reader.counts[Read.EVICTED]} evictions"
            )
        lines.append(f"          {findings.live_entries} live entries compared, {LEAST_CACHE_ENTRIES} required")
        lines += [f"different {difference}" for difference in findings.differences[:MOST_DIFFERENCES]]
        if len(findings.differences) > MOST_DIFFERENCES:
            lines.append(f"          and {len(findings.differences) - MOST_DIFFERENCES} more differences")
        if self.daemon_exit is not None:
            lines.append(f"daemon    exit code {self.daemon_exit} after SIGTERM")
        return [*lines, f"verdict   {self.verdict}"]


def _lag(sampler: LagSampler) -> dict[str, int | None]:
    lag = figures(sampler.lags)
    return {
        "p50_ms": lag.p50_ms,
        "p99_ms": lag.p99_ms,
        "max_ms": lag.max_ms,
        "samples": lag.samples,
        "overtaken_by_delete": sampler.overtaken_by_delete,
        "never_seen": sampler.unseen,
    }


def _left_out(sampler: LagSampler) -> str:
    deleted = (
        f", {sampler.overtaken_by_delete} more deleted before they were seen" if sampler.overtaken_by_delete else ""
    )
    return deleted + (f", {sampler.unseen} never seen" if sampler.unseen else "")
