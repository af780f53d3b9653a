"""Progress in a shard: positions, and the contiguous frontier of what is durable.

Invariant: a frontier never passes a record whose effect is not durable, whatever order effects finish in; and the time
of a frontier never goes back.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

from msgspec import Struct

from replicator.domain.identifiers import SequenceNumber
from replicator.domain.values import replace

_BEGINNING_TEXT = "SHARD_START"
_HORIZON_TEXT = "TRIM_HORIZON"
_END_TEXT = "SHARD_END"


class Position(Struct, frozen=True):
    """A place between two records of a shard; `text` is how it is stored.

    `through`: every change of the shard that was made a second before this time, in seconds since 1970, lies before
    this place: the creation time of the last record before it, or the server's time of a poll that found nothing behind
    it. None: not known. It says something about the place and is no part of what the place is.
    """

    text: str
    through: float | None = None

    def __eq__(self, other: object) -> bool:
        return self.text == other.text if isinstance(other, Position) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.text)

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


def after(sequence: SequenceNumber, through: float | None = None) -> Position:
    """The place right behind a record."""
    return Position(sequence, through)


def latest(*times: float | None) -> float | None:
    """The latest of some times that may be unknown; None when all are."""
    return max((time for time in times if time is not None), default=None)


def reached(position: Position, through: float | None) -> Position:
    """A place, with what is known of its time: a statement that was true once stays true."""
    known = latest(position.through, through)
    return position if known == position.through else replace(position, through=known)


def parse_position(text: str) -> Position | None:
    """A stored position, or None when the text is none."""
    known = text in {_BEGINNING_TEXT, _HORIZON_TEXT, _END_TEXT} or (text.isascii() and text.isdecimal())
    return Position(text) if known else None


def earliest(positions: Iterable[Position]) -> Position:
    """The smallest of some positions; where reading resumes."""
    return min(positions, key=lambda position: position.order)


class Window:
    """Records in flight in stream order, and how far they are durable without a hole."""

    __slots__ = ("_done", "_frontier", "_passed", "_pending", "_through")

    def __init__(self, start: Position) -> None:
        self._pending: deque[tuple[SequenceNumber, float]] = deque()
        self._done: set[SequenceNumber] = set()
        self._frontier = start
        self._passed: SequenceNumber | None = None
        """The last record that the frontier passed since it was made a position."""
        self._through = start.through

    @property
    def frontier(self) -> Position:
        """Up to where everything is durable."""
        if self._passed is not None:
            self._frontier, self._passed = after(self._passed, self._through), None
        return self._frontier

    def open(self, records: Iterable[tuple[SequenceNumber, float]]) -> None:
        """Records were read, in stream order: the number of each, and when it was made (0: not told)."""
        self._pending.extend(records)

    def done(self, *sequences: SequenceNumber) -> bool:
        """The effect of records is durable; returns whether the frontier moved."""
        done, pending = self._done, self._pending
        done.update(sequences)
        moved = False
        while pending and pending[0][0] in done:
            first, created_at = pending.popleft()
            done.discard(first)
            self._passed = first
            if created_at and (self._through is None or created_at > self._through):
                self._through = created_at
            moved = True
        return moved

    @property
    def oldest(self) -> float:
        """When the first record was created that the frontier has not passed; 0 when that is not known."""
        return self._pending[0][1] if self._pending else 0.0

    @property
    def in_flight(self) -> int:
        """How many records were read and are not yet passed by the frontier."""
        return len(self._pending)
