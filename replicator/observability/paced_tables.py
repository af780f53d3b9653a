"""How replicas are written: limits, requests in flight, throttles and write units, as metrics and for /status.

Figures are read where the engine keeps them, at every scrape, so a request costs nothing more for them. Labels are
rules and regions: over the tables of a rule the lowest limit counts, and the sum of everything else.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from prometheus_client import Counter

    from replicator.domain.pacing import AdaptiveLimit, Pace
    from replicator.domain.write_units import UnitBucket
    from replicator.observability.metrics import WriteMetrics
    from replicator.observability.status_board import Board
    from replicator.ports.events import PacedTable

_KINDS = ("single", "transaction")


def refresh(metrics: WriteMetrics, board: Board) -> None:
    """Set what belongs to the tables of the present rules."""
    for gauge in (metrics.request_limit, metrics.in_flight, metrics.units_limit, metrics.units_waiting):
        gauge.clear()
    told, metrics.told = metrics.told, {}
    lowest: dict[tuple[str, str, str], int] = {}
    raised: list[tuple[Counter, tuple[str, str], Pace | UnitBucket, float]] = []
    buckets: dict[tuple[str, str], UnitBucket] = {}
    for table in board.paced.values():
        labels = (str(table.rule), str(table.region))
        for kind, limit in zip(_KINDS, _limits(table), strict=True):
            lowest[*labels, kind] = min(lowest.get((*labels, kind), limit.allowed), limit.allowed)
        metrics.in_flight.labels(*labels).inc(table.pace.in_flight)
        raised.append((metrics.throttled, labels, table.pace, table.pace.throttles))
        if table.bucket is not None:
            buckets[labels] = table.bucket
    for where, allowed in lowest.items():
        metrics.request_limit.labels(*where).set(allowed)
    for labels, bucket in buckets.items():
        metrics.units_limit.labels(*labels).set(bucket.per_second)
        metrics.units_waiting.labels(*labels).set(bucket.waiting)
        raised.append((metrics.units, labels, bucket, bucket.taken))
    for counter, labels, source, total in raised:
        # What was set right downwards is waited for: a counter only rises.
        before = told.get((counter, labels, source), 0.0)
        metrics.told[counter, labels, source] = max(before, total)
        counter.labels(*labels).inc(max(0.0, total - before))


def shown(board: Board) -> list[dict[str, Any]]:
    """Every table that is written, for /status."""
    now = board.clock.monotonic()
    return [_table(table, now) for _, table in sorted(board.paced.items())]


def _table(table: PacedTable, now: float) -> dict[str, Any]:
    return {
        "rule": table.rule,
        "region": table.region,
        "table": table.table,
        "ceiling": table.pace.ceiling,
        "in_flight": table.pace.in_flight,
        "limits": {kind: limit.allowed for kind, limit in zip(_KINDS, _limits(table), strict=True)},
        "throttles": table.pace.throttles,
        "throttled_lately": {kind: limit.throttled_lately for kind, limit in zip(_KINDS, _limits(table), strict=True)},
        "write_units": None if table.bucket is None else _units(table.bucket, now),
    }


def _units(bucket: UnitBucket, now: float) -> dict[str, Any]:
    return {
        "per_second": bucket.per_second,
        "taken_per_second": round(bucket.rate(now), 1),
        "taken": round(bucket.taken, 1),
        "waiting": bucket.waiting,
        "slowed": bucket.is_slowing(now),
    }


def _limits(table: PacedTable) -> tuple[AdaptiveLimit, AdaptiveLimit]:
    return table.pace.singles, table.pace.transactions
