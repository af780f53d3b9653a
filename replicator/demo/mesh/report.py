"""The result of a run of a mesh: one value, shown as JSON for scripts or as lines for people."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any, Final

from replicator.demo.compare import LEAST_CACHE_ENTRIES
from replicator.demo.mesh.compare import LEAST_CONFLICTS, LEAST_KEYS, MeshFindings
from replicator.demo.mesh.echo import QUIET_SECONDS
from replicator.demo.mesh.traffic import MeshWriters
from replicator.demo.reader import CacheReader
from replicator.demo.report import (
    MOST_DIFFERENCES,
    cache_json,
    cache_line,
    difference_lines,
    lag_json,
    lag_line,
    lag_method,
)
from replicator.demo.shards import ShardWatch
from replicator.demo.view import ways
from replicator.domain.errors import EXIT_FAULT, EXIT_STOPPED

EXAMPLES: Final = 5
"""Conflicts that are shown."""


@dataclass(frozen=True, slots=True)
class Records:
    """What the streams of all regions held, when all writes had ceased."""

    total: int
    by_users: int
    after_silence: int
    """Written after silence was found; they would be an echo."""

    @property
    def by_daemon(self) -> int:
        """Writes of items that no user made."""
        return self.total - self.by_users


@dataclass(frozen=True, slots=True)
class MeshReport:
    """Everything a run showed."""

    mode: str
    regions: tuple[str, ...]
    rate: float
    seconds: float
    """The whole run, from the first server's start."""

    seeded: int
    writers: MeshWriters
    readers: tuple[CacheReader, ...]
    findings: MeshFindings
    records: Records
    silent_seconds: float | None
    """From the last write of a user until silence was found; None: it was not, in time."""

    daemon_exit: int | None
    """None: left running."""

    shards: ShardWatch | None
    """None: streams of one shard."""

    @property
    def verdict(self) -> str:  # noqa: PLR0911 - one for each answer
        """`identical`, or why not."""
        if not self.findings.identical:
            return "different"
        if self.silent_seconds is None:
            return "not silent in time"
        if self.records.after_silence:
            return "identical, but not silent"
        if not self.findings.enough:
            return "too little compared"
        if self.shards is not None and self.shards.trouble is not None:
            return f"identical, but {self.shards.trouble}"
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

    @property
    def _kinds(self) -> Counter[str]:
        return Counter(f"{conflict.kind}, {conflict.reason}" for conflict in self.findings.conflicts)

    @property
    def _lag_method(self) -> str:
        return lag_method(next(iter(self.writers.samplers.values())).poll_seconds) + "; keys of one region only"

    def as_json(self) -> dict[str, Any]:
        """The report as one JSON object."""
        writers, findings = self.writers, self.findings
        return {
            "verdict": self.verdict,
            "mode": self.mode,
            "regions": list(self.regions),
            "seconds": round(self.seconds, 1),
            "traffic": {
                "seeded": self.seeded,
                "writes": writers.writes,
                "kinds": dict(sorted(writers.counts.items())),
                "by_region": dict(sorted(writers.by_region.items())),
                "clashes": writers.clashes,
                "versions": dict(sorted(writers.versions.items())),
                "seconds": round(writers.seconds, 1),
                "writes_per_second": self.writes_per_second,
                "writes_per_second_asked": self.rate,
            },
            "lag": {way: lag_json(lags) for way, lags in ways(list(writers.samplers.values()))},
            "lag_measured": self._lag_method,
            "caches": {
                reader.cache.name: cache_json(reader, findings.entries[reader.cache.name]) for reader in self.readers
            },
            "conflicts": {
                "entries": len(findings.conflicts),
                "entries_required": LEAST_CONFLICTS,
                "kinds": dict(self._kinds.most_common()),
                "outcomes": dict(Counter(conflict.outcome for conflict in findings.conflicts)),
                "examples": [str(conflict) for conflict in findings.conflicts[-EXAMPLES:]],
                "lost_writes": findings.lost,
                "lost_writes_that_must_be_logged": findings.lost_maximal,
                "lost_writes_not_logged": findings.lost_unlogged,
            },
            "records": {
                "by_users": self.records.by_users,
                "by_daemon": self.records.by_daemon,
                "after_silence": self.records.after_silence,
            },
            "silent_after_seconds": None if self.silent_seconds is None else round(self.silent_seconds, 1),
            "compared": {
                "items": dict(findings.items),
                "keys": findings.keys,
                "keys_required": LEAST_KEYS,
                "contested_keys": findings.contested,
                "absent_keys": findings.absent,
                "cache_entries": findings.live_entries,
                "cache_entries_required": LEAST_CACHE_ENTRIES,
            },
            "shards": None if self.shards is None else self.shards.as_json(),
            "differences": [str(difference) for difference in findings.differences[:MOST_DIFFERENCES]],
            "differences_found": len(findings.differences),
            "daemon_exit_code": self.daemon_exit,
            "exit_code": self.exit_code,
        }

    def lines(self) -> list[str]:
        """The report for people."""
        writers, findings, records = self.writers, self.findings, self.records
        done = f"{writers.writes} in {writers.seconds:.1f} s ({self.writes_per_second:.0f}/s)"
        lines = [
            f"writes    {done}: {_counts(writers.counts)}; {self.seeded} before the daemon started",
            f"          {_counts(writers.by_region)}; {writers.clashes} clashes: one key in several regions at a time",
        ]
        if writers.versions:
            lines.append(f"          {_counts(writers.versions)}")
        lines += [lag_line(f"lag {way}", lags) for way, lags in ways(list(writers.samplers.values()))]
        lines.append(f"          {self._lag_method}")
        price = records.by_daemon / records.by_users if records.by_users else 0.0
        lines.append(
            f"records   {records.by_users} by users, {records.by_daemon} by the daemon ({price:.2f} for each),"
            f" {records.after_silence} after silence"
        )
        places = [f"{count} in {place}" for place, count in findings.items.items()]
        for start in range(0, len(places), len(self.regions)):
            title = "          " if start else "tables    "
            lines.append(title + ", ".join(places[start : start + len(self.regions)]))
        lines.append(
            f"winners   {findings.keys} keys judged ({LEAST_KEYS} required), {findings.contested} of them contested,"
            f" {findings.absent} absent"
        )
        lines += [cache_line(reader, findings.entries[reader.cache.name]) for reader in self.readers]
        lines.append(f"          {findings.live_entries} live entries compared, {LEAST_CACHE_ENTRIES} required")
        lines.append(f"conflicts {len(findings.conflicts)} in the log: {_counts(self._kinds)}")
        lines += [f"          {conflict}" for conflict in findings.conflicts[-EXAMPLES:]]
        lines.append(
            f"lost      {findings.lost} writes that no later user saw, {findings.lost_maximal} of them the last of"
            f" their region; {findings.lost_unlogged} others not in the log"
        )
        if self.shards is not None:
            lines += self.shards.lines()
        lines += difference_lines(findings.differences)
        if self.silent_seconds is not None:
            quiet = f"{QUIET_SECONDS:.0f} s without any record included"
            lines.append(f"silence   {self.silent_seconds:.1f} s after the last write of a user, {quiet}")
        if self.daemon_exit is not None:
            lines.append(f"daemon    exit code {self.daemon_exit} after SIGTERM")
        identical = self.verdict == "identical"
        return [*lines, f"verdict   {self.verdict}" + (f" in {len(self.regions)} regions" if identical else "")]


def _counts(counts: Counter[str]) -> str:
    return ", ".join(f"{count} {name.replace('_', ' ')}" for name, count in sorted(counts.items()))
