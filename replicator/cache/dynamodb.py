"""A loader that reads an item consistently from the regional table.

It imports no client: an aiobotocore client and a boto3 client are used as they come.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Awaitable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from replicator.cache.codecs import ITEM, STAMP, Codec, wire_item, wire_texts
from replicator.cache.reading import Loaded
from replicator.domain.cache_values import Shape

UNSTAMPED: Final = "0" * 56
_ORDERED: Final = re.compile(r"[0-9]{56}")


@dataclass(frozen=True, slots=True)
class DynamoLoader:
    """Reads by primary key: with an aiobotocore client its answer is awaited."""

    table: str
    client: Any
    codec: Codec = ITEM
    shape: Shape = field(default_factory=Shape)

    def __call__(self, **key: Any) -> Loaded | Awaitable[Loaded | None] | None:
        """The item with this key, with its version; keys are str, int or bytes."""
        answer = self.client.get_item(
            TableName=self.table,
            Key={name: _typed(value) for name, value in key.items()},
            ConsistentRead=True,
        )
        return _awaited(answer, self.shape) if inspect.isawaitable(answer) else _loaded(answer, self.shape)


def dynamodb_loader(
    table: str, client: Any, *, value: str = "dynamodb_json", numbers: str = "string", attributes: Sequence[str] = ()
) -> DynamoLoader:
    """Load from this table by a low-level client (aiobotocore's or boto3's) of the region where the cache is.

    The key template must name the table's primary key and nothing else. `value`, `numbers` and `attributes` are those
    of the daemon's rule, whose `refresh` and `write_through` then write what readers do.
    """
    shape = Shape(value, numbers, tuple(attributes))
    codec = ITEM if value == "dynamodb_json" else Codec(shape.encode, shape.decode, shape.is_hash)
    return DynamoLoader(table, client, codec, shape)


async def _awaited(answer: Awaitable[Any], shape: Shape) -> Loaded | None:
    return _loaded(await answer, shape)


def _loaded(answer: Mapping[str, Any], shape: Shape) -> Loaded | None:
    item = answer.get("Item")
    if item is None:
        return None
    return Loaded(wire_item(item) if shape.is_whole else shape.encode(wire_texts(item)), _version(item))


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
