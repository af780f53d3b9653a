"""A table's streams one behind the other: a child that is listed late, rules that stand, and workers without a rule."""

from __future__ import annotations

import asyncio

import pytest

from replicator.domain.errors import Unreachable
from replicator.domain.identifiers import RuleName, WorkerId
from replicator.domain.shards.leases import KnownStream, Seat, StreamRef
from replicator.domain.values import replace
from replicator.engine.limits import Limits
from tests.engine.test_coordinator import S0, S1, claimed, replace_stream
from tests.engine.world import AP, ORDERS, World, eu_rule, id_of, rule, target, until

COPIES = rule("copies", target("copies", AP))
PATIENT = Limits()


async def through(world: World) -> dict[str, list[str]]:
    return {
        each.ref.arn: sorted(target.rule for target in each.drained)
        for each in await world.registry.streams(world.ref.region, ORDERS)
    }


async def test_a_child_that_a_replaced_stream_lists_half_a_minute_late_is_read() -> None:
    world = World()
    old = world.ref
    async with world.process(limits=PATIENT) as process:
        world.put("a", 0)
        await until(lambda: "a" in world.holds())
        world.roll("s0", "s1")
        world.streams.hide(old, S1)
        world.put("b", 1)
        replace_stream(world)
        world.put("c", 1)
        await asyncio.sleep(30)
        world.streams.reveal(old, S1)
        await until(world.same, within=120)
        assert claimed(process) == ["s0", "s1", "n0"]
    assert await through(world) == {old.arn: ["orders"], world.ref.arn: []}


async def test_a_replaced_stream_is_not_left_before_its_time() -> None:
    world = World()
    async with world.process(limits=replace(PATIENT, drained_seconds=300)) as process:
        world.put("a", 0)
        await until(lambda: world.stored() is not None)
        replace_stream(world)
        world.put("b", 0)
        await asyncio.sleep(299)
        assert claimed(process) == ["s0"]
        await until(world.same)


async def test_a_paused_rule_holds_no_other_rule_on_a_replaced_stream() -> None:
    world = World()
    old = world.ref
    async with world.process(eu_rule(), COPIES) as process:
        world.put("a", 0)
        await until(lambda: world.same() and world.same(AP))
        world.membership.pause(RuleName("copies"))
        await asyncio.sleep(10)
        world.put("b", 1)
        replace_stream(world)
        world.put("c", 1)
        await until(world.same)
        assert world.holds(AP) == {"a": "0"}
        assert await through(world) == {old.arn: ["orders"], world.ref.arn: []}
        await asyncio.sleep(600)
        world.membership.resume(RuleName("copies"))
        await until(lambda: world.same(AP))
        assert process.observer.troubles == {}
        world.put("d", 1)
        await until(lambda: world.same() and world.same(AP))
    assert await through(world) == {old.arn: ["copies", "orders"], world.ref.arn: []}


async def test_a_rule_that_waits_behind_a_gap_holds_no_other_rule_on_a_replaced_stream() -> None:
    world = World()
    async with world.process(eu_rule(), COPIES) as process:
        world.put("a", 1)
        await until(lambda: world.same() and world.same(AP))
        await asyncio.sleep(5)
        await process.drain()
    async with world.process() as process:
        world.write("bcd")
        await until(world.same)
        await process.drain()
    world.streams.trim(world.ref, S0, keep=1)
    replace_stream(world)
    world.put("new", 1)
    async with world.process(eu_rule(), COPIES) as process:
        await until(world.same, within=120)
        assert list(process.observer.blocked_keys) == ["copies/ap on s0"]
        (gap,) = [gap for gap in world.registry.gaps if gap.shard_id == "s0"]
        world.registry.acknowledge(gap.gap_id)
        await until(lambda: "new" in world.holds(AP), within=120)


async def test_a_restart_goes_on_with_each_rules_own_stream() -> None:
    world = World()
    old = world.ref
    world.regions[AP].faults.outage = Unreachable
    async with world.process(eu_rule(), COPIES) as process:
        world.write("ab")
        await until(world.same)
        replace_stream(world)
        world.put("c", 1)
        await until(world.same)
        await process.kill()
    world.regions[AP].faults.outage = None
    world.put("d", 1)
    async with world.process(eu_rule(), COPIES):
        await until(lambda: world.same() and world.same(AP), within=120)
    assert world.stored(target_id="copies/ap", ref=old) == "SHARD_END"


async def test_a_worker_without_a_rule_does_not_close_the_old_stream_for_it() -> None:
    world = World()
    old = world.ref
    async with world.process(eu_rule(), COPIES) as process:
        world.put("x", 1)
        await until(lambda: world.same() and world.same(AP))
        await asyncio.sleep(5)
        world.regions[AP].faults.outage = Unreachable
        world.put("y", 1)
        await asyncio.sleep(5)
        await process.drain()
    async with world.process() as outdated:
        await asyncio.sleep(30)
        replace_stream(world)
        await until(lambda: world.stored("n0") is not None or world.owner("n0") is not None, within=100)
        world.regions[AP].faults.outage = None
        async with world.process(eu_rule(), COPIES):
            await until(lambda: world.same(AP), within=300)
            await outdated.drain()
            await until(lambda: world.owner("n0") is not None)
    assert world.stored(target_id="copies/ap", ref=old) == "SHARD_END"


async def test_a_rule_goes_on_although_the_seat_is_with_a_worker_that_does_not_know_it() -> None:
    world = World()
    old = world.ref
    async with world.process(eu_rule(), COPIES), world.process():
        world.put("a", 1)
        await until(lambda: world.same() and world.same(AP))
        outdated = WorkerId("p2.1")
        seat = (await world.coordination.state(old)).seat
        assert await world.coordination.take_seat(old, seat, outdated)
        world.membership.pause(RuleName("orders"))
        await asyncio.sleep(10)
        replace_stream(world)
        world.put("z", 1)
        await until(lambda: "z" in world.holds(AP), within=600)
        assert (await world.coordination.state(old)).seat == Seat(outdated, 2)
        assert (await through(world))[old.arn] == ["copies"]


async def test_a_new_rule_begins_with_the_stream_that_no_rule_has_left() -> None:
    world = World()
    old = world.ref
    world.regions[AP].faults.outage = Unreachable
    third = rule("third", target("third", AP))
    async with world.process(eu_rule(), COPIES) as process:
        world.write("ab")
        await until(world.same)
        replace_stream(world)
        world.put("c", 1)
        await until(world.same)
        await process.drain()
    async with world.process(eu_rule(), COPIES, third):
        await until(lambda: id_of("third/ap") in world.registry.started(world.ref))
        assert id_of("third/ap") not in world.registry.started(old)


async def test_rows_of_a_stream_that_every_rule_left_go_when_the_stream_is_gone() -> None:
    world = World()
    old = world.ref
    async with world.process(eu_rule(), COPIES):
        world.put("a", 1)
        await until(lambda: world.same() and world.same(AP))
        replace_stream(world)
        world.put("b", 1)
        await until(lambda: world.same() and world.same(AP))
        await asyncio.sleep(1300)
        assert world.row(ref=old) is not None, "while the stream can be read, an operator may want to see how it was"
        world.streams.drop(old)
        await until(lambda: world.row(ref=old) is None, within=700)
        world.put("c", 1)
        await until(lambda: world.same() and world.same(AP))
    assert world.row("n0") is not None


@pytest.mark.no_cover  # much happens, and nothing that shorter tests do not reach
async def test_rows_of_a_stream_that_some_rule_has_not_left_stay() -> None:
    world = World()
    old = world.ref
    world.regions[AP].faults.outage = Unreachable
    async with world.process(eu_rule(), COPIES) as process:
        world.put("a", 1)
        await until(world.same)
        await process.drain()
    async with world.process():
        replace_stream(world)
        world.put("b", 1)
        await until(world.same)
        world.streams.drop(old)
        await asyncio.sleep(1300)
        assert world.row(ref=old) is not None


async def test_what_was_told_of_a_stream_is_taken_back_with_the_session_that_told_it() -> None:
    world = World()
    async with world.process() as outdated:
        world.put("a", 1)
        await until(world.same)
        async with world.process(eu_rule(), COPIES) as process:
            await until(lambda: bool(process.observer.standing.get(world.ref)), within=120)
            process.suspend(60)
            await outdated.drain()
            await until(lambda: world.same(AP))
            await asyncio.sleep(60)
            assert process.observer.troubles == {}
            assert not any(process.observer.standing.values())


async def test_a_flag_of_an_earlier_version_counts_for_every_rule() -> None:
    known = KnownStream(StreamRef(AP, ORDERS, "arn", 1), closed=True)
    assert known.is_drained(id_of("any/eu"))


async def test_a_stream_that_shows_too_little_is_passed_by_and_holds_its_rule_until_there_is_another_one() -> None:
    world = World()
    old = world.ref
    async with world.process() as process:
        world.put("a", 0)
        await until(world.same)
        replace_stream(world)
        wrong = world.ref
        world.streams.without_images.add(wrong.arn)
        world.put("b", 1)
        await asyncio.sleep(300)
        assert world.holds() == {"a": "0"}
        assert any("shows too little" in trouble for trouble in map(str, process.observer.troubles.values()))
        replace_stream(world, 3, "n1")
        world.put("c", 2)
        await until(lambda: "c" in world.holds(), within=300)
        assert world.holds() == {"a": "0", "c": "2"}
    assert await through(world) == {old.arn: ["orders"], world.ref.arn: []}
    assert [gap.shard_id for gap in world.registry.gaps] == ["every shard"]
