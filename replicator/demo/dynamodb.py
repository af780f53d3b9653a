"""DynamoDB as the demo's writers, readers and judges see it: wire JSON over plain HTTP, unsigned, on a local endpoint.

The daemon under demonstration uses the AWS client; what judges it must not share its code, must not change the images
it compares, and must leave the processor to the daemon. MiniStack reads the region from the credential scope and
checks no signature, so this module works with it only.
"""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final

import aiohttp
import msgspec

from replicator.domain.errors import Unreachable
from replicator.domain.image import Image
from replicator.laboratory.servers import ACCESS_KEY

Typed = dict[str, dict[str, Any]]
"""Attributes in DynamoDB's JSON: name -> {type: value}."""

TIMEOUT_SECONDS: Final = 30.0
MOST_PER_BATCH_WRITE: Final = 25
MOST_PER_BATCH_GET: Final = 100

_OK = 200


class _Answer(msgspec.Struct, frozen=True):
    item: msgspec.Raw = msgspec.field(default=msgspec.Raw(b""), name="Item")


class _Page(msgspec.Struct, frozen=True):
    items: tuple[msgspec.Raw, ...] = msgspec.field(default=(), name="Items")
    last: dict[str, Any] | None = msgspec.field(default=None, name="LastEvaluatedKey")


class _Batch(msgspec.Struct, frozen=True):
    responses: dict[str, tuple[Typed, ...]] = msgspec.field(default_factory=dict, name="Responses")


class _Attributes(msgspec.Struct, frozen=True):
    attributes: msgspec.Raw = msgspec.field(default=msgspec.Raw(b""), name="Attributes")


class _Written(msgspec.Struct, frozen=True):
    left: dict[str, list[dict[str, Any]]] = msgspec.field(default_factory=dict, name="UnprocessedItems")


@dataclass(frozen=True, slots=True)
class LocalRegion:
    """One AWS region of a MiniStack endpoint."""

    session: aiohttp.ClientSession
    endpoint_url: str
    region: str

    async def call(self, operation: str, body: Mapping[str, Any], api: str = "DynamoDB_20120810") -> bytes:
        """One API call; raises `Unreachable` with the service's words when it is not answered with success."""
        scope = f"Credential={ACCESS_KEY}/20200101/{self.region}/dynamodb/aws4_request"
        headers = {
            "Content-Type": "application/x-amz-json-1.0",
            "X-Amz-Target": f"{api}.{operation}",
            "Authorization": f"AWS4-HMAC-SHA256 {scope}, SignedHeaders=host, Signature=none",
        }
        try:
            async with self.session.post(
                self.endpoint_url, data=msgspec.json.encode(body), headers=headers
            ) as response:
                answer = await response.read()
        except (aiohttp.ClientError, TimeoutError) as error:
            raise Unreachable(f"{operation} at {self.endpoint_url} failed: {error!r}.") from error
        if response.status != _OK:
            said = answer[:300].decode(errors="replace")
            raise Unreachable(f"{operation} in {self.region} was answered {response.status}: {said}")
        return answer

    async def get(self, table: str, key: Typed) -> Image | None:
        """The item, read consistently."""
        body = {"TableName": table, "Key": key, "ConsistentRead": True}
        item = msgspec.json.decode(await self.call("GetItem", body), type=_Answer).item
        return Image(bytes(item)) if bytes(item) else None

    async def put(self, table: str, item: Typed) -> Image | None:
        """Write an item as a whole; returns what it replaced."""
        return _returned(await self.call("PutItem", {"TableName": table, "Item": item, "ReturnValues": "ALL_OLD"}))

    async def delete(self, table: str, key: Typed) -> Image | None:
        """Delete an item, if it is there; returns what was."""
        return _returned(await self.call("DeleteItem", {"TableName": table, "Key": key, "ReturnValues": "ALL_OLD"}))

    async def update(
        self,
        table: str,
        key: Typed,
        setting: Typed,
        removing: Iterable[str] = (),
        copying: Mapping[str, str] | None = None,
    ) -> Image:
        """Set some attributes and remove others; returns the item as it is then.

        `copying`: attributes that take over the number of another one, as it was before (0 when it was not there).
        """
        names = {f"#s{n}": name for n, name in enumerate(setting)}
        gone = {f"#r{n}": name for n, name in enumerate(removing)}
        values = {f":s{n}": typed for n, typed in enumerate(setting.values())}
        copied = []
        for n, (target, origin) in enumerate((copying or {}).items()):
            names |= {f"#t{n}": target, f"#o{n}": origin}
            values[":zero"] = {"N": "0"}
            copied.append(f"#t{n} = if_not_exists(#o{n}, :zero)")
        expression = "SET " + ", ".join([*copied, *(f"#s{n} = :s{n}" for n in range(len(setting)))])
        if gone:
            expression += " REMOVE " + ", ".join(gone)
        body = {
            "TableName": table,
            "Key": key,
            "UpdateExpression": expression,
            "ExpressionAttributeNames": names | gone,
            "ExpressionAttributeValues": values,
            "ReturnValues": "ALL_NEW",
        }
        updated = _returned(await self.call("UpdateItem", body))
        assert updated is not None, "an update leaves an item"
        return updated

    async def put_all(self, table: str, items: list[Typed]) -> None:
        """Write many items, in batches."""
        for start in range(0, len(items), MOST_PER_BATCH_WRITE):
            requests = [{"PutRequest": {"Item": item}} for item in items[start : start + MOST_PER_BATCH_WRITE]]
            left: dict[str, list[dict[str, Any]]] = {table: requests}
            while left:
                answer = await self.call("BatchWriteItem", {"RequestItems": left})
                left = msgspec.json.decode(answer, type=_Written).left

    async def get_some(
        self, keys: Mapping[str, list[Typed]], attributes: Iterable[str]
    ) -> dict[str, tuple[Typed, ...]]:
        """Some attributes of at most `MOST_PER_BATCH_GET` items, by table; items that are not there are left out."""
        names = {f"#a{n}": name for n, name in enumerate(attributes)}
        wanted = {"ConsistentRead": True, "ProjectionExpression": ", ".join(names), "ExpressionAttributeNames": names}
        body = {"RequestItems": {table: {"Keys": some, **wanted} for table, some in keys.items()}}
        return msgspec.json.decode(await self.call("BatchGetItem", body), type=_Batch).responses

    async def scan(self, table: str) -> AsyncIterator[Image]:
        """Every item of the table, read consistently."""
        body: dict[str, Any] = {"TableName": table, "ConsistentRead": True}
        while True:
            page = msgspec.json.decode(await self.call("Scan", body), type=_Page)
            for item in page.items:
                yield Image(bytes(item))
            if page.last is None:
                return
            body["ExclusiveStartKey"] = page.last


@asynccontextmanager
async def local_regions(endpoint_url: str, regions: Mapping[str, str]) -> AsyncIterator[dict[str, LocalRegion]]:
    """A `LocalRegion` for each region id, on one connection pool."""
    timeout = aiohttp.ClientTimeout(total=TIMEOUT_SECONDS)
    async with aiohttp.ClientSession(timeout=timeout, trust_env=False) as session:
        yield {name: LocalRegion(session, endpoint_url, region) for name, region in regions.items()}


def _returned(answer: bytes) -> Image | None:
    attributes = bytes(msgspec.json.decode(answer, type=_Attributes).attributes)
    return Image(attributes) if attributes else None


def binary(value: bytes) -> dict[str, Any]:
    """A binary attribute value."""
    return {"B": base64.b64encode(value).decode()}
