"""The cache entries of one item, each beside the item of its region."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

import msgspec

from replicator.domain.cache_values import Shape
from replicator.domain.copying.entries import as_read
from replicator.domain.errors import Unreachable
from replicator.domain.image import Image, unreserved
from replicator.operations.item_copies import ItemCopy, digest, or_unknown, unreachable

if TYPE_CHECKING:
    from replicator.adapters.redis.cluster import CacheClient
    from replicator.domain.records import ItemKey
    from replicator.settings import RuleSettings, Settings


async def cached_copies(  # noqa: PLR0913, PLR0917 - what is looked for, and what was found so far
    settings: Settings,
    rule: RuleSettings,
    caches: Mapping[str, CacheClient],
    key: ItemKey,
    beside: Mapping[str, ItemCopy],
    stamp: str,
    there: Mapping[str, ItemKey],
) -> list[ItemCopy]:
    """Every entry that follows the item; `beside`: the items by region, `stamp`: the attribute that is no content.

    `there`: the item's key in regions that have another one.
    """
    keys = {(name, entry): shape for name, entry, shape in _keys(settings, rule, key, beside, there)}
    return await asyncio.gather(
        *(_entry(settings, caches[name], name, entry, shape, beside, stamp) for (name, entry), shape in keys.items())
    )


def _keys(
    settings: Settings,
    rule: RuleSettings,
    key: ItemKey,
    beside: Mapping[str, ItemCopy],
    there: Mapping[str, ItemKey],
) -> Iterator[tuple[str, str, Shape]]:
    """(cache, entry key, format) of every key that the item has where users write or beside the cache.

    Where there is none, those that its primary key makes.
    """
    for action in rule.cache:
        if action.action == "publish":
            continue
        shape = Shape(action.value, action.numbers, tuple(action.attributes))
        template = action.template(settings.caches)
        at = settings.caches[action.cache].region
        regions = [at] if at in there else [*(region for region, _ in rule.sources), at]
        copies = [beside[region] for region in regions if region in beside]
        present = [copy.item for copy in copies if copy.item is not None] or [Image(there.get(at, key).wire)]
        found = dict.fromkeys(cache_key for image in present for cache_key in template.keys(image))
        yield from ((action.cache, cache_key, shape) for cache_key in found)


async def _entry(  # noqa: PLR0913, PLR0917 - as above
    settings: Settings,
    cache: CacheClient,
    name: str,
    key: str,
    shape: Shape,
    beside: Mapping[str, ItemCopy],
    stamp: str,
) -> ItemCopy:
    region = settings.caches[name].region
    raw = await or_unknown(cache.get(key))
    if isinstance(raw, Unreachable):
        return unreachable("cache", region, name, raw, key)
    copy = beside.get(region)
    item = None if copy is None else copy.item
    known = copy is None or copy.trouble is None
    if raw is None:
        return ItemCopy("cache", region, name, "absent", agrees=True, key=key)
    entry = as_read(raw)
    kind, rest = entry[:2], entry[2:]
    if kind == b"V:":
        version, _, payload = rest.partition(b"|")
        image = _image(payload) if shape.is_whole else None
        if shape.is_whole:
            same = item is not None and image is not None and digest(image, stamp) == digest(item, stamp)
        else:
            same = item is not None and shape.encode(unreserved(item, stamp).attributes) == payload
        agrees = same if known else None
        return ItemCopy("cache", region, name, "value", version.decode(errors="replace"), image, agrees, key, stamp)
    if kind == b"T:":
        agrees = item is None if known else None
        return ItemCopy("cache", region, name, "deleted", rest.decode(errors="replace"), None, agrees, key)
    if kind == b"L:":
        return ItemCopy("cache", region, name, "being filled", None, None, None, key)
    return ItemCopy("cache", region, name, f"foreign entry of {len(raw)} bytes", key=key)


def _image(payload: bytes) -> Image | None:
    image = Image(payload)
    try:
        digest(image)
    except (msgspec.DecodeError, ValueError, ArithmeticError):
        return None
    return image
