"""Port to where a table's export lies: some files by name."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Protocol


class ExportFiles(Protocol):
    """The files of one export, or of several beside each other."""

    async def names(self, under: str) -> list[str]:
        """Names of the files whose names begin so, sorted."""

    async def read(self, name: str) -> bytes:
        """A small file; `ExportMissing` when there is none."""

    def chunks(self, name: str) -> AsyncIterator[bytes]:
        """A large file, piece by piece."""
