"""Facts about a rule of mode `ordered`: its replicas beside their source."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING

from replicator.checks.comparison import World, find, index_fact, is_same_table, table_at
from replicator.checks.described_tables import Table, as_mapped, shown
from replicator.checks.facts import Fact, failed, ok, warning, wrong
from replicator.checks.filter_facts import type_fact
from replicator.checks.world import RegionWorld
from replicator.domain.errors import ReplicatorError
from replicator.domain.key_templates import KeyTemplate
from replicator.settings.cross_checks import key_problems

if TYPE_CHECKING:
    from replicator.domain.key_mapping import KeyMapping
    from replicator.settings import OrderedRule

_EVENTS = 3


def ordered_facts(world: World, rule: OrderedRule, index: int, *, thorough: bool) -> Iterator[Fact]:
    """Everything about the rule's replicas and its filter; `index` is its place in the configuration."""
    source = table_at(world, rule.source, rule.table_name)
    for n, (region, name) in enumerate(rule.replica_tables):
        subject = f"table {name} in {region}"
        replica, fact = find(
            world[region], name, subject,
            f"Create it with the key of {rule.table_name} in {rule.source}, or correct rules[{index}].replicas[{n}].",
        )  # fmt: skip
        yield fact
        if source is None or replica is None:
            continue
        yield from _distinct(rule, source, replica, subject, f"rules[{index}].replicas[{n}]")
        yield from _transformed(rule, n, source, subject, f"rules[{index}].replicas[{n}].transform")
        transform = rule.replicas[n].transform
        mapping = None if transform is None else transform.mapping
        yield _same_keys(rule, source, replica, subject, mapping)
        there = as_mapped(source, mapping)
        yield index_fact(replica, region, {f"the source {rule.table_name} in {rule.source}": there})
        yield _data(rule, source, replica, subject)
        if thorough:
            yield from _expiry(rule, world[region], name, subject)
    if source is not None:
        yield from _cache_keys(rule, source, index)
        mistyped = type_fact(rule, index, source)
        if mistyped is not None:
            yield mistyped
    events = rule.filter.events
    if events is not None and len(set(events)) < _EVENTS:
        yield warning(
            f"rule {rule.name}",
            "filter",
            f"rules[{index}].filter.events lets only {', '.join(events)} pass, so the replicas of rule {rule.name}"
            " will differ from their source.",
            "Remove events from the filter unless this is intended.",
        )


def _cache_keys(rule: OrderedRule, source: Table, index: int) -> Iterator[Fact]:
    """Whether every refreshed entry belongs to one item alone, since only versions of one item compare."""
    subject, name = f"rule {rule.name}", "cache keys"
    refreshed = [(n, action) for n, action in enumerate(rule.cache) if action.stores]
    # The file says which cache is beside a table whose keys are mapped, and was judged by those.
    mapped = [replica.transform.key for replica in rule.replicas if replica.transform and replica.transform.key]
    for n, action in refreshed:
        template = KeyTemplate(action.key)
        lacking = template.lacks(key for key, _ in source.keys)
        if lacking and all(template.lacks(keys) for keys in mapped):
            yield wrong(
                subject,
                name,
                f"rules[{index}].cache[{n}].key {action.key} lacks {' and '.join(lacking)} of the primary key of"
                f" {rule.table_name} in {rule.source} ({shown(source.keys)}), so several items may share an entry, and"
                " their versions do not compare.",
                "Put the whole primary key into the template, or set action: invalidate.",
            )
            return
    if refreshed:
        yield ok(subject, name, "every refreshed entry belongs to one item.")


def _transformed(rule: OrderedRule, n: int, source: Table, subject: str, path: str) -> Iterator[Fact]:
    """Whether a transform leaves the key alone, or makes one of it that no two items have, nor none."""
    transform = rule.replicas[n].transform
    if transform is None:
        return
    if transform.mapping is not None:
        yield _mapped(rule, transform.mapping, source, subject, f"{path}.key")
        return
    touched = [name for name, _ in source.keys if name in transform.touched]
    if touched:
        yield wrong(
            subject,
            "transform",
            f"{path} changes {', '.join(touched)} of the primary key of {rule.table_name} in {rule.source}"
            f" ({shown(source.keys)}), which stays as it is.",
            "Leave attributes of the key out of the transform.",
        )
    else:
        yield ok(subject, "transform", "it leaves the key alone.")


def _mapped(rule: OrderedRule, mapping: KeyMapping, source: Table, subject: str, path: str) -> Fact:
    keys, where = dict(source.keys), f"{rule.table_name} in {rule.source} ({shown(source.keys)})"
    for said in key_problems(mapping, keys):
        return wrong(
            subject, "transform", f"{path} {said} of {where}.", "Let it hold every attribute of that key, and no other."
        )
    for name, kind in mapping.mistyped(keys):
        return wrong(
            subject, "transform", f"{path} takes {name} for another type than {where} has.", f"Write {{{name}:{kind}}}."
        )
    made = ", ".join(f"{name} of {value}" for name, value in json.loads(mapping.text).items())
    return ok(subject, "transform", f"the key is made of the source's, each for one item alone: {made}.")


def _distinct(rule: OrderedRule, source: Table, replica: Table, subject: str, path: str) -> Iterator[Fact]:
    if is_same_table(source, replica):
        yield wrong(
            subject,
            "other table",
            f"{path} of rule {rule.name} is the source table itself ({source.arn}).",
            "Name another table or another region: a table cannot be its own replica.",
        )


def _same_keys(rule: OrderedRule, source: Table, replica: Table, subject: str, mapping: KeyMapping | None) -> Fact:
    wanted = as_mapped(source, mapping).keys
    if replica.keys == wanted:
        return ok(subject, "key schema", f"{shown(replica.keys)}.")
    made = "" if mapping is None else f", of which transform.key makes {shown(wanted)}"
    return wrong(
        subject,
        "key schema",
        f"T{subject[1:]} has the key {shown(replica.keys)}, but its source {rule.table_name} in {rule.source} has"
        f" {shown(source.keys)}{made}.",
        f"Create the replica of rule {rule.name} again with the key {shown(wanted)}; a key schema cannot be changed.",
    )


def _data(rule: OrderedRule, source: Table, replica: Table, subject: str) -> Fact:
    found = (
        f"The source {rule.table_name} in {rule.source} holds about {source.items} items, this replica {replica.items}."
    )
    if source.items <= replica.items:
        return ok(subject, "data", found)
    return warning(
        subject,
        "data",
        found,
        f"The stream contains only changes: run `replicator bootstrap {rule.name}` for the rest, unless that was"
        " done (counts are up to 6 hours old).",
    )


def _expiry(rule: OrderedRule, region: RegionWorld, name: str, subject: str) -> Iterator[Fact]:
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
