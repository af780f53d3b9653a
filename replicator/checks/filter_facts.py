"""Facts about filters: whether they can hold for the types that tables fix, and how many items they let pass.

A filter that matches nothing looks like one that has nothing to do, and items that cease to match are deleted at the
replicas, so `check` tries every filter on items that are there.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

import msgspec

from replicator.adapters.aws import wire
from replicator.checks.comparison import World, table_at
from replicator.checks.described_tables import Table
from replicator.checks.facts import Fact, ok, skipped, warning, wrong
from replicator.domain.errors import PoisonRecord, ReplicatorError
from replicator.domain.image import Image
from replicator.settings.compiled_rules import rule_per_source

if TYPE_CHECKING:
    from replicator.adapters.aws.clients import Place
    from replicator.domain.filters import Filter
    from replicator.domain.rules import Rule
    from replicator.settings import OrderedRule, Settings

_SAMPLE = 50
"""Items that a filter is tried on."""

_TABLES_OF_A_RULE = 3
"""Of a rule that chooses its tables, the filter is tried on so many of them."""

_AT_ONCE = 8
_ENCODE = msgspec.json.Encoder().encode


class _Page(msgspec.Struct):
    Items: list[msgspec.Raw]


_PAGE = msgspec.json.Decoder(_Page)


def type_fact(rule: OrderedRule, index: int, source: Table) -> Fact | None:
    """What a filter asks of attributes whose types the table fixes, if that can never hold."""
    types = {**source.types, **dict(source.keys)}
    asked = [("key_prefix", name, "S") for name in rule.filter.key_prefix]
    asked += [("equals", name, _kind(value)) for name, value in rule.filter.equals.items()]
    for condition, name, kind in asked:
        if types.get(name, kind) != kind:
            return wrong(
                f"rule {rule.name}",
                "filter",
                f"rules[{index}].filter.{condition} names {name} as {kind}, but it is {types[name]} in"
                f" {rule.table_name} in {rule.source}, so nothing would ever pass.",
                "Write the value as the type that the attribute has.",
            )
    return None


def _kind(value: str | bool | float | None) -> str:  # noqa: FBT001 - a scalar of any kind
    if value is None:
        return "NULL"
    if isinstance(value, bool):
        return "BOOL"
    return "S" if isinstance(value, str) else "N"


async def sample_filters(settings: Settings, places: Mapping[str, Place], world: World) -> list[Fact]:
    """How many of some items each filter lets pass."""
    slots = asyncio.Semaphore(_AT_ONCE)

    async def bounded(rule: Rule, place: Place) -> Fact:
        async with slots:
            return await _tried(rule, place)

    return list(await asyncio.gather(*(bounded(rule, places[rule.source]) for rule in _filtering(settings, world))))


def _filtering(settings: Settings, world: World) -> Iterator[Rule]:
    """Rules whose filter asks something of items, each on few of its tables and in one region."""
    tables: dict[str, int] = {}
    for written in settings.rules:
        rule = next(iter(rule_per_source(settings, written)), None)
        if rule is None or table_at(world, rule.source, rule.table) is None or not _asks(rule.filter):
            continue
        tables[rule.name] = tables.get(rule.name, 0) + 1
        if tables[rule.name] <= _TABLES_OF_A_RULE:
            yield rule


def _asks(predicate: Filter) -> bool:
    return bool(predicate.key_prefix or predicate.equals or predicate.exists or predicate.where)


async def _tried(rule: Rule, place: Place) -> Fact:
    subject, name, where = f"rule {rule.name}", "filter", f"{rule.table} in {rule.source}"
    try:
        items = await _items(place, rule.table, f"Scan on {where}")
    except ReplicatorError as error:
        return skipped(subject, name, f"The filter was not tried on items of {where}: {error.message}")
    if not items:
        return skipped(subject, name, f"{where} has no items to try the filter on.")
    matching = failing = 0
    for item in items:
        try:
            matching += rule.filter.matches(item)
        except PoisonRecord:
            failing += 1
    found = f"{matching} of {len(items)} items of {where} match."
    if failing:
        return warning(
            subject,
            name,
            f"{found} On {failing} the filter's `where` cannot be evaluated; a record of such an item stops its shard.",
            "Correct the expression, or the items' attribute types.",
        )
    if not matching:
        return warning(
            subject,
            name,
            f"{found} Items that do not match are not replicated, and those that cease to match are deleted.",
            "Compare the filter with an item: its attributes' names, types (3 is no text), and quotes.",
        )
    return ok(subject, name, found)


async def _items(place: Place, table: str, what: str) -> list[Image]:
    body = _ENCODE({"TableName": table, "Limit": _SAMPLE})
    answer = await place.items.call("Scan", body, None, what, TableName=table)
    return [Image(bytes(item)) for item in wire.decoded(_PAGE, answer.body, what).Items]
