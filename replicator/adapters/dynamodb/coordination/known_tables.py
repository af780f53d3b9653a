"""Which tables rules have written: the id that DynamoDB gave each of them, so that one that is created anew is noticed.

Invariant: what is noted first stays until an operator accepts another table in its place, and that is of the row as it
was seen.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct

from replicator.adapters.dynamodb.coordination.changes import Change, schema, seconds, text
from replicator.adapters.dynamodb.coordination.names import key
from replicator.domain.identifiers import RegionId, RuleName, TableName

if TYPE_CHECKING:
    from replicator.adapters.dynamodb.coordination.changes import Value
    from replicator.adapters.dynamodb.coordination.table import CoordinationTable

_ID = "table_id"


class KnownTable(Struct, frozen=True):
    """A table that a rule writes, and the id that it had when it was first written."""

    rule: RuleName
    region: RegionId
    table: TableName
    table_id: str

    @property
    def sort(self) -> str:
        """The sort key of its row."""
        return f"{self.rule}|{self.region}|{self.table}"


class KnownTables:
    """The rows of a group's tables."""

    def __init__(self, table: CoordinationTable) -> None:
        self._table = table
        self._partition = table.names.tables

    async def note(self, seen: KnownTable, now: float) -> str:
        """Note a table's id unless one is noted; returns the one that stands."""
        place = key(self._partition, seen.sort)
        row, _ = await self._table.get(place)
        if _ID not in row:
            defaults = {_ID: text(seen.table_id), "noted_at": seconds(now)}
            row = await self._table.update(place, Change(sets={"sv": schema()}, defaults=defaults)) or {}
        return self._table.reader.text(row, _ID)

    async def known(self, rule: RuleName, region: RegionId, table: TableName) -> str | None:
        """The id that is noted; None when none is."""
        row, _ = await self._table.get(key(self._partition, f"{rule}|{region}|{table}"))
        return self._table.reader.text(row, _ID) if _ID in row else None

    async def of_rule(self, rule: RuleName) -> list[tuple[RegionId, TableName]]:
        """Every table that a rule ever wrote."""
        sorts = [self._table.reader.text(row, "sk") for row in await self._table.query(self._partition, f"{rule}|")]
        parts = [sort.split("|") for sort in sorts]
        return [(RegionId(region), TableName(table)) for _, region, table in parts]

    async def accept(self, known: KnownTable, table_id: str, *, now: float, by: str) -> bool:
        """Let another table stand in the place of the one that is known; False when that is another one by now."""
        change = Change(
            sets={_ID: text(table_id), "accepted_at": seconds(now), "accepted_by": text(by), "sv": schema()},
            merges={"former": [known.table_id]},
            when={_ID: text(known.table_id)},
        )
        return await self._table.update(key(self._partition, known.sort), change) is not None

    async def hand_over(self, old: RuleName, new: RuleName | None) -> int:
        """Move the rows of a rule to its new name, or delete them when it has none; returns how many there were."""
        rows = await self._table.query(self._partition, f"{old}|")
        for row in rows:
            sort = self._table.reader.text(row, "sk")
            if new is not None:
                kept: dict[str, Value] = {name: value for name, value in row.items() if name not in {"pk", "sk"}}
                await self._table.update(key(self._partition, f"{new}|{sort.partition('|')[2]}"), Change(defaults=kept))
            await self._table.delete(key(self._partition, sort))
        return len(rows)
