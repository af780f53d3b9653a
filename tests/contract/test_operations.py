"""What operators do to the rows of living daemons, in a DynamoDB table."""

from __future__ import annotations

import time

import pytest

from replicator.adapters.aws.clients import Place
from replicator.adapters.dynamodb.coordination import Pause, StoredGap
from replicator.domain.drivers import Drivers
from replicator.domain.errors import LeaseLost
from replicator.domain.identifiers import RuleName
from replicator.domain.progress import END, Position
from replicator.domain.shards.leases import LeaseRow, Rewind
from replicator.domain.shards.lineage import Shard
from replicator.domain.values import replace
from tests.contract.coordination_worlds import (
    GAP,
    ME,
    ORDERS_AP,
    ORDERS_EU,
    OTHER_EU,
    S1,
    S2,
    STREAM,
    YOU,
    TableWorld,
    table_world,
)
from tests.contract.worlds import gathered

pytestmark = pytest.mark.servers


@pytest.fixture
async def stored(dynamo_place: Place) -> TableWorld:
    return await table_world(dynamo_place)


async def test_a_lease_that_an_operator_releases_is_lost_to_its_owner_and_free_for_others(stored: TableWorld) -> None:
    lease = await stored.claimed()
    await stored.coordination.save(lease, {ORDERS_EU: Position("5")})
    seen = await stored.row()
    assert await stored.operations.rewind(STREAM, seen, {}, {})
    free = await stored.row()
    assert free == replace(seen, owner=None, epoch=2, seized_at=free.seized_at)
    assert free.seized_at is not None, "its owner did not give it back"
    with pytest.raises(LeaseLost):
        await stored.coordination.save(lease, {ORDERS_EU: Position("6")})
    await stored.coordination.release(lease)
    assert (await stored.claimed(owner=YOU)).epoch == 3


async def test_nothing_changes_when_the_row_changed_since_the_operator_looked(stored: TableWorld) -> None:
    await stored.found(S1)
    seen = await stored.row()
    await stored.claimed()
    before = await stored.row()
    rewinds = {ORDERS_EU: Rewind(1.0, END)}
    assert not await stored.operations.rewind(STREAM, seen, {}, {})
    assert not await stored.operations.rewind(STREAM, seen, {ORDERS_EU: None}, rewinds)
    assert not await stored.operations.rewind(STREAM, LeaseRow(Shard(S2)), {ORDERS_EU: Position("1")}, {})
    assert await stored.rows() == {S1: before}


async def test_a_claim_and_a_rewind_that_race_have_one_winner(stored: TableWorld) -> None:
    await stored.found(S1)
    for _ in range(5):
        seen = await stored.row()
        claimed, rewound = await gathered(
            [
                stored.coordination.claim(STREAM, seen, ME),
                stored.operations.rewind(STREAM, seen, {ORDERS_EU: Position("1")}, {}),
            ]
        )
        row = await stored.row()
        assert row.epoch == seen.epoch + 1
        assert (claimed is not None, rewound) == (row.owner == ME, row.owner is None)


async def test_a_pause_keeps_its_first_reason_until_it_ends(stored: TableWorld) -> None:
    orders, bills = RuleName("orders"), RuleName("bills")
    assert await stored.operations.pause(orders, now=5.5, note="maintenance")
    assert not await stored.operations.pause(orders, now=6.0, note="another reason")
    assert await stored.operations.pause(bills, now=7.0)
    assert await stored.operations.pauses() == [Pause(bills, 7.0), Pause(orders, 5.5, "maintenance")]
    assert await stored.operations.resume(orders)
    assert not await stored.operations.resume(orders)
    assert await stored.operations.pauses() == [Pause(bills, 7.0)]


async def test_a_gap_is_acknowledged_once_with_a_name_and_a_note(stored: TableWorld) -> None:
    later = replace(GAP, target_id=ORDERS_AP, found_at=2000.0)
    for gap in (later, GAP):
        await stored.registry.record_gap(gap)
    assert await stored.operations.acknowledge(GAP, now=3000.5, by="ada", note="repaired by hand")
    assert not await stored.operations.acknowledge(GAP, now=4000.0, by="bob")
    assert not await stored.operations.acknowledge(replace(GAP, target_id=OTHER_EU), now=4000.0, by="bob")
    accepted = StoredGap(GAP, acknowledged_at=3000.5, acknowledged_by="ada", note="repaired by hand")
    assert await stored.operations.gaps() == [accepted, StoredGap(later)]


async def test_a_gap_that_grew_since_it_was_shown_is_not_acknowledged_by_that(stored: TableWorld) -> None:
    await stored.registry.record_gap(GAP)
    grown = replace(GAP, until=Position("12"), found_at=5000.0)
    await stored.registry.record_gap(grown)
    assert not await stored.operations.acknowledge(GAP, now=6000.0, by="ada")
    assert await stored.operations.acknowledge(grown, now=6000.0, by="ada", note="compared")
    await stored.registry.record_gap(replace(grown, until=END))
    assert await stored.operations.gaps() == [StoredGap(replace(GAP, until=END), grown_at=5000.0)]


async def test_what_drives_a_rule_is_noted_once_with_the_servers_time_and_outlives_a_pause(stored: TableWorld) -> None:
    rule = RuleName("driven")
    membership = stored.membership
    assert not await stored.operations.drive(rule, Drivers.PODS)
    assert rule not in await membership.driven()
    assert await stored.operations.drive(rule, Drivers.LAMBDA)
    assert not await stored.operations.drive(rule, Drivers.LAMBDA)
    await stored.operations.pause(rule, now=1.0)
    assert await stored.operations.resume(rule)
    driving = (await membership.driven())[rule]
    assert (driving.by, driving.lets(Drivers.LAMBDA, 60)) == (Drivers.LAMBDA, False)
    assert 0 <= driving.age < 60
    assert abs(driving.since - time.time()) < 60
    assert await stored.operations.drive(rule, Drivers.PODS)
    assert (await membership.driven())[rule].by is Drivers.PODS
