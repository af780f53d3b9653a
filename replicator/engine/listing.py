"""One walk over a stream's listing, and the questions that wait for what it says.

Invariant: an answer is taken only from calls that were made after the question; that a shard is over is believed at
once, that it is not only when a whole listing was read.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from typing import Protocol

from replicator.domain.lineage import Shard, merged
from replicator.domain.records import ShardId
from replicator.engine.pacing import Stopped
from replicator.ports import ShardPage


class Ends(Protocol):
    """Who knows whether a shard is over."""

    async def is_over(self, shard_id: ShardId) -> bool:
        """Whether the stream itself says that the shard gets no more records: closed, has a child, or not listed.

        That a shard is closed is never taken back, so once that is stored it is the answer, without a call; every other
        answer is taken from a call made after the question was asked. Waits as long as calls fail.
        """

    def known(self, shard_id: ShardId) -> bool:
        """Whether the shard has a row, as far as was seen. A parent without one is proven gone, or long done."""


@dataclass(slots=True)
class Listing:
    """A walk that is under way. `known`: shards that had a row when it began; a later one may be too young for it."""

    known: frozenset[ShardId]
    first_call: int = 0
    seen: dict[ShardId, Shard] = field(default_factory=dict)
    after: ShardId | None = None
    failures: int = 0
    _cursors: set[ShardId] = field(default_factory=set)

    def take(self, page: ShardPage) -> bool:
        """A page came; returns whether it is the last one. An endpoint that begins anew again and again has ended."""
        self.seen = merged(self.seen, page.shards)
        self.failures = 0
        if page.last is None or page.last in self._cursors:
            return True
        self._cursors.add(page.last)
        self.after = page.last
        return False


@dataclass(slots=True, eq=False)
class Question:
    """Whether a shard is over. `asked`: the number of the last call before it."""

    shard_id: ShardId
    asked: int
    answer: asyncio.Future[bool]
    needs_listing: bool = False
    """Whether its children were asked for, and there are none."""


class Questions:
    """Readers that wait to hear whether their shard is over."""

    def __init__(self) -> None:
        self._open: list[Question] = []

    def ask(self, shard_id: ShardId, asked: int) -> Question:
        """A new question; the caller awaits its answer and drops it."""
        question = Question(shard_id, asked, asyncio.get_running_loop().create_future())
        self._open.append(question)
        return question

    def drop(self, question: Question) -> None:
        """Nobody waits any more."""
        self._open.remove(question)

    @property
    def shards(self) -> set[ShardId]:
        """What is asked about and not answered."""
        return {question.shard_id for question in self._open if not question.answer.done()}

    @property
    def for_children(self) -> set[ShardId]:
        """Shards whose children may tell."""
        return {question.shard_id for question in self._waiting() if not question.needs_listing}

    @property
    def for_listing(self) -> bool:
        """Whether only a listing can tell."""
        return any(question.needs_listing for question in self._waiting())

    def hear(self, shards: Iterable[Shard], call: int) -> None:
        """Shards that a call listed: some are closed, and some are the children of others."""
        listed = list(shards)
        over = {shard.shard_id for shard in listed if shard.closed}
        over.update(parent for shard in listed for parent in shard.parents)
        self._answer(over, call, is_over=True)

    def childless(self, shard_ids: Collection[ShardId]) -> None:
        """No children are listed of these, or they cannot be asked for."""
        for question in self._waiting():
            question.needs_listing = question.needs_listing or question.shard_id in shard_ids

    def settle(self, listing: Listing) -> None:
        """A whole listing was read: what it does not show gets no more records."""
        asked = self.shards
        is_open = {shard_id for shard_id, shard in listing.seen.items() if not shard.closed} & asked
        self._answer(asked - is_open, listing.first_call, is_over=True)
        self._answer(is_open, listing.first_call, is_over=False)

    def stop(self) -> None:
        """No more answers come."""
        for question in self._waiting():
            question.answer.set_exception(Stopped())

    def _answer(self, shard_ids: Collection[ShardId], call: int, *, is_over: bool) -> None:
        for question in self._waiting():
            if question.shard_id in shard_ids and question.asked < call:
                question.answer.set_result(is_over)

    def _waiting(self) -> list[Question]:
        return [question for question in self._open if not question.answer.done()]
