"""Mixes of changes that are measured."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Mix:
    """Shares of events (INSERT, MODIFY, REMOVE) among keys that are not repeated, and the share of repeated keys."""

    name: str
    weights: tuple[int, int, int]
    repeats: float = 0.0


MIXES = {
    mix.name: mix
    for mix in (
        Mix("modify", (0, 100, 0)),
        Mix("modify-30", (0, 100, 0), 0.3),
        Mix("modify-60", (0, 100, 0), 0.6),
        Mix("quarter-inserts", (25, 75, 0)),
        Mix("insert", (100, 0, 0)),
        Mix("remove", (0, 0, 100)),
    )
}
