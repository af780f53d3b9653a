"""One shard under one lease in a small world: the real worker of a shard, without anybody who plans."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable
from typing import Self

from replicator.domain.errors import ShardGone
from replicator.domain.identifiers import SequenceNumber, ShardId, WorkerId
from replicator.domain.pacing import Pace
from replicator.domain.rules import Rule, Target
from replicator.domain.shards.leases import Lease, LeaseRow
from replicator.domain.shards.lineage import Shard, merged
from replicator.domain.values import replace
from replicator.engine.applying.cache_batcher import CacheFunnel
from replicator.engine.applying.context import TargetPorts
from replicator.engine.applying.event_funnel import EventFunnel
from replicator.engine.applying.paced_region import PacedRegion
from replicator.engine.limits import Limits
from replicator.engine.mapped_tables import as_mapped
from replicator.engine.membership.session import Session, ShardFence
from replicator.engine.reading.memory_budget import ByteBudget
from replicator.engine.shard.ports import ShardPorts
from replicator.engine.shard.worker import ShardWorker
from tests.engine.world import LoopClock, Recorder, World, eu_rule

S0 = ShardId("s0")
_WORKERS = itertools.count(1)


class ListingEnds:
    """Asks the stream's listing about ends, and the rows about shards, each time."""

    def __init__(self, world: World) -> None:
        self._world = world

    async def is_over(self, shard_id: ShardId) -> bool:
        graph: dict[ShardId, Shard] = {}
        last: ShardId | None = None
        while True:
            try:
                page = await self._world.streams.shard_page(self._world.ref, last)
            except ShardGone:
                return True
            graph = merged(graph, page.shards)
            last = page.last
            if last is None:
                return shard_id not in graph or graph[shard_id].closed

    def known(self, shard_id: ShardId) -> bool:
        return self._world.coordination.row(self._world.ref, shard_id) is not None


def first_of(world: World, shard: str, number: int | None = None) -> None:
    """Let a stream tell where a shard starts, as DynamoDB does from the shard's birth on."""
    world.streams._shards[world.ref.arn][ShardId(shard)].first = SequenceNumber(str(number or 1))


def of_rule(name: str) -> Callable[[Target], bool]:
    """What tells the targets of a rule."""
    return lambda target: target.rule == name


class ShardBench:
    """A worker of one shard; it claims the row, which is found at `found_at`, when it starts."""

    def __init__(
        self,
        world: World,
        *rules: Rule,
        shard: str = "s0",
        limits: Limits | None = None,
        found_at: float = 0.0,
        budget: ByteBudget | None = None,
        parents: tuple[str, ...] = (),
    ) -> None:
        self.world, self.rules, self.shard = world, rules or (eu_rule(),), ShardId(shard)
        self.limits = limits or Limits()
        self.found_at = found_at
        self.parents = tuple(map(ShardId, parents))
        self.budget = budget or ByteBudget(self.limits.in_flight_bytes)
        self.shares_budget = False
        """Whether another bench may hold bytes of it when this one ends."""
        self.clock, self.observer, self.stop = LoopClock(), Recorder(), asyncio.Event()
        self.woken = 0
        self.worker: ShardWorker
        self.task: asyncio.Task[None]

    def ports(self) -> ShardPorts:
        world = self.world
        funnels = {cache: CacheFunnel(port) for cache, port in world.caches.items()}
        return ShardPorts(
            stream=world.streams,
            coordination=world.coordination,
            registry=world.registry,
            targets={
                place.target_id: TargetPorts(
                    None if place.table is None else self._paced(place),
                    funnels,
                    world.conflicts,
                    parking=world.parking(place, self.clock.servers, self.observer),
                    events=None if place.sink is None else EventFunnel(world.sink),
                    source=world.source,
                )
                for each in self.rules
                for place in each.targets
            },
            clock=self.clock,
            servers=self.clock.servers,
            observer=self.observer,
            budget=self.budget,
        )

    def _paced(self, place: Target) -> PacedRegion:
        region = as_mapped(self.world.regions[place.region], place.keys)
        return PacedRegion(region, Pace(self.limits.concurrency, 0.0), self.clock)

    async def start(self) -> Self:
        world = self.world
        row = world.coordination.row(world.ref, self.shard)
        if row is None:
            held = world.streams._shards[world.ref.arn].get(self.shard)
            shard = Shard(self.shard, self.parents) if held is None else replace(held.listed(), parents=self.parents)
            row = LeaseRow(shard, found_at=self.found_at)
            world.coordination.put(world.ref, row)
        me = WorkerId(f"bench-{next(_WORKERS)}")
        taken = await world.coordination.claim(world.ref, row, me)
        assert taken is not None
        session = Session(me, self.clock, lease_seconds=1e9)
        session.extend(self.clock.monotonic())
        self.fence = ShardFence(session)
        self.worker = ShardWorker(
            Lease(world.ref, self.shard, me, taken.epoch),
            taken,
            self.ports(),
            self.fence,
            limits=self.limits,
            stop=self.stop,
            wake=self._wake,
            ends=ListingEnds(world),
        )
        self.worker.offer(list(self.rules))
        self.task = asyncio.get_running_loop().create_task(self.worker.run(), name=f"bench {self.shard}")
        return self

    def _wake(self) -> None:
        self.woken += 1

    async def drain(self, within: float = 60.0) -> float:
        """Stop, and wait for the end; returns how long it took."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        self.stop.set()
        async with asyncio.timeout(within):
            await self.task
        return loop.time() - began

    async def kill(self) -> None:
        """End at once: nothing is stored or released."""
        self.task.cancel()
        await asyncio.wait([self.task])

    async def __aenter__(self) -> Self:
        return await self.start()

    async def __aexit__(self, *_: object) -> None:
        if not self.task.done():
            await self.kill()
        if not self.shares_budget:
            assert self.budget.used == 0, "what ended holds no bytes"
