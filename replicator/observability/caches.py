"""Caches beside tables: how they stand and what they are owed, as log lines, as metrics and for /status."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from prometheus_client import CollectorRegistry, Counter, Gauge

from replicator.domain.presence import Standing

if TYPE_CHECKING:
    from replicator.observability.status_board import Board
    from replicator.ports.events import CacheState


class CacheMetrics:
    """Labels are caches and their regions."""

    def __init__(self, registry: CollectorRegistry) -> None:
        cache = ["cache", "region"]

        def counter(name: str, text: str) -> Counter:
            return Counter(f"replicator_cache_{name}", text, cache, registry=registry)

        def gauge(name: str, text: str) -> Gauge:
            return Gauge(f"replicator_cache_{name}", text, cache, registry=registry)

        self.away = gauge("away", "Whether a cache is away for this worker: 1 or 0.")
        self.keys = gauge("owed_entries", "Entries that a cache is owed: those of this worker, and of workers gone.")
        self.age = gauge("owed_oldest_seconds", "Time since the oldest of them became owed.")
        self.owed = counter("owed_actions_total", "Actions that a cache did not carry out and is owed.")
        self.settled = counter("settled_entries_total", "Entries that were owed and are dropped.")
        self.ignored = counter("ignored_actions_total", "Actions given up because a cache is owed all that is kept.")
        self.flushes = counter("flushes_total", "How often all entries of a cache were dropped.")
        self.restores = counter("restores_total", "How often a cache was another server, with entries that may be old.")

    def told(self, state: CacheState, before: CacheState | None) -> None:
        """Raise the counters by what happened since."""
        labels = (state.cache, state.region)
        for metric, name in (
            (self.owed, "owed"),
            (self.settled, "settled"),
            (self.ignored, "ignored"),
            (self.flushes, "flushes"),
            (self.restores, "restores"),
        ):
            metric.labels(*labels).inc(getattr(state, name) - (0 if before is None else getattr(before, name)))

    def refresh(self, board: Board) -> None:
        """Set the gauges."""
        for (name, region), (state, _) in board.caches.items():
            self.away.labels(name, region).set(state.error is not None)
            self.keys.labels(name, region).set(state.keys)
            self.age.labels(name, region).set(_age(board, state) or 0.0)


def shown(board: Board) -> list[dict[str, Any]]:
    """Every cache as this worker sees it."""
    now = board.clock.monotonic()
    return [
        {
            "cache": state.cache,
            "region": state.region,
            "standing": Standing.HERE if state.error is None else Standing.AWAY,
            "why": "" if state.error is None else state.error.message,
            "refuses": "" if state.refusing is None else state.refusing.message,
            "advice": "" if trouble is None else trouble.worker_advice,
            "seconds": round(now - since, 1),
            "keys": state.keys,
            "oldest_seconds": _age(board, state),
            "owes_flush": state.owes_flush,
            "owed": state.owed,
            "settled": state.settled,
            "ignored": state.ignored,
            "flushes": state.flushes,
            "restores": state.restores,
            "flushed_at": state.flushed_at,
        }
        for state, since in board.caches.values()
        for trouble in (state.error or state.refusing,)
    ]


def _age(board: Board, state: CacheState) -> float | None:
    return None if state.oldest is None else round(max(0.0, board.clock.now() - state.oldest), 1)
