"""Whether the tables that rules write are the ones that they wrote before.

A table that was dropped and created again has its name and none of its items. Written on, it would look like a replica
and be one of what changed since. Invariant: an id is compared before a rule writes the table for the first time in a
process, and again at every look.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import structlog

from replicator.adapters.dynamodb.coordination import KnownTable, KnownTables
from replicator.checks.identity_facts import replaced
from replicator.domain.errors import ReplicatorError
from replicator.domain.identifiers import RegionId, RuleName, TableName

if TYPE_CHECKING:
    from replicator.checks.described_tables import Table
    from replicator.ports.clock import Clock


class TableIdentities:
    """What this process knows of tables' ids."""

    def __init__(self, known: KnownTables, clock: Clock) -> None:
        self._known = known
        self._clock = clock
        self._seen: dict[tuple[str, str, str], str] = {}
        self._nameless: set[str] = set()

    async def trouble(self, rule: str, region: str, table: Table) -> ReplicatorError | None:
        """Why a table must not be written: it is another one. An endpoint without ids is reported once."""
        if not table.table_id:
            if region not in self._nameless:
                self._nameless.add(region)
                reason = "The endpoint tells no TableId, so a table that is created anew is not noticed."
                structlog.get_logger("replicator").warning("table_ids_unknown", region=region, reason=reason)
            return None
        place = (rule, region, table.name)
        if self._seen.get(place) != table.table_id:
            seen = KnownTable(RuleName(rule), RegionId(region), TableName(table.name), table.table_id)
            noted = await self._known.note(seen, self._clock.now())
            if noted != table.table_id:
                return replaced(rule, region, table.name)
            self._seen[place] = noted
        return None
