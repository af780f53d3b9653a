"""What judging one rule needs of the world: its tables with the facts about them, and how two tables compare."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from replicator.checks.described_tables import Table
from replicator.checks.facts import Fact, failed, ok, skipped, warning, wrong
from replicator.checks.world import RegionWorld
from replicator.domain.errors import ReplicatorError, TableMissing
from replicator.domain.values import replace

World = Mapping[str, RegionWorld]


def table_at(world: World, region: str, name: str) -> Table | None:
    """A table that was found."""
    table = world[region].tables.get(name)
    return table if isinstance(table, Table) else None


def find(region: RegionWorld, table: str, subject: str, absent: str) -> tuple[Table | None, Fact]:
    """The table with its `exists` fact, or None with the fact that says why; `absent` is the remedy."""
    if region.down is not None:
        return None, skipped(subject, "exists", f"Region {region.region} lets nothing be seen.")
    found = region.tables[table]
    if isinstance(found, ReplicatorError):
        fact = failed(subject, "exists", found)
        is_absent = isinstance(found, TableMissing)
        return None, replace(fact, remedy=absent if is_absent else fact.remedy)
    if not found.active:
        return None, wrong(subject, "exists", f"Table {table} in {region.region} is not active.", "Wait until it is.")
    return found, ok(subject, "exists")


def is_same_table(one: Table, other: Table) -> bool:
    """Whether two places of the configuration lead to one table."""
    return one.arn == other.arn and one.table_id == other.table_id and bool(one.arn)


def index_fact(table: Table, region: str, origins: Mapping[str, Table]) -> Fact:
    """The worst that a table's indexes can do to items that come from others; `origins` are these, by their names."""
    subject = f"table {table.name} in {region}"
    unknown: list[str] = []
    for index in table.indexes:
        where = f"Index {index.name} of table {table.name} in {region}"
        for attribute, kind in index.keys:
            for name, origin in origins.items():
                there = origin.types.get(attribute)
                if there is not None and there != kind:
                    return wrong(
                        subject,
                        "indexes",
                        f"{where} is over {attribute} ({kind}), but {name} declares {attribute} ({there}), so every"
                        " item from there that has it would be refused.",
                        f"Re-create the index with {attribute} as {there}.",
                    )
            free = ", ".join(name for name, origin in origins.items() if attribute not in origin.types)
            if free:
                unknown.append(f"{where} is over {attribute} ({kind}), which no key or index of {free} fixes.")
        unknown += _collections(where, origins) if index.local else ()
    if unknown:
        return warning(
            subject,
            "indexes",
            " ".join(unknown),
            "Make sure that every item fits, or drop the index: an item that a table refuses stops its shard.",
        )
    return ok(subject, "indexes", f"{len(table.indexes)} compared.")


def _collections(where: str, origins: Mapping[str, Table]) -> Iterator[str]:
    free = ", ".join(name for name, origin in origins.items() if not any(index.local for index in origin.indexes))
    if free:
        yield f"{where} is a local one and {free} has none, so collections over 10 GB are refused."
