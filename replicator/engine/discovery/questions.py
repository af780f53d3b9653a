"""What is to be asked about a stream next, and the readers that wait for the answer."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterable

from msgspec import Struct

from replicator.domain.identifiers import ShardId
from replicator.domain.shards.lineage import Shard
from replicator.domain.shards.listing import Listing
from replicator.engine.waiting import Stopped


class Question(Struct, eq=False):
    """Whether a shard is over. `asked`: the number of the last call before it."""

    shard_id: ShardId
    asked: int
    answer: asyncio.Future[bool]
    needs_listing: bool = False
    """Whether its children were asked for, and there are none."""


class Questions:
    """Readers that wait to learn whether their shard is over."""

    def __init__(self) -> None:
        self._open: list[Question] = []

    def ask(self, shard_id: ShardId, asked: int) -> Question:
        """A new question; the caller awaits its answer and drops it."""
        question = Question(shard_id, asked, asyncio.get_running_loop().create_future())
        self._open.append(question)
        return question

    def drop(self, question: Question) -> None:
        """The caller waits no more."""
        self._open.remove(question)

    @property
    def shards(self) -> set[ShardId]:
        """What is asked about and not answered."""
        return {question.shard_id for question in self._open if not question.answer.done()}

    @property
    def for_children(self) -> set[ShardId]:
        """Shards whose children may answer the question."""
        return {question.shard_id for question in self._waiting() if not question.needs_listing}

    @property
    def for_listing(self) -> bool:
        """Whether only a listing can answer."""
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
