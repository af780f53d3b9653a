"""Rows about reading a shard: its last page, where it begins, iterators, trims, checkpoints, what it costs."""

from __future__ import annotations

import asyncio

from replicator.domain.errors import Unreachable
from replicator.domain.identifiers import ShardId
from replicator.domain.rules import Start
from replicator.engine.limits import Limits
from replicator.engine.reading.memory_budget import weight
from replicator.ports.sources import RecordPage
from tests.engine.shard_bench import first_of
from tests.engine.world import AP, EU, Process, World, eu_rule, key_of, rule, target
from tests.production.guarantee import eventually, require

S0, S1 = ShardId("s0"), ShardId("s1")
END = "SHARD_END"
BOTH = rule("orders", target("orders", EU), target("orders", AP))


def claimed(process: Process) -> list[str]:
    return [event[0] for event in process.observer.of("lease_claimed")]


async def last_page() -> None:
    """Records stand on the very page that tells the end of their shard."""
    world = World()
    world.write("abcde")
    world.roll("s0", "s1")
    world.write("xyz")
    async with world.process(limits=Limits(page_records=2)):
        await eventually(lambda: world.stored("s0") == END, "a closed shard is read to its end", within=20)
        await eventually(world.same, "every record of the last page is applied", within=20)


async def child_at_its_horizon() -> None:
    """A rule that starts at the latest; a child that is listed when it holds records already."""
    world = World()
    world.put("old", 1)
    await asyncio.sleep(30)
    async with world.process(eu_rule(start=Start.LATEST)):
        await eventually(lambda: world.stored("s0") is not None, "the shard is begun")
        world.put("a", 1)
        await eventually(lambda: set(world.holds()) == {"a"}, "what is written behind the start arrives")
        world.roll("s0", "s1")
        world.streams.hide(world.ref, S1)
        world.write("bcd")
        await asyncio.sleep(30)
        world.streams.reveal(world.ref, S1)
        await eventually(
            lambda: set(world.holds()) == set("abcd"), "a child is read from its first record on", within=20
        )


async def expired_iterators() -> None:
    """Every iterator expires, again and again, while records come in bursts and in between."""
    world = World()
    async with world.process(limits=Limits(checkpoint_seconds=5, page_records=2)) as process:
        for turn in range(8):
            world.write("abcde", turn)
            await asyncio.sleep(0.6)
            world.streams.expire_iterators()
            world.put(f"k{turn}", turn)
            await eventually(world.same, "reading goes on behind an expired iterator", within=15)
        read = [number for _, _, number in process.observer.of("polled")]
        require(sum(read) == len(world.records()), "reading goes on behind the last record that was read")
        expired = len(process.observer.of("iterator_expired"))
        require(8 <= expired <= 16, "an expired iterator is counted, and derived anew once")
        require(process.observer.troubles == {}, "an expired iterator is no trouble")


async def trimmed() -> None:
    """Records leave the stream behind a stored position; then before the first record of a child."""
    world = World()
    first_of(world, "s0")
    world.write("abc")
    async with world.process() as process:
        await eventually(lambda: world.stored() == "3", "the position is stored")
        await process.drain()
    world.write("defgh")
    world.streams.trim(world.ref, S0, keep=2)
    async with world.process() as process:
        await _waits_behind_gap(world, process, ("s0", "3", "7"))
        await eventually(lambda: set(world.holds()) == set("abcgh"), "what is left is read behind an accepted loss")
        await asyncio.sleep(61)
        world.roll("s0", "s1")
        world.streams.hide(world.ref, S1)
        first_of(world, "s1", 9)
        world.write("uvwxyz")
        await asyncio.sleep(20)
        world.streams.trim(world.ref, S1, keep=1)
        world.streams.reveal(world.ref, S1)
        await _waits_behind_gap(world, process, ("s1", "SHARD_START", "14"))


async def _waits_behind_gap(world: World, process: Process, wanted: tuple[str, str, str]) -> None:
    """A loss is stored and told, and nothing behind it is read until somebody accepts it."""
    before = world.holds()
    await eventually(lambda: bool(process.observer.blocked_keys), "the rule waits behind a loss", within=30)
    gaps = [(gap.shard_id, gap.after.text, gap.until and gap.until.text) for gap in world.registry.gaps]
    require(wanted in gaps, "a loss is stored: from where, up to where")
    await asyncio.sleep(30)
    require(world.holds() == before, "nothing behind a loss is read before it is accepted")
    world.registry.acknowledge(world.registry.gaps[-1].gap_id)
    await eventually(lambda: not process.observer.blocked_keys, "an accepted loss is passed")


async def contiguous_frontier() -> None:
    """One record of a page is refused while others pass; one target is behind another by a digit."""
    world = World()
    world.write("abcde")
    world.region.poison(key_of("b"), "it is too large")
    process = world.process(BOTH).start()
    await eventually(lambda: set(world.holds()) == set("acde"), "the other keys of the page are applied")
    await asyncio.sleep(5)
    require(world.stored() == "1", "no checkpoint passes a record that is not applied")
    await process.kill()
    world.region.cure(key_of("b"))
    process = world.process(BOTH, limits=Limits(page_records=5)).start()
    await eventually(world.same, "what was not applied is read again", within=20)
    await eventually(lambda: world.stored(target_id="orders/ap") == "5", "positions are stored")
    world.regions[AP].faults.outage = Unreachable
    world.write("fghij")
    await eventually(lambda: world.stored() == "10", "a target that works goes on", within=20)
    require(world.stored(target_id="orders/ap") == "5", "every target has its own checkpoint")
    await process.kill()
    world.regions[AP].faults.outage = None
    async with world.process(BOTH):
        await eventually(lambda: world.same(AP), "a target reads on from its own place", within=20)


async def end_only_when_applied() -> None:
    """A closed shard with empty pages in it and a replica that is away; an open one that says it is closed."""
    world = World()
    world.streams.empty_pages = 5
    world.write("abcde")
    world.roll("s0", "s1")
    world.write("xyz")
    world.region.faults.outage = Unreachable
    process = world.process().start()
    await asyncio.sleep(30)
    await process.drain()
    require(world.stored("s0") != END, "the end is not stored before everything is applied")
    require(claimed(process) == ["s0"], "a child waits for its parent to be applied")
    world.region.faults.outage = None
    async with world.process():
        await eventually(world.same, "what was not applied is read again", within=20)
        _say_it_is_closed_once(world)
        await asyncio.sleep(10)
        require(world.stored("s1") != END, "no end is believed that the listing denies")
        world.write("xyz", 1)
        await eventually(world.same, "an open shard is read on", within=20)


def _say_it_is_closed_once(world: World) -> None:
    read = world.streams.read

    async def lie(iterator: str, limit: int) -> RecordPage:
        world.streams.read = read  # type: ignore[method-assign]
        return RecordPage((), None)

    world.streams.read = lie  # type: ignore[method-assign]


async def idle_polling() -> None:
    """Ten shards without a record; then one."""
    shards = [f"s{number}" for number in range(10)]
    world = World(*shards)
    calls = 0

    async def count(call: str) -> None:
        nonlocal calls
        calls += call == "GetRecords"

    world.streams.faults.pause = count
    async with world.process(limits=Limits(poll_seconds=0.25, idle_seconds=4.0)):
        await asyncio.sleep(60)
        calls = 0
        await asyncio.sleep(200)
        require(calls <= 10 * 200 / 4.0 * 1.1, "an idle shard is asked once per idle interval")
        world.put("a", 1)
        await eventually(world.same, "a record waits for the idle interval at most", within=4.5)


async def bounded_memory() -> None:
    """Many shards full of records and a replica that is away; then one shard with a long backlog."""
    world = World(*(f"s{number}" for number in range(8)))
    world.write([f"k{number}" for number in range(800)], "x" * 500)
    world.region.faults.outage = Unreachable
    page = max(weight(world.records(f"s{number}")[:10]) for number in range(8))
    limits = Limits(page_records=10, in_flight_bytes=3 * page)
    async with world.process(limits=limits) as process:
        await _holds_at_most(process, 4 * page, "what all shards of a process hold is bounded")
        world.region.faults.outage = None
        await eventually(world.same, "the bound holds nobody up", within=300)
    world = World()
    world.write([f"k{number}" for number in range(800)], "x" * 500)
    world.region.faults.outage = Unreachable
    async with world.process(limits=Limits(page_records=10)) as process:
        await _holds_at_most(process, 3 * page, "what one shard holds is bounded")


async def _holds_at_most(process: Process, most: int, guarantee: str) -> None:
    (source,) = process.sources.now
    for _ in range(40):
        await asyncio.sleep(0.5)
        require(source.ports.budget.used <= most, guarantee)


async def single_writer() -> None:
    """A checkpoint that takes long while others fall due; a stop while one is under way."""
    world = World()
    saves = 0

    async def sometimes_slow(call: str) -> None:
        nonlocal saves
        if call == "save":
            saves += 1
            await asyncio.sleep(4.0 if saves in {2, 4, 6, 12} else 0.0)

    world.coordination.faults.pause = sometimes_slow
    before = asyncio.all_tasks()
    process = world.process(limits=Limits(checkpoint_seconds=0.5)).start()
    highest = 0
    for turn in range(300):
        world.put(f"k{turn % 7}", turn)
        await asyncio.sleep(0.1)
        stored = world.stored()
        number = int(stored) if stored is not None and stored.isdecimal() else 0
        require(number >= highest, "a checkpoint never goes back")
        highest = number
        if saves == 12:
            break
    require(saves >= 12, "checkpoints are stored")
    await process.drain()
    require(asyncio.all_tasks() == before, "whoever ends waits for its tasks")
    require(world.owner() is None, "whoever ends gives the shard back")
    stored = world.stored()
    await asyncio.sleep(10)
    require(world.stored() == stored, "nothing lands behind the end")
