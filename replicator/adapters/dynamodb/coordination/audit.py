"""What was done through the admin API, one row per deed: noted before it begins, and settled with its result.

Invariant: the newest `MOST_DEEDS` rows of a group are kept. A row that was never settled says that its deed began.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from replicator.adapters.dynamodb.coordination.changes import Change, schema, seconds, text
from replicator.adapters.dynamodb.coordination.names import key
from replicator.domain.audit import Deed, Result

if TYPE_CHECKING:
    from replicator.adapters.dynamodb.coordination.rows import Row
    from replicator.adapters.dynamodb.coordination.table import CoordinationTable

MOST_DEEDS = 1000
"""Deeds that are kept of a group."""

_TEXTS = ("who", "what", "command", "origin", "result", "reason")


class AuditRows:
    """The deeds of one group."""

    def __init__(self, table: CoordinationTable) -> None:
        self._table = table
        self._names, self._reader = table.names, table.reader

    async def note(self, deed: Deed) -> None:
        """Make it durable, as it is now: begun, or over."""
        sets = {name: text(getattr(deed, name)) for name in _TEXTS} | {"at": seconds(deed.at), "sv": schema()}
        await self._table.update(key(self._names.audit, deed.deed_id), Change(sets=sets))

    async def newest(self, limit: int) -> list[Deed]:
        """The newest deeds, the newest first."""
        rows = await self._table.query(self._names.audit, backwards=True)
        return [self._deed(row) for row in rows[:limit]]

    async def trim(self, most: int = MOST_DEEDS) -> None:
        """Delete all but the newest."""
        rows = await self._table.query(self._names.audit, backwards=True)
        for row in rows[most:]:
            await self._table.delete({name: row[name] for name in ("pk", "sk")})

    def _deed(self, row: Row) -> Deed:
        said = {name: self._reader.text(row, name) for name in _TEXTS if name != "result"}
        result = Result.named(self._reader.text(row, "result"))
        return Deed(self._reader.text(row, "sk"), at=self._reader.seconds(row, "at"), result=result, **said)
