"""Entries that are read again behind actions: counted, dropped when they are stale, and never in the way."""

from __future__ import annotations

import asyncio
from datetime import timedelta

from replicator.domain.cache_horizons import VerifyPolicy
from replicator.domain.cache_keys import CacheRule, CacheVerb
from replicator.domain.errors import Unreachable
from replicator.domain.key_templates import KeyTemplate
from replicator.domain.versions import UNSTAMPED
from replicator.laboratory.memory import MemoryCacheDebt, value_entry
from tests.engine.test_cache_debt import RULES, names
from tests.engine.world import EU, Process, World, cache_rule, rule, target, until

ALL = VerifyPolicy(every=1, reads=100)
OLD = value_entry(UNSTAMPED, b"{}")


def shop(policy: VerifyPolicy = ALL) -> World:
    world = World()
    world.debts = {"eu_main": MemoryCacheDebt()}
    world.verify_policy = policy
    return world


async def drained(process: Process, count: int) -> dict[float, dict[str, int]]:
    """What was found when so many samples were looked at for the last time."""
    found: dict[str, dict[float, dict[str, int]]] = process.observer.verified
    await until(lambda: "eu_main" in found and sum(found["eu_main"][60.0].values()) == count, within=120)
    return found["eu_main"]


async def test_an_entry_that_stays_old_is_counted_at_each_horizon_logged_and_dropped() -> None:
    world = shop()
    cache = world.caches["eu_main"]
    async with world.process(*RULES) as process:
        world.write(names(1, 2))
        await until(world.same)
        await asyncio.sleep(0.3)  # the actions are over, and the first look is not due
        cache.entries["order:k1"] = OLD  # by a reader that stores whatever it has loaded, however late
        found = await drained(process, 2)
        assert found[1.0] == {"inconsistent": 1, "absent": 1}
        assert found[5.0] == found[60.0] == {"absent": 2}
        assert "order:k1" not in cache.entries
        assert process.observer.of("cache_inconsistent") == [("order:k1", 1.0)]


async def test_an_entry_that_is_refreshed_is_consistent_and_one_of_others_is_opaque() -> None:
    world = shop()
    cache = world.caches["eu_main"]
    refreshed = rule("orders", target("orders", EU, cache_rule("eu_main", EU, CacheVerb.REFRESH)))
    async with world.process(refreshed) as process:
        cache.entries["order:k1"] = OLD
        world.write(names(1, 2))
        await until(world.same)
        await until(lambda: cache.entries.get("order:k1") not in {OLD, None})
        await asyncio.sleep(0.3)  # the action of the other one is over, and the first look is not due
        cache.entries["order:k2"] = b"of others"
        found = await drained(process, 2)
        assert found[1.0] == found[60.0] == {"consistent": 1, "opaque": 1}
        assert cache.entries["order:k2"] == b"of others"


async def test_what_does_not_fit_is_passed_over_and_counted_and_reads_are_bounded() -> None:
    world = shop(VerifyPolicy(every=1, reads=1))
    async with world.process(*RULES) as process:
        world.write(names(*range(50)))
        await until(world.same)
        await asyncio.sleep(10)
        seen = process.observer.verified["eu_main"]
        assert sum(count for each in seen.values() for count in each.values()) <= 11
        assert process.observer.passed_over["eu_main"] == 50 - VerifyPolicy(reads=1).most


async def test_one_of_so_many_changes_is_taken() -> None:
    world = shop(VerifyPolicy(every=10, reads=100))
    async with world.process(*RULES) as process:
        world.write(names(*range(30)))
        await until(world.same)
        assert (await drained(process, 3))[1.0] == {"absent": 3}


async def test_a_cache_that_is_away_is_not_judged_and_what_it_is_owed_is_judged_later() -> None:
    world = shop()
    cache = world.caches["eu_main"]
    async with world.process(*RULES) as process:
        cache.entries["order:k1"] = OLD
        cache.faults.outage = Unreachable
        world.write(names(1))
        await until(world.same)
        await asyncio.sleep(3)
        cache.faults.outage = None
        found = await drained(process, 1)
        assert found[1.0] == {"unread": 1}
        assert found[60.0] == {"absent": 1}


async def test_a_table_that_does_not_answer_is_not_judged_by() -> None:
    world = shop()
    async with world.process(*RULES) as process:
        world.write(names(1))
        await until(world.same)
        await asyncio.sleep(0.3)  # the action is over, and the first look is not due
        world.caches["eu_main"].entries["order:k1"] = OLD
        world.regions[EU].faults.outage = Unreachable
        await until(lambda: "eu_main" in process.observer.verified, within=20)
        world.regions[EU].faults.outage = None
        found = await drained(process, 1)
        assert found[1.0] == {"unread": 1}
        assert found[5.0] == {"inconsistent": 1}


async def test_an_entry_that_can_be_neither_dropped_nor_owed_is_dropped_later() -> None:
    world = shop()
    cache, debt = world.caches["eu_main"], world.debts["eu_main"]
    async with world.process(*RULES) as process:
        world.write(names(1))
        await until(world.same)
        await asyncio.sleep(40)
        cache.entries["order:k1"] = OLD
        cache.refusals["order:k1"] = Unreachable("A node is away.")
        debt.faults.outage = Unreachable
        assert (await drained(process, 1))[60.0] == {"inconsistent": 1}
        await asyncio.sleep(5)
        assert set(cache.entries) == {"order:k1"}
        cache.refusals.clear()
        debt.faults.outage = None
        await until(lambda: not cache.entries, within=120)


async def test_entries_that_items_may_share_are_opaque() -> None:
    world = shop()
    shared = CacheRule("eu_main", EU, KeyTemplate("list:{value}"), CacheVerb.INVALIDATE, timedelta(hours=1))
    async with world.process(rule("orders", target("orders", EU, shared))) as process:
        world.write(names(1, 2, 3))
        await until(world.same)
        await until(lambda: "eu_main" in process.observer.verified)
        assert (await drained(process, 3))[1.0] == {"opaque": 3}
