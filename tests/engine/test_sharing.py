"""How shards are shared: a newcomer gets its part soon, in bounded steps, and then nothing moves any more."""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter
from contextlib import AsyncExitStack
from random import Random

import pytest

from replicator.domain.identifiers import RegionId, RuleName, ShardId, TableName, WorkerId
from replicator.domain.rules import Rule, Target
from replicator.domain.shards.leases import StreamRef
from replicator.engine.limits import Limits
from replicator.engine.ownership.sources import Source
from tests.engine.world import EU, US, Process, World, slow, until

MOVES = Limits().moves_per_cycle
STREAMS = 24


class Moves:
    """What changes hands: how much in all, and how much lies between two workers at a time."""

    def __init__(self, world: World, *refs: StreamRef) -> None:
        self._world = world
        self._refs = refs or (world.ref,)
        self._former: dict[tuple[str, ShardId], WorkerId] = {}
        self.moved = self.most_lying = 0

    def owners(self) -> dict[tuple[str, ShardId], WorkerId | None]:
        """Who owns what is not read to its end."""
        return {
            (ref.arn, shard_id): row.owner
            for ref in self._refs
            for shard_id, row in self._world.coordination.rows(ref).items()
            if "SHARD_END" not in {position.text for position in row.checkpoints.values()}
        }

    def shares(self) -> list[int]:
        return sorted(Counter(owner for owner in self.owners().values() if owner is not None).values())

    async def watch(self, seconds: float) -> None:
        """Look at the rows for a while."""
        for _ in range(int(seconds / 0.05)):
            owners = self.owners()
            self.most_lying = max(self.most_lying, sum(each in self._former for each, who in owners.items() if not who))
            for each, owner in owners.items():
                if owner is not None:
                    self.moved += self._former.get(each, owner) != owner
                    self._former[each] = owner
            await asyncio.sleep(0.05)


def process_of(world: World, tables: int) -> tuple[Process, list[StreamRef]]:
    """A process that reads many tables of one shard each."""
    names = [TableName(f"t{number:02}") for number in range(tables)]
    rules = [Rule(RuleName(name), US, name, (Target(RuleName(name), RegionId(EU), name),)) for name in names]
    process = world.process(*rules)
    (source,) = process.sources.now
    process.sources.put([Source(US, each.table, (each,), source.ports, source.succession) for each in rules])
    return process, [StreamRef(US, name, f"arn:stream/{name}", 1_000_000_000_000) for name in names]


@pytest.mark.parametrize(
    "workers", [2, pytest.param(3, marks=pytest.mark.long), pytest.param(5, marks=pytest.mark.long)]
)
async def test_many_streams_of_one_shard_are_shared_in_bounded_steps_with_workers_that_join(workers: int) -> None:
    world = World()
    first, refs = process_of(world, STREAMS)
    for ref in refs:
        world.streams.enable(ref)
        world.streams.add_shard(ref, ShardId("s0"))
    moves = Moves(world, *refs)
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(first)
        await moves.watch(20)
        assert moves.shares() == [STREAMS]
        for number in range(2, workers + 1):
            await stack.enter_async_context(process_of(world, STREAMS)[0])
            moves.moved = moves.most_lying = 0
            await moves.watch(40)
            assert moves.shares() == sorted(len(range(place, STREAMS, number)) for place in range(number))
            assert STREAMS // number <= moves.moved <= STREAMS // number + number
            assert moves.most_lying <= MOVES * (number - 1)
        moves.moved = 0
        await moves.watch(30)
        assert moves.moved == 0


async def test_a_newcomer_has_its_share_within_seconds_though_shards_split_merge_and_roll() -> None:
    world = World(*(f"s{number:04}" for number in range(64)))
    slow(world.coordination.faults, 0.1)
    names, dice = (f"t{number:05}" for number in itertools.count()), Random(1)

    def reshard() -> None:
        shards = world.streams._shards[world.ref.arn].items()
        one, other = dice.sample(sorted(shard_id for shard_id, shard in shards if not shard.closed), 2)
        if dice.random() < 1 / 3:
            world.merge([one, other], next(names))
        else:
            world.roll(one, *itertools.islice(names, dice.choice([1, 2])))

    async def keep_resharding() -> None:
        while True:
            reshard()
            await asyncio.sleep(1)

    moves = Moves(world)
    async with world.process():
        resharding = asyncio.create_task(keep_resharding())
        await moves.watch(60)
        moves.moved = moves.most_lying = 0
        async with world.process():
            await moves.watch(6)
            assert len(moves.shares()) == 2
            assert moves.shares()[0] >= 29, "nothing goes back to the worker that read its parent"
            assert moves.moved <= 36
            assert moves.most_lying <= MOVES
        resharding.cancel()


async def test_the_last_shards_of_a_disabled_stream_count_for_nobodys_share() -> None:
    world = World(*(f"s{number}" for number in range(30)))
    async with world.process() as first, world.process() as second:
        await until(lambda: Moves(world).shares() == [15, 15])
        await asyncio.sleep(10)
        for number in range(30):
            if str(world.owner(f"s{number}")).startswith("p2"):
                world.roll(f"s{number}")
        await asyncio.sleep(30)
        assert Moves(world).shares() == [15], "their children may still come"
        await until(lambda: Moves(world).shares() == [7, 8])
        assert first.observer.faults == second.observer.faults == []
