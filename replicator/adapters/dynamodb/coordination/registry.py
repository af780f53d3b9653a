"""Streams, starts and gaps in the coordination table.

Invariant: a start and a gap are stored once, an acknowledgement is of the gap as it was shown; a rule that is through
with a stream stays so.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from replicator.adapters.dynamodb.coordination.changes import Change, number, schema, seconds, text
from replicator.adapters.dynamodb.coordination.names import DRAINED_FOR, MEMBERS, REPAIRED_BY, TARGET, key
from replicator.domain.errors import Throttled
from replicator.domain.gaps import Gap, OpenGap
from replicator.domain.identifiers import RegionId, RuleName, TableName
from replicator.domain.rules import Target
from replicator.domain.shards.leases import KnownStream, StreamRef, TargetStart
from replicator.domain.targets import TargetId
from replicator.domain.values import replace

if TYPE_CHECKING:
    from collections.abc import Collection

    from replicator.adapters.dynamodb.coordination.changes import Value
    from replicator.adapters.dynamodb.coordination.table import CoordinationTable

_TRIES = 5
"""A row that changes between each look at it and the write after it is given up for now."""


class DynamoRegistry:
    """What is known about streams beside their shards."""

    def __init__(self, table: CoordinationTable) -> None:
        self._table = table
        self._names, self._reader = table.names, table.reader

    async def starts(self, stream: StreamRef) -> dict[TargetId, TargetStart]:
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
        members: dict[str, Value] = {MEMBERS: {"SS": sorted(target.parts)}} if target.members else {}
        stored = await self._table.update(
            place, Change(sets={"sv": schema(), **members}, defaults={"started_at": number(started)})
        )
        assert stored is not None, "an update without a condition is never refused"
        return self._reader.target_start(stored)

    async def note_shape(self, stream: StreamRef, target: Target, shape: str) -> bool:
        """Store the digest of a target's filter, transform and templates, and when it last became another one.

        Returns whether another one was stored before.
        """
        place = self._names.target_key(stream, target.target_id)
        row, date = await self._table.get(place)
        changed = "shape" in row and self._reader.text(row, "shape") != shape
        at = {"shaped_at": number(int(self._table.seconds_of(date)))} if changed else {}
        if changed or "shape" not in row:
            await self._table.update(place, Change(sets={"shape": text(shape), "sv": schema(), **at}))
        return changed

    async def shape(self, stream: StreamRef, target: Target) -> tuple[str, float | None] | None:
        """The stored digest of a target, and when it last became another one; None when none is stored."""
        row, _ = await self._table.get(self._names.target_key(stream, target.target_id))
        if "shape" not in row:
            return None
        return self._reader.text(row, "shape"), self._reader.seconds(row, "shaped_at") if "shaped_at" in row else None

    async def record_gap(self, gap: Gap) -> None:
        """Store a loss interval; of the same gap the first finding stays, but for where it ends.

        Where it ends elsewhere it is accepted no more, by the same write: an acknowledgement is of what was shown.
        """
        until = None if gap.until is None else text(gap.until.text)
        first = Change(
            sets={
                "stream": text(gap.stream.arn),
                "region": text(gap.stream.region),
                "table": text(gap.stream.table),
                "generation": number(gap.stream.generation),
                "shard": text(gap.shard_id),
                "target": text(gap.target_id.text),
                "after": text(gap.after.text),
                **({} if until is None else {"until": until}),
                "why": text(gap.why),
                "found_at": seconds(gap.found_at),
                "sv": schema(),
            },
            when={"found_at": None},
        )
        place = key(self._names.gaps, gap.gap_id)
        change = first
        for _ in range(_TRIES):
            if await self._table.update(place, change) is not None:
                return
            row, _ = await self._table.get(place)
            if "found_at" in row and row.get("until") == until:
                return
            change = self._grown(gap, row.get("until")) if "found_at" in row else first
        raise Throttled(f"Gap {gap.gap_id} is written by others all the time.")

    def _grown(self, gap: Gap, seen: Value | None) -> Change:
        """What a known gap changes by when it ends elsewhere than at `seen`."""
        return Change(
            sets={"grown_at": seconds(gap.found_at), **({} if gap.until is None else {"until": text(gap.until.text)})},
            removes=[
                "acknowledged_at",
                "acknowledged_by",
                "note",
                REPAIRED_BY,
                *(["until"] if gap.until is None else []),
            ],
            when={"until": seen},
            present=("found_at",),
        )

    async def former_names(self, rule: RuleName) -> frozenset[RuleName]:
        """The names that a rule had before."""
        row, _ = await self._table.get(key(self._names.rules, rule))
        return self._reader.former_names(row)

    async def carry_gaps_over(self, stream: StreamRef, former: TargetId, target_id: TargetId) -> None:
        """Let a target's losses on a stream, accepted or not, be another one's, too; quiet when they are."""
        for row in await self._table.query(self._names.gaps):
            if "target" not in row or self._reader.text(row, "target") != former.text:
                continue
            gap = self._reader.gap(row)
            if gap.stream.region == stream.region and gap.stream.arn == stream.arn:
                copy = {name: value for name, value in row.items() if name not in {"pk", "sk"}}
                place = key(self._names.gaps, replace(gap, target_id=target_id).gap_id)
                change = Change(sets={**copy, "target": text(target_id.text)}, when={"found_at": None})
                await self._table.update(place, change)

    async def acknowledged(self, gap: Gap) -> bool:
        """Whether an operator accepted the loss as it is."""
        row, _ = await self._table.get(key(self._names.gaps, gap.gap_id))
        until = None if gap.until is None else text(gap.until.text)
        return "acknowledged_at" in row and row.get("until") == until

    async def open_gaps(self) -> list[OpenGap]:
        """Every loss interval of the group that is neither accepted nor repaired, oldest first."""
        rows = await self._table.query(self._names.gaps)
        found = [self._reader.open_gap(row) for row in rows if "acknowledged_at" not in row and "found_at" in row]
        return sorted(found, key=lambda each: (each.gap.found_at, each.gap.gap_id))

    async def note_resync(self, gap: Gap, job_id: str) -> None:
        """Note which job repairs a loss; quiet when it is not open any more."""
        change = Change(sets={REPAIRED_BY: text(job_id)}, when={"acknowledged_at": None}, present=("found_at",))
        await self._table.update(key(self._names.gaps, gap.gap_id), change)

    async def close_gap(self, gap: Gap, job_id: str, at: float) -> bool:
        """Close a loss as it was seen, because a job has repaired it."""
        until = None if gap.until is None else text(gap.until.text)
        change = Change(
            sets={"acknowledged_at": seconds(at), "acknowledged_by": text(f"job {job_id}"), REPAIRED_BY: text(job_id)},
            when={"acknowledged_at": None, "until": until},
            present=("found_at",),
        )
        return await self._table.update(key(self._names.gaps, gap.gap_id), change) is not None

    async def streams(self, region: RegionId, table: TableName) -> list[KnownStream]:
        """Streams of this table that were read before, oldest first."""
        found = await self._table.query(self._names.streams, f"{region}|{table}|")
        return [self._reader.known_stream(row) for row in found]

    async def remember_stream(
        self, stream: StreamRef, drained: Collection[TargetId] = (), *, kept_seconds: float | None = None
    ) -> None:
        """Note that a stream is being read, who is through with it, how long it keeps records; what is noted stays."""
        through = sorted(target_id.text for target_id in drained)
        kept = {} if kept_seconds is None else {"kept_seconds": seconds(kept_seconds)}
        change = Change(sets={"arn": text(stream.arn), "sv": schema(), **kept}, merges={DRAINED_FOR: through})
        await self._table.update(self._names.stream_key(stream), change)
