"""The table in which a rule's canary is written: a plain put, as a user of the table makes one."""

from __future__ import annotations

from base64 import b64decode
from collections.abc import Awaitable
from typing import TYPE_CHECKING, Any, TypeVar, cast

import msgspec

from replicator.adapters.aws.errors import CLIENT_ERRORS, member, translate
from replicator.domain.canary import Schema

if TYPE_CHECKING:
    from types_aiobotocore_dynamodb.client import DynamoDBClient

    from replicator.domain.image import Image
    from replicator.domain.records import ItemKey

Answer = TypeVar("Answer")


class DynamoCanaryTable:
    """One table of a region."""

    def __init__(self, client: DynamoDBClient, *, region_id: str, table: str) -> None:
        self._client = client
        self._table = table
        self._where = f"{table} in {region_id}"
        self._schema: Schema | None = None

    async def schema(self) -> Schema:
        """Its key attributes and its time to live, asked for once."""
        if self._schema is None:
            what = f"DescribeTable on {self._where}"
            answer = await self._ask(what, self._client.describe_table(TableName=self._table))
            described = cast("dict[str, Any]", member(answer, "Table", what))
            types = {each["AttributeName"]: each["AttributeType"] for each in described["AttributeDefinitions"]}
            keys = sorted(described["KeySchema"], key=lambda each: bool(each["KeyType"] != "HASH"))
            what = f"DescribeTimeToLive on {self._where}"
            lives = await self._ask(what, self._client.describe_time_to_live(TableName=self._table))
            told = cast("dict[str, Any]", lives.get("TimeToLiveDescription", {}))
            is_on = told.get("TimeToLiveStatus") in {"ENABLED", "ENABLING"}
            self._schema = Schema(
                tuple((each["AttributeName"], types[each["AttributeName"]]) for each in keys),
                told.get("AttributeName") if is_on else None,
            )
        return self._schema

    async def put(self, item: Image) -> None:
        """Write an item over whatever its key holds."""
        typed = {name: dict(value) for name, value in item.attributes.items()}
        what = f"PutItem of a canary on {self._where}"
        await self._ask(what, self._client.put_item(TableName=self._table, Item=_with_bytes(typed)))

    async def delete(self, key: ItemKey) -> None:
        """Delete an item, if there is one."""
        typed = _with_bytes(msgspec.json.decode(key.wire))
        what = f"DeleteItem of a canary on {self._where}"
        await self._ask(what, self._client.delete_item(TableName=self._table, Key=typed))

    @staticmethod
    async def _ask(what: str, call: Awaitable[Answer]) -> Answer:
        try:
            return await call
        except CLIENT_ERRORS as error:
            raise translate(error, what) from error


def _with_bytes(typed: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """As the client takes it: binary values decoded."""
    return {
        name: {kind: b64decode(value) if kind == "B" else value}
        for name, each in typed.items()
        for kind, value in each.items()
    }
