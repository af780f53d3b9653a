"""The port to items by their keys, many at a time: what a comparison of tables asks the other side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from msgspec import Struct

from replicator.domain.image import Image
from replicator.domain.records import ItemKey

MOST_KEYS = 100
"""Keys of one look-up; DynamoDB takes no more."""


class LookedUp(Struct, frozen=True):
    """What was found, and the read units that it took."""

    items: Mapping[ItemKey, Image]
    units: float = 0.0

    def __eq__(self, other: object) -> bool:
        return self.items == other.items if isinstance(other, LookedUp) else NotImplemented

    __hash__ = None  # type: ignore[assignment]  # its items have none


class Lookups(Protocol):
    """One table, asked for many items at once."""

    async def items(self, keys: Sequence[ItemKey]) -> LookedUp:
        """The items of at most `MOST_KEYS` different keys, read consistently; a key without an item is left out."""
