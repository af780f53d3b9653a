"""Rows about worlds that change under a rule: what must not be written, or read, as if nothing had happened."""

from __future__ import annotations

import asyncio

from replicator.domain.errors import TableMissing
from replicator.domain.held import HeldId
from replicator.engine.applying.gate import Gates
from tests.engine.test_coordinator import replace_stream
from tests.engine.world import AP, World, eu_rule, rule, target
from tests.production.guarantee import eventually, require

COPIES = rule("copies", target("copies", AP))


async def replica_created_anew() -> None:
    """A replica that was missing for a moment may be another one by now: it is looked at before it is written."""
    world, gates = World(), Gates()
    orders = eu_rule()
    (to_eu,) = orders.targets
    gate = gates.of(HeldId(orders.name, orders.table, to_eu.target_id))
    async with world.process(orders, COPIES, gates=gates):
        world.write("ab")
        await eventually(lambda: world.same() and world.same(AP), "everything arrives")
        world.region.faults.outage = TableMissing
        world.region.slots.clear()
        world.put("c", 1)
        await eventually(gates.doubted.is_set, "a missing table is looked at at once")
        world.region.faults.outage = None
        await eventually(lambda: world.same(AP), "a table that is missing holds no other target")
        await asyncio.sleep(120)
        require(not world.holds(), "a table that came back is not written before it was looked at")
        gate.open()
        await eventually(lambda: "c" in world.holds(), "what was written meanwhile arrives")


async def stream_that_shows_too_little() -> None:
    """A new stream without images is not read: nothing in it can be applied, and nothing of it is a record's fault."""
    world = World()
    async with world.process() as process:
        world.put("a", 0)
        await eventually(world.same, "everything arrives")
        replace_stream(world)
        world.streams.without_images.add(world.ref.arn)
        world.put("b", 1)
        await asyncio.sleep(200)
        require(set(world.holds()) == {"a"}, "records that show too little are not applied")
        require(process.observer.troubles, "a stream that cannot be used is reported")
        replace_stream(world, 3, "n1")
        world.put("c", 2)
        await eventually(lambda: "c" in world.holds(), "the rule goes on with a stream that can be used", within=300)
        require([gap.shard_id for gap in world.registry.gaps] == ["every shard"], "what lies between is a gap")
