"""Owed keys of one source region in one DynamoDB table, whose rows `owed_rows` describes.

Invariant: a row's version only grows, and a row is taken away only by something that is no older. A body that bears
another version than its row counts as not there.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from botocore.exceptions import ClientError

from replicator.adapters.aws.errors import CLIENT_ERRORS, error_code, member, translate
from replicator.adapters.dynamodb.owed_rows import (
    BODY,
    EXPIRY,
    KEY,
    PARTITION,
    REPLACED,
    SCHEMA,
    SETTLED,
    SORT,
    OwedRows,
    attributes,
    owner,
    seconds,
)
from replicator.domain.errors import ReplicatorError, WorldMismatch
from replicator.domain.owed_keys import (
    BodyState,
    OwedFor,
    OwedKey,
    OwedTo,
    SettledKey,
    Settlement,
    is_refusal,
    packed,
    unpacked,
)
from replicator.domain.values import replace
from replicator.ports.owed import OwedPage
from replicator.ports.targets import OPEN

if TYPE_CHECKING:
    from types_aiobotocore_dynamodb.client import DynamoDBClient
    from types_aiobotocore_dynamodb.type_defs import AttributeValueTypeDef

    from replicator.adapters.aws.clients import Place
    from replicator.adapters.dynamodb.owed_rows import Row
    from replicator.ports.clock import Clock
    from replicator.ports.targets import Fence
    from replicator.settings import Settings


_TARGETS = "targets"
_CONDITION_FAILED = "ConditionalCheckFailedException"


def owed_keys(place: Place, settings: Settings, clock: Clock) -> DynamoOwedKeys:
    """The owed table in one region of a configuration."""
    return DynamoOwedKeys(
        place.dynamodb,
        table=settings.owed_table_name,
        group=settings.group,
        region_id=place.region_id,
        body_ttl=settings.tombstone_ttl,
        settled_ttl=settings.parking.ttl,
        clock=clock,
    )


class DynamoOwedKeys:
    """The owed table of one group in one region.

    It is longer than a class should be because every statement about a row, and the conditions that keep its version
    from ever falling, stand beside each other.
    """

    def __init__(  # noqa: PLR0913 - a composition root fills it once
        self,
        client: DynamoDBClient,
        *,
        table: str,
        group: str,
        region_id: str,
        body_ttl: timedelta,
        settled_ttl: timedelta,
        clock: Clock,
    ) -> None:
        """`body_ttl`: how long an image is of use, which is as long as tombstones live."""
        self._client = client
        self._table = table
        self._group = group
        self._where = f"owed table {table} in {region_id}"
        self._body_seconds = int(body_ttl.total_seconds())
        self._settled_seconds = int(settled_ttl.total_seconds())
        self._clock = clock
        self._rows = OwedRows(self._where)
        self._noted: set[OwedTo] = set()

    # -- the port ------------------------------------------------------------------------------------------------------

    async def put(self, owed: OwedKey, body: bytes | None, fence: Fence) -> OwedKey:
        """Make a row durable, merged with the one that is there, and return it as it stands.

        Its body is there before it is: a row never speaks of a body that is still to come.
        """
        await self._note(owed.to, fence)
        kept = None if body is None else packed(body)
        state = BodyState.NONE if body is None else BodyState.OMITTED if kept is None else BodyState.STORED
        if kept is not None:
            await self._put_body(owed, kept, fence)
        row = attributes(owed, state)
        lasting = {"first": row.pop("first")}
        replaced = [row.pop(name) for name in REPLACED if name in row]
        if replaced:
            lasting[REPLACED[0]] = replaced[0]
        tries = row.pop("tries")
        absent = [name for name in ("k", "event", "size", "left") if name not in row]
        fence.check()
        try:
            answer = await self._call(
                "UpdateItem",
                self._client.update_item,
                Key=self._key(owed.to, f"{KEY}{owed.row_id}"),
                ReturnValues="ALL_NEW",
                **_update(row, absent, lasting, replaced[1:] or replaced, tries),
            )
        except ClientError as error:
            return self._standing(error)
        return self._rows.owed(member(answer, "Attributes", f"UpdateItem on the {self._where}"))

    async def page(self, to: OwedTo, after: str | None = None) -> OwedPage:
        """Open rows of a target, consistently."""
        rows, last = await self._query(self._partition(to), KEY, after)
        return OwedPage(tuple(map(self._rows.owed, rows)), last)

    async def body(self, owed: OwedKey) -> bytes | None:
        """What was kept beside a row under its version."""
        answer = await self._ask(
            "GetItem", self._client.get_item, Key=self._key(owed.to, f"{BODY}{owed.row_id}"), ConsistentRead=True
        )
        row = answer.get("Item", {})
        kept = row.get("z", {}).get("B")
        return unpacked(kept) if isinstance(kept, bytes) and row.get("v") == {"S": owed.version} else None

    async def settle(self, owed: OwedKey, how: Settlement, by: str, fence: Fence) -> bool:
        """Take a row away unless it holds a greater version than this one; returns whether it is gone now.

        The row goes last: until then whatever was done is done again. What a region missed and was brought is not kept
        apart: there may be any amount of it, and nothing to learn from it.
        """
        if owed.owed_for is OwedFor.AWAY and how is Settlement.DELIVERED:
            fence.check()
            return await self._delete(self._key(owed.to, f"{KEY}{owed.row_id}"), owed.version)
        standing = await self.find(owed.to, owed.row_id)
        if standing is None or standing.version > owed.version:
            return standing is None
        now = self._clock.now()
        settled = {
            **attributes(standing, standing.body),
            "how": {"S": how.value},
            "settled_at": seconds(now),
            "settled_by": {"S": by},
            EXPIRY: {"N": str(int(now) + self._settled_seconds)},
        }
        fence.check()
        await self._ask(
            "PutItem", self._client.put_item, Item={**self._key(owed.to, f"{SETTLED}{owed.row_id}"), **settled}
        )
        for kind in (BODY, KEY):
            fence.check()
            gone = await self._delete(self._key(owed.to, f"{kind}{owed.row_id}"), owed.version)
        return gone

    # -- for operators -------------------------------------------------------------------------------------------------

    async def find(self, to: OwedTo, row_id: str) -> OwedKey | None:
        """One open row."""
        answer = await self._ask(
            "GetItem", self._client.get_item, Key=self._key(to, f"{KEY}{row_id}"), ConsistentRead=True
        )
        return self._rows.owed(answer["Item"]) if answer.get("Item") else None

    async def targets(self) -> list[OwedTo]:
        """Who was ever owed something."""
        found: list[OwedTo] = []
        after: str | None = None
        while True:
            rows, after = await self._query(f"{self._group}|{_TARGETS}", "", after)
            found += map(self._rows.target, rows)
            if after is None:
                return found

    async def settled(self, to: OwedTo, after: str | None = None) -> tuple[list[SettledKey], str | None]:
        """Settled rows of a target that are still kept, and where the next page begins."""
        rows, last = await self._query(self._partition(to), SETTLED, after)
        return [self._rows.settled(row) for row in rows], last

    async def move(self, to: OwedTo, new: OwedTo | None) -> int:
        """Hand every open row of a target over to another one, or delete them; returns how many there were.

        For a target that no worker serves: a row is there under its new owner before it is taken from the old one.
        """
        moved = 0
        after: str | None = None
        while True:
            page = await self.page(to, after)
            for owed in page.rows:
                if new is not None:
                    await self.put(replace(owed, to=new), await self.body(owed), OPEN)
                for kind in (BODY, KEY):
                    await self._delete(self._key(to, f"{kind}{owed.row_id}"), owed.version)
                moved += 1
            after = page.after
            if after is None:
                break
        place = {PARTITION: {"S": f"{self._group}|{_TARGETS}"}, SORT: {"S": owner(to)}}
        await self._ask("DeleteItem", self._client.delete_item, Key=place)
        return moved

    # -- calls ---------------------------------------------------------------------------------------------------------

    async def _note(self, to: OwedTo, fence: Fence) -> None:
        """Let operators find a target's rows whatever the configuration says by then."""
        if to in self._noted:
            return
        fence.check()
        place = {PARTITION: {"S": f"{self._group}|{_TARGETS}"}, SORT: {"S": owner(to)}}
        await self._ask("PutItem", self._client.put_item, Item={**place, "sv": {"N": str(SCHEMA)}})
        self._noted.add(to)

    async def _put_body(self, owed: OwedKey, kept: bytes, fence: Fence) -> None:
        """Keep a body, unless a newer one is there. An image expires as it becomes useless; a raw record does not."""
        expiry: dict[str, AttributeValueTypeDef] = {}
        if owed.key is not None:
            expiry[EXPIRY] = {"N": str(int(self._clock.now()) + self._body_seconds)}
        item = {**self._key(owed.to, f"{BODY}{owed.row_id}"), "sv": {"N": str(SCHEMA)}, "v": {"S": owed.version}}
        fence.check()
        try:
            await self._call(
                "PutItem",
                self._client.put_item,
                Item={**item, "z": {"B": kept}, **expiry},
                ConditionExpression="attribute_not_exists(#v) OR #v <= :v",
                ExpressionAttributeNames={"#v": "v"},
                ExpressionAttributeValues={":v": {"S": owed.version}},
            )
        except ClientError:
            return

    async def _delete(self, key: Row, version: str) -> bool:
        """Delete a row that holds at most a version; whether it is gone."""
        try:
            await self._call(
                "DeleteItem",
                self._client.delete_item,
                Key=key,
                ConditionExpression="attribute_not_exists(#v) OR #v <= :v",
                ExpressionAttributeNames={"#v": "v"},
                ExpressionAttributeValues={":v": {"S": version}},
            )
        except ClientError:
            return False
        return True

    async def _query(self, partition: str, prefix: str, after: str | None) -> tuple[list[Row], str | None]:
        request: dict[str, Any] = {
            "ConsistentRead": True,
            "KeyConditionExpression": "#pk = :pk",
            "ExpressionAttributeNames": {"#pk": PARTITION},
            "ExpressionAttributeValues": {":pk": {"S": partition}},
        }
        if prefix:
            request["KeyConditionExpression"] += " AND begins_with(#sk, :prefix)"
            request["ExpressionAttributeNames"]["#sk"] = SORT
            request["ExpressionAttributeValues"][":prefix"] = {"S": prefix}
        if after is not None:
            request["ExclusiveStartKey"] = {PARTITION: {"S": partition}, SORT: {"S": after}}
        answer = await self._ask("Query", self._client.query, **request)
        last = answer.get("LastEvaluatedKey")
        return member(answer, "Items", f"Query on the {self._where}"), last[SORT]["S"] if last else None

    async def _ask(self, operation: str, method: Any, **request: Any) -> Any:
        """A call without a condition."""
        try:
            return await self._call(operation, method, **request)
        except ClientError as error:
            raise translate(error, f"{operation} on the {self._where}") from error

    async def _call(self, operation: str, method: Any, **request: Any) -> Any:
        """A call; raises a failed condition as it is and everything else translated."""
        try:
            return await method(TableName=self._table, **request)
        except ClientError as error:
            if error_code(error) == _CONDITION_FAILED:
                raise
            raise self._translated(operation, error) from error
        except CLIENT_ERRORS as error:
            raise self._translated(operation, error) from error

    def _translated(self, operation: str, error: Exception) -> ReplicatorError:
        """An error of this table is never one of the record that is to be kept in it."""
        translated = translate(error, f"{operation} on the {self._where}")
        return WorldMismatch(translated.message) if is_refusal(translated) else translated

    # -- keys ----------------------------------------------------------------------------------------------------------

    def _partition(self, to: OwedTo) -> str:
        return f"{self._group}|{owner(to)}"

    def _key(self, to: OwedTo, sort: str) -> dict[str, AttributeValueTypeDef]:
        return {PARTITION: {"S": self._partition(to)}, SORT: {"S": sort}}

    def _standing(self, error: ClientError) -> OwedKey:
        """What stands there, from the answer to a condition that failed."""
        row: Any = error.response.get("Item")
        return self._rows.owed(member({"Item": row} if row else {}, "Item", f"UpdateItem on the {self._where}"))


def _update(
    row: Row,
    absent: Iterable[str],
    lasting: Row,
    replaced: Sequence[AttributeValueTypeDef],
    tries: AttributeValueTypeDef,
) -> Any:
    """Members of UpdateItem that set a row, unless it holds a greater version or is of a newer program.

    `lasting`: what stays as the first change that is owed set it. `replaced` goes in front of what others replaced.
    """
    names = {f"#n{number}": name for number, name in enumerate(row)}
    values = {f":n{number}": value for number, value in enumerate(row.values())}
    removed = {f"#r{number}": name for number, name in enumerate(absent)}
    sets = [f"#n{number} = :n{number}" for number in range(len(row))]
    sets += [f"#{name} = if_not_exists(#{name}, :{name})" for name in lasting]
    shifted = REPLACED[1:] if replaced else ()
    for number in reversed(range(len(shifted))):
        behind = number - len(replaced)
        value = f":p{number}" if behind < 0 else f"if_not_exists(#{shifted[behind]}, :none)"
        sets.append(f"#{shifted[number]} = {value}")
    pushed = {f":p{number}": value for number, value in enumerate(replaced[: len(shifted)])}
    remove = f" REMOVE {', '.join(removed)}" if removed else ""
    return {
        "UpdateExpression": f"SET {', '.join(sets)}{remove} ADD #tries :tries",
        "ConditionExpression": "(attribute_not_exists(#v) OR #v <= :v) AND (attribute_not_exists(#sv) OR #sv <= :sv)",
        "ExpressionAttributeNames": {
            **names, **removed, **{f"#{name}": name for name in (*lasting, *shifted)},
            "#tries": "tries", "#v": "v", "#sv": "sv",
        },
        "ExpressionAttributeValues": {
            **values, **{f":{name}": value for name, value in lasting.items()}, **pushed,
            **({":none": {"S": ""}} if len(replaced) < len(shifted) else {}),
            ":tries": tries, ":v": row["v"], ":sv": {"N": str(SCHEMA)},
        },
        "ReturnValuesOnConditionCheckFailure": "ALL_OLD",
    }  # fmt: skip
