"""Ports to what a change is applied to: regions, caches and the conflict log, under a fence."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from replicator.domain.cache_keys import CacheAction
from replicator.domain.conflicts import ConflictEntry
from replicator.domain.modes.requests import Request, Response


class Fence(Protocol):
    """Stands before every send."""

    def check(self) -> None:
        """Raise `LeaseLost` when the lease's deadline has passed; suspended time counts."""


class Region(Protocol):
    """One region's table and its side rows."""

    async def execute(self, request: Request, fence: Fence) -> Response:
        """Carry a request out; the fence is checked right before the send."""


class Cache(Protocol):
    """One cache beside a region's table."""

    async def apply(self, actions: Sequence[CacheAction]) -> int:
        """Carry the actions out; returns how many entries changed."""


class ConflictLog(Protocol):
    """Conflict entries: data, durable before the checkpoint passes the record."""

    async def write(self, entry: ConflictEntry) -> None:
        """Make the entry durable; an entry whose id is there already stays as it was."""
