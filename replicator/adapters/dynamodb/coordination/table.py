"""Calls on the coordination table of one group.

Invariant: a condition that fails is an answer, everything else that fails is an error of ours; reads are consistent.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, Literal

from botocore.exceptions import ClientError

from replicator.adapters.aws.errors import CLIENT_ERRORS, error_code, member, translate
from replicator.adapters.aws.servers_clock import ServersClock
from replicator.adapters.dynamodb.coordination.changes import condition
from replicator.adapters.dynamodb.coordination.names import Names, key
from replicator.adapters.dynamodb.coordination.rows import RowReader
from replicator.domain.errors import PoisonRecord, WorldMismatch

if TYPE_CHECKING:
    from types_aiobotocore_dynamodb.client import DynamoDBClient
    from types_aiobotocore_dynamodb.type_defs import AttributeValueTypeDef

    from replicator.adapters.dynamodb.coordination.changes import Change, When
    from replicator.adapters.dynamodb.coordination.rows import Row

    Key = Mapping[str, AttributeValueTypeDef]

_CONDITION_FAILED = "ConditionalCheckFailedException"
_CONDITION_REASON = "ConditionalCheckFailed"
_NOTHING = "-"
"""The name of no row."""


class CoordinationTable:
    """One group's rows."""

    def __init__(self, client: DynamoDBClient, *, table: str, group: str, region_id: str) -> None:
        self._client = client
        self._table = table
        self._where = f"coordination table {table} in {region_id}"
        self.names = Names(group)
        self.reader = RowReader(self.names, self._where)
        self.clock = ServersClock()
        """The time of the servers that answer; `time` waits until it is known."""

    async def query(self, partition: str, prefix: str = "", *, backwards: bool = False) -> list[Row]:
        """Rows of a partition whose sort keys begin with `prefix`, all pages; the greatest key first if asked."""
        rows, _ = await self.read(partition, prefix, backwards=backwards)
        return rows

    async def read(
        self, partition: str, prefix: str = "", *, backwards: bool = False, newer: bool = False
    ) -> tuple[list[Row], str]:
        """The same, and the Date of the last answer. `newer`: rows of a newer program are not refused here.

        Each page is consistent, but what is written between two pages may be seen in the second one alone.
        """
        request: dict[str, Any] = {
            "TableName": self._table,
            "ConsistentRead": True,
            "ScanIndexForward": not backwards,
            "KeyConditionExpression": "pk = :pk",
            "ExpressionAttributeValues": {":pk": {"S": partition}},
        }
        if prefix:
            request["KeyConditionExpression"] += " AND begins_with(sk, :prefix)"
            request["ExpressionAttributeValues"][":prefix"] = {"S": prefix}
        rows: list[Row] = []
        while True:
            asked_at = self.clock.monotonic()
            try:
                answer = await self._client.query(**request)
            except CLIENT_ERRORS as error:
                raise self._translated("Query", error) from error
            rows += member(answer, "Items", f"Query on the {self._where}")
            if not answer.get("LastEvaluatedKey"):
                for row in () if newer else rows:
                    self.reader.refuse_newer(row)
                return rows, self._dated(answer, asked_at)
            request["ExclusiveStartKey"] = answer["LastEvaluatedKey"]

    async def get(self, key: Key) -> tuple[Row, str]:
        """A row, empty when there is none, and the Date of the answer."""
        asked_at = self.clock.monotonic()
        try:
            answer = await self._client.get_item(TableName=self._table, Key=key, ConsistentRead=True)
        except CLIENT_ERRORS as error:
            raise self._translated("GetItem", error) from error
        row: Row = answer.get("Item", {})
        self.reader.refuse_newer(row)
        return row, self._dated(answer, asked_at)

    async def time(self) -> ServersClock:
        """Servers' time, known: what is written into rows never has this machine's."""
        if not self.clock.is_known:
            _, date = await self.get(key(self.names.rules, _NOTHING))
            self.seconds_of(date)
        return self.clock

    def seconds_of(self, date: str) -> float:
        """An answer's Date in seconds since 1970: the server's time."""
        try:
            return parsedate_to_datetime(date).timestamp()
        except ValueError as error:
            raise WorldMismatch(f"The {self._where} answers without a Date, so its time is not known.") from error

    async def update(
        self, key: Key, change: Change, *, returning: Literal["ALL_NEW", "ALL_OLD"] = "ALL_NEW"
    ) -> Row | None:
        """The row after the change, or before it if asked; None when the condition failed."""
        try:
            answer = await self._client.update_item(
                TableName=self._table, Key=key, ReturnValues=returning, **change.request()
            )
        except ClientError as error:
            if error_code(error) == _CONDITION_FAILED:
                return None
            raise self._translated("UpdateItem", error) from error
        except CLIENT_ERRORS as error:
            raise self._translated("UpdateItem", error) from error
        if returning == "ALL_OLD":
            return answer.get("Attributes", {})
        row: Row = member(answer, "Attributes", f"UpdateItem on the {self._where}")
        return row

    async def change_all(self, changes: Sequence[tuple[Key, Change]]) -> bool:
        """Carry out all changes, or none; False when a condition failed."""
        items: Any = [{"Update": {"TableName": self._table, "Key": key, **each.request()}} for key, each in changes]
        try:
            await self._client.transact_write_items(TransactItems=items)
        except ClientError as error:
            reasons = error.response.get("CancellationReasons", [])
            if any(reason.get("Code") == _CONDITION_REASON for reason in reasons):
                return False
            raise self._translated("TransactWriteItems", error) from error
        except CLIENT_ERRORS as error:
            raise self._translated("TransactWriteItems", error) from error
        return True

    async def delete(self, key: Key, when: When | None = None, present: Sequence[str] = ()) -> bool:
        """Delete a row, if it still is as it should be; False when it is not."""
        try:
            await self._client.delete_item(TableName=self._table, Key=key, **condition(when or {}, present))
        except ClientError as error:
            if error_code(error) == _CONDITION_FAILED:
                return False
            raise self._translated("DeleteItem", error) from error
        except CLIENT_ERRORS as error:
            raise self._translated("DeleteItem", error) from error
        return True

    def _dated(self, answer: Mapping[str, Any], asked_at: float) -> str:
        """An answer's Date; empty when there is none."""
        date: str = answer["ResponseMetadata"]["HTTPHeaders"].get("date", "")
        with suppress(WorldMismatch):  # `time` raises it for its callers
            self.clock.answered(self.seconds_of(date), asked_at)
        return date

    def _translated(self, operation: str, error: Exception) -> Exception:
        translated = translate(error, f"{operation} on the {self._where}")
        if isinstance(translated, PoisonRecord):
            advice = "A row of it may be corrupt: `replicator check` names such rows and what to do about each."
            return WorldMismatch(translated.message, advice=advice)
        return translated
