"""Whether the tables that rules write are the ones that they wrote before; nothing is written."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import TYPE_CHECKING

from replicator.adapters.dynamodb.coordination import CoordinationTable, KnownTables
from replicator.checks.described_tables import describe
from replicator.checks.facts import Fact, failed, ok, warning
from replicator.domain.errors import ReplicatorError, TableReplaced
from replicator.domain.identifiers import RegionId, RuleName, TableName
from replicator.settings import OrderedRule

if TYPE_CHECKING:
    from replicator.adapters.aws.clients import Place
    from replicator.settings import Settings

_AT_ONCE = 16
_TAKEN_OVER = "With on_gap: resync the rule accepts it, and a repair copies what it lacks."


async def identity_facts(settings: Settings, places: Mapping[str, Place]) -> list[Fact]:
    """One fact per table that was written before; none where something is missing, which other facts report."""
    home = settings.coordination.region
    rows = CoordinationTable(
        places[home].dynamodb, table=settings.coordination.table, group=settings.group, region_id=home
    )
    known, slots = KnownTables(rows), asyncio.Semaphore(_AT_ONCE)

    async def fact(rule: str, region: str, table: str) -> Fact | None:
        try:
            async with slots:
                noted = await known.known(RuleName(rule), RegionId(region), TableName(table))
                now = "" if noted is None else (await describe(places[region], table)).table_id
        except ReplicatorError:
            return None
        subject = f"table {table} in {region}"
        if not now:
            return None
        if now == noted:
            return ok(subject, "same table")
        error = replaced(rule, region, table)
        return (
            warning(subject, "same table", error.message, _TAKEN_OVER)
            if rule in heals
            else failed(subject, "same table", error)
        )

    heals = {rule.name for rule in settings.rules if isinstance(rule, OrderedRule) and rule.on_gap == "resync"}
    written = [(rule.name, *place) for rule in settings.rules if rule.sources for place in rule.replica_tables]
    return [found for found in await asyncio.gather(*(fact(*each) for each in written)) if found is not None]


def replaced(rule: str, region: str, table: str) -> TableReplaced:
    """What to say of a table that is another one."""
    return TableReplaced(
        f"Table {table} in {region} is another one than the one that rule {rule} wrote: it was dropped and created"
        " again, and lacks what was written before.",
        advice=f"Copy what it lacks, or accept the loss, and run `replicator rules accept {rule} --region"
        f" {region} --table {table}`.",
    )
