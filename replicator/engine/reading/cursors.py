"""Places in one shard that targets read from: an iterator for each, and pages that several of them share.

Invariant: a page is kept as long as a pipeline has it, and never behind a loss, where its place means something else.
Cursors are bounded; one that is dropped costs a new iterator.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from typing import Protocol

from msgspec import Struct, field

from replicator.domain.progress import HORIZON, Position
from replicator.domain.records import StreamRecord
from replicator.domain.values import replace
from replicator.engine.reading.memory_budget import Grant
from replicator.engine.waiting import jitter
from replicator.ports.clock import Clock

CURSORS_KEPT = 32


class Page(Struct, frozen=True):
    """Records behind a position. `then` is where the next page starts; END when the shard is closed and read.

    The pipeline that got a page drops it (`ShardReader.drop`) when its records are applied or given up.
    """

    behind: Position
    records: tuple[StreamRecord, ...]
    then: Position
    grant: Grant

    def holds(self, position: Position) -> bool:
        """Whether everything that comes next behind a position is here; what another page was read behind may differ.

        Nothing is missing between two numbers of one page; at the horizon and the beginning only the place itself is
        known.
        """
        if position == self.behind:
            return True
        known = self.behind.sequence is not None and position.sequence is not None
        return known and self.behind.order < position.order < self.then.order

    def from_on(self, position: Position) -> Page:
        """The same page for a target that has its first records; the records are held once."""
        if position == self.behind:
            return self
        left = tuple(record for record in self.records if not position.covers(record.number))
        return replace(self, behind=position, records=left)


class Taker(Protocol):
    """What asks for pages, and for how many at a time."""

    @property
    def room(self) -> asyncio.Event:
        """Set while another page may be read for it."""

    def urgent(self) -> bool:
        """Whether something waits for the next page; then it does not wait for bytes."""

    def takes_along(self) -> bool:
        """Whether it takes a page that another one has read, though there is no room to read one."""


class Always:
    """Takes whatever comes, and waits for bytes."""

    def __init__(self) -> None:
        self.room = asyncio.Event()
        self.room.set()

    def urgent(self) -> bool:
        """Nothing waits."""
        return False

    def takes_along(self) -> bool:
        """There is room always."""
        return True


class Expected(Struct, eq=False):
    """A page that a pipeline waits for, whichever pipeline reads it."""

    behind: Position
    taker: Taker
    page: Page | None = None
    error: Exception | None = None
    """What keeps it from ever being read."""
    asking: asyncio.Timeout | None = None
    """Cuts short what the pipeline does itself to get it."""

    @property
    def settled(self) -> bool:
        """Whether there is no more to wait for."""
        return self.page is not None or self.error is not None

    def wants(self, page: Page) -> bool:
        """Whether this page is the one, and may be had now."""
        if self.settled or not page.holds(self.behind):
            return False
        return self.taker.room.is_set() or self.taker.takes_along()

    def take(self, page: Page) -> None:
        """Here it is; the records that the pipeline has already are left out."""
        page.grant.holders += 1
        self.page = page.from_on(self.behind)
        self._cut_short()

    def fail(self, error: Exception) -> None:
        """It cannot be read."""
        self.error = error
        self._cut_short()

    def _cut_short(self) -> None:
        if self.asking is not None and not self.asking.expired():
            self.asking.reschedule(asyncio.get_running_loop().time())


class Cursor(Struct, eq=False):
    """One place in the shard that pipelines read from."""

    asked_at: float
    """Up to when nothing that came behind this place can have been trimmed unseen (monotonic)."""
    iterator: str | None = None
    idle_seconds: float = 0.0
    pushed: bool = False
    """Whether the source waits for the next page by itself."""
    large: int = 0
    """What a pushed page is expected to weigh, because the one before it did; 0: as much as is asked for."""
    doubts: int = 0
    """How many answers in a row held a record that cannot be understood."""
    expiries: int = 0
    empties: int = 0
    """How many answers in a row held nothing."""
    trims: int = 0
    answered_at: float = float("-inf")
    """When a call behind this place last had an answer (monotonic)."""
    level_at: float = float("-inf")
    """When nothing stood behind this place (seconds since 1970)."""
    reached: int = 0
    """The number of the answer that the iterator came with, when it was asked whether the place can be read."""
    hungry: bool = False
    """Whether a call waits for bytes that others hold."""
    readers: list[Callable[[], bool]] = field(default_factory=list)
    """What reads from here now; each tells whether it is urgent."""
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)

    def urgent(self) -> bool:
        """Whether something waits for the page behind this place."""
        return any(is_urgent() for is_urgent in self.readers)

    def next_idle(self, least: float, most: float) -> float:
        """How long to wait behind an empty page, in seconds: the least at first, doubling to the most.

        Where the most is reached shards part, so that those that began together are not polled in bursts.
        """
        before = self.idle_seconds
        self.idle_seconds = min(max(before * 2, least), most)
        return most * (0.5 + 0.5 * jitter()) if before < self.idle_seconds == most else self.idle_seconds


class Cursors:
    """All places of one shard that are read from, the pages behind them, and the pages that are waited for."""

    def __init__(self, clock: Clock) -> None:
        self.pages: dict[Position, Page] = {}
        """Pages that a pipeline has, by the position they are behind."""
        self._clock = clock
        self._cursors: OrderedDict[Position, Cursor] = OrderedDict()
        self._expected: list[Expected] = []

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
        """Nothing reads from a position any more."""
        self._cursors.pop(position, None)

    # -- pages ---------------------------------------------------------------------------------------------------------

    def expect(self, position: Position, taker: Taker) -> Expected:
        """A page behind a position is waited for; it comes at once if a pipeline has it already."""
        expected = Expected(position, taker)
        self._expected.append(expected)
        self.look(expected)
        return expected

    def look(self, expected: Expected) -> None:
        """Hand over a page that a pipeline has, if it is the one that is waited for."""
        page = self.pages.get(expected.behind) or next(
            (page for page in self.pages.values() if page.holds(expected.behind)), None
        )
        if page is not None and expected.wants(page):
            expected.take(page)

    def cease(self, expected: Expected) -> None:
        """A page is waited for no more."""
        self._expected.remove(expected)

    def arrived(self, page: Page) -> None:
        """A page was read: everything that waits for records in it has it."""
        wanting = [expected for expected in self._expected if expected.wants(page)]
        if not wanting:
            page.grant.correct(0)
            return
        self.pages[page.behind] = page
        for expected in wanting:
            expected.take(page)

    def lost(self, position: Position, error: Exception) -> None:
        """What is behind a position cannot be read any more: everything that waits there gets the error."""
        for expected in self._expected:
            if expected.behind == position and not expected.settled:
                expected.fail(error)

    def drop(self, page: Page) -> None:
        """A page is done with; the last one that had it gives its bytes back."""
        page.grant.holders -= 1
        if page.grant.holders:
            return
        page.grant.correct(0)
        for behind in [behind for behind, kept in self.pages.items() if kept.grant is page.grant]:
            del self.pages[behind]

    def forget(self, lost: Position | None) -> None:
        """Keep no page: the horizon moved, so what was read from it before is not what is there.

        Iterators are derived anew, but not those of others at the horizon: theirs show what they have lost.
        """
        self.pages.clear()
        for position, cursor in self._cursors.items():
            if position != HORIZON or lost == HORIZON:
                cursor.iterator = None
                cursor.trims = 0
                cursor.asked_at = self._clock.monotonic()
