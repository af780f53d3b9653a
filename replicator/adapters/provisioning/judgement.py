"""What the world should look like: every fact about regions, tables, streams and rules, judged from what was seen.

Pure: the same world gives the same facts.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from replicator.adapters.provisioning.creation import NEEDED_VIEW
from replicator.adapters.provisioning.facts import Fact, failed, ok, skipped, warning, wrong
from replicator.adapters.provisioning.regions import region_facts
from replicator.adapters.provisioning.tables import OwnTable, Table, own_tables, reserved_keys, schema_difference, shown
from replicator.adapters.provisioning.world import RegionWorld
from replicator.domain.errors import ReplicatorError

if TYPE_CHECKING:
    from replicator.settings import RuleSettings, Settings

World = Mapping[str, RegionWorld]

_EVENTS = 3


def judge(settings: Settings, world: World, *, thorough: bool) -> list[Fact]:
    """Every fact that can be told without writing."""
    facts: list[Fact] = []
    for region in world.values():
        facts += region_facts(settings, region, thorough=thorough)
    for own in own_tables(settings):
        facts += _own_facts(world[own.region], own, thorough=thorough)
    for source in {(rule.source, rule.table): rule for rule in settings.rules}.values():
        facts += _source_facts(world[source.source], source)
    for index, rule in enumerate(settings.rules):
        facts += _rule_facts(world, rule, index, thorough=thorough)
    return facts


def table_at(world: World, region: str, name: str) -> Table | None:
    """A table that was found."""
    table = world[region].tables.get(name)
    return table if isinstance(table, Table) else None


# -- tables --------------------------------------------------------------------------------------------------------


def _found(region: RegionWorld, table: str, subject: str, absent: str) -> tuple[Table | None, Fact]:
    """The table with its `exists` fact, or None with the fact that says why; `absent` is the remedy."""
    if region.down is not None:
        return None, skipped(subject, "exists", f"Region {region.region} lets nothing be seen.")
    found = region.tables[table]
    if isinstance(found, ReplicatorError):
        fact = failed(subject, "exists", found)
        is_absent = found.message.endswith("does not exist.")
        return None, Fact(
            subject, "exists", fact.status, fact.found, absent if is_absent else fact.remedy, fact.exit_code
        )
    if not found.active:
        return None, wrong(subject, "exists", f"Table {table} in {region.region} is not active.", "Wait until it is.")
    return found, ok(subject, "exists")


def _own_facts(region: RegionWorld, own: OwnTable, *, thorough: bool) -> Iterator[Fact]:
    table, fact = _found(region, own.name, own.subject, "Run `replicator init`, which creates it.")
    yield fact
    if table is None:
        return
    difference = schema_difference(table, own)
    if difference is not None:
        yield wrong(
            own.subject,
            "schema",
            f"The table {own.name} in {own.region} is not a {own.purpose}: {difference}.",
            f"Name another {own.purpose} in the configuration, then run `replicator init`.",
        )
        return
    yield ok(own.subject, "schema")
    if own.expiry is None or not thorough:
        return
    expiry = region.expiries[own.name]
    if isinstance(expiry, ReplicatorError):
        yield failed(own.subject, "TTL", expiry)
    elif expiry != own.expiry:
        yield wrong(
            own.subject,
            "TTL",
            f"TTL of {own.name} in {own.region} is {'off' if expiry is None else f'on {expiry}'}; rows stay forever.",
            "Run `replicator init`, which turns it on."
            if expiry is None
            else f"Set its TTL attribute to {own.expiry}.",
        )
    else:
        yield ok(own.subject, "TTL", f"on {own.expiry}.")


def _source_facts(region: RegionWorld, rule: RuleSettings) -> Iterator[Fact]:
    subject = f"table {rule.table} in {rule.source}"
    table, fact = _found(region, rule.table, subject, f"Create it, or correct table or source of rule {rule.name}.")
    yield fact
    if table is None:
        return
    name = f"Table {rule.table} in {rule.source}, the source of rule {rule.name},"
    for attribute in reserved_keys(table):
        yield wrong(
            subject,
            "key schema",
            f"{name} has the key attribute {attribute}, a name that is kept for replication: items would lose it.",
            "Copy the items to a table whose key has another name.",
        )
    if table.stream_view is None:
        yield wrong(
            subject,
            "stream",
            f"{name} has no stream.",
            f"Enable one with view type {NEEDED_VIEW}; `replicator init --enable-streams` does.",
        )
    elif table.stream_view != NEEDED_VIEW:
        yield wrong(
            subject,
            "stream",
            f"{name} has a stream with view type {table.stream_view}, but {NEEDED_VIEW} is needed.",
            "A view type cannot be changed: disable the stream and enable it again with that type.",
        )
    else:
        yield ok(subject, "stream", f"{NEEDED_VIEW}.")


# -- rules ---------------------------------------------------------------------------------------------------------


def _rule_facts(world: World, rule: RuleSettings, index: int, *, thorough: bool) -> Iterator[Fact]:
    source = table_at(world, rule.source, rule.table)
    for n, (region, name) in enumerate(rule.replica_tables):
        subject = f"table {name} in {region}"
        replica, fact = _found(
            world[region], name, subject,
            f"Create it with the key of {rule.table} in {rule.source}, or correct rules[{index}].replicas[{n}].",
        )  # fmt: skip
        yield fact
        if source is None or replica is None:
            continue
        yield from _distinct(rule, source, replica, subject, f"rules[{index}].replicas[{n}]")
        yield _same_keys(rule, source, replica, subject, region)
        yield _index_fact(rule, source, replica, subject, region)
        yield _data(rule, source, replica, subject)
        if thorough:
            yield from _expiry(rule, world[region], name, subject)
    events = rule.filter.events
    if events is not None and len(set(events)) < _EVENTS:
        yield warning(
            f"rule {rule.name}",
            "filter",
            f"rules[{index}].filter.events lets only {', '.join(events)} pass, so the replicas of rule {rule.name}"
            " will differ from their source.",
            "Remove events from the filter unless that is what you want.",
        )


def _distinct(rule: RuleSettings, source: Table, replica: Table, subject: str, path: str) -> Iterator[Fact]:
    same = source.arn == replica.arn and source.table_id == replica.table_id and bool(source.arn)
    if same:
        yield wrong(
            subject,
            "other table",
            f"{path} of rule {rule.name} is the source table itself ({source.arn}).",
            "Name another table or another region: a table cannot be its own replica.",
        )


def _same_keys(rule: RuleSettings, source: Table, replica: Table, subject: str, region: str) -> Fact:
    if replica.keys == source.keys:
        return ok(subject, "key schema", f"{shown(replica.keys)}.")
    return wrong(
        subject,
        "key schema",
        f"Table {replica.name} in {region} has the key {shown(replica.keys)}, but its source {rule.table} in"
        f" {rule.source} has {shown(source.keys)}.",
        f"Create the replica of rule {rule.name} anew with the source's key; a key schema cannot be changed.",
    )


def _index_fact(rule: RuleSettings, source: Table, replica: Table, subject: str, region: str) -> Fact:
    """The worst that the replica's indexes can do to items that the source accepts."""
    unknown: list[str] = []
    for index in replica.indexes:
        where = f"Index {index.name} of table {replica.name} in {region}"
        for attribute, kind in index.keys:
            there = source.types.get(attribute)
            if there is None:
                unknown.append(f"{where} is over {attribute} ({kind}), which no key or index of the source fixes.")
            elif there != kind:
                return wrong(
                    subject,
                    "indexes",
                    f"{where} is over {attribute} ({kind}), but the source {rule.table} in {rule.source} declares"
                    f" {attribute} ({there}), so the replica would refuse every item that has it.",
                    f"Create the index anew with {attribute} as {there}.",
                )
        if index.local and not any(other.local for other in source.indexes):
            unknown.append(f"{where} is a local one and the source has none, so collections over 10 GB are refused.")
    if unknown:
        return warning(
            subject,
            "indexes",
            " ".join(unknown),
            "Make sure that every item fits, or drop the index: an item that the replica refuses stops its shard.",
        )
    return ok(subject, "indexes", f"{len(replica.indexes)} compared.")


def _data(rule: RuleSettings, source: Table, replica: Table, subject: str) -> Fact:
    found = f"The source {rule.table} in {rule.source} holds about {source.items} items, this replica {replica.items}."
    if source.items <= replica.items:
        return ok(subject, "data", found)
    return warning(
        subject,
        "data",
        found,
        "Only items written since the start appear here until a bootstrap is run (counts are up to 6 hours old).",
    )


def _expiry(rule: RuleSettings, region: RegionWorld, name: str, subject: str) -> Iterator[Fact]:
    expiry = region.expiries[name]
    if isinstance(expiry, ReplicatorError):
        yield failed(subject, "TTL", expiry)
    elif rule.ttl_deletes == "replicate" and expiry is not None:
        yield warning(
            subject,
            "TTL",
            f"TTL on {expiry} is on at this replica while rule {rule.name} has ttl_deletes: replicate, so items may"
            " vanish here before they do at the source (it converges).",
            "Turn TTL off at the replica, or set ttl_deletes: skip.",
        )
    elif rule.ttl_deletes == "skip" and expiry is None:
        yield warning(
            subject,
            "TTL",
            f"TTL is off at this replica while rule {rule.name} has ttl_deletes: skip, so expired items stay here.",
            "Turn TTL on at the replica, or set ttl_deletes: replicate.",
        )
    else:
        yield ok(subject, "TTL", "off." if expiry is None else f"on {expiry}.")
