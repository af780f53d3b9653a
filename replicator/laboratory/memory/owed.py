"""Owed keys of one source region in memory. Invariant: a row's version only grows, as the contract suite demands."""

from __future__ import annotations

from replicator.domain.owed_keys import (
    BodyState,
    OwedFor,
    OwedKey,
    OwedTo,
    SettledKey,
    Settlement,
    merged,
    packed,
    settles,
    unpacked,
)
from replicator.domain.values import replace
from replicator.laboratory.memory.faults import Faults
from replicator.ports.owed import OwedPage
from replicator.ports.targets import Fence


class MemoryOwedKeys:
    """Rows by target; `rows_per_page` bounds a page as a table does by size."""

    def __init__(self, faults: Faults | None = None, *, now: float = 0.0) -> None:
        self.faults = faults or Faults()
        self.now = now
        self.rows_per_page = 1000
        self.rows: dict[tuple[OwedTo, str], OwedKey] = {}
        self.bodies: dict[tuple[OwedTo, str], tuple[str, bytes]] = {}
        self.settled: list[SettledKey] = []

    async def put(self, owed: OwedKey, body: bytes | None, fence: Fence) -> OwedKey:
        """Make a row durable, merged with the one that is there, and return it as it stands."""
        async with self.faults.around("put_owed"):
            fence.check()
            where = owed.to, owed.row_id
            kept = None if body is None else packed(body)
            state = BodyState.NONE if body is None else BodyState.OMITTED if kept is None else BodyState.STORED
            row = self.rows[where] = merged(self.rows.get(where), replace(owed, body=state))
            if kept is not None and row.version == owed.version:
                self.bodies[where] = owed.version, kept
            return row

    async def page(self, to: OwedTo, after: str | None = None) -> OwedPage:
        """Open rows of a target."""
        async with self.faults.around("page_owed"):
            ids = sorted(row_id for owner, row_id in self.rows if owner == to and row_id > (after or ""))
            page = ids[: self.rows_per_page]
            return OwedPage(tuple(self.rows[to, row_id] for row_id in page), page[-1] if len(page) < len(ids) else None)

    async def find(self, to: OwedTo, row_id: str) -> OwedKey | None:
        """One open row of a target; None when there is none."""
        async with self.faults.around("find_owed"):
            return self.rows.get((to, row_id))

    async def body(self, owed: OwedKey) -> bytes | None:
        """What was kept beside a row under its version."""
        async with self.faults.around("body_owed"):
            version, kept = self.bodies.get((owed.to, owed.row_id), ("", b""))
            return unpacked(kept) if version == owed.version else None

    async def settle(self, owed: OwedKey, how: Settlement, by: str, fence: Fence) -> bool:
        """Take a row away unless it holds a greater version than this one; returns whether it is gone now."""
        async with self.faults.around("settle_owed"):
            fence.check()
            where = owed.to, owed.row_id
            standing = self.rows.get(where)
            if standing is None or not settles(owed.version, standing.version):
                return standing is None
            if owed.owed_for is not OwedFor.AWAY or how is not Settlement.DELIVERED:
                self.settled.append(SettledKey(standing, how, by, self.now))
            self.bodies.pop(where, None)
            del self.rows[where]
            return True
