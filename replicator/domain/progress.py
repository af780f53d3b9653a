"""Progress in a shard: positions, and the contiguous frontier of what is durable.

Invariant: a frontier never passes a record whose effect is not durable, whatever order effects finish in.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass

from replicator.domain.identifiers import SequenceNumber

_BEGINNING_TEXT = "SHARD_START"
_HORIZON_TEXT = "TRIM_HORIZON"
_END_TEXT = "SHARD_END"


@dataclass(frozen=True, slots=True)
class Position:
    """A place between two records of a shard; `text` is how it is stored."""

    text: str

    @property
    def order(self) -> tuple[int, int]:
        """Sorts positions of one shard. The beginning comes before the horizon, which may lie behind lost records."""
        if self.text == _BEGINNING_TEXT:
            return (-1, 0)
        if self.text == _HORIZON_TEXT:
            return (0, 0)
        return (2, 0) if self.text == _END_TEXT else (1, int(self.text))

    @property
    def sequence(self) -> SequenceNumber | None:
        """The last sequence number before this place; None at the beginning, the horizon and the end."""
        return SequenceNumber(self.text) if self.order[0] == 1 else None

    def covers(self, number: int) -> bool:
        """Whether the record with this sequence number lies at or before this place."""
        return (1, number) <= self.order


BEGINNING = Position(_BEGINNING_TEXT)
"""Right before the shard's very first record: a loss in front of whatever is still there does not go unnoticed."""
HORIZON = Position(_HORIZON_TEXT)
"""Right before the oldest record that is still there, whatever was lost before it."""
END = Position(_END_TEXT)


def after(sequence: SequenceNumber) -> Position:
    """The place right behind a record."""
    return Position(sequence)


def parse_position(text: str) -> Position | None:
    """A stored position, or None when the text is none."""
    known = text in {_BEGINNING_TEXT, _HORIZON_TEXT, _END_TEXT} or (text.isascii() and text.isdecimal())
    return Position(text) if known else None


def earliest(positions: Iterable[Position]) -> Position:
    """The smallest of some positions; where reading resumes."""
    return min(positions, key=lambda position: position.order)


class Window:
    """Records in flight in stream order, and how far they are durable without a hole."""

    def __init__(self, start: Position) -> None:
        self._pending: deque[SequenceNumber] = deque()
        self._done: set[SequenceNumber] = set()
        self.frontier = start

    def open(self, sequence: SequenceNumber) -> None:
        """A record was read; called in stream order."""
        self._pending.append(sequence)

    def done(self, sequence: SequenceNumber) -> bool:
        """A record's effect is durable; returns whether the frontier moved."""
        self._done.add(sequence)
        moved = False
        while self._pending and self._pending[0] in self._done:
            first = self._pending.popleft()
            self._done.discard(first)
            self.frontier = after(first)
            moved = True
        return moved

    @property
    def in_flight(self) -> int:
        """How many records were read and are not yet passed by the frontier."""
        return len(self._pending)
