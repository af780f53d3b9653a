"""Where conflict entries go: the conflict table, and a file as JSON lines when one is configured."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from replicator.adapters.dynamodb.conflict_log import DynamoConflictLog
from replicator.adapters.files.conflict_log import FileConflictLog
from replicator.domain.conflicts import ConflictEntry

if TYPE_CHECKING:
    from types_aiobotocore_dynamodb.client import DynamoDBClient

    from replicator.ports.targets import ConflictLog
    from replicator.settings import Settings


def conflict_log(client: DynamoDBClient, settings: Settings) -> ConflictLog:
    """Every sink that is configured, as one."""
    logs: list[ConflictLog] = [conflict_table(client, settings)]
    conflicts, mask = settings.conflicts, frozenset(settings.conflicts.mask)
    if conflicts.file is not None:
        file = FileConflictLog(conflicts.file, max_bytes=conflicts.file_max_bytes, keep=conflicts.file_keep, mask=mask)
        logs.append(file)
    return logs[0] if len(logs) == 1 else ConflictLogs(logs)


def conflict_table(client: DynamoDBClient, settings: Settings) -> DynamoConflictLog:
    """The conflict table alone: a file belongs to the daemon that writes it."""
    return DynamoConflictLog(
        client,
        table=settings.conflict_table_name,
        region_id=settings.coordination.region,
        ttl=settings.conflicts.ttl,
        mask=frozenset(settings.conflicts.mask),
    )


class ConflictLogs:
    """Several logs as one."""

    def __init__(self, logs: Sequence[ConflictLog]) -> None:
        self._logs = logs

    async def write(self, entry: ConflictEntry) -> None:
        """Make an entry durable in each."""
        for log in self._logs:
            await log.write(entry)
