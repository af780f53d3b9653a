"""Caches beside tables: how they stand and what they are owed, as log lines, as metrics and for /status."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from prometheus_client import CollectorRegistry, Gauge
from prometheus_client import Counter as Counted

from replicator.domain.cache_horizons import Meaning
from replicator.domain.presence import Standing

if TYPE_CHECKING:
    from replicator.observability.status_board import Board
    from replicator.ports.events import CacheHorizons, CacheState


class CacheMetrics:
    """Labels are caches and their regions."""

    def __init__(self, registry: CollectorRegistry) -> None:
        cache = ["cache", "region"]

        def counter(name: str, text: str) -> Counted:
            return Counted(f"replicator_cache_{name}", text, cache, registry=registry)

        def gauge(name: str, text: str) -> Gauge:
            return Gauge(f"replicator_cache_{name}", text, cache, registry=registry)

        self.away = gauge("away", "Whether a cache is away for this worker: 1 or 0.")
        self.keys = gauge(
            "owed_entries", "Entries in a cache's backlog: those of this worker, and of workers that are gone."
        )
        self.age = gauge("owed_oldest_seconds", "Age of the oldest entry of the backlog.")
        self.owed = counter(
            "owed_actions_total", "Actions that a cache did not carry out and that were added to its backlog."
        )
        self.settled = counter("settled_entries_total", "Backlog entries that were dropped from the cache.")
        self.ignored = counter("ignored_actions_total", "Actions given up because the cache's backlog is full.")
        self.flushes = counter("flushes_total", "How often all entries of a cache were dropped.")
        self.looks = Counted(
            "replicator_cache_verified_entries_total",
            "Entries read back this long after an action, by result.",
            [*cache, "horizon", "outcome"],
            registry=registry,
        )
        self.nines = Gauge(
            "replicator_cache_nines",
            "-log10 of the share of judged entries that were older than their table, since the process began.",
            [*cache, "horizon"],
            registry=registry,
        )
        self.passed_over = counter(
            "unverified_changes_total", "Sampled changes that were not verified for lack of budget."
        )
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

    def verified(self, found: CacheHorizons, before: CacheHorizons | None) -> None:
        """Raise the counters by what was found since."""
        labels = (found.cache, found.region)
        self.passed_over.labels(*labels).inc(found.passed_over - (0 if before is None else before.passed_over))
        for place, horizon in enumerate(found.horizons):
            known = Counter() if before is None else before.horizons[place].found
            for meaning in Meaning:
                counted = self.looks.labels(*labels, f"{horizon.seconds:g}s", meaning.value)
                counted.inc(horizon.found[meaning] - known[meaning])
            if horizon.nines is not None:
                self.nines.labels(*labels, f"{horizon.seconds:g}s").set(horizon.nines)

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
            "horizons": _horizons(board, state),
        }
        for state, since in board.caches.values()
        for trouble in (state.error or state.refusing,)
    ]


def _horizons(board: Board, state: CacheState) -> list[dict[str, Any]]:
    """What was found so long behind actions."""
    found = board.horizons.get((state.cache, state.region))
    return [
        {
            "seconds": each.seconds,
            "checked": each.checked,
            **{meaning.value: each.found[meaning] for meaning in Meaning if meaning is not Meaning.CONSISTENT},
            "nines": each.nines,
        }
        for each in (found.horizons if found else ())
    ]


def _age(board: Board, state: CacheState) -> float | None:
    return None if state.oldest is None else round(max(0.0, board.wall - state.oldest), 1)
