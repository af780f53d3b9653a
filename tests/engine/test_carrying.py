"""Keys that wait for their partitions, which are throttled: later pages of the shard go on without them."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from replicator.domain.modes.requests import GuardedPut, Put
from replicator.domain.rules import OnRefusal
from replicator.engine.applying import applier, jobs
from replicator.engine.limits import Limits
from tests.engine.shard_bench import ShardBench
from tests.engine.world import World, eu_rule, key_of, slow, until

LIMITS = Limits(checkpoint_seconds=0.1)
HOT = key_of("hot")


def throttled(world: World, *names: str) -> None:
    """Throttle the partitions of these keys; calls take a moment, so the table is seen to take others."""
    world.region.hot = {key_of(name) for name in names}
    slow(world.region.faults, 0.01)


def tries(world: World) -> int:
    """How often the hot key was tried."""
    keys = (request.put.key if isinstance(request, GuardedPut) else request.key for request in world.region.sent)
    return sum(key == HOT for key in keys)


async def flows(world: World, rounds: int, *, hot: Sequence[str] = ("hot",), within: float = 2.0) -> None:
    """Write page after page, with hot keys in each; every other key is there soon."""
    for number in range(rounds):
        world.write([f"k{number}-{key}" for key in range(20)])
        world.write(hot, number)
        wanted = {f"k{number}-{key}" for key in range(20)}
        await until(lambda wanted=wanted: wanted <= world.holds().keys(), within=within)  # type: ignore[misc]


async def test_pages_go_on_while_a_key_waits_for_its_partition_and_it_arrives_as_it_was_written_last() -> None:
    world = World()
    throttled(world, "hot")
    async with world.process(limits=LIMITS) as process:
        await flows(world, 30)
        assert "hot" not in world.holds()
        position = world.stored()
        assert position is None or int(position) < 40, "no position passes what is not durable"
        assert process.observer.blocked_keys, "what stands in the way is reported"
        world.region.hot = set()
        await until(world.same, within=25)
        assert world.holds()["hot"] == "29"
        await until(lambda: world.stored() == str(30 * 21))
        assert process.observer.blocked_keys == {}


async def test_the_writes_of_a_key_that_was_carried_over_keep_their_order() -> None:
    world = World()
    throttled(world, "hot")
    async with world.process(limits=LIMITS):
        await flows(world, 10)
        world.region.hot = set()
        await until(world.same, within=25)
    versions = []
    for request in world.region.sent:
        put = request.put if isinstance(request, GuardedPut) else request
        if isinstance(put, Put) and put.key == HOT:
            versions.append(put.version)
    assert versions == sorted(versions)


async def test_what_was_carried_over_comes_again_after_a_crash() -> None:
    world = World()
    throttled(world, "hot")
    async with world.process(limits=LIMITS):
        await flows(world, 5)
        await asyncio.sleep(1)
    world.region.hot = set()
    async with world.process(limits=LIMITS):
        await until(world.same, within=30)
        assert world.holds()["hot"] == "4"


async def test_a_drain_gives_back_what_is_carried_over_and_stores_no_position_behind_it() -> None:
    world = World()
    throttled(world, "hot")
    process = world.process(limits=LIMITS).start()
    world.write("abc")
    await until(lambda: set("abc") <= world.holds().keys())
    await flows(world, 5)
    await process.drain(within=25)
    assert world.owner() is None
    position = world.stored()
    assert position is not None
    assert 3 <= int(position) <= 23
    assert process.observer.blocked_keys == {}


async def test_a_shard_ends_only_when_what_is_carried_over_is_applied() -> None:
    world = World()
    throttled(world, "hot")
    async with world.process(limits=LIMITS):
        await flows(world, 3)
        world.roll("s0", "s1")
        world.put("hot", "last")
        world.put("later", 1)
        await asyncio.sleep(60)
        assert world.owner("s1") is None, "a child begins when its parent is applied"
        world.region.hot = set()
        await until(world.same, within=60)
        assert world.holds()["hot"] == "last"


async def test_a_key_that_is_refused_for_good_is_parked_when_its_partition_takes_it_up_again() -> None:
    world = World()
    throttled(world, "hot")
    async with world.process(eu_rule(refused=OnRefusal.PARK), limits=LIMITS):
        await flows(world, 5)
        world.region.poison(HOT, "it is too large")
        world.region.hot = set()
        await until(lambda: bool(world.owed.rows), within=30)
        await flows(world, 2, hot=())
        world.region.cure(HOT)
        world.put("hot", "small")
        await until(world.same, within=30)


@pytest.mark.parametrize(
    ("bound", "most"), [("_MOST_CARRIED_KEYS", 2), ("_MOST_CARRIED_BYTES", 900), ("_MOST_BEHIND", 60)]
)
async def test_what_is_carried_over_is_bounded(bound: str, most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs if hasattr(jobs, bound) else applier, bound, most)
    world = World()
    hot = [f"h{number}" for number in range(8)]
    throttled(world, *hot)
    async with world.process(limits=LIMITS):
        for number in range(10):
            world.write([f"k{number}-{key}" for key in range(20)])
            world.write(hot, number)
            await asyncio.sleep(1)
        assert not {f"k9-{key}" for key in range(20)} <= world.holds().keys(), "the bound holds the shard back"
        world.region.hot = set()
        await until(world.same, within=60)


async def test_pages_are_given_back_whatever_is_carried_over_of_them() -> None:
    world = World()
    throttled(world, "hot")
    async with ShardBench(world, limits=LIMITS) as bench:
        await flows(world, 3)
        one = bench.budget.used
        await flows(world, 30)
        assert bench.budget.used <= 2 * one
    assert bench.budget.used == 0


async def test_a_throttled_key_is_tried_seconds_apart_and_not_with_every_page() -> None:
    world = World()
    throttled(world, "hot")
    async with world.process(limits=LIMITS) as process:
        world.put("hot", 0)
        await asyncio.sleep(30)
        before = tries(world)
        await flows(world, 40, hot=())
        assert tries(world) - before <= 4
        assert process.observer.of("blocked")


async def test_a_table_that_took_nothing_but_throttled_keys_for_long_still_takes_others_at_once() -> None:
    world = World()
    hot = [f"h{number}" for number in range(30)]
    throttled(world, *hot)
    async with world.process(limits=LIMITS):
        world.write(hot)
        await asyncio.sleep(30)
        await flows(world, 3, hot=hot)


async def test_the_lag_counts_from_the_first_key_that_waits() -> None:
    world = World()
    throttled(world, "hot")
    async with world.process(limits=LIMITS) as process:
        await flows(world, 1)
        await flows(world, 20, hot=())
        began = [oldest for _, oldest in process.observer.of("batch_began")]
        assert len(began) > 10
        assert began[-1] <= began[0] + 1.0
