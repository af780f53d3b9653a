"""Reading one shard, for all rules that need it.

One reader serves every rule on the shard: pages are shared while rules are at the same place, and a rule that stays
behind reads its own. Invariant: at most one call is under way per shard, and never more often than the poll interval.
No place is ever exchanged for a later one: an iterator at the horizon is kept, and derived anew only as long as nothing
can have been trimmed behind it.
"""

from __future__ import annotations

import asyncio
import random
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from replicator.domain.errors import (
    Disposition,
    IteratorExpired,
    RecordsTrimmed,
    ReplicatorError,
    ShardGone,
    Throttled,
    Unreachable,
)
from replicator.domain.lineage import Shard
from replicator.domain.progress import BEGINNING, END, HORIZON, Position, after
from replicator.domain.records import ChangeRecord, ShardId
from replicator.engine.ahead import ByteBudget, Grant, weight
from replicator.engine.pacing import Limits, Stopped, backoff, pause_or_raise
from replicator.ports import Clock, Fence, Observer, RecordPage, Stream, StreamRef

RETENTION_SECONDS = 24 * 3600.0
"""A stream keeps its records for so long at least."""

_JITTER = random.Random()  # noqa: S311 - spreads load, decides nothing
_CURSORS_KEPT = 32
_EXPIRIES_IN_A_ROW = 5
_LOOKS_BEFORE_LOSS = 3
_PEEKS = 10
"""So many empty pages in a row show that nothing is behind a place for now; a few are normal."""

_INSTANT = 1e-5
"""Seconds that no clock need tell apart."""

_IDLE_BYTES = 16 * 1024
"""What the answer of a shard is expected to weigh when its last one was empty."""

_MOST_BYTES = 2 * 1024 * 1024
"""What a page weighs at most: 1 MB on the wire, and its objects."""


class Ends(Protocol):
    """Who knows whether a shard is over."""

    async def is_over(self, shard_id: ShardId) -> bool:
        """Whether the stream itself says that the shard gets no more records: closed, has a child, or not listed.

        The answer is taken from a call made after the question was asked. Raises what prevented one.
        """

    def known(self, shard_id: ShardId) -> bool:
        """Whether the shard has a row, as far as was seen. A parent without one is proven gone, or long done."""


@dataclass(frozen=True, slots=True)
class Page:
    """Records behind a position. `then` is where the next page starts; END when the shard is closed and read.

    Whoever got a page drops it (`ShardReader.drop`) when its records are applied or given up.
    """

    behind: Position
    records: tuple[ChangeRecord, ...]
    then: Position
    grant: Grant


def _never() -> bool:
    return False


class _Cursor:
    """One place in the shard that somebody reads from."""

    __slots__ = ("asked_at", "expiries", "idle_seconds", "iterator", "readers", "trims", "turn")

    def __init__(self, asked_at: float) -> None:
        self.turn = asyncio.Lock()
        self.iterator: str | None = None
        self.idle_seconds = 0.0
        self.expiries = 0
        self.trims = 0
        self.asked_at = asked_at
        """Up to when nothing that came behind this place can have been trimmed unseen (monotonic)."""
        self.readers: list[Callable[[], bool]] = []
        """Who reads from here now; each tells whether it is urgent."""

    def urgent(self) -> bool:
        return any(is_urgent() for is_urgent in self.readers)


class ShardReader:
    """Pages of one shard by position."""

    def __init__(  # noqa: PLR0913 - its collaborators, given once
        self,
        stream: Stream,
        ref: StreamRef,
        shard: Shard,
        *,
        ends: Ends,
        budget: ByteBudget,
        limits: Limits,
        clock: Clock,
        observer: Observer,
        fence: Fence,
        stop: asyncio.Event,
    ) -> None:
        self._ends = ends
        self._stream = stream
        self._ref = ref
        self._shard = shard
        self._shard_id = shard.shard_id
        self._budget = budget
        self._limits = limits
        self._clock = clock
        self._observer = observer
        self._fence = fence
        self._stop = stop
        self._pages: dict[Position, Page] = {}
        self._cursors: OrderedDict[Position, _Cursor] = OrderedDict()
        self._turn = asyncio.Lock()
        self._next_call_at = clock.monotonic() + limits.poll_seconds * _JITTER.random()
        self._record_bytes = 1000
        self.polled_at = clock.monotonic()
        """When a call last had an answer."""
        self.trouble: ReplicatorError | None = None
        """What keeps calls from being answered."""
        self.hungry = False
        """Whether a call waits for bytes that others hold."""

    async def read(self, position: Position, *, limit: int | None = None, urgent: Callable[[], bool] = _never) -> Page:
        """The next page with records behind `position`, or the end of the shard; waits for either.

        `urgent` tells whether something waits for this page; then it does not wait for bytes. Raises `Stopped` when the
        program stops, `RecordsTrimmed` when the place is gone, `LeaseLost`. Everything else is repeated with backoff
        and told to the observer.
        """
        cursor = self._cursor(position)
        cursor.readers.append(urgent)
        try:
            async with cursor.turn:  # rules at the same place wait for one poll, not for one each
                page = await self._page(position, cursor, limit or self._limits.page_records)
        finally:
            cursor.readers.remove(urgent)
        if not cursor.readers:
            self._cursors.pop(position, None)
        page.grant.holders += 1
        return page

    def drop(self, page: Page) -> None:
        """A page is done with; the last one who had it gives its bytes back."""
        page.grant.holders -= 1
        if page.grant.holders:
            return
        page.grant.correct(0)
        if self._pages.get(page.behind) is page:
            del self._pages[page.behind]

    async def reaches(self, position: Position) -> bool:
        """Whether the records behind a position can still be read; False when they left the stream."""
        async with self._turn:
            self._fence.check()
            try:
                await self._iterator(position)
            except RecordsTrimmed:
                return False
        return True

    async def first_left(self) -> Position | None:
        """The first record that can still be read, as a position; END when none can, None when that is not known."""
        try:
            async with self._turn:
                self._fence.check()
                iterator: str | None = await self._iterator(HORIZON)
            for _ in range(_PEEKS):
                if iterator is None:
                    return END if await self._is_over() else None
                answer = await self._ask(iterator, 1)
                if answer.records:
                    return after(answer.records[0].sequence)
                iterator = answer.next_iterator
        except ShardGone:
            return END
        except ReplicatorError as error:
            if error.disposition is Disposition.RELINQUISH:
                raise
        return None

    # -- a page --------------------------------------------------------------------------------------------------------

    async def _page(self, position: Position, cursor: _Cursor, limit: int) -> Page:
        failures = 0
        while True:
            known = self._pages.get(position)
            if known is not None:
                return known
            try:
                page = await self._poll(position, cursor, limit)
            except ReplicatorError as error:
                await self._judge(error, position, cursor)
                failures = await self._failed(error, failures)
                continue
            failures = 0
            if self.trouble is not None:
                self.trouble = None
                self._observer.service_recovered(self._what)
            if page is not None:
                self._pages[position] = page
                return page
            await pause_or_raise(self._stop, self._idle(cursor))

    async def _judge(self, error: ReplicatorError, position: Position, cursor: _Cursor) -> None:
        """Raise an error that is the caller's to decide; all others are repeated."""
        if error.disposition is Disposition.RELINQUISH:
            raise error
        if isinstance(error, RecordsTrimmed):
            self.trouble = error
            if await self._is_lost(position, cursor, error):
                self._forget_places(position)
                raise error
        elif not isinstance(error, Throttled):
            cursor.iterator = None

    async def _poll(self, position: Position, cursor: _Cursor, limit: int) -> Page | None:
        """One call; None when there was nothing behind the position yet."""
        await self._until_due()
        expected = _IDLE_BYTES if cursor.idle_seconds else min(limit * self._record_bytes, _MOST_BYTES)
        self.hungry = True
        try:
            grant = await self._budget.acquire(expected, cursor.urgent)
        finally:
            self.hungry = False
        page = None
        try:
            page = await self._poll_within(grant, position, cursor, limit)
        finally:
            if page is None:
                grant.correct(0)
        return page

    async def _poll_within(self, grant: Grant, position: Position, cursor: _Cursor, limit: int) -> Page | None:
        try:
            answer = await self._ask_at(position, cursor, limit)
        except IteratorExpired:
            self._renew(position, cursor)
            return None
        cursor.expiries = cursor.trims = 0
        cursor.asked_at = self.polled_at
        self._observer.polled(self._ref, self._shard_id, position, len(answer.records))
        if answer.records:
            grant.correct(weight(answer.records))
            self._record_bytes = max(1, grant.held // len(answer.records))
        if answer.next_iterator is None and await self._is_over():
            return Page(position, answer.records, END, grant)
        if answer.next_iterator is None and not answer.records:
            raise Unreachable(f"Shard {self._shard_id} answered as if it were closed, but its stream lists it as open.")
        if not answer.records:
            cursor.iterator = answer.next_iterator
            return None
        then = after(answer.records[-1].sequence)
        self._cursor(then).iterator = answer.next_iterator
        return Page(position, answer.records, then, grant)

    async def _ask_at(self, position: Position, cursor: _Cursor, limit: int) -> RecordPage:
        """Ask for the records behind a position, by the iterator that is known or by a new one."""
        if cursor.iterator is None:
            async with self._turn:
                self._fence.check()
                if position == HORIZON and self._clock.monotonic() - cursor.asked_at > RETENTION_SECONDS:
                    cursor.trims = _LOOKS_BEFORE_LOSS
                    raise RecordsTrimmed(
                        f"Shard {self._shard_id} was not read for a day, so records may have left it unread."
                    )
                cursor.iterator = await self._iterator(position)
        return await self._ask(cursor.iterator, limit)

    async def _ask(self, iterator: str, limit: int) -> RecordPage:
        async with self._turn:
            await self._until_due()
            self._next_call_at = self._clock.monotonic() + self._limits.poll_seconds
            self._fence.check()
            answer = await self._stream.read(iterator, limit)
            self.polled_at = self._clock.monotonic()
            return answer

    async def _iterator(self, position: Position) -> str:
        first = self._shard.first if position == BEGINNING else None
        return await self._stream.iterator(self._ref, self._shard_id, position, first)

    def _renew(self, position: Position, cursor: _Cursor) -> None:
        """Derive the iterator anew from the position; a clock that always expires them is an error."""
        cursor.iterator = None
        cursor.idle_seconds = 0.0
        cursor.expiries += 1
        self._observer.iterator_expired(self._ref, self._shard_id)
        if position == HORIZON and cursor.trims:
            cursor.trims = _LOOKS_BEFORE_LOSS
            raise RecordsTrimmed(f"Records of shard {self._shard_id} behind the horizon left it unread.")
        if cursor.expiries > _EXPIRIES_IN_A_ROW:
            cursor.expiries = 0
            raise Throttled(f"Every new iterator of shard {self._shard_id} expires at once.")

    # -- places that are gone ------------------------------------------------------------------------------------------

    async def _is_lost(self, position: Position, cursor: _Cursor, error: RecordsTrimmed) -> bool:
        """Whether the records behind a position are gone for good: one answer that says so may be wrong.

        At the horizon a new iterator would always find a place, only a later one: there the same iterator is asked.
        """
        if position == HORIZON and not isinstance(error, ShardGone):
            cursor.trims += 1
            return cursor.trims >= _LOOKS_BEFORE_LOSS
        for _ in range(_LOOKS_BEFORE_LOSS):
            self._observer.service_failed(self._what, error)
            await pause_or_raise(self._stop, self._limits.idle_seconds)
            try:
                if await self.reaches(position) or (isinstance(error, ShardGone) and not await self._is_over()):
                    self._forget_places(None)
                    return False
            except ReplicatorError as other:
                if other.disposition is Disposition.RELINQUISH:
                    raise
                return False
        self._observer.service_recovered(self._what)
        return True

    async def _is_over(self) -> bool:
        """Whether the stream itself says that this shard gets no more records."""
        self._fence.check()
        return await self._ends.is_over(self._shard_id)

    def _forget_places(self, lost: Position | None) -> None:
        """Keep no page: the horizon moved, so what was read from it before is not what stands there.

        Iterators are derived anew, but not those of others at the horizon: theirs tell what they have lost.
        """
        self._pages.clear()
        for position, cursor in self._cursors.items():
            if position != HORIZON or lost == HORIZON:
                cursor.iterator = None
                cursor.trims = 0
                cursor.asked_at = self._clock.monotonic()

    # -- the pace ------------------------------------------------------------------------------------------------------

    @property
    def _what(self) -> str:
        return f"reading shard {self._shard_id} of {self._ref.table} in {self._ref.region}"

    async def _failed(self, error: ReplicatorError, failures: int) -> int:
        self.trouble = error
        self._observer.service_failed(self._what, error)
        await pause_or_raise(self._stop, backoff(failures + 2, self._limits.backoff_seconds))
        return failures + 1

    async def _until_due(self) -> None:
        while (wait := self._next_call_at - self._clock.monotonic()) > _INSTANT:
            await pause_or_raise(self._stop, wait)
        if self._stop.is_set():
            raise Stopped

    def _idle(self, cursor: _Cursor) -> float:
        """How long to wait behind an empty page: the poll interval at first, doubling to the bound.

        Where the bound is reached shards part, so that those that began together are not polled in bursts.
        """
        before = cursor.idle_seconds
        most = self._limits.idle_seconds
        cursor.idle_seconds = min(max(before * 2, self._limits.poll_seconds), most)
        return most * (0.5 + 0.5 * _JITTER.random()) if before < cursor.idle_seconds == most else cursor.idle_seconds

    def _cursor(self, position: Position) -> _Cursor:
        cursor = self._cursors.get(position)
        if cursor is None:
            cursor = self._cursors[position] = _Cursor(self._clock.monotonic())
        self._cursors.move_to_end(position)
        while len(self._cursors) > _CURSORS_KEPT:
            self._cursors.popitem(last=False)
        return cursor
