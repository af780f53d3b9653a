"""The contract of coordination, membership and registry, in memory and in a DynamoDB table."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from replicator.adapters.aws import Place
from replicator.adapters.coordination import DynamoCoordination
from replicator.adapters.memory import MemoryCoordination, MemoryMembership, MemoryRegistry
from replicator.domain.assignment import LeaseRow
from replicator.domain.errors import LeaseLost, TableMissing, WorldMismatch
from replicator.domain.progress import END, HORIZON, Position
from replicator.domain.records import RegionId, RuleName, ShardId, TableName, WorkerId
from replicator.domain.rules import Target
from replicator.ports import Coordination, Gap, Lease, Membership, Registry, StreamRef
from tests.contract.conftest import WORLDS
from tests.contract.worlds import create_table, fresh, gathered, place

ME, YOU = WorkerId("me"), WorkerId("you")
S1, S2 = ShardId("shard-1"), ShardId("shard-2")
STREAM = StreamRef(RegionId("us"), TableName("orders"), "arn:aws:dynamodb:us-east-1:1:table/orders/stream/a", 1000)
EU = Target(RuleName("orders"), RegionId("eu"), TableName("orders"))
AP = Target(RuleName("orders"), RegionId("ap"), TableName("orders"))


class World:
    """The three ports over one store."""

    def __init__(self, coordination: Coordination, membership: Membership, registry: Registry) -> None:
        self.coordination = coordination
        self.membership = membership
        self.registry = registry


@pytest.fixture(params=WORLDS)
async def world(request: pytest.FixtureRequest) -> AsyncIterator[World]:
    if request.param == "memory":
        yield World(MemoryCoordination(), MemoryMembership(), MemoryRegistry(lambda: 1_700_000_000.0))
        return
    async with place(request.getfixturevalue("dynamodb_url")) as opened:
        store = await dynamo_coordination(opened)
        yield World(store, store, store)


async def dynamo_coordination(opened: Place) -> DynamoCoordination:
    table = fresh("coordination")
    await create_table(opened.dynamodb, table, {"pk": "S", "sk": "S"})
    return DynamoCoordination(opened.dynamodb, table=table, group="test", region_id="us")


async def claimed(coordination: Coordination, shard_id: ShardId = S1, owner: WorkerId = ME) -> Lease:
    seen = (await coordination.rows(STREAM)).get(shard_id)
    row = await coordination.claim(STREAM, shard_id, seen, owner)
    assert row is not None
    return Lease(STREAM, shard_id, owner, row.epoch)


# -- leases --------------------------------------------------------------------------------------------------------


async def test_a_shard_that_nobody_knows_is_claimed_with_the_first_epoch(world: World) -> None:
    row = await world.coordination.claim(STREAM, S1, None, ME)
    assert row == LeaseRow(S1, ME, 1, {})
    assert await world.coordination.rows(STREAM) == {S1: row}


async def test_a_race_for_a_shard_has_one_winner(world: World) -> None:
    workers = [WorkerId(f"worker-{number}") for number in range(8)]
    for _ in range(3):
        seen = (await world.coordination.rows(STREAM)).get(S1)
        answers = await gathered([world.coordination.claim(STREAM, S1, seen, worker) for worker in workers])
        (winner,) = [answer for answer in answers if answer is not None]
        assert winner.epoch == (0 if seen is None else seen.epoch) + 1
        assert await world.coordination.rows(STREAM) == {S1: winner}


async def test_a_claim_on_what_was_seen_before_somebody_else_came_fails(world: World) -> None:
    first = await world.coordination.claim(STREAM, S1, None, ME)
    assert await world.coordination.claim(STREAM, S1, None, YOU) is None
    taken = await world.coordination.claim(STREAM, S1, first, YOU)
    assert taken is not None
    assert await world.coordination.claim(STREAM, S1, first, ME) is None
    assert (await world.coordination.rows(STREAM))[S1] == taken


async def test_every_claim_raises_the_epoch_and_keeps_the_checkpoints(world: World) -> None:
    lease = await claimed(world.coordination)
    await world.coordination.save(lease, {"orders/eu": Position("5")})
    await world.coordination.release(lease)
    assert (await world.coordination.rows(STREAM))[S1] == LeaseRow(S1, None, 1, {"orders/eu": Position("5")})
    again = await claimed(world.coordination)
    assert again.epoch == 2
    assert (await world.coordination.rows(STREAM))[S1] == LeaseRow(S1, ME, 2, {"orders/eu": Position("5")})


async def test_a_released_shard_is_not_claimed_by_who_saw_it_owned(world: World) -> None:
    lease = await claimed(world.coordination)
    owned = (await world.coordination.rows(STREAM))[S1]
    await world.coordination.release(lease)
    assert await world.coordination.claim(STREAM, S1, owned, YOU) is None


async def test_releasing_what_is_no_longer_ours_is_quiet_and_changes_nothing(world: World) -> None:
    old = await claimed(world.coordination)
    new = await claimed(world.coordination, owner=YOU)
    before = await world.coordination.rows(STREAM)
    await world.coordination.release(old)
    await world.coordination.release(replace(new, owner=ME))
    await world.coordination.release(Lease(STREAM, ShardId("unknown"), ME, 1))
    assert await world.coordination.rows(STREAM) == before


# -- checkpoints ---------------------------------------------------------------------------------------------------


async def test_positions_of_several_targets_round_trip_and_are_kept_apart(world: World) -> None:
    lease = await claimed(world.coordination)
    highest = Position("9" * 40)
    await world.coordination.save(lease, {"orders/eu": HORIZON, "orders/ap": highest, "bills/eu": Position("007")})
    await world.coordination.save(lease, {"orders/eu": END})
    rows = await world.coordination.rows(STREAM)
    assert rows[S1].checkpoints == {"orders/eu": END, "orders/ap": highest, "bills/eu": Position("007")}


async def test_saving_under_an_old_epoch_is_refused(world: World) -> None:
    old = await claimed(world.coordination)
    await world.coordination.save(old, {"orders/eu": Position("1")})
    await claimed(world.coordination)
    with pytest.raises(LeaseLost):
        await world.coordination.save(old, {"orders/eu": Position("2")})
    assert (await world.coordination.rows(STREAM))[S1].checkpoints == {"orders/eu": Position("1")}


async def test_saving_what_another_worker_owns_or_nobody_does_is_refused(world: World) -> None:
    lease = await claimed(world.coordination)
    with pytest.raises(LeaseLost):
        await world.coordination.save(replace(lease, owner=YOU), {"orders/eu": Position("2")})
    await world.coordination.release(lease)
    with pytest.raises(LeaseLost):
        await world.coordination.save(lease, {"orders/eu": Position("2")})
    await world.coordination.forget(STREAM, S1)
    with pytest.raises(LeaseLost):
        await world.coordination.save(lease, {"orders/eu": Position("2")})
    assert await world.coordination.rows(STREAM) == {}


async def test_a_forgotten_shard_starts_anew(world: World) -> None:
    await claimed(world.coordination)
    await claimed(world.coordination, S2)
    await world.coordination.forget(STREAM, S1)
    await world.coordination.forget(STREAM, S1)
    assert set(await world.coordination.rows(STREAM)) == {S2}
    assert (await claimed(world.coordination)).epoch == 1


async def test_streams_with_one_arn_in_two_regions_share_nothing(world: World) -> None:
    lease = await claimed(world.coordination)
    twin = replace(STREAM, region=RegionId("eu"))
    assert await world.coordination.rows(twin) == {}
    assert await world.coordination.claim(twin, S1, None, YOU) is not None
    await world.coordination.save(lease, {"orders/eu": Position("1")})
    assert (await world.coordination.rows(twin))[S1].checkpoints == {}
    await world.registry.start(STREAM, EU)
    assert await world.registry.starts(twin) == {}


async def test_many_shards_are_all_listed(world: World) -> None:
    shards = [ShardId(f"shardId-{number:08d}-{'x' * 40}") for number in range(300)]
    await gathered([world.coordination.claim(STREAM, shard_id, None, ME) for shard_id in shards])
    assert set(await world.coordination.rows(STREAM)) == set(shards)


# -- members -------------------------------------------------------------------------------------------------------


async def test_members_show_their_last_beat_until_they_leave(world: World) -> None:
    assert await world.membership.members() == {}
    await world.membership.beat(ME, 1)
    await world.membership.beat(YOU, 7)
    await world.membership.beat(ME, 2)
    assert await world.membership.members() == {ME: 2, YOU: 7}
    await world.membership.leave(YOU)
    await world.membership.leave(YOU)
    assert await world.membership.members() == {ME: 2}


# -- registry ------------------------------------------------------------------------------------------------------


async def test_the_start_of_a_target_is_stored_once(world: World) -> None:
    assert await world.registry.starts(STREAM) == {}
    first = await world.registry.start(STREAM, EU)
    assert (first.rule, first.target_id) == ("orders", "orders/eu")
    assert first.started_at >= 1_700_000_000
    other = await world.registry.start(STREAM, AP)
    assert await world.registry.start(STREAM, EU) == first
    assert await world.registry.starts(STREAM) == {"orders/eu": first, "orders/ap": other}


async def test_starts_and_shards_of_one_stream_do_not_mix(world: World) -> None:
    await world.registry.start(STREAM, EU)
    await claimed(world.coordination)
    assert set(await world.coordination.rows(STREAM)) == {S1}
    assert set(await world.registry.starts(STREAM)) == {"orders/eu"}


async def test_streams_are_remembered_oldest_first_until_they_are_drained(world: World) -> None:
    newer = replace(STREAM, arn=STREAM.arn + "/newer", generation=10_000)
    for stream in (newer, STREAM, newer):
        await world.registry.remember_stream(stream, drained=False)
    await world.registry.remember_stream(replace(STREAM, table=TableName("bills")), drained=False)
    assert await world.registry.streams(STREAM.region, STREAM.table) == [STREAM, newer]
    await world.registry.remember_stream(STREAM, drained=True)
    assert await world.registry.streams(STREAM.region, STREAM.table) == [newer]
    await world.registry.remember_stream(STREAM, drained=False)
    assert await world.registry.streams(STREAM.region, STREAM.table) == [newer]
    assert await world.registry.streams(RegionId("eu"), STREAM.table) == []


async def test_a_gap_that_is_found_again_is_the_same_gap(world: World) -> None:
    gap = Gap(STREAM, S1, "orders/eu", Position("5"), 1000.0, "trimmed")
    await world.registry.record_gap(gap)
    await world.registry.record_gap(replace(gap, found_at=2000.0))
    await world.registry.record_gap(replace(gap, target_id="orders/ap"))
    assert await gaps(world.registry) == [("orders/ap", 1000), ("orders/eu", 1000)]


async def gaps(registry: Registry) -> list[tuple[str, int]]:
    """Target and time of every stored gap."""
    if isinstance(registry, MemoryRegistry):
        return sorted((gap.target_id, int(gap.found_at)) for gap in registry.gaps)
    assert isinstance(registry, DynamoCoordination)
    answer = await registry._client.scan(TableName=registry._table)
    return sorted((row["target"]["S"], int(row["found_at"]["N"])) for row in answer["Items"])


# -- what only a table can hold ------------------------------------------------------------------------------------


@pytest.mark.servers
@pytest.mark.parametrize(
    ("attribute", "value"),
    [
        ("epoch", {"S": "one"}),
        ("epoch", {"N": "1.5"}),
        ("owner", {"N": "1"}),
        ("sv", {"S": "1"}),
        ("at:orders/eu", {"S": "somewhere"}),
        ("at:orders/eu", {"N": "5"}),
    ],
)
async def test_a_corrupt_row_is_named_with_its_attribute_and_a_remedy(
    dynamo_place: Place, attribute: str, value: dict[str, str]
) -> None:
    store = await dynamo_coordination(dynamo_place)
    await claimed(store)
    await overwrite(dynamo_place, store, attribute, value)
    with pytest.raises(WorldMismatch, match=r"shard-1.*is corrupt") as raised:
        await store.rows(STREAM)
    assert repr(attribute) in raised.value.message
    assert "Delete the row" in raised.value.advice


@pytest.mark.servers
async def test_a_corrupt_row_does_not_hide_the_others_and_is_told(dynamo_place: Place) -> None:
    store = await dynamo_coordination(dynamo_place)
    for shard_id in (S1, S2):
        await claimed(store, shard_id)
    assert store.unreadable(STREAM) is None
    await overwrite(dynamo_place, store, "at:orders/eu", {"S": "somewhere"})
    assert set(await store.rows(STREAM)) == {S2}
    problem = store.unreadable(STREAM)
    assert problem is not None
    assert "shard-1" in problem.message
    assert await store.claim(STREAM, S1, None, YOU) is None
    await overwrite(dynamo_place, store, "at:orders/eu", {"S": "5"})
    assert set(await store.rows(STREAM)) == {S1, S2}
    assert store.unreadable(STREAM) is None


@pytest.mark.servers
async def test_a_worker_whose_row_is_corrupt_shows_no_life_and_hides_nobody(dynamo_place: Place) -> None:
    store = await dynamo_coordination(dynamo_place)
    await store.beat(ME, 1)
    for name, beat in (("a", {"S": "x"}), ("b", {"N": "1.5"})):
        row = {"pk": {"S": "test|workers"}, "sk": {"S": name}, "beat": beat}
        await dynamo_place.dynamodb.put_item(TableName=store._table, Item=row)
    assert await store.members() == {ME: 1}


@pytest.mark.servers
@pytest.mark.parametrize(
    ("partition", "sort", "words"),
    [
        ("test|streams", "us|orders|0000000001000", "present stream is noted again"),
        ("test|streams", "us|orders|x", "present stream is noted again"),
        ("test|us|" + STREAM.arn, "target|orders/eu", "start is then noted anew"),
        ("test|us|" + STREAM.arn, "shard|shard-1", "trim horizon"),
    ],
)
async def test_the_advice_about_a_corrupt_row_fits_its_kind(
    dynamo_place: Place, partition: str, sort: str, words: str
) -> None:
    store = await dynamo_coordination(dynamo_place)
    row = {"pk": {"S": partition}, "sk": {"S": sort}, "sv": {"N": "1"}, "started_at": {"S": "x"}}
    await dynamo_place.dynamodb.put_item(TableName=store._table, Item=row)
    with pytest.raises(WorldMismatch, match="is corrupt") as raised:  # noqa: PT012 - whichever reads this kind
        await store.rows(STREAM)
        await store.starts(STREAM)
        await store.streams(STREAM.region, STREAM.table)
    assert words in raised.value.advice


@pytest.mark.servers
async def test_rows_of_a_newer_program_stop_an_older_one(dynamo_place: Place) -> None:
    store = await dynamo_coordination(dynamo_place)
    await claimed(store)
    await overwrite(dynamo_place, store, "sv", {"N": "2"})
    with pytest.raises(WorldMismatch, match="newer replicator"):
        await store.rows(STREAM)


async def overwrite(opened: Place, store: DynamoCoordination, attribute: str, value: dict[str, str]) -> None:
    await opened.dynamodb.update_item(
        TableName=store._table,
        Key={"pk": {"S": store._names.stream(STREAM)}, "sk": {"S": f"shard|{S1}"}},
        UpdateExpression="SET #a = :a",
        ExpressionAttributeNames={"#a": attribute},
        ExpressionAttributeValues={":a": value},
    )


@pytest.mark.servers
async def test_a_missing_coordination_table_is_named(dynamo_place: Place) -> None:
    store = DynamoCoordination(dynamo_place.dynamodb, table="nowhere", group="test", region_id="us")
    with pytest.raises(TableMissing, match="coordination table nowhere in us"):
        await store.rows(STREAM)
