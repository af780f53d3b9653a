"""Targets that come to a stream late, and what left it before: they hold nothing up, and hide no loss of another."""

from __future__ import annotations

import asyncio

import pytest

from replicator.domain.identifiers import RuleName, ShardId
from replicator.domain.rules import Rule
from replicator.domain.values import replace
from tests.engine.shard_bench import first_of
from tests.engine.test_coordinator import replace_stream
from tests.engine.test_losses import accept
from tests.engine.test_target_losses import SOURCE_CACHES
from tests.engine.world import AP, EU, Process, World, eu_rule, key_of, rule, short, target, until
from tests.seeds import first

S0, S1, S2 = map(ShardId, ("s0", "s1", "s2"))
DAY = 24 * 3600.0
BOTH = rule("orders", target("orders", EU), target("orders", AP))
LATE = {
    "none": eu_rule(),
    "a replica": BOTH,
    "caches beside the source": rule("orders", target("orders", EU), SOURCE_CACHES),
}
late = pytest.mark.parametrize("newcomer", first(1, ["a replica", "none", "caches beside the source"]))


def lost(world: World) -> list[tuple[str, str, str]]:
    """Target, shard and place of every gap on a shard."""
    return sorted(
        (short(gap.target_id), gap.shard_id, gap.after.text)
        for gap in world.registry.gaps
        if gap.shard_id != "every shard"
    )


async def read_out(world: World, *names: str, rules: Rule | None = None) -> None:
    """Let `orders/eu` read these items, and stop."""
    world.write(names)
    async with world.process(rules or eu_rule()) as process:
        await until(lambda: set(world.holds()) >= set(names))
        await asyncio.sleep(5)
        await process.drain()


async def accepted(world: World, process: Process, within: float = 600.0) -> None:
    """Accept every loss as it is found, until everything is level."""
    for _ in range(round(within / 20)):
        await asyncio.sleep(20)
        accept(world)
    assert process.observer.blocked_keys == {}
    assert process.observer.troubles == {}


@late
async def test_a_shard_that_left_the_stream_is_a_gap_of_who_had_begun_it_and_holds_nothing(newcomer: str) -> None:
    world = World()
    first_of(world, "s0")
    await read_out(world, *"abc")
    world.write("de")
    world.roll("s0", "s1")
    world.write("fg")
    await asyncio.sleep(2 * DAY)
    world.streams.remove_shard(world.ref, S0)
    async with world.process(LATE[newcomer]) as process:
        await until(lambda: lost(world) == [("orders/eu", "s0", "3")])
        await asyncio.sleep(300)
        assert set(world.holds()) == set("abc"), "the loss is not accepted"
        await accepted(world, process)
        assert set(world.holds()) == set("abcfg")
        world.put("h", 1)
        await until(lambda: "h" in world.holds())
        assert newcomer != "a replica" or set(world.holds(AP)) == set("fgh")
    assert lost(world) == [("orders/eu", "s0", "3")]


@late
async def test_a_stream_that_is_gone_is_a_gap_of_who_had_begun_it_and_its_successor_goes_on(newcomer: str) -> None:
    world = World()
    first_of(world, "s0")
    await read_out(world, *"abc")
    world.write("de")
    old = world.ref
    replace_stream(world)
    world.write("fg")
    await asyncio.sleep(2 * DAY)
    world.streams.drop(old)
    async with world.process(LATE[newcomer]) as process:
        await until(lambda: lost(world) == [("orders/eu", "s0", "3")])
        await accepted(world, process)
        assert set(world.holds()) == set("abcfg")
        assert newcomer != "a replica" or set(world.holds(AP)) == set("fg")
    assert lost(world) == [("orders/eu", "s0", "3")]


@late
async def test_shards_that_went_before_they_were_begun_are_gaps_of_who_had_started(newcomer: str) -> None:
    world = World()
    first_of(world, "s0")
    world.write("abc")
    async with world.process() as process:
        await until(lambda: world.stored() == "3")
        await asyncio.sleep(100)
        world.region.poison(key_of("a"), "it is too large")
        world.put("a", 2)
        world.roll("s0", "s1", "s2")
        world.write("defghijk")
        await asyncio.sleep(60)
        await process.drain()
    await asyncio.sleep(2 * DAY)
    for old, new in ((S1, "s3"), (S2, "s4")):
        world.roll(old, new)
    for each in (S0, S1, S2):
        world.streams.remove_shard(world.ref, each)
    world.region.cure(key_of("a"))
    world.write("lmnop")
    async with world.process(LATE[newcomer]) as process:
        await accepted(world, process, within=2000)
        assert set(world.holds()) == set("abclmnop")
        assert newcomer != "a replica" or set(world.holds(AP)) == set("lmnop")
    assert lost(world) == [
        ("orders/eu", "s0", "3"),
        ("orders/eu", "s1", "SHARD_START"),
        ("orders/eu", "s2", "SHARD_START"),
    ]


async def test_what_a_late_target_was_owed_since_its_start_is_a_gap_when_it_goes_unread() -> None:
    """It starts on one shard; the other one, which stands open then, is not begun for it for more than a day."""
    world = World("s0", "t0")
    await read_out(world, *"abcdefgh")
    await asyncio.sleep(1000)
    await world.registry.start(world.ref, BOTH.targets[1])  # as its first shard does
    world.write("ijklmnop")
    world.roll("s0", "s1")
    await asyncio.sleep(DAY + 3600)
    world.streams.remove_shard(world.ref, S0)
    async with world.process(BOTH) as process:
        await accepted(world, process)
        assert world.same(AP) is False
    assert {each[:2] for each in lost(world)} == {("orders/ap", "s0"), ("orders/eu", "s0")}


async def test_a_shard_that_was_gone_within_a_day_of_a_targets_start_is_no_gap_of_it() -> None:
    world = World("s0", "t0")
    await read_out(world, *"abcdefgh")
    await asyncio.sleep(1000)
    world.write("ijkl")
    world.roll("s0", "s1")
    await asyncio.sleep(2000)
    await world.registry.start(world.ref, BOTH.targets[1])
    world.membership.pause(RuleName("orders"))
    await asyncio.sleep(DAY - 4000)
    world.streams.remove_shard(world.ref, S0)
    async with world.process(BOTH) as process:
        await until(lambda: world.row("s0").vanished)
        await process.drain()
    await asyncio.sleep(DAY)
    world.membership.resume(RuleName("orders"))
    async with world.process(BOTH) as process:
        await accepted(world, process)
        world.write("yz")
        await until(lambda: {"y", "z"} <= set(world.holds(AP)))
    assert {each[:2] for each in lost(world)} == {("orders/eu", "s0")}


async def test_a_shard_that_an_earlier_version_noted_as_vanished_is_a_gap_where_nothing_tells_when() -> None:
    world = World("s0", "t0")
    await read_out(world, *"abcdefgh")
    await asyncio.sleep(1000)
    await world.registry.start(world.ref, BOTH.targets[1])
    world.roll("s0", "s1")
    world.streams.remove_shard(world.ref, S0)
    row = world.row("s0")
    world.coordination.put(world.ref, replace(row, vanished=True, vanished_at=None))
    async with world.process(BOTH) as process:
        await accepted(world, process)
    assert ("orders/ap", "s0", "TRIM_HORIZON") in lost(world)


# -- rows that tell of a rule that is away ------------------------------------------------------------------------


async def test_a_row_tells_what_a_rule_has_lost_that_nobody_runs_for_a_while() -> None:
    world = World()
    copies = rule("copies", target("copies", AP))
    async with world.process(eu_rule(), copies) as process:
        world.write("abc")
        await until(lambda: world.same() and world.same(AP))
        await asyncio.sleep(5)
        await process.drain()
    world.write("de")
    world.roll("s0", "s1")
    async with world.process() as process:  # an operator took `copies` out of the file
        await until(lambda: world.stored("s0") == "SHARD_END")
        await process.drain()
    await asyncio.sleep(2 * DAY)
    world.streams.remove_shard(world.ref, S0)
    async with world.process() as process:
        await asyncio.sleep(1000)
        await process.drain()
    async with world.process(eu_rule(), copies) as process:
        await until(lambda: lost(world) == [("copies/ap", "s0", "3")], within=120)
        accept(world)
        world.put("z", 1)
        await until(lambda: "z" in world.holds(AP))
        await asyncio.sleep(1000)
    assert world.row("s0") is None, "and goes when the rule is through"
