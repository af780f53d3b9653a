"""A source that keeps no order, repeats records and shows those of other tables: what the engine makes of it."""

from __future__ import annotations

import asyncio
from random import Random

import pytest
from msgspec import structs

from replicator.app.rule_preflight import check_succession
from replicator.domain.cache_keys import CacheVerb
from replicator.domain.coalescing import Run
from replicator.domain.errors import WorldMismatch
from replicator.domain.gaps import EVERY_SHARD
from replicator.domain.identifiers import RegionId, SequenceNumber, ShardId
from replicator.domain.modes.active_active.mesh import ActivePolicy
from replicator.domain.owed_keys import Settlement
from replicator.domain.records import ChangeRecord, Event, ForeignRecord
from replicator.domain.rules import ActivePlan, KinesisSource, OnGap, OnRefusal, Start, TtlDeletes
from replicator.domain.shards.leases import StreamRef
from replicator.domain.transforms import Transform
from replicator.domain.values import replace
from replicator.engine.applying.applier import TargetApplier
from replicator.engine.applying.canary_driver import CanaryDriver
from replicator.engine.applying.look_ahead import ReadAhead
from replicator.engine.applying.mesh_driver import MeshDriver
from replicator.engine.limits import Limits
from tests.engine.mesh_world import ACTIVE, MeshWorld, Reader
from tests.engine.shard_bench import ShardBench
from tests.engine.test_transforms import retry
from tests.engine.world import EU, ORDERS, US, World, cache_rule, eu_rule, id_of, key_of, rule, target, until

KINESIS = KinesisSource("changes", reorder_seconds=2.0)
_MICROS = 1_000_000


def disordered(records: list[ChangeRecord], seed: int) -> list[ChangeRecord]:
    """The same changes in any order and some of them twice, with places of 56 digits, and times in microseconds."""
    dice = Random(seed)
    made = [
        structs.replace(record, micros=int(record.created_at * _MICROS) + number, event_id=str(number))
        for number, record in enumerate(records)
    ]
    made += dice.choices(made, k=len(made) // 3)
    dice.shuffle(made)
    return [
        structs.replace(record, sequence=SequenceNumber(str(4 * 10**55 + place))) for place, record in enumerate(made)
    ]


@pytest.mark.parametrize("seed", range(4))
async def test_a_replica_ends_with_the_newest_images_whatever_comes_first_or_twice(seed: int) -> None:
    world = World()
    dice = Random(seed)
    for number in range(60):
        name = dice.choice("abc")
        if dice.random() < 0.2 and name in world.truth():
            world.delete(name)
        else:
            world.put(name, number)
    shard = world.streams._shards[world.ref.arn][ShardId("s0")]
    shard.records[:] = disordered(list(shard.records), seed)
    last = shard.records[-1].sequence
    async with ShardBench(world, eu_rule(stream=KINESIS), limits=Limits(page_records=7)) as bench:
        await until(lambda: world.stored() == last)
        assert world.same()
        await bench.drain()


async def test_changes_of_one_millisecond_are_put_in_order_over_pages_by_what_they_replaced() -> None:
    world = World()
    for number in range(6):
        world.put("a", number)
        world.put("b", number)
    world.delete("b")
    made = [
        structs.replace(record, micros=7_000_000, event_id=str(number)) for number, record in enumerate(world.records())
    ]
    shard = world.streams._shards[world.ref.arn][ShardId("s0")]
    shard.records[:] = [
        structs.replace(record, sequence=SequenceNumber(str(4 * 10**55 + place)))
        for place, record in enumerate(each for record in made for each in (record, record))
    ]
    coarse = eu_rule(stream=KinesisSource("changes", in_microseconds=False))
    async with ShardBench(world, coarse, limits=Limits(page_records=1)) as bench:
        await until(lambda: world.stored() == shard.records[-1].sequence)
        await bench.drain()
    assert world.same()
    assert sum(report.ties for report in bench.observer.reports) >= 11


@pytest.mark.parametrize("page", [1, 2, 5])
@pytest.mark.parametrize("seed", range(3))
async def test_changes_of_one_millisecond_end_as_the_source_in_any_order_over_any_pages(seed: int, page: int) -> None:
    world, dice = World(), Random(seed)
    beside = cache_rule("eu_main", EU, CacheVerb.WRITE_THROUGH, "o:{pk}")
    coarse = rule("orders", target("orders", EU, beside), stream=KinesisSource("changes", in_microseconds=False))
    for number in range(40):
        name = dice.choice("abcd")
        if dice.random() < 0.3 and name in world.truth():
            world.delete(name)
        else:
            world.put(name, dice.randint(1, 2) if dice.random() < 0.5 else number)
    shard = world.streams._shards[world.ref.arn][ShardId("s0")]
    mixed = disordered(list(shard.records), seed)
    shard.records[:] = [structs.replace(record, micros=7_000_000) for record in mixed]
    async with ShardBench(world, coarse, limits=Limits(page_records=page)) as bench:
        await until(lambda: world.stored() == shard.records[-1].sequence, within=600)
        await bench.drain()
    assert world.same()
    shown = {name: entry for name, entry in world.caches["eu_main"].entries.items() if entry.startswith(b"V:")}
    for name, entry in shown.items():
        there = world.region.item(key_of(name.removeprefix("o:")))
        assert there is not None
        assert there.stamp is not None
        assert entry.startswith(b"V:" + there.stamp.encode())


def of_one_millisecond(world: World, order: str) -> None:
    """Let all changes be of one millisecond, and come in this order: digits are their places as they were made."""
    shard = world.streams._shards[world.ref.arn][ShardId("s0")]
    made = list(shard.records)
    shard.records[:] = [
        structs.replace(
            made[int(digit)],
            micros=7_000_000,
            event_id=digit,
            sequence=SequenceNumber(str(4 * 10**55 + place)),
        )
        for place, digit in enumerate(order)
    ]


COARSE = KinesisSource("changes", in_microseconds=False)


@pytest.mark.parametrize("page", [1, 2])
@pytest.mark.parametrize("order", ["01", "10"])
@pytest.mark.parametrize("transform", [None, Transform(drop=frozenset({"nothing"}))])
async def test_of_two_parked_changes_of_one_millisecond_a_retry_brings_the_later(
    page: int, order: str, transform: Transform | None
) -> None:
    world = World()
    coarse = rule("orders", replace(target("orders", EU), transform=transform), stream=COARSE, refused=OnRefusal.PARK)
    world.region.poison(key_of("a"), "Item size has exceeded the maximum allowed size")
    world.put("a", 1)
    world.put("a", 2)
    of_one_millisecond(world, order)
    async with ShardBench(world, coarse, limits=Limits(page_records=page)) as bench:
        await until(lambda: world.stored() == bench_end(world))
        await bench.drain()
    world.region.cure(key_of("a"))
    assert (await retry(world, coarse)).how is Settlement.RETRIED
    assert world.same()


@pytest.mark.parametrize("skips", [False, True])
async def test_of_a_parked_put_and_delete_of_one_millisecond_a_retry_does_what_the_source_holds(skips: bool) -> None:
    world = World()
    ttl = TtlDeletes.SKIP if skips else TtlDeletes.REPLICATE
    coarse = eu_rule(stream=COARSE, refused=OnRefusal.PARK, ttl_deletes=ttl)
    async with ShardBench(world, coarse) as bench:
        world.put("a", 1)
        await until(world.same)
        await bench.drain()
    world.put("a", 2)
    world.region.poison(key_of("a"), "Item size has exceeded the maximum allowed size")
    async with ShardBench(world, coarse) as bench:
        await until(lambda: bool(world.owed.rows))
        await bench.drain()
    world.region.cure(key_of("a"))
    world.source.items.pop(key_of("a"))  # the delete was of the same millisecond, and is hidden behind the put's row
    assert (await retry(world, coarse)).how is (Settlement.ABSENT if skips else Settlement.RETRIED)
    assert bool(world.holds()) is skips


async def test_a_row_of_a_delete_brings_the_put_that_was_later_in_its_millisecond() -> None:
    world = World()
    coarse = eu_rule(stream=COARSE, refused=OnRefusal.PARK)
    world.region.poison(key_of("a"), "Item size has exceeded the maximum allowed size")
    world.put("a", 1)
    async with ShardBench(world, coarse) as bench:
        await until(lambda: bool(world.owed.rows))
        await bench.drain()
    ((place, row),) = world.owed.rows.items()
    world.owed.rows[place] = replace(row, event=Event.REMOVE)
    world.region.cure(key_of("a"))
    assert (await retry(world, coarse)).how is Settlement.RETRIED
    assert world.same()


@pytest.mark.parametrize("order", ["01", "10"])
async def test_a_change_settles_no_row_of_its_millisecond_unless_it_left_what_the_source_holds(order: str) -> None:
    """The one in front is refused, the other taken: a row of the later one is left, that of the earlier one is not."""
    world = World()
    coarse = eu_rule(stream=COARSE, refused=OnRefusal.PARK)
    world.put("a", 1)
    world.put("a", 2)
    of_one_millisecond(world, order)
    world.region.poison(key_of("a"), "Item size has exceeded the maximum allowed size")
    shard = world.streams._shards[world.ref.arn][ShardId("s0")]
    later = shard.records.pop()
    async with ShardBench(world, coarse) as bench:
        await until(lambda: bool(world.owed.rows))
        world.region.cure(key_of("a"))
        shard.records.append(later)
        await until(lambda: world.stored() == later.sequence)
        await bench.drain()
    assert bool(world.owed.rows) is (order == "10")
    if world.owed.rows:
        assert (await retry(world, coarse)).how is Settlement.RETRIED
    assert world.same()


def bench_end(world: World) -> str:
    return world.streams._shards[world.ref.arn][ShardId("s0")].records[-1].sequence


async def test_records_of_other_tables_move_the_position_and_are_counted() -> None:
    world = World()
    world.put("a", 1)
    foreign = [ForeignRecord(SequenceNumber(str(100 + number)), "bills", world.now()) for number in range(5)]
    world.streams._shards[world.ref.arn][ShardId("s0")].records += foreign  # type: ignore[arg-type]
    async with ShardBench(world, eu_rule(stream=KINESIS)) as bench:
        await until(lambda: world.stored() == "104")
        await bench.drain()
    assert world.same()
    (report,) = bench.observer.reports
    assert (report.foreign, report.skipped, report.changes) == (5, 5, 1)


async def test_what_a_target_has_through_leaves_room_for_what_comes_late() -> None:
    world = World()
    world.put("a", 1)
    (record,) = world.records()
    async with ShardBench(world, eu_rule(stream=KINESIS)) as bench:
        await until(lambda: bool(world.holds()))
        position = bench.worker.progress.position(eu_rule().targets[0])
        assert position.through == record.created_at - 2.0
        await bench.drain()


# -- meshes --------------------------------------------------------------------------------------------------------


def unordered(world: MeshWorld, home: RegionId) -> ActivePlan:
    plan = world.plan(home)
    assert isinstance(plan, ActivePlan)
    return replace(plan, policy=ActivePolicy(look_ahead=False))


class LateMesh(MeshWorld):
    """A mesh whose sources give their records times in microseconds."""

    def stamp(self) -> None:
        for region, ref in self.refs.items():
            for shard in self.streams[region]._shards[ref.arn].values():
                shard.records[:] = [
                    record if record.micros else structs.replace(record, micros=int(record.created_at * _MICROS))
                    for record in shard.records
                ]


async def test_a_change_of_a_mesh_waits_until_what_was_made_before_it_has_come() -> None:
    world = LateMesh(ACTIVE, US, EU)
    rules = [world.rule(home, mesh=unordered(world, home), stream=KINESIS) for home in (US, EU)]
    async with world.process(*rules) as process:
        await asyncio.sleep(5)
        began = asyncio.get_running_loop().time()
        world[US].put("a", 1)
        world.stamp()
        await until(lambda: world[EU].value("a") == "1")
        waited = asyncio.get_running_loop().time() - began
        assert 1.0 < waited < 6.0
        await process.drain()


async def test_events_of_a_mesh_that_reads_kinesis_are_its_users_changes_each_once() -> None:
    world = LateMesh(ACTIVE, US, EU)
    rules = [world.rule(home, mesh=unordered(world, home), stream=KINESIS, sinks=("sqs:orders",)) for home in (US, EU)]
    async with world.process(*rules) as process:
        for number, region in enumerate((US, EU, US)):
            world[region].put("a", number)
            world.stamp()
            await until(lambda: len({table.value("a") for table in world.tables.values()}) == 1)
            await asyncio.sleep(3)
            world.stamp()
        await asyncio.sleep(20)
        made = [len(world[region].made) for region in (US, EU)]
        assert (len(world.sink.taken), made) == (3, [2, 1])
        await process.drain()


async def test_what_was_made_before_and_came_later_is_brought_first() -> None:
    world = MeshWorld(ACTIVE, US, EU)
    for value in (1, 2, 3):
        world[US].put("a", value)
    one, two, three = [
        structs.replace(record, micros=number, event_id=str(number))
        for number, record in enumerate(world.records(US), start=1)
    ]
    reader = Reader(world, US)
    driver, ahead = _driver(reader)
    ahead.add(
        [structs.replace(one, sequence=SequenceNumber("11")), structs.replace(three, sequence=SequenceNumber("12"))]
    )
    late = structs.replace(two, sequence=SequenceNumber("10"))
    units = driver.units(Run(two.key, (late,)))
    assert [[record.micros for record in unit.records] for unit in units] == [[1], [2]]


def _driver(reader: Reader) -> tuple[MeshDriver, ReadAhead]:
    applier: TargetApplier = reader.applier
    assert isinstance(applier._driver, CanaryDriver)
    driver = applier._driver._driver
    assert isinstance(driver, MeshDriver)
    return driver, applier._context.ahead


# -- a rule moves --------------------------------------------------------------------------------------------------


def changes_ref(number: int = 50) -> StreamRef:
    return StreamRef(US, ORDERS, f"arn:aws:kinesis:x:1:stream/changes/orders/{number}", 1_000_000_000_000 + number)


def move(world: World, ref: StreamRef, shard: str, *, kinesis: bool) -> None:
    """The table's changes come to another stream from now on, and the rule reads that."""
    world.streams.is_kinesis = kinesis
    items, world.ref = world.source.items, ref
    known = ref.arn in world.streams._known
    world.streams.enable(ref)
    if not known:
        world.streams.add_shard(ref, ShardId(shard))
    world.route_to(shard)
    world.source = world.new_source(ref, first_sequence=1000)
    world.source.items = items


async def test_a_rule_that_moves_to_another_kind_of_stream_loses_nothing_in_silence_and_can_move_back() -> None:
    world = World()
    own = world.ref
    rule = eu_rule(start=Start.LATEST)
    async with world.process(rule) as process:
        world.put("a", 1)
        await until(world.same)
        await process.drain()
    begun = (await world.registry.starts(own))[id_of("orders/eu")].started_at
    world.put("b", 1)  # in the table's own stream alone
    move(world, changes_ref(), "k0", kinesis=True)
    world.put("c", 1)
    await asyncio.sleep(100)
    async with world.process(replace(rule, stream=KINESIS, epoch=1)) as process:
        await until(lambda: set(world.holds()) == {"a", "c"})
        await process.drain()
    (gap,) = world.registry.gaps
    assert (gap.shard_id, gap.stream, gap.target_id) == (EVERY_SHARD, own, id_of("orders/eu"))
    assert (await world.registry.starts(changes_ref()))[id_of("orders/eu")].started_at == begun
    move(world, own, "s0", kinesis=False)
    world.put("d", 1)
    async with world.process(replace(rule, epoch=2)) as process:
        await until(world.same)
        await process.drain()
    assert len(world.registry.gaps) == 1, "the old stream was gone on with where it was left"


async def test_a_kinesis_stream_that_is_made_anew_is_the_successor_of_the_one_before() -> None:
    world = World()
    move(world, changes_ref(50), "k0", kinesis=True)
    rule = eu_rule(stream=KINESIS, on_gap=OnGap.SKIP)
    async with world.process(rule) as process:
        world.put("a", 1)
        await until(world.same)
        old, items = world.ref, world.source.items
        world.streams.drop(old)
        move(world, changes_ref(60), "k0", kinesis=True)
        world.source.items = items
        world.put("b", 1)
        await until(world.same, within=300)
        await process.drain()
    assert {gap.shard_id for gap in world.registry.gaps} == {ShardId("k0"), EVERY_SHARD}


async def test_a_region_of_a_mesh_is_not_read_in_an_older_stream_of_another_kind() -> None:
    world = MeshWorld(ACTIVE, US, EU)
    rule = world.rule(US, mesh=unordered(world, US), stream=KINESIS)
    streams = world.streams[US]
    await world.registry.remember_stream(world.refs[US])
    streams.is_kinesis = True
    older, younger = (replace(changes_ref(), generation=world.refs[US].generation + number) for number in (-1, 1))
    await check_succession(world.registry, rule, younger, streams)
    await check_succession(world.registry, eu_rule(stream=KINESIS), older, streams)  # has an epoch for that
    with pytest.raises(WorldMismatch, match="is older than the one of another kind"):
        await check_succession(world.registry, rule, older, streams)
