"""The contract of coordination, membership and registry, in memory and in a DynamoDB table."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from replicator.domain.errors import LeaseLost
from replicator.domain.gaps import OpenGap
from replicator.domain.identifiers import RegionId, RuleName, SequenceNumber, ShardId, TableName, WorkerId
from replicator.domain.progress import BEGINNING, END, HORIZON, Position
from replicator.domain.shards.inheritance import Inherited
from replicator.domain.shards.leases import KnownStream, Lease, LeaseRow, Pulse, Rewind, Seat, StreamState
from replicator.domain.shards.lineage import Shard
from replicator.domain.targets import TargetId
from replicator.domain.values import replace
from tests.contract.conftest import WORLDS
from tests.contract.coordination_worlds import (
    AP,
    BILLS_AP,
    BILLS_EU,
    EU,
    FOUND,
    GAP,
    ME,
    ORDERS_AP,
    ORDERS_EU,
    OTHER_EU,
    S1,
    S2,
    S3,
    STREAM,
    YOU,
    MemoryWorld,
    World,
    table_world,
)
from tests.contract.worlds import gathered, place


@pytest.fixture(params=WORLDS)
async def world(request: pytest.FixtureRequest) -> AsyncIterator[World]:
    if request.param == "memory":
        yield MemoryWorld()
        return
    async with place(request.getfixturevalue("dynamodb_url")) as opened:
        yield await table_world(opened)


# -- lineage -------------------------------------------------------------------------------------------------------


async def test_a_stream_of_which_nothing_is_known_has_nothing(world: World) -> None:
    state = await world.coordination.state(STREAM)
    assert state == StreamState({}, None, {}, at=state.at)


async def test_a_reading_tells_the_time_of_the_clock_that_starts_are_noted_by(world: World) -> None:
    world.turn_clock(1_600_000_000.0)
    start = await world.registry.start(STREAM, EU)
    state = await world.coordination.state(STREAM)
    assert (start.started_at, state.at) == (1_600_000_000.0, 1_600_000_000.0)
    assert state.starts == {EU.target_id: start}


async def test_a_shard_that_is_found_is_free_and_keeps_what_was_listed_of_it(world: World) -> None:
    shard = Shard(S3, (S1, S2), closed=True, first=SequenceNumber("7" * 40))
    await world.found(S1, S2, shard)
    rows = await world.rows()
    assert rows[S1] == LeaseRow(Shard(S1), found_at=FOUND)
    assert rows[S3] == LeaseRow(shard, owner=None, epoch=0, found_at=FOUND)


async def test_a_shard_that_is_found_again_keeps_its_lease_its_progress_and_its_time(world: World) -> None:
    lease = await world.claimed()
    await world.coordination.save(lease, {ORDERS_EU: Position("5")})
    before = await world.row()
    await world.coordination.discover(STREAM, [Shard(S1)], FOUND + 60)
    assert await world.row() == before
    await world.coordination.save(lease, {ORDERS_EU: Position("6")})


async def test_what_is_known_of_a_shard_only_grows(world: World) -> None:
    await world.found(Shard(S3, (S1,)))
    await world.found(Shard(S3, (S2,), closed=True, first=SequenceNumber("5")))
    await world.found(Shard(S3, first=SequenceNumber("8")))
    assert (await world.row(S3)).shard == Shard(S3, (S1, S2), closed=True, first=SequenceNumber("5"))


async def test_what_is_stored_is_what_was_listed_even_when_a_child_is_listed_with_its_open_parent(world: World) -> None:
    await world.found(Shard(S2, (S1,)), Shard(S1))
    assert not (await world.row(S1)).shard.closed


async def test_a_parent_that_is_listed_late_is_added_to_its_child_while_somebody_reads_it(world: World) -> None:
    lease = await world.claimed(S2)
    await world.found(Shard(S1, closed=True), Shard(S2, (S1,)))
    row = await world.row(S2)
    assert (row.shard.parents, row.owner, row.epoch) == ((S1,), ME, 1)
    await world.coordination.save(lease, {ORDERS_EU: Position("6")})


async def test_discoverers_that_race_leave_one_row_with_the_knowledge_of_all(world: World) -> None:
    sights = [Shard(S3, (S1,)), Shard(S3, (S2,)), Shard(S3, closed=True), Shard(S3, first=SequenceNumber("5"))] * 3
    await gathered([world.coordination.discover(STREAM, [sight], FOUND) for sight in sights])
    assert await world.rows() == {
        S3: LeaseRow(Shard(S3, (S1, S2), closed=True, first=SequenceNumber("5")), found_at=FOUND)
    }


async def test_one_page_may_name_a_shard_twice_or_none(world: World) -> None:
    await world.found()
    await world.found(Shard(S3, (S1,)), Shard(S3, (S2,), closed=True))
    assert (await world.row(S3)).shard == Shard(S3, (S1, S2), closed=True)


async def test_a_circle_of_parents_is_stored_as_it_was_listed(world: World) -> None:
    circle = [Shard(S1, (S3,)), Shard(S2, (S1,)), Shard(S3, (S2,))]
    await world.found(*circle)
    assert {row.shard for row in (await world.rows()).values()} == set(circle)


async def test_a_shard_vanishes_and_comes_back_when_it_is_listed_again(world: World) -> None:
    lease = await world.claimed()
    await world.coordination.mark_vanished(STREAM, S1, FOUND + 60.5)
    await world.coordination.mark_vanished(STREAM, S2, FOUND + 60.5)
    assert ((await world.row()).vanished, (await world.row()).vanished_at) == (True, FOUND + 60.5)
    assert set(await world.rows()) == {S1}
    await world.coordination.save(lease, {ORDERS_EU: END})
    assert (await world.row()).vanished
    await world.found(S1)
    assert ((await world.row()).vanished, (await world.row()).vanished_at) == (False, None)


async def test_many_shards_are_all_found_and_listed(world: World) -> None:
    shards = [ShardId(f"shardId-{number:08d}-{'x' * 40}") for number in range(300)]
    await world.found(
        *(Shard(shard_id, (shards[number // 2],) if number else ()) for number, shard_id in enumerate(shards))
    )
    assert set(await world.rows()) == set(shards)


# -- leases --------------------------------------------------------------------------------------------------------


async def test_a_shard_that_nobody_had_is_claimed_with_the_first_epoch(world: World) -> None:
    await world.found(S1)
    row = await world.coordination.claim(STREAM, await world.row(), ME)
    assert row == LeaseRow(Shard(S1), ME, 1, found_at=FOUND)
    assert await world.rows() == {S1: row}


async def test_a_race_of_twenty_for_a_shard_has_one_winner(world: World) -> None:
    await world.found(S1)
    workers = [WorkerId(f"worker-{number}") for number in range(20)]
    for _ in range(3):
        seen = await world.row()
        answers = await gathered([world.coordination.claim(STREAM, seen, worker) for worker in workers])
        (winner,) = [answer for answer in answers if answer is not None]
        assert winner.epoch == seen.epoch + 1
        assert await world.rows() == {S1: winner}


async def test_a_claim_on_what_was_seen_before_somebody_else_came_fails(world: World) -> None:
    await world.found(S1)
    free = await world.row()
    first = await world.coordination.claim(STREAM, free, ME)
    assert first is not None
    assert await world.coordination.claim(STREAM, free, YOU) is None
    taken = await world.coordination.claim(STREAM, first, YOU)
    assert taken is not None
    assert await world.coordination.claim(STREAM, first, ME) is None
    assert await world.row() == taken


async def test_a_row_tells_which_targets_its_owner_runs(world: World) -> None:
    await world.found(S1)
    row = await world.coordination.claim(STREAM, await world.row(), ME, {ORDERS_EU, ORDERS_AP})
    assert row is not None
    assert (await world.row()).serves == row.serves == {ORDERS_EU, ORDERS_AP}
    taken = await world.coordination.claim(STREAM, row, YOU, {ORDERS_AP})
    assert taken is not None
    assert (await world.row()).serves == {ORDERS_AP}
    assert await world.coordination.claim(STREAM, taken, ME) is not None
    assert (await world.row()).serves == frozenset(), "that is not known"


async def test_a_row_tells_when_it_was_last_taken_from_an_owner_that_kept_it(world: World) -> None:
    await world.found(S1)
    first = await world.coordination.claim(STREAM, await world.row(), ME, at=FOUND + 1)
    assert first is not None
    assert first.seized_at is None, "it was free"
    taken = await world.coordination.claim(STREAM, first, YOU, at=FOUND + 2)
    assert taken is not None
    assert (await world.row()).seized_at == FOUND + 2
    await world.coordination.release(Lease(STREAM, S1, YOU, taken.epoch))
    again = await world.coordination.claim(STREAM, await world.row(), ME, at=FOUND + 9)
    assert again is not None
    assert again.seized_at == FOUND + 2, "a hand-over in order is none"


async def test_a_shard_without_a_row_is_not_claimed(world: World) -> None:
    for seen in (LeaseRow(Shard(S1)), LeaseRow(Shard(S1), YOU, 3)):
        assert await world.coordination.claim(STREAM, seen, ME) is None
    assert await world.rows() == {}


async def test_every_claim_raises_the_epoch_and_keeps_all_else(world: World) -> None:
    await world.found(Shard(S1, (S2,), closed=True, first=SequenceNumber("1")))
    lease = await world.claimed()
    await world.coordination.save(lease, {ORDERS_EU: Position("5")})
    await world.coordination.release(lease)
    released = await world.row()
    assert (released.owner, released.epoch, released.checkpoints) == (None, 1, {ORDERS_EU: Position("5")})
    again = await world.claimed()
    assert again.epoch == 2
    assert await world.row() == replace(released, owner=ME, epoch=2)


async def test_the_time_of_a_position_is_stored_beside_it_and_grows_with_the_release(world: World) -> None:
    lease = await world.claimed()
    assert (await world.row()).checkpoints.get(ORDERS_EU) is None
    await world.coordination.save(lease, {ORDERS_EU: Position("5"), ORDERS_AP: Position("7", 60.5)})
    assert await times(world) == {ORDERS_EU: None, ORDERS_AP: 60.5}
    await world.coordination.save(lease, {ORDERS_EU: Position("6", 50.0), ORDERS_AP: Position("8")})
    assert await times(world) == {ORDERS_EU: 50.0, ORDERS_AP: 60.5}, "what was true of a place before stays true"
    await world.coordination.release(lease, {ORDERS_EU: Position("6", 70.25), ORDERS_AP: Position("8")})
    assert await times(world) == {ORDERS_EU: 70.25, ORDERS_AP: 60.5}
    row = await world.row()
    assert (row.owner, row.checkpoints) == (None, {ORDERS_EU: Position("6"), ORDERS_AP: Position("8")})


async def test_a_place_before_the_one_that_a_time_was_stored_of_has_none(world: World) -> None:
    lease = await world.claimed()
    await world.coordination.save(lease, {ORDERS_EU: Position("6", 50.0), ORDERS_AP: Position("8", 60.0)})
    await world.rewind(await world.row(), {ORDERS_EU: Position("3"), ORDERS_AP: None}, {})
    assert await times(world) == {ORDERS_EU: None}
    lease = await world.claimed()
    await world.coordination.save(lease, {ORDERS_AP: Position("1")})
    assert await times(world) == {ORDERS_EU: None, ORDERS_AP: None}


async def test_what_was_kept_in_step_is_stored_with_a_position_and_stays(world: World) -> None:
    lease = await world.claimed()
    await world.coordination.save(lease, {ORDERS_EU: Position("5"), ORDERS_AP: Position("7")}, {ORDERS_EU: "a:1 b:2"})
    assert (await world.row()).keeps == {ORDERS_EU: "a:1 b:2"}
    await world.coordination.save(lease, {ORDERS_EU: Position("6")}, {})
    await world.coordination.save(lease, {ORDERS_AP: Position("8")}, {ORDERS_AP: ""})
    await world.coordination.release(lease)
    assert (await world.row()).keeps == {ORDERS_EU: "a:1 b:2", ORDERS_AP: ""}


async def test_a_target_that_is_carried_over_gets_the_time_of_the_place(world: World) -> None:
    await world.found(S1)
    place = Inherited(Position("6", 50.0), None)
    assert await world.coordination.carry_over(STREAM, await world.row(), ORDERS_EU, place)
    assert await times(world) == {ORDERS_EU: 50.0}


async def times(world: World) -> dict[TargetId, float | None]:
    return {target_id: place.through for target_id, place in (await world.row()).checkpoints.items()}


async def test_a_released_shard_is_not_claimed_by_who_saw_it_owned(world: World) -> None:
    lease = await world.claimed()
    owned = await world.row()
    await world.coordination.release(lease)
    assert await world.coordination.claim(STREAM, owned, YOU) is None


async def test_who_saw_a_shard_free_does_not_get_it_after_it_was_claimed_and_released_again(world: World) -> None:
    await world.found(S1)
    free = await world.row()
    await world.coordination.release(await world.claimed())
    assert await world.coordination.claim(STREAM, free, YOU) is None
    assert (await world.claimed(owner=YOU)).epoch == 2


async def test_releasing_what_is_no_longer_ours_is_quiet_and_changes_nothing(world: World) -> None:
    old = await world.claimed()
    new = await world.claimed(owner=YOU)
    before = await world.rows()
    await world.coordination.release(old)
    await world.coordination.release(replace(new, owner=ME))
    await world.coordination.release(Lease(STREAM, ShardId("unknown"), ME, 1))
    assert await world.rows() == before


async def test_releasing_twice_is_quiet(world: World) -> None:
    lease = await world.claimed()
    await world.coordination.release(lease)
    before = await world.rows()
    await world.coordination.release(lease)
    assert await world.rows() == before


# -- the discoverer's seat -----------------------------------------------------------------------------------------


async def test_the_seat_is_taken_left_and_taken_again(world: World) -> None:
    steps: list[tuple[Seat | None, WorkerId | None, Seat]] = [
        (None, ME, Seat(ME, 1)),
        (Seat(ME, 1), None, Seat(None, 2)),
        (Seat(None, 2), YOU, Seat(YOU, 3)),
        (Seat(YOU, 3), ME, Seat(ME, 4)),
    ]
    for seen, owner, after in steps:
        assert await world.coordination.take_seat(STREAM, seen, owner)
        assert (await world.coordination.state(STREAM)).seat == after
        for stale in (None, Seat(YOU, after.epoch), Seat(after.owner, after.epoch - 1), Seat(None, after.epoch)):
            if stale != after:
                assert not await world.coordination.take_seat(STREAM, stale, WorkerId("late"))
        assert (await world.coordination.state(STREAM)).seat == after


async def test_a_race_for_the_seat_has_one_winner(world: World) -> None:
    workers = [WorkerId(f"worker-{number}") for number in range(20)]
    for epoch in (1, 2, 3):
        seen = (await world.coordination.state(STREAM)).seat
        answers = await gathered([world.coordination.take_seat(STREAM, seen, worker) for worker in workers])
        assert sum(answers) == 1
        assert (await world.coordination.state(STREAM)).seat == Seat(workers[answers.index(True)], epoch)


async def test_each_stream_has_a_seat_of_its_own_beside_its_shards(world: World) -> None:
    await world.claimed()
    assert await world.coordination.take_seat(STREAM, None, ME)
    twin = replace(STREAM, region=RegionId("eu"))
    assert (await world.coordination.state(twin)).seat is None
    assert set(await world.rows()) == {S1}
    assert await world.coordination.take_seat(twin, None, YOU)
    assert (await world.coordination.state(STREAM)).seat == Seat(ME, 1)


# -- checkpoints ---------------------------------------------------------------------------------------------------


async def test_positions_of_several_targets_round_trip_and_are_kept_apart(world: World) -> None:
    lease = await world.claimed()
    highest = Position("9" * 40)
    await world.coordination.save(
        lease, {ORDERS_EU: HORIZON, ORDERS_AP: highest, BILLS_EU: Position("007"), BILLS_AP: BEGINNING}
    )
    await world.coordination.save(lease, {ORDERS_EU: END})
    assert (await world.row()).checkpoints == {
        ORDERS_EU: END,
        ORDERS_AP: highest,
        BILLS_EU: Position("007"),
        BILLS_AP: BEGINNING,
    }


async def test_saving_under_an_old_epoch_is_refused(world: World) -> None:
    old = await world.claimed()
    await world.coordination.save(old, {ORDERS_EU: Position("1")})
    await world.claimed()
    with pytest.raises(LeaseLost):
        await world.coordination.save(old, {ORDERS_EU: Position("2")})
    assert (await world.row()).checkpoints == {ORDERS_EU: Position("1")}


async def test_saving_what_another_worker_owns_or_nobody_does_is_refused(world: World) -> None:
    lease = await world.claimed()
    with pytest.raises(LeaseLost):
        await world.coordination.save(replace(lease, owner=YOU), {ORDERS_EU: Position("2")})
    await world.coordination.release(lease)
    with pytest.raises(LeaseLost):
        await world.coordination.save(lease, {ORDERS_EU: Position("2")})
    await world.coordination.forget(STREAM, await world.row())
    with pytest.raises(LeaseLost):
        await world.coordination.save(lease, {ORDERS_EU: Position("2")})
    assert await world.rows() == {}


async def test_a_forgotten_shard_starts_anew(world: World) -> None:
    for shard_id in (S1, S2):
        await world.coordination.release(await world.claimed(shard_id))
    row = await world.row()
    await world.coordination.forget(STREAM, row)
    await world.coordination.forget(STREAM, row)
    assert set(await world.rows()) == {S2}
    assert (await world.claimed()).epoch == 1


async def test_a_shard_that_was_claimed_or_released_meanwhile_is_not_forgotten(world: World) -> None:
    await world.found(S1)
    free = await world.row()
    lease = await world.claimed()
    owned = await world.row()
    await world.coordination.forget(STREAM, free)
    await world.coordination.release(lease)
    await world.coordination.forget(STREAM, owned)
    assert set(await world.rows()) == {S1}


async def test_streams_with_one_arn_in_two_regions_share_nothing(world: World) -> None:
    lease = await world.claimed()
    twin = replace(STREAM, region=RegionId("eu"))
    assert await world.rows(twin) == {}
    await world.coordination.discover(twin, [Shard(S1)], FOUND)
    assert await world.coordination.claim(twin, (await world.rows(twin))[S1], YOU) is not None
    await world.coordination.save(lease, {ORDERS_EU: Position("1")})
    assert (await world.rows(twin))[S1].checkpoints == {}
    await world.registry.start(STREAM, EU)
    assert await world.registry.starts(twin) == {}
    assert (await world.coordination.state(twin)).starts == {}


# -- operators -----------------------------------------------------------------------------------------------------


async def test_a_rewind_takes_the_shard_away_moves_targets_and_leaves_others(world: World) -> None:
    lease = await world.claimed()
    await world.coordination.save(lease, {ORDERS_EU: END, ORDERS_AP: Position("9"), BILLS_EU: Position("4")})
    rewinds = {ORDERS_EU: Rewind(1_699_999_999.5, END)}
    await world.rewind(await world.row(), {ORDERS_EU: None, ORDERS_AP: Position("3")}, rewinds)
    row = await world.row()
    assert (row.owner, row.epoch) == (None, 2)
    assert row.checkpoints == {ORDERS_AP: Position("3"), BILLS_EU: Position("4")}
    assert row.rewinds == rewinds
    with pytest.raises(LeaseLost):
        await world.coordination.save(lease, {ORDERS_EU: Position("8")})
    assert await world.row() == row
    assert (await world.claimed()).epoch == 3
    assert (await world.row()).rewinds == rewinds


async def test_a_rewind_is_over_when_its_target_comes_to_where_it_was(world: World) -> None:
    await world.found(S1)
    rewinds = {name: Rewind(5.25, Position("70")) for name in (ORDERS_EU, ORDERS_AP, BILLS_EU)}
    await world.rewind(await world.row(), {}, rewinds)
    lease = await world.claimed()
    for saved, left in (
        ({ORDERS_EU: Position("69")}, {ORDERS_EU, ORDERS_AP, BILLS_EU}),
        ({ORDERS_EU: Position("70"), OTHER_EU: Position("99")}, {ORDERS_AP, BILLS_EU}),
        ({ORDERS_AP: Position("100"), BILLS_EU: HORIZON}, {BILLS_EU}),
        ({BILLS_EU: END}, set()),
    ):
        await world.coordination.save(lease, saved)
        assert set((await world.row()).rewinds) == left


async def test_a_second_rewind_replaces_what_the_first_one_skips(world: World) -> None:
    await world.found(S1)
    await world.rewind(await world.row(), {ORDERS_EU: None}, {ORDERS_EU: Rewind(5.0, END)})
    await world.rewind(await world.row(), {ORDERS_EU: Position("3")}, {})
    row = await world.row()
    assert (row.rewinds, row.checkpoints, row.epoch) == ({}, {ORDERS_EU: Position("3")}, 2)


async def test_rules_are_paused_and_go_on(world: World) -> None:
    assert await world.membership.paused() == {}
    for rule in ("orders", "bills", "orders"):
        await world.pause(RuleName(rule))
    assert (await world.membership.paused()).keys() == {"orders", "bills"}
    for _ in range(2):
        await world.resume(RuleName("orders"))
    assert (await world.membership.paused()).keys() == {"bills"}


# -- members -------------------------------------------------------------------------------------------------------


async def test_members_show_their_last_pulse_until_they_leave(world: World) -> None:
    assert await world.membership.members() == {}
    await world.membership.beat(ME, Pulse(1, 3, "http://127.0.0.1:9000"))
    await world.membership.beat(YOU, Pulse(7))
    await world.membership.beat(ME, Pulse(2, -1))
    members = await world.membership.members()
    assert members == {ME: Pulse(2, -1), YOU: Pulse(7)}
    assert members[ME].leaving
    await world.membership.leave(YOU)
    await world.membership.leave(YOU)
    assert await world.membership.members() == {ME: Pulse(2, -1)}


# -- registry ------------------------------------------------------------------------------------------------------


async def test_the_start_of_a_target_is_stored_once(world: World) -> None:
    assert await world.registry.starts(STREAM) == {}
    first = await world.registry.start(STREAM, EU)
    assert (first.rule, first.target_id) == ("orders", ORDERS_EU)
    assert first.started_at >= 1_700_000_000
    other = await world.registry.start(STREAM, AP)
    assert await world.registry.start(STREAM, EU) == first
    assert await world.registry.starts(STREAM) == {ORDERS_EU: first, ORDERS_AP: other}


async def test_starts_and_shards_of_one_stream_do_not_mix_and_are_told_together(world: World) -> None:
    start = await world.registry.start(STREAM, EU)
    await world.claimed()
    state = await world.coordination.state(STREAM)
    assert set(state.rows) == {S1}
    assert state.starts == await world.registry.starts(STREAM) == {ORDERS_EU: start}


async def test_streams_are_remembered_oldest_first_with_the_targets_that_are_through(world: World) -> None:
    newer = replace(STREAM, arn=STREAM.arn + "/newer", generation=10_000)
    for stream in (newer, STREAM, newer):
        await world.registry.remember_stream(stream)
    await world.registry.remember_stream(replace(STREAM, table=TableName("bills")))
    known = [KnownStream(STREAM), KnownStream(newer)]
    assert await world.registry.streams(STREAM.region, STREAM.table) == known
    await world.registry.remember_stream(STREAM, {BILLS_EU})
    await world.registry.remember_stream(STREAM, {ORDERS_EU, BILLS_EU})
    await world.registry.remember_stream(STREAM)
    known[0] = KnownStream(STREAM, frozenset({ORDERS_EU, BILLS_EU}))
    assert await world.registry.streams(STREAM.region, STREAM.table) == known
    assert await world.registry.streams(RegionId("eu"), STREAM.table) == []


async def test_a_gap_that_is_found_again_is_the_same_gap(world: World) -> None:
    await world.registry.record_gap(GAP)
    await world.registry.record_gap(replace(GAP, found_at=2000.0))
    others = [
        replace(GAP, target_id=ORDERS_AP, found_at=1001.5, until=None),
        replace(GAP, stream=replace(STREAM, region=RegionId("eu")), found_at=1002.0, until=END),
        replace(GAP, after=HORIZON, found_at=1003.0),
    ]
    for gap in others:
        await world.registry.record_gap(gap)
    assert await world.gaps() == [GAP, *others]


async def test_a_gap_is_acknowledged_by_an_operator_and_no_other_with_it(world: World) -> None:
    other = replace(GAP, stream=replace(STREAM, region=RegionId("eu")))
    for gap in (GAP, other):
        assert not await world.registry.acknowledged(gap)
        await world.registry.record_gap(gap)
    await world.acknowledge(GAP)
    await world.registry.record_gap(GAP)
    assert await world.registry.acknowledged(GAP)
    assert not await world.registry.acknowledged(other)
    assert len(await world.gaps()) == 2


async def test_a_gap_that_grew_keeps_its_first_finding_and_must_be_acknowledged_again(world: World) -> None:
    ends = [Position("9"), Position("12"), None, Position("15"), END]
    for until in ends:
        seen = replace(GAP, until=until, found_at=2000.0)
        await world.registry.record_gap(seen if until != GAP.until else GAP)
        assert await world.gaps() == [replace(GAP, until=until)]
        assert not await world.registry.acknowledged(seen)
        await world.acknowledge(seen)
        await world.registry.record_gap(seen)
        assert await world.registry.acknowledged(seen)
        assert not any([await world.registry.acknowledged(replace(GAP, until=end)) for end in ends if end != until])


# -- losses and their repairs --------------------------------------------------------------------------------------


async def test_open_gaps_are_neither_accepted_nor_repaired_and_the_oldest_comes_first(world: World) -> None:
    older, accepted, repaired = (
        replace(GAP, shard_id=shard_id, found_at=at) for shard_id, at in ((S2, 900.25), (S3, 950.0), (S1, 960.0))
    )
    repaired = replace(repaired, target_id=BILLS_EU)
    for gap in (GAP, older, accepted, repaired):
        await world.registry.record_gap(gap)
    await world.acknowledge(accepted)
    assert await world.registry.close_gap(repaired, "r1", FOUND)
    assert await world.registry.open_gaps() == [OpenGap(older, 900.25), OpenGap(GAP, 1000.0)]
    assert await world.registry.acknowledged(repaired), "a target that waits goes on behind it"


async def test_a_gap_names_the_job_that_repairs_it_while_it_is_open(world: World) -> None:
    await world.registry.note_resync(GAP, "r0")
    assert await world.registry.open_gaps() == [], "a note makes no gap"
    await world.registry.record_gap(GAP)
    for job in ("r1", "r2"):
        await world.registry.note_resync(GAP, job)
        assert await world.registry.open_gaps() == [OpenGap(GAP, 1000.0, job)]
    assert not await world.registry.acknowledged(GAP)
    await world.registry.record_gap(replace(GAP, found_at=2000.0))
    assert await world.registry.open_gaps() == [OpenGap(GAP, 1000.0, "r2")], "found again, it is the same"


async def test_a_gap_is_closed_once_and_only_as_it_was_seen(world: World) -> None:
    assert not await world.registry.close_gap(GAP, "r1", FOUND), "it is not there"
    await world.registry.record_gap(GAP)
    longer = replace(GAP, until=Position("12"), found_at=2000.0)
    await world.registry.record_gap(longer)
    assert not await world.registry.close_gap(GAP, "r1", FOUND), "it has grown"
    assert await world.registry.open_gaps() == [OpenGap(replace(GAP, until=Position("12")), 2000.0)]
    assert await world.registry.close_gap(longer, "r1", FOUND)
    assert not await world.registry.close_gap(longer, "r2", FOUND)
    await world.registry.note_resync(longer, "r2")
    assert await world.registry.open_gaps() == []
    assert await world.gaps() == [replace(GAP, until=Position("12"))]


async def test_a_repaired_gap_that_grows_is_open_again_and_wants_another_repair(world: World) -> None:
    await world.registry.record_gap(GAP)
    await world.registry.close_gap(GAP, "r1", FOUND)
    grown = replace(GAP, until=None, found_at=2000.0)
    await world.registry.record_gap(grown)
    assert await world.registry.open_gaps() == [OpenGap(replace(GAP, until=None), 2000.0)]
    assert not await world.registry.acknowledged(grown)
    assert await world.registry.close_gap(grown, "r2", FOUND)


async def test_a_gap_that_is_carried_over_is_as_old_and_in_the_same_hands(world: World) -> None:
    await world.registry.record_gap(GAP)
    await world.registry.record_gap(replace(GAP, until=END, found_at=2000.0))
    await world.registry.note_resync(GAP, "r1")
    await world.registry.carry_gaps_over(STREAM, ORDERS_EU, ORDERS_AP)
    grown = replace(GAP, until=END)
    carried = replace(grown, target_id=ORDERS_AP)
    found = await world.registry.open_gaps()
    assert sorted(found, key=lambda each: each.gap.target_id.text) == [
        OpenGap(carried, 2000.0, "r1"),
        OpenGap(grown, 2000.0, "r1"),
    ]
    assert await world.registry.close_gap(carried, "r2", FOUND)
    assert await world.registry.open_gaps() == [OpenGap(grown, 2000.0, "r1")]
