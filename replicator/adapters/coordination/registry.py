"""Streams, starts and gaps in the coordination table.

Invariant: a start and a gap are stored once; a stream that is drained stays drained.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from replicator.adapters.coordination.changes import Change, flag, number, schema, seconds, text
from replicator.adapters.coordination.names import TARGET, key
from replicator.domain.records import RegionId, TableName
from replicator.domain.rules import Target
from replicator.ports import Gap, StreamRef, TargetStart

if TYPE_CHECKING:
    from replicator.adapters.coordination.table import CoordinationTable


class DynamoRegistry:
    """What is known about streams beside their shards."""

    def __init__(self, table: CoordinationTable) -> None:
        self._table = table
        self._names, self._reader = table.names, table.reader

    async def starts(self, stream: StreamRef) -> dict[str, TargetStart]:
        """Targets that ever started on this stream, by target id."""
        found = await self._table.query(self._names.stream(stream), TARGET)
        starts = (self._reader.target_start(row) for row in found if "started_at" in row)
        return {start.target_id: start for start in starts}

    async def start(self, stream: StreamRef, target: Target, *, started_at: float | None = None) -> TargetStart:
        """Store the start of a target (None: the server's time now) unless one is stored; returns what is stored."""
        place = self._names.target_key(stream, target.target_id)
        row, date = await self._table.get(place)
        if "started_at" in row:
            return self._reader.target_start(row)
        started = int(self._table.seconds_of(date) if started_at is None else started_at)
        stored = await self._table.update(
            place, Change(sets={"sv": schema()}, defaults={"started_at": number(started)})
        )
        assert stored is not None, "an update without a condition is never refused"
        return self._reader.target_start(stored)

    async def note_shape(self, stream: StreamRef, target: Target, shape: str) -> bool:
        """Store the digest of a target's filter and templates; returns whether another one was stored before."""
        row = await self._table.update(
            self._names.target_key(stream, target.target_id),
            Change(sets={"shape": text(shape), "sv": schema()}),
            returning="ALL_OLD",
        )
        return row is not None and "shape" in row and self._reader.text(row, "shape") != shape

    async def record_gap(self, gap: Gap) -> None:
        """Store a loss interval; the first finding of the same gap stays."""
        change = Change(
            sets={
                "stream": text(gap.stream.arn),
                "region": text(gap.stream.region),
                "table": text(gap.stream.table),
                "generation": number(gap.stream.generation),
                "shard": text(gap.shard_id),
                "target": text(gap.target_id),
                "after": text(gap.after.text),
                **({} if gap.until is None else {"until": text(gap.until.text)}),
                "why": text(gap.why),
                "found_at": seconds(gap.found_at),
                "sv": schema(),
            },
            when={"found_at": None},
        )
        await self._table.update(key(self._names.gaps, gap.gap_id), change)

    async def acknowledged(self, gap: Gap) -> bool:
        """Whether an operator accepted the loss."""
        row, _ = await self._table.get(key(self._names.gaps, gap.gap_id))
        return "acknowledged_at" in row

    async def streams(self, region: RegionId, table: TableName) -> list[StreamRef]:
        """Streams of this table that were read before and not yet drained, oldest first."""
        found = await self._table.query(self._names.streams, f"{region}|{table}|")
        return [self._reader.stream(row) for row in found if "drained" not in row]

    async def remember_stream(self, stream: StreamRef, *, drained: bool) -> None:
        """Note that a stream is being read, or that it was read to its end."""
        attributes = {"arn": text(stream.arn), "sv": schema(), **({"drained": flag()} if drained else {})}
        place = key(self._names.streams, f"{stream.region}|{stream.table}|{stream.generation:013d}")
        await self._table.update(place, Change(sets=attributes))
