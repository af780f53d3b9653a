"""Rows of what targets refused, as they are read and shown."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from replicator.adapters.dynamodb.owed_keys import DynamoOwedKeys, owed_keys
from replicator.domain.errors import ReplicatorError, TableMissing
from replicator.domain.owed_keys import SHOWN_ROW_ID, BodyState, OwedFor, OwedKey, SettledKey, Settlement
from replicator.domain.records import Event
from replicator.domain.values import replace
from replicator.operations.errors import NotThere, RequestRefused
from replicator.operations.times import moment

if TYPE_CHECKING:
    from replicator.domain.identifiers import RuleName, SequenceNumber, ShardId
    from replicator.domain.targets import TargetId
    from replicator.operations.group import Group
    from replicator.settings import Settings

_LEAST_OF_ID = 4
_Row = TypeVar("_Row")

Silent = dict[str, ReplicatorError]
"""What keeps the owed tables of regions from answering."""


@dataclass(frozen=True, slots=True)
class ParkedRow:
    """A key that a target is owed, or a record that cannot be read (`key` None); and how it was settled, if it was.

    `region`: of the source, where the row is. `change`: put, remove or record. `body`: what is kept of the change.
    """

    row: str
    rule: RuleName
    target: TargetId
    region: str
    table: str
    key: Mapping[str, Any] | None
    shown: str
    owed_for: OwedFor
    change: str
    version: str
    why: str
    size: int | None
    body: BodyState
    shard: ShardId
    sequence: SequenceNumber
    changed_at: datetime | None
    first: datetime | None
    last: datetime | None
    tries: int
    by: str
    settled: Settlement | None = None
    settled_at: datetime | None = None
    settled_by: str = ""

    @property
    def is_open(self) -> bool:
        """Whether it is owed still."""
        return self.settled is None


@dataclass(frozen=True, slots=True)
class Parked:
    """An open row as it was read, and where."""

    region: str
    owed: OwedKey

    @property
    def row(self) -> ParkedRow:
        """As it is shown."""
        return _row(self.region, self.owed)


def regions_of(settings: Settings) -> set[str]:
    """Regions that may hold rows: those of sources."""
    return {region for rule in settings.rules for region in rule.regions_read}


def tables_of(group: Group) -> dict[str, DynamoOwedKeys]:
    """The owed tables of a group by region; the group has clients of them. Who writes there waits for its time."""
    return {
        region: owed_keys(group.places[region], group.settings, group.table.clock)
        for region in sorted(regions_of(group.settings))
    }


async def open_rows(group: Group, rule: str | None = None, silent: Silent | None = None) -> list[Parked]:
    """Every open row of what was refused, of a rule if one is named, oldest first.

    `silent`: gets what keeps a region's table from answering; without it that is raised.
    """
    needed = {region for each in group.settings.rules for region in each.owed_regions}

    async def of(region: str, rows: DynamoOwedKeys) -> list[Parked]:
        try:
            return [each async for each in _open(region, rows, rule)]
        except TableMissing:
            if region in needed:
                raise
            return []

    return sorted(await _of_regions(group, of, silent), key=lambda each: each.owed.first)


async def _open(region: str, rows: DynamoOwedKeys, rule: str | None) -> AsyncIterator[Parked]:
    for to in await rows.targets():
        after: str | None = None
        while rule in {None, to.target_id.rule} and to.owed_for is OwedFor.REFUSED:
            page = await rows.page(to, after)
            for owed in page.rows:
                yield Parked(region, owed)
            after = page.after
            if after is None:
                break


async def list_parked(
    group: Group, rule: str | None = None, *, everything: bool = False, silent: Silent | None = None
) -> list[ParkedRow]:
    """What targets are owed, oldest first; then, when everything is asked for, what was settled and is kept still."""
    listed = [each.row for each in await open_rows(group, rule, silent)]
    if everything:

        async def of(region: str, rows: DynamoOwedKeys) -> list[ParkedRow]:
            return [each async for each in _settled(region, rows, rule)]

        settled = await _of_regions(group, of, silent)
        listed += sorted(settled, key=lambda row: (row.settled_at is None, row.settled_at))
    return listed


async def _settled(region: str, rows: DynamoOwedKeys, rule: str | None) -> AsyncIterator[ParkedRow]:
    for to in await rows.targets():
        after: str | None = None
        while rule in {None, to.target_id.rule}:
            found, after = await rows.settled(to, after)
            for settled in found:
                yield _settled_row(region, settled)
            if after is None:
                break


async def _of_regions(
    group: Group, of: Callable[[str, DynamoOwedKeys], Awaitable[list[_Row]]], silent: Silent | None
) -> list[_Row]:
    """What every region's table holds, asked at the same time: one that is away keeps the others from nothing."""

    async def one(region: str, rows: DynamoOwedKeys) -> list[_Row]:
        try:
            return await of(region, rows)
        except ReplicatorError as error:
            if silent is None:
                raise
            silent.setdefault(region, error)
            return []

    found = await asyncio.gather(*(one(region, rows) for region, rows in tables_of(group).items()))
    return [row for rows in found for row in rows]


async def parked_named(group: Group, row: str) -> Parked:
    """The open row whose id begins so."""
    silent: Silent = {}
    found = await open_rows(group, silent=silent)
    rows = [each for each in found if len(row) >= _LEAST_OF_ID and each.owed.row_id.startswith(row)]
    if len(rows) > 1:
        raise RequestRefused(f"{len(rows)} parked keys have an id that begins with {row}.", advice="Write more of it.")
    if not rows and silent:
        raise next(iter(silent.values()))
    if not rows:
        raise NotThere(
            f"There is no parked key {row}.",
            advice=f"`replicator parked list` shows ids; write at least {_LEAST_OF_ID} characters of one.",
        )
    return rows[0]


async def kept_body(group: Group, parked: Parked) -> bytes | None:
    """What is kept of a refused change: its image, or the record as it came."""
    return await tables_of(group)[parked.region].body(parked.owed)


def _row(region: str, owed: OwedKey) -> ParkedRow:
    return ParkedRow(
        row=owed.row_id[:SHOWN_ROW_ID],
        rule=owed.to.target_id.rule,
        target=owed.to.target_id,
        region=region,
        table=owed.to.table,
        key=None if owed.key is None else msgspec.json.decode(owed.key.wire),
        shown=owed.shown,
        owed_for=owed.owed_for,
        change="record" if owed.event is None else "remove" if owed.event is Event.REMOVE else "put",
        version=owed.version,
        why=owed.why,
        size=owed.size,
        body=owed.body,
        shard=owed.shard,
        sequence=owed.sequence,
        changed_at=moment(owed.changed_at),
        first=moment(owed.first),
        last=moment(owed.last),
        tries=owed.tries,
        by=owed.by,
    )


def _settled_row(region: str, settled: SettledKey) -> ParkedRow:
    row = _row(region, settled.owed)
    return replace(row, settled=settled.how, settled_at=moment(settled.at), settled_by=settled.by)
