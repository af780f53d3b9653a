"""The port to owed keys: rows of what targets did not take, durable before their records count as done."""

from __future__ import annotations

from typing import Protocol

from msgspec import Struct

from replicator.domain.owed_keys import OwedKey, OwedTo, Settlement
from replicator.ports.targets import Fence


class OwedPage(Struct, frozen=True):
    """Some open rows of a target. `after` None: nothing follows; else where the next page begins."""

    rows: tuple[OwedKey, ...]
    after: str | None


class OwedKeys(Protocol):
    """Owed keys of one source region."""

    async def put(self, owed: OwedKey, body: bytes | None, fence: Fence) -> OwedKey:
        """Make a row durable, merged with the one that is there, and return it as it stands.

        `body` is kept beside it if it is short enough, and belongs to this very version. None: there is none.
        """

    async def page(self, to: OwedTo, after: str | None = None) -> OwedPage:
        """Open rows of a target, consistently; what is written between two pages may be missed."""

    async def find(self, to: OwedTo, row_id: str) -> OwedKey | None:
        """One open row of a target, consistently; None when there is none."""

    async def body(self, owed: OwedKey) -> bytes | None:
        """What was kept beside a row under its version; None when that is not there."""

    async def settle(self, owed: OwedKey, how: Settlement, by: str, fence: Fence) -> bool:
        """Take a row away unless it holds a greater version than this one; returns whether it is gone now.

        It is kept apart as settled for a while. `owed` need not be read before: its identity and version count.
        """
