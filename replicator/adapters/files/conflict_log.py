"""Conflict entries as JSON lines in a file that is rotated by size."""

from __future__ import annotations

import asyncio
import os
from collections import OrderedDict
from pathlib import Path
from typing import Any

import msgspec

from replicator.domain.conflict_document import document
from replicator.domain.conflicts import ConflictEntry
from replicator.domain.errors import Unreachable

_IDS_REMEMBERED = 100_000


class FileConflictLog:
    """JSON lines in a file that this process alone writes; renamed to `<path>.1` and so on when it has grown.

    A line that a crash cut short stays as it is, closed by a line end, and its entry is written again.
    """

    def __init__(self, path: Path, *, max_bytes: int, keep: int, mask: frozenset[str] = frozenset()) -> None:
        self._path = path
        self._max_bytes = max_bytes
        self._keep = keep
        self._mask = mask
        self._ids: OrderedDict[str, None] | None = None
        self._lock = asyncio.Lock()

    async def write(self, entry: ConflictEntry) -> None:
        """Append an entry and let it reach the disk, unless it is one of the last that were written."""
        async with self._lock:
            try:
                await asyncio.to_thread(self._append, entry)
            except OSError as error:
                raise Unreachable(
                    f"The conflict file {self._path} cannot be written: {error.strerror or error}.",
                    advice="Free disk space or correct its permissions; replication waits until the entry is stored.",
                ) from error

    def _append(self, entry: ConflictEntry) -> None:
        if self._ids is None:
            self._ids = self._known_ids()
        if entry.id in self._ids:
            return
        line = msgspec.json.encode(document(entry, self._mask)) + b"\n"
        if self._path.exists() and self._path.stat().st_size + len(line) > self._max_bytes:
            self._rotate()
        created = not self._path.exists()
        with self._path.open("ab+") as file:
            file.write(self._line_end(file) + line)
            file.flush()
            os.fsync(file.fileno())
        if created:
            self._sync_directory()
        self._ids[entry.id] = None
        while len(self._ids) > _IDS_REMEMBERED:
            self._ids.popitem(last=False)

    def _known_ids(self) -> OrderedDict[str, None]:
        """The ids that the file and the one renamed last hold."""
        ids: OrderedDict[str, None] = OrderedDict()
        for path in (self._renamed(1), self._path):
            if not path.is_file():  # a device may have no end
                continue
            with path.open("rb") as file:
                for line in file:
                    try:
                        ids[msgspec.json.decode(line)["id"]] = None
                    except (msgspec.DecodeError, KeyError, TypeError):
                        continue  # cut short by a crash
        return ids

    @staticmethod
    def _line_end(file: Any) -> bytes:
        """What closes a line that was cut short."""
        if file.seek(0, os.SEEK_END) == 0:
            return b""
        file.seek(-1, os.SEEK_END)
        return b"" if file.read(1) == b"\n" else b"\n"

    def _rotate(self) -> None:
        self._renamed(self._keep).unlink(missing_ok=True)
        for number in range(self._keep - 1, 0, -1):
            if self._renamed(number).exists():
                self._renamed(number).rename(self._renamed(number + 1))
        self._path.rename(self._renamed(1))

    def _renamed(self, number: int) -> Path:
        return self._path.with_name(f"{self._path.name}.{number}")

    def _sync_directory(self) -> None:
        """Let the file's name reach the disk too."""
        directory = os.open(self._path.parent, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
