"""A cache, or a key template, that comes into a rule later or comes back has no entry that is older than the table.

Positions say what was done by the configuration of that time; what it did not keep in step is dropped.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection

import pytest

from replicator.domain.cache_debt import DebtPolicy
from replicator.domain.cache_keys import CacheRule, CacheVerb
from replicator.domain.errors import Unreachable
from replicator.domain.progress import END
from replicator.domain.rules import Rule
from replicator.domain.versions import UNSTAMPED
from replicator.laboratory.memory import MemoryCacheDebt, value_entry
from tests.engine.world import EU, Process, World, cache_rule, hold, rule, target, until

CACHED, OTHER = cache_rule("eu_main", EU), cache_rule("eu_main", EU, template="sku:{pk}")
NAMES = [f"k{number}" for number in range(6)]


def orders(*caches: CacheRule) -> Rule:
    return rule("orders", target("orders", EU, *caches))


def shop(*, may_flush: bool = True) -> World:
    world = World()
    world.debts = {"eu_main": MemoryCacheDebt()}
    world.debt_policy = DebtPolicy(patterns=("order:*", "sku:*"), may_flush=may_flush)
    return world


def fill(world: World, kind: str = "order") -> None:
    """Readers fill what they look at."""
    world.caches["eu_main"].entries |= {f"{kind}:{name}": value_entry(UNSTAMPED, b"{}") for name in NAMES}


async def run(world: World, caches: Collection[CacheRule], names: Collection[str] = ()) -> Process:
    """One worker with these caches in its rule; keys are written while it runs, and it ends as it should."""
    async with world.process(orders(*caches)) as process:
        world.write(names, id(process))
        await until(lambda: world.same() and world.stored() == world.records()[-1].sequence)
        await asyncio.sleep(20)
        await until(lambda: world.debts["eu_main"].flush_row is None)
        await process.drain()
    return process


def entries(world: World) -> set[str]:
    return set(world.caches["eu_main"].entries)


async def test_entries_of_a_cache_that_was_taken_out_and_put_back_are_dropped() -> None:
    world = shop()
    await run(world, [CACHED], NAMES)
    fill(world)
    await run(world, [], NAMES[:3])
    assert len(entries(world)) == len(NAMES), "no worker settles them"
    process = await run(world, [CACHED])
    assert entries(world) == set()
    assert process.observer.of("entries_not_kept") == [("s0", "eu_main", True)]
    fill(world)
    process = await run(world, [CACHED])
    assert len(entries(world)) == len(NAMES), "nothing is dropped while it stays"
    assert process.observer.of("entries_not_kept") == []


async def test_a_key_template_that_comes_later_begins_without_entries() -> None:
    world = shop()
    await run(world, [CACHED], NAMES)
    fill(world, "sku")
    await run(world, [CACHED], NAMES[:3])
    await run(world, [CACHED, OTHER])
    assert entries(world) == set()
    fill(world)
    process = await run(world, [CACHED])
    assert len(entries(world)) == len(NAMES), "entries that stay in step are left, whatever goes"
    assert process.observer.of("entries_not_kept") == []


async def test_another_action_on_the_same_entries_drops_none() -> None:
    world = shop()
    await run(world, [CACHED], NAMES)
    fill(world)
    await run(world, [cache_rule("eu_main", EU, CacheVerb.REFRESH)])
    assert len(entries(world)) == len(NAMES)


async def test_what_an_earlier_version_left_counts_as_kept() -> None:
    world = shop()
    await run(world, [CACHED], NAMES)
    row = world.row()
    row.keeps.clear()
    fill(world)
    process = await run(world, [CACHED])
    assert len(entries(world)) == len(NAMES)
    assert process.observer.of("entries_not_kept") == []
    await run(world, [CACHED], NAMES[:1])
    assert world.row().keeps, "it is noted with the next position"


async def test_the_target_waits_until_the_drop_is_noted_and_a_killed_worker_forgets_nothing() -> None:
    world = shop()
    await run(world, [CACHED], NAMES)
    fill(world)
    await run(world, [], NAMES)
    world.debts["eu_main"].faults.outage = Unreachable
    async with world.process(orders(CACHED)) as process:
        world.write(NAMES[:1], "later")
        await until(lambda: process.observer.of("service_failed") != [])
        assert not world.same()
        await process.kill()
    world.debts["eu_main"].faults.outage = None
    await run(world, [CACHED])
    assert entries(world) == set()


async def test_a_worker_that_dies_behind_the_drop_and_before_its_position_leaves_another_one_to_do_it_again() -> None:
    world = shop()
    await run(world, [CACHED], NAMES)
    await run(world, [], NAMES)
    gate = hold(world.coordination.faults, "save")
    fill(world)
    async with world.process(orders(CACHED)) as process:
        await until(lambda: not entries(world))
        await process.kill()
    gate.set()
    fill(world)
    await run(world, [CACHED])
    assert entries(world) == set()


async def test_a_shard_that_came_meanwhile_knows_what_its_parent_did_not_keep() -> None:
    world = shop()
    await run(world, [CACHED], NAMES)
    fill(world)
    async with world.process(orders()) as process:
        world.write(NAMES[:3], "uncached")
        await until(world.same)
        world.roll("s0", "s1")
        await until(lambda: world.stored() == END.text)
        await process.kill()
    world.coordination.delete(world.ref, world.row("s1").shard_id)  # as if it had died before it saw the child
    async with world.process(orders(CACHED)) as process:
        world.write(NAMES[:1], "later")
        await until(world.same)
        await until(lambda: not entries(world))
        assert process.observer.of("entries_not_kept") == [("s1", "eu_main", True)]


async def test_entries_that_nothing_tells_from_others_stay_and_that_is_said() -> None:
    world = shop(may_flush=False)
    await run(world, [CACHED], NAMES)
    fill(world)
    await run(world, [], NAMES[:3])
    process = await run(world, [CACHED])
    assert len(entries(world)) == len(NAMES)
    assert process.observer.of("entries_not_kept") == [("s0", "eu_main", False)]
    process = await run(world, [CACHED], NAMES[:1])
    assert process.observer.of("entries_not_kept") == [], "once"


@pytest.mark.parametrize("debt", [True, False])
async def test_a_cache_without_a_backlog_is_named_too(*, debt: bool) -> None:
    world = shop()
    await run(world, [], NAMES)
    if not debt:
        world.debts = {}
    async with world.process(orders(CACHED)) as process:
        await until(lambda: process.observer.of("entries_not_kept") == [("s0", "eu_main", debt)])
