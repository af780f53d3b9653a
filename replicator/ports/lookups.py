"""The port to items by their keys, many at a time: what a comparison of tables asks the other side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from replicator.domain.image import Image
from replicator.domain.records import ItemKey

MOST_KEYS = 100
"""Keys of one look-up; DynamoDB takes no more."""


@dataclass(frozen=True, slots=True)
class LookedUp:
    """What was found, and the read units that it took."""

    items: Mapping[ItemKey, Image]
    units: float = field(default=0.0, compare=False)


class Lookups(Protocol):
    """One table, asked for many items at once."""

    async def items(self, keys: Sequence[ItemKey]) -> LookedUp:
        """The items of at most `MOST_KEYS` different keys, read consistently; a key without an item is left out."""
