"""Source tables that come and go while a worker runs."""

from __future__ import annotations

import asyncio

from replicator.domain.errors import Unreachable
from replicator.domain.identifiers import TableName
from replicator.domain.values import replace
from replicator.engine.ownership.sources import Sources
from tests.engine.world import AP, EU, World, rule, target, until

EU_ONLY = rule("orders", target("orders", EU))
AP_TOO = rule("apart", target("apart", AP))


async def test_a_source_that_goes_is_left_in_order_and_read_on_when_it_comes_again() -> None:
    world = World("s0", "s1")
    async with world.process() as process:
        (source,) = process.sources.now
        world.write("abcdef")
        await until(world.same)
        process.sources.put([])
        await until(lambda: len(process.observer.of("lease_ended")) == 2)
        assert {why for _, why in process.observer.of("lease_ended")} == {"stopped"}
        assert [world.owner(shard) for shard in ("s0", "s1")] == [None, None]
        world.write("abcdef", 1)
        await asyncio.sleep(60)
        assert not world.same()
        process.sources.put([source])
        await until(world.same)
        assert len(process.observer.of("session_began")) == 1
        assert sum(report.records for report in process.observer.reports) == 12


async def test_a_worker_without_sources_waits_and_stops() -> None:
    world = World()
    async with world.process() as process:
        (source,) = process.sources.now
        process.sources.put([])
        await asyncio.sleep(600)
        assert process.observer.of("lease_claimed") == process.observer.of("lease_ended") == []
        process.sources.put([source])
        world.write("abc")
        await until(world.same)
        process.sources.put([])
        await until(lambda: bool(process.observer.of("lease_ended")))
        await process.drain()
        assert await world.membership.members() == {}


async def test_a_source_with_another_rule_is_begun_again_where_each_rule_stood() -> None:
    world = World()
    async with world.process(EU_ONLY, AP_TOO) as process:
        (both,) = process.sources.now
        world.write("abc")
        await until(lambda: world.same(EU) and world.same(AP))
        process.sources.put([replace(both, rules=(EU_ONLY,))])
        world.write("abc", 1)
        await until(world.same)
        await asyncio.sleep(30)
        assert not world.same(AP)
        process.sources.put([both])
        await until(lambda: world.same(AP))
        applied = [report.records for report in process.observer.reports if report.place.target.region == EU]
        assert sum(applied) == 6


async def test_a_source_that_stays_is_left_alone_when_others_change() -> None:
    world = World()
    async with world.process() as process:
        (source,) = process.sources.now
        await until(lambda: bool(process.observer.of("lease_claimed")))
        process.sources.put([source])
        elsewhere = replace(source, table=TableName("nothing-there"))
        process.sources.put([source, elsewhere])
        await until(lambda: "stream of nothing-there in us" in process.observer.troubles)
        process.sources.put([source])
        world.write("abc")
        await until(world.same)
        assert process.observer.of("lease_ended") == []
        assert len(process.observer.of("lease_claimed")) == 1


async def test_sources_that_changed_during_an_outage_are_read_behind_it() -> None:
    world = World()
    async with world.process() as process:
        (source,) = process.sources.now
        await until(lambda: bool(process.observer.of("lease_claimed")))
        world.membership.faults.outage = Unreachable
        await asyncio.sleep(30)
        process.sources.put([])
        process.sources.put([source])
        await asyncio.sleep(30)
        world.membership.faults.outage = None
        world.write("abc")
        await until(world.same)
        assert len(process.observer.of("session_began")) == 2


async def test_only_another_list_of_sources_is_a_change() -> None:
    world = World()
    process = world.process()
    (source,) = process.sources.now
    sources = Sources([source])
    changed = sources.changed
    sources.put([source])
    assert not changed.is_set()
    sources.put([replace(source)])
    assert changed.is_set()
    assert not sources.changed.is_set()
