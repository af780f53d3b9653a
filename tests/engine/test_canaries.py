"""A rule's canary in virtual time: what its lag and age say, who writes it, and what takes no notice of it."""

from __future__ import annotations

import asyncio

import pytest

from replicator.domain.canary import PREFIX, Arrivals
from replicator.domain.errors import Unreachable
from replicator.domain.filters import Filter
from replicator.domain.identifiers import ShardId
from replicator.domain.jobs import JobKind
from replicator.domain.rules import Rule, Target
from replicator.domain.transforms import Transform
from tests.engine.job_world import JobWorldOf
from tests.engine.mesh_world import MODES, MeshWorld
from tests.engine.test_verify import asked, ended, found
from tests.engine.world import AP, EU, ORDERS, US, World, cache_rule, image, key_of, rule, target, until

EVERY = 30.0
HELD_BACK = Filter(exists=("nothing has this",))
KEY = key_of(f"{PREFIX}orders#us")


def orders(*targets: Target, **choices: object) -> Rule:
    return rule("orders", *targets or (target("orders", EU), target("orders", AP)), canary=EVERY, **choices)


def late(found: Arrivals) -> bool:
    return found.is_late(asyncio.get_running_loop().time())


async def test_an_idle_table_shows_its_lag_and_only_the_target_that_is_away_grows_old() -> None:
    world = World()
    async with world.process(orders()) as process:
        canaries = process.observer.canaries
        await asyncio.sleep(5 * EVERY)
        for region in (EU, AP):
            assert canaries[region, ""].arrived >= 5
            assert 0 < (canaries[region, ""].p99 or 0) < 3
            assert not late(canaries[region, ""])
        world.regions[AP].faults.outage = Unreachable
        await asyncio.sleep(5 * EVERY)
        assert not late(canaries[EU, ""])
        assert late(canaries[AP, ""])
        assert not canaries[AP, ""].is_unwritten(asyncio.get_running_loop().time())
        assert canaries[AP, ""].why
        world.regions[AP].faults.outage = None
        await until(lambda: not late(canaries[AP, ""]), within=2 * EVERY)
        assert canaries[AP, ""].arrived > 5


async def test_what_a_stream_silently_does_not_deliver_is_stuck_and_not_idle() -> None:
    world = World()
    async with world.process(orders()) as process:
        await until(lambda: len(process.observer.canaries) == 2)
        world.put("a", 1)
        await until(world.same)
        world.streams.add_shard(world.ref, ShardId("s1"))  # the source writes on where nothing reads
        world.streams.hide(world.ref, ShardId("s1"))
        world.route_to("s1")
        await asyncio.sleep(5 * EVERY)
        assert all(late(each) for each in process.observer.canaries.values())


async def test_a_cache_has_a_lag_of_its_own_and_its_other_entries_are_left_alone() -> None:
    world = World()
    beside = target("orders", EU, cache_rule("eu_main", EU, template="order:{value}"))
    world.caches["eu_main"].entries["order:1"] = b"V:of a user"
    async with world.process(orders(beside, target("orders", AP))) as process:
        canaries = process.observer.canaries
        await until(lambda: (EU, "eu_main") in canaries and canaries[EU, "eu_main"].arrived > 2, within=5 * EVERY)
        assert world.caches["eu_main"].entries["order:1"] == b"V:of a user"
        world.caches["eu_main"].faults.outage = Unreachable
        await asyncio.sleep(5 * EVERY)
        assert late(canaries[EU, "eu_main"])
        assert not late(canaries[AP, ""])


async def test_a_cancellation_that_a_cache_loses_does_not_keep_a_worker_from_ending(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = World()
    asked = asyncio.Event()

    async def heads(keys: list[str]) -> list[bytes]:
        asked.set()
        try:
            await asyncio.sleep(1.0)
        except asyncio.CancelledError:
            return [b"" for _ in keys]  # it came together with the answer
        return [b"V:" for _ in keys]

    monkeypatch.setattr(world.caches["eu_main"], "heads", heads)
    beside = target("orders", EU, cache_rule("eu_main", EU, template="order:{value}"))
    async with world.process(orders(beside)):
        async with asyncio.timeout(5 * EVERY):
            await asked.wait()
            await asyncio.sleep(EVERY)
            asked.clear()
            await asked.wait()


async def test_of_two_workers_one_writes_and_the_other_goes_on_when_it_is_gone() -> None:
    world = World()
    first, second = world.process(orders()), world.process(orders())
    async with first, second:
        await asyncio.sleep(3 * EVERY)
        assert first.observer.canaries
        assert not second.observer.canaries
        await first.kill()
        await until(lambda: len(second.observer.canaries) == 2 and second.observer.canaries[EU, ""].arrived > 0)


async def test_no_filter_holds_it_back_no_transform_changes_it_and_other_rules_pass_it_over() -> None:
    world = World()
    narrow = orders(
        Target(orders().name, EU, ORDERS, transform=Transform(drop=frozenset({"replicator_canary"}))),
        filter=HELD_BACK,
    )
    async with world.process(narrow, rule("others", target("others", AP))) as process:
        await until(lambda: process.observer.canaries.get((EU, "")) is not None)
        await until(lambda: process.observer.canaries[EU, ""].arrived > 2, within=5 * EVERY)
        item = world.regions[EU].item(KEY)
        assert item is not None
        assert "replicator_canary" in item.attributes
        assert world.regions[AP].item(KEY) is None
        assert process.observer.canaries[EU, ""].why == ""


async def test_a_canary_that_meets_a_foreign_item_makes_no_conflict_and_a_users_item_does() -> None:
    world = World()
    for key in (KEY, key_of("a")):
        world.region.write_foreign(key, image(key.parts[0][2], "of another program"))
    async with world.process(orders(target("orders", EU))) as process:
        world.put("a", 1)
        await until(lambda: (EU, "") in process.observer.canaries and process.observer.canaries[EU, ""].arrived > 0)
        await until(lambda: bool(world.conflicts.entries(orders().name)))
        assert [entry.conflict.key for entry in world.conflicts.entries(orders().name)] == [key_of("a")]


@pytest.mark.parametrize("mode", MODES)
async def test_each_region_of_a_mesh_has_one_that_arrives_in_the_others_and_beside_them(mode: str) -> None:
    world = MeshWorld(mode)
    rules = [
        world.rule(home, cache_rule(f"{home}_main", home, template="{pk}:x"), canary=EVERY, filter=HELD_BACK)
        for home in (US, EU)
    ]
    async with world.process(*rules) as process:
        canaries = process.observer.canaries
        places = {(EU, ""), (US, ""), (US, "us_main"), (EU, "eu_main")}
        await until(lambda: len(canaries) == len(places), within=5 * EVERY)
        await until(lambda: all(canaries[place].arrived > 2 for place in places), within=8 * EVERY)
        assert not any(late(each) for each in canaries.values())
        assert world.entries() == []
        for home, other in ((US, EU), (EU, US)):
            assert world[other].item(key_of(f"{PREFIX}orders#{home}")) is not None


@pytest.mark.parametrize("kind", [JobKind.VERIFY, JobKind.REPAIR])
async def test_neither_a_comparison_nor_a_repair_sees_it(kind: JobKind) -> None:
    world = World()
    jobs = JobWorldOf(world)
    own = orders(target("orders", EU))
    async with jobs.process(own) as process:
        world.put("a", 1)
        await until(lambda: (EU, "") in process.observer.canaries and process.observer.canaries[EU, ""].arrived > 0)
        for key in (KEY, key_of("a")):
            world.region.write_foreign(key, image(key.parts[0][2], "of another program"))
        over = await ended(jobs, asked(kind, dry_run=True))
        assert await found(jobs, over.job_id) == {"a": "unstamped"}
        assert over.counts["compared"] == 1
