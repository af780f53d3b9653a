"""Reading one shard, for all targets that need it.

One reader serves every target on the shard: a page that was read goes to all that need its records next, and one that
stays behind reads from its own place. Invariant: at most two calls are under way per shard, each never more often than
the poll interval: one at the foremost place, and one for all that are behind it, in turn. No place is ever exchanged
for a later one: an iterator at the horizon is kept, and derived anew only as long as nothing can have been trimmed
behind it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial

from replicator.domain.errors import (
    Disposition,
    IteratorExpired,
    MalformedRecord,
    RecordsTrimmed,
    ReplicatorError,
    ShardGone,
    Throttled,
    Unreachable,
)
from replicator.domain.health import is_silence
from replicator.domain.progress import BEGINNING, END, HORIZON, Position, after
from replicator.domain.records import first_unread
from replicator.domain.shards.leases import StreamRef
from replicator.domain.shards.lineage import RETENTION_SECONDS, Shard
from replicator.engine.limits import Limits
from replicator.engine.probing import Probing
from replicator.engine.reading.cursors import Always, Cursor, Cursors, Expected, Page, Taker
from replicator.engine.reading.memory_budget import ByteBudget, Grant, weight
from replicator.engine.reading.poll_rate import ShardCalls
from replicator.engine.waiting import first_answer, pause_or_raise, retry_in, unless_stopped
from replicator.ports.clock import Clock
from replicator.ports.events import Observer
from replicator.ports.services import ServiceKind, shard_service
from replicator.ports.sources import Ends, RecordPage, Stream
from replicator.ports.targets import Fence

_EXPIRIES_IN_A_ROW = 5
_LOOKS_BEFORE_LOSS = 3
_PEEKS = 10
"""So many empty pages in a row show that nothing is behind a place for now; a few are normal."""

_EMPTY_BEHIND_A_RECORD, _EMPTY_AT_THE_START = 2, 3
"""So many empty answers in a row are taken for the end of what is there by now; a hint, since no answer says so."""

_IDLE_BYTES = 16 * 1024
"""What the answer of a shard is expected to weigh when its last one was empty."""

_MOST_BYTES = 2 * 1024 * 1024
"""What a page weighs at most: 1 MB on the wire, and its objects."""


_UNASKED = Cursor(0.0)


def _unheard(_: Position, __: float) -> None:
    """For a reader whose caller keeps no positions."""


class ShardReader:
    """Pages of one shard by position.

    It is longer than a class should be because a page, its iterator and the judgement whether a place is lost share the
    turns at the shard, at each of which no two calls may be under way.
    """

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
        probing: Probing | None = None,
        read_to: Callable[[Position, float], None] = _unheard,
    ) -> None:
        """`read_to` is given a position behind which nothing stood, and the server's time of that question."""
        self._read_to = read_to
        self._ends = ends
        self._stream = stream
        self._ref = ref
        self._shard = shard
        self._shard_id = shard.shard_id
        self._service = shard_service(ServiceKind.READING, ref, self._shard_id)
        self._budget = budget
        self._limits = limits
        self._clock = clock
        self._observer = observer
        self._fence = fence
        self._stop = stop
        self._probing = probing or Probing()
        self._cursors = Cursors(clock)
        self._foremost_calls = ShardCalls(stream, limits=limits, clock=clock, fence=fence, stop=stop)
        self._later_calls = ShardCalls(stream, limits=limits, clock=clock, fence=fence, stop=stop)
        self._foremost: Position | None = None
        """The furthest place that was read from."""
        self._answers = 0
        """How many answers said that a place can be read."""
        self._record_bytes = 1000
        self.trouble: ReplicatorError | None = None
        """What keeps calls from being answered."""

    def at(self, position: Position) -> Cursor:
        """What is known of a place, as far as that is still read from."""
        return self._cursors.known(position) or _UNASKED

    async def read(self, position: Position, *, limit: int | None = None, taker: Taker | None = None) -> Page:
        """The next page with records behind `position`, or the end of the shard; waits for either.

        `taker`: whether there is room to ask for one, and how urgent it is; what another target reads meanwhile it may
        have at once. Raises `Stopped` when the program stops, `RecordsTrimmed` when the place is gone, `LeaseLost`.
        Everything else is repeated with backoff and reported to the observer.
        """
        if self._foremost is None or position.order > self._foremost.order:
            self._foremost = position
        expected = self._cursors.expect(position, taker or Always())
        page: Page | None = None
        try:
            if not expected.settled:
                await self._until_read(expected, limit or self._limits.page_records)
            if expected.error is not None:
                raise expected.error
            page = expected.page
            assert page is not None, "it is waited for until it is there"
        finally:
            self._cursors.cease(expected)
            if page is None and expected.page is not None:
                self.drop(expected.page)
        if (cursor := self._cursors.known(position)) is not None and not cursor.readers:
            self._cursors.leave(position)
        return page

    async def _until_read(self, expected: Expected, limit: int) -> None:
        """Ask for a page until it is there, whichever pipeline read it; raise what keeps it from being read."""
        try:
            async with asyncio.timeout(None) as expected.asking:
                await self._ask_for(expected, limit)
        except TimeoutError:
            if not expected.settled:
                raise
        finally:
            expected.asking = None

    async def _ask_for(self, expected: Expected, limit: int) -> None:
        position, taker = expected.behind, expected.taker
        await taker.room.wait()
        self._cursors.look(expected)
        if expected.settled:
            return
        cursor = self._cursors.at(position)
        cursor.readers.append(taker.urgent)
        try:
            async with cursor.turn:  # targets at the same place wait for one poll, not for one each
                if not expected.settled:
                    await self._page(position, cursor, limit)
        finally:
            cursor.readers.remove(taker.urgent)

    def _calls(self, position: Position) -> ShardCalls:
        """Whose turn it is to ask behind a place: the foremost place has calls of its own, the others share theirs."""
        is_behind = self._foremost is not None and position.order < self._foremost.order
        return self._later_calls if is_behind else self._foremost_calls

    def drop(self, page: Page) -> None:
        """A page is done with; the last one that had it gives its bytes back."""
        self._cursors.drop(page)

    async def reaches(self, position: Position) -> bool:
        """Whether the records behind a position can still be read; False when they left the stream.

        What reads from there now need not ask for an iterator again, but at the horizon: there an older one tells more.
        An answer that came while this was waiting for its turn is an answer to this question, too.
        """
        answers = self._answers
        async with self._later_calls.turn:
            known = self._cursors.known(position)
            if known is not None and known.iterator is not None and known.reached > answers:
                return True
            self._fence.check()
            try:
                iterator = await self._iterator(position)
            except RecordsTrimmed:
                return False
        if position != HORIZON:
            cursor = self._cursors.at(position)
            self._answers += 1
            cursor.iterator, cursor.reached = iterator, self._answers
        return True

    async def first_left(self) -> Position | None:
        """The first record that can still be read, as a position; END when none can, None when that is not known.

        A call that fails is the caller's to repeat: no answer is not an answer.
        """
        for _ in range(_LOOKS_BEFORE_LOSS):
            try:
                return await self._peek()
            except ShardGone:
                return END if await self._is_over() else None
            except RecordsTrimmed:  # the horizon moved on between two calls
                continue
        return None

    async def _peek(self) -> Position | None:
        async with self._later_calls.turn:
            self._fence.check()
            iterator: str | None = await self._iterator(HORIZON)
        for _ in range(_PEEKS):
            if iterator is None:
                return END if await self._is_over() else None
            answer = await self._later_calls.ask(iterator, 1)
            if answer.records:
                return after(answer.records[0].sequence)
            iterator = answer.next_iterator
        return None

    # -- a page --------------------------------------------------------------------------------------------------------

    async def _page(self, position: Position, cursor: Cursor, limit: int) -> None:
        """Ask until there is a page; it goes to everything that waits for records in it."""
        failures = 0
        while True:
            await self._until_it_answers()
            began = asyncio.get_running_loop().time()
            try:
                page = await self._poll(position, cursor, limit)
            except ReplicatorError as error:
                await self._judge(error, position, cursor)
                failures = await self._failed(error, failures, began)
                continue
            failures = 0
            if self.trouble is not None:
                self.trouble = None
                self._observer.service_recovered(self._service)
            if page is not None:
                self._cursors.arrived(page)
                return
            idle = cursor.next_idle(self._limits.poll_seconds, self._limits.idle_seconds)
            await pause_or_raise(self._stop, 0 if cursor.pushed else idle)

    async def _judge(self, error: ReplicatorError, position: Position, cursor: Cursor) -> None:
        """Raise an error that is the caller's to decide; all others are repeated."""
        if error.disposition is Disposition.RELINQUISH:
            raise error
        if isinstance(error, RecordsTrimmed):
            self.trouble = error
            if await self._is_lost(position, cursor, error):
                self._cursors.forget(position)
                self._cursors.lost(position, error)
                raise error
        elif not isinstance(error, Throttled):
            cursor.iterator = None

    async def _poll(self, position: Position, cursor: Cursor, limit: int) -> Page | None:
        """One call; None when there was nothing behind the position yet."""
        await self._calls(position).until_due()
        expected = _IDLE_BYTES if cursor.idle_seconds else min(cursor.large or limit * self._record_bytes, _MOST_BYTES)
        cursor.hungry = True
        try:
            grant = await self._budget.acquire(expected, cursor.urgent)
        finally:
            cursor.hungry = False
        page = None
        try:
            page = await self._poll_within(grant, position, cursor, limit)
        finally:
            if page is None:
                grant.correct(0)
        return page

    async def _poll_within(self, grant: Grant, position: Position, cursor: Cursor, limit: int) -> Page | None:
        calls = self._calls(position)
        try:
            answer = await self._probing.attempt(self._ask_at(calls, position, cursor, limit))
        except IteratorExpired:
            self._renew(position, cursor)
            return None
        self._probing.answered()
        cursor.expiries = cursor.trims = 0
        cursor.asked_at, cursor.answered_at, cursor.pushed = calls.answered_at, calls.answered_at, answer.pushed
        level_at = self._level(calls, position, cursor, answer)
        self._observer.polled(self._ref, self._shard_id, position, len(answer.records), level_at, calls.behind)
        self._doubt(answer, cursor)
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
        following = self._cursors.at(then)
        following.iterator, following.large = answer.next_iterator, max(grant.held, _IDLE_BYTES) * answer.pushed
        return Page(position, answer.records, then, grant)

    def _level(self, calls: ShardCalls, position: Position, cursor: Cursor, answer: RecordPage) -> float | None:
        """When nothing stood behind a position, if answers say so: a few are empty before data is reached."""
        cursor.empties = 0 if answer.records or answer.is_level is False else cursor.empties + 1
        known = _EMPTY_BEHIND_A_RECORD if position.sequence is not None else _EMPTY_AT_THE_START
        if answer.next_iterator is None or cursor.empties < (1 if answer.is_level else known):
            return None
        self._read_to(position, calls.asked_at)
        cursor.level_at = calls.asked_at
        return calls.asked_at

    def _doubt(self, answer: RecordPage, cursor: Cursor) -> None:
        """Ask again for a record that cannot be understood, a few times: an answer may be damaged on its way."""
        unread = first_unread(answer.records)
        cursor.doubts = 0 if unread is None else cursor.doubts + 1
        if unread is not None and cursor.doubts < _LOOKS_BEFORE_LOSS:
            raise MalformedRecord(unread.why)

    async def _ask_at(self, calls: ShardCalls, position: Position, cursor: Cursor, limit: int) -> RecordPage:
        """Ask for the records behind a position, by the iterator that is known or by a new one."""
        if cursor.iterator is None:
            async with calls.turn:
                self._fence.check()
                kept = self._stream.kept_seconds(self._ref) or RETENTION_SECONDS
                if position == HORIZON and self._clock.monotonic() - cursor.asked_at > kept:
                    cursor.trims = _LOOKS_BEFORE_LOSS
                    raise RecordsTrimmed(f"Shard {self._shard_id} was not read for long: records may be gone unread.")
                cursor.iterator = await self._iterator(position)
        return await calls.ask(cursor.iterator, limit)

    async def _iterator(self, position: Position) -> str:
        first = self._shard.first if position == BEGINNING else None
        ask = partial(self._stream.iterator, self._ref, self._shard_id, position, first)
        return await (ask() if self.trouble is None else first_answer(ask))

    def _renew(self, position: Position, cursor: Cursor) -> None:
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

    async def _is_lost(self, position: Position, cursor: Cursor, error: RecordsTrimmed) -> bool:
        """Whether the records behind a position are gone for good: one answer that says so may be wrong.

        At the horizon a new iterator would always find a place, only a later one: there the same iterator is asked.
        """
        if position == HORIZON and not isinstance(error, ShardGone):
            cursor.trims += 1
            return cursor.trims >= _LOOKS_BEFORE_LOSS
        for _ in range(_LOOKS_BEFORE_LOSS):
            self._observer.service_failed(self._service, error)
            await pause_or_raise(self._stop, self._limits.idle_seconds)
            try:
                if await self.reaches(position) or (isinstance(error, ShardGone) and not await self._is_over()):
                    self._cursors.forget(None)
                    return False
            except ReplicatorError as other:
                if other.disposition is Disposition.RELINQUISH:
                    raise
                return False
        self._observer.service_recovered(self._service)
        return True

    async def _is_over(self) -> bool:
        """Whether the stream itself says that this shard gets no more records."""
        self._fence.check()
        return await unless_stopped(self._stop, self._ends.is_over(self._shard_id))

    # -- the pace ------------------------------------------------------------------------------------------------------

    async def _failed(self, error: ReplicatorError, failures: int, began: float) -> int:
        self.trouble = error
        self._observer.service_failed(self._service, error)
        if not (is_silence(error) and self._probing.failed(self._shard_id, error, began)):
            await pause_or_raise(self._stop, retry_in(error, failures + 2, self._limits.backoff_seconds))
        return failures + 1

    async def _until_it_answers(self) -> None:
        """Wait while the stream answers for no shard, for a turn to try it or for its first answer."""
        while (error := await self._probing.turn(self._stop, told=self.trouble is not None)) is not None:
            self.trouble = error
            self._observer.service_failed(self._service, error)
