"""Places in one shard that rules read from: an iterator for each, and pages that several of them share.

Invariant: a page is kept as long as somebody has it, and never behind a loss, where its place means something else.
Cursors are bounded; one that is dropped costs a new iterator.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field

from replicator.domain.progress import HORIZON, Position
from replicator.domain.records import StreamRecord
from replicator.engine.reading.memory_budget import Grant
from replicator.ports.clock import Clock

CURSORS_KEPT = 32


@dataclass(frozen=True, slots=True)
class Page:
    """Records behind a position. `then` is where the next page starts; END when the shard is closed and read.

    Whoever got a page drops it (`ShardReader.drop`) when its records are applied or given up.
    """

    behind: Position
    records: tuple[StreamRecord, ...]
    then: Position
    grant: Grant


@dataclass(slots=True, eq=False)
class Cursor:
    """One place in the shard that pipelines read from."""

    asked_at: float
    """Up to when nothing that came behind this place can have been trimmed unseen (monotonic)."""
    iterator: str | None = None
    idle_seconds: float = 0.0
    doubts: int = 0
    """How many answers in a row held a record that cannot be understood."""
    expiries: int = 0
    empties: int = 0
    """How many answers in a row held nothing."""
    trims: int = 0
    answered_at: float = float("-inf")
    """When a call behind this place last had an answer (monotonic)."""
    hungry: bool = False
    """Whether a call waits for bytes that others hold."""
    readers: list[Callable[[], bool]] = field(default_factory=list)
    """Who reads from here now; each tells whether it is urgent."""
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)

    def urgent(self) -> bool:
        """Whether something waits for the page behind this place."""
        return any(is_urgent() for is_urgent in self.readers)


class Cursors:
    """All places of one shard that are read from, and the pages behind them."""

    def __init__(self, clock: Clock) -> None:
        self.pages: dict[Position, Page] = {}
        """Pages that somebody has, by the position they are behind."""
        self._clock = clock
        self._cursors: OrderedDict[Position, Cursor] = OrderedDict()

    def __len__(self) -> int:
        return len(self._cursors)

    def at(self, position: Position) -> Cursor:
        """The cursor at a position, a new one if there is none."""
        cursor = self._cursors.get(position)
        if cursor is None:
            cursor = self._cursors[position] = Cursor(self._clock.monotonic())
        self._cursors.move_to_end(position)
        while len(self._cursors) > CURSORS_KEPT:
            self._cursors.popitem(last=False)
        return cursor

    def known(self, position: Position) -> Cursor | None:
        """The cursor at a position, if there is one."""
        return self._cursors.get(position)

    def leave(self, position: Position) -> None:
        """Nobody reads from a position any more."""
        self._cursors.pop(position, None)

    def drop(self, page: Page) -> None:
        """A page is done with; the last one who had it gives its bytes back."""
        page.grant.holders -= 1
        if page.grant.holders:
            return
        page.grant.correct(0)
        if self.pages.get(page.behind) is page:
            del self.pages[page.behind]

    def forget(self, lost: Position | None) -> None:
        """Keep no page: the horizon moved, so what was read from it before is not what stands there.

        Iterators are derived anew, but not those of others at the horizon: theirs tell what they have lost.
        """
        self.pages.clear()
        for position, cursor in self._cursors.items():
            if position != HORIZON or lost == HORIZON:
                cursor.iterator = None
                cursor.trims = 0
                cursor.asked_at = self._clock.monotonic()
