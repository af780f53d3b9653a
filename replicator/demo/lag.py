"""Replication lag as a reader of the replica would see it, from the writer's own clock.

A sampled write is looked for on the replica, by consistent reads, until it or a later one of the same key is there; its
lag is that moment minus the time that the writer put into the item. One clock serves both, so there is no skew.
Invariant: writes are sampled at a steady pace that does not depend on how slow the replica is, so a stall is not
measured less often than good times. What limits the figures: a lag is too long by up to one polling interval and the
read itself, and a write whose item was deleted before it was seen is left out (and counted).
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from typing import Any, Final

from replicator.demo.dynamodb import MOST_PER_BATCH_GET, LocalRegion, Typed
from replicator.demo.items import COUNTER, KeyState, milliseconds
from replicator.demo.world import DemoTable

POLL_SECONDS: Final = 0.02
SAMPLES_PER_SECOND: Final = 25
MOST_PENDING: Final = 2_000
_RECENT_SECONDS = 3.0


@dataclass(frozen=True, slots=True)
class LagFigures:
    """A distribution of lags, in milliseconds; None when nothing was measured."""

    samples: int
    p50_ms: int | None
    p99_ms: int | None
    max_ms: int | None


def figures(lags: list[int]) -> LagFigures:
    """The distribution of some lags (nearest rank)."""
    if not lags:
        return LagFigures(0, None, None, None)
    ordered = sorted(lags)
    last = len(ordered) - 1
    return LagFigures(len(ordered), ordered[round(last * 0.5)], ordered[round(last * 0.99)], ordered[last])


@dataclass(slots=True)
class LagSampler:
    """Measures one replica region."""

    name: str
    region: LocalRegion
    tables: tuple[DemoTable, ...]
    lags: list[int] = field(default_factory=list)
    overtaken_by_delete: int = 0
    not_sampled: int = 0
    _pending: dict[tuple[str, str], tuple[KeyState, int, int]] = field(default_factory=dict)
    _recent: list[tuple[float, int]] = field(default_factory=list)
    _next_at: float = 0.0

    def offer(self, state: KeyState, counter: int, written_at_ms: int) -> None:
        """Consider an acknowledged write for sampling."""
        now = time.monotonic()
        identity = (state.table.rule, state.shown)
        if now < self._next_at or identity in self._pending or len(self._pending) >= MOST_PENDING:
            self.not_sampled += 1
            return
        self._next_at = max(self._next_at + 1 / SAMPLES_PER_SECOND, now - 1 / SAMPLES_PER_SECOND)
        self._pending[identity] = (state, counter, written_at_ms)

    @property
    def unseen(self) -> int:
        """Sampled writes that are still looked for."""
        return len(self._pending)

    async def run(self, stop: asyncio.Event) -> None:
        """Measure until `stop` is set."""
        while not stop.is_set():
            started = time.monotonic()
            for batch in self._batches():
                await self._look(batch)
            await asyncio.sleep(max(0.0, started + POLL_SECONDS - time.monotonic()))

    def recent(self) -> LagFigures:
        """The distribution over the last few seconds."""
        horizon = time.monotonic() - _RECENT_SECONDS
        self._recent = [(at, lag) for at, lag in self._recent if at > horizon]
        return figures([lag for _, lag in self._recent])

    def _batches(self) -> list[list[tuple[KeyState, int, int]]]:
        waiting = list(self._pending.values())
        return [waiting[start : start + MOST_PER_BATCH_GET] for start in range(0, len(waiting), MOST_PER_BATCH_GET)]

    async def _look(self, batch: list[tuple[KeyState, int, int]]) -> None:
        keys: dict[str, list[Typed]] = {}
        for state, _, _ in batch:
            keys.setdefault(state.table.names[self.name], []).append(state.key)
        names = {part for table in self.tables for part, _ in table.key} | {COUNTER}
        found = await self.region.get_some(keys, sorted(names))
        seen_at = milliseconds()
        counters = {
            (table, _identity(item)): int(item[COUNTER]["N"]) for table, items in found.items() for item in items
        }
        for state, counter, written_at_ms in batch:
            there = counters.get((state.table.names[self.name], _identity(state.key)))
            if there is not None and there >= counter:
                self._seen(state, seen_at - written_at_ms)
            elif there is None and state.item is None:
                self.overtaken_by_delete += 1
                del self._pending[state.table.rule, state.shown]

    def _seen(self, state: KeyState, lag_ms: int) -> None:
        self.lags.append(lag_ms)
        self._recent.append((time.monotonic(), lag_ms))
        del self._pending[state.table.rule, state.shown]


def _identity(item: Typed) -> tuple[tuple[str, Any], ...]:
    return tuple(sorted((name, *typed.values()) for name, typed in item.items() if name != COUNTER))
