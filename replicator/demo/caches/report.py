"""What the demonstration of caches showed: nines by horizon, failures, and what stays stale for good."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from replicator.demo.caches.readers import Crowd
from replicator.demo.caches.truth import HORIZONS
from replicator.demo.compare import Difference, Findings
from replicator.demo.report import MOST_DIFFERENCES, difference_lines
from replicator.demo.traffic import Writers
from replicator.domain.errors import EXIT_FAULT, EXIT_STOPPED

_WELL: Final = "never stale for good"
LEAST_SHARE: Final = 0.5
"""Of the keys, that must have an entry in every cache when these are compared."""


@dataclass(frozen=True, slots=True)
class CacheReport:
    """Everything a run showed."""

    action: str
    plain: bool
    seconds: float
    """The whole run, from the first server's start."""

    duration: float
    """Of the traffic."""

    writers: Writers
    crowds: tuple[Crowd, ...]
    tables: Findings
    entries: dict[str, int]
    """Entries that were compared, by cache."""

    stale: Sequence[Difference]
    """Entries that are still not what the table beside them holds."""

    keys: int
    caught_up: bool
    failures: Sequence[dict[str, Any]]
    failed_as_meant: bool
    daemon_exit: int | None

    @property
    def verdict(self) -> str:
        """`never stale for good`, or why not."""
        if self.tables.differences:
            return "the tables differ"
        if self.stale:
            return f"{len(self.stale)} entries stay stale"
        if not self.caught_up:
            return "not drained in time"
        if min(self.entries.values()) < LEAST_SHARE * self.keys:
            return "too little compared"
        return _WELL if self._trouble is None else f"{_WELL}, but {self._trouble}"

    @property
    def _trouble(self) -> str | None:
        """What is wrong though nothing is stale."""
        if not self.failed_as_meant:
            return "not every failure happened as meant"
        return None if self.daemon_exit in {None, EXIT_STOPPED} else "the daemon did not stop cleanly"

    @property
    def exit_code(self) -> int:
        """0 only for `never stale for good`."""
        return EXIT_STOPPED if self.verdict == _WELL else EXIT_FAULT

    @property
    def horizons(self) -> tuple[float, ...]:
        """Those that a run of this duration can tell of."""
        return tuple(horizon for horizon in HORIZONS if horizon <= self.duration)

    def as_json(self) -> dict[str, Any]:
        """The report as one JSON object."""
        return {
            "verdict": self.verdict,
            "seconds": round(self.seconds, 1),
            "action": self.action,
            "readers": "plain look-aside" if self.plain else "replicator.cache",
            "writes": self.writers.writes,
            "caches": {
                crowd.cache.name: {
                    "readers": len(crowd.readers),
                    "reads": dict(sorted(crowd.counts.items())),
                    "evictions": crowd.evictions,
                    "horizons_s": crowd.staleness.as_json(self.horizons),
                    "stalest_read_s": round(crowd.staleness.longest, 2),
                    "entries_compared": self.entries[crowd.cache.name],
                }
                for crowd in self.crowds
            },
            "failures": list(self.failures),
            "permanently_stale": len(self.stale),
            "stale": [str(difference) for difference in self.stale[:MOST_DIFFERENCES]],
            "differences": [str(difference) for difference in self.tables.differences[:MOST_DIFFERENCES]],
            "drained": self.caught_up,
            "daemon_exit_code": self.daemon_exit,
            "exit_code": self.exit_code,
        }

    def lines(self) -> list[str]:
        """The report for people."""
        rate = self.writers.writes / self.writers.seconds if self.writers.seconds else 0.0
        how = "plain look-aside" if self.plain else "replicator.cache"
        lines = [f"writes    {self.writers.writes} in {self.writers.seconds:.1f} s ({rate:.0f}/s) to {self.keys} keys"]
        for crowd in self.crowds:
            counts = ", ".join(f"{count} {source}" for source, count in sorted(crowd.counts.items()))
            lines.append(
                f"cache     {crowd.cache.name} ({self.action}), {len(crowd.readers)} readers by {how}: {counts}"
            )
            lines += [f"          {line}" for line in crowd.staleness.lines(self.horizons)]
            lines.append(f"          the stalest read was {crowd.staleness.longest:.1f} s behind the table beside it")
        lines += [f"failure   {each['at']:.0f} s: {each['what']}" for each in self.failures]
        compared = ", ".join(f"{count} in {name}" for name, count in self.entries.items())
        lines.append(f"entries   {compared}; stale for good: {len(self.stale)}")
        lines += difference_lines([*self.tables.differences, *self.stale])
        if self.daemon_exit is not None:
            lines.append(f"daemon    exit code {self.daemon_exit} after SIGTERM")
        return [*lines, f"verdict   {self.verdict}"]
