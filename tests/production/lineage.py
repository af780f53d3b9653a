"""Rows about which shards there are and in which order they are read: lineage, discovery, streams that are replaced."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

from replicator.domain.errors import Throttled
from replicator.domain.identifiers import ShardId
from replicator.domain.shards.lineage import Shard
from replicator.engine.limits import Limits
from tests.engine.world import ORDERS, World, key_of, stream_ref
from tests.production.guarantee import eventually, require
from tests.production.reading import END, S0, S1, claimed


async def generations_in_order() -> None:
    """Shards that roll, split and merge; one parent of the merge cannot be applied for a while."""
    world = World("a0", "b0")
    names = [f"k{number}" for number in range(12)]
    world.write(names, 0)
    world.roll("a0", "a1")
    world.write(names, 1)
    stuck = world.records("b0")[0].key
    world.region.poison(stuck, "it is too large")
    world.merge(("a1", "b0"), "m2")
    world.write(names, 2)
    world.roll("m2", "x3", "y3")
    world.write(names, 3)
    async with world.process() as process:
        await eventually(lambda: world.stored("a1") == END, "a line is read to its end", within=20)
        await asyncio.sleep(30)
        require(set(claimed(process)) == {"a0", "a1", "b0"}, "the child of a merge waits for both of its parents")
        world.region.cure(stuck)
        for _ in range(400):
            _require_parents_first(world, {"a1": ("a0",), "m2": ("a1", "b0"), "x3": ("m2",), "y3": ("m2",)})
            await asyncio.sleep(0.05)
        require(len(claimed(process)) == 6, "no generation is skipped")
        require(world.same(), "every record of every generation is applied")


def _require_parents_first(world: World, lineage: dict[str, tuple[str, ...]]) -> None:
    for child, parents in lineage.items():
        if world.owner(child) is not None or world.stored(child) is not None:
            finished = all(world.stored(parent) == END for parent in parents)
            require(finished, "no child is read before the end of its parents is stored")


async def inconsistent_listings() -> None:
    """A parent listed late, a link told no more, and a parent that is listed open although it has a child."""
    world = World()
    world.write("abc", 0)
    world.roll("s0", "s1")
    world.write("abc", 1)
    world.streams.hide(world.ref, S0)
    async with world.process() as process:
        await asyncio.sleep(12)
        require(claimed(process) == [], "a child is not read before a parent that is listed late")
        world.streams.reveal(world.ref, S0)
        await eventually(world.same, "a late parent is read, then its child", within=20)
        require(claimed(process) == ["s0", "s1"], "a late parent is read before its child")
        world.region.poison(key_of("a"), "it is too large")
        world.put("a", 2)
        world.streams.misreport(world.ref, Shard(S1, (S0,), closed=False))
        world.roll("s1", "s2")
        await asyncio.sleep(12)
        world.streams.misreport(world.ref, Shard(ShardId("s2")))
        await asyncio.sleep(30)
        require(claimed(process) == ["s0", "s1"], "a link to a parent that was seen once stays")
        world.streams.correct(world.ref, ShardId("s2"))
        world.region.cure(key_of("a"))
        world.put("a", 3)
        await eventually(world.same, "an open parent with a child is closed", within=20)


def _retained(world: World, lines: int, generations: int) -> list[str]:
    """Lines of closed shards that end in an open one; returns the open ones."""
    for generation in range(generations):
        for line in range(lines):
            parents = (ShardId(f"s{generation - 1:02}-{line:03}"),) if generation else ()
            world.streams.add_shard(world.ref, ShardId(f"s{generation:02}-{line:03}"), *parents)
            if generation < generations - 1:
                world.streams.close(world.ref, ShardId(f"s{generation:02}-{line:03}"))
    return [f"s{generations - 1:02}-{line:03}" for line in range(lines)]


async def convergent_discovery() -> None:
    """684 retained shards in seven pages; a call takes seconds, the first one for ever, and every third one fails."""
    world = World("s00-000")
    leaves = _retained(world, lines=57, generations=12)
    calls = 0

    async def trouble(call: str) -> None:
        nonlocal calls
        if call == "DescribeStream":
            calls += 1
            await asyncio.sleep(2.0 if calls > 1 else 1e6)
            if calls % 3 == 0:
                raise Throttled("Rate exceeded.")

    world.streams.faults.pause = trouble
    async with world.process(limits=Limits(idle_seconds=20, poll_seconds=1)):
        await eventually(lambda: world.stored("s00-000") is not None, "what is listed is read at once", within=25)
        known = len(world.coordination.rows(world.ref))
        require(known < 684, "the first page is read before the last one is listed")
        await eventually(lambda: all(world.owner(leaf) for leaf in leaves), "the listing comes to its end", within=120)
        world.route_to(*leaves)
        world.write([f"k{number}" for number in range(40)])
        await eventually(world.same, "every open shard is read")


async def describing_within_the_budget() -> None:
    """Four workers on a stream whose shards all roll at once, with children that are listed late; then a quiet time."""
    world = World(*(f"s{line}-0" for line in range(16)))
    at: list[float] = []

    async def note(call: str) -> None:
        if call == "DescribeStream":
            at.append(asyncio.get_running_loop().time())

    world.streams.faults.pause = note
    async with AsyncExitStack() as stack:
        for _ in range(4):
            await stack.enter_async_context(world.process())
        await asyncio.sleep(20)
        for generation in range(3):
            for line in range(16):
                world.roll(f"s{line}-{generation}", f"s{line}-{generation + 1}")
                world.streams.hide(world.ref, ShardId(f"s{line}-{generation + 1}"))
            await asyncio.sleep(8)
            world.reveal_all()
            await eventually(
                lambda last=generation + 1: all(world.owner(f"s{line}-{last}") for line in range(16)),  # type: ignore[misc]
                "children are found within the budget",
            )
        busiest = max(sum(start <= other < start + 1 for other in at) for start in at)
        require(busiest < 10, "all workers together ask less often than AWS allows")
        await asyncio.sleep(20)
        at.clear()
        await asyncio.sleep(120)
        require(len(at) <= 120 / 10 + 1, "one worker lists the stream, the others do not")


async def stream_created_anew() -> None:
    """The table's stream is replaced: the same shard ids and smaller numbers, while the old one is not read yet."""
    world = World()
    world.put("z", 0)
    world.delete("z")
    world.write("abc", 1)
    world.region.poison(key_of("c"), "it is too large")
    async with world.process() as process:
        await eventually(lambda: set(world.holds()) == {"a", "b"}, "the first stream is read")
        _replace_stream(world)
        world.write("abxyz", 2)
        await asyncio.sleep(30)
        require(world.holds() == {"a": "1", "b": "1"}, "the old stream is drained before the new one is begun")
        world.region.cure(key_of("c"))
        await eventually(world.same, "a new stream's writes are newer, whatever their numbers")
        require(claimed(process) == ["s0", "s0"], "a shard is another one in another stream")
        gaps = [(gap.stream.arn, gap.shard_id) for gap in world.registry.gaps]
        require(gaps == [("arn:stream/1", "every shard")], "what no stream recorded is a gap")
    known = await world.registry.streams(world.ref.region, ORDERS)
    left = [each.ref.arn for each in known if not each.drained]
    require(left == ["arn:stream/2"], "a drained stream is never begun again")


def _replace_stream(world: World) -> None:
    world.streams.close(world.ref, S0)
    world.ref = stream_ref(2)
    world.streams.enable(world.ref)
    world.streams.add_shard(world.ref, S0)
    written = world.source.items
    world.source = world.new_source(world.ref)
    world.source.items = written
