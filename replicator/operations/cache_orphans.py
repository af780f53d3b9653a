"""Entries of items that are gone: whatever a cache shows of them is stale until it expires.

A comparison of tables goes by their items, so it meets none of these. Here a cache is gone through by the patterns of
the rules' keys, as far as is asked for, and the item of each entry is looked up consistently. Invariant: an entry
counts only when two looks, apart, find the same value and no item that has it; each reads the entry first, so an item
that comes in between, or whose drop is under way, explains it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from replicator.adapters.clients import open_caches
from replicator.checks.described_tables import describe
from replicator.checks.table_choices import with_tables
from replicator.domain.cache_keys import Invalidate
from replicator.domain.copying.entries import as_read
from replicator.domain.key_templates import KeyTemplate
from replicator.domain.records import ItemKey
from replicator.engine.bounded import each, raise_first
from replicator.operations.group import rule_named
from replicator.operations.item_region import item_in, region_of
from replicator.settings.compiled_rules import rule_per_source

if TYPE_CHECKING:
    from replicator.adapters.redis.cluster import CacheClient
    from replicator.operations.group import Group
    from replicator.ports.targets import Region
    from replicator.settings import Settings

MOST = 10_000
"""Entries of a template that are looked at, unless more are asked for."""

SHOWN = 100
_APART_SECONDS = 60.0
_AT_ONCE = 16
_VALUE, _LEASE, _MARKER = b"V:", b"L:", b"T:"
_CanHave = tuple["Region", Mapping[str, str]]
"""A table that may hold the item of an entry, and the types of its key."""


@dataclass(frozen=True, slots=True)
class OrphanRequest:
    """What is asked for. `most`: entries of each template; `apart`: seconds between the two looks."""

    rule: str | None = None
    most: int = MOST
    drop: bool = False
    apart: float = _APART_SECONDS


@dataclass(frozen=True, slots=True)
class Orphans:
    """What was found of one template in one cache. `more`: there are entries that were not looked at.

    `opaque`: entries of another format. `unknown`: why nothing can be said. `keys`: some of the orphans.
    """

    cache: str
    template: str
    rules: Sequence[str]
    looked_at: int = 0
    opaque: int = 0
    orphans: int = 0
    dropped: int = 0
    more: bool = False
    keys: Sequence[str] = ()
    unknown: str = ""


@dataclass(slots=True)
class _Used:
    """A template, and where the items of its entries may be: rules may share one."""

    key: KeyTemplate
    rules: list[str] = field(default_factory=list)
    places: list[tuple[str, str]] = field(default_factory=list)


def regions_of(settings: Settings) -> set[str]:
    """Regions whose tables may be asked for."""
    return {region for rule in settings.rules for region in rule.regions_used}


async def find_orphans(group: Group, request: OrphanRequest) -> list[Orphans]:
    """Look at each template of each cache; the group has clients of every region of the rules."""
    if request.rule is not None:
        rule_named(group.settings, request.rule)
    used = _used(await with_tables(group.settings, group.places))
    wanted = {name: one for name, one in used.items() if request.rule in {None, *one.rules}}
    found = []
    async with open_caches(group.settings, {cache for cache, _ in wanted}) as caches:
        for (cache, _), one in sorted(wanted.items()):
            found.append(await _of_template(group, cache, caches[cache], one, request))
    return found


def _used(settings: Settings) -> dict[tuple[str, str], _Used]:
    used: dict[tuple[str, str], _Used] = {}
    for written in settings.rules:
        for rule in rule_per_source(settings, written) if written.sources else ():
            for target in rule.targets:
                for cache in target.caches if target.sink is None else ():
                    if cache.publication is None:
                        one = used.setdefault((cache.cache, cache.key.pattern), _Used(cache.key))
                        one.rules += [] if rule.name in one.rules else [rule.name]
                        place = (target.region, target.table or rule.table)
                        one.places += [] if place in one.places else [place]
    return used


async def _of_template(group: Group, name: str, cache: CacheClient, used: _Used, request: OrphanRequest) -> Orphans:
    tables: list[_CanHave] = []
    for region, table in used.places:
        keys = dict((await describe(group.places[region], table)).keys)
        if used.key.lacks(keys) or used.key.listed in keys:
            why = f"The template leaves out a part of the primary key of {region}:{table}."
            return Orphans(name, used.key.template, used.rules, unknown=why)
        tables.append((region_of(group.settings, group.places[region], table), keys))
    look = _Look(cache, used.key, tables)
    seen: dict[str, bytes] = {}
    looked_at = opaque = 0
    more = False
    async for page in cache.matching(used.key.pattern):
        if looked_at >= request.most:
            more = True
            break
        part = list(dict.fromkeys(page))[: request.most - looked_at]
        more = more or len(part) < len(page)
        values, strange = await look.values(part)
        looked_at, opaque = looked_at + len(part), opaque + strange
        seen |= await look.orphans(values)
    if seen:
        await asyncio.sleep(request.apart)
        values, _ = await look.values(list(seen))
        seen = await look.orphans({key: head for key, head in values.items() if seen[key] == head})
    if request.drop and seen:
        await cache.apply([Invalidate(key) for key in seen])
    return Orphans(
        name,
        used.key.template,
        used.rules,
        looked_at,
        opaque,
        len(seen),
        len(seen) if request.drop else 0,
        more,
        sorted(seen)[:SHOWN],
    )


@dataclass(frozen=True, slots=True)
class _Look:
    """One look at entries, and then at their items."""

    cache: CacheClient
    key: KeyTemplate
    tables: Sequence[_CanHave]

    async def values(self, keys: Sequence[str]) -> tuple[dict[str, bytes], int]:
        """The entries that are values, by their first bytes; and how many are of another format."""
        heads = [as_read(head) for head in await self.cache.heads(keys)] if keys else []
        values = {key: head for key, head in zip(keys, heads, strict=True) if head.startswith(_VALUE) and b"|" in head}
        strange = [head for head in heads if head and not head.startswith((_VALUE, _LEASE, _MARKER))]
        return values, len(strange)

    async def orphans(self, values: Mapping[str, bytes]) -> dict[str, bytes]:
        """Those of which no table has an item that has this entry."""
        found: dict[str, bytes] = {}

        async def one(key: str) -> None:
            parts = self.key.values_in(key)
            if parts is None:
                return  # the pattern matches it, and the template did not make it
            for region, types in self.tables:
                item = await item_in(region, ItemKey(tuple((name, types[name], parts[name]) for name in sorted(types))))
                if item is not None and key in self.key.keys(item):
                    return
            found[key] = values[key]

        raise_first(await each(list(values), one, at_once=_AT_ONCE, name="look an item of an entry up"))
        return found
