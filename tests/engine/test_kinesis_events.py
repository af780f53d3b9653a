"""Events of a source that repeats changes and keeps no order: each once, per key in order within the bound."""

from __future__ import annotations

import asyncio
from random import Random
from typing import Any

import pytest
from msgspec import structs

from replicator.domain.errors import Unreachable
from replicator.domain.identifiers import SequenceNumber, ShardId
from replicator.domain.item_events import change_id
from replicator.domain.records import ChangeRecord
from replicator.domain.rules import KinesisSource, OnRefusal, Rule, Target
from replicator.engine.limits import Limits
from tests.engine.shard_bench import ShardBench
from tests.engine.world import US, World, eu_rule, rule, until

REORDER = 2.0
STEP = 0.1
KINESIS = KinesisSource("changes", reorder_seconds=REORDER)
EVENTS = Target(eu_rule().name, US, None, sink="kinesis:out")
_MICROS = 1_000_000


def event_rule(**choices: Any) -> Rule:
    return rule("orders", EVENTS, **({"refused": OnRefusal.PARK, "stream": KINESIS} | choices))


def made(world: World, count: int, dice: Random, *, ago: float = 0.0) -> list[ChangeRecord]:
    """Changes of three keys, a tenth of a second apart, as DynamoDB writes them down."""
    began = world.now() - ago
    for number in range(count):
        name = dice.choice("abc")
        if dice.random() < 0.2 and name in world.truth():
            world.delete(name)
        else:
            world.put(name, number)
    records = list(world.records())
    return [
        structs.replace(record, created_at=at, micros=round(at * _MICROS), event_id=f"e{number}")
        for number, record in enumerate(records)
        for at in [round(began + number * STEP, 6)]
    ]


def arriving(records: list[ChangeRecord], dice: Random, within: float) -> list[tuple[float, ChangeRecord]]:
    """When each comes, each later by up to `within`, and a fifth of them twice."""
    twice = dice.choices(records, k=len(records) // 5)
    arrivals = sorted(((record.created_at + dice.uniform(0, within), record) for record in [*records, *twice]), key=_at)
    return [
        (at, structs.replace(record, sequence=SequenceNumber(str(4 * 10**55 + place))))
        for place, (at, record) in enumerate(arrivals)
    ]


def _at(arrival: tuple[float, ChangeRecord]) -> float:
    return arrival[0]


def shard(world: World) -> list[ChangeRecord]:
    return world.streams._shards[world.ref.arn][ShardId("s0")].records


def taken(world: World) -> list[str]:
    return [event.id.rpartition("/")[2] for event in world.sink.taken]


def by_key(world: World) -> dict[str, list[float]]:
    found: dict[str, list[float]] = {}
    for event in world.sink.taken:
        found.setdefault(event.partition_key, []).append(event.time)
    return found


def ordered_once(world: World) -> bool:
    return all(times == sorted(set(times)) for times in by_key(world).values())


def late(bench: ShardBench) -> int:
    return sum(report.late for report in bench.observer.reports)


@pytest.mark.parametrize("seed", range(5))
async def test_a_backlog_is_sent_in_order_and_each_change_once(seed: int) -> None:
    world, dice = World(), Random(seed)
    records = made(world, 120, dice, ago=1000)
    shard(world)[:] = [record for _, record in arriving(records, dice, REORDER)]
    async with ShardBench(world, event_rule(), limits=Limits(page_records=11)) as bench:
        await until(lambda: world.stored(target_id=EVENTS.target_id) == shard(world)[-1].sequence, within=600)
        assert sorted(taken(world)) == sorted(record.event_id for record in records)
        assert ordered_once(world)
        assert late(bench) == 0
        await bench.drain()


@pytest.mark.parametrize(("seed", "reorder"), [(0, REORDER), (1, REORDER), (2, 7.0)])
async def test_what_comes_while_it_is_read_is_held_back_as_long_as_something_older_may_come(
    seed: int, reorder: float
) -> None:
    world, dice = World(), Random(seed)
    records = made(world, 80, dice)
    shard(world).clear()
    world.sink.faults.outage = Unreachable if seed == 1 else None
    source = KinesisSource("changes", reorder_seconds=reorder)
    async with ShardBench(world, event_rule(stream=source)) as bench:
        for at, record in arriving(records, dice, reorder):
            await asyncio.sleep(max(0.0, at - world.now()))
            world.streams.append(world.ref, ShardId("s0"), [record])
        world.sink.faults.outage = None
        await until(lambda: len(taken(world)) == len(records))
        await asyncio.sleep(10)
        assert sorted(taken(world)) == sorted(record.event_id for record in records)
        assert ordered_once(world)
        assert late(bench) == 0
        await bench.drain()


async def test_what_comes_later_than_the_bound_is_sent_all_the_same_and_counted() -> None:
    world = World()
    first, second = made(world, 60, Random(1))[:2]
    second = structs.replace(second, key=first.key)
    shard(world)[:] = [structs.replace(second, sequence=SequenceNumber("100"))]
    async with ShardBench(world, event_rule()) as bench:
        await until(lambda: taken(world) == ["e1"])
        world.streams.append(world.ref, ShardId("s0"), [structs.replace(first, sequence=SequenceNumber("101"))])
        await until(lambda: taken(world) == ["e1", "e0"])
        await until(lambda: late(bench) == 1)
        await bench.drain()


async def test_a_repeated_change_has_one_id_though_the_process_died_in_between() -> None:
    world = World()
    (record,) = made(world, 1, Random(1))
    shard(world)[:] = [structs.replace(record, sequence=SequenceNumber("100"))]
    async with ShardBench(world, event_rule()):
        await until(lambda: taken(world) == ["e0"])
    world.streams.append(world.ref, ShardId("s0"), [structs.replace(record, sequence=SequenceNumber("200"))])
    async with ShardBench(world, event_rule()):
        await until(lambda: len(taken(world)) == 2)
    nameless = structs.replace(record, event_id="", sequence=SequenceNumber("300"))
    repeated = structs.replace(nameless, sequence=SequenceNumber("400"))
    assert change_id(nameless) == change_id(repeated) != change_id(structs.replace(nameless, micros=1))
    assert len({(event.id, event.digest, event.cloud_event) for event in world.sink.taken}) == 1
