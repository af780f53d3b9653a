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
from replicator.engine.applying.gate import Gate, Gates
from replicator.engine.waiting import Stopped, found
from tests.engine.test_apply import Bench
from tests.engine.world import World, until

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
