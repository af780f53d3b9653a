"""`replicator inspect`: one item everywhere - source, replicas, tombstones, cache entries - and whether they agree.

Contents are shown only when asked for; a digest of the content tells whether two are the same.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from replicator.adapters import wire
from replicator.adapters.clock import SystemClock
from replicator.adapters.provisioning.tables import describe
from replicator.adapters.tables import DynamoRegion
from replicator.cli.configuration import configuration_path, load
from replicator.cli.itemkey import parse_key
from replicator.cli.output import print_json, print_rows
from replicator.connections import open_caches, open_places
from replicator.domain.errors import EXIT_STOPPED, EXIT_USAGE, PoisonRecord, ReplicatorError
from replicator.domain.image import Image, content_hash
from replicator.domain.requests import Found, GetItem, GetTombstone
from replicator.domain.rules import KeyTemplate
from replicator.domain.versions import EPOCH_DIGITS, GENERATION_DIGITS, is_ordered_version
from replicator.rulebook import rule_of

if TYPE_CHECKING:
    from replicator.adapters.aws import Place
    from replicator.adapters.redis import RedisCache
    from replicator.domain.records import ItemKey
    from replicator.settings import RuleSettings, Settings

_DIGEST = 16


class RuleUnknown(ReplicatorError):
    """There is no rule of this name."""

    exit_code = EXIT_USAGE


class _Open:
    """A fence for reads, which need none."""

    def check(self) -> None:
        """Nothing stands in the way."""


@dataclass(frozen=True, slots=True)
class Sight:
    """One place where the item may be. `item`: what is there; `version`: its stamp, or the entry's."""

    role: str
    region: str
    name: str
    state: str
    version: str | None = None
    item: Image | None = None
    agrees: bool | None = None
    key: str | None = None

    def document(self, *, values: bool) -> dict[str, Any]:
        """As JSON; the content only when asked for."""
        content = None if self.item is None else msgspec.json.decode(self.item.wire)
        return {
            "role": self.role,
            "region": self.region,
            "name": self.name,
            "key": self.key,
            "state": self.state,
            "version": self.version,
            "bytes": None if self.item is None else len(self.item.wire),
            "content_hash": _digest(self.item),
            "agrees": self.agrees,
            **({"item": content} if values else {}),
        }


def inspect_item(config: Path | None, rule_name: str, key: str, *, values: bool, as_json: bool) -> int:
    """Look everywhere and tell."""
    settings = load(configuration_path(config))
    rule = next((rule for rule in settings.rules if rule.name == rule_name), None)
    if rule is None:
        known = ", ".join(rule.name for rule in settings.rules)
        raise RuleUnknown(f"There is no rule {rule_name}.", advice=f"Rules are: {known}.")
    item_key, sights = asyncio.run(_look(settings, rule, key))
    agree = all(sight.agrees is not False for sight in sights)
    if as_json:
        rows = [sight.document(values=values) for sight in sights]
        key_document = msgspec.json.decode(item_key.wire)
        print_json({"rule": rule.name, "key": key_document, "agree": agree, "places": rows})
        return EXIT_STOPPED
    columns = ["what", "where", "state", "version", "bytes", "content", "agrees"]
    print_rows(columns + ["item"] * values, [_row(sight, values=values) for sight in sights])
    sys.stdout.write(f"{_summary(rule, agree=agree)}\n")
    return EXIT_STOPPED


def _summary(rule: RuleSettings, *, agree: bool) -> str:
    filtered = " (its filter applied)" if rule.filter.model_fields_set else ""
    if agree:
        return f"All places agree with the source{filtered}."
    return f"Places differ from the source{filtered}; a change that is still on its way shows so for a moment."


def _row(sight: Sight, *, values: bool) -> list[str]:
    agrees = {True: "yes", False: "NO", None: ""}[sight.agrees]
    where = f"{sight.name} in {sight.region}" + (f", key {sight.key}" if sight.key else "")
    size = "" if sight.item is None else str(len(sight.item.wire))
    row = [sight.role, where, sight.state, _short(sight.version), size, _digest(sight.item) or "", agrees]
    return [*row, sight.item.wire.decode() if sight.item else ""] if values else row


def _short(version: str | None) -> str:
    """A version for people: epoch, stream generation and sequence number without the zeros that pad them."""
    if version is None or not is_ordered_version(version):
        return version or ""
    generation_end = EPOCH_DIGITS + GENERATION_DIGITS
    parts = (version[:EPOCH_DIGITS], version[EPOCH_DIGITS:generation_end], version[generation_end:])
    return ".".join(str(int(part)) for part in parts)


def _digest(item: Image | None) -> str | None:
    return None if item is None else content_hash(item)[:_DIGEST]


# -- looking -------------------------------------------------------------------------------------------------------


async def _look(settings: Settings, rule: RuleSettings, text: str) -> tuple[ItemKey, list[Sight]]:
    regions = {rule.source, *(region for region, _ in rule.replica_tables)}
    names = {action.cache for action in rule.cache}
    async with open_places(settings, regions) as places, open_caches(settings, names) as caches:
        key = parse_key(text, (await describe(places[rule.source], rule.table)).keys)
        where = [(rule.source, rule.table), *rule.replica_tables]
        items = await asyncio.gather(*(_item(settings, places[region], table, key) for region, table in where))
        tombstones = await asyncio.gather(
            *(_tombstone(settings, places[region], table, key) for region, table in rule.replica_tables)
        )
        source = items[0]
        by_region = {region: item for (region, _), item in zip(where, items, strict=True)}
        sights = [Sight("source", rule.source, rule.table, _presence(source), None, source)]
        wanted = _wanted(settings, rule, source)
        for (region, table), item, tombstone in zip(rule.replica_tables, items[1:], tombstones, strict=True):
            sights.append(_replica(region, table, item, wanted))
            state = "none" if tombstone is None else "there"
            sights.append(Sight("tombstone", region, settings.side_table_name, state, tombstone))
        keys = _keys(settings, rule, key, by_region)
        entries = await asyncio.gather(
            *(_entry(settings, caches[name], name, entry, by_region) for name, entry in keys)
        )
        return key, [*sights, *entries]


def _presence(item: Image | None) -> str:
    return "absent" if item is None else "present"


def _wanted(settings: Settings, rule: RuleSettings, source: Image | None) -> Image | None:
    """What the replicas should hold: the source's item, unless the rule's filter keeps it out."""
    try:
        return source if rule_of(settings, rule).filter.matches(source) else None
    except PoisonRecord:  # the filter cannot judge it, so its shard stands still
        return source


def _replica(region: str, table: str, item: Image | None, wanted: Image | None) -> Sight:
    same = _digest(item) == _digest(wanted)
    return Sight("replica", region, table, _presence(item), item.stamp if item else None, item, same)


async def _item(settings: Settings, place: Place, table: str, key: ItemKey) -> Image | None:
    answer = await _region(settings, place, table).execute(GetItem(key), _Open())
    return answer.item if isinstance(answer, Found) else None


async def _tombstone(settings: Settings, place: Place, table: str, key: ItemKey) -> str | None:
    answer = await _region(settings, place, table).execute(GetTombstone(key), _Open())
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


# -- caches --------------------------------------------------------------------------------------------------------


def _keys(
    settings: Settings, rule: RuleSettings, key: ItemKey, by_region: Mapping[str, Image | None]
) -> Iterator[tuple[str, str]]:
    """(cache, entry key) for every key that the item has at the source or beside the cache, or by its key alone."""
    for action in rule.cache:
        template = KeyTemplate(action.key)
        images = [by_region[rule.source], by_region.get(settings.caches[action.cache].region)]
        present = [image for image in images if image is not None] or [Image(key.wire)]
        found = {template.key(image): None for image in present}
        yield from ((action.cache, cache_key) for cache_key in found if cache_key is not None)


async def _entry(
    settings: Settings, cache: RedisCache, name: str, key: str, by_region: Mapping[str, Image | None]
) -> Sight:
    region = settings.caches[name].region
    raw = await cache.get(key)
    beside = by_region.get(region)
    if raw is None:
        return Sight("cache", region, name, "absent", agrees=True, key=key)
    kind, rest = raw[:2], raw[2:]
    if kind == b"V:":
        version, _, payload = rest.partition(b"|")
        image = _image(payload)
        agrees = beside is not None and image is not None and content_hash(image) == content_hash(beside)
        return Sight("cache", region, name, "value", version.decode(errors="replace"), image, agrees, key)
    if kind == b"T:":
        return Sight("cache", region, name, "deleted", rest.decode(errors="replace"), None, beside is None, key)
    if kind == b"L:":
        return Sight("cache", region, name, "being filled", None, None, None, key)
    return Sight("cache", region, name, f"foreign entry of {len(raw)} bytes", key=key)


def _image(payload: bytes) -> Image | None:
    image = Image(payload)
    try:
        content_hash(image)
    except (msgspec.DecodeError, ValueError, ArithmeticError):
        return None
    return image
