"""Readers for caches that replicator keeps in step with tables: nothing stale stays.

It needs `redis` and the standard library. An entry is filled only under a lease that the daemon drops with every
change, and only with what was read consistently from the table beside the cache.
"""

from replicator.cache.aside import CacheAside, SyncCacheAside, cached
from replicator.cache.codecs import ITEM, JSON, Codec, plain_item
from replicator.cache.dynamodb import dynamodb_loader
from replicator.cache.reading import Loaded, Reading, Source
from replicator.cache.scripts import FILL, LOOK, LOOK_TAGGED

__all__ = [
    "FILL",
    "ITEM",
    "JSON",
    "LOOK",
    "LOOK_TAGGED",
    "CacheAside",
    "Codec",
    "Loaded",
    "Reading",
    "Source",
    "SyncCacheAside",
    "cached",
    "dynamodb_loader",
    "plain_item",
]
