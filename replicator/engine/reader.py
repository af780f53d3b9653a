"""Reading one shard, for all rules that need it.

One reader serves every rule on the shard: pages are shared while rules are at the same place, and a rule that stays
behind reads its own. Invariant: at most one call is under way per shard, and never more often than the poll interval.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
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
from replicator.domain.progress import END, Position, after
from replicator.domain.records import ChangeRecord, ShardId
from replicator.engine.pacing import Limits, Stopped, backoff, pause_or_raise
from replicator.ports import Clock, Fence, Observer, Stream, StreamRef

_PAGES_KEPT = 2
_CURSORS_KEPT = 32
_EXPIRIES_IN_A_ROW = 5
_LOOKS_BEFORE_LOSS = 3


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
    """Records behind a position. `then` is where the next page starts; END when the shard is closed and read."""

    records: tuple[ChangeRecord, ...]
    then: Position


class _Cursor:
    """One place in the shard that somebody reads from."""

    __slots__ = ("expiries", "idle_seconds", "iterator", "turn")

    def __init__(self) -> None:
        self.turn = asyncio.Lock()
        self.iterator: str | None = None
        self.idle_seconds = 0.0
        self.expiries = 0


class ShardReader:
    """Pages of one shard by position."""

    def __init__(  # noqa: PLR0913 - its collaborators, given once
        self,
        stream: Stream,
        ref: StreamRef,
        shard_id: ShardId,
        *,
        ends: Ends,
        limits: Limits,
        clock: Clock,
        observer: Observer,
        fence: Fence,
        stop: asyncio.Event,
    ) -> None:
        self._ends = ends
        self._stream = stream
        self._ref = ref
        self._shard_id = shard_id
        self._limits = limits
        self._clock = clock
        self._observer = observer
        self._fence = fence
        self._stop = stop
        self._pages: OrderedDict[Position, Page] = OrderedDict()
        self._cursors: OrderedDict[Position, _Cursor] = OrderedDict()
        self._turn = asyncio.Lock()
        self._next_call_at = 0.0

    async def read(self, position: Position) -> Page:
        """The next page with records behind `position`, or the end of the shard; waits for either.

        Raises `Stopped` when the program stops, `RecordsTrimmed` when the place is gone, `LeaseLost`. Everything else
        is repeated with backoff and told to the observer.
        """
        cursor = self._cursor(position)
        async with cursor.turn:  # rules at the same place wait for one poll, not for one each
            failures = 0
            while True:
                page = self._pages.get(position)
                if page is not None:
                    return page
                try:
                    page = await self._poll(position, cursor)
                except RecordsTrimmed as error:
                    self._forget_places()
                    if await self._is_lost(position, error):
                        raise
                    failures = await self._failed(error, failures)
                    continue
                except Throttled as error:
                    failures = await self._failed(error, failures)
                    continue
                except ReplicatorError as error:
                    if error.disposition is Disposition.RELINQUISH:
                        raise
                    cursor.iterator = None
                    failures = await self._failed(error, failures)
                    continue
                self._observer.service_recovered(self._what)
                failures = 0
                if page is not None:
                    self._keep(position, page)
                    return page
                await pause_or_raise(self._stop, self._idle(cursor))

    async def _is_lost(self, position: Position, error: RecordsTrimmed) -> bool:
        """Whether the records behind a position are gone for good: one answer that says so may be wrong."""
        for _ in range(_LOOKS_BEFORE_LOSS):
            self._observer.service_failed(self._what, error)
            await pause_or_raise(self._stop, self._limits.idle_seconds)
            try:
                if await self.reaches(position) or (isinstance(error, ShardGone) and not await self._is_over()):
                    return False
            except ReplicatorError as other:
                if other.disposition is Disposition.RELINQUISH:
                    raise
                return False
        self._observer.service_recovered(self._what)
        return True

    async def _is_over(self) -> bool:
        """Whether the stream itself says that this shard gets no more records: closed, succeeded, or not listed."""
        self._fence.check()
        return await self._ends.is_over(self._shard_id)

    async def reaches(self, position: Position) -> bool:
        """Whether the records behind a position can still be read; False when they left the stream."""
        async with self._turn:
            self._fence.check()
            try:
                await self._stream.iterator(self._ref, self._shard_id, position)
            except RecordsTrimmed:
                return False
        return True

    def _forget_places(self) -> None:
        """Keep no page and no iterator: the horizon moved, so what was read from it before is not what stands there."""
        self._pages.clear()
        for cursor in self._cursors.values():
            cursor.iterator = None

    @property
    def _what(self) -> str:
        return f"reading shard {self._shard_id} of {self._ref.table} in {self._ref.region}"

    async def _failed(self, error: ReplicatorError, failures: int) -> int:
        self._observer.service_failed(self._what, error)
        await pause_or_raise(self._stop, backoff(failures + 2, self._limits.backoff_seconds))
        return failures + 1

    async def _poll(self, position: Position, cursor: _Cursor) -> Page | None:
        """One call; None when there was nothing behind the position yet."""
        async with self._turn:
            await self._pace()
            self._fence.check()
            if cursor.iterator is None:
                cursor.iterator = await self._stream.iterator(self._ref, self._shard_id, position)
                self._fence.check()
            try:
                answer = await self._stream.read(cursor.iterator, self._limits.page_records)
            except IteratorExpired:
                self._renew(cursor)
                return None
        cursor.expiries = 0
        self._observer.polled(self._ref, self._shard_id, position, len(answer.records))
        if answer.next_iterator is None and await self._is_over():
            return Page(answer.records, END)
        if answer.next_iterator is None and not answer.records:
            raise Unreachable(f"Shard {self._shard_id} answered as if it were closed, but its stream lists it as open.")
        if not answer.records:
            cursor.iterator = answer.next_iterator
            return None
        then = after(answer.records[-1].sequence)
        self._cursor(then).iterator = answer.next_iterator
        return Page(answer.records, then)

    def _renew(self, cursor: _Cursor) -> None:
        """Derive the iterator anew from the position; a clock that always expires them is an error."""
        cursor.iterator = None
        cursor.idle_seconds = 0.0
        cursor.expiries += 1
        self._observer.iterator_expired(self._ref, self._shard_id)
        if cursor.expiries > _EXPIRIES_IN_A_ROW:
            cursor.expiries = 0
            raise Throttled(f"Every new iterator of shard {self._shard_id} expires at once.")

    async def _pace(self) -> None:
        wait = self._next_call_at - self._clock.monotonic()
        if wait > 0:
            await pause_or_raise(self._stop, wait)
        if self._stop.is_set():
            raise Stopped
        self._next_call_at = self._clock.monotonic() + self._limits.poll_seconds

    def _idle(self, cursor: _Cursor) -> float:
        """How long to wait behind an empty page: the poll interval at first, doubling to the bound."""
        cursor.idle_seconds = min(max(cursor.idle_seconds * 2, self._limits.poll_seconds), self._limits.idle_seconds)
        return cursor.idle_seconds

    def _cursor(self, position: Position) -> _Cursor:
        cursor = self._cursors.get(position)
        if cursor is None:
            cursor = self._cursors[position] = _Cursor()
        self._cursors.move_to_end(position)
        while len(self._cursors) > _CURSORS_KEPT:
            self._cursors.popitem(last=False)
        return cursor

    def _keep(self, position: Position, page: Page) -> None:
        self._pages[position] = page
        while len(self._pages) > _PAGES_KEPT:
            self._pages.popitem(last=False)
