"""One item everywhere - regions, tombstones, cache entries - and whether they agree."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from replicator.adapters.clients import open_caches, open_places
from replicator.adapters.clock import SystemClock
from replicator.adapters.dynamodb.owed_keys import owed_keys
from replicator.checks.described_tables import Table, describe
from replicator.domain.copying.contents import wanted
from replicator.domain.errors import PoisonRecord, ReplicatorError, Unreachable
from replicator.domain.identifiers import RegionId
from replicator.domain.image import Image
from replicator.domain.owed_keys import OwedFor, OwedTo, row_id
from replicator.domain.transforms import held_under
from replicator.domain.values import replace
from replicator.domain.verdict.kinds import counted
from replicator.domain.versions import STAMP
from replicator.operations.group import SHOW_SECONDS
from replicator.operations.inspect_caches import cached_copies
from replicator.operations.inspect_mesh import mesh_copies, stamp_of
from replicator.operations.item_copies import ItemCopy, digest, or_unknown, unreachable
from replicator.operations.item_key import parse_key
from replicator.operations.item_region import item_in, region_of, tombstone_in
from replicator.settings import OrderedRule
from replicator.settings.compiled_rules import rule_per_source

if TYPE_CHECKING:
    from replicator.adapters.aws.clients import Place
    from replicator.domain.filters import Filter
    from replicator.domain.records import ItemKey
    from replicator.domain.rules import Rule
    from replicator.domain.transforms import Transform
    from replicator.settings import RuleSettings, Settings

_ITEMS = {"source", "replica", "region"}
"""Roles of the places where the item itself may be."""


@dataclass(frozen=True, slots=True)
class Inspection:
    """What was found. `agree`: None when not every place answered; `troubles`: why."""

    rule: RuleSettings
    key: ItemKey
    places: Sequence[ItemCopy]

    @property
    def troubles(self) -> list[str]:
        """Why places are not known, each reason once."""
        return list(dict.fromkeys(place.trouble for place in self.places if place.trouble is not None))

    @property
    def agree(self) -> bool | None:
        """Whether all places agree; None when one did not answer."""
        return None if self.troubles else all(place.agrees is not False for place in self.places)

    def document(self, *, values: bool) -> dict[str, Any]:
        """As JSON; contents only when asked for."""
        return {
            "rule": self.rule.name,
            "mode": self.rule.mode,
            "key": Image(self.key.wire).attributes,
            "agree": self.agree,
            "places": [place.document(values=values) for place in self.places],
        }


async def inspect(settings: Settings, rule: RuleSettings, text: str) -> Inspection:
    """Look everywhere; `rule` names one table (`rule_on_table`), `text` is the key as an operator types it."""
    tables = dict([*rule.replica_tables, *rule.sources])
    names = {action.cache for action in rule.cache}
    async with open_places(settings, tables, longest=SHOW_SECONDS) as places, open_caches(settings, names) as caches:
        key = parse_key(text, (await _described(rule, places)).keys)
        if isinstance(rule, OrderedRule):
            copies, stamp = await _ordered(settings, rule, places, key), STAMP
        else:
            regions = {region: region_of(settings, places[region], table) for region, table in rule.sources}
            passes = _filter(settings, rule).matches(Image(key.wire))
            items, *owed = await asyncio.gather(
                mesh_copies(rule, regions, settings.side_table_name, key, passes=passes),
                *(_owed(settings, each, places[each.source], key) for each in rule_per_source(settings, rule)),
            )
            copies, stamp = [*items, *(row for rows in owed for row in rows)], stamp_of(rule)
        beside = {copy.region: copy for copy in copies if copy.role in _ITEMS}
        return Inspection(
            rule,
            key,
            [*copies, *await cached_copies(settings, rule, caches, key, beside, stamp, _there(settings, rule, key))],
        )


async def _described(rule: RuleSettings, places: Mapping[str, Place]) -> Table:
    """The first of the rule's tables that answers; their keys are the same, unless a transform maps them."""
    troubles: list[ReplicatorError] = []

    async def look(region: str, table: str) -> Table | None:
        try:
            return await describe(places[region], table)
        except ReplicatorError as error:
            troubles.append(error)
            return None

    async with asyncio.TaskGroup() as group:
        looks = [
            group.create_task(look(region, table), name=f"describe-{region}")
            for region, table in (*rule.sources, *(() if _is_mapped(rule) else rule.replica_tables))
        ]
        for each in asyncio.as_completed(looks):
            found = await each
            if found is not None:
                for other in looks:
                    other.cancel()
                return found
    raise next((error for error in troubles if not isinstance(error, Unreachable)), troubles[0])


async def _ordered(settings: Settings, rule: OrderedRule, places: Mapping[str, Place], key: ItemKey) -> list[ItemCopy]:
    """The source, then every replica with its tombstone."""
    where = [(rule.source, rule.table_name), *rule.replica_tables]
    made = rule_per_source(settings, rule)[0]
    transforms = {target.region: target.transform for target in made.targets if target.table is not None}
    there, mappings = _there(settings, rule, key), {target.region: target.keys for target in made.targets}
    tables = [
        region_of(settings, places[region], table, keys=mappings.get(RegionId(region)) if n else None)
        for n, (region, table) in enumerate(where)
    ]
    items, tombstones, parked = await asyncio.gather(
        asyncio.gather(*(or_unknown(item_in(table, key)) for table in tables)),
        asyncio.gather(*(or_unknown(tombstone_in(table, key)) for table in tables[1:])),
        _owed(settings, rule_per_source(settings, rule)[0], places[rule.source], key) if rule.owed_regions else _none(),
    )
    source = items[0]
    if isinstance(source, Unreachable):
        copies = [unreachable("source", rule.source, rule.table_name, source)]
    else:
        copies = [ItemCopy("source", rule.source, rule.table_name, _presence(source), None, source)]
    for (region, table), item, tombstone in zip(rule.replica_tables, items[1:], tombstones, strict=True):
        at = there[region].shown if region in there else None
        if isinstance(item, Unreachable):
            copies.append(unreachable("replica", region, table, item))
        else:
            same = None
            if not isinstance(source, Unreachable):
                same = digest(item) == digest(_wanted(made, source, key, transforms.get(RegionId(region))))
            version = item.stamp if item else None
            copies.append(ItemCopy("replica", region, table, _presence(item), version, item, same, at))
        if isinstance(tombstone, Unreachable):
            copies.append(unreachable("tombstone", region, settings.side_table_name, tombstone))
        else:
            state = "none" if tombstone is None else "there"
            copies.append(ItemCopy("tombstone", region, settings.side_table_name, state, tombstone, key=at))
    return [*copies, *parked]


def _is_mapped(rule: RuleSettings) -> bool:
    replicas = rule.replicas if isinstance(rule, OrderedRule) else ()
    return any(replica.transform is not None and replica.transform.key is not None for replica in replicas)


def _there(settings: Settings, rule: RuleSettings, key: ItemKey) -> dict[str, ItemKey]:
    """The item's key in the regions that have another one."""
    targets = [target for made in rule_per_source(settings, rule) for target in made.targets if target.keys is not None]
    keys = {target.region: held_under(target.transform, key) for target in targets}
    return {region: there for region, there in keys.items() if there is not None}


async def _owed(settings: Settings, rule: Rule, place: Place, key: ItemKey) -> list[ItemCopy]:
    """What replicas, or the other regions of a mesh, are owed of this key by a source: refused or missed."""
    rows, table = owed_keys(place, settings, SystemClock()), settings.owed_table_name
    if rule.mesh is None:
        tos = [(OwedTo(rule.table, target.target_id), target.region) for target in rule.targets]
    else:
        tos = [
            (OwedTo(rule.table, rule.as_replica(region), owed_for), region)
            for region in rule.mesh.others
            for owed_for in OwedFor
        ]
    found = await asyncio.gather(*(or_unknown(rows.find(to, row_id(to, key))) for to, _ in tos))
    copies = []
    for (to, region), row in zip(tos, found, strict=True):
        role = "parked" if to.owed_for is OwedFor.REFUSED else "owed"
        details = {} if rule.mesh is None else {"owed_by": rule.source}
        by = "" if rule.mesh is None else f", owed by {rule.source}"
        if isinstance(row, Unreachable):
            copies.append(replace(unreachable(role, region, table, row), details=details))
        elif row is not None:
            state = f"refused {counted(row.tries, 'time')}" if role == "parked" else "missed"
            said = {**details, "why": row.why}
            copies.append(ItemCopy(role, region, table, f"{state}{by}", row.version, details=said))
    return copies


async def _none() -> list[ItemCopy]:
    """No table of owed keys is there to be asked."""
    return []


def _filter(settings: Settings, rule: RuleSettings) -> Filter:
    return rule_per_source(settings, rule)[0].filter


def _presence(item: Image | None) -> str:
    return "absent" if item is None else "present"


def _wanted(rule: Rule, source: Image | None, key: ItemKey, transform: Transform | None) -> Image | None:
    """What a replica should hold: the source's item as it is transformed, unless the rule's filter keeps it out."""
    try:
        return wanted(rule, source, key, transform)
    except PoisonRecord:  # the filter cannot judge it, so its shard does not progress
        return source
