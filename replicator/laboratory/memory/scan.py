"""A scan of a table in memory.

Invariant: a segment shows its keys in one order, whatever is written meanwhile, each as it is when its page is read.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from zlib import crc32

import msgspec

from replicator.domain.image import Image
from replicator.domain.records import ItemKey, item_key
from replicator.laboratory.memory.faults import Faults
from replicator.ports.copying import KeyReader, ScannedItem, ScannedPage


class _Keyed(msgspec.Struct):
    pk: msgspec.Raw


_PK = msgspec.json.Decoder(_Keyed)


class MemoryScan:
    """One region's table, to be read as a whole."""

    def __init__(
        self,
        items: Callable[[], Mapping[ItemKey, Image]],
        now: Callable[[], float],
        *,
        page_items: int = 10,
        faults: Faults | None = None,
    ) -> None:
        self._items = items
        self._now = now
        self._page_items = page_items
        self.faults = faults or Faults()
        self.pages = 0
        """How many pages were read so far."""

    async def key_reader(self) -> KeyReader:
        """What reads keys of this table, whose key is `pk`."""
        return lambda wire: item_key(b'{"pk":%b}' % _PK.decode(wire).pk)

    async def page(self, segment: int, of: int, after: str | None, most: int | None = None) -> ScannedPage:
        """The next page of one of `of` segments, of at most `most` items."""
        async with self.faults.around("scan"):
            self.pages += 1
            known = self._items()
            start = None if after is None else item_key(after.encode()).parts
            keys = sorted((key for key in known if crc32(key.wire) % of == segment), key=lambda key: key.parts)
            left = [key for key in keys if start is None or key.parts > start]
            page = left[: min(self._page_items, most or self._page_items)]
            return ScannedPage(
                tuple(ScannedItem(key, known[key]) for key in page),
                page[-1].wire.decode() if len(left) > len(page) else None,
                self._now(),
                float(len(page)),
            )
