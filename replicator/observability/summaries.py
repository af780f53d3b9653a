"""What rules applied, in one line of the log a minute each: pages are logged one by one only when debugging."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from msgspec import Struct, field

EVERY_SECONDS = 60.0


class _Sum(Struct):
    since: float
    counts: Counter[str] = field(default_factory=Counter)
    lag: float | None = None


class Summaries:
    """What was applied since the last line of each rule. The first line of a rule is due with its first page."""

    def __init__(self) -> None:
        self._sums: dict[str, _Sum] = {}
        self._look_at = 0.0

    def add(self, rule: str, counts: Mapping[str, int], lag: float | None, now: float) -> None:
        """A page was applied."""
        kept = self._sums.get(rule)
        if kept is None:
            kept = self._sums[rule] = _Sum(now - EVERY_SECONDS)
            self._look_at = now
        kept.counts.update(counts)
        if lag is not None:
            kept.lag = lag if kept.lag is None else max(kept.lag, lag)

    def due(self, now: float, *, all_of_them: bool = False) -> Iterator[dict[str, Any]]:
        """The lines that are due; `all_of_them`: what is left, however new."""
        if now < self._look_at and not all_of_them:
            return
        for rule, kept in list(self._sums.items()):
            if kept.counts and (all_of_them or now - kept.since >= EVERY_SECONDS):
                lag = {} if kept.lag is None else {"greatest_lag_seconds": round(kept.lag, 1)}
                yield {"rule": rule, **{name: count for name, count in kept.counts.items() if count}, **lag}
                self._sums[rule] = _Sum(now)
        self._look_at = min((each.since for each in self._sums.values()), default=now) + EVERY_SECONDS
