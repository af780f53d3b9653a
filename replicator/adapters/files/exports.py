"""An export that was copied to a local directory."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

from replicator.domain.copying.exports import ExportUnusable

_CHUNK_BYTES = 256 * 1024


class FolderExport:
    """Files below a directory; names are paths with slashes, relative to it."""

    def __init__(self, root: Path) -> None:
        self._root = root

    async def names(self, under: str) -> list[str]:
        """Names of the files whose names begin so, sorted."""
        return await asyncio.to_thread(self._names, under)

    def _names(self, under: str) -> list[str]:
        found = (path.relative_to(self._root).as_posix() for path in self._root.rglob("*") if path.is_file())
        return sorted(name for name in found if name.startswith(under))

    async def read(self, name: str) -> bytes:
        """A small file."""
        try:
            return await asyncio.to_thread((self._root / name).read_bytes)
        except OSError as error:
            raise ExportUnusable(f"{self._root / name} cannot be read: {error.strerror}.") from error

    async def chunks(self, name: str) -> AsyncIterator[bytes]:
        """A large file, piece by piece."""
        try:
            with await asyncio.to_thread((self._root / name).open, "rb") as file:
                while chunk := await asyncio.to_thread(file.read, _CHUNK_BYTES):
                    yield chunk
        except OSError as error:
            raise ExportUnusable(f"{self._root / name} cannot be read: {error.strerror}.") from error
