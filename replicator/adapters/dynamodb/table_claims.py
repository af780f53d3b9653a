"""Epochs of mode `ordered`: who may write a replica table, kept in a row of its side table."""

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


@dataclass(frozen=True, slots=True)
class Claim:
    """What a rule is about to write to a replica table: `epoch`, from this stream of this source."""

    rule: str
    region_id: str
    table: str
    epoch: int
    source: str
    """Region id and table, as `us:orders`."""
    generation: int

    @property
    def key(self) -> dict[str, AttributeValueTypeDef]:
        """The key of its side row."""
        return {TOMBSTONE_KEY: {"S": f"{self.table}|epoch"}}


async def note_epoch(client: DynamoDBClient, *, side_table: str, claim: Claim) -> None:
    """Keep the highest epoch seen for a replica table in its side table, and who wrote in it; a lower one is refused.

    So is another source, or an older stream of the same one, in an epoch that was written in: its versions could be
    below those that stand there. The row also carries the layout's version: an older program that meets a newer one
    stops.
    """
    what = f"UpdateItem on {side_table} in {claim.region_id}"
    same = "#e = :e AND (attribute_not_exists(#f) OR (#f = :f AND #g <= :g))"
    try:
        await client.update_item(
            TableName=side_table,
            Key=claim.key,
            UpdateExpression="SET #e = :e, #s = :s, #f = :f, #g = :g",
            ConditionExpression=f"(attribute_not_exists(#e) OR #e < :e OR ({same}))"
            " AND (attribute_not_exists(#s) OR #s <= :s)",
            ExpressionAttributeNames={"#e": "epoch", "#s": SCHEMA_VERSION, "#f": "source", "#g": "generation"},
            ExpressionAttributeValues={
                ":e": {"N": str(claim.epoch)},
                ":s": {"N": str(SIDE_SCHEMA)},
                ":f": {"S": claim.source},
                ":g": {"N": str(claim.generation)},
            },
            ReturnValuesOnConditionCheckFailure="ALL_OLD",
        )
    except ClientError as error:
        if error_code(error) != wire.CONDITION_FAILED:
            raise translate(error, what) from error
        refusal = epoch_problem(error.response.get("Item", {}), claim)
        raise refusal or Unreachable(f"{what} was refused though nothing stands against it.") from error
    except CLIENT_ERRORS as error:
        raise translate(error, what) from error


def epoch_problem(standing: Any, claim: Claim) -> WorldMismatch | None:
    """What a side row, as it stands, has against a claim; None when nothing."""
    where = f"{claim.table} in {claim.region_id}"
    if int(standing.get(SCHEMA_VERSION, {}).get("N", 0)) > SIDE_SCHEMA:
        return WorldMismatch(
            f"The side rows of {where} were written by a newer replicator.",
            advice="Upgrade this program to the version of its newest worker.",
        )
    seen = int(standing.get("epoch", {}).get("N", -1))
    if seen > claim.epoch:
        return WorldMismatch(
            f"Rule {claim.rule!r} has epoch {claim.epoch}, but {where} has already seen epoch {seen}.",
            advice=f"An epoch is never lowered: set `epoch: {seen}` or higher for the rule.",
        )
    source = standing.get("source", {}).get("S")
    if seen < claim.epoch or source is None:
        return None
    advice = f"Another source begins a new epoch: set `epoch: {seen + 1}` or higher for the rule, or writes are lost."
    if source != claim.source:
        return WorldMismatch(
            f"Rule {claim.rule!r} copies {claim.source} to {where} in epoch {seen}, in which {source} wrote there.",
            advice=advice,
        )
    if int(standing.get("generation", {}).get("N", 0)) > claim.generation:
        return WorldMismatch(
            f"Rule {claim.rule!r} copies {source} to {where} from an older stream than the one that it copied before.",
            advice=advice,
        )
    return None
