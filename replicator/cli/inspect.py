"""`replicator inspect`: one item everywhere - source, replicas, tombstones, cache entries - and whether they agree.

Contents are shown only when asked for; a digest of the content tells whether two are the same.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from replicator.adapters import wire
from replicator.adapters.clock import SystemClock
from replicator.adapters.provisioning.facts import for_the_end
from replicator.adapters.provisioning.tables import Table, describe
from replicator.adapters.tables import DynamoRegion
from replicator.cli.configuration import configuration_path, load
from replicator.cli.itemkey import parse_key
from replicator.cli.output import print_json, print_rows
from replicator.connections import open_caches, open_places
from replicator.domain.errors import (
    EXIT_STOPPED,
    EXIT_UNREACHABLE,
    EXIT_USAGE,
    PoisonRecord,
    ReplicatorError,
    Unreachable,
)
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
Seen = TypeVar("Seen")


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
    trouble: str | None = None
    """Why nothing is known about this place."""

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
    troubles = list(dict.fromkeys(sight.trouble for sight in sights if sight.trouble is not None))
    agree = None if troubles else all(sight.agrees is not False for sight in sights)
    for trouble in troubles:
        sys.stderr.write(f"replicator: {trouble}\n")
    code = EXIT_UNREACHABLE if troubles else EXIT_STOPPED
    if as_json:
        rows = [sight.document(values=values) for sight in sights]
        key_document = msgspec.json.decode(item_key.wire)
        print_json({"rule": rule.name, "key": key_document, "agree": agree, "places": rows})
        return code
    columns = ["what", "where", "state", "version", "bytes", "content", "agrees"]
    print_rows(columns + ["item"] * values, [_row(sight, values=values) for sight in sights])
    sys.stdout.write(f"{_summary(rule, agree=agree)}\n")
    return code


def _summary(rule: RuleSettings, *, agree: bool | None) -> str:
    if agree is None:
        return "Not every place answered, so whether all agree is unknown."
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
        key = parse_key(text, (await _described(rule, places)).keys)
        where = [(rule.source, rule.table), *rule.replica_tables]
        items = await asyncio.gather(
            *(_or_unknown(_item(settings, places[region], table, key)) for region, table in where)
        )
        tombstones = await asyncio.gather(
            *(_or_unknown(_tombstone(settings, places[region], table, key)) for region, table in rule.replica_tables)
        )
        source = items[0]
        by_region = {region: item for (region, _), item in zip(where, items, strict=True)}
        sights = [_sight("source", rule.source, rule.table, source)]
        wanted = source if isinstance(source, Unreachable) else _wanted(settings, rule, source)
        for (region, table), item, tombstone in zip(rule.replica_tables, items[1:], tombstones, strict=True):
            sights.append(_replica(region, table, item, wanted))
            sights.append(_sight("tombstone", region, settings.side_table_name, tombstone))
        keys = _keys(settings, rule, key, by_region)
        entries = await asyncio.gather(
            *(_entry(settings, caches[name], name, entry, by_region) for name, entry in keys)
        )
        return key, [*sights, *entries]


async def _described(rule: RuleSettings, places: Mapping[str, Place]) -> Table:
    """The first of the rule's tables that answers; their keys are the same."""
    first: Unreachable | None = None
    for region, table in ((rule.source, rule.table), *rule.replica_tables):
        try:
            return await describe(places[region], table)
        except Unreachable as error:
            first = first or error
    assert first is not None, "a rule has a source"
    raise first


async def _or_unknown(look: Awaitable[Seen]) -> Seen | Unreachable:
    """What is seen, or why nothing is: one place that does not answer hides no other."""
    try:
        return await look
    except Unreachable as error:
        return error


def _sight(role: str, region: str, name: str, seen: Image | str | Unreachable | None, key: str | None = None) -> Sight:
    """A place as it is: with an item, with a tombstone's version, or without an answer."""
    if isinstance(seen, Unreachable):
        return Sight(role, region, name, "unreachable", key=key, trouble=for_the_end(seen.sentence))
    if role == "tombstone":
        return Sight(role, region, name, "none" if seen is None else "there", seen if isinstance(seen, str) else None)
    item = seen if isinstance(seen, Image) else None
    return Sight(role, region, name, _presence(item), None, item)


def _presence(item: Image | None) -> str:
    return "absent" if item is None else "present"


def _wanted(settings: Settings, rule: RuleSettings, source: Image | None) -> Image | None:
    """What the replicas should hold: the source's item, unless the rule's filter keeps it out."""
    try:
        return source if rule_of(settings, rule).filter.matches(source) else None
    except PoisonRecord:  # the filter cannot judge it, so its shard stands still
        return source


def _replica(region: str, table: str, item: Image | Unreachable | None, wanted: Image | Unreachable | None) -> Sight:
    if isinstance(item, Unreachable):
        return _sight("replica", region, table, item)
    same = None if isinstance(wanted, Unreachable) else _digest(item) == _digest(wanted)
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
    settings: Settings, rule: RuleSettings, key: ItemKey, by_region: Mapping[str, Image | Unreachable | None]
) -> Iterator[tuple[str, str]]:
    """(cache, entry key) for every key that the item has at the source or beside the cache, or by its key alone."""
    for action in rule.cache:
        template = KeyTemplate(action.key)
        images = [by_region[rule.source], by_region.get(settings.caches[action.cache].region)]
        present = [image for image in images if isinstance(image, Image)] or [Image(key.wire)]
        found = {template.key(image): None for image in present}
        yield from ((action.cache, cache_key) for cache_key in found if cache_key is not None)


async def _entry(
    settings: Settings, cache: RedisCache, name: str, key: str, by_region: Mapping[str, Image | Unreachable | None]
) -> Sight:
    region = settings.caches[name].region
    raw = await _or_unknown(cache.get(key))
    if isinstance(raw, Unreachable):
        return _sight("cache", region, name, raw, key)
    beside = by_region.get(region)
    unknown = isinstance(beside, Unreachable)
    if raw is None:
        return Sight("cache", region, name, "absent", agrees=True, key=key)
    kind, rest = raw[:2], raw[2:]
    if kind == b"V:":
        version, _, payload = rest.partition(b"|")
        image = _image(payload)
        same = isinstance(beside, Image) and image is not None and content_hash(image) == content_hash(beside)
        agrees = None if unknown else same
        return Sight("cache", region, name, "value", version.decode(errors="replace"), image, agrees, key)
    if kind == b"T:":
        return Sight(
            "cache",
            region,
            name,
            "deleted",
            rest.decode(errors="replace"),
            None,
            None if unknown else beside is None,
            key,
        )
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
