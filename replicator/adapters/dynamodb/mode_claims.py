"""The mode that wrote a table, kept in a row of its side table: versions of different modes do not compare.

Every mode notes itself at its start for each table that it writes, and none starts on a table of another mode: a
tombstone that is left behind would keep items from being written, or let them come back. The row also carries the
layout's version: an older program that meets a newer one stops.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from botocore.exceptions import ClientError

from replicator.adapters.aws import wire
from replicator.adapters.aws.errors import CLIENT_ERRORS, error_code, translate
from replicator.adapters.dynamodb.expressions import SCHEMA_VERSION, SIDE_SCHEMA, TOMBSTONE_KEY
from replicator.domain.errors import Unreachable, WorldMismatch

if TYPE_CHECKING:
    from types_aiobotocore_dynamodb.client import DynamoDBClient
    from types_aiobotocore_dynamodb.type_defs import AttributeValueTypeDef

ORDERED = "ordered"


@dataclass(frozen=True, slots=True)
class ModeClaim:
    """What a rule is about to do: write this table in this mode."""

    rule: str
    region_id: str
    table: str
    mode: str

    @property
    def key(self) -> dict[str, AttributeValueTypeDef]:
        """The key of its side row."""
        return {TOMBSTONE_KEY: {"S": f"{self.table}|mode"}}

    @property
    def epoch_key(self) -> dict[str, AttributeValueTypeDef]:
        """The key of the row that only mode `ordered` writes; programs before this row existed wrote it too."""
        return {TOMBSTONE_KEY: {"S": f"{self.table}|epoch"}}


async def note_mode(client: DynamoDBClient, *, side_table: str, claim: ModeClaim) -> None:
    """Note that a table is written in this mode; `WorldMismatch` when another one, or a newer program, wrote it."""
    problem = await standing_mode(client, side_table=side_table, claim=claim)
    if problem is not None:
        raise problem
    what = f"UpdateItem on {side_table} in {claim.region_id}"
    try:
        await client.update_item(
            TableName=side_table,
            Key=claim.key,
            UpdateExpression="SET #m = :m, #r = :r, #s = :s",
            ConditionExpression="(attribute_not_exists(#m) OR #m = :m) AND (attribute_not_exists(#s) OR #s <= :s)",
            ExpressionAttributeNames={"#m": "mode", "#r": "rule", "#s": SCHEMA_VERSION},
            ExpressionAttributeValues={
                ":m": {"S": claim.mode},
                ":r": {"S": claim.rule},
                ":s": {"N": str(SIDE_SCHEMA)},
            },
            ReturnValuesOnConditionCheckFailure="ALL_OLD",
        )
    except ClientError as error:
        if error_code(error) != wire.CONDITION_FAILED:
            raise translate(error, what) from error
        refusal = mode_problem(error.response.get("Item", {}), {}, claim, side_table)
        raise refusal or Unreachable(f"{what} was refused though nothing stands against it.") from error
    except CLIENT_ERRORS as error:
        raise translate(error, what) from error


async def standing_mode(client: DynamoDBClient, *, side_table: str, claim: ModeClaim) -> WorldMismatch | None:
    """What stands against a claim now; nothing is written."""
    what = f"GetItem on {side_table} in {claim.region_id}"
    try:
        mode_row, epoch_row = [
            (await client.get_item(TableName=side_table, Key=key, ConsistentRead=True)).get("Item", {})
            for key in (claim.key, claim.epoch_key)
        ]
    except CLIENT_ERRORS as error:
        raise translate(error, what) from error
    return mode_problem(mode_row, epoch_row, claim, side_table)


def mode_problem(mode_row: Any, epoch_row: Any, claim: ModeClaim, side_table: str) -> WorldMismatch | None:
    """What the rows, as they stand, have against a claim; None when nothing. An empty row is one that is not there."""
    where = f"{claim.table} in {claim.region_id}"
    if any(int(row.get(SCHEMA_VERSION, {}).get("N", 0)) > SIDE_SCHEMA for row in (mode_row, epoch_row)):
        return WorldMismatch(
            f"The side rows of {where} were written by a newer replicator.",
            advice="Upgrade this program to the version of its newest worker.",
        )
    written = mode_row.get("mode", {}).get("S")
    if claim.mode != ORDERED and epoch_row:
        written = ORDERED
    if written in {None, claim.mode}:
        return None
    rows = " and ".join(f"{claim.table}|{name}" for name, row in (("mode", mode_row), ("epoch", epoch_row)) if row)
    return WorldMismatch(
        f"Rule {claim.rule!r} is of mode {claim.mode}, but {where} was written in mode {written}, whose deletes stand"
        f" in the side table {side_table} and do not compare.",
        advice=f"Set the mode back to {written}, or set `side_table` to a new name and run `replicator init`;"
        f" docs/operations.md, 'Change the mode of a rule', has all steps. If nothing was replicated yet, delete"
        f" {rows} from {side_table}.",
    )
