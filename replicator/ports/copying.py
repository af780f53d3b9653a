"""Ports to tables as jobs read them: whole, page by page."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from msgspec import Struct

from replicator.domain.image import Image
from replicator.domain.records import ItemKey


class ScannedItem(Struct, frozen=True):
    """An item of a scan, with its key."""

    key: ItemKey
    image: Image


class ScannedPage(Struct, frozen=True):
    """One answer of a scan. `after`: the place behind it, for the next one; None: there is nothing more.

    `at`: a time at which the answer had been given for certain, by the server's clock, in seconds since 1970; None when
    it does not tell. `units`: read units that it took.
    """

    items: tuple[ScannedItem, ...]
    after: str | None
    at: float | None
    units: float


KeyReader = Callable[[bytes], ItemKey]
"""Reads the key out of an item's bytes."""


class Scan(Protocol):
    """One region's table, to be read as a whole."""

    async def key_reader(self) -> KeyReader:
        """What reads keys of this table."""

    async def page(self, segment: int, of: int, after: str | None, most: int | None = None) -> ScannedPage:
        """The next page of one of `of` segments, read consistently; `after` is where the page before it ended.

        It has at most `most` items.
        """
