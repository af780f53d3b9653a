"""The table in which a canary is written, in memory."""

from __future__ import annotations

from collections.abc import Callable

from replicator.domain.canary import Schema
from replicator.domain.image import Image
from replicator.domain.records import ItemKey, key_of


class MemoryCanaryTable:
    """A table whose key is `pk`; `write` puts an item there as its users do."""

    def __init__(self, write: Callable[[ItemKey, Image], None]) -> None:
        self._write = write
        self._schema = Schema((("pk", "S"),))

    async def schema(self) -> Schema:
        """How its items look."""
        return self._schema

    async def put(self, item: Image) -> None:
        """Write an item."""
        self._write(key_of({name: item.attributes[name] for name, _ in self._schema.keys}), item)
