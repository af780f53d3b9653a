"""What one region of a mesh is owed by another: keys that it refused, and keys that it missed while it was away.

Invariant: a row is durable before its record counts as done. Refused keys are few, held in memory and settled by the
next change of theirs that is taken (`parking.py`); missed keys are any number, held in no memory, and drained when the
region is back (`draining.py`).
"""

from __future__ import annotations

import asyncio
import heapq
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from msgspec import Struct

from replicator.domain.errors import ReplicatorError
from replicator.domain.identifiers import RegionId
from replicator.domain.owed_keys import LONGEST_REASON, OwedKey, OwedTo, Settlement, mesh_version, row_id
from replicator.domain.records import ChangeRecord, ItemKey
from replicator.engine.applying.parking import Parking
from replicator.engine.applying.partner import Partner
from replicator.ports.clock import Clock
from replicator.ports.events import Observer, OwedRows, Place
from replicator.ports.owed import OwedKeys
from replicator.ports.targets import Fence

_LOOK_SECONDS = 10.0
_LOOKS_PER_SECOND = 5


class Owed(Struct, frozen=True):
    """A settled record of a mesh as it becomes owed: where it was read, what was decided, and by whom.

    `replaced`, `left`: see `OwedKey`.
    """

    record: ChangeRecord
    place: Place
    decided: str
    replaced: tuple[str, ...]
    left: str | None
    by: str


class Missed(Struct, frozen=True):
    """Rows of what a region missed: those that are owed for longest, how many there are, and since when the oldest."""

    rows: tuple[OwedKey, ...]
    count: int
    oldest: float | None


class Looks(Struct):
    """How often rows are looked for where none is known: the more there is to look at, the less often."""

    among: int = 1
    """How many regions are owed by how many others, over all tables of this process."""

    @property
    def seconds(self) -> float:
        """Time between two looks."""
        return max(_LOOK_SECONDS, self.among / _LOOKS_PER_SECOND)


@dataclass(slots=True)
class Owing:
    """One region of a mesh as one home region owes it keys. `home`: that region, where the rows are.

    `refused`: where its refusals go; None when the rule waits for what is refused.
    """

    partner: Partner
    home: RegionId
    to: OwedTo
    rows: OwedKeys
    refused: Parking | None
    clock: Clock
    observer: Observer
    looks: Looks = field(default_factory=Looks)
    last: OwedKey | None = field(default=None, init=False)
    """A row that was written or read here: a probe tries it."""
    owes: bool = field(default=True, init=False)
    """Whether rows may be there: until it was seen that there is none."""
    _misses: int = field(default=0, init=False)
    _look: asyncio.Lock = field(default_factory=asyncio.Lock, init=False)
    _turns: dict[ItemKey, asyncio.Lock] = field(default_factory=dict, init=False)
    _waiting: Counter[ItemKey] = field(default_factory=Counter, init=False)

    async def miss(self, change: Owed, fence: Fence) -> OwedKey:
        """The region misses a change: its key is owed from now on."""
        row = self._row(self.to, change, self.partner.why)
        self._misses += 1
        self.owes = True
        self.last = await self.rows.put(row, None, fence)
        if not self.partner.is_missing:
            self.partner.tell()  # it came back meanwhile, and may have been drained
        return self.last

    async def missed_before(self, key: ItemKey) -> bool:
        """Whether a key is owed that can be brought now."""
        if self.partner.is_missing or not await self._may_owe():
            return False
        return await self.rows.find(self.to, row_id(self.to, key)) is not None

    async def _may_owe(self) -> bool:
        """Whether rows may be there; while none is known of, one look for any of them answers for all keys."""
        if self._is_in_doubt():
            async with self._look:
                if self._is_in_doubt():
                    await self.any()
        return self.owes

    def _is_in_doubt(self) -> bool:
        return self.owes and self.last is None

    @asynccontextmanager
    async def alone(self, key: ItemKey) -> AsyncIterator[None]:
        """Bring a key and settle its row with nothing else of this process at it: else the log shows what is none."""
        turn = self._turns.setdefault(key, asyncio.Lock())
        self._waiting[key] += 1
        try:
            async with turn:
                yield
        finally:
            self._waiting[key] -= 1
            if not self._waiting[key]:
                del self._turns[key], self._waiting[key]

    async def refuse(self, change: Owed, error: ReplicatorError, fence: Fence) -> None:
        """The region refuses a change: its key is parked."""
        assert self.refused is not None, "asked before"
        row = await self.refused.put(self._row(self.refused.to, change, error.message), None, error, fence)
        self.observer.parked(change.place, row)

    async def taken(self, change: Owed, fence: Fence) -> None:
        """The region took a change, so what it refused of its key before is settled."""
        if self.refused is None or self.refused.owes(change.record.key) is None:
            return
        row = self._row(self.refused.to, change, "")
        if await self.refused.settle(row, Settlement.APPLIED, fence):
            self.observer.unparked(change.place, row, Settlement.APPLIED)

    def _row(self, to: OwedTo, change: Owed, why: str) -> OwedKey:
        now, record, place = self.clock.now(), change.record, change.place
        return OwedKey(
            to=to,
            key=record.key,
            version=mesh_version(place.stream.generation, int(record.rank), change.decided),
            shard=place.shard_id,
            sequence=record.sequence,
            event=record.event,
            why=why[:LONGEST_REASON],
            changed_at=record.created_at,
            first=now,
            last=now,
            by=change.by,
            replaced=change.replaced,
            left=change.left,
        )

    # -- draining ------------------------------------------------------------------------------------------------------

    async def any(self) -> bool:
        """Whether the region is owed a key that it missed."""
        misses = self._misses
        page = await self.rows.page(self.to)
        self._found(page.rows[:1], misses)
        return bool(page.rows)

    def _found(self, rows: Sequence[OwedKey], misses: int) -> None:
        """Rows were read; what was missed since then may be among them or not."""
        if rows:
            self.owes, self.last = True, self.last or rows[0]
        elif self._misses == misses:
            self.owes, self.last = False, None

    async def missed(self, most: int, *, tells: bool) -> Missed:
        """Read what the region missed: the `most` rows that are owed for longest, oldest first.

        `tells`: whether this worker says for all how many there are.
        """
        misses = self._misses
        kept: list[tuple[float, str, OwedKey]] = []  # the youngest is at the top, and goes when there are too many
        count, after = 0, None
        while True:
            page = await self.rows.page(self.to, after)
            count += len(page.rows)
            for row in page.rows:
                entry = (-row.first, row.row_id, row)
                if len(kept) < most:
                    heapq.heappush(kept, entry)
                else:
                    heapq.heappushpop(kept, entry)
            after = page.after
            if after is None:
                break
        rows = tuple(row for _, _, row in sorted(kept, reverse=True))
        oldest = rows[0].first if rows else None
        self._found(rows, misses)
        if tells:
            self.observer.owed_rows(OwedRows(self.home, self.to, count, 0, oldest))
        return Missed(rows, count, oldest)

    async def drained(self, row: OwedKey, by: str, fence: Fence) -> None:
        """A row's key was brought: it is settled, unless more became owed since it was read."""
        await self.rows.settle(row, Settlement.DELIVERED, by, fence)

    def doubt(self) -> None:
        """Rows may be there that others wrote: a shard was theirs."""
        self.owes = True
        self._misses += 1
