"""Progress under another name, or under none: what a rewound rule skips goes with its positions."""

from __future__ import annotations

import pytest

from replicator.adapters.aws.clients import Place
from replicator.cli.progress import Ledger
from replicator.domain.identifiers import RuleName
from replicator.domain.progress import END, Position
from replicator.domain.shards.leases import Rewind
from replicator.settings import Settings
from tests.contract.coordination_worlds import BILLS_EU, EU, ORDERS_EU, S1, STREAM, TableWorld, table_world

pytestmark = pytest.mark.servers

SALES_EU = ORDERS_EU.of_rule(RuleName("sales"))
REWINDS = {ORDERS_EU: Rewind(5.0, END), BILLS_EU: Rewind(6.0, Position("7"))}


async def rewound(dynamo_place: Place, dynamodb_url: str) -> tuple[TableWorld, Ledger]:
    """A shard of which two rules were rewound, and the ledger of its group."""
    stored = await table_world(dynamo_place)
    settings = Settings.model_validate(
        {
            "group": "test",
            "regions": {
                name: {"region": region, "endpoint_url": dynamodb_url}
                for name, region in (("us", "us-east-1"), ("eu", "eu-west-1"))
            },
            "coordination": {"region": "us", "table": stored.table},
            "rules": [{"name": "orders", "table": "orders", "source": "us", "replicas": ["eu"]}],
        }
    )
    await stored.registry.remember_stream(STREAM)
    await stored.registry.start(STREAM, EU)
    await stored.found(S1)
    positions = {ORDERS_EU: Position("1"), BILLS_EU: Position("2")}
    await stored.rewind(await stored.row(), positions, REWINDS)
    return stored, Ledger(settings, dynamo_place)


async def test_a_renamed_rule_keeps_its_positions_and_what_it_skips(dynamo_place: Place, dynamodb_url: str) -> None:
    stored, ledger = await rewound(dynamo_place, dynamodb_url)
    assert await ledger.rename("orders", "sales") == 2
    row = await stored.row()
    assert row.checkpoints == {SALES_EU: Position("1"), BILLS_EU: Position("2")}
    assert row.rewinds == {SALES_EU: REWINDS[ORDERS_EU], BILLS_EU: REWINDS[BILLS_EU]}
    assert set(await stored.registry.starts(STREAM)) == {SALES_EU}


async def test_that_a_rule_is_through_with_a_stream_goes_with_its_name(dynamo_place: Place, dynamodb_url: str) -> None:
    stored, ledger = await rewound(dynamo_place, dynamodb_url)
    await stored.registry.remember_stream(STREAM, {RuleName("orders"), RuleName("bills")})
    await ledger.rename("orders", "sales")
    (known,) = await stored.registry.streams(STREAM.region, STREAM.table)
    assert known.drained == {"sales", "bills"}
    await ledger.forget("sales")
    (known,) = await stored.registry.streams(STREAM.region, STREAM.table)
    assert known.drained == {"bills"}


async def test_a_forgotten_rule_leaves_nothing_that_a_new_one_of_its_name_would_skip(
    dynamo_place: Place, dynamodb_url: str
) -> None:
    stored, ledger = await rewound(dynamo_place, dynamodb_url)
    assert await ledger.forget("orders") == 2
    row = await stored.row()
    assert row.checkpoints == {BILLS_EU: Position("2")}
    assert row.rewinds == {BILLS_EU: REWINDS[BILLS_EU]}
    assert await stored.registry.starts(STREAM) == {}
