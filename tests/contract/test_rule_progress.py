"""Progress under another name, or under none: what a rewound rule skips goes with its positions."""

from __future__ import annotations

import asyncio

import pytest

from replicator.adapters.aws.clients import Place
from replicator.domain.errors import LeaseLost, WorldMismatch
from replicator.domain.identifiers import RuleName
from replicator.domain.progress import END, Position
from replicator.domain.shards.leases import Lease, Pulse, Rewind
from replicator.operations import rules
from tests.contract.coordination_worlds import BILLS_EU, EU, ME, ORDERS_EU, S1, STREAM, TableWorld, table_world
from tests.contract.operation_worlds import group_of

pytestmark = pytest.mark.servers

ORDERS, SALES = RuleName("orders"), RuleName("sales")
SALES_EU = ORDERS_EU.of_rule(SALES)
REWINDS = {ORDERS_EU: Rewind(5.0, END), BILLS_EU: Rewind(6.0, Position("7"))}


@pytest.fixture
async def stored(dynamo_place: Place) -> TableWorld:
    """A shard of which two rules were rewound."""
    stored = await table_world(dynamo_place)
    await stored.registry.remember_stream(STREAM)
    await stored.registry.start(STREAM, EU)
    await stored.found(S1)
    positions = {ORDERS_EU: Position("1"), BILLS_EU: Position("2")}
    await stored.rewind(await stored.row(), positions, REWINDS)
    return stored


async def test_a_renamed_rule_keeps_its_positions_and_what_it_skips(stored: TableWorld, dynamo_place: Place) -> None:
    group, announced = group_of(stored, dynamo_place, "sales")
    assert await rules.rename(group, ORDERS, SALES) == 2
    row = await stored.row()
    assert row.checkpoints == {SALES_EU: Position("1"), BILLS_EU: Position("2")}
    assert row.rewinds == {SALES_EU: REWINDS[ORDERS_EU], BILLS_EU: REWINDS[BILLS_EU]}
    assert set(await stored.registry.starts(STREAM)) == {SALES_EU}
    assert announced == ["looking for living workers of group test ..."]


async def test_that_a_rule_is_through_with_a_stream_goes_with_its_name(stored: TableWorld, dynamo_place: Place) -> None:
    await stored.registry.remember_stream(STREAM, {ORDERS_EU, BILLS_EU})
    await rules.rename(group_of(stored, dynamo_place, "sales")[0], ORDERS, SALES)
    (known,) = await stored.registry.streams(STREAM.region, STREAM.table)
    assert known.drained == {SALES_EU, BILLS_EU}
    await rules.forget(group_of(stored, dynamo_place, "other")[0], SALES)
    (known,) = await stored.registry.streams(STREAM.region, STREAM.table)
    assert known.drained == {BILLS_EU}


async def test_a_forgotten_rule_leaves_nothing_that_a_new_one_of_its_name_would_skip(
    stored: TableWorld, dynamo_place: Place
) -> None:
    assert await rules.forget(group_of(stored, dynamo_place, "other")[0], ORDERS) == 2
    row = await stored.row()
    assert row.checkpoints == {BILLS_EU: Position("2")}
    assert row.rewinds == {BILLS_EU: REWINDS[BILLS_EU]}
    assert await stored.registry.starts(STREAM) == {}


async def test_a_worker_that_wakes_up_later_stores_nothing_under_the_old_name(
    stored: TableWorld, dynamo_place: Place
) -> None:
    row = await stored.coordination.claim(STREAM, await stored.row(), ME)
    assert row is not None
    await rules.rename(group_of(stored, dynamo_place, "sales")[0], ORDERS, SALES)
    with pytest.raises(LeaseLost):
        await stored.coordination.save(Lease(STREAM, S1, ME, row.epoch), {ORDERS_EU: Position("9")})
    assert (await stored.row()).checkpoints == {SALES_EU: Position("1"), BILLS_EU: Position("2")}


async def test_nothing_changes_beside_a_row_that_cannot_be_read(stored: TableWorld, dynamo_place: Place) -> None:
    await stored.put(stored.names.stream(STREAM), "shard|broken", epoch={"S": "x"})
    before = await stored.row()
    for deed in (
        rules.rename(group_of(stored, dynamo_place, "sales")[0], ORDERS, SALES),
        rules.forget(group_of(stored, dynamo_place, "sales")[0], ORDERS),
    ):
        with pytest.raises(WorldMismatch, match="broken"):
            await deed
    assert await stored.row() == before


async def test_nothing_changes_beside_a_living_worker_whose_heart_beats_within_a_lease_time(
    stored: TableWorld, dynamo_place: Place
) -> None:
    await stored.membership.beat(ME, Pulse(1))
    long = {"region": "us", "table": stored.table, "lease": "5m", "heartbeat": "300ms"}
    group, _ = group_of(stored, dynamo_place, "sales", coordination=long)

    async def beat_late() -> None:
        await asyncio.sleep(1.5)  # longer than a heartbeat and its slack
        await stored.membership.beat(ME, Pulse(2))

    with pytest.raises(WorldMismatch, match="Worker me of group test is running"):
        await asyncio.gather(rules.rename(group, ORDERS, SALES), beat_late())
    assert ORDERS_EU in (await stored.row()).checkpoints


async def test_the_rules_are_listed_with_the_tables_that_they_have_progress_on(
    stored: TableWorld, dynamo_place: Place
) -> None:
    found = await rules.list_rules(group_of(stored, dynamo_place, "bills", "fresh")[0])
    assert [(rule.name, rule.configured, rule.progress) for rule in found.rules] == [
        ("bills", True, ["us:orders"]),
        ("fresh", True, []),
        ("orders", False, ["us:orders"]),
    ]
