"""A region that tells the write units of every write, as a server that speaks DynamoDB counts them."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator

import pytest

from replicator.domain.image import Image
from replicator.domain.modes.requests import (
    Absent,
    AbsentOrStampBelow,
    Delete,
    DeleteMarked,
    Done,
    GuardedPut,
    MergeTombstone,
    Put,
    RaiseTombstone,
    Refused,
    Remove,
    Replace,
    Request,
    Restamp,
    StampBelow,
    StampedPut,
    StampIs,
    TombstoneBelow,
    UnstampedOrStampBelow,
    VersionAtMost,
)
from replicator.domain.records import item_key
from replicator.domain.stamps import NO_PARENT, Stamp, StampKind, Tombstone, Version, content_of, write_sequence
from replicator.domain.versions import ordered_version
from replicator.domain.write_units import units_of, units_taken
from replicator.laboratory.memory import OpenFence
from tests.contract.worlds import DynamoRegionBench, place

V1, V2 = (ordered_version(0, 1_700_000_000_000, number) for number in (1, 2))
OPEN = OpenFence()


@pytest.fixture
async def bench(request: pytest.FixtureRequest) -> AsyncIterator[DynamoRegionBench]:
    async with place(request.getfixturevalue("dynamodb_url")) as opened:
        bench = DynamoRegionBench(opened, {"pk": "S"}, metered=True)
        await bench.create()
        yield bench


def key(name: str = "k") -> bytes:
    return json.dumps({"pk": {"S": name}}).encode()


def at(second: int) -> Version:
    return Version((1_700_000_000 + second) * 1_000_000, 0, "us", write_sequence(1_700_000_000_000, second))


def item(size: int = 10, name: str = "k") -> Image:
    return Image(json.dumps({"pk": {"S": name}, "value": {"S": "x" * size}}).encode())


async def units(bench: DynamoRegionBench, request: Request) -> float | None:
    response = await bench.region.execute(request, OPEN)
    assert isinstance(response, Done), response
    return response.units


async def test_a_put_takes_what_was_estimated(bench: DynamoRegionBench) -> None:
    for size in (10, 900, 2500, 20_000):
        put = Put(item_key(key()), item(size), V1, UnstampedOrStampBelow(V1))
        assert await units(bench, put) == units_of(put)
        await bench.region.execute(Delete(put.key, StampBelow(V2)), OPEN)


async def test_a_write_over_a_larger_item_takes_what_that_has(bench: DynamoRegionBench) -> None:
    one = item_key(key())
    await bench.region.execute(Put(one, item(5000), V1, UnstampedOrStampBelow(V1)), OPEN)
    assert await units(bench, Put(one, item(10), V2, AbsentOrStampBelow(V2))) == 5
    await bench.region.execute(Put(one, item(5000), V2, UnstampedOrStampBelow(V2 + "~")), OPEN)
    assert await units(bench, Delete(one, StampBelow(V2 + "~"))) == 5


async def test_a_transaction_takes_twice_as_much(bench: DynamoRegionBench) -> None:
    put = Put(item_key(key()), item(2500), V1, AbsentOrStampBelow(V1))
    told = await units(bench, GuardedPut(put, TombstoneBelow(V1)))
    assert told is not None
    assert 6 <= told <= units_of(GuardedPut(put, TombstoneBelow(V1))) == 8


async def test_a_refused_write_is_charged_by_the_item_in_its_way(bench: DynamoRegionBench) -> None:
    one = item_key(key())
    await bench.region.execute(Put(one, item(5000), V2, UnstampedOrStampBelow(V2)), OPEN)
    put = Put(one, item(10), V1, StampBelow(V1))
    response = await bench.region.execute(put, OPEN)
    assert isinstance(response, Refused)
    assert units_taken(put, units_of(put), response) == 5


async def test_every_other_kind_of_write_tells_its_units_too(bench: DynamoRegionBench) -> None:
    image, stamp = item(), Stamp(at(1), StampKind.VALUE, content_of(item()), NO_PARENT)
    tombstone = Tombstone(at(2), NO_PARENT, content_of(image))
    one, two = item_key(key()), item_key(key("other"))
    requests: list[Request] = [
        RaiseTombstone(item_key(key("t")), V1),
        Replace(two, item(name="other"), Absent()),
        Remove(two, VersionAtMost("n", "N", None)),
        StampedPut(one, image, stamp, Absent()),
        Replace(two, item(name="other"), Absent()),
        Restamp(two, Stamp(at(2), StampKind.MARK, stamp.content, NO_PARENT), StampIs(None)),
        DeleteMarked(two, at(2)),
        MergeTombstone(one, tombstone),
    ]
    for request in requests:
        assert await units(bench, request) == 1, type(request).__name__
