"""The epoch of a replica table, as its side table knows it."""

from __future__ import annotations

import pytest

from replicator.adapters.aws.clients import Place
from replicator.adapters.dynamodb.table_claims import EpochClaim, note_epoch
from replicator.domain.errors import WorldMismatch
from replicator.domain.values import replace
from tests.contract.worlds import create_table, fresh

pytestmark = pytest.mark.servers
CLAIM = EpochClaim("orders", "eu", "orders", 1, "us:orders", 1000)


async def test_an_epoch_is_of_one_source_and_never_of_an_older_stream_or_a_lower_number(dynamo_place: Place) -> None:
    side = fresh("side")
    await create_table(dynamo_place.dynamodb, side, {"k": "S"})

    async def note(claim: EpochClaim) -> None:
        await note_epoch(dynamo_place.dynamodb, side_table=side, claim=claim)

    for claim in (CLAIM, CLAIM, replace(CLAIM, generation=2000)):
        await note(claim)
    refused = {
        "already seen epoch 1": replace(CLAIM, epoch=0),
        "in epoch 1, in which us:orders wrote": replace(CLAIM, source="ap:orders", generation=3000),
        "an older stream": CLAIM,
    }
    for words, claim in refused.items():
        with pytest.raises(WorldMismatch, match=words) as caught:
            await note(claim)
        assert "`epoch: " in caught.value.advice
    assert caught.value.exit_code == 78
    promoted = replace(CLAIM, source="ap:orders", epoch=2, generation=500)
    await note(promoted)
    await note(promoted)
    with pytest.raises(WorldMismatch):
        await note(CLAIM)


async def test_a_row_that_names_no_source_is_taken_over(dynamo_place: Place) -> None:
    side = fresh("side")
    await create_table(dynamo_place.dynamodb, side, {"k": "S"})
    row = {"k": {"S": "orders|epoch"}, "epoch": {"N": "1"}, "sv": {"N": "1"}}
    await dynamo_place.dynamodb.put_item(TableName=side, Item=row)
    await note_epoch(dynamo_place.dynamodb, side_table=side, claim=CLAIM)
    with pytest.raises(WorldMismatch):
        await note_epoch(dynamo_place.dynamodb, side_table=side, claim=replace(CLAIM, source="ap:orders"))
