"""The conflict log: entries in a DynamoDB table, and as JSON lines in a file.

Invariant: an entry's id depends only on what was in conflict, so a replay writes the same entry and changes nothing;
`write` returns when the entry is durable in every sink.
"""

from __future__ import annotations

import asyncio
import os
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
from botocore.exceptions import ClientError

from replicator.adapters.aws import CLIENT_ERRORS, error_code, translate
from replicator.domain.conflicts import ConflictEntry, document
from replicator.domain.errors import Unreachable

if TYPE_CHECKING:
    from types_aiobotocore_dynamodb.client import DynamoDBClient
    from types_aiobotocore_dynamodb.type_defs import AttributeValueTypeDef

    from replicator.ports import ConflictLog
    from replicator.settings import Settings

BY_RULE, BY_KEY = "by_rule", "by_key"
_CONDITION_FAILED = "ConditionalCheckFailedException"
_IMAGES = {"winner": "winner_image", "loser": "loser_image"}
_NAMES = {stored: shown for shown, stored in _IMAGES.items()}
_AS_JSON = {"key", *_NAMES}
_OURS = {"item", "exp"}
"""Attributes that the table needs and an entry does not show."""
_IDS_REMEMBERED = 100_000


def conflict_log(client: DynamoDBClient, settings: Settings) -> ConflictLog:
    """Every sink that is configured, as one."""
    mask = frozenset(settings.conflicts.mask)
    logs: list[ConflictLog] = [
        DynamoConflictLog(
            client,
            table=settings.conflict_table_name,
            region_id=settings.coordination.region,
            ttl=settings.conflicts.ttl,
            mask=mask,
        )
    ]
    conflicts = settings.conflicts
    if conflicts.file is not None:
        file = FileConflictLog(conflicts.file, max_bytes=conflicts.file_max_bytes, keep=conflicts.file_keep, mask=mask)
        logs.append(file)
    return logs[0] if len(logs) == 1 else ConflictLogs(logs)


class ConflictLogs:
    """Several logs as one."""

    def __init__(self, logs: Sequence[ConflictLog]) -> None:
        self._logs = logs

    async def write(self, entry: ConflictEntry) -> None:
        """Make an entry durable in each."""
        for log in self._logs:
            await log.write(entry)


# -- a table -------------------------------------------------------------------------------------------------------


class DynamoConflictLog:
    """The conflict table of one group. `mask`: attributes whose values never reach it."""

    def __init__(
        self,
        client: DynamoDBClient,
        *,
        table: str,
        region_id: str,
        ttl: timedelta,
        mask: frozenset[str] = frozenset(),
    ) -> None:
        self._client = client
        self._table = table
        self._where = f"conflict table {table} in {region_id}"
        self._ttl_seconds = int(ttl.total_seconds())
        self._mask = mask

    async def write(self, entry: ConflictEntry) -> None:
        """Make an entry durable; one that is there already stays as it is."""
        row = {
            **stored(document(entry, self._mask)),
            "item": {"S": entry.item},
            "exp": {"N": str(int(entry.detected_at) + self._ttl_seconds)},
        }
        try:
            await self._client.put_item(TableName=self._table, Item=row, ConditionExpression="attribute_not_exists(id)")
        except ClientError as error:
            if error_code(error) != _CONDITION_FAILED:
                raise translate(error, f"PutItem on the {self._where}") from error
        except CLIENT_ERRORS as error:
            raise translate(error, f"PutItem on the {self._where}") from error


def stored(shown: Mapping[str, Any]) -> dict[str, AttributeValueTypeDef]:
    """An entry's document as an item: images and key as wire JSON in strings, what is None left out."""
    renamed = ((_IMAGES.get(name, name), value) for name, value in shown.items() if value is not None)
    return {name: _typed(name, value) for name, value in renamed}


def _typed(name: str, value: Any) -> AttributeValueTypeDef:
    if name in _AS_JSON:
        return {"S": msgspec.json.encode(value).decode()}
    if isinstance(value, bool):
        return {"BOOL": value}
    if isinstance(value, int):
        return {"N": str(value)}
    if isinstance(value, list):
        return {"SS": value}
    return {"S": value}


def shown(row: Mapping[str, Any]) -> dict[str, Any]:
    """An item of the table as an entry's document again; `winner` and `loser` are there in any case."""
    found: dict[str, Any] = {"winner": None, "loser": None}
    for name, typed in row.items():
        if name in _OURS:
            continue
        ((kind, value),) = typed.items()
        if name in _AS_JSON:
            value = msgspec.json.decode(value)
        found[_NAMES.get(name, name)] = int(value) if kind == "N" else sorted(value) if kind == "SS" else value
    return found


# -- a file --------------------------------------------------------------------------------------------------------


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
                    advice="Make room for it or correct its permissions; nothing goes on without the entry.",
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
            if not path.exists():
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
