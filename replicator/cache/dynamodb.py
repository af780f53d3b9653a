"""A loader that reads an item consistently from the regional table.

It imports no client: an aiobotocore client and a boto3 client are used as they come.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Awaitable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from replicator.cache.codecs import ITEM, STAMP, Codec, wire_item
from replicator.cache.reading import Loaded

UNSTAMPED: Final = "0" * 56
_ORDERED: Final = re.compile(r"[0-9]{56}")


@dataclass(frozen=True, slots=True)
class DynamoLoader:
    """Reads by primary key: with an aiobotocore client its answer is awaited."""

    table: str
    client: Any
    codec: Codec = ITEM

    def __call__(self, **key: Any) -> Loaded | Awaitable[Loaded | None] | None:
        """The item with this key, with its version; keys are str, int or bytes."""
        answer = self.client.get_item(
            TableName=self.table,
            Key={name: _typed(value) for name, value in key.items()},
            ConsistentRead=True,
        )
        return _awaited(answer) if inspect.isawaitable(answer) else _loaded(answer)


def dynamodb_loader(table: str, client: Any) -> DynamoLoader:
    """Load from this table by a low-level client (aiobotocore's or boto3's) of the region where the cache is.

    The key template must name the table's primary key and nothing else.
    """
    return DynamoLoader(table, client)


async def _awaited(answer: Awaitable[Any]) -> Loaded | None:
    return _loaded(await answer)


def _loaded(answer: Mapping[str, Any]) -> Loaded | None:
    item = answer.get("Item")
    return None if item is None else Loaded(wire_item(item), _version(item))


def _version(item: Mapping[str, Any]) -> str:
    """The version that the daemon's `refresh` compares; a stamp of another mode does not compare, so there is none."""
    stamp = item.get(STAMP)
    if stamp is None:
        return UNSTAMPED
    text = stamp.get("S", "")
    return text if _ORDERED.fullmatch(text) else ""


def _typed(value: Any) -> dict[str, Any]:
    if isinstance(value, str):
        return {"S": value}
    return {"B": value} if isinstance(value, bytes) else {"N": str(value)}
