"""Whose a table was, by what its side table tells."""

from __future__ import annotations

import pytest

from replicator.adapters.aws.clients import Place
from replicator.adapters.dynamodb.table_claims import (
    EpochClaim,
    ModeClaim,
    SideTableClaims,
    note_epoch,
    note_mode,
)
from replicator.domain.errors import TableMissing
from replicator.domain.identifiers import RegionId, RuleName, TableName
from replicator.domain.rules import Rule, Target
from tests.contract.worlds import create_table, fresh

pytestmark = pytest.mark.servers

NAME = RuleName("orders")
TARGET = Target(NAME, RegionId("eu"), TableName("orders"))
RULE = Rule(NAME, RegionId("us"), TableName("orders"), (TARGET,))
MOVED = Target(NAME, RegionId("eu"), TableName("orders-v2"))


async def test_a_table_is_a_rules_own_when_the_rule_noted_itself_there(dynamo_place: Place) -> None:
    side = fresh("side")
    await create_table(dynamo_place.dynamodb, side, {"k": "S"})
    claims = SideTableClaims({"eu": dynamo_place.dynamodb}, side)
    assert not await claims.wrote(RULE, TARGET, {NAME})
    await note_mode(dynamo_place.dynamodb, side_table=side, claim=ModeClaim(NAME, "eu", "orders", "ordered"))
    assert await claims.wrote(RULE, TARGET, {NAME})
    assert await claims.wrote(RULE, TARGET, {RuleName("sales"), NAME})
    assert not await claims.wrote(RULE, TARGET, {RuleName("sales")})
    assert not await claims.wrote(RULE, MOVED, {NAME})


@pytest.mark.parametrize(("source", "is_ours"), [("us:orders", True), ("us:bills", False)])
async def test_a_table_of_the_first_version_is_known_by_its_source(
    dynamo_place: Place, source: str, *, is_ours: bool
) -> None:
    side = fresh("side")
    await create_table(dynamo_place.dynamodb, side, {"k": "S"})
    claim = EpochClaim(NAME, "eu", "orders", 0, source, 1000)
    await note_epoch(dynamo_place.dynamodb, side_table=side, claim=claim)
    assert await SideTableClaims({"eu": dynamo_place.dynamodb}, side).wrote(RULE, TARGET, {NAME}) is is_ours


async def test_a_side_table_that_cannot_be_asked_answers_nothing(dynamo_place: Place) -> None:
    with pytest.raises(TableMissing):
        await SideTableClaims({"eu": dynamo_place.dynamodb}, fresh("side")).wrote(RULE, TARGET, {NAME})
