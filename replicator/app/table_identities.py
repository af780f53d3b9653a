"""Whether the tables that rules write are the ones that they wrote before.

A table that was dropped and created again has its name and none of its items. Written on, it would look like a replica
and be one of what changed since. Invariant: an id is compared before a rule writes the table for the first time in a
process, and again at every look; a table is taken over only when what it lacks is durable as a gap.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import structlog

from replicator.adapters.dynamodb.coordination import KnownTable, KnownTables
from replicator.checks.identity_facts import replaced
from replicator.domain.errors import ReplicatorError
from replicator.domain.gaps import EVERY_SHARD, Gap
from replicator.domain.identifiers import RegionId, RuleName, ShardId, TableName
from replicator.domain.progress import HORIZON

if TYPE_CHECKING:
    from replicator.checks.described_tables import Table
    from replicator.domain.shards.leases import StreamRef
    from replicator.domain.targets import TargetId
    from replicator.ports.clock import ServersTime


class Gaps(Protocol):
    """Where losses are stored."""

    async def record_gap(self, gap: Gap) -> None:
        """Store a loss interval; the same gap again changes nothing."""


class TableIdentities:
    """What this process knows of tables' ids."""

    def __init__(self, known: KnownTables, clock: ServersTime) -> None:
        self._known = known
        self._clock = clock
        self._seen: dict[tuple[str, str, str], str] = {}
        self._nameless: set[str] = set()

    async def trouble(self, rule: str, region: str, table: Table) -> ReplicatorError | None:
        """Why a table must not be written: it is another one. An endpoint without ids is reported once."""
        if not table.table_id:
            if region not in self._nameless:
                self._nameless.add(region)
                reason = "The endpoint returns no TableId, so a re-created table is not detected."
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

    async def take_over(self, gaps: Gaps, stream: StreamRef, target_id: TargetId, region: str, table: Table) -> None:
        """Let a table be the rule's in the place of the one before; what it lacks is a gap, which a repair closes.

        Repeated, or done by several workers at once, it is the same gap.
        """
        rule, why = target_id.rule, f"Table {table.name} in {region} was re-created, or restored from a backup."
        noted = await self._known.known(rule, RegionId(region), TableName(table.name))
        if noted in {None, table.table_id}:
            return
        shard = ShardId(f"{EVERY_SHARD}, for table {table.table_id}")
        await gaps.record_gap(Gap(stream, shard, target_id, HORIZON, None, self._clock.latest(), why))
        former = KnownTable(rule, RegionId(region), TableName(table.name), noted)
        if await self._known.accept(former, table.table_id, now=self._clock.now(), by="on_gap: resync"):
            log = structlog.get_logger("replicator")
            reason = f"{why} A repair copies what it lacks."
            log.warning("table_taken_over", rule=rule, region=region, table=table.name, reason=reason)
