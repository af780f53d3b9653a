"""Which replicas get less than they could, because they throttle or because of `write_units`: as workers say."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from replicator.domain.pacing import MOSTLY


@dataclass(frozen=True, slots=True)
class ThrottledTable:
    """A table that throttled most of what a worker sent lately; `allowed`: requests in flight that it gets now."""

    worker: str
    rule: str
    region: str
    table: str
    allowed: int


@dataclass(frozen=True, slots=True)
class SlowedRule:
    """A rule that waits for write units in a region; what it takes there, by all workers that answer."""

    rule: str
    region: str
    write_units: int
    taken_per_second: float


@dataclass(frozen=True, slots=True)
class PacingStatus:
    """What is written more slowly than it is read, and why."""

    throttled: list[ThrottledTable]
    slowed: list[SlowedRule]


def pacing_status(daemons: Iterable[Mapping[str, Any]]) -> PacingStatus:
    """From what workers answer. Tables of one rule in one region share its bound, so a worker tells it once."""
    throttled = []
    units: dict[tuple[str, str], dict[str, Mapping[str, Any]]] = {}
    for daemon in daemons:
        worker = str(daemon.get("worker"))
        for table in daemon.get("writes", ()):
            low = [kind for kind, count in table["throttled_lately"].items() if count > MOSTLY]
            if low:
                allowed = min(table["limits"][kind] for kind in low)
                throttled.append(ThrottledTable(worker, table["rule"], table["region"], table["table"], allowed))
            if table["write_units"] is not None:
                units.setdefault((table["rule"], table["region"]), {})[worker] = table["write_units"]
    slowed = [
        SlowedRule(
            rule,
            region,
            next(iter(told.values()))["per_second"],
            round(sum(each["taken_per_second"] for each in told.values()), 1),
        )
        for (rule, region), told in sorted(units.items())
        if any(each["slowed"] for each in told.values())
    ]
    return PacingStatus(throttled, slowed)
