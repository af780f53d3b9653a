"""What functions noted of the streams that they were given records of, per rule.

Invariant: notes of several processes add up; the oldest age that any of them met is never lost.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from replicator.adapters.dynamodb.coordination.changes import Change, schema, seconds
from replicator.adapters.dynamodb.coordination.names import key
from replicator.domain.driving import FunctionNote

if TYPE_CHECKING:
    from collections.abc import Mapping

    from replicator.adapters.dynamodb.coordination.changes import Value
    from replicator.adapters.dynamodb.coordination.table import CoordinationTable
    from replicator.domain.identifiers import RuleName
    from replicator.domain.shards.leases import StreamRef

_HOURS, _SEEN = "hours", "seen_at"


class FunctionNotes:
    """One row per rule and stream."""

    def __init__(self, table: CoordinationTable) -> None:
        self._table = table
        self._names, self._reader = table.names, table.reader

    async def note(self, rule: RuleName, stream: StreamRef, hours: int, *, seen_at: float | None) -> None:
        """Note that records so old came; `seen_at`: and that all of a batch is durable, as of now."""
        sets = {"sv": schema(), **({} if seen_at is None else {_SEEN: seconds(seen_at)})}
        change = Change(sets=sets, merges={_HOURS: [f"{hours:02}"]})
        await self._table.update(self._key(rule, stream), change)

    async def find(self, rule: RuleName, stream: StreamRef) -> FunctionNote | None:
        """What was noted since functions were handed the rule; None when no whole batch was durable."""
        row, _ = await self._table.get(self._key(rule, stream))
        if _SEEN not in row:
            return None
        hours = row.get(_HOURS, {}).get("SS", [])
        if not all(each.isascii() and each.isdecimal() for each in hours):
            raise self._reader.corrupt(row, _HOURS)
        return FunctionNote(self._reader.seconds(row, _SEEN), max(map(int, hours), default=0))

    async def forget(self, rule: RuleName) -> int:
        """Delete everything that was noted of a rule."""
        return await self.hand_over(rule, None)

    async def hand_over(self, old: RuleName, new: RuleName | None) -> int:
        """Add what was noted of a rule to what another name has, or forget it; returns how many rows changed."""
        changed = 0
        for row in await self._table.query(self._names.functions, f"{old}|"):
            if new is not None:
                place = self._reader.text(row, "sk").partition("|")[2]
                moved = {name: row[name] for name in ("sv", _SEEN) if name in row}
                change = Change(defaults=moved, merges={_HOURS: row.get(_HOURS, {}).get("SS", [])})
                await self._table.update(key(self._names.functions, f"{new}|{place}"), change)
            changed += await self._table.delete({name: row[name] for name in ("pk", "sk")})
        return changed

    def _key(self, rule: RuleName, stream: StreamRef) -> Mapping[str, Value]:
        return key(self._names.functions, f"{rule}|{stream.region}|{stream.arn}")
