"""Which tables rules have written, by the ids that DynamoDB gave them, in a DynamoDB table."""

from __future__ import annotations

import time

import pytest
from structlog.testing import capture_logs

from replicator.adapters.aws.clients import Place
from replicator.adapters.dynamodb.coordination import (
    CoordinationTable,
    DynamoRegistry,
    KnownTable,
    KnownTables,
    RuleRows,
)
from replicator.app.table_identities import TableIdentities
from replicator.checks.described_tables import Table
from replicator.domain.errors import TableReplaced, Unreachable
from replicator.domain.gaps import Gap
from replicator.domain.identifiers import RegionId, RuleName, TableName
from replicator.domain.shards.leases import StreamRef
from replicator.domain.targets import replica_id
from tests.contract.coordination_worlds import table_world

pytestmark = pytest.mark.servers

ORDERS, SALES, EU, TABLE = RuleName("orders"), RuleName("sales"), RegionId("eu"), TableName("orders")
FIRST, SECOND = KnownTable(ORDERS, EU, TABLE, "id-1"), KnownTable(ORDERS, EU, TABLE, "id-2")


@pytest.fixture
async def rows(dynamo_place: Place) -> CoordinationTable:
    world = await table_world(dynamo_place)
    return CoordinationTable(world.client, table=world.table, group="test", region_id="us")


def described(table_id: str) -> Table:
    return Table("orders", "", table_id, (), (), {}, active=True, items=0, stream_arn=None, stream_view=None)


async def test_the_first_table_stays_until_another_one_is_accepted(rows: CoordinationTable) -> None:
    known = KnownTables(rows)
    assert await known.known(ORDERS, EU, TABLE) is None
    assert await known.note(FIRST, 1.0) == "id-1"
    assert await known.note(SECOND, 2.0) == "id-1"
    assert not await known.accept(SECOND, "id-3", now=3.0, by="me")
    assert await known.accept(FIRST, "id-2", now=3.0, by="me")
    assert not await known.accept(FIRST, "id-3", now=4.0, by="me")
    assert await known.known(ORDERS, EU, TABLE) == "id-2"
    row, _ = await rows.get({"pk": {"S": "test|tables"}, "sk": {"S": "orders|eu|orders"}})
    assert (row["former"], row["accepted_by"]) == ({"SS": ["id-1"]}, {"S": "me"})


async def test_they_go_with_the_name_of_their_rule_or_with_the_rule(rows: CoordinationTable) -> None:
    known = KnownTables(rows)
    await known.note(FIRST, 1.0)
    await known.note(KnownTable(RuleName("orders-2"), EU, TABLE, "other"), 1.0)
    assert await RuleRows(rows).rename(ORDERS, SALES) == 1
    assert (await known.known(ORDERS, EU, TABLE), await known.known(SALES, EU, TABLE)) == (None, "id-1")
    assert await RuleRows(rows).forget(SALES) >= 1
    assert await known.known(SALES, EU, TABLE) is None
    assert await known.known(RuleName("orders-2"), EU, TABLE) == "other"


async def test_a_table_is_in_trouble_while_it_is_another_one(rows: CoordinationTable) -> None:
    known = KnownTables(rows)
    seen = TableIdentities(known, rows.clock)
    assert await seen.trouble("orders", "eu", described("id-1")) is None
    trouble = await seen.trouble("orders", "eu", described("id-2"))
    assert isinstance(trouble, TableReplaced)
    assert "`replicator rules accept orders --region eu --table orders`" in trouble.advice
    assert await TableIdentities(known, rows.clock).trouble("orders", "eu", described("id-2")) is not None
    assert await known.accept(FIRST, "id-2", now=3.0, by="me")
    assert await seen.trouble("orders", "eu", described("id-2")) is None
    assert await seen.trouble("orders", "eu", described("id-1")) is not None


async def test_another_table_is_taken_over_once_and_what_it_lacks_is_a_gap_for_each(rows: CoordinationTable) -> None:
    known, registry = KnownTables(rows), DynamoRegistry(rows)
    stream = StreamRef(RegionId("us"), TABLE, "arn:of:a:stream", 1000)
    target_id = replica_id(ORDERS, EU, TABLE)
    workers = [TableIdentities(known, rows.clock) for _ in range(2)]
    for seen in workers:
        await seen.take_over(registry, stream, target_id, "eu", described("id-1"))
    assert await registry.open_gaps() == [], "a table that was never written lacks nothing"
    assert await workers[0].trouble("orders", "eu", described("id-1")) is None
    for number, table_id in enumerate(["id-2", "id-3"]):
        assert await workers[0].trouble("orders", "eu", described(table_id)) is not None
        for seen in workers:
            await seen.take_over(registry, stream, target_id, "eu", described(table_id))
            assert await seen.trouble("orders", "eu", described(table_id)) is None
        gaps = await registry.open_gaps()
        assert [each.gap.target_id for each in gaps] == [target_id] * (number + 1)
        assert "was re-created, or restored from a backup" in gaps[-1].gap.why


async def test_a_take_over_bears_servers_time(rows: CoordinationTable, monkeypatch: pytest.MonkeyPatch) -> None:
    """A gap that seemed older than it is would be closed by a repair that began before it."""
    known, registry, true_time = KnownTables(rows), DynamoRegistry(rows), time.time
    await known.note(FIRST, 1.0)
    began = true_time()
    monkeypatch.setattr(time, "time", lambda: true_time() - 3600.0)
    seen = TableIdentities(known, rows.clock)
    stream = StreamRef(RegionId("us"), TABLE, "arn:of:a:stream", 1000)
    await seen.take_over(registry, stream, replica_id(ORDERS, EU, TABLE), "eu", described("id-2"))
    (gap,) = await registry.open_gaps()
    assert gap.at >= began


async def test_a_table_is_not_taken_over_before_what_it_lacks_is_durable(rows: CoordinationTable) -> None:
    class Away:
        async def record_gap(self, gap: Gap) -> None:
            raise Unreachable(f"{gap.gap_id} is not stored.")

    known = KnownTables(rows)
    await known.note(FIRST, 1.0)
    seen = TableIdentities(known, rows.clock)
    stream = StreamRef(RegionId("us"), TABLE, "arn:of:a:stream", 1000)
    with pytest.raises(Unreachable):
        await seen.take_over(Away(), stream, replica_id(ORDERS, EU, TABLE), "eu", described("id-2"))
    assert await known.known(ORDERS, EU, TABLE) == "id-1"


async def test_an_endpoint_that_tells_no_ids_is_told_of_once_and_holds_nothing(rows: CoordinationTable) -> None:
    seen = TableIdentities(KnownTables(rows), rows.clock)
    with capture_logs() as told:
        assert await seen.trouble("orders", "eu", described("")) is None
        assert await seen.trouble("sales", "eu", described("")) is None
    assert [line["event"] for line in told] == ["table_ids_unknown"]
    assert await KnownTables(rows).known(ORDERS, EU, TABLE) is None
