"""Canaries: how long what is written takes to arrive, as log lines, as metrics and for /status."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from prometheus_client import CollectorRegistry, Gauge

if TYPE_CHECKING:
    from structlog.typing import FilteringBoundLogger

    from replicator.domain.canary import Arrivals, CanaryPlace
    from replicator.observability.status_board import Board

_PLACE = ["rule", "source", "region", "cache"]


class CanaryMetrics:
    """Labels are rules, where the canary is written, and where it arrives; of several tables of a rule the worst."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.lag = Gauge(
            "replicator_canary_lag_seconds",
            "Time from a write of the canary to its arrival, of the last hundred.",
            [*_PLACE, "quantile"],
            registry=registry,
        )
        self.age = Gauge(
            "replicator_canary_age_seconds",
            "Time since the newest canary was written that has arrived.",
            _PLACE,
            registry=registry,
        )
        self.late = Gauge(
            "replicator_canary_late", "Whether none has arrived for three periods: 1 or 0.", _PLACE, registry=registry
        )

    def refresh(self, board: Board) -> None:
        """Set the gauges."""
        now = board.clock.monotonic()
        for gauge in (self.lag, self.age, self.late):
            gauge.clear()
        worst: dict[tuple[Any, ...], tuple[Gauge, float]] = {}
        for place, found in board.canaries.items():
            labels = (place.rule, place.source, place.region, place.cache)
            shown = [
                (self.age, labels, found.age(now)),
                (self.late, labels, float(found.is_late(now))),
                *((self.lag, (*labels, name), lag) for name, lag in (("0.5", found.p50), ("0.99", found.p99))),
            ]
            for gauge, where, value in shown:
                if value is not None:
                    key = (id(gauge), *where)
                    worst[key] = (gauge, max(value, worst.get(key, (gauge, 0.0))[1]))
        for (_, *names), (gauge, value) in worst.items():
            gauge.labels(*names).set(value)


def told(board: Board, log: FilteringBoundLogger, place: CanaryPlace, arrivals: Arrivals | None) -> None:
    """Note how a canary arrives; one that comes late, and one that comes again, are worth a line."""
    if arrivals is None:
        board.canaries.pop(place, None)
        board.late_canaries.discard(place)
        return
    now = board.clock.monotonic()
    board.canaries[place] = arrivals
    is_late = arrivals.is_late(now)
    if is_late == (place in board.late_canaries):
        return
    (board.late_canaries.add if is_late else board.late_canaries.discard)(place)
    where = {name: getattr(place, name) for name in ("rule", "source", "table", "region", "cache")}
    if is_late:
        log.warning("canary_late", seconds=round(arrivals.age(now), 1), reason=arrivals.why, **where)
    else:
        log.info("canary_arrives", **where)


def shown(board: Board) -> list[dict[str, Any]]:
    """How canaries arrive that this worker writes."""
    now = board.clock.monotonic()
    return [
        {
            "rule": place.rule,
            "source": place.source,
            "table": place.table,
            "region": place.region,
            "cache": place.cache,
            "period_seconds": found.every,
            "arrived": found.arrived,
            "lag_p50_seconds": _rounded(found.p50),
            "lag_p99_seconds": _rounded(found.p99),
            "age_seconds": round(found.age(now), 1),
            "late": found.is_late(now),
            "unwritten": found.is_unwritten(now),
            "why": found.why,
        }
        for place, found in board.canaries.items()
    ]


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 2)
