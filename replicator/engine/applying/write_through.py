"""Filling entries that were absent when their item changed: as a reader does, from the table, behind the lease.

Invariant: an entry is stored only under the lease that stood before its item was read consistently, so a fill that is
late, or of a repeated record, finds its lease gone. What fails leaves the entry absent.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

from replicator.domain.cache_keys import CacheRule
from replicator.domain.copying.entries import item_version
from replicator.domain.errors import LeaseLost, ReplicatorError
from replicator.domain.image import Image, unreserved
from replicator.domain.modes.requests import Found, GetItem
from replicator.domain.records import ItemKey
from replicator.engine.applying.cache_batcher import CacheFunnel, CacheRequest
from replicator.ports.targets import CacheFill, Fence, Region

_AT_ONCE = 16


async def fill_leased(
    asked: Sequence[tuple[ItemKey, CacheRequest]],
    region: Region,
    caches: Mapping[str, CacheFunnel],
    fence: Fence,
    *,
    versioned: bool = True,
) -> None:
    """Fill the entries of these requests that were leased; without `versioned` they get no version."""
    keys = list(dict.fromkeys(key for key, _ in asked))
    items: dict[ItemKey, Image | None] = {}
    for start in range(0, len(keys), _AT_ONCE):
        some = keys[start : start + _AT_ONCE]
        answers = await asyncio.gather(*(region.execute(GetItem(key), fence) for key in some), return_exceptions=True)
        for key, answer in zip(some, answers, strict=True):
            if isinstance(answer, Found):
                items[key] = answer.item
            elif isinstance(answer, BaseException) and not isinstance(answer, ReplicatorError):
                raise answer
    fills: dict[str, list[CacheFill]] = {}
    for key, request in asked:
        if key in items and request.rule is not None:
            fills.setdefault(request.cache, []).extend(_fills(request, request.rule, items[key], versioned=versioned))
    for cache, found in fills.items():
        try:
            await caches[cache].fill(found, fence)
        except LeaseLost:  # the next worker's actions find a lease, and drop it
            return


def _fills(request: CacheRequest, rule: CacheRule, item: Image | None, *, versioned: bool) -> list[CacheFill]:
    """What is stored of an item as it was read; nothing under a key that it has no longer, or that is too large."""
    if item is None:
        # Absence has no version: whatever comes next, older or newer, drops this marker.
        return [CacheFill(key, lease, b"T:", rule.life_ms(key, "", gone=True)) for key, lease in request.leased.items()]
    content, version = unreserved(item), (item_version(item) or "") if versioned else ""
    payload = rule.payload(content)
    if rule.max_bytes is not None and len(payload) > rule.max_bytes:
        return []
    entry, now = b"V:%b|%b" % (version.encode(), payload), rule.keys(content)
    return [
        CacheFill(key, lease, entry, rule.life_ms(key, version, gone=False), rule.shape.is_hash)
        for key, lease in request.leased.items()
        if key in now
    ]
