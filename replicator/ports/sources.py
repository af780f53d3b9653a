"""Ports to streams: pages of records and of shards."""

from __future__ import annotations

from typing import Protocol

from msgspec import Struct

from replicator.domain.identifiers import SequenceNumber, ShardId, TableName
from replicator.domain.progress import Position
from replicator.domain.records import StreamRecord
from replicator.domain.shards.leases import StreamRef
from replicator.domain.shards.lineage import Shard


class Ends(Protocol):
    """Answers whether a shard is over."""

    async def is_over(self, shard_id: ShardId) -> bool:
        """Whether the stream itself says that the shard gets no more records: closed, has a child, or not listed.

        That a shard is closed is never taken back, so once that is stored it is the answer, without a call; every other
        answer is taken from a call made after the question was asked. Waits as long as calls fail.
        """

    def known(self, shard_id: ShardId) -> bool:
        """Whether the shard has a row, as far as was seen. A parent without one is proven gone, or long done."""


class RecordPage(Struct, frozen=True):
    """One answer of a shard. `next_iterator` None: the shard is closed and this was its last page.

    `at`: the server's time of the answer, in seconds since 1970; None when it does not tell. `is_level`: whether
    nothing stood behind these records, where answers say so. `pushed`: the source waits for the next page by itself, so
    that it may be asked for at once.
    """

    records: tuple[StreamRecord, ...]
    next_iterator: str | None
    at: float | None = None
    is_level: bool | None = None
    pushed: bool = False

    def __eq__(self, other: object) -> bool:
        return self._gives == other._gives if isinstance(other, RecordPage) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._gives)

    @property
    def _gives(self) -> tuple[tuple[StreamRecord, ...], str | None]:
        return self.records, self.next_iterator


class ShardPage(Struct, frozen=True):
    """One page of a stream's listing. `last` None: nothing follows; else the next page starts behind it."""

    shards: tuple[Shard, ...]
    last: ShardId | None


class Stream(Protocol):
    """The streams of one region."""

    async def current(self, table: TableName) -> StreamRef:
        """The table's present stream; `WorldMismatch` when there is none that can be used."""

    async def streams(self, table: TableName) -> list[StreamRef]:
        """Every stream of a table that can still be read, oldest first; the present one is the last."""

    def reads(self, stream: StreamRef) -> bool:
        """Whether a stream is one of those that are read here; a rule may have read another kind before."""

    def kept_seconds(self, stream: StreamRef) -> float | None:
        """How long a stream keeps records now, as far as was seen; None: for DynamoDB's day, or not seen yet."""

    async def shows_images(self, stream: StreamRef) -> bool:
        """Whether the records of a stream show items as they were and as they are; False of one that is gone."""

    async def shard_page(self, stream: StreamRef, after: ShardId | None) -> ShardPage:
        """One page of the listing, behind shard `after`; `ShardGone` when the stream is gone."""

    async def children(self, stream: StreamRef, parent: ShardId) -> list[Shard] | None:
        """The listed children of a closed shard; None when the endpoint cannot filter (then list instead)."""

    async def iterator(
        self, stream: StreamRef, shard_id: ShardId, position: Position, first: SequenceNumber | None = None
    ) -> str:
        """A shard iterator right behind `position`; `RecordsTrimmed` when that place is gone, `ShardGone`.

        `first` asks, together with the horizon, for the shard's very first record: `RecordsTrimmed` when it is gone.
        """

    async def read(self, iterator: str, limit: int) -> RecordPage:
        """The next page; may be empty long before the end. `IteratorExpired`, `RecordsTrimmed`."""
