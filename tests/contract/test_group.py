"""A group's rows as operations see and change them."""

from __future__ import annotations

import pytest

from replicator.adapters.aws.clients import Place
from replicator.domain.identifiers import ShardId
from replicator.domain.progress import Position
from replicator.domain.shards.leases import LeaseRow
from replicator.domain.shards.lineage import Shard
from replicator.operations.group import Move
from tests.contract.coordination_worlds import EU, ME, ORDERS_EU, S1, S2, STREAM, YOU, TableWorld, table_world
from tests.contract.operation_worlds import group_of

pytestmark = pytest.mark.servers


@pytest.fixture
async def stored(dynamo_place: Place) -> TableWorld:
    stored = await table_world(dynamo_place)
    await stored.registry.remember_stream(STREAM, {ORDERS_EU})
    await stored.registry.start(STREAM, EU, started_at=5.0)
    await stored.found(S1, Shard(S2, (S1,)))
    return stored


async def test_a_row_that_changed_since_it_was_seen_is_moved_as_it_is_now(
    stored: TableWorld, dynamo_place: Place
) -> None:
    group, _ = group_of(stored, dynamo_place)
    seen = await stored.row()
    lease = await stored.claimed()
    await stored.coordination.save(lease, {ORDERS_EU: Position("5")})
    done = await group.move(STREAM, seen, lambda row: Move({name: Position("3") for name in row.checkpoints}))
    assert done is not None
    assert (done[0].owner, done[0].epoch) == (ME, 1)
    row = await stored.row()
    assert (row.owner, row.epoch, row.checkpoints) == (None, 2, {ORDERS_EU: Position("3")})


async def test_a_plan_that_is_over_for_the_row_as_it_is_now_moves_nothing(
    stored: TableWorld, dynamo_place: Place
) -> None:
    group, _ = group_of(stored, dynamo_place)
    await stored.claimed()
    seen = await stored.row()
    await stored.operations.rewind(STREAM, seen, {}, {})
    await stored.claimed(owner=YOU)
    before = await stored.row()
    assert await group.move(STREAM, seen, lambda row: Move() if row.owner == ME else None) is None
    assert await stored.row() == before
    assert await group.move(STREAM, LeaseRow(Shard(ShardId("none")), owner=ME), lambda _: Move()) is None


async def test_a_row_that_cannot_be_read_hides_no_other(stored: TableWorld, dynamo_place: Place) -> None:
    await stored.put(stored.names.stream(STREAM), "shard|broken", epoch={"S": "x"}, sv={"N": "1"})
    await stored.put(stored.names.stream(STREAM), "shard|newer", epoch={"N": "1"}, sv={"N": "99"})
    await stored.put(stored.names.stream(STREAM), "target|other/eu", started_at={"S": "x"}, sv={"N": "1"})
    group, _ = group_of(stored, dynamo_place)
    (found,) = await group.streams()
    assert set(found.rows) == {S1, S2}
    assert (found.stream.where, found.rules, found.drained) == ("us:orders", {"orders"}, True)
    words = " ".join(problem.sentence for problem in found.problems)
    assert all(what in words for what in ("shard|broken", "shard|newer is of layout 99", "target|other/eu"))
