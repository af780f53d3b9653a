"""What was away is level soon behind its return: few tries while it is away, and the first answer wakes everything."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractContextManager, AsyncExitStack, asynccontextmanager
from typing import Any
from unittest.mock import patch

import pytest

from replicator.domain import health
from replicator.domain.errors import ReplicatorError, Unreachable
from replicator.domain.health import Health
from replicator.domain.modes.requests import Response
from replicator.engine import waiting
from replicator.engine.limits import Limits
from replicator.engine.probing import Probing
from replicator.ports.targets import Fence
from tests.engine.shard_bench import ShardBench
from tests.engine.world import AP, EU, World, cache_rule, eu_rule, key_of, rule, target, until
from tests.seeds import first

BOTH = rule("orders", target("orders", EU), target("orders", AP))
SHARDS = tuple(f"s{number:02}" for number in range(6))
AWAY_SECONDS = 60.0
LEVEL_SECONDS = 5.0
_MOST_PAGES = 20
"""So many pages of a shard hold what came meanwhile."""


@asynccontextmanager
async def shards(world: World, *rules: object, limits: Limits | None = None) -> AsyncIterator[list[ShardBench]]:
    """A process that reads six shards: what asks the same target or stream shares ports, observer and budget."""
    benches = [ShardBench(world, *rules, shard=shard, limits=limits) for shard in SHARDS]  # type: ignore[arg-type]
    ports = benches[0].ports()
    async with AsyncExitStack() as stack:
        for bench in benches:
            bench.ports = lambda: ports  # type: ignore[method-assign]
            await stack.enter_async_context(bench)
        yield benches


async def level(world: World, *, within: float = LEVEL_SECONDS) -> float:
    """Wait until both replicas are level; returns how long that took."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    while not (world.same(EU) and world.same(AP)):
        assert loop.time() - began <= within, "it is level too late"
        await asyncio.sleep(0.01)
    return loop.time() - began


async def replica_comes_back() -> None:
    """A replica is away for minutes, and many keys of many shards wait for it."""
    world = World(*SHARDS)
    async with shards(world, BOTH) as benches:
        await asyncio.sleep(5)
        faults = world.regions[AP].faults
        faults.outage = Unreachable
        world.write([f"k{number}" for number in range(120)])
        await until(lambda: world.same(EU), within=2)
        await asyncio.sleep(30)
        struck = faults.struck
        await asyncio.sleep(AWAY_SECONDS)
        tries = faults.struck - struck
        assert AWAY_SECONDS / 2 <= tries <= AWAY_SECONDS, "one for all, at most two seconds apart"
        told = benches[0].observer.blocked_keys
        assert len(told) == len(SHARDS), "every shard says that it waits"
        faults.outage = None
        await level(world)
        await until(lambda: not benches[0].observer.blocked_keys, within=1)


async def replica_comes_back_while_tries_hang() -> None:
    """A replica hangs: what was sent before its return is never answered, and fails after ten seconds."""
    world = World(*SHARDS)
    hangs = True

    async def hang(_: str) -> None:
        if hangs:
            await asyncio.sleep(10)
            raise Unreachable("It did not answer in time.")

    async with shards(world, BOTH):
        await asyncio.sleep(5)
        world.regions[AP].faults.pause = hang
        world.write([f"k{number}" for number in range(120)])
        await asyncio.sleep(AWAY_SECONDS + 0.3)
        hangs = False
        await level(world)


async def cache_comes_back() -> None:
    """The cache beside a replica is away."""
    world = World(*SHARDS)
    cached = rule("orders", target("orders", EU), target("orders", AP, cache_rule("ap_main", AP)))
    async with shards(world, cached):
        await asyncio.sleep(5)
        world.caches["ap_main"].faults.outage = Unreachable
        world.write([f"k{number}" for number in range(120)])
        await asyncio.sleep(AWAY_SECONDS)
        assert all(world.stored(shard, "orders/ap") in {"TRIM_HORIZON", "SHARD_START"} for shard in SHARDS)
        world.caches["ap_main"].faults.outage = None
        ends = {shard: world.stored(shard) for shard in SHARDS}
        await until(lambda: {shard: world.stored(shard, "orders/ap") for shard in SHARDS} == ends, within=LEVEL_SECONDS)


async def stream_comes_back() -> None:
    """The stream answers for no shard."""
    world = World(*SHARDS)
    async with shards(world, BOTH):
        await asyncio.sleep(5)
        faults = world.streams.faults
        faults.outage = Unreachable
        world.write([f"k{number}" for number in range(120)])
        await asyncio.sleep(30)
        struck = faults.struck
        await asyncio.sleep(AWAY_SECONDS)
        assert AWAY_SECONDS / 2 <= faults.struck - struck <= AWAY_SECONDS
        faults.outage = None
        await level(world)


async def coordination_comes_back() -> None:
    """Positions cannot be stored."""
    world = World(*SHARDS)
    async with shards(world, BOTH):
        await asyncio.sleep(5)
        world.coordination.faults.outage = Unreachable
        world.write([f"k{number}" for number in range(120)])
        await asyncio.sleep(AWAY_SECONDS)
        assert world.same(AP)
        world.coordination.faults.outage = None
        ends = {shard: str(max(int(record.sequence) for record in world.records(shard))) for shard in SHARDS}
        await until(lambda: {shard: world.stored(shard) for shard in SHARDS} == ends, within=LEVEL_SECONDS)


async def registry_comes_back() -> None:
    """Targets are about to begin, and their starts cannot be read."""
    world = World(*SHARDS)
    world.registry.faults.outage = Unreachable
    world.write([f"k{number}" for number in range(120)])
    async with shards(world, BOTH):
        await asyncio.sleep(AWAY_SECONDS)
        world.registry.faults.outage = None
        await level(world)


async def pages_were_given_back() -> None:
    """What is away has given back what was read for it, because others needed the memory."""
    world = World(*SHARDS)
    limits = Limits(page_records=20, in_flight_bytes=250_000)
    async with shards(world, BOTH, limits=limits) as benches:
        await asyncio.sleep(5)
        world.regions[AP].faults.outage = Unreachable
        for number in range(20):
            world.write([f"k{number}-{each}" for each in range(40)])
            await asyncio.sleep(5)
        await until(lambda: world.same(EU))
        assert benches[0].budget.used <= 2 * limits.in_flight_bytes
        world.regions[AP].faults.outage = None
        await level(world, within=LEVEL_SECONDS + _MOST_PAGES * limits.poll_seconds)


async def memory_was_short() -> None:
    """There is memory for two pages of six shards, so what waits gives its records back again and again."""
    world = World(*SHARDS)
    world.write([f"k{number}" for number in range(120)], "x" * 500)
    world.regions[AP].faults.outage = Unreachable
    limits = Limits(page_records=10, in_flight_bytes=30_000)
    async with shards(world, rule("orders", target("orders", AP)), limits=limits):
        await asyncio.sleep(AWAY_SECONDS)
        struck = world.regions[AP].faults.struck
        await asyncio.sleep(AWAY_SECONDS)
        assert world.regions[AP].faults.struck - struck >= AWAY_SECONDS / 4, "it is tried"
        world.regions[AP].faults.outage = None
        await until(lambda: world.same(AP))


COMES_BACK: dict[str, Callable[[], Awaitable[None]]] = {
    "a replica": replica_comes_back,
    "a replica that hung": replica_comes_back_while_tries_hang,
    "a cache": cache_comes_back,
    "the stream": stream_comes_back,
    "the coordination table": coordination_comes_back,
    "the registry": registry_comes_back,
    "memory was short": memory_was_short,
    "pages were given back": pages_were_given_back,
}


@pytest.mark.parametrize("what", first(7, COMES_BACK))
async def test_what_comes_back_is_level_within_five_seconds_and_what_its_backlog_takes(what: str) -> None:
    await COMES_BACK[what]()


# -- rules, taken out --------------------------------------------------------------------------------------------------


async def _every_one(self: Probing, stop: asyncio.Event, *, told: bool, empty: bool = False) -> None:
    del self, told, empty
    await waiting.pause_or_raise(stop, 0.5)


MUTANTS: dict[str, tuple[str, Callable[[], AbstractContextManager[Any]]]] = {
    "the first answer wakes all": ("a replica", lambda: patch.object(Health, "answered", lambda *_: False)),
    "tries do not wait for one another": ("a replica that hung", lambda: patch.object(Probing, "_schedule", _once)),
    "two seconds apart": ("the coordination table", lambda: patch.object(waiting, "PROBE_SECONDS", 600.0)),
    "turns are for what has records": ("memory was short", lambda: patch.object(Probing, "turn", _empty_too)),
    "of the stream, too": ("the stream", lambda: patch.object(health, "PROBE_SECONDS", 600.0)),
    "one tries for all": ("a replica", lambda: patch.object(Probing, "turn", _every_one)),
}


_turn = Probing.turn


async def _empty_too(self: Probing, stop: asyncio.Event, *, told: bool, empty: bool = False) -> ReplicatorError | None:
    del empty
    return await _turn(self, stop, told=told)


def _once(self: Probing) -> None:
    if self._next is None and self._resting:
        self._next = asyncio.get_running_loop().call_later(12.0, self._let_one_try)


@pytest.mark.parametrize("taken_out", first(5, MUTANTS))
async def test_without_its_rules_it_is_not(taken_out: str) -> None:
    scenario, mutant = MUTANTS[taken_out]
    with mutant(), pytest.raises(AssertionError):
        await COMES_BACK[scenario]()


# -- what is not away --------------------------------------------------------------------------------------------------


async def test_a_single_key_that_gets_no_answer_keeps_no_other_waiting() -> None:
    world = World()
    real = world.region.execute

    async def execute(request: Any, fence: Fence) -> Response:
        if getattr(request, "put", request).key == key_of("stuck"):
            raise Unreachable("It got no answer.")
        return await real(request, fence)

    world.region.execute = execute  # type: ignore[method-assign]
    async with ShardBench(world, eu_rule()) as bench:
        await asyncio.sleep(5)
        world.write(["stuck", *(f"k{number}" for number in range(20))])
        await until(lambda: len(world.holds()) == 20, within=2)
        for number in range(20, 40):
            await asyncio.sleep(5)
            world.put("stuck", number)
            world.put(f"k{number}", 1)
            await until(lambda number=number: len(world.holds()) == number + 1, within=2)  # type: ignore[misc]
        assert world.stored() == "SHARD_START" or world.stored() == "TRIM_HORIZON", "no position passes it"
        assert bench.observer.blocked_keys == {"orders/eu on s0": "pk=stuck"}


async def test_a_stream_of_one_shard_is_read_soon_behind_its_return_though_every_call_before_hangs_on() -> None:
    world, loop, dark = World("s0"), asyncio.get_running_loop(), False

    async def hang(_: str) -> None:
        if dark:
            await asyncio.sleep(10)
            raise Unreachable("It did not answer in time.")

    async with world.process():
        world.put("before", 1)
        await until(world.same)
        world.streams.faults.pause = hang
        dark = True
        await asyncio.sleep(AWAY_SECONDS / 2 + 9)
        world.put("meanwhile", 1)
        dark = False
        began = loop.time()
        await until(world.same, within=60)
        assert loop.time() - began < LEVEL_SECONDS


async def test_the_first_of_several_answers_to_one_question_ends_the_others() -> None:
    asked: list[asyncio.Task[Any] | None] = []

    async def ask() -> int:
        asked.append(asyncio.current_task())
        if len(asked) < 3:
            await asyncio.sleep(60)
        return len(asked)

    assert await waiting.first_answer(ask) == 3
    assert [task.cancelled() for task in asked if task] == [True, True, False]


async def test_a_question_that_fails_is_not_asked_on() -> None:
    async def ask() -> int:
        raise Unreachable("It refuses.")

    with pytest.raises(Unreachable):
        await waiting.first_answer(ask)
