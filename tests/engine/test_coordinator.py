"""Which shards are read, and when: lineage, discovery that fails, rows, and one stream behind the other."""

from __future__ import annotations

import asyncio

import pytest

from replicator.domain.errors import RecordsTrimmed, Throttled, Unreachable, WorldMismatch
from replicator.domain.identifiers import ShardId, WorkerId
from replicator.domain.rules import OnGap, Start
from replicator.domain.shards.lineage import Shard
from replicator.domain.values import replace
from replicator.engine.limits import Limits
from replicator.laboratory.memory import Fault
from tests.engine.world import (
    AP,
    EU,
    ORDERS,
    Process,
    World,
    eu_rule,
    hold,
    key_of,
    rule,
    short,
    slow,
    stream_ref,
    target,
    until,
)

S0, S1 = ShardId("s0"), ShardId("s1")
BOTH = rule("orders", target("orders", EU), target("orders", AP))


def claimed(process: Process) -> list[str]:
    return [event[0] for event in process.observer.of("lease_claimed")]


# -- lineage -------------------------------------------------------------------------------------------------------


async def test_a_target_begins_a_child_when_it_applied_the_parent_whatever_holds_the_others_of_its_rule() -> None:
    world = World()
    world.write("abc")
    world.roll("s0", "s1")
    world.write("xyz")
    world.roll("s1", "s2")
    world.write("uvw")
    world.regions[AP].poison(key_of("b"), "it is too large")
    async with world.process(BOTH) as process:
        await until(world.same, within=10)
        assert (world.stored("s1"), world.stored("s0", "orders/ap")) == ("SHARD_END", "1")
        await asyncio.sleep(60)
        assert world.holds(AP) == {"a": "0", "c": "0"}, "the one that is held reads no child before its parent's end"
        assert {shard for shard, name in process.observer.of("shard_started") if name == "orders/ap"} == {"s0"}
        world.regions[AP].cure(key_of("b"))
        await until(lambda: world.same(AP))
        assert process.observer.of("shard_started").count(("s1", "orders/eu")) == 1


async def test_a_merge_waits_for_both_parents_of_each_target_by_itself() -> None:
    world = World("s0", "s1")
    names = {shard: next(n for n in "abcdefgh" if world.shard_of(key_of(n)) == shard) for shard in ("s0", "s1")}
    world.write(names.values())
    world.merge(["s0", "s1"], "s2")
    world.write("xyz")
    world.regions[AP].poison(key_of(names["s1"]), "it is too large")
    async with world.process(BOTH):
        await until(world.same, within=10)
        await until(lambda: world.stored("s0", "orders/ap") == "SHARD_END")
        await asyncio.sleep(60)
        assert world.holds(AP) == {names["s0"]: "0"}
        world.regions[AP].cure(key_of(names["s1"]))
        await until(lambda: world.same(AP))


async def test_a_child_waits_as_long_as_the_end_of_its_parent_cannot_be_stored() -> None:
    world = World()
    process = world.process().start()
    await until(lambda: world.stored() == "TRIM_HORIZON")
    hold(world.coordination.faults, "save")
    world.write("abc")
    world.roll("s0", "s1")
    world.write("xyz")
    await asyncio.sleep(60)
    assert world.holds() == {"a": "0", "b": "0", "c": "0"}
    assert claimed(process) == ["s0"]
    await process.kill()


async def test_generations_are_read_one_behind_the_other_and_keys_keep_their_order() -> None:
    world = World("s0", "t0")
    for generation in range(1, 5):
        for value in range(3):
            world.write("abcdefgh", generation * 10 + value)
        world.roll(f"s{generation - 1}", f"s{generation}")
    world.write("abcdefgh", 99)
    seen: list[str] = []
    async with world.process() as process:
        while not world.same():
            seen.append(world.holds().get("a", "0"))
            await asyncio.sleep(0.05)
        line = [shard for shard in claimed(process) if shard.startswith("s")]
    assert line == ["s0", "s1", "s2", "s3", "s4"]
    assert [int(value) for value in seen] == sorted(int(value) for value in seen)


async def test_a_parent_that_is_listed_open_although_it_has_a_child_is_read_first() -> None:
    world = World()
    world.write("abc")
    world.streams.add_shard(world.ref, S1, S0)
    async with world.process() as process:
        await until(world.same)
        await asyncio.sleep(60)
        assert claimed(process) == ["s0"]
        world.streams.close(world.ref, S0)
        world.route_to("s1")
        world.write("xyz")
        await until(world.same)
        assert claimed(process) == ["s0", "s1"]


async def test_a_child_that_is_listed_late_is_found_soon() -> None:
    world = World()
    world.write("abc")
    world.roll("s0")
    async with world.process(limits=Limits(discovery_seconds=300)) as process:
        await until(lambda: world.stored() == "SHARD_END")
        await asyncio.sleep(60)
        world.streams.add_shard(world.ref, S1, S0)
        world.route_to("s1")
        world.write("xyz")
        await until(world.same, within=5)
        assert claimed(process) == ["s0", "s1"]


async def test_a_shard_whose_parent_is_listed_no_more_is_read() -> None:
    world = World()
    world.streams.add_shard(world.ref, S1, ShardId("trimmed long ago"))
    world.route_to("s1")
    world.write("abc")
    async with world.process():
        await until(world.same)


async def test_a_rule_that_is_ahead_reads_the_child_while_another_still_reads_the_parent() -> None:
    world = World()
    world.write("abc")
    world.roll("s0", "s1")
    world.write("xyz")
    world.regions[AP].faults.outage = Unreachable
    rules = rule("ahead", target("ahead", EU)), rule("behind", target("behind", AP))
    async with world.process(*rules) as process:
        await until(world.same)
        assert world.stored("s1", "behind/ap") is None
        world.regions[AP].faults.outage = None
        await until(lambda: world.same(AP))
        assert process.observer.of("shard_started").count(("s1", "behind/ap")) == 1


# -- claims --------------------------------------------------------------------------------------------------------


async def test_all_free_shards_are_claimed_and_started_in_one_cycle() -> None:
    world = World(*(f"s{number}" for number in range(20)))
    slow(world.coordination.faults, 0.05)
    async with world.process() as process:
        await until(lambda: len(process.observer.of("shard_started")) == 20)
        await asyncio.sleep(30)
        assert {event[2] for event in process.observer.of("lease_claimed")} == {1}
        assert process.observer.of("lease_ended") == []


async def test_claims_are_bounded_per_cycle_and_go_on_in_the_next() -> None:
    world = World(*(f"s{number}" for number in range(20)))
    async with world.process(limits=Limits(claims_per_cycle=8)) as process:
        await until(lambda: len(claimed(process)) >= 8)
        assert len(claimed(process)) == 8
        await until(lambda: len(claimed(process)) == 20)


@pytest.mark.parametrize("fault", Fault)
async def test_a_claim_whose_answer_was_lost_is_made_again(fault: Fault) -> None:
    world = World()
    world.write("abc")
    claims = 0

    async def lose_first(call: str) -> None:
        nonlocal claims
        if call == "claim":
            claims += 1
            if claims == 1:
                world.coordination.faults.script(fault)

    world.coordination.faults.pause = lose_first
    async with world.process():
        await until(world.same)
    assert claims == 2


async def test_nothing_is_claimed_behind_the_deadline_of_the_session() -> None:
    world = World("s0", "s1", "s2")
    process = world.process()

    async def fall_asleep(call: str) -> None:
        if call == "claim":
            world.coordination.faults.pause = None
            process.suspend(60)

    world.coordination.faults.pause = fall_asleep
    async with process:
        await until(lambda: len(claimed(process)) == 4)
        owners = [event[1] for event in process.observer.of("lease_claimed")]
        assert owners == ["p1.1", "p1.2", "p1.2", "p1.2"]


async def test_a_shard_that_somebody_else_claims_at_the_same_moment_is_left_to_him() -> None:
    world = World()

    async def be_faster(call: str) -> None:
        if call == "claim":
            world.coordination.faults.pause = None
            await world.coordination.claim(world.ref, world.row(), WorkerId("other"))

    world.coordination.faults.pause = be_faster
    async with world.process() as process:
        await asyncio.sleep(5)
        assert claimed(process) == []
        assert world.owner() == "other"
        await until(lambda: claimed(process) == ["s0"])


# -- discovery that fails ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("outage", [Throttled, Unreachable])
async def test_a_failing_discovery_keeps_what_is_known_and_goes_on(outage: type[Throttled]) -> None:
    world = World()
    world.write("abc")
    async with world.process() as process:
        await until(world.same)

        async def fail(call: str) -> None:
            if call == "DescribeStream":
                raise outage("DescribeStream failed.")

        world.streams.faults.pause = fail
        await until(lambda: bool(process.observer.troubles))
        world.write("xyz")
        await until(world.same)
        rows = world.coordination._rows.copy()
        await asyncio.sleep(900)
        assert world.coordination._rows.keys() == rows.keys()
        world.streams.faults.pause = None
        await until(lambda: process.observer.troubles == {})
        assert claimed(process) == ["s0"]


async def test_a_listing_that_misses_a_finished_shard_for_a_while_does_not_forget_it() -> None:
    world = World()
    world.write("abc")
    world.roll("s0", "s1")
    async with world.process() as process:
        await until(lambda: world.owner("s1") is not None)
        listed = world.streams._shards[world.ref.arn].pop(S0)
        await asyncio.sleep(120)
        world.streams._shards[world.ref.arn] = {S0: listed, **world.streams._shards[world.ref.arn]}
        await asyncio.sleep(120)
        assert claimed(process) == ["s0", "s1"]
    assert world.stored() == "SHARD_END"


async def test_the_row_of_a_finished_shard_is_forgotten_when_it_is_listed_no_more() -> None:
    world = World()
    world.write("abc")
    world.roll("s0", "s1")
    async with world.process():
        await asyncio.sleep(5)
        async with world.process():
            await until(lambda: world.owner("s1") is not None)
            await asyncio.sleep(20)
            world.streams.remove_shard(world.ref, S0)
            await asyncio.sleep(1200)
        assert world.row("s0") is None
        assert world.registry.gaps == [], "no other worker took the forgotten row for an unread shard"


async def test_a_shard_that_only_another_worker_knows_yet_is_not_taken_for_one_that_vanished() -> None:
    world = World()
    world.regions[AP].faults.outage = Unreachable
    rules = rule("up", target("up", EU)), rule("down", target("down", AP))
    world.write("abc")
    async with world.process(*rules) as first:
        await until(world.same)
        async with world.process(*rules, limits=Limits(discovery_seconds=3600)) as second:
            await asyncio.sleep(5)
            world.roll("s0", "s1")
            world.write("xyz")
            await until(world.same)
            await first.drain()
            await until(lambda: "s0" in claimed(second))
            await asyncio.sleep(30)
            assert ("s1", "down/ap") not in second.observer.of("shard_started")


async def test_a_new_rule_is_not_held_responsible_for_shards_that_are_gone() -> None:
    world = World()
    world.write("abc")
    world.roll("s0", "s1")
    async with world.process() as process:
        await until(lambda: world.owner("s1") is not None)
        await process.drain()
    await asyncio.sleep(100)
    world.streams.remove_shard(world.ref, S0)
    world.put("d", 1)
    async with world.process(eu_rule(), rule("fresh", target("fresh", AP))):
        await until(lambda: set(world.holds(AP)) == {"d"})
        await asyncio.sleep(60)
    assert world.registry.gaps == []


async def test_a_rule_that_stands_from_its_start_has_a_gap_where_a_child_vanished_meanwhile() -> None:
    world = World()
    world.write("abc")
    world.roll("s0", "s1")
    world.write("def")
    world.roll("s1", "s2")
    world.regions[AP].faults.outage = Unreachable
    async with world.process(eu_rule(), rule("copies", target("copies", AP), on_gap=OnGap.SKIP)):
        await until(lambda: world.stored("s1") == "SHARD_END")
        await asyncio.sleep(30)
        world.streams.remove_shard(world.ref, S0)
        world.streams.remove_shard(world.ref, S1)
        await asyncio.sleep(1000)
        world.regions[AP].faults.outage = None
        await asyncio.sleep(60)
        world.put("z", 1)
        await until(lambda: "z" in world.holds(AP), within=300)
    assert set(world.holds(AP)) == {*"abc", "z"}, "what was read before its shard went is not lost"
    assert [(gap.shard_id, short(gap.target_id)) for gap in world.registry.gaps] == [("s1", "copies/ap")]


async def test_a_rule_that_came_late_is_answerable_for_the_children_of_what_it_reads() -> None:
    world = World()
    world.write("abc")
    copies = rule("copies", target("copies", AP), on_gap=OnGap.SKIP)
    world.regions[AP].faults.outage = Unreachable
    async with world.process() as process:
        await until(world.same)
        await process.drain()
    world.roll("s0", "s1")
    world.roll("s1", "s2")
    await asyncio.sleep(1000)
    async with world.process(eu_rule(), copies):
        await until(lambda: world.stored("s1") == "SHARD_END")
        await asyncio.sleep(30)
        world.streams.remove_shard(world.ref, S1)
        await asyncio.sleep(1000)
        world.regions[AP].faults.outage = None
        await until(lambda: world.stored("s2", "copies/ap") is not None, within=300)
    assert [(gap.shard_id, short(gap.target_id)) for gap in world.registry.gaps] == [("s1", "copies/ap")]


async def test_a_shard_that_vanished_before_its_first_record_was_read_is_a_gap() -> None:
    world = World()
    async with world.process() as process:
        await until(lambda: world.stored() == "TRIM_HORIZON")
        await process.drain()
    world.write("abc")
    world.roll("s0", "s1")
    world.streams.remove_shard(world.ref, S0)
    async with world.process() as process:
        await until(lambda: process.observer.blocked_keys == {"orders/eu on s0": None})
    assert [(gap.shard_id, gap.after.text) for gap in world.registry.gaps] == [("s0", "TRIM_HORIZON")]


async def test_an_unreadable_row_is_told_and_stops_no_other_source() -> None:
    broken, sound = World(), World()
    process = broken.process()
    other = sound.process()
    elsewhere = [replace(source, region=EU) for source in other.worker._sources.now]
    process.worker._sources.put([*process.worker._sources.now, *elsewhere])

    async def corrupt(call: str) -> None:
        if call == "state":
            raise WorldMismatch("The row of shard s0 is corrupt.")

    broken.coordination.faults.pause = corrupt
    broken.write("abc")
    sound.write("abc")
    async with process:
        await until(sound.same)
        await asyncio.sleep(100)
        assert process.observer.troubles["shards of orders in us"].message == "The row of shard s0 is corrupt."
        assert broken.holds() == {}
        sound.write("xyz")
        await until(sound.same)
        broken.coordination.faults.pause = None
        await until(broken.same)
        assert process.observer.troubles == {}


async def test_a_table_without_a_stream_is_told_until_it_has_one() -> None:
    world = World()
    world.write("abc")
    world.streams.disable(ORDERS)
    async with world.process() as process:
        await asyncio.sleep(100)
        assert list(process.observer.troubles) == ["stream of orders in us"]
        world.streams.enable(world.ref)
        await until(world.same)
        assert process.observer.troubles == {}


async def test_every_cycle_is_told_whatever_the_world_does() -> None:
    world = World()
    world.coordination.faults.outage = Unreachable
    async with world.process() as process:
        await asyncio.sleep(100)
        attempts = len(process.observer.of("cycle"))
        await asyncio.sleep(100)
        assert len(process.observer.of("cycle")) - attempts >= 5


# -- one stream behind the other -----------------------------------------------------------------------------------


def replace_stream(world: World, number: int = 2, shard: str = "n0") -> None:
    """Disable the stream and enable another one: the old one stays readable, and writes go to the new one."""
    for shard_id in set(world.routes) & world.streams._shards.get(world.ref.arn, {}).keys():
        world.streams.close(world.ref, shard_id)
    world.ref = stream_ref(number)
    world.streams.enable(world.ref)
    world.streams.add_shard(world.ref, ShardId(shard))
    world.route_to(shard)
    written = world.source.items
    world.source = world.new_source(world.ref)
    world.source.items = written


async def test_a_replaced_stream_is_read_to_its_end_before_its_successor() -> None:
    world = World()
    old = world.ref
    world.write("abc", 1)
    world.region.poison(key_of("c"), "it is too large")
    async with world.process() as process:
        await until(lambda: world.stored() == "2")
        replace_stream(world)
        world.write("abxyz", 2)
        await asyncio.sleep(60)
        assert world.holds() == {"a": "1", "b": "1"}
        world.region.cure(key_of("c"))
        await until(world.same)
        assert claimed(process) == ["s0", "n0"]
    assert world.stored("s0", ref=old) == "SHARD_END"
    known = await world.registry.streams(old.region, ORDERS)
    assert [(each.ref.arn, sorted(target.rule for target in each.drained)) for each in known] == [
        (old.arn, ["orders"]),
        (world.ref.arn, []),
    ]


async def test_a_stream_that_was_replaced_while_nobody_ran_is_still_read_to_its_end_first() -> None:
    world = World()
    world.write("abc", 1)
    async with world.process() as process:
        await until(world.same)
        await process.drain()
    world.put("d", 1)
    replace_stream(world)
    world.put("a", 2)
    async with world.process() as process:
        await until(world.same)
        assert claimed(process) == ["s0", "n0"]


async def test_a_start_at_the_latest_counts_from_the_first_stream_also_on_its_successor() -> None:
    world = World()
    world.write("abc", 1)
    await asyncio.sleep(100)
    latest = eu_rule(start=Start.LATEST)
    async with world.process(latest) as process:
        await until(lambda: world.stored() == "3")
        await process.drain()
    replace_stream(world)
    world.write("xyz", 2)
    await asyncio.sleep(100)
    async with world.process(latest):
        await until(lambda: world.stored("n0") == "3")
    assert set(world.holds()) == set("xyz")


async def test_a_child_that_an_old_stream_lists_late_is_read_before_its_successor() -> None:
    world = World()
    old = world.ref
    world.write("abc", 1)
    async with world.process() as process:
        await until(world.same)
        world.roll("s0", "s1")
        world.write("xyz", 1)
        late = world.streams._shards[old.arn].pop(S1)
        late.closed = True
        replace_stream(world)
        world.write("x", 2)
        await until(lambda: world.stored(ref=old) == "SHARD_END")
        await asyncio.sleep(1.5)
        world.streams._shards[old.arn][S1] = late
        await until(world.same)
        assert claimed(process) == ["s0", "s1", "n0"]


async def test_a_stream_that_is_gone_with_unread_records_is_a_gap_and_waits_for_a_decision() -> None:
    world = World()
    old = world.ref
    world.write("abc", 1)
    async with world.process() as process:
        await until(lambda: world.stored() == "3")
        await process.drain()
    world.put("d", 1)
    replace_stream(world)
    world.streams.drop(old)
    world.put("x", 1)
    async with world.process() as process:
        await until(lambda: process.observer.blocked_keys == {"orders/eu on s0": None})
        await process.drain()
    assert [(gap.stream.arn, gap.after.text) for gap in world.registry.gaps] == [(old.arn, "3")]
    async with world.process(eu_rule(on_gap=OnGap.SKIP)):
        await until(lambda: "x" in world.holds())
    assert [gap.shard_id for gap in world.registry.gaps] == ["s0", "every shard"]


async def test_a_stream_that_is_gone_and_was_read_to_its_end_gives_way_to_its_successor() -> None:
    world = World()
    old = world.ref
    world.write("abc", 1)
    world.roll("s0")
    async with world.process() as process:
        await until(lambda: world.stored() == "SHARD_END")
        await process.drain()
    replace_stream(world)
    world.streams.drop(old)
    world.put("x", 1)
    async with world.process():
        await until(lambda: "x" in world.holds())
    assert [gap.shard_id for gap in world.registry.gaps] == ["every shard"], "what no stream told is noted"


async def test_a_stream_that_is_gone_without_a_successor_is_told_until_there_is_one() -> None:
    world = World()
    world.streams.drop(world.ref)
    async with world.process() as process:
        await asyncio.sleep(100)
        assert "no longer exists" in process.observer.troubles["shards of orders in us"].message
        replace_stream(world)
        world.put("x", 1)
        await until(world.same)
        assert process.observer.troubles == {}


async def test_a_stream_that_came_and_went_while_nobody_ran_is_read_in_its_turn() -> None:
    world = World()
    first = world.ref
    world.write("abc", 1)
    async with world.process() as process:
        await until(world.same)
        await process.drain()
    world.put("a", 2)
    replace_stream(world)
    second = world.ref
    world.write("bx", 3)
    replace_stream(world, 3, "m0")
    world.write("cx", 4)
    async with world.process() as process:
        await until(world.same)
        assert claimed(process) == ["s0", "n0", "m0"]
    assert world.stored("s0", ref=first) == world.stored("n0", ref=second) == "SHARD_END"
    assert {(gap.stream.arn, gap.shard_id) for gap in world.registry.gaps} == {
        (first.arn, "every shard"),
        (second.arn, "every shard"),
    }


async def test_a_first_start_reads_the_present_stream_only_and_records_no_break() -> None:
    world = World()
    world.write("abc", 1)
    replace_stream(world)
    world.write("abc", 2)
    async with world.process() as process:
        await until(world.same)
        await asyncio.sleep(60)
        assert claimed(process) == ["n0"]
    assert world.registry.gaps == []


async def test_workers_without_the_seat_follow_to_the_next_stream() -> None:
    world = World("s0", "s1", "s2")
    async with world.process() as first, world.process() as second:
        world.write("abcdefgh", 1)
        await until(world.same)
        await asyncio.sleep(20)
        replace_stream(world)
        for name in ("n1", "n2", "n3"):
            world.streams.add_shard(world.ref, ShardId(name))
        world.write("abcdefgh", 2)
        await until(world.same)
        await asyncio.sleep(30)
        owners = [world.owner(name) for name in ("n0", "n1", "n2", "n3")]
        assert sorted(map(str, owners)) == ["p1.1", "p1.1", "p2.1", "p2.1"]
        assert first.observer.troubles == second.observer.troubles == {}


async def test_a_row_that_is_unreadable_is_told_and_its_stream_never_counts_as_drained() -> None:
    world = World()
    world.write("abc", 1)
    world.roll("s0")
    async with world.process() as process:
        world.coordination.unreadable = WorldMismatch("The row of shard s9 cannot be understood.")
        await until(lambda: world.stored() == "SHARD_END")
        replace_stream(world)
        world.put("x", 1)
        await asyncio.sleep(120)
        assert process.observer.troubles["rows of orders in us"].message == "The row of shard s9 cannot be understood."
        assert "x" not in world.holds()
        world.coordination.unreadable = None
        await until(world.same)
        assert process.observer.troubles == {}


async def test_a_child_whose_parents_row_is_unreadable_is_not_begun() -> None:
    world = World()
    world.write("abc", 1)
    world.coordination.unreadable = WorldMismatch("The row of shard p cannot be understood.")
    await world.coordination.discover(world.ref, [Shard(S0, (ShardId("p"),))], 0.0)
    async with world.process() as process:
        await asyncio.sleep(60)
        assert claimed(process) == []
        world.coordination.unreadable = None
        await until(world.same)


async def test_a_shard_whose_row_became_unreadable_is_read_on() -> None:
    world = World("s0", "s1")
    async with world.process() as process:
        world.write("abcdefgh", 1)
        await until(world.same)
        await asyncio.sleep(5)
        row = world.row("s0")
        world.coordination.unreadable = WorldMismatch("The row of shard s0 cannot be understood.")
        world.coordination.delete(world.ref, S0)
        await asyncio.sleep(4)
        world.coordination.put(world.ref, row)
        world.coordination.unreadable = None
        world.write("abcdefgh", 2)
        await until(world.same)
        assert sorted(claimed(process)) == ["s0", "s1"]


async def test_a_worker_that_is_stuck_on_a_lost_shard_is_stopped_at_the_second_look() -> None:
    world = World()
    world.region.poison(key_of("a"), "it is too large")
    async with world.process(limits=Limits(backoff_seconds=1000)) as process:
        world.write("a")
        await until(lambda: bool(process.observer.blocked_keys))
        await asyncio.sleep(300)
        world.coordination.evict(world.ref, S0)
        await until(lambda: claimed(process) == ["s0", "s0"], within=10)


async def test_a_late_target_that_cannot_ask_for_a_shard_holds_no_other_back() -> None:
    world = World()
    world.write("abc", 1)
    world.roll("s0", "s1")
    async with world.process() as process:
        await until(lambda: world.owner("s1") is not None)
        await process.drain()
    failing = True

    async def fail(call: str) -> None:
        if call == "GetShardIterator" and failing and world.stored("s1") is not None:
            raise Unreachable("GetShardIterator failed.")

    world.streams.faults.pause = fail
    async with world.process(eu_rule(), rule("fresh", target("fresh", AP))) as process:
        await until(lambda: "s1" in claimed(process))
        await until(lambda: "shards of orders in us" in process.observer.troubles)
        failing = False
        await until(lambda: world.same(AP))
        assert process.observer.troubles == {}


async def test_a_late_target_reads_a_shard_whose_oldest_records_are_gone() -> None:
    world = World()
    world.write("abc", 1)
    async with world.process() as process:
        await until(world.same)
        await process.drain()
    trimmed = 0

    async def trim(call: str) -> None:
        nonlocal trimmed
        if call == "GetShardIterator" and not trimmed:
            trimmed += 1
            raise RecordsTrimmed("The oldest records are gone.")

    world.streams.faults.pause = trim
    async with world.process(rule("fresh", target("fresh", AP))):
        await until(lambda: world.same(AP))
