"""What one cache is owed, in memory. Invariant: as the contract suite demands of every such port."""

from __future__ import annotations

from collections.abc import Sequence

from replicator.domain.cache_debt import OwedEntry, OwedFlush, SeenServer
from replicator.laboratory.memory.faults import Faults
from replicator.ports.cache_debt import DebtPage


class MemoryCacheDebt:
    """Rows by id; `rows_per_page` bounds a page as a table does by size."""

    def __init__(self, faults: Faults | None = None) -> None:
        self.faults = faults or Faults()
        self.rows_per_page = 1000
        self.rows: dict[str, OwedEntry] = {}
        self.flush_row: OwedFlush | None = None
        self.server_row: SeenServer | None = None

    async def put(self, entries: Sequence[OwedEntry]) -> None:
        """Make entries owed."""
        async with self.faults.around("put_debt"):
            self.rows.update((entry.row_id, entry) for entry in entries)

    async def page(self, after: str | None = None) -> DebtPage:
        """Rows, in the order of their ids."""
        async with self.faults.around("page_debt"):
            ids = sorted(row_id for row_id in self.rows if row_id > (after or ""))
            page = ids[: self.rows_per_page]
            return DebtPage(tuple(self.rows[row_id] for row_id in page), page[-1] if len(page) < len(ids) else None)

    async def settle(self, entries: Sequence[OwedEntry]) -> None:
        """Take rows away that still bear the token of their entry."""
        async with self.faults.around("settle_debt"):
            for entry in entries:
                standing = self.rows.get(entry.row_id)
                if standing is not None and standing.token == entry.token:
                    del self.rows[entry.row_id]

    async def server(self) -> SeenServer | None:
        """The server that was noted last."""
        async with self.faults.around("page_debt"):
            return self.server_row

    async def put_server(self, server: SeenServer) -> None:
        """Note the server that answers now."""
        async with self.faults.around("put_debt"):
            self.server_row = server

    async def put_flush(self, flush: OwedFlush) -> None:
        """Make a flush owed."""
        async with self.faults.around("put_debt"):
            self.flush_row = flush

    async def flush(self) -> OwedFlush | None:
        """The flush that is owed."""
        async with self.faults.around("page_debt"):
            return self.flush_row

    async def settle_flush(self, flush: OwedFlush) -> None:
        """Take the flush away if it still bears this token."""
        async with self.faults.around("settle_debt"):
            if self.flush_row is not None and self.flush_row.token == flush.token:
                self.flush_row = None
