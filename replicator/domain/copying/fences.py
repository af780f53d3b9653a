"""When a look counts, and when what it found may be written. All times are seconds of one clock.

Invariant: what is not known is never taken for passed. Only a take-over from a worker that fell silent matters: a
hand-over in order leaves no worker behind that could still write.
"""

from __future__ import annotations


def has_passed(applied_through: float | None, looked_at: float, margin: float) -> bool:
    """Whether a target has everything that the source held when it was looked at.

    `margin`: seconds that are added, since a stream promises no bound on how late a record may show.
    """
    return applied_through is not None and applied_through >= looked_at + margin


def stands(looked_at: float, taken_over_at: float | None, zombie: float) -> bool:
    """Whether a look, and a write that follows from it, count.

    `taken_over_at`: when a lease of the rule was last taken over from a silent worker, as is known right before the
    write; `zombie`: the longest time in which such a worker's requests may still arrive (T_zombie). Without this a
    forgotten worker could put an older record onto what was repaired under a low version, and none would follow.
    """
    return taken_over_at is None or looked_at >= taken_over_at + zombie


def stands_at(taken_over_at: float | None, zombie: float) -> float:
    """The first moment at which a look counts again."""
    return float("-inf") if taken_over_at is None else taken_over_at + zombie
