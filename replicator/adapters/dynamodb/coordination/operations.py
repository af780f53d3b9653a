"""What operators do to rows, beside living workers or when all are stopped; used by operations only.

Invariant: every write is conditional on what was seen. A shard's progress changes in one write that raises the epoch
and removes the owner, so the worker that read the shard is fenced and the shard is claimed anew.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from msgspec import Struct

from replicator.adapters.dynamodb.coordination.changes import Change, number, schema, seconds, text
from replicator.adapters.dynamodb.coordination.names import (
    DRIVEN_BY,
    DRIVEN_SINCE,
    FORMERLY,
    REPAIRED_BY,
    checkpoint,
    key,
    rewind,
    through,
)
from replicator.adapters.dynamodb.coordination.rows import rewind_text
from replicator.domain.drivers import Drivers
from replicator.domain.errors import Throttled
from replicator.domain.gaps import Gap
from replicator.domain.identifiers import RegionId, RuleName, ShardId
from replicator.domain.progress import Position
from replicator.domain.shards.leases import LeaseRow, Rewind, StreamRef
from replicator.domain.targets import TargetId

if TYPE_CHECKING:
    from replicator.adapters.dynamodb.coordination.table import CoordinationTable


class StoredGap(Struct, frozen=True):
    """A loss interval, and its acknowledgement: seconds since 1970, a name, a note; None and empty while it is open.

    `grown_at`: when it was last found to end elsewhere than it did at first.
    """

    gap: Gap
    acknowledged_at: float | None = None
    acknowledged_by: str = ""
    note: str = ""
    grown_at: float | None = None
    job: str | None = None
    """The job that repairs it, or has."""


class Pause(Struct, frozen=True):
    """A rule that is paused: since when, in seconds since 1970, and why."""

    rule: RuleName
    paused_at: float
    note: str = ""
    region: RegionId | None = None
    """Where it rests; None: everywhere."""


class Operations:
    """Changes by hand. Each returns whether it happened: False says that the row changed meanwhile, or is not there."""

    def __init__(self, table: CoordinationTable) -> None:
        self._table = table
        self._names, self._reader = table.names, table.reader

    # -- shards ----------------------------------------------------------------------------------------------------

    async def rewind(
        self,
        stream: StreamRef,
        seen: LeaseRow,
        positions: Mapping[TargetId, Position | None],
        rewinds: Mapping[TargetId, Rewind],
    ) -> bool:
        """Move targets to positions (None: as if they had never read the shard) and take it from its owner.

        `rewinds` says what they skip from there on; what a target that is moved skipped before is forgotten.
        """
        clock = await self._table.time()
        moved = {checkpoint(target_id): position for target_id, position in positions.items()}
        change = Change(
            sets={
                "epoch": number(seen.epoch + 1),
                **({} if seen.owner is None else {"seized_at": seconds(clock.latest())}),
                **{name: text(position.text) for name, position in moved.items() if position is not None},
                **{rewind(target_id): text(rewind_text(skips)) for target_id, skips in rewinds.items()},
            },
            removes=[
                "owner",
                *(name for name, position in moved.items() if position is None),
                *map(through, positions),
                *(rewind(target_id) for target_id in positions if target_id not in rewinds),
            ],
            when={"epoch": number(seen.epoch), "owner": None if seen.owner is None else text(seen.owner)},
        )
        return await self._table.update(self._names.shard_key(stream, seen.shard_id), change) is not None

    async def row(self, stream: StreamRef, shard_id: ShardId) -> LeaseRow | None:
        """A shard's row as it is now; None when there is none."""
        row, _ = await self._table.get(self._names.shard_key(stream, shard_id))
        return self._reader.lease_row(row) if row else None

    # -- rules -----------------------------------------------------------------------------------------------------

    async def pause(self, rule: RuleName, *, now: float, note: str = "") -> bool:
        """Pause a rule everywhere; False when it was paused already."""
        change = Change(
            sets={"paused_at": seconds(now), "note": text(note), "sv": schema()},
            when={"paused_at": None},
        )
        return await self._table.update(key(self._names.rules, rule), change) is not None

    async def resume(self, rule: RuleName) -> bool:
        """Let a rule go on; False when it was not paused."""
        place, paused = key(self._names.rules, rule), ("paused_at",)
        if await self._table.delete(place, {FORMERLY: None, DRIVEN_BY: None}, paused):
            return True
        return await self._table.update(place, Change(removes=("paused_at", "note"), present=paused)) is not None

    async def drive(self, rule: RuleName, by: Drivers) -> bool:
        """Let functions or pods drive a rule from now on; False when they do already."""
        place = key(self._names.rules, rule)
        row, date = await self._table.get(place)
        seen = row.get(DRIVEN_BY)
        if by == (Drivers.PODS if seen is None else self._reader.text(row, DRIVEN_BY)):
            return False
        now = number(int(self._table.seconds_of(date)))
        change = Change(sets={DRIVEN_BY: text(by), DRIVEN_SINCE: now, "sv": schema()}, when={DRIVEN_BY: seen})
        if await self._table.update(place, change) is None:
            raise Throttled(f"What drives rule {rule} was changed at the same time.")
        return True

    async def pauses(self) -> list[Pause]:
        """Every rule that is paused, by name."""
        return [
            Pause(
                RuleName(self._reader.text(row, "sk")),
                self._reader.seconds(row, "paused_at"),
                self._reader.text(row, "note") if "note" in row else "",
            )
            for row in await self._table.query(self._names.rules)
            if "paused_at" in row
        ]

    async def pause_region(self, rule: RuleName, region: RegionId, *, now: float, note: str = "") -> bool:
        """Let a rule rest in one region; False when it did already."""
        change = Change(
            sets={"paused_at": seconds(now), "note": text(note), "sv": schema()},
            when={"paused_at": None},
        )
        return await self._table.update(key(self._names.regions, f"{rule}|{region}"), change) is not None

    async def resume_region(self, rule: RuleName, region: RegionId) -> bool:
        """Let a rule go on in a region; False when it did not rest there."""
        return await self._table.delete(key(self._names.regions, f"{rule}|{region}"), present=("paused_at",))

    async def region_pauses(self) -> list[Pause]:
        """Every rule that rests in a region, by rule and region."""
        found = []
        for row in await self._table.query(self._names.regions):
            rule, region = self._reader.rule_and_region(row)
            note = self._reader.text(row, "note") if "note" in row else ""
            found.append(Pause(rule, self._reader.seconds(row, "paused_at"), note, region))
        return found

    # -- gaps ------------------------------------------------------------------------------------------------------

    async def gaps(self) -> list[StoredGap]:
        """Every loss interval, oldest first."""
        found = []
        for row in await self._table.query(self._names.gaps):
            if "|" in self._reader.text(row, "sk"):
                continue  # written before gaps had ids; what still stops a target was noted again
            accepted, grown = (
                self._reader.seconds(row, name) if name in row else None for name in ("acknowledged_at", "grown_at")
            )
            by, note = (self._reader.text(row, name) if name in row else "" for name in ("acknowledged_by", "note"))
            job = self._reader.text(row, REPAIRED_BY) if REPAIRED_BY in row else None
            found.append(StoredGap(self._reader.gap(row), accepted, by, note, grown, job))
        return sorted(found, key=lambda stored: (stored.gap.found_at, stored.gap.gap_id))

    async def acknowledge(self, seen: Gap, *, now: float, by: str, note: str = "") -> bool:
        """Accept a loss as it was seen: its target goes on behind it.

        False when there is no such gap, when it was accepted before, or when it has grown since it was seen.
        """
        until = None if seen.until is None else text(seen.until.text)
        change = Change(
            sets={"acknowledged_at": seconds(now), "acknowledged_by": text(by), "note": text(note)},
            when={"acknowledged_at": None, "until": until},
            present=("found_at",),
        )
        return await self._table.update(key(self._names.gaps, seen.gap_id), change) is not None
