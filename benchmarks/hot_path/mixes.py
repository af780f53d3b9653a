"""What is measured: mixes of changes, modes of a rule, plain or encrypted."""

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


@dataclass(frozen=True, slots=True)
class Case:
    """One thing that is measured, with every consumer that can do it."""

    mix: Mix
    mode: str = "ordered"
    tls: bool = False

    @property
    def name(self) -> str:
        """How it is called on the command line and in tables."""
        parts = [] if self.mode == "ordered" else [self.mode]
        return "/".join([*parts, self.mix.name, *(["tls"] if self.tls else [])])


QUICK = [
    Case(MIXES["modify"]),
    Case(MIXES["modify-30"]),
    Case(MIXES["modify"], tls=True),
    Case(MIXES["quarter-inserts"]),
    Case(MIXES["modify"], "active-active"),
    Case(MIXES["modify"], "versioned"),
]
"""The cases that have a bar, and one of the mode that has none."""

FULL = [
    *QUICK,
    Case(MIXES["modify-60"]),
    Case(MIXES["modify-30"], tls=True),
    Case(MIXES["insert"]),
    Case(MIXES["remove"]),
    Case(MIXES["quarter-inserts"], "versioned"),
    Case(MIXES["quarter-inserts"], "active-active"),
]
CASES = {case.name: case for case in FULL}
