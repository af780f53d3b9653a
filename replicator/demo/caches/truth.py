"""What readers should have seen, from outside: when the table beside a cache showed each write, and how old reads were.

A read is stale by the time for which the table had shown a newer write of the key when the read began. Invariant: a
write counts as shown no earlier than the end of a consistent read that shows it, so no read is called stale that was
not; a read may be older by up to one look. Nothing here comes from the daemon or the reader library.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import Any, Final

from replicator.demo.items import KeyState

HORIZONS: Final = (1.0, 5.0, 60.0)
"""Seconds."""


@dataclass(slots=True)
class Shown:
    """When one region's table showed which writes."""

    _writes: dict[str, list[int]] = field(default_factory=lambda: defaultdict(list))
    _times: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    _absent: dict[str, bool] = field(default_factory=dict)

    def saw(self, state: KeyState, number: int | None, at: float) -> None:
        """A consistent read that ended at `at` showed this write of a key, or no item (None)."""
        writes = self._writes[state.shown]
        last = writes[-1] if writes else 0
        if number is None:
            # Of several deletes between two looks the first one is taken: the others may not be there yet.
            number = next((each for each in state.deletes if each > last), 0)
            number = 0 if self._absent.get(state.shown) else number
        self._absent[state.shown] = number == 0 or number in state.deletes
        if number > last:
            writes.append(number)
            self._times[state.shown].append(at)

    def stale_for(self, state: KeyState, number: int | None, began: float) -> float:
        """How long a newer write had been shown when a read began that gave this write, or no item; 0 of a right one.

        "No item" may be what any delete left; the last one that was begun is taken.
        """
        if number is None:
            number = state.deletes[-1] if state.deletes else 0
        writes = self._writes.get(state.shown, [])
        newer = bisect_right(writes, number)
        return max(0.0, began - self._times[state.shown][newer]) if newer < len(writes) else 0.0


@dataclass(slots=True)
class Staleness:
    """Reads, and how many were stale by more than each horizon."""

    reads: int = 0
    longest: float = 0.0
    beyond: Counter[float] = field(default_factory=Counter)

    def take(self, seconds: float) -> None:
        """Count a read."""
        self.reads += 1
        self.longest = max(self.longest, seconds)
        for horizon in HORIZONS:
            if seconds > horizon:
                self.beyond[horizon] += 1

    def nines(self, horizon: float) -> float:
        """-log10 of the share that was stale by more; without any, what one more stale read would make of it."""
        return max(0.0, -math.log10(max(self.beyond[horizon], 1) / max(self.reads, 1)))

    def as_json(self, horizons: tuple[float, ...]) -> dict[str, Any]:
        """By horizon in seconds; `at_least`: none was stale, and with more reads there might be more nines."""
        return {
            f"{horizon:.0f}": {
                "reads": self.reads,
                "stale": self.beyond[horizon],
                "nines": round(self.nines(horizon), 2),
                "at_least": not self.beyond[horizon],
            }
            for horizon in horizons
        }

    def lines(self, horizons: tuple[float, ...]) -> list[str]:
        """The same for people."""
        return [
            f"stale by more than {horizon:.0f} s: {self.beyond[horizon]} of {self.reads} reads,"
            f" {'' if self.beyond[horizon] else 'at least '}{self.nines(horizon):.1f} nines"
            for horizon in horizons
        ]
