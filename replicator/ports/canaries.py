"""Port to the table in which a rule's canary is written."""

from __future__ import annotations

from typing import Protocol

from replicator.domain.canary import Schema
from replicator.domain.image import Image


class CanaryTable(Protocol):
    """A source table, as a user of it writes there."""

    async def schema(self) -> Schema:
        """How its items must look."""

    async def put(self, item: Image) -> None:
        """Write an item over whatever its key holds."""
