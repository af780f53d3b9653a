"""The gate in front of a target: nothing is sent while it is closed, and a table in doubt closes it."""

from __future__ import annotations

import asyncio

import pytest

from replicator.domain.errors import (
    AccessRefused,
    ReplicatorError,
    SchemaMismatch,
    TableMissing,
    TableReplaced,
    Throttled,
    Unreachable,
)
from replicator.domain.held import HeldId
from replicator.domain.identifiers import RuleName, TableName
from replicator.domain.modes.requests import GetItem
from replicator.domain.pacing import Pace
from replicator.domain.targets import mesh_id
from replicator.engine.applying.gate import Gate, Gates
from replicator.engine.applying.paced_region import PacedRegion
from replicator.engine.waiting import Stopped, found
from replicator.ports.targets import OPEN
from tests.engine.test_apply import Bench
from tests.engine.world import EU, US, LoopClock, World, key_of, until

REPLACED = TableReplaced("Table orders in eu is another one.")


def gate_of(gates: Gates) -> Gate:
    return gates.of(HeldId(RuleName("orders"), TableName("orders")))


async def test_nothing_is_sent_to_a_target_that_is_held_and_all_of_it_once_it_is_let_go() -> None:
    world = World()
    world.write("abc")
    gate = Gate()
    gate.close(REPLACED)
    bench = Bench(world, gate=gate)
    applying = asyncio.create_task(bench.apply())
    await until(lambda: bench.observer.blocked_keys != {})
    await asyncio.sleep(600)
    assert (world.region.sent, bench.moved) == ([], [])
    assert REPLACED.message in bench.observer.of("blocked")[0][2]
    gate.open()
    await applying
    assert world.same()
    assert (bench.moved[-1], bench.observer.blocked_keys) == ("3", {})


async def test_a_target_that_is_held_when_the_program_stops_is_left_where_it_stands() -> None:
    world = World()
    world.write("ab")
    gate = Gate()
    gate.close(REPLACED)
    bench = Bench(world, gate=gate)
    applying = asyncio.create_task(bench.apply())
    await until(lambda: bench.observer.blocked_keys != {})
    bench.stop.set()
    with pytest.raises((Stopped, ExceptionGroup)) as ended:
        await applying
    assert found(ended.value, Stopped)
    assert (world.region.sent, bench.moved) == ([], [])


@pytest.mark.parametrize("outage", [TableMissing, SchemaMismatch])
async def test_a_table_that_is_missing_is_written_again_only_after_it_was_looked_at(
    outage: type[ReplicatorError],
) -> None:
    world, gates = World(), Gates()
    world.write("abc")
    bench = Bench(world, gate=gate_of(gates))
    world.region.faults.outage = outage
    applying = asyncio.create_task(bench.apply())
    await asyncio.wait_for(gates.doubted.wait(), 60)
    struck = world.region.faults.struck
    world.region.faults.outage = None  # the table is back, and may be another one
    await asyncio.sleep(600)
    assert (world.region.faults.struck, world.holds()) == (struck, {})
    gate_of(gates).open()
    await applying
    assert world.same()


@pytest.mark.parametrize("outage", [AccessRefused, Throttled, Unreachable])
async def test_what_says_nothing_about_the_table_closes_no_gate(outage: type[ReplicatorError]) -> None:
    world, gates = World(), Gates()
    world.put("a", 1)
    bench = Bench(world, gate=gate_of(gates))
    world.region.faults.outage = outage
    applying = asyncio.create_task(bench.apply())
    await until(lambda: world.region.faults.struck >= 3)
    assert (gate_of(gates).error, gates.doubted.is_set()) == (None, False)
    world.region.faults.outage = None
    await applying
    assert world.same()


async def test_a_region_of_a_mesh_does_not_answer_while_its_gate_is_closed() -> None:
    world, gates = World(), Gates()
    gate = gate_of(gates)
    region = PacedRegion(world.region, Pace(4, 0.0), LoopClock(), gate=gate)
    request = GetItem(key_of("a"))
    await region.execute(request, OPEN)
    gate.close(REPLACED)
    refusals = []
    for _ in range(2):
        with pytest.raises(TableReplaced) as refused:
            await region.execute(request, OPEN)
        refusals.append(refused.value)
    assert refusals[0].sentence == refusals[1].sentence == REPLACED.sentence
    assert refusals[0] is not refusals[1]
    gate.open()
    world.region.faults.outage = TableMissing
    with pytest.raises(TableMissing):
        await region.execute(request, OPEN)
    assert (gate.error is not None, gates.doubted.is_set()) == (True, True)
    struck = world.region.faults.struck
    with pytest.raises(TableMissing):
        await region.execute(request, OPEN)
    assert world.region.faults.struck == struck


def test_a_mesh_is_not_doubted_as_a_whole() -> None:
    gates = Gates()
    mesh = mesh_id(RuleName("orders"), [(US, TableName("orders")), (EU, TableName("orders"))])
    gate = gates.of(HeldId(RuleName("orders"), TableName("orders"), mesh))
    gate.doubt(TableMissing("It is not there."))
    assert (gate.error, gate.refusal(), gates.doubted.is_set()) == (None, None, False)
