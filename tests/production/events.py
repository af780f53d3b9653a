"""Events of changes: calls that take some of their entries, answers that are lost, and events that are refused."""

from __future__ import annotations

import asyncio

import msgspec

from replicator.domain.errors import Unreachable
from replicator.domain.rules import OnRefusal, Rule, Target
from replicator.laboratory.memory import Faults
from tests.engine.shard_bench import ShardBench
from tests.engine.world import US, World, eu_rule, hold, rule
from tests.production.guarantee import eventually, require

EVENTS = Target(eu_rule().name, US, None, sink="sqs:orders")
KEYS, ROUNDS, LIVES = ("k0", "k1", "k2"), 14, 3


def event_rule() -> Rule:
    return rule("orders", EVENTS, refused=OnRefusal.PARK)


def histories(world: World) -> dict[str, list[int]]:
    """The number of each key's changes in the order in which they first came to the sink."""
    found: dict[str, dict[int, None]] = {}
    for event in world.sink.taken:
        key = msgspec.json.decode(event.data)["key"]["pk"]
        found.setdefault(key, {})[int(event.id.rpartition("/")[2])] = None
    return {key: list(numbers) for key, numbers in found.items()}


def taken(world: World) -> int:
    return sum(map(len, histories(world).values()))


def stored(world: World) -> str | None:
    return world.stored(target_id=EVENTS.target_id)


async def partial_failures() -> None:
    """A service that takes some entries of a call and not others, and whose answers are lost; the worker is killed."""
    world = World()
    world.sink.entries = Faults(7, before=0.25, after=0.1, throttle=0.1)
    for value in range(ROUNDS):
        world.write(KEYS, value)
    for life in range(LIVES):
        bench = ShardBench(world, event_rule())
        await bench.start()
        await eventually(lambda: taken(world) >= 10 * (life + 1), "events go on")  # noqa: B023 - awaited at once
        await bench.kill()
    async with ShardBench(world, event_rule()):
        await eventually(lambda: stored(world) == str(len(KEYS) * ROUNDS), "every event is sent")
    wanted = {key: list(range(n + 1, len(KEYS) * ROUNDS + 1, len(KEYS))) for n, key in enumerate(KEYS)}
    found = histories(world)
    require({key: sorted(found.get(key, [])) for key in KEYS} == wanted, "no change of a key is left out")
    require(found == wanted, "a key's events first come in the order of its changes")


async def refused_event() -> None:
    """An event that the service refuses, and a kill between its row and the position; the next ones are taken."""
    world = World()
    world.write(["big"])
    async with ShardBench(world, event_rule()) as bench:
        await eventually(lambda: taken(world) == 1, "events go on")
        world.sink.poisoned = {world.sink.taken[0].partition_key}
        hold(world.owed.faults, "put_owed")
        world.write(["big"], 1)
        await asyncio.sleep(5)
        require(stored(world) == "1", "no position passes a refused event whose row is not durable")
        await bench.kill()
    world.owed.faults.pause = None
    async with ShardBench(world, event_rule()):
        world.write(["big"], 2)
        await eventually(lambda: stored(world) == "3", "a refused event holds no position")
        world.sink.poisoned = set()
        world.write(["big"], 3)
        await eventually(lambda: stored(world) == "4", "a later event of the key goes on")
    require(sorted(row.sequence for row in world.owed.rows.values()) == ["2", "3"], "every refused event has a row")


async def sink_away() -> None:
    """A sink that does not answer: nothing is passed over, and the replica beside it goes on."""
    world = World()
    world.sink.faults.outage = Unreachable
    both = rule("orders", *eu_rule().targets, EVENTS, refused=OnRefusal.PARK)
    world.write(KEYS)
    async with ShardBench(world, both):
        await eventually(lambda: set(world.holds()) == set(KEYS), "a sink that is away holds no replica")
        await asyncio.sleep(30)
        require(stored(world) not in {"1", "2", "3"}, "no position passes what a sink did not take")
        world.sink.faults.outage = None
        await eventually(lambda: taken(world) == len(KEYS), "a sink that answers again is brought everything")
