"""A table whose keys are made from those of a source: asked by the source's keys, and answering by them.

Invariants: what stands behind these ports never sees a key of the source, nor what stands before them one of the
table; and an item whose key is no image of the mapping is another rule's, or another program's: it is never shown.
Side rows are those of the table's keys, because they are checked together with its items. An item that can have no key
there is not there: it is read and deleted as what is missing, and only a put of it is refused.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from replicator.domain.conflicts import LogConflict
from replicator.domain.errors import PoisonRecord
from replicator.domain.key_mapping import KeyMapping
from replicator.domain.modes.requests import (
    Delete,
    Done,
    Found,
    GetItem,
    GetTombstone,
    GuardedPut,
    Put,
    RaiseTombstone,
    Request,
    Response,
    Unstamp,
)
from replicator.domain.records import ItemKey
from replicator.ports.copying import KeyReader, Scan, ScannedItem, ScannedPage
from replicator.ports.lookups import LookedUp, Lookups
from replicator.ports.targets import Fence, Region


def mapped(request: Request, mapping: KeyMapping) -> Request | Done | Found:
    """A request by the source's key as one by the table's, or the answer where there can be no such item."""
    if isinstance(request, GuardedPut):
        return GuardedPut(_put(request.put, mapping), request.guard)
    if isinstance(request, Put):
        return _put(request, mapping)
    assert isinstance(request, Delete | RaiseTombstone | GetItem | GetTombstone | Unstamp), "mode ordered"
    try:
        return msgspec.structs.replace(request, key=mapping.mapped(request.key))
    except PoisonRecord:
        return Found() if isinstance(request, GetItem | GetTombstone) else Done()


def _put(put: Put, mapping: KeyMapping) -> Put:
    return msgspec.structs.replace(put, key=mapping.mapped(put.key))


class MappedRegion:
    """A table and its side rows."""

    def __init__(self, region: Region, mapping: KeyMapping) -> None:
        self._region = region
        self._mapping = mapping

    async def execute(self, request: Request, fence: Fence) -> Response:
        """Carry a request out by the table's key."""
        assert not isinstance(request, LogConflict), "an entry of the log belongs to no table"
        there = mapped(request, self._mapping)
        return there if isinstance(there, Done | Found) else await self._region.execute(there, fence)


class MappedLookups:
    """The table, asked for many items at once."""

    def __init__(self, lookups: Lookups, mapping: KeyMapping) -> None:
        self._lookups = lookups
        self._mapping = mapping

    async def items(self, keys: Sequence[ItemKey]) -> LookedUp:
        """The items of the source's keys."""
        there: dict[ItemKey, ItemKey] = {}
        for key in keys:
            try:
                there[self._mapping.mapped(key)] = key
            except PoisonRecord:
                continue
        found = await self._lookups.items(list(there))
        return LookedUp({there[key]: item for key, item in found.items.items()}, found.units)


class MappedScan:
    """The table, to be read as a whole: of its items those that are of the mapping."""

    def __init__(self, scan: Scan, mapping: KeyMapping) -> None:
        self._scan = scan
        self._mapping = mapping

    async def key_reader(self) -> KeyReader:
        """What reads keys of the table itself."""
        return await self._scan.key_reader()

    async def page(self, segment: int, of: int, after: str | None, most: int | None = None) -> ScannedPage:
        """The next page, which may have fewer items than were read."""
        page = await self._scan.page(segment, of, after, most)
        keyed = ((self._mapping.source_of(item.key), item.image) for item in page.items)
        items = tuple(ScannedItem(key, image) for key, image in keyed if key is not None)
        return ScannedPage(items, page.after, page.at, page.units)


def as_mapped(region: Region, mapping: KeyMapping | None) -> Region:
    """A table by the source's keys; as it is where these are its own."""
    return region if mapping is None else MappedRegion(region, mapping)
