"""`replicator inspect`: one item everywhere - regions, tombstones, cache entries - and whether they agree."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from replicator.adapters.aws import wire
from replicator.adapters.clients import open_caches, open_places
from replicator.adapters.clock import SystemClock
from replicator.adapters.dynamodb.tables import DynamoRegion
from replicator.checks.described_tables import Table, describe
from replicator.cli.output import print_json, print_rows
from replicator.domain.errors import (
    EXIT_STOPPED,
    EXIT_UNREACHABLE,
    PoisonRecord,
    Unreachable,
)
from replicator.domain.image import Image
from replicator.domain.modes.requests import Found, GetItem, GetTombstone
from replicator.domain.versions import STAMP
from replicator.operations.inspect_caches import cache_sights
from replicator.operations.inspect_mesh import mesh_sights, stamp_of
from replicator.operations.item_copies import COLUMNS, OPEN, Sight, digest, or_unknown, unreachable
from replicator.operations.item_key import parse_key
from replicator.operations.table_argument import rule_on_table
from replicator.settings import OrderedRule
from replicator.settings.compiled_rules import sights_of
from replicator.settings.loading import configuration_path, load

if TYPE_CHECKING:
    from replicator.adapters.aws.clients import Place
    from replicator.domain.filters import Filter
    from replicator.domain.records import ItemKey
    from replicator.settings import RuleSettings, Settings

_ITEMS = {"source", "replica", "region"}
"""Roles of the places where the item itself may be."""


def inspect_item(  # noqa: PLR0913 - what the command line says
    config: Path | None, rule_name: str, key: str, *, table: str | None = None, values: bool, as_json: bool
) -> int:
    """Look everywhere and tell; `table`: which one, when the rule chooses several."""
    settings = load(configuration_path(config))
    rule = rule_on_table(settings, rule_name, table)
    item_key, sights = asyncio.run(_look(settings, rule, key))
    troubles = list(dict.fromkeys(sight.trouble for sight in sights if sight.trouble is not None))
    agree = None if troubles else all(sight.agrees is not False for sight in sights)
    for trouble in troubles:
        sys.stderr.write(f"replicator: {trouble}\n")
    code = EXIT_UNREACHABLE if troubles else EXIT_STOPPED
    if as_json:
        rows = [sight.document(values=values) for sight in sights]
        key_document = msgspec.json.decode(item_key.wire)
        print_json({"rule": rule.name, "mode": rule.mode, "key": key_document, "agree": agree, "places": rows})
        return code
    print_rows([*COLUMNS, *["item"] * values], [sight.row(values=values) for sight in sights])
    sys.stdout.write(f"{_summary(rule, agree=agree)}\n")
    return code


def _summary(rule: RuleSettings, *, agree: bool | None) -> str:
    if agree is None:
        return "Not every place answered, so whether all agree is unknown."
    filtered = " (its filter applied)" if rule.filter.model_fields_set else ""
    whom = "the source" if isinstance(rule, OrderedRule) else "one another"
    if agree:
        return f"All places agree with {whom}{filtered}."
    differ = "Places differ from the source" if isinstance(rule, OrderedRule) else "Places differ"
    return f"{differ}{filtered}; a change that is still on its way shows so for a moment."


# -- looking -------------------------------------------------------------------------------------------------------


async def _look(settings: Settings, rule: RuleSettings, text: str) -> tuple[ItemKey, list[Sight]]:
    tables = dict([*rule.replica_tables, *rule.sources])
    names = {action.cache for action in rule.cache}
    async with open_places(settings, tables) as places, open_caches(settings, names) as caches:
        key = parse_key(text, (await _described(rule, places)).keys)
        if isinstance(rule, OrderedRule):
            sights, stamp = await _ordered(settings, rule, places, key), STAMP
        else:
            regions = {region: _region(settings, places[region], table) for region, table in rule.sources}
            passes = _filter(settings, rule).matches(Image(key.wire))
            sights = await mesh_sights(rule, regions, settings.side_table_name, key, passes=passes)
            stamp = stamp_of(rule)
        beside = {sight.region: sight for sight in sights if sight.role in _ITEMS}
        return key, [*sights, *await cache_sights(settings, rule, caches, key, beside, stamp)]


async def _described(rule: RuleSettings, places: Mapping[str, Place]) -> Table:
    """The first of the rule's tables that answers; their keys are the same."""
    first: Unreachable | None = None
    for region, table in (*rule.sources, *rule.replica_tables):
        try:
            return await describe(places[region], table)
        except Unreachable as error:
            first = first or error
    assert first is not None, "a rule has a source"
    raise first


async def _ordered(settings: Settings, rule: OrderedRule, places: Mapping[str, Place], key: ItemKey) -> list[Sight]:
    """The source, then every replica with its tombstone."""
    where = [(rule.source, rule.table_name), *rule.replica_tables]
    items = await asyncio.gather(*(or_unknown(_item(settings, places[region], table, key)) for region, table in where))
    tombstones = await asyncio.gather(
        *(or_unknown(_tombstone(settings, places[region], table, key)) for region, table in rule.replica_tables)
    )
    source = items[0]
    if isinstance(source, Unreachable):
        sights, wanted = [unreachable("source", rule.source, rule.table_name, source)], None
    else:
        sights = [Sight("source", rule.source, rule.table_name, _presence(source), None, source)]
        wanted = _wanted(settings, rule, source)
    for (region, table), item, tombstone in zip(rule.replica_tables, items[1:], tombstones, strict=True):
        if isinstance(item, Unreachable):
            sights.append(unreachable("replica", region, table, item))
        else:
            known = not isinstance(source, Unreachable)
            sights.append(_replica(region, table, item, digest(item) == digest(wanted) if known else None))
        if isinstance(tombstone, Unreachable):
            sights.append(unreachable("tombstone", region, settings.side_table_name, tombstone))
        else:
            state = "none" if tombstone is None else "there"
            sights.append(Sight("tombstone", region, settings.side_table_name, state, tombstone))
    return sights


def _filter(settings: Settings, rule: RuleSettings) -> Filter:
    return sights_of(settings, rule)[0].filter


def _presence(item: Image | None) -> str:
    return "absent" if item is None else "present"


def _wanted(settings: Settings, rule: RuleSettings, source: Image | None) -> Image | None:
    """What the replicas should hold: the source's item, unless the rule's filter keeps it out."""
    try:
        return source if _filter(settings, rule).matches(source) else None
    except PoisonRecord:  # the filter cannot judge it, so its shard stands still
        return source


def _replica(region: str, table: str, item: Image | None, same: bool | None) -> Sight:
    return Sight("replica", region, table, _presence(item), item.stamp if item else None, item, same)


async def _item(settings: Settings, place: Place, table: str, key: ItemKey) -> Image | None:
    answer = await _region(settings, place, table).execute(GetItem(key), OPEN)
    return answer.item if isinstance(answer, Found) else None


async def _tombstone(settings: Settings, place: Place, table: str, key: ItemKey) -> str | None:
    answer = await _region(settings, place, table).execute(GetTombstone(key), OPEN)
    return answer.tombstone if isinstance(answer, Found) else None


def _region(settings: Settings, place: Place, table: str) -> DynamoRegion:
    wire.prepare(place.dynamodb)
    return DynamoRegion(
        place.dynamodb,
        region_id=place.region_id,
        table=table,
        side_table=settings.side_table_name,
        tombstone_ttl=settings.tombstone_ttl,
        concurrency=1,
        clock=SystemClock(),
    )
