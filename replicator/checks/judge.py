"""What the world should look like: every fact about regions, tables and streams, judged from what was seen.

Pure: the same world gives the same facts.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from replicator.checks.canary_facts import canary_facts
from replicator.checks.comparison import World, find
from replicator.checks.creation import NEEDED_VIEW
from replicator.checks.described_tables import OwnTable, own_tables, reserved_keys, schema_difference, shown
from replicator.checks.facts import Fact, failed, ok, wrong
from replicator.checks.kinesis_facts import kinesis_facts
from replicator.checks.mesh_facts import mesh_facts
from replicator.checks.ordered_facts import ordered_facts
from replicator.checks.region_facts import region_facts
from replicator.checks.world import RegionWorld
from replicator.domain.errors import ReplicatorError
from replicator.settings import OrderedRule

if TYPE_CHECKING:
    from replicator.settings import RuleSettings, Settings


def judge(settings: Settings, world: World, *, thorough: bool) -> list[Fact]:
    """Every fact that can be found without writing."""
    facts: list[Fact] = []
    for region in world.values():
        facts += region_facts(settings, region, thorough=thorough)
    for own in own_tables(settings):
        facts += own_facts(world[own.region], own, thorough=thorough)
    for (region_id, name), rule in {place: reader for reader in settings.rules for place in reader.sources}.items():
        facts += _stream_facts(world[region_id], name, rule)
    for index, rule in zip(settings.places_of_rules, settings.rules, strict=True):
        facts += _rule_facts(settings, world, rule, index, thorough=thorough)
    return facts


def judge_rule(settings: Settings, world: World, rule: RuleSettings) -> list[Fact]:
    """Every fact about the tables of one of the rules."""
    index = settings.places_of_rules[settings.rules.index(rule)]
    streams = [fact for region, name in rule.sources for fact in _stream_facts(world[region], name, rule)]
    return [*streams, *_rule_facts(settings, world, rule, index, thorough=False)]


def _rule_facts(settings: Settings, world: World, rule: RuleSettings, index: int, *, thorough: bool) -> Iterator[Fact]:
    if not rule.sources:  # a choice that found no table
        return
    if isinstance(rule, OrderedRule):
        yield from ordered_facts(world, rule, index, thorough=thorough)
    else:
        yield from mesh_facts(settings, world, rule, index, thorough=thorough)
    if rule.canary is not None:
        yield from canary_facts(world, rule, index)


# -- tables --------------------------------------------------------------------------------------------------------


def own_facts(region: RegionWorld, own: OwnTable, *, thorough: bool) -> Iterator[Fact]:
    """Facts about one of our own tables."""
    table, fact = find(region, own.name, own.subject, "Run `replicator init`, which creates it.")
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


def _stream_facts(region: RegionWorld, name: str, rule: RuleSettings) -> Iterator[Fact]:
    subject = f"table {name} in {region.region}"
    role = "source" if isinstance(rule, OrderedRule) else "regions"
    table, fact = find(region, name, subject, f"Create it, or correct table or {role} of rule {rule.name}.")
    yield fact
    if table is None:
        return
    part = "the source" if isinstance(rule, OrderedRule) else "a region"
    named = f"Table {name} in {region.region}, {part} of rule {rule.name},"
    keys = {attribute for attribute, _ in table.keys}
    if rule.primary_key and set(rule.primary_key) != keys:
        yield wrong(
            subject,
            "key schema",
            f"{named} has the key {shown(table.keys)}, but primary_key of rule {rule.name} names"
            f" {', '.join(rule.primary_key)}.",
            "Correct primary_key, or leave it out.",
        )
    for attribute in reserved_keys(table):
        yield wrong(
            subject,
            "key schema",
            f"{named} has the key attribute {attribute}, a name that is kept for replication: items would lose it.",
            "Copy the items to a table whose key has another name.",
        )
    if name in region.kinesis:
        yield from kinesis_facts(region, table.name, subject)
    elif table.stream_view is None:
        yield wrong(
            subject,
            "stream",
            f"{named} has no stream.",
            f"Enable one with view type {NEEDED_VIEW}; `replicator init --enable-streams` does.",
        )
    elif table.stream_view != NEEDED_VIEW:
        yield wrong(
            subject,
            "stream",
            f"{named} has a stream with view type {table.stream_view}, but {NEEDED_VIEW} is needed.",
            "A view type cannot be changed: disable the stream and enable it again with that type.",
        )
    else:
        yield ok(subject, "stream", f"{NEEDED_VIEW}.")
