"""Conflict entries in a DynamoDB table.

Invariant: an entry's id depends only on what was in conflict, so a replay writes the same entry and changes nothing.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import TYPE_CHECKING

import msgspec
from botocore.exceptions import ClientError

from replicator.adapters.aws import CLIENT_ERRORS, error_code, translate
from replicator.domain.image import Image, content_hash
from replicator.domain.requests import LogConflict
from replicator.domain.rules import Target

if TYPE_CHECKING:
    from types_aiobotocore_dynamodb.client import DynamoDBClient
    from types_aiobotocore_dynamodb.type_defs import AttributeValueTypeDef

    from replicator.ports import Clock

SCHEMA = 1
_LONGEST_IMAGE = 190_000  # bytes; two of them and the rest fit one item of 400 KB
_CONDITION_FAILED = "ConditionalCheckFailedException"


class DynamoConflictLog:
    """The conflict table of one group."""

    def __init__(self, client: DynamoDBClient, *, table: str, region_id: str, ttl: timedelta, clock: Clock) -> None:
        self._client = client
        self._table = table
        self._where = f"conflict table {table} in {region_id}"
        self._ttl_seconds = int(ttl.total_seconds())
        self._clock = clock

    async def write(self, target: Target, entry: LogConflict) -> None:
        """Make an entry durable; one that is there already stays as it is."""
        now = self._clock.now()
        item: dict[str, AttributeValueTypeDef] = {
            "id": {"S": entry_id(target, entry)},
            "sv": {"N": str(SCHEMA)},
            "rule": {"S": target.rule},
            "region": {"S": target.region},
            "table": {"S": str(target.table)},
            "item": {"S": entry.key.side_key(str(target.table))},
            "key": {"S": entry.key.wire.decode()},
            "kind": {"S": entry.kind},
            "detected_at": {"S": datetime.fromtimestamp(now, UTC).isoformat(timespec="milliseconds")},
            "winner_version": {"S": entry.winner_version},
            "exp": {"N": str(int(now) + self._ttl_seconds)},
        }
        for side, image in (("winner", entry.winner), ("loser", entry.loser)):
            if image is not None:
                item |= _image_attributes(side, image)
        try:
            await self._client.put_item(
                TableName=self._table, Item=item, ConditionExpression="attribute_not_exists(id)"
            )
        except ClientError as error:
            if error_code(error) != _CONDITION_FAILED:
                raise translate(error, f"PutItem on the {self._where}") from error
        except CLIENT_ERRORS as error:
            raise translate(error, f"PutItem on the {self._where}") from error


def entry_id(target: Target, entry: LogConflict) -> str:
    """SHA-256 over table, key, winner's version and loser's content, in hex."""
    loser = "" if entry.loser is None else content_hash(entry.loser)
    parts = [str(target.table), target.region, entry.key.parts, entry.winner_version, loser]
    return sha256(msgspec.json.encode(parts)).hexdigest()


def _image_attributes(side: str, image: Image) -> dict[str, AttributeValueTypeDef]:
    """An image as wire JSON; a longer one is left out, and its digest and size say so."""
    if len(image.wire) <= _LONGEST_IMAGE:
        return {f"{side}_image": {"S": image.wire.decode()}}
    return {
        f"{side}_truncated": {"BOOL": True},
        f"{side}_hash": {"S": content_hash(image)},
        f"{side}_bytes": {"N": str(len(image.wire))},
    }
