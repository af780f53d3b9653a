"""The streams of one region in memory: a scripted graph of shards.

Invariant: a shard's records keep the order in which they were appended, an open shard never ends, and a closed one
shows its end only with or behind its last record. Trimming and expiry answer as DynamoDB Streams does. Listings may
lie, be late and come in pages, as the script says; reading never does.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from replicator.domain.errors import IteratorExpired, RecordsTrimmed, ShardGone, StreamUnusable
from replicator.domain.identifiers import SequenceNumber, ShardId, TableName
from replicator.domain.progress import END, Position
from replicator.domain.records import ChangeRecord, StreamRecord, UnreadRecord
from replicator.domain.shards.leases import StreamRef
from replicator.domain.shards.lineage import Shard
from replicator.laboratory.memory.faults import Faults
from replicator.ports.sources import RecordPage, ShardPage


@dataclass(slots=True)
class _Shard:
    shard_id: ShardId
    parents: tuple[ShardId, ...]
    first: SequenceNumber | None
    place: int
    """Its place in listings: shards come in the order in which they were added."""
    records: list[ChangeRecord] = field(default_factory=list)
    damaged: dict[str, str] = field(default_factory=dict)
    """Records, by sequence number, that come so that no reader understands them, and why."""
    closed: bool = False
    hidden: bool = False
    """Not listed yet, though it can be read."""
    as_listed: Shard | None = None
    """What listings say of it instead of the truth."""
    trimmed: int = 0
    """How many of its records, from the first on, are gone."""
    trimmed_below: int = 0
    """Positions up to the record with this sequence number lie in the part that is gone."""

    def listed(self) -> Shard:
        """What a listing says of it. Its first record, once there is one, shows where it starts."""
        first = self.first or (self.records[0].sequence if self.records else None)
        return self.as_listed or Shard(self.shard_id, self.parents, closed=self.closed, first=first)

    def told_record(self, record: ChangeRecord) -> StreamRecord:
        """A record as it comes."""
        why = self.damaged.get(record.sequence)
        return record if why is None else UnreadRecord(record.sequence, b'{"%b"}' % record.sequence.encode(), why)


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
        self.shards_per_page = 100
        """How many shards a page of a listing holds at most."""
        self.filters_children = True
        """Whether children can be asked for; some endpoints cannot filter."""
        self.describes = 0
        """How many DescribeStream calls were made: pages and questions for children."""
        self.is_kinesis = False
        self.kept: float | None = None
        """How long records are kept, in seconds; None: a day."""
        """Whether these are streams of Kinesis, and no tables' own."""
        self.without_images: set[str] = set()
        """ARNs of streams whose records show too little."""
        self._current: dict[TableName, StreamRef] = {}
        self._known: dict[str, StreamRef] = {}
        self._shards: dict[str, dict[ShardId, _Shard]] = {}
        self._places: dict[tuple[str, ShardId], int] = {}
        self._cursors: dict[str, _Cursor] = {}
        self._issued = 0

    # -- the script ------------------------------------------------------------------------------------------------

    def enable(self, stream: StreamRef) -> None:
        """Make this the table's present stream; an earlier one stays readable."""
        self._current[stream.table] = stream
        self._known[stream.arn] = stream
        self._shards.setdefault(stream.arn, {})

    def disable(self, table: TableName) -> None:
        """Leave the table without a stream that can be used."""
        del self._current[table]

    def drop(self, stream: StreamRef) -> None:
        """Forget a stream with all its shards."""
        del self._shards[stream.arn], self._known[stream.arn]

    def add_shard(
        self, stream: StreamRef, shard_id: ShardId, *parents: ShardId, first: SequenceNumber | None = None
    ) -> None:
        """List a new, open shard. `first`: its starting sequence number; without it, that of its first record."""
        place = self._places.setdefault((stream.arn, shard_id), len(self._places))
        self._shards[stream.arn][shard_id] = _Shard(shard_id, parents, first, place)

    def split(self, stream: StreamRef, shard_id: ShardId, *children: ShardId) -> None:
        """Close a shard and list its children: one for a roll, two for a split."""
        self.close(stream, shard_id)
        for child in children:
            self.add_shard(stream, child, shard_id)

    def merge(self, stream: StreamRef, parents: Sequence[ShardId], child: ShardId) -> None:
        """Close some shards and list their common child."""
        for parent in parents:
            self.close(stream, parent)
        self.add_shard(stream, child, *parents)

    def hide(self, stream: StreamRef, *shards: ShardId) -> None:
        """Leave shards out of listings until they are revealed: they are listed late."""
        for shard_id in shards:
            self._shards[stream.arn][shard_id].hidden = True

    def reveal(self, stream: StreamRef, *shards: ShardId) -> None:
        """List what was hidden."""
        for shard_id in shards:
            self._shards[stream.arn][shard_id].hidden = False

    def misreport(self, stream: StreamRef, shard: Shard) -> None:
        """Let listings say this of a shard, whatever is true: an open parent with a child, a child without a parent."""
        self._shards[stream.arn][shard.shard_id].as_listed = shard

    def correct(self, stream: StreamRef, *shards: ShardId) -> None:
        """Let listings say the truth again."""
        for shard_id in shards:
            self._shards[stream.arn][shard_id].as_listed = None

    def append(self, stream: StreamRef, shard_id: ShardId, records: Iterable[ChangeRecord]) -> None:
        """Write records behind the shard's last one."""
        shard = self._shards[stream.arn][shard_id]
        if shard.closed:
            raise ValueError(f"shard {shard_id} is closed, so nothing can be written to it")
        shard.records.extend(records)

    def damage(self, stream: StreamRef, shard_id: ShardId, sequence: int, why: str) -> None:
        """Let a record come so that no reader understands it."""
        self._shards[stream.arn][shard_id].damaged[str(sequence)] = why

    def mend(self, stream: StreamRef, shard_id: ShardId) -> None:
        """Let every record of a shard come as it was written."""
        self._shards[stream.arn][shard_id].damaged.clear()

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
                raise StreamUnusable(f"Table {table} has no stream.", advice="Enable one.")
            if self._current[table].arn in self.without_images:
                raise StreamUnusable(f"The stream of table {table} shows too little.")
            return self._current[table]

    async def streams(self, table: TableName) -> list[StreamRef]:
        """Every stream of a table that was not dropped, oldest first; the present one is the last."""
        async with self.faults.around("ListStreams"):
            found = [stream for stream in self._known.values() if stream.table == table]
            return sorted(found, key=lambda stream: (stream == self._current.get(table), stream.generation))

    def reads(self, stream: StreamRef) -> bool:
        """Whether a stream is one of this kind."""
        return bool(stream.kinesis) == self.is_kinesis

    def kept_seconds(self, stream: StreamRef) -> float | None:
        """As a test says."""
        del stream
        return self.kept

    async def shows_images(self, stream: StreamRef) -> bool:
        """Whether a stream is there and shows images."""
        async with self.faults.around("DescribeStream"):
            return stream.arn in self._known and stream.arn not in self.without_images

    async def shard_page(self, stream: StreamRef, after: ShardId | None) -> ShardPage:
        """One page of what is listed now, in the order in which the shards came to be."""
        self.describes += 1
        async with self.faults.around("DescribeStream"):
            place = -1 if after is None else self._places.get((stream.arn, after), -1)
            listed = [shard.listed() for shard in self._listing(stream) if shard.place > place]
            page = tuple(listed[: self.shards_per_page])
            return ShardPage(page, page[-1].shard_id if len(listed) > len(page) else None)

    async def children(self, stream: StreamRef, parent: ShardId) -> list[Shard] | None:
        """What is listed as a child of a shard; None when the script forbids to ask."""
        self.describes += 1
        async with self.faults.around("DescribeStream"):
            listed = [shard.listed() for shard in self._listing(stream)]
            return [shard for shard in listed if parent in shard.parents] if self.filters_children else None

    async def iterator(
        self, stream: StreamRef, shard_id: ShardId, position: Position, first: SequenceNumber | None = None
    ) -> str:
        """An iterator right behind a position."""
        async with self.faults.around("GetShardIterator"):
            assert position != END, "nothing is read behind the end of a shard"
            shard = self._held(stream.arn, shard_id)
            if position.sequence is None:
                if first is not None and int(first) <= shard.trimmed_below:
                    raise RecordsTrimmed(f"The first records of shard {shard_id} left the retention.")
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
            records = tuple(map(shard.told_record, shard.records[cursor.index : until]))
            if shard.closed and until == len(shard.records):
                return RecordPage(records, None)
            return RecordPage(records, self._issue(_Cursor(cursor.arn, cursor.shard_id, until)))

    def _listing(self, stream: StreamRef) -> list[_Shard]:
        if stream.arn not in self._shards:
            raise ShardGone(f"The stream of {stream.table} is gone.")
        shown = (shard for shard in self._shards[stream.arn].values() if not shard.hidden)
        return sorted(shown, key=lambda shard: shard.place)

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
