"""Guards of reading and checkpoints, taken out: `reading`'s scenarios must not survive without them."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

from replicator.domain.errors import RecordsTrimmed
from replicator.domain.progress import END, HORIZON, Position, Window, after
from replicator.domain.values import replace
from replicator.engine.applying.look_ahead import ReadAhead
from replicator.engine.ownership.running_shards import RunningShards
from replicator.engine.reading.cursors import Cursor, Page
from replicator.engine.reading.memory_budget import ByteBudget
from replicator.engine.reading.reader import ShardReader
from replicator.engine.shard import checkpoints, losses
from replicator.engine.shard.gap_gate import GapGate
from replicator.engine.shard.pipeline import Pipeline
from tests.production.guarantee import Mutant

# -- 1, 2: the ends of a shard ---------------------------------------------------------------------------------------


def _without_last_records(original: Any) -> Any:
    async def poll(self: Any, *args: Any) -> Page | None:
        page: Page | None = await original(self, *args)
        return replace(page, records=()) if page is not None and page.then == END else page

    return poll


def _child_at_the_latest(original: Any) -> Any:
    async def iterator(self: Any, position: Position) -> Any:
        held = self._stream._shards[self._ref.arn][self._shard_id]
        if position.sequence is None and self._shard.parents and held.records:
            return await original(self, after(held.records[-1].sequence))
        return await original(self, position)

    return iterator


def _start_when_the_shard_was_met(original: Any) -> Any:
    async def start(self: Any) -> Any:
        return replace(await original(self), started_at=self._context.ports.clock.now())

    return start


LAST_PAGE = {
    "records_of_the_page_without_iterator": Mutant(
        "records are looked at before the iterator that follows",
        ((ShardReader, "_poll_within", _without_last_records),),
    )
}
CHILD = {
    "horizon_of_children": Mutant(
        "a child is opened at its horizon", ((ShardReader, "_iterator", _child_at_the_latest),)
    ),
    "start_of_the_target": Mutant(
        "a start counts from the target's first start on the stream",
        ((Pipeline, "_start", _start_when_the_shard_was_met),),
    ),
}

# -- 7: iterators ----------------------------------------------------------------------------------------------------


def _kept_iterator(original: Any) -> Any:
    def renew(self: Any, position: Position, cursor: Any) -> None:
        expired = cursor.iterator
        original(self, position, cursor)
        cursor.iterator = expired

    return renew


def _at_the_horizon_when_expired(original: Any) -> Any:
    async def iterator(self: Any, position: Position) -> Any:
        expired = any(cursor.expiries for cursor in self._cursors.values())
        far = position.covers(5)  # a page that ends where it was asked for would be read again in no time
        return await original(self, HORIZON if expired and far else position)

    return iterator


def _at_the_latest_when_expired(original: Any) -> Any:
    async def iterator(self: Any, position: Position) -> Any:
        held = self._stream._shards[self._ref.arn][self._shard_id]
        expired = any(cursor.expiries for cursor in self._cursors.values())
        return await original(self, after(held.records[-1].sequence) if expired and held.records else position)

    return iterator


ITERATORS = {
    "new_iterator": Mutant("an expired iterator is derived anew", ((ShardReader, "_renew", _kept_iterator),)),
    "place_of_the_iterator": Mutant(
        "it is derived from the last record that was read", ((ShardReader, "_iterator", _at_the_horizon_when_expired),)
    ),
    "nothing_is_skipped": Mutant(
        "it is not derived from what is newest", ((ShardReader, "_iterator", _at_the_latest_when_expired),)
    ),
}

# -- 8: trims --------------------------------------------------------------------------------------------------------


def _horizon_instead(original: Any) -> Any:
    async def iterator(self: Any, position: Position) -> Any:
        try:
            return await original(self, position)
        except RecordsTrimmed:
            return await original(self, HORIZON)

    return iterator


def _never_waits(_: Any) -> Any:
    async def wait(self: Any, *args: Any) -> bool:
        return False

    return wait


def _begins_at_the_horizon(_: Any) -> Any:
    def beginning(*_: Any, **__: Any) -> Position:
        return HORIZON

    return beginning


TRIMS = {
    "loss_is_told_by_the_reader": Mutant(
        "a place that is gone is no other place", ((ShardReader, "_iterator", _horizon_instead),)
    ),
    "ledger_and_gate": Mutant("a loss is stored and waited for", ((GapGate, "wait", _never_waits),)),
    "first_record_is_owed": Mutant(
        "a child begins at its very first record", ((losses, "beginning", _begins_at_the_horizon),)
    ),
}

# -- 9, 10: checkpoints ----------------------------------------------------------------------------------------------


def _greatest_done(_: Any) -> Any:
    def done(self: Window, sequence: Any) -> bool:
        self._pending.remove(next(each for each in self._pending if each[0] == sequence))
        self._frontier = max(self._frontier, after(sequence), key=lambda position: position.order)
        return True

    return done


def _covers_texts(_: Any) -> Any:
    def covers(self: Position, number: int) -> bool:
        return self.text == "SHARD_END" or (self.text.isdecimal() and str(number) <= self.text)

    return covers


def _ended_before_applied(original: Any) -> Any:
    async def apply(self: Any, applier: Any, pages: Any, **more: Any) -> None:
        if pages and pages[-1].then == END:
            self._moved(END)
        await original(self, applier, pages, **more)

    return apply


def _over_by_its_own_word(_: Any) -> Any:
    async def is_over(self: Any) -> bool:
        return True

    return is_over


def _ended_by_an_empty_page(original: Any) -> Any:
    async def poll(self: Any, grant: Any, position: Position, *args: Any) -> Page | None:
        page: Page | None = await original(self, grant, position, *args)
        return Page(position, (), END, grant) if page is None and self._shard.closed else page

    return poll


FRONTIER = {
    "no_hole": Mutant("the frontier waits for every record before it", ((Window, "done", _greatest_done),)),
    "numbers_are_numbers": Mutant(
        "sequence numbers compare as integers",
        ((Position, "covers", _covers_texts),),
    ),
}
ENDS = {
    "end_behind_what_is_applied": Mutant(
        "the end moves with the last effect", ((Pipeline, "_apply", _ended_before_applied),)
    ),
    "end_is_confirmed": Mutant(
        "an end is believed when the listing says so", ((ShardReader, "_is_over", _over_by_its_own_word),)
    ),
    "empty_pages_are_no_end": Mutant(
        "only a missing iterator ends a shard", ((ShardReader, "_poll_within", _ended_by_an_empty_page),)
    ),
}

# -- 16, 17: what a shard costs --------------------------------------------------------------------------------------


def _never_slower(_: Any) -> Any:
    return lambda self, least, most: least


def _ever_slower(_: Any) -> Any:
    def next_idle(self: Any, least: float, most: float) -> float:
        self.idle_seconds = max(self.idle_seconds * 2, least)
        return float(self.idle_seconds)

    return next_idle


def _counts_and_waits_for_nothing(_: Any) -> Any:
    def count(self: Any, records: int, size: int) -> None:
        self.room.set()

    return count


IDLE = {
    "slower_when_idle": Mutant("idle shards are asked ever less often", ((Cursor, "next_idle", _never_slower),)),
    "bound_of_the_lag": Mutant("and never less often than the bound", ((Cursor, "next_idle", _ever_slower),)),
}
MEMORY = {
    "budget_of_the_process": Mutant(
        "bytes are granted while there are some",
        ((ByteBudget, "_fits", lambda _: lambda self, wanted, *, urgent: True),),
    ),
    "room_of_a_pipeline": Mutant(
        "a pipeline reads ahead while there is room", ((ReadAhead, "_count", _counts_and_waits_for_nothing),)
    ),
}

# -- 31: a single writer ---------------------------------------------------------------------------------------------


class _NoLock:
    """A lock that keeps nobody out."""

    async def __aenter__(self) -> None: ...

    async def __aexit__(self, *_: object) -> None: ...

    def locked(self) -> bool:
        return False


def _tasks_of_nobody(original: Any) -> Any:
    async def claim(self: Any, seen: Any, rules: Any, group: Any) -> None:
        await original(self, seen, rules, asyncio.get_running_loop())

    return claim


SINGLE_WRITER = {
    "one_save_at_a_time": Mutant(
        "checkpoints of a shard wait for each other",
        ((checkpoints, "asyncio", lambda _: SimpleNamespace(Lock=_NoLock)),),
    ),
    "tasks_are_awaited": Mutant("who started a task waits for its end", ((RunningShards, "_claim", _tasks_of_nobody),)),
}
