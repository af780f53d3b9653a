"""The conflict log: entries in a DynamoDB table.

Invariant: an entry's id depends only on what was in conflict, so a replay writes the same entry and changes nothing;
`write` returns when the entry is durable.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import msgspec
from botocore.exceptions import ClientError

from replicator.adapters.aws.errors import CLIENT_ERRORS, error_code, translate
from replicator.domain.conflict_document import document
from replicator.domain.conflicts import ConflictEntry

if TYPE_CHECKING:
    from types_aiobotocore_dynamodb.client import DynamoDBClient
    from types_aiobotocore_dynamodb.type_defs import AttributeValueTypeDef


BY_RULE, BY_KEY = "by_rule", "by_key"
_CONDITION_FAILED = "ConditionalCheckFailedException"
_IMAGES = {"winner": "winner_image", "loser": "loser_image"}
_NAMES = {stored: shown for shown, stored in _IMAGES.items()}
_AS_JSON = {"key", *_NAMES}
_OURS = {"item", "exp"}
"""Attributes that the table needs and an entry does not show."""


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
