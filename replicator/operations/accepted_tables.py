"""Accepting that a table which a rule writes is another one than before: created again, without what it held.

Invariant: only what stands there now is accepted, in the place of what was noted when it was looked at.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from replicator.adapters.dynamodb.coordination import KnownTable, KnownTables
from replicator.checks.described_tables import describe
from replicator.checks.table_choices import with_tables
from replicator.domain.identifiers import RegionId, RuleName, TableName
from replicator.operations.errors import RequestRefused
from replicator.operations.group import rule_named

if TYPE_CHECKING:
    from replicator.operations.group import Group


@dataclass(frozen=True, slots=True)
class AcceptedTable:
    """A table that stands in the place of another one from now on."""

    rule: str
    region: str
    table: str
    former: str
    table_id: str


async def accept(group: Group, rule: str, region: str, table: str | None, *, by: str) -> Sequence[AcceptedTable]:
    """Accept the tables of a rule in a region, or the one that is named, that are others than before."""
    written = rule_named(group.settings, rule)
    if region not in written.regions_written:
        known = ", ".join(written.regions_written)
        raise RequestRefused(f"Rule {rule} writes no table in {region}.", advice=f"It writes in {known}.")
    settings = await with_tables(group.settings, group.places)
    tables = dict.fromkeys(
        name
        for each in settings.rules
        if each.name == rule and each.sources
        for place, name in each.replica_tables
        if place == region and table in {None, name}
    )
    found = [each for name in tables if (each := await _accept(group, rule, region, name, by)) is not None]
    if not found:
        what = f"No table {table}" if table else "No table"
        raise RequestRefused(
            f"{what} of rule {rule} in {region} is known to be another one than before.",
            advice="`replicator status` and `replicator check` name those that are.",
        )
    return found


async def _accept(group: Group, rule: str, region: str, name: str, by: str) -> AcceptedTable | None:
    """None when the table is the one that is known, or none is."""
    rows = KnownTables(group.table)
    now = (await describe(group.places[region], name)).table_id
    former = await rows.known(RuleName(rule), RegionId(region), TableName(name))
    if former is None or now in {former, ""}:
        return None
    known = KnownTable(RuleName(rule), RegionId(region), TableName(name), former)
    if not await rows.accept(known, now, now=(await group.time()).now(), by=by):
        raise RequestRefused(f"Table {name} in {region} was accepted meanwhile.", advice="Look at `replicator status`.")
    return AcceptedTable(rule, region, name, former, now)
