"""What was read of a shard and is not yet applied: by key, and in bytes over all shards of a process.

A later record of a key can settle an earlier one: it supersedes a record that a replica refuses for good, and shows a
mesh what removed an item. Bounded: reading goes on only while there is room, in records and in bytes.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from typing import Protocol

from replicator.domain.records import ChangeRecord, StreamRecord, UnreadRecord

_MOST_BYTES = 8 * 1024 * 1024

_RECORD_BYTES = 1000
"""What a record weighs beside its images: key, numbers, objects."""

_LOOK_SECONDS = 0.5
"""How often a read that waits for bytes looks again whether it has become urgent."""

_PATIENCE_SECONDS = 2.0
"""How long bytes are waited for before pipelines that have not progressed for as long give theirs back."""


def weight(records: Sequence[StreamRecord]) -> int:
    """About how many bytes of memory some records take."""
    content = 0
    for record in records:
        if not isinstance(record, ChangeRecord):
            content += len(record.raw) if isinstance(record, UnreadRecord) else 0
            continue
        if record.old is not None:
            content += len(record.old.wire)
        if record.new is not None:
            content += len(record.new.wire)
    return len(records) * _RECORD_BYTES + content


class Holder(Protocol):
    """A pipeline that holds records that were read."""

    def shed(self, seconds: float) -> None:
        """Give everything back, to read it again later, if nothing progressed for so long."""


class Grant:
    """Bytes for one page. `holders`: how many pipelines have the page; the last one gives the bytes back."""

    __slots__ = ("_budget", "_urgent", "held", "holders")

    def __init__(self, budget: ByteBudget, held: int, *, urgent: bool) -> None:
        self._budget = budget
        self._urgent = urgent
        self.held = held
        self.holders = 0

    def correct(self, held: int) -> None:
        """The page turned out to be of this size, or is no longer there; it may be more than was granted."""
        self._budget.change(held - self.held, urgent=self._urgent)
        self.held = held


class _Waiter:
    __slots__ = ("grant", "granted", "wanted")

    def __init__(self, wanted: int) -> None:
        self.wanted = wanted
        self.grant: Grant | None = None
        self.granted = asyncio.Event()


class ByteBudget:
    """Bytes of records that were read and not yet applied, over all shards of a process; first come, first served.

    No pipeline can hold all others up for good, though bytes come back only as pages are applied: what is needed in
    order to go on is read out of a second pool of the same size, a page larger than a pool is read when the pool is
    empty, and what holds bytes without progressing gives them back when others wait. So at most twice the budget is
    held, and what a page is larger than it was expected to be.
    """

    def __init__(self, most_bytes: int) -> None:
        self._most = most_bytes
        self._used = {False: 0, True: 0}
        self._waiting: deque[_Waiter] = deque()
        self._holders: set[Holder] = set()
        self._asked_at = float("-inf")

    @property
    def used(self) -> int:
        """Bytes that are held now."""
        return self._used[False] + self._used[True]

    @property
    def share(self) -> int:
        """How many bytes a holder may keep beside those that it needs now: half the budget for all of them together."""
        return min(_MOST_BYTES, self._most // (2 * max(1, len(self._holders))))

    @property
    def waiting(self) -> int:
        """How many reads wait for bytes."""
        return len(self._waiting)

    def register(self, holder: Holder) -> None:
        """A pipeline may be asked to give back from now on."""
        self._holders.add(holder)

    def unregister(self, holder: Holder) -> None:
        """A pipeline holds nothing any more."""
        self._holders.discard(holder)

    async def acquire(self, wanted: int, urgent: Callable[[], bool]) -> Grant:
        """Wait until so many bytes may be read. A caller that is cancelled meanwhile holds nothing."""
        if not self._waiting and self._fits(wanted, urgent=False):
            return self._grant(wanted, urgent=False)
        waiter = _Waiter(wanted)
        self._waiting.append(waiter)
        began = asyncio.get_running_loop().time()
        try:
            while waiter.grant is None:
                if urgent() and self._fits(wanted, urgent=True):
                    return self._grant(wanted, urgent=True)
                try:
                    async with asyncio.timeout(_LOOK_SECONDS):
                        await waiter.granted.wait()
                except TimeoutError:
                    self._ask_back(began)
        except BaseException:
            if waiter.grant is not None:
                waiter.grant.correct(0)
            raise
        finally:
            if waiter.grant is None:
                self._waiting.remove(waiter)
                self._serve()
        return waiter.grant

    def change(self, by: int, *, urgent: bool) -> None:
        """Bytes were given back, or more were read than expected."""
        self._used[urgent] += by
        self._serve()

    def _fits(self, wanted: int, *, urgent: bool) -> bool:
        used = self._used[urgent]
        return used <= 0 or used + wanted <= self._most

    def _grant(self, wanted: int, *, urgent: bool) -> Grant:
        self._used[urgent] += wanted
        return Grant(self, wanted, urgent=urgent)

    def _serve(self) -> None:
        while self._waiting and self._fits(self._waiting[0].wanted, urgent=False):
            waiter = self._waiting.popleft()
            waiter.grant = self._grant(waiter.wanted, urgent=False)
            waiter.granted.set()

    def _ask_back(self, since: float) -> None:
        """Ask for bytes that lie idle, for all that wait, once in a while."""
        now = asyncio.get_running_loop().time()
        if now - max(since, self._asked_at) < _PATIENCE_SECONDS:
            return
        self._asked_at = now
        for holder in list(self._holders):
            holder.shed(_PATIENCE_SECONDS)
