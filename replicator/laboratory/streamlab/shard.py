"""One shard: its records in order, its lineage, what of it was trimmed.

Invariant: numbers only rise; a record's place (its index since the shard began) never changes, trimmed or not.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from dataclasses import dataclass, field


@dataclass(slots=True, eq=False)
class LabShard:
    """A shard of the key hashes from `low` up to `high` (without it). Times are the laboratory's seconds."""

    shard_id: str
    parents: tuple[str, ...]
    low: int
    high: int
    first: int
    """Its starting sequence number; no record has a smaller one."""
    created_at: float
    listed_at: float
    """Listed from then on."""
    number: int = 0
    """The last number that was given."""
    ending: int | None = None
    """Its ending sequence number; None while it is open."""
    closed_at: float = 0.0
    open_until: float = 0.0
    """Listed as open until then, closed or not."""
    trimmed: int = 0
    """How many records are gone."""
    horizon: int = 0
    """The number of the last record that is gone."""
    numbers: list[int] = field(default_factory=list)
    texts: list[bytes] = field(default_factory=list)
    times: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Nothing was given yet."""
        self.number = self.first

    @property
    def total(self) -> int:
        """Records that it ever had, and so the place of the next one."""
        return self.trimmed + len(self.numbers)

    @property
    def is_open(self) -> bool:
        """Whether it may get more records."""
        return self.ending is None

    def append(self, number: int, text: bytes, now: float) -> None:
        """Add a record."""
        assert self.ending is None, "a closed shard gets no more records"
        assert number > self.number, "numbers rise"
        self.number = number
        self.numbers.append(number)
        self.texts.append(text)
        self.times.append(now)

    def close(self, ending: int, now: float) -> None:
        """No more records."""
        self.ending, self.number, self.closed_at = ending, ending, now

    def place_of(self, number: int, *, after: bool) -> int | None:
        """Where reading at or after a number begins; None when that number was trimmed away."""
        if number <= self.horizon:
            return None
        find = bisect_right if after else bisect_left
        return self.trimmed + find(self.numbers, number)

    def page(self, place: int, most: int, most_bytes: int) -> list[bytes]:
        """Records from a place on, at most so many and so long; always one if there is one."""
        start = place - self.trimmed
        texts = self.texts[start : start + most]
        size = 0
        for count, text in enumerate(texts):
            size += len(text)
            if size > most_bytes and count:
                return texts[:count]
        return texts

    def trim(self, count: int) -> int:
        """Forget the oldest records; returns how many."""
        count = max(0, min(count, len(self.numbers)))
        if count:
            self.horizon = self.numbers[count - 1]
        del self.numbers[:count], self.texts[:count], self.times[:count]
        self.trimmed += count
        return count

    def older_than(self, moment: float) -> int:
        """How many of its records are older."""
        return bisect_left(self.times, moment)
