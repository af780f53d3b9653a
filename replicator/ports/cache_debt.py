"""The port to what caches are owed: rows that outlive every worker, durable before their records count as done."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from msgspec import Struct

from replicator.domain.cache_debt import OwedEntry, OwedFlush, SeenServer


class DebtPage(Struct, frozen=True):
    """Some rows of a cache. `after` None: nothing follows; else where the next page begins."""

    entries: tuple[OwedEntry, ...]
    after: str | None


class CacheDebtRows(Protocol):
    """What one cache is owed. No fence: a row too many costs a reader one miss."""

    async def put(self, entries: Sequence[OwedEntry]) -> None:
        """Make entries owed, each under its new token; of different keys, a few hundred at most."""

    async def page(self, after: str | None = None) -> DebtPage:
        """Rows, consistently; what is written between two pages may be missed."""

    async def settle(self, entries: Sequence[OwedEntry]) -> None:
        """Take rows away that still bear the token of their entry."""

    async def server(self) -> SeenServer | None:
        """The server that was noted last, consistently."""

    async def put_server(self, server: SeenServer) -> None:
        """Note the server that answers now; what it may have lost is owed before."""

    async def put_flush(self, flush: OwedFlush) -> None:
        """Make a flush owed, under its new token."""

    async def flush(self) -> OwedFlush | None:
        """The flush that is owed, consistently."""

    async def settle_flush(self, flush: OwedFlush) -> None:
        """Take the flush away if it still bears this token."""
