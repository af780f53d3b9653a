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
from collections.abc import Iterable
from dataclasses import InitVar, dataclass, field
from typing import Any, Final, NamedTuple, Protocol

from replicator.demo.dynamodb import MOST_PER_BATCH_GET, LocalRegion, Typed
from replicator.demo.items import COUNTER, milliseconds
from replicator.demo.layout import DemoTable

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


class Sampled(Protocol):
    """A key that is written in one region only, so that a later write of it implies every earlier one."""

    @property
    def table(self) -> DemoTable:
        """Its table."""

    @property
    def key(self) -> Typed:
        """The key itself."""

    @property
    def shown(self) -> str:
        """The key for people."""

    @property
    def item(self) -> object | None:
        """What the last write left; None when that was a delete."""


@dataclass(slots=True)
class Lags:
    """What was measured on one way, from the region of the writer to the region of the reader."""

    milliseconds: list[int] = field(default_factory=list)
    overtaken_by_delete: int = 0
    unseen: int = 0
    """Sampled writes that are still looked for."""

    _recent: list[tuple[float, int]] = field(default_factory=list)

    def recent(self) -> list[int]:
        """The lags of the last few seconds."""
        horizon = time.monotonic() - _RECENT_SECONDS
        self._recent = [(at, lag) for at, lag in self._recent if at > horizon]
        return [lag for _, lag in self._recent]

    def seen(self, lag_ms: int) -> None:
        """Take one lag."""
        self.unseen -= 1
        self.milliseconds.append(lag_ms)
        self._recent.append((time.monotonic(), lag_ms))

    def overtaken(self) -> None:
        """Count one that a delete overtook."""
        self.unseen -= 1
        self.overtaken_by_delete += 1


class _Pending(NamedTuple):
    state: Sampled
    counter: int
    written_at_ms: int
    lags: Lags


@dataclass(slots=True)
class LagSampler:
    """Measures one region that others write to."""

    name: str
    region: LocalRegion
    tables: tuple[DemoTable, ...]
    origins: InitVar[Iterable[str]]
    """The regions that its writes come from."""

    poll_seconds: float = POLL_SECONDS
    lags: dict[str, Lags] = field(init=False)
    """By origin."""

    _pending: dict[tuple[str, str], _Pending] = field(default_factory=dict)
    _next_at: dict[str, float] = field(default_factory=dict)

    def __post_init__(self, origins: Iterable[str]) -> None:
        """Nothing is measured yet."""
        self.lags = {origin: Lags() for origin in origins}

    def offer(self, state: Sampled, counter: int, written_at_ms: int, origin: str) -> None:
        """Consider an acknowledged write for sampling."""
        now = time.monotonic()
        identity = (state.table.rule, state.shown)
        next_at = self._next_at.get(origin, 0.0)
        if now < next_at or identity in self._pending or len(self._pending) >= MOST_PENDING:
            return
        pace = len(self.lags) / SAMPLES_PER_SECOND
        self._next_at[origin] = max(next_at + pace, now - pace)
        lags = self.lags[origin]
        lags.unseen += 1
        self._pending[identity] = _Pending(state, counter, written_at_ms, lags)

    async def run(self, stop: asyncio.Event) -> None:
        """Measure until `stop` is set."""
        while not stop.is_set():
            started = time.monotonic()
            for batch in self._batches():
                await self._look(batch)
            await asyncio.sleep(max(0.0, started + self.poll_seconds - time.monotonic()))

    def _batches(self) -> list[list[_Pending]]:
        waiting = list(self._pending.values())
        return [waiting[start : start + MOST_PER_BATCH_GET] for start in range(0, len(waiting), MOST_PER_BATCH_GET)]

    async def _look(self, batch: list[_Pending]) -> None:
        keys: dict[str, list[Typed]] = {}
        for state, *_ in batch:
            keys.setdefault(state.table.names[self.name], []).append(state.key)
        names = {part for table in self.tables for part, _ in table.key} | {COUNTER}
        found = await self.region.get_some(keys, sorted(names))
        seen_at = milliseconds()
        counters = {
            (table, _identity(item)): int(item[COUNTER]["N"]) for table, items in found.items() for item in items
        }
        for state, counter, written_at_ms, lags in batch:
            there = counters.get((state.table.names[self.name], _identity(state.key)))
            if there is not None and there >= counter:
                lags.seen(seen_at - written_at_ms)
            elif there is None and state.item is None:
                lags.overtaken()
            else:
                continue
            del self._pending[state.table.rule, state.shown]


def _identity(item: Typed) -> tuple[tuple[str, Any], ...]:
    return tuple(sorted((name, *typed.values()) for name, typed in item.items() if name != COUNTER))
