"""Bootstrap of mode `ordered` from a point-in-time export: the same writes, read from files instead of the table.

Invariant: nothing is written unless the stream shows every change behind the export, and not before the target has
passed the moment of the export: what changed since is newer than what is written.
"""

from __future__ import annotations

import asyncio
import zlib
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime

from replicator.domain.canary import is_canary
from replicator.domain.copying.exports import FILES, SUMMARY, Export, ExportUnusable, folders, parse_export, parse_line
from replicator.domain.errors import MalformedRecord
from replicator.domain.jobs import ITEMS, Segment
from replicator.engine.copying.bootstrapping import OrderedBootstrap
from replicator.engine.copying.handlers import JobContext, JobImpossible, Look
from replicator.ports.copying import ScannedItem
from replicator.ports.exports import ExportFiles

EXPORT = "export"
"""The part of a job that reads an export's files, and the option that names where they lie."""

_LINES_PER_PAGE = 1000
_INFLATED_BYTES = 1024 * 1024
_GZIP = 31
"""What `zlib` calls gzip with its header."""


class ExportBootstrap(OrderedBootstrap):
    """The data files of an export, shared out among the segments."""

    def __init__(self, context: JobContext) -> None:
        super().__init__(context)
        where = context.job.options[EXPORT]
        assert context.exports is not None, "a worker can read exports"
        self._files, self._folder = context.exports(where)
        self._turn = asyncio.Lock()
        self._export: Export | None = None
        self._readers: dict[str, _Reader] = {}

    async def look(self, segment: Segment, position: str | None) -> Look:
        """Read the lines behind a position."""
        export = await self._opened()
        source = self._context.regions[self._source]
        most = min(_LINES_PER_PAGE, source.page_items() or _LINES_PER_PAGE)
        reader = self._readers.pop(segment.name, None)
        if reader is None or reader.position != position:
            reader = _Reader(self._files, export.files[segment.index :: segment.of], position)
        try:
            lines = await reader.lines(most)
        except (zlib.error, EOFError) as error:
            raise JobImpossible(f"A data file of the export is damaged ({error}).") from error
        if reader.position is not None:
            self._readers[segment.name] = reader
        key_of = await source.table_scan.key_reader()
        counts: Counter[str] = Counter()
        found: list[ScannedItem] = []
        for line in lines:
            try:
                image = parse_line(line)
                item = ScannedItem(key_of(image.wire), image)
            except MalformedRecord as error:
                raise JobImpossible(f"The export is not one of this table: {error.message}") from error
            if not is_canary(item.key):
                found.append(item)
        counts[ITEMS] = len(found)
        return Look(reader.position, export.at, await self._passing(found, counts), counts)

    async def _opened(self) -> Export:
        """The export, once it is known that the stream shows every change behind it."""
        async with self._turn:
            if self._export is None:
                try:
                    export = await open_export(self._files, self._folder)
                except ExportUnusable as error:
                    raise JobImpossible(error.message, advice=error.advice) from error
                await self._judge(export)
                self._export = export
            return self._export

    async def _judge(self, export: Export) -> None:
        if export.table != self._rule.table:
            raise JobImpossible(f"The export is of table {export.table}, and the rule reads {self._rule.table}.")
        for rule, target in self.follows:
            covered_from = await self._context.applied.covered_from(rule, target)
            if covered_from is None or export.at < covered_from:
                raise JobImpossible(too_old(export.at, covered_from), advice=TOO_OLD_ADVICE)


async def open_export(files: ExportFiles, folder: str) -> Export:
    """The export in a folder, or the only one below it; `ExportUnusable` when there is none, or more than one."""
    found = folders(await files.names(folder))
    if folder in found:
        found = [folder]
    if len(found) != 1:
        where = ", ".join(found) or "none"
        raise ExportUnusable(f"Below {folder or 'that place'} one export was expected, and there is: {where}.")
    (where,) = found
    return parse_export(await files.read(where + SUMMARY), await files.read(where + FILES), where)


TOO_OLD_ADVICE = "Take an export that is younger than the rule's start, or bootstrap from a scan."


def too_old(export_at: float, covered_from: float | None) -> str:
    """Why an export cannot be used."""
    since = "" if covered_from is None else f", and the stream is only read from {_time(covered_from)} on"
    return f"The export shows the table of {_time(export_at)}{since}: the changes between would be lost."


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")


class _Reader:
    """Some files as one run of lines; a position is a file's number and how many lines of it are done."""

    def __init__(self, files: ExportFiles, names: Sequence[str], position: str | None) -> None:
        number, _, done = (position or "0:0").partition(":")
        self.position: str | None = position
        self._files = files
        self._names = names
        self._number, self._done = int(number), int(done)
        self._open: AsyncIterator[bytes] | None = None

    async def lines(self, most: int) -> list[bytes]:
        """The next lines, at most so many; behind the last the position is None."""
        found: list[bytes] = []
        while self._number < len(self._names) and len(found) < most:
            if self._open is None:
                self._open = lines_of(self._files.chunks(self._names[self._number]))
                for _ in range(self._done):
                    await anext(self._open)
            line = await anext(self._open, None)
            if line is None:
                self._number, self._done, self._open = self._number + 1, 0, None
            else:
                found.append(line)
                self._done += 1
        self.position = f"{self._number}:{self._done}" if self._number < len(self._names) else None
        return found


async def lines_of(chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """The lines of a gzip file, inflated piece by piece."""
    inflating, left = zlib.decompressobj(_GZIP), b""
    async for chunk in chunks:
        rest = chunk
        while rest:
            text = left + inflating.decompress(rest, _INFLATED_BYTES)
            rest = inflating.unconsumed_tail
            if inflating.eof:
                rest, inflating = inflating.unused_data, zlib.decompressobj(_GZIP)
            *whole, left = text.split(b"\n")
            for line in whole:
                if line:
                    yield line
    if left:
        yield left
