"""Parking: what a target refuses is set aside as an owed key, and everything behind it goes on.

Invariant: a row is durable before its record counts as done, and a row whose change, or a newer one of its key, was
taken is settled before that record counts as done. The open rows of a target are held in memory, so no record needs a
look-up; they are loaded before a shard is read, and only the owner of a key's shard writes the key's row.
"""

from __future__ import annotations

import asyncio

from msgspec import Struct, field

from replicator.domain.errors import ReplicatorError
from replicator.domain.identifiers import RegionId
from replicator.domain.owed_keys import OwedKey, OwedTo, Settlement, Subject, row_id, settles, too_much
from replicator.domain.records import ItemKey
from replicator.domain.targets import TargetKind
from replicator.ports.clock import Clock
from replicator.ports.events import Observer, OwedRows
from replicator.ports.owed import OwedKeys
from replicator.ports.targets import Fence

_OLD_SECONDS = 5.0
"""Rows that were read longer ago are read again before a target is stopped for their number."""

_LOADS_PER_BOUND = 10
"""Rows are read again after so many parts of the bound were added: other workers add to them too."""


class ParkingBounds(Struct, frozen=True):
    """Rows per target at most: keys, and records that cannot be read."""

    keys: int = 10_000
    records: int = 100


class _Open(Struct, frozen=True):
    """An open row, as far as it is needed here."""

    version: str
    first: float


class _Book(Struct):
    """Open rows of one kind, and how many more are being written."""

    what: str
    most: int
    rows: dict[Subject, _Open] = field(default_factory=dict)
    coming: int = 0
    added: int = 0
    """Since the rows were read last."""


class Parking:
    """The open rows of one target, of the keys of one table. Shared by every shard of the process."""

    def __init__(  # noqa: PLR0913 - its collaborators, given once
        self,
        rows: OwedKeys,
        region: RegionId,
        to: OwedTo,
        *,
        bounds: ParkingBounds,
        clock: Clock,
        observer: Observer,
    ) -> None:
        """`region`: of the source, where the rows are."""
        self.to = to
        self._region = region
        self._rows = rows
        self._clock = clock
        self._observer = observer
        self._keys, self._records = _Book("keys", bounds.keys), _Book("records", bounds.records)
        self._changed: set[Subject] | None = None
        """What was written here while rows are being read."""
        self._turn = asyncio.Lock()
        self._asked = self._answered = 0
        self._loaded_at = float("-inf")
        self._oldest: float | None = None

    async def load(self) -> None:
        """Read every open row; who asks while another reading is under way shares the next one."""
        self._asked += 1
        ticket = self._asked
        async with self._turn:
            if self._answered < ticket:
                answered = self._asked
                await self._read()
                self._answered = answered

    async def refresh(self) -> None:
        """Read open rows again if there are any: operators and other workers change them too."""
        if self._keys.rows or self._records.rows:
            await self.load()

    async def _read(self) -> None:
        changed: set[Subject] = set()
        self._changed = changed
        began = self._clock.monotonic()
        found: dict[Subject, _Open] = {}
        after: str | None = None
        try:
            while True:
                page = await self._rows.page(self.to, after)
                found.update((row.subject, _Open(row.version, row.first)) for row in page.rows)
                after = page.after
                if after is None:
                    break
        finally:
            self._changed = None
        for subject in changed:  # what was written here meanwhile may have been read as it was before
            known = self._book(subject).rows.get(subject)
            if known is None:
                found.pop(subject, None)
            else:
                found[subject] = known
        for book in (self._keys, self._records):
            book.rows = {subject: row for subject, row in found.items() if self._book(subject) is book}
            book.added = 0
        self._loaded_at = began
        self._seek_oldest()
        self._publish()

    # -- rows ----------------------------------------------------------------------------------------------------------

    def owes(self, key: ItemKey) -> str | None:
        """The version that is owed of a key, None when none is."""
        rows = self._keys.rows
        known = rows.get(key) if rows else None
        return None if known is None else known.version

    async def row(self, key: ItemKey) -> OwedKey | None:
        """What is owed of a key, as it stands; None when nothing is."""
        return await self._rows.find(self.to, row_id(self.to, key))

    async def put(self, row: OwedKey, body: bytes | None, error: ReplicatorError, fence: Fence) -> OwedKey:
        """Make a row durable, if there is room; `error`: why the target did not take it."""
        subject = row.subject
        book = self._book(subject)
        if subject not in book.rows:
            await self._make_room(book, error)
        book.coming += 1
        try:
            stood = await self._rows.put(row, body, fence)
        except BaseException:
            # It may be there all the same; if the change is taken at the next try, it must be settled.
            if subject not in book.rows:
                self._add(book, subject, row)
            raise
        finally:
            book.coming -= 1
        self._add(book, subject, stood)
        return stood

    def _add(self, book: _Book, subject: Subject, row: OwedKey) -> None:
        book.added += subject not in book.rows
        book.rows[subject] = _Open(row.version, row.first)
        self._oldest = row.first if self._oldest is None else min(self._oldest, row.first)
        self._noted(subject)

    async def _make_room(self, book: _Book, error: ReplicatorError) -> None:
        """Raise what stops the target when there is no room, though not before the rows were read again."""
        is_full = len(book.rows) + book.coming >= book.most
        is_old = self._clock.monotonic() - self._loaded_at > _OLD_SECONDS
        if (is_full and is_old) or book.added * _LOADS_PER_BOUND >= book.most:
            await self.load()
        if len(book.rows) + book.coming >= book.most:
            raise too_much(self.to, len(book.rows), book.what, error)

    async def settle(self, row: OwedKey, how: Settlement, fence: Fence) -> bool:
        """Take a row away, if there is one that this version settles; returns whether it is gone by that."""
        subject = row.subject
        known = self._book(subject).rows.get(subject)
        if known is None or not settles(row.version, known.version):
            return False
        gone = await self._rows.settle(row, how, row.by, fence)
        if gone:
            self._book(subject).rows.pop(subject, None)
            if known.first == self._oldest:
                self._seek_oldest()
            self._noted(subject)
        return gone

    def _book(self, subject: Subject) -> _Book:
        is_event = self.to.target_id.kind is TargetKind.EVENTS
        return self._keys if is_event or isinstance(subject, ItemKey) else self._records

    def _noted(self, subject: Subject) -> None:
        if self._changed is not None:
            self._changed.add(subject)
        self._publish()

    def _seek_oldest(self) -> None:
        rows = (*self._keys.rows.values(), *self._records.rows.values())
        self._oldest = min((row.first for row in rows), default=None)

    def _publish(self) -> None:
        self._observer.owed_rows(
            OwedRows(self._region, self.to, len(self._keys.rows), len(self._records.rows), self._oldest)
        )
