from __future__ import annotations

from contextlib import suppress
from random import Random

import pytest

from replicator.adapters.dynamodb.streams import DynamoStreams, whole_listing
from replicator.domain.identifiers import ShardId, TableName
from replicator.domain.shards.lineage import Shard
from replicator.laboratory.streamlab.refusals import Refused
from tests.streamlab import Laboratory, laboratory
from tests.streamlab.reader import chained, everything, histories

ORDERS = TableName("orders")


def open_ids(shards: list[Shard]) -> set[str]:
    return {shard.shard_id for shard in shards if not shard.closed}


async def test_items_keep_their_order_over_splits_merges_and_rolls(lab: Laboratory, streams: DynamoStreams) -> None:
    for command in (lab.split, lab.merge, lab.roll, lab.split, lab.merge):
        await lab.generate("orders", count=400, keys=40)
        command("orders")
    await lab.generate("orders", count=400, keys=40)
    records = await everything(streams, await streams.current(ORDERS))
    assert len(records) == 2400
    assert len(histories(records)) == 40
    assert chained(records)
    assert lab.stats()["skipped"] == {"-": 0}
    assert lab.stats()["read_early"] == 0


async def test_a_split_lists_two_children_of_one_parent(lab: Laboratory, streams: DynamoStreams) -> None:
    stream = await streams.current(ORDERS)
    before = open_ids(await whole_listing(streams, stream))
    children = lab.split("orders")
    after = {shard.shard_id: shard for shard in await whole_listing(streams, stream)}
    (parent,) = before - open_ids(list(after.values()))
    assert [after[ShardId(child)].parents for child in children] == [(parent,), (parent,)]
    assert after[ShardId(parent)].closed
    assert await streams.children(stream, ShardId(parent)) == [after[ShardId(child)] for child in children]


async def test_a_merge_lists_one_child_of_two_parents(lab: Laboratory, streams: DynamoStreams) -> None:
    stream = await streams.current(ORDERS)
    before = open_ids(await whole_listing(streams, stream))
    (child,) = lab.merge("orders")
    after = {shard.shard_id: shard for shard in await whole_listing(streams, stream)}
    assert set(after[ShardId(child)].parents) == before - open_ids(list(after.values()))
    assert len(after[ShardId(child)].parents) == 2


async def test_a_childs_numbers_lie_above_its_parents(lab: Laboratory) -> None:
    await lab.generate("orders", count=100)
    lab.reshard(9, "orders")
    await lab.generate("orders", count=100)
    lab.reshard(2, "orders")
    (stream,) = lab.tables.streams()
    for shard in stream.shards.values():
        for parent in shard.parents:
            ending = stream.shards[parent].ending
            assert ending is not None
            assert ending < shard.first


async def test_every_shard_rolls_when_it_is_old_enough(lab: Laboratory, streams: DynamoStreams) -> None:
    lab.set(roll_seconds=14_400)
    lab.advance(0.7 * 14_400)
    assert len(await whole_listing(streams, await streams.current(ORDERS))) == 4
    lab.advance(0.6 * 14_400)
    listed = await whole_listing(streams, await streams.current(ORDERS))
    assert len(listed) == 8
    assert len(open_ids(listed)) == 4


async def test_the_same_seed_makes_the_same_shards_and_records() -> None:
    async def life(seed: int) -> list[tuple[str, list[int], list[bytes]]]:
        async with laboratory(seed=seed, shards=3) as lab:
            lab.make("orders", "eu-west-1")
            for _ in range(5):
                await lab.generate("orders", count=50)
                lab.split()
                lab.merge()
            (stream,) = lab.tables.streams()
            return [
                (shard.shard_id, shard.numbers, [text.partition(b'"Keys"')[2] for text in shard.texts])
                for shard in stream.shards.values()
            ]

    assert await life(1) == await life(1)
    assert await life(1) != await life(2)


async def test_numbers_can_have_forty_digits(streams: DynamoStreams, lab: Laboratory) -> None:
    lab.set(digits=40)
    await lab.recreate("orders")
    await lab.generate("orders", count=200)
    lab.roll("orders")
    await lab.generate("orders", count=200)
    records = await everything(streams, await streams.current(ORDERS))
    assert {len(record.sequence) for record in records} == {40}
    assert chained(records)


@pytest.mark.parametrize("seed", range(8))
async def test_open_shards_cover_every_hash_once_whatever_happens(seed: int) -> None:
    dice = Random(seed)
    async with laboratory(seed=seed, shards=dice.randint(1, 5)) as lab:
        lab.make("orders", "eu-west-1")
        (stream,) = lab.tables.streams()
        for _ in range(40):
            await lab.generate("orders", count=dice.randint(0, 20), keys=30)
            with suppress(Refused):
                dice.choice((lab.split, lab.merge, lab.roll))()
            lows, highs = zip(*((shard.low, shard.high) for shard in stream.open_shards), strict=True)
            assert (0, *highs) == (*lows, 1 << 64)
        assert sum(shard.total for shard in stream.shards.values()) == stream.records
