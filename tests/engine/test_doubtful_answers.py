"""Answers that would end a shard or skip records are believed only when the stream itself confirms them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from replicator.domain.errors import RecordsTrimmed, ReplicatorError, ShardGone
from replicator.domain.identifiers import ShardId
from replicator.domain.rules import OnGap
from replicator.domain.shards.leases import StreamRef
from replicator.domain.shards.standstill import Why
from replicator.ports.sources import RecordPage
from tests.engine.world import AP, EU, World, eu_rule, rule, target, until

S0 = ShardId("s0")


class Lying:
    """A stream that answers some reads by itself; everything else is the real one's."""

    def __init__(self, world: World, lie: Callable[[], RecordPage]) -> None:
        self._stream = world.streams
        self._lie = lie
        self.lies = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    async def read(self, iterator: str, limit: int) -> RecordPage:
        if self.lies:
            self.lies -= 1
            return self._lie()
        return await self._stream.read(iterator, limit)


def ended() -> RecordPage:
    return RecordPage((), None)


def raising(error: ReplicatorError) -> Callable[[], RecordPage]:
    def lie() -> RecordPage:
        raise error

    return lie


async def told_falsely(lie: Callable[[], RecordPage], on_gap: OnGap) -> World:
    """Tell a reader something false about an open shard in the middle of its life; the world afterwards."""
    world = World()
    lying = Lying(world, lie)
    world.streams = lying  # type: ignore[assignment]
    process = world.process(eu_rule(on_gap=on_gap))
    async with process:
        world.streams = lying._stream
        world.write("abc")
        await until(world.same)
        lying.lies = 1
        await asyncio.sleep(5)
        world.write("xyz")
        await until(world.same, within=60)
        assert world.stored() != "SHARD_END"
    return world


async def test_an_end_that_the_listing_denies_is_not_believed() -> None:
    await told_falsely(ended, OnGap.STOP)


async def test_a_shard_that_is_said_to_be_gone_and_is_listed_is_not_given_up() -> None:
    for on_gap in OnGap:
        world = await told_falsely(raising(ShardGone("The shard is gone.")), on_gap)
        assert world.registry.gaps == []


async def test_a_loss_that_the_next_look_denies_is_not_recorded() -> None:
    for on_gap in OnGap:
        world = await told_falsely(raising(RecordsTrimmed("Trimmed.")), on_gap)
        assert world.registry.gaps == []


async def test_a_rule_that_waits_behind_a_gap_goes_on_by_itself_when_the_records_are_there_again() -> None:
    world = World()
    async with world.process() as process:
        world.write("abc")
        await until(world.same)
        real = world.streams.iterator

        async def lost(stream: StreamRef, shard_id: ShardId, position: object, first: object = None) -> str:
            raise RecordsTrimmed("Trimmed.")

        world.streams.iterator = lost  # type: ignore[method-assign]
        world.streams.expire_iterators()
        await until(lambda: "orders/eu on s0" in process.observer.blocked_keys)
        world.write("xyz")
        world.streams.iterator = real  # type: ignore[method-assign]
        await until(world.same, within=120)
        assert process.observer.blocked_keys == {}


async def test_a_rule_that_the_owner_of_its_shard_does_not_know_is_told() -> None:
    world = World()
    old, new = rule("old", target("old", EU)), rule("new", target("new", AP))
    async with world.process(old):
        await until(lambda: world.owner() is not None)
        async with world.process(old, new) as second:
            await until(lambda: bool(second.observer.standing.get(world.ref)), within=90)
            (standstill,) = second.observer.standing[world.ref]
            assert (standstill.rule, standstill.why, standstill.shards) == ("new", Why.OTHER_CONFIGURATION, ("s0",))
            assert "its configuration is another" in standstill.reason
