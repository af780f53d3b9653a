"""The streams of one region in memory: a scripted graph of shards.

Invariant: a shard's records keep the order in which they were appended, an open shard never ends, and a closed one
tells its end only with or behind its last record. Trimming and expiry answer as DynamoDB Streams does.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from replicator.adapters.memory.faults import Faults
from replicator.domain.errors import IteratorExpired, RecordsTrimmed, ShardGone, WorldMismatch
from replicator.domain.lineage import Shard
from replicator.domain.progress import END, Position
from replicator.domain.records import ChangeRecord, ShardId, TableName
from replicator.ports import RecordPage, StreamRef


@dataclass(slots=True)
class _Shard:
    shard: Shard
    records: list[ChangeRecord] = field(default_factory=list)
    closed: bool = False
    trimmed: int = 0
    """How many of its records, from the first on, are gone."""
    trimmed_below: int = 0
    """Positions up to the record with this sequence number lie in the part that is gone."""


@dataclass(frozen=True, slots=True)
class _Cursor:
    arn: str
    shard_id: ShardId
    index: int


class MemoryStream:
    """The streams of one region's tables."""

    def __init__(self, faults: Faults | None = None) -> None:
        self.faults = faults or Faults()
        self.empty_pages = 0
        """How many of the next reads answer with an empty page, as sparse shards do."""
        self._current: dict[TableName, StreamRef] = {}
        self._shards: dict[str, dict[ShardId, _Shard]] = {}
        self._cursors: dict[str, _Cursor] = {}
        self._issued = 0

    # -- the script ------------------------------------------------------------------------------------------------

    def enable(self, stream: StreamRef) -> None:
        """Make this the table's present stream; an earlier one stays readable."""
        self._current[stream.table] = stream
        self._shards.setdefault(stream.arn, {})

    def disable(self, table: TableName) -> None:
        """Leave the table without a stream that can be used."""
        del self._current[table]

    def drop(self, stream: StreamRef) -> None:
        """Forget a stream with all its shards."""
        del self._shards[stream.arn]

    def add_shard(self, stream: StreamRef, shard_id: ShardId, parent: ShardId | None = None) -> None:
        """List a new, open shard."""
        self._shards[stream.arn][shard_id] = _Shard(Shard(shard_id, parent))

    def append(self, stream: StreamRef, shard_id: ShardId, records: Iterable[ChangeRecord]) -> None:
        """Write records behind the shard's last one."""
        shard = self._shards[stream.arn][shard_id]
        if shard.closed:
            raise ValueError(f"shard {shard_id} is closed, so nothing can be written to it")
        shard.records.extend(records)

    def close(self, stream: StreamRef, shard_id: ShardId) -> None:
        """Let the shard end behind its last record."""
        self._shards[stream.arn][shard_id].closed = True

    def trim(self, stream: StreamRef, shard_id: ShardId, keep: int) -> None:
        """Let all but the last `keep` records leave the retention."""
        shard = self._shards[stream.arn][shard_id]
        shard.trimmed = len(shard.records) - keep
        shard.trimmed_below = max((record.number for record in shard.records[: shard.trimmed]), default=0)

    def remove_shard(self, stream: StreamRef, shard_id: ShardId) -> None:
        """No longer list a shard."""
        del self._shards[stream.arn][shard_id]

    def expire_iterators(self) -> None:
        """Let every iterator that was handed out expire."""
        self._cursors.clear()

    # -- the port --------------------------------------------------------------------------------------------------

    async def current(self, table: TableName) -> StreamRef:
        """The table's present stream."""
        async with self.faults.around("DescribeTable"):
            if table not in self._current:
                raise WorldMismatch(f"Table {table} has no stream.", advice="Enable one.")
            return self._current[table]

    async def shards(self, stream: StreamRef) -> list[Shard]:
        """Every shard that is listed now."""
        async with self.faults.around("DescribeStream"):
            if stream.arn not in self._shards:
                raise ShardGone(f"The stream of {stream.table} is gone.")
            return [
                Shard(shard_id, held.shard.parent, closed=held.closed)
                for shard_id, held in self._shards[stream.arn].items()
            ]

    async def iterator(self, stream: StreamRef, shard_id: ShardId, position: Position) -> str:
        """An iterator right behind a position."""
        async with self.faults.around("GetShardIterator"):
            assert position != END, "nothing is read behind the end of a shard"
            shard = self._held(stream.arn, shard_id)
            if position.sequence is None:
                return self._issue(_Cursor(stream.arn, shard_id, shard.trimmed))
            if int(position.sequence) <= shard.trimmed_below:
                raise RecordsTrimmed(f"Records of shard {shard_id} behind {position.text} left the retention.")
            behind = sum(1 for record in shard.records if position.covers(record.number))
            return self._issue(_Cursor(stream.arn, shard_id, behind))

    async def read(self, iterator: str, limit: int) -> RecordPage:
        """The next page of a shard."""
        async with self.faults.around("GetRecords"):
            cursor = self._cursors.get(iterator)
            if cursor is None:
                raise IteratorExpired(f"The iterator {iterator} has expired.")
            shard = self._held(cursor.arn, cursor.shard_id)
            if cursor.index < shard.trimmed:
                raise RecordsTrimmed(f"The next records of shard {cursor.shard_id} left the retention.")
            if self.empty_pages:
                self.empty_pages -= 1
                return RecordPage((), self._issue(cursor))
            until = min(cursor.index + limit, len(shard.records))
            records = tuple(shard.records[cursor.index : until])
            if shard.closed and until == len(shard.records):
                return RecordPage(records, None)
            return RecordPage(records, self._issue(_Cursor(cursor.arn, cursor.shard_id, until)))

    def _held(self, arn: str, shard_id: ShardId) -> _Shard:
        shard = self._shards.get(arn, {}).get(shard_id)
        if shard is None:
            raise ShardGone(f"Shard {shard_id} is gone.")
        return shard

    def _issue(self, cursor: _Cursor) -> str:
        self._issued += 1
        iterator = f"{cursor.shard_id}/{cursor.index}/{self._issued}"
        self._cursors[iterator] = cursor
        return iterator
