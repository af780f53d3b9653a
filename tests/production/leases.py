"""Rows about who reads a shard: zombies, hand-offs, workers that only look alive, what leases cost."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from replicator.domain.identifiers import ShardId, WorkerId
from replicator.domain.modes.requests import Request, Response
from replicator.domain.values import replace
from replicator.engine.limits import Limits
from replicator.laboratory.memory import MemoryRegion, OpenFence
from replicator.observability.metrics import Metrics
from replicator.observability.observer import LiveObserver
from replicator.observability.readiness import unready
from replicator.observability.status_board import Board
from replicator.ports.targets import Fence
from tests.engine.world import AP, Process, World, eu_rule, hold, id_of, key_of, rule, target
from tests.production.guarantee import eventually, require
from tests.production.reading import S0

# -- 11, 20: what comes too late -------------------------------------------------------------------------------------


class Wire:
    """A replica's connection; while `stuck`, requests that left the fence behind lie on it and have no answer."""

    def __init__(self, region: MemoryRegion) -> None:
        self._region = region
        self.stuck = False
        self.late: list[Request] = []

    async def execute(self, request: Request, fence: Fence) -> Response:
        if self.stuck:
            fence.check()
            self.late.append(request)
            await asyncio.Event().wait()
        return await self._region.execute(request, fence)

    async def arrive(self) -> None:
        """Let everything that lies on the wire reach the replica."""
        for request in self.late:
            await self._region.execute(request, OpenFence())


async def zombies() -> None:
    """A worker that slept beyond its lease; one whose lease went to another; requests of one that is dead."""
    world = World()
    async with world.process() as process:
        await eventually(lambda: world.stored() is not None, "the shard is begun")
        world.write("abc")
        await eventually(world.same, "records are applied")
        process.suspend(60)
        world.write("def")
        await asyncio.sleep(5)
        require(set(world.holds()) == set("abc"), "nothing is sent behind the deadline of the lease")
        await eventually(world.same, "the shard is read on under another lease")
        await eventually(lambda: world.stored() == "6", "its progress is stored")
        taken = await world.coordination.claim(world.ref, world.row(), WorkerId("other"))
        require(taken is not None, "whoever is faster gets a shard")
        world.write("abc", 1)
        await asyncio.sleep(2)
        require(world.stored() == "6", "no checkpoint is stored under an epoch that has passed")
        sent = len(world.region.sent)
        world.write("abc", 2)
        await asyncio.sleep(2)
        require(len(world.region.sent) == sent, "a refused checkpoint ends the work on the shard")
        require(process.observer.faults == [], "a lost lease is no fault")
    world = World()
    async with _survived_by_its_requests(world) as wire:
        world.put("a", 2)
        await eventually(world.same, "another worker goes on")
        await wire.arrive()
        require(world.same(), "no write of a zombie lands over a newer one")


@asynccontextmanager
async def _survived_by_its_requests(world: World) -> AsyncIterator[Wire]:
    """A worker died while its put of `a` lay on the wire; another one works."""
    wires: list[Wire] = []

    def wired(region: MemoryRegion) -> Wire:
        wires.append(Wire(region))
        return wires[-1]

    dying = world.process(wire_to=wired).start()
    await eventually(lambda: world.stored() is not None, "the shard is begun")
    (wire,) = wires
    wire.stuck = True
    world.put("a", 1)
    await eventually(lambda: bool(wire.late), "the write is sent")
    await dying.kill()
    async with world.process(limits=Limits(page_records=1)):
        await eventually(world.same, "another worker takes over")
        yield wire


async def deletes_that_stay() -> None:
    """An older put arrives behind a delete: from a dead worker's wire, and in a replay from the very beginning."""
    world = World()
    async with _survived_by_its_requests(world) as wire:
        world.delete("a")
        await eventually(world.same, "the delete is applied")
        await wire.arrive()
        require(world.same(), "a put that comes late does not bring an item back")
        world.coordination.rewind(world.ref, S0, {id_of("orders/eu"): None}, {})
        await eventually(lambda: world.stored() is None, "an operator rewinds the shard")
        for _ in range(400):
            await asyncio.sleep(0.05)
            require(world.holds() == {}, "a replay brings no item back, not even for a moment")
        require(world.stored() == "2", "everything was read again")


# -- 12, 14: hand-offs -----------------------------------------------------------------------------------------------


async def _readers(world: World, *processes: Process) -> dict[str, int]:
    """By how many of these processes each shard is polled within a while."""
    before = [len(process.observer.told) for process in processes]
    await asyncio.sleep(4)
    polled = Counter[str]()
    for start, process in zip(before, processes, strict=True):
        polled.update({event[1] for event in process.observer.told[start:] if event[0] == "polled"})
    return {shard: polled[shard] for shard in world.streams._shards[world.ref.arn]}


def _owners(world: World) -> set[str | None]:
    """The processes that own shards; None when a shard has no owner."""
    rows = world.coordination.rows(world.ref).values()
    return {None if row.owner is None else row.owner.partition(".")[0] for row in rows}


async def hand_offs() -> None:
    """Workers join, stop and die, an operator takes an idle shard away, and a write is never answered."""
    world = World(*(f"s{number}" for number in range(12)))
    limits = Limits(stall_seconds=20)
    first, second, third = (world.process(limits=limits) for _ in range(3))
    async with first, second, third:
        await asyncio.sleep(25)
        require(set((await _readers(world, first, second, third)).values()) == {1}, "a shard has one reader")
        await third.drain()
        await eventually(lambda: _owners(world) == {"p1", "p2"}, "what is handed over is taken at once", within=2)
        mine = next(name for name in (f"s{number}" for number in range(12)) if world.owner(name) == "p1.1")
        world.coordination.evict(world.ref, ShardId(mine))
        await asyncio.sleep(15)
        require(set((await _readers(world, first, second)).values()) == {1}, "no shard has two owners, or none")
        await first.kill()
        await eventually(lambda: _owners(world) == {"p2"}, "a dead worker's shards are taken over", within=15)
        hold(world.region.faults, "GuardedPut")
        world.put("a", 1)
        await eventually(lambda: second.observer.of("stalled"), "a standstill is reported", within=40)
        shard, name, reason, remedy = second.observer.of("stalled")[0]
        told = (shard, name) == (world.shard_of(key_of("a")), "orders/eu") and reason and remedy
        require(told, "a standstill names shard, target, reason and remedy")


async def moves() -> None:
    """A second worker joins; then a lease is robbed."""
    world = World(*(f"s{number:02}" for number in range(24)))
    async with world.process() as first:
        await eventually(lambda: _owners(world) == {"p1"}, "one worker reads everything")
        async with world.process() as second:
            for _ in range(400):
                await asyncio.sleep(0.05)
                free = sum(row.owner is None for row in world.coordination.rows(world.ref).values())
                require(free <= 8, "few shards move at once")
            ended = [*first.observer.of("lease_ended"), *second.observer.of("lease_ended")]
            require(12 <= len(ended) <= 14, "shards move until the loads are even, and no more")
            await asyncio.sleep(200)
            after = [*first.observer.of("lease_ended"), *second.observer.of("lease_ended")]
            require(after == ended, "what is even stays as it is")
            robbed = next(shard for shard, row in world.coordination.rows(world.ref).items() if row.owner == "p1.1")
            await world.coordination.claim(world.ref, world.row(robbed), WorkerId("thief"))
            world.write([f"k{number}" for number in range(100)])
            await eventually(lambda: (robbed, "lost") in first.observer.of("lease_ended"), "a lost lease is noticed")
            await eventually(world.same, "the thief dies, and the shard is read on")
            require(first.observer.faults == [], "a lost lease is normal")
            require(len(first.observer.of("session_began")) == 1, "a lost lease restarts nothing")
            require(first.observer.of("service_failed") == [], "a lost lease is quiet")


async def waits_without_a_reader() -> None:
    """A worker with an older configuration; a worker that lives, keeps the seat, and lists nothing; a hung call."""
    world, copies = World(), rule("copies", target("copies", AP))
    async with world.process(eu_rule(), copies) as process:
        world.put("a", 1)
        await eventually(lambda: world.same() and world.same(AP), "both rules read the shard")
        await asyncio.sleep(5)
        await process.drain()
    async with world.process() as outdated:
        await eventually(lambda: world.owner() is not None, "a worker without one of the rules takes the shard")
        async with world.process(eu_rule(), copies, limits=Limits(stall_seconds=20)) as process:
            await eventually(lambda: process.observer.standing.get(world.ref), "a rule that is not served is told")
            await outdated.drain()
            await eventually(lambda: not process.observer.standing[world.ref], "and taken back when it is served")
            gate = hold(world.membership.faults, "members")
            await eventually(lambda: "members" in process.observer.troubles, "a call without an answer is told")
            gate.set()
            await process.drain()
    idler = world.process()
    idler.sources.put(())
    async with idler:
        await asyncio.sleep(5)
        ((place, seat),) = world.coordination._seats.items()
        world.coordination._seats[place] = replace(seat, owner=WorkerId("p4.1"), epoch=seat.epoch + 1)
        world.coordination.delete(world.ref, S0)
        world.put("b", 1)
        async with world.process():
            await eventually(world.same, "a seat whose owner does not list is taken", within=150)


# -- 13: looks alive -------------------------------------------------------------------------------------------------


def _watched(world: World) -> tuple[Process, Board]:
    """A process with the real observer and board."""
    process = world.process(limits=Limits(stall_seconds=20))
    board = Board("orders", (eu_rule(),), process.clock)
    observer = LiveObserver(board, Metrics(), process.clock)
    (source,) = process.sources.now
    process.sources.put([replace(source, ports=replace(source.ports, observer=observer))])
    process.worker._observer = observer
    return process, board


async def looks_alive() -> None:
    """A stream that does not answer; then a coordinator that hangs, while heartbeats go on."""
    world = World()
    process, board = _watched(world)
    async with process:
        await eventually(lambda: unready(board) == [], "a worker that reads is ready")
        gate = hold(world.streams.faults, "GetRecords")
        await eventually(lambda: any("s0" in reason for reason in unready(board)), "who does nothing is not ready")
        await asyncio.sleep(300)
        require(board.health() is None, "what others do wrong is no reason to restart")
        gate.set()
        await eventually(lambda: unready(board) == [], "a worker that goes on is ready again")
        hold(world.coordination.faults, "state")
        await asyncio.sleep(120)
        require(board.health() is not None, "a coordinator that attempts nothing is restarted")
        require(board.owned == 1, "though its heartbeats keep its leases")


# -- 15: what leases cost --------------------------------------------------------------------------------------------

_READS = {"state", "members", "paused", "driven", "resting", "starts", "streams", "acknowledged"}


async def coordination_cost() -> None:
    """Many idle shards, few workers; then one busy shard."""
    world = World(*(f"s{number:03}" for number in range(120)))
    writes = Counter[str]()

    async def count(call: str) -> None:
        writes[call] += call not in _READS

    for port in (world.coordination, world.membership, world.registry):
        port.faults.pause = count
    async with AsyncExitStack() as stack:
        for _ in range(3):
            await stack.enter_async_context(world.process(limits=Limits(idle_seconds=20)))
        await asyncio.sleep(60)
        writes.clear()
        await asyncio.sleep(120)
        require(writes.total() <= 3 * 120 / 3 * 1.1, "idle shards cost no writes: a worker beats for all of them")
        world.put("a", "first")
        await eventually(world.same, "a record is found in the idle interval", within=25)
        writes.clear()
        for turn in range(200):
            world.put("a", turn)
            await asyncio.sleep(0.1)
        require(10 <= writes["save"] <= 20 + 2, "checkpoints are batched in time")
