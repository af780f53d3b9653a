"""Progress that passes to another identity, in memory and in a table: what earlier versions stored, and meshes."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from replicator.domain.errors import Unreachable
from replicator.domain.identifiers import RegionId, RuleName, TableName
from replicator.domain.progress import END, Position
from replicator.domain.rules import ActivePlan, Rule, Target
from replicator.domain.shards.leases import Lease, Rewind, StreamRef, TargetStart
from replicator.domain.shards.lineage import Shard
from replicator.domain.targets import TargetId
from replicator.domain.values import replace
from replicator.engine.ownership.target_succession import TargetSuccession
from replicator.laboratory.memory import MemoryClaims
from tests.contract.conftest import WORLDS
from tests.contract.coordination_worlds import (
    EU,
    GAP,
    ME,
    ORDERS_EU,
    S1,
    S2,
    STREAM,
    MemoryWorld,
    World,
    table_world,
)
from tests.contract.worlds import place
from tests.engine.world import Recorder

NAME, ORDERS = RuleName("orders"), TableName("orders")
RULE = Rule(NAME, STREAM.region, STREAM.table, (EU,))
EARLIER = ORDERS_EU.earlier
FIVE, SEVEN, NINE = Position("5"), Position("7"), Position("9")
LONG_AGO = 1_600_000_000.0
AT_EU = replace(STREAM, region=RegionId("eu"), arn="arn:aws:dynamodb:eu-west-1:1:table/orders/stream/a")


class Heirs:
    """A process that carries progress over, in a world."""

    def __init__(self, world: World, claims: MemoryClaims | None = None) -> None:
        self.claims = claims or MemoryClaims()
        self.observer = Recorder()
        self.succession = TargetSuccession(world.coordination, world.registry, self.claims, self.observer)

    async def carry_over(self, *rules: Rule) -> None:
        for rule in rules or (RULE,):
            await self.succession.carry_over(rule)


@pytest.fixture(params=WORLDS)
async def world(request: pytest.FixtureRequest) -> AsyncIterator[World]:
    if request.param == "memory":
        yield MemoryWorld()
        return
    async with place(request.getfixturevalue("dynamodb_url")) as opened:
        yield await table_world(opened)


def mesh(*regions: str, home: StreamRef = STREAM) -> Rule:
    others = tuple(RegionId(region) for region in regions if region != home.region)
    return Rule(NAME, home.region, ORDERS, (Target(NAME, home.region, ORDERS),), mesh=ActivePlan(others))


def id_of(rule: Rule) -> TargetId:
    return rule.targets[0].target_id


SHARDS = {"s1": S1, "s2": S2}
PAIR, TRIO = mesh("us", "eu"), mesh("us", "eu", "ap")


async def stand(world: World, stream: StreamRef, rule: Rule, **positions: Position) -> None:
    """Let a rule's target have read shards of a stream up to there."""
    await world.registry.remember_stream(stream)
    await world.registry.start(stream, rule.targets[0], started_at=LONG_AGO)
    for shard_id in (S1, S2):
        await world.coordination.discover(stream, [Shard(shard_id)], LONG_AGO)
    rows = (await world.coordination.state(stream)).rows
    for name, position in positions.items():
        row = await world.coordination.claim(stream, rows[SHARDS[name]], ME)
        assert row is not None
        lease = Lease(stream, row.shard_id, ME, row.epoch)
        await world.coordination.save(lease, {id_of(rule): position})
        await world.coordination.release(lease)


async def earlier(world: World, *, rewind: Rewind | None = None) -> None:
    """What an earlier version left: a start, positions on two shards, an accepted gap."""
    await world.registry.remember_stream(STREAM)
    await world.note_start(EARLIER, LONG_AGO)
    await world.found(S1, S2)
    await world.rewind(await world.row(S1), {EARLIER: FIVE}, {} if rewind is None else {EARLIER: rewind})
    await world.rewind(await world.row(S2), {EARLIER: END}, {})


async def places(world: World, target_id: TargetId, stream: StreamRef = STREAM) -> dict[str, str | None]:
    """Where a target stands."""
    rows = (await world.coordination.state(stream)).rows
    found = {name: rows[shard_id].checkpoints.get(target_id) for name, shard_id in SHARDS.items()}
    return {name: None if position is None else position.text for name, position in found.items()}


# -- what earlier versions stored ----------------------------------------------------------------------------------


async def test_progress_of_an_earlier_version_is_carried_over_with_its_start_and_what_it_skips(world: World) -> None:
    await earlier(world, rewind=Rewind(5.0, NINE))
    heirs = Heirs(world)
    await heirs.carry_over()
    assert await places(world, ORDERS_EU) == {"s1": "5", "s2": "SHARD_END"}
    assert (await world.row(S1)).rewinds[ORDERS_EU] == Rewind(5.0, NINE)
    assert (await world.registry.starts(STREAM))[ORDERS_EU].started_at == LONG_AGO
    assert heirs.observer.of("target_carried_over") == [(ORDERS_EU.text, [EARLIER.text], [])]


async def test_a_loss_that_was_accepted_before_the_upgrade_stays_accepted(world: World) -> None:
    await earlier(world)
    former = replace(GAP, target_id=EARLIER)
    await world.registry.record_gap(former)
    await world.registry.record_gap(replace(former, shard_id=S2))
    await world.acknowledge(former)
    await Heirs(world).carry_over()
    assert await world.registry.acknowledged(GAP)
    assert not await world.registry.acknowledged(replace(GAP, shard_id=S2))
    assert replace(GAP, shard_id=S2) in await world.gaps()


async def test_a_worker_of_the_earlier_version_goes_on_by_its_own_position(world: World) -> None:
    await earlier(world)
    await Heirs(world).carry_over()
    lease = await world.claimed(S1)
    await world.coordination.save(lease, {EARLIER: SEVEN})
    await Heirs(world).carry_over()
    assert await places(world, ORDERS_EU) == {"s1": "5", "s2": "SHARD_END"}
    assert await places(world, EARLIER) == {"s1": "7", "s2": "SHARD_END"}


async def test_another_table_begins_anew_and_a_later_claim_of_it_changes_nothing(world: World) -> None:
    await earlier(world)
    world.turn_clock(1_700_000_100.0)
    moved = replace(RULE, targets=(Target(NAME, EU.region, TableName("orders-v2")),))
    heirs = Heirs(world)
    heirs.claims.unwritten.add(id_of(moved))
    await heirs.carry_over(moved)
    await Heirs(world).carry_over(moved)
    assert await places(world, id_of(moved)) == {"s1": None, "s2": None}
    assert (await world.registry.starts(STREAM))[id_of(moved)].started_at == 1_700_000_100.0
    assert heirs.observer.of("target_begun_anew") == [(id_of(moved).text, EARLIER.text)]
    await Heirs(world).carry_over()
    assert await places(world, ORDERS_EU) == {"s1": "5", "s2": "SHARD_END"}, "back to the table that was written"


async def test_while_no_region_tells_whose_the_table_was_nothing_is_stored(world: World) -> None:
    await earlier(world)
    heirs = Heirs(world)
    heirs.claims.faults.outage = Unreachable
    with pytest.raises(Unreachable):
        await heirs.carry_over()
    assert ORDERS_EU not in await world.registry.starts(STREAM)
    heirs.claims.faults.outage = None
    await heirs.carry_over()
    assert await places(world, ORDERS_EU) == {"s1": "5", "s2": "SHARD_END"}


async def test_positions_without_a_start_are_carried_over_too(world: World) -> None:
    await world.registry.remember_stream(STREAM)
    await world.found(S1, S2)
    await world.rewind(await world.row(S1), {EARLIER: FIVE}, {})
    await Heirs(world).carry_over()
    assert await places(world, ORDERS_EU) == {"s1": "5", "s2": None}
    assert ORDERS_EU in await world.registry.starts(STREAM)


async def test_a_stream_that_the_rule_is_through_with_stays_behind_it(world: World) -> None:
    await earlier(world)
    await world.registry.remember_stream(STREAM, {EARLIER})
    await Heirs(world).carry_over()
    assert await places(world, ORDERS_EU) == {"s1": None, "s2": None}
    assert ORDERS_EU not in await world.registry.starts(STREAM)


async def test_a_target_of_which_nothing_is_stored_begins_by_itself(world: World) -> None:
    await world.registry.remember_stream(STREAM)
    await world.found(S1, S2)
    heirs = Heirs(world)
    await heirs.carry_over(RULE, TRIO)
    assert await world.registry.starts(STREAM) == {}
    assert heirs.observer.told == []


# -- meshes --------------------------------------------------------------------------------------------------------


async def test_a_mesh_with_a_new_member_goes_on_where_the_others_stand_on_every_stream(world: World) -> None:
    await stand(world, STREAM, PAIR, s1=FIVE, s2=END)
    await stand(world, AT_EU, mesh("us", "eu", home=AT_EU), s1=SEVEN)
    heirs = Heirs(world)
    await heirs.carry_over(TRIO)
    assert await places(world, id_of(TRIO)) == {"s1": "5", "s2": "SHARD_END"}
    assert await places(world, id_of(TRIO), AT_EU) == {"s1": "7", "s2": None}
    start = TargetStart(id_of(TRIO), LONG_AGO, frozenset({"us:orders", "eu:orders", "ap:orders"}))
    for stream in (STREAM, AT_EU):
        assert (await world.registry.starts(stream))[id_of(TRIO)] == start
    assert heirs.observer.of("target_carried_over") == [(id_of(TRIO).text, [id_of(PAIR).text], ["ap:orders"])] * 2


async def test_what_is_done_without_a_member_never_counts_for_it(world: World) -> None:
    await stand(world, STREAM, PAIR, s1=FIVE)
    await Heirs(world).carry_over(TRIO)
    await stand(world, STREAM, PAIR, s1=NINE, s2=NINE)
    await Heirs(world).carry_over(TRIO)
    assert await places(world, id_of(TRIO)) == {"s1": "5", "s2": None}


async def test_what_is_done_for_more_members_counts_for_fewer(world: World) -> None:
    await stand(world, STREAM, PAIR, s1=FIVE)
    await Heirs(world).carry_over(TRIO)
    await stand(world, STREAM, TRIO, s1=NINE, s2=SEVEN)
    await Heirs(world).carry_over(PAIR)
    assert await places(world, id_of(PAIR)) == {"s1": "9", "s2": "7"}


async def test_a_stream_that_comes_later_owes_a_member_everything(world: World) -> None:
    await stand(world, STREAM, PAIR, s1=FIVE)
    heirs = Heirs(world)
    await heirs.carry_over(TRIO)
    newer = replace(STREAM, arn=STREAM.arn + "/newer", generation=STREAM.generation + 1)
    await stand(world, newer, PAIR, s1=NINE)
    await heirs.carry_over(TRIO)
    assert await places(world, id_of(TRIO), newer) == {"s1": None, "s2": None}
    assert id_of(TRIO) in await world.registry.starts(newer)


async def test_an_interrupted_change_is_repeated_and_begins_on_no_stream_before_all_are_copied() -> None:
    world = MemoryWorld()
    await stand(world, STREAM, PAIR, s1=FIVE)
    await stand(world, AT_EU, mesh("us", "eu", home=AT_EU), s1=SEVEN)
    copied: list[str] = []

    async def second_fails(call: str) -> None:
        copied.extend([call] if call == "carry_over" else [])
        if call == "carry_over" and len(copied) == 2:
            raise Unreachable("away")

    world.leases.faults.pause = second_fails
    with pytest.raises(Unreachable):
        await Heirs(world).carry_over(TRIO)
    for stream in (STREAM, AT_EU):
        assert id_of(TRIO) not in await world.registry.starts(stream)
    await Heirs(world).carry_over(TRIO)
    assert await places(world, id_of(TRIO)) == {"s1": "5", "s2": None}
    assert await places(world, id_of(TRIO), AT_EU) == {"s1": "7", "s2": None}


async def test_a_change_that_ends_between_two_starts_is_repeated() -> None:
    world = MemoryWorld()
    await stand(world, STREAM, PAIR, s1=FIVE)
    at_eu = mesh("us", "eu", home=AT_EU)
    await stand(world, AT_EU, at_eu, s1=SEVEN)
    begun: list[str] = []

    async def second_fails(call: str) -> None:
        begun.extend([call] if call == "start" else [])
        if call == "start" and len(begun) == 2:
            raise Unreachable("away")

    world.ledger.faults.pause = second_fails
    with pytest.raises(Unreachable):
        await Heirs(world).carry_over(TRIO)
    world.ledger.faults.pause = None
    for stream, rule in ((STREAM, PAIR), (AT_EU, at_eu)):
        await stand(world, stream, rule, s1=NINE, s2=NINE)
    await Heirs(world).carry_over(TRIO)
    found = [await places(world, id_of(TRIO), stream) for stream in (STREAM, AT_EU)]
    assert sorted(each["s1"] or "" for each in found) == ["5", "7"], "no position passes what a member did not get"
    for stream in (STREAM, AT_EU):
        assert id_of(TRIO) in await world.registry.starts(stream)
