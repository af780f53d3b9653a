"""What caches are owed, in the owed table of their region.

Rows (hash `pk`, range `sk`), each with a schema version `sv`, a token `t` and since when it is owed, `first`:

    <group>|cache|<cache>   debt|<row id>   an entry that is to be dropped: `k`, its key in the cache; `due`, not before
    <group>|cache|<cache>   flush           all entries are to be dropped
    <group>|cache|<cache>   server          the server that was seen last: `t` its run id, `first` when

Invariant: a row is taken away only while it bears the token that was read; what is written again bears another one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

from botocore.exceptions import ClientError

from replicator.adapters.aws.errors import CLIENT_ERRORS, error_code, member, translate
from replicator.adapters.dynamodb.owed_rows import PARTITION, SCHEMA, SORT, OwedRows, seconds
from replicator.domain.cache_debt import OwedEntry, OwedFlush, SeenServer
from replicator.domain.errors import ReplicatorError, Throttled, WorldMismatch
from replicator.domain.owed_keys import is_refusal
from replicator.ports.cache_debt import DebtPage

if TYPE_CHECKING:
    from types_aiobotocore_dynamodb.client import DynamoDBClient

    from replicator.adapters.dynamodb.owed_rows import Row

_DEBT, _FLUSH, _SERVER = "debt|", "flush", "server"
_PER_BATCH = 25
_AT_ONCE = 32
_TRIES = 5
_FIRST_PAUSE_SECONDS = 0.05


class DynamoCacheDebt:
    """Rows of one cache."""

    def __init__(self, client: DynamoDBClient, *, table: str, group: str, region_id: str, cache: str) -> None:
        self._client = client
        self._table = table
        self._partition = f"{group}|cache|{cache}"
        self._where = f"owed table {table} in {region_id}"
        self._rows = OwedRows(self._where)

    # -- entries -------------------------------------------------------------------------------------------------------

    async def put(self, entries: Sequence[OwedEntry]) -> None:
        """Make entries owed, each under its new token."""
        items = [{"PutRequest": {"Item": self._item(entry)}} for entry in entries]
        await self._all(self._write(items[start : start + _PER_BATCH]) for start in range(0, len(items), _PER_BATCH))

    async def page(self, after: str | None = None) -> DebtPage:
        """Rows, consistently."""
        start: dict[str, Any] = {} if after is None else {"ExclusiveStartKey": self._key(after)}
        answer = await self._ask(
            "Query",
            self._client.query(
                TableName=self._table,
                ConsistentRead=True,
                KeyConditionExpression="#pk = :pk AND begins_with(#sk, :debt)",
                ExpressionAttributeNames={"#pk": PARTITION, "#sk": SORT},
                ExpressionAttributeValues={":pk": {"S": self._partition}, ":debt": {"S": _DEBT}},
                **start,
            ),
        )
        rows = member(answer, "Items", f"Query on the {self._where}")
        last = answer.get("LastEvaluatedKey")
        return DebtPage(tuple(map(self._entry, rows)), last[SORT]["S"] if last else None)

    async def settle(self, entries: Sequence[OwedEntry]) -> None:
        """Take rows away that still bear the token of their entry."""
        await self._all(self._delete(f"{_DEBT}{entry.row_id}", entry.token) for entry in entries)

    # -- the flush -----------------------------------------------------------------------------------------------------

    async def put_flush(self, flush: OwedFlush) -> None:
        """Make a flush owed, under its new token."""
        await self._write([{"PutRequest": {"Item": self._row(_FLUSH, flush.token, flush.since)}}])

    async def flush(self) -> OwedFlush | None:
        """The flush that is owed, consistently."""
        row = await self._get(_FLUSH)
        return None if row is None else OwedFlush(self._rows.text(row, "t"), self._rows.number(row, "first"))

    async def settle_flush(self, flush: OwedFlush) -> None:
        """Take the flush away if it still bears this token."""
        await self._delete(_FLUSH, flush.token)

    # -- the server ----------------------------------------------------------------------------------------------------

    async def server(self) -> SeenServer | None:
        """The server that was noted last, consistently."""
        row = await self._get(_SERVER)
        return None if row is None else SeenServer(self._rows.text(row, "t"), self._rows.number(row, "first"))

    async def put_server(self, server: SeenServer) -> None:
        """Note the server that answers now."""
        await self._write([{"PutRequest": {"Item": self._row(_SERVER, server.run_id, server.at)}}])

    # -- rows ----------------------------------------------------------------------------------------------------------

    def _key(self, sort: str) -> dict[str, Any]:
        return {PARTITION: {"S": self._partition}, SORT: {"S": sort}}

    def _row(self, sort: str, token: str, since: float) -> dict[str, Any]:
        return {**self._key(sort), "sv": {"N": str(SCHEMA)}, "for": {"S": "cache"}, "t": {"S": token},
                "first": seconds(since)}  # fmt: skip

    def _item(self, entry: OwedEntry) -> dict[str, Any]:
        due = {"due": seconds(entry.due)} if entry.due else {}
        return {**self._row(f"{_DEBT}{entry.row_id}", entry.token, entry.since), "k": {"S": entry.key}, **due}

    def _entry(self, row: Row) -> OwedEntry:
        self._rows.check_schema(row)
        text, number = self._rows.text, self._rows.number
        due = number(row, "due") if "due" in row else 0.0
        return OwedEntry(text(row, "k"), text(row, "t"), number(row, "first"), due)

    async def _get(self, sort: str) -> Row | None:
        request = self._client.get_item(TableName=self._table, Key=self._key(sort), ConsistentRead=True)
        row: Row | None = (await self._ask("GetItem", request)).get("Item")
        if row:
            self._rows.check_schema(row)
        return row or None

    # -- calls ---------------------------------------------------------------------------------------------------------

    async def _all(self, calls: Iterable[Awaitable[None]]) -> None:
        """Make calls, a bounded number of them at once; all of them end before one's error is raised."""
        waiting = iter(calls)
        errors: list[ReplicatorError] = []

        async def work() -> None:
            for call in waiting:
                try:
                    await call
                except ReplicatorError as error:
                    errors.append(error)

        async with asyncio.TaskGroup() as group:
            for number in range(_AT_ONCE):
                group.create_task(work(), name=f"debt-{number}")
        if errors:
            raise errors[0]

    async def _write(self, items: Sequence[Any]) -> None:
        """Write some rows; what the table leaves out is written again."""
        for attempt in range(_TRIES):
            if attempt:
                await asyncio.sleep(_FIRST_PAUSE_SECONDS * 2**attempt)
            call = self._client.batch_write_item(RequestItems={self._table: items})
            answer = await self._ask("BatchWriteItem", call)
            left = member(answer, "UnprocessedItems", f"BatchWriteItem on the {self._where}")
            items = left.get(self._table, [])
            if not items:
                return
        raise Throttled(f"BatchWriteItem on the {self._where} left rows out.")

    async def _delete(self, sort: str, token: str) -> None:
        try:
            await self._client.delete_item(
                TableName=self._table,
                Key=self._key(sort),
                ConditionExpression="attribute_not_exists(#t) OR #t = :t",
                ExpressionAttributeNames={"#t": "t"},
                ExpressionAttributeValues={":t": {"S": token}},
            )
        except CLIENT_ERRORS as error:
            if isinstance(error, ClientError) and error_code(error) == "ConditionalCheckFailedException":
                return
            raise self._translated("DeleteItem", error) from error

    async def _ask(self, operation: str, call: Awaitable[Any]) -> Any:
        try:
            return await call
        except CLIENT_ERRORS as error:
            raise self._translated(operation, error) from error

    def _translated(self, operation: str, error: Exception) -> ReplicatorError:
        """As ours; a refusal would be about our table, and never about a record."""
        translated = translate(error, f"{operation} on the {self._where}")
        return WorldMismatch(translated.message) if is_refusal(translated) else translated
