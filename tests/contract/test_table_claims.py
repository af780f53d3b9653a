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
from replicator.domain.errors import TableMissing, WorldMismatch
from replicator.domain.identifiers import RegionId, RuleName, TableName
from replicator.domain.key_mapping import key_mapping
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
    claims = SideTableClaims({"eu": dynamo_place.dynamodb}.__getitem__, side)
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
    assert await SideTableClaims({"eu": dynamo_place.dynamodb}.__getitem__, side).wrote(RULE, TARGET, {NAME}) is is_ours


def mapped(rule: str, text: str | None, source: str = "us:orders") -> tuple[ModeClaim, EpochClaim]:
    keys = None if text is None else key_mapping({"pk": text})
    return ModeClaim(rule, "eu", "all", "ordered", keys), EpochClaim(rule, "eu", "all", 0, source, 1000, keys)


async def test_a_table_is_written_under_several_mappings_only_if_no_key_of_one_can_be_one_of_another(
    dynamo_place: Place,
) -> None:
    side, client = fresh("side"), dynamo_place.dynamodb
    await create_table(client, side, {"k": "S"})

    async def note(rule: str, text: str | None, source: str = "us:orders") -> None:
        mode, epoch = mapped(rule, text, source)
        await note_mode(client, side_table=side, claim=mode)
        await note_epoch(client, side_table=side, claim=epoch)

    for _ in range(2):
        await note("orders", "o#{pk}")
        await note("bills", "b#{pk}", "us:bills")
    # A key that is as it is may be any; a mapping that changed may make keys of the former one, or of another rule.
    for text in (None, "o#{pk}!", "{pk}"):
        with pytest.raises(WorldMismatch, match="under keys that may be those of others"):
            await note("orders", text)
    with pytest.raises(WorldMismatch, match="in which us:bills wrote"):
        await note("orders", "b#{pk}")
    await note("bills", "b#{pk}", "us:bills")
    await note("orders", "other#{pk}")
    claims = SideTableClaims({"eu": client}.__getitem__, side)
    keys = mapped("", "b#{pk}")[0].keys
    assert await claims.writer(RegionId("eu"), TableName("all"), keys) == "bills"
    await claims.forget(RegionId("eu"), TableName("all"), keys)
    assert await claims.writer(RegionId("eu"), TableName("all"), keys) is None
    await note("orders", "b{pk}")
    await note("plain", "o#{pk}")


async def test_a_table_that_was_written_as_it_is_takes_no_mapping(dynamo_place: Place) -> None:
    side, client = fresh("side"), dynamo_place.dynamodb
    await create_table(client, side, {"k": "S"})
    (plain, _), (merging, _) = mapped("orders", None), mapped("orders", "o#{pk}")
    await note_mode(client, side_table=side, claim=plain)
    with pytest.raises(WorldMismatch, match="under the keys of its source before"):
        await note_mode(client, side_table=side, claim=merging)
    await note_mode(client, side_table=side, claim=plain)  # what was refused left nothing


async def test_a_side_table_that_cannot_be_asked_answers_nothing(dynamo_place: Place) -> None:
    with pytest.raises(TableMissing):
        await SideTableClaims({"eu": dynamo_place.dynamodb}.__getitem__, fresh("side")).wrote(RULE, TARGET, {NAME})
