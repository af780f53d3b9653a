"""The contract of look-ups and scans: items of one table by their keys or all, in memory and on a server."""

from __future__ import annotations

import json
from typing import Any

import pytest

from replicator.adapters.aws.clients import Place
from replicator.adapters.aws.transport.connection import Answer
from replicator.adapters.dynamodb import lookups as module
from replicator.adapters.dynamodb.lookups import DynamoLookups
from replicator.adapters.dynamodb.scans import DynamoScan
from replicator.domain.errors import Throttled, Unreachable
from replicator.domain.image import Image, canonical
from replicator.domain.records import ItemKey
from replicator.laboratory.memory import MemoryRegion, MemoryScan, Slot
from replicator.laboratory.memory.lookups import MemoryLookups
from replicator.ports.copying import Scan
from replicator.ports.lookups import MOST_KEYS, Lookups
from tests.contract.worlds import DynamoRegionBench


def key(number: int) -> ItemKey:
    return ItemKey((("pk", "S", f"item-{number}"),))


def item(number: int) -> Image:
    return Image(json.dumps({"value": {"N": str(number)}, "pk": {"S": f"item-{number}"}}).encode())


async def filled(place: Place | None) -> tuple[Lookups, Scan]:
    """A table with every other item of two hundred."""
    slots = {key(number): Slot(item(number)) for number in range(0, 2 * MOST_KEYS, 2)}
    if place is None:
        region = MemoryRegion()
        region.slots.update(slots)
        return MemoryLookups(region.item), MemoryScan(lambda: dict(region.items()), lambda: 1.0, page_items=1000)
    bench = DynamoRegionBench(place, {"pk": "S"})
    await bench.create()
    await bench.seed(slots)
    scan = DynamoScan(place.items, place.dynamodb, region_id="eu", table=bench.table)
    return DynamoLookups(place.items, region_id="eu", table=bench.table), scan


async def test_items_are_found_in_memory_and_missing_ones_are_left_out() -> None:
    lookups, scan = await filled(None)
    await finds_every_other_item(lookups)
    await scans_all_in_pages_of_a_size(scan)


@pytest.mark.servers
async def test_items_are_found_on_a_server_and_missing_ones_are_left_out(dynamo_place: Place) -> None:
    lookups, scan = await filled(dynamo_place)
    await finds_every_other_item(lookups)
    await scans_all_in_pages_of_a_size(scan)


async def finds_every_other_item(table: Lookups) -> None:
    keys = [key(number) for number in range(MOST_KEYS)]
    found = await table.items(keys)
    assert {each: canonical(image) for each, image in found.items.items()} == {
        key(number): canonical(item(number)) for number in range(0, MOST_KEYS, 2)
    }
    assert (await table.items([])).items == {}


async def scans_all_in_pages_of_a_size(table: Scan) -> None:
    found: dict[ItemKey, bytes] = {}
    for segment in range(2):
        after: str | None = None
        while True:
            page = await table.page(segment, 2, after, 30)
            assert len(page.items) <= 30
            found |= {scanned.key: canonical(scanned.image) for scanned in page.items}
            after = page.after
            if after is None:
                break
    assert found == {key(number): canonical(item(number)) for number in range(0, 2 * MOST_KEYS, 2)}
    whole = [await table.page(segment, 2, None) for segment in range(2)]
    assert sum(len(page.items) for page in whole) == MOST_KEYS
    assert all(page.after is None and page.at and page.units for page in whole)


class Scripted:
    """A wire whose answers are written down."""

    def __init__(self, *answers: Any) -> None:
        self.answers = [Answer(200, json.dumps(answer).encode()) for answer in answers]
        self.asked: list[Any] = []

    async def call(self, operation: str, body: bytes, fence: object, what: str, **hints: object) -> Answer:
        assert operation == "BatchGetItem"
        self.asked.append(json.loads(body)["RequestItems"]["orders"])
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]


def scripted(*answers: Any) -> tuple[Scripted, DynamoLookups]:
    wire = Scripted(*answers)
    return wire, DynamoLookups(wire, region_id="eu", table="orders")  # type: ignore[arg-type]


def answer(numbers: list[int], left: list[int], units: float) -> dict[str, Any]:
    return {
        "Responses": {"orders": [json.loads(item(number).wire) for number in numbers]},
        "UnprocessedKeys": {"orders": {"Keys": [json.loads(key(number).wire) for number in left]}} if left else {},
        "ConsumedCapacity": [{"TableName": "orders", "CapacityUnits": units}],
    }


async def test_keys_that_were_left_unprocessed_are_asked_for_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_FIRST_PAUSE_SECONDS", 0.0)
    wire, table = scripted(answer([1], [2, 3], 2.0), answer([3], [], 4.0))
    found = await table.items([key(1), key(2), key(3)])
    assert set(found.items) == {key(1), key(3)}
    assert found.units == 6.0
    assert [asked["ConsistentRead"] for asked in wire.asked] == [True, True]
    assert wire.asked[1]["Keys"] == [json.loads(key(number).wire) for number in (2, 3)]


async def test_a_table_that_leaves_keys_again_and_again_throttles(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_FIRST_PAUSE_SECONDS", 0.0)
    _, table = scripted(answer([], [1], 0.0))
    with pytest.raises(Throttled, match="1 keys unprocessed"):
        await table.items([key(1)])


async def test_an_answer_about_another_table_is_none() -> None:
    _, table = scripted({"Responses": {}})
    with pytest.raises(Unreachable, match="not DynamoDB's"):
        await table.items([key(1)])
