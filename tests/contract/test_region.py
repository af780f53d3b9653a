"""The contract of a region, in memory and on a server, and the proof that both agree."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from random import Random

import pytest

from replicator.adapters.aws.clients import Place
from replicator.domain.conflicts import ConflictKind, LogConflict
from replicator.domain.errors import LeaseLost, PoisonRecord, ReplicatorError, SchemaMismatch, TableMissing
from replicator.domain.image import Image, canonical, stamped, unreserved
from replicator.domain.item_size import LARGEST_ITEM, STAMP_BYTES, excess, item_size
from replicator.domain.modes.requests import (
    Absent,
    AbsentOrStampBelow,
    Condition,
    ContentIs,
    Delete,
    Done,
    Found,
    GetItem,
    GetTombstone,
    GuardedPut,
    Put,
    RaiseTombstone,
    Refused,
    Request,
    Response,
    SeenCondition,
    StampBelow,
    StampIs,
    TombstoneBelow,
    TombstoneIs,
    UnstampedOrStampBelow,
)
from replicator.domain.records import ItemKey
from replicator.domain.stamps import held as held_item
from replicator.domain.versions import ordered_version
from replicator.laboratory.memory import EMPTY, MemoryRegion, OpenFence, Slot
from tests.contract.worlds import DynamoRegionBench, RegionBench, Turnstile, gathered

V1, V2, V3 = (ordered_version(0, 1_700_000_000_000, number) for number in (1, 2, 3))
OPEN = OpenFence()


def key(name: str) -> ItemKey:
    return ItemKey((("pk", "S", name),))


def item(name: str, value: str = "a") -> Image:
    return Image(json.dumps({"pk": {"S": name}, "value": {"S": value}}, separators=(",", ":")).encode())


def held(name: str, version: str, value: str = "a") -> Image:
    return Image(stamped(item(name, value), version))


def seen(image: Image | None) -> tuple[bytes, object] | None:
    """An item as far as worlds must agree: its content and its stamp, however they are spelled."""
    return None if image is None else (canonical(image), image.attributes.get("_rep"))


K = key("k")


async def test_an_item_is_put_where_nothing_stands(region_bench: RegionBench) -> None:
    put = Put(K, item("k"), V1, AbsentOrStampBelow(V1))
    assert await region_bench.region.execute(put, OPEN) == Done()
    found = await region_bench.found([K])
    assert seen(found[K].item) == seen(held("k", V1))


async def test_a_refused_put_tells_what_stands_there(region_bench: RegionBench) -> None:
    await region_bench.seed({K: Slot(held("k", V2, "newer"))})
    answer = await region_bench.region.execute(Put(K, item("k"), V1, StampBelow(V1)), OPEN)
    assert isinstance(answer, Refused)
    assert not answer.by_tombstone
    assert answer.item is not None
    assert answer.item.stamp == V2
    assert seen(answer.item) == seen(held("k", V2, "newer"))


async def test_a_put_that_needs_an_item_is_refused_with_nothing(region_bench: RegionBench) -> None:
    assert await region_bench.region.execute(Put(K, item("k"), V1, StampBelow(V1)), OPEN) == Refused()
    assert (await region_bench.found([K]))[K] == EMPTY


async def test_a_guarded_put_is_refused_by_a_tombstone_as_a_whole(region_bench: RegionBench) -> None:
    await region_bench.seed({K: Slot(None, V2)})
    put = GuardedPut(Put(K, item("k"), V1, AbsentOrStampBelow(V1)), TombstoneBelow(V1))
    assert await region_bench.region.execute(put, OPEN) == Refused(by_tombstone=True)
    assert (await region_bench.found([K]))[K] == Slot(None, V2)


async def test_a_guarded_put_is_refused_by_an_item_that_it_tells(region_bench: RegionBench) -> None:
    await region_bench.seed({K: Slot(item("k", "foreign"), V1)})
    put = GuardedPut(Put(K, item("k"), V2, AbsentOrStampBelow(V2)), TombstoneBelow(V2))
    answer = await region_bench.region.execute(put, OPEN)
    assert isinstance(answer, Refused)
    assert not answer.by_tombstone
    assert seen(answer.item) == seen(item("k", "foreign"))


async def test_a_tombstone_only_rises(region_bench: RegionBench) -> None:
    region = region_bench.region
    assert await region.execute(GetTombstone(K), OPEN) == Found()
    assert await region.execute(RaiseTombstone(K, V2), OPEN) == Done()
    assert await region.execute(RaiseTombstone(K, V1), OPEN) == Refused(by_tombstone=True)
    assert await region.execute(GetTombstone(K), OPEN) == Found(tombstone=V2)
    assert await region.execute(RaiseTombstone(K, V3), OPEN) == Done()
    assert await region.execute(GetTombstone(K), OPEN) == Found(tombstone=V3)


async def test_deleting_nothing_succeeds(region_bench: RegionBench) -> None:
    assert await region_bench.region.execute(Delete(K, AbsentOrStampBelow(V1)), OPEN) == Done()


@pytest.mark.parametrize(
    "attributes",
    [
        {
            "n": {"N": "12345678901234567890123456789012345678"},
            "small": {"N": "-0.00000000000000000000000000000000001"},
        },
        {"s": {"SS": ["a", "b", "ü"]}, "n": {"NS": ["1", "2.5"]}, "b": {"BS": ["AA==", "AQI="]}},
        {"empty": {"S": ""}, "bytes": {"B": ""}, "nothing": {"NULL": True}, "no": {"BOOL": False}},
        {"deep": {"M": {"list": {"L": [{"M": {}}, {"L": []}, {"S": '\u6f22\n"\\'}]}, "_rep": {"S": "not ours"}}}},
        {"key with : # and space": {"S": "x"}, "\u6f22": {"S": "y"}},
    ],
    ids=["numbers", "sets", "empty values", "nested", "names"],
)
async def test_every_kind_of_value_arrives_unchanged(region_bench: RegionBench, attributes: dict[str, object]) -> None:
    content = Image(json.dumps({"pk": {"S": "k"}, **attributes}, separators=(",", ":"), ensure_ascii=False).encode())
    await region_bench.region.execute(Put(K, content, V1, AbsentOrStampBelow(V1)), OPEN)
    answer = await region_bench.region.execute(GetItem(K), OPEN)
    assert isinstance(answer, Found)
    assert seen(answer.item) == seen(Image(stamped(content, V1)))


async def test_nothing_is_sent_behind_a_fence_that_fell(region_bench: RegionBench) -> None:
    requests: list[Request] = [
        Put(K, item("k"), V2, AbsentOrStampBelow(V2)),
        GuardedPut(Put(K, item("k"), V2, AbsentOrStampBelow(V2)), TombstoneBelow(V2)),
        Delete(K, AbsentOrStampBelow(V2)),
        RaiseTombstone(K, V2),
    ]
    before = Slot(held("k", V1), V1)
    await region_bench.seed({K: before})
    for request in requests:
        with pytest.raises(LeaseLost):
            await region_bench.region.execute(request, Turnstile(LeaseLost("The lease is gone.")))
    after = (await region_bench.found([K]))[K]
    assert (seen(after.item), after.tombstone) == (seen(before.item), V1)


async def test_the_fence_is_checked_once_before_every_send(region_bench: RegionBench) -> None:
    fence = Turnstile()
    for request in (Put(K, item("k"), V1, AbsentOrStampBelow(V1)), RaiseTombstone(K, V1), Delete(K, StampBelow(V2))):
        await region_bench.region.execute(request, fence)
    assert fence.passed == 3


async def test_an_item_that_can_never_be_held_is_poison(region_bench: RegionBench) -> None:
    refused = await region_bench.refuse(K, item("k"))
    put = Put(K, refused, V1, AbsentOrStampBelow(V1))
    for request in (put, GuardedPut(put, TombstoneBelow(V1))):
        with pytest.raises(PoisonRecord):
            await region_bench.region.execute(request, OPEN)
    assert (await region_bench.found([K]))[K] == EMPTY


@pytest.mark.servers
async def test_a_table_with_another_key_is_no_fault_of_the_item(dynamo_place: Place) -> None:
    put = Put(K, item("k"), V1, AbsentOrStampBelow(V1))
    read, delete, guarded = GetItem(K), Delete(K, StampBelow(V1)), GuardedPut(put, TombstoneBelow(V1))
    requests: list[tuple[dict[str, str], tuple[Request, ...]]] = [
        ({"other": "S"}, (put, read, delete)),
        ({"pk": "N"}, (put, read, delete, guarded)),
    ]
    for keys, refused in requests:
        bench = DynamoRegionBench(dynamo_place, keys)
        await bench.create()
        for request in refused:
            with pytest.raises(SchemaMismatch):
                await bench.region.execute(request, OPEN)


@pytest.mark.servers
async def test_an_item_is_as_large_as_we_count_it(dynamo_place: Place) -> None:
    """At the bound it is taken, and one byte more is refused, here and there."""
    bench = DynamoRegionBench(dynamo_place, {"pk": "S"})
    await bench.create()
    mixed = {
        "pk": {"S": "k"},
        "n": {"N": "12.5"},
        "l": {"L": [{"BOOL": True}, {"NULL": True}, {"NS": ["1", "20"]}, {"BS": ["AAE="]}]},
        "m": {"M": {"\u00fc": {"B": "AAE="}, "s": {"SS": ["a", "bc"]}}},
    }
    room = LARGEST_ITEM - STAMP_BYTES - item_size(Image(json.dumps({**mixed, "x": {"S": ""}}).encode()))
    fits, over = (Image(json.dumps({**mixed, "x": {"S": "y" * length}}).encode()) for length in (room, room + 1))
    assert (excess(fits, STAMP_BYTES), excess(over, STAMP_BYTES)) == (None, LARGEST_ITEM + 1)
    assert await bench.region.execute(Put(K, fits, V1, AbsentOrStampBelow(V1)), OPEN) == Done()
    with pytest.raises(PoisonRecord):
        await bench.region.execute(Put(K, over, V1, AbsentOrStampBelow(V1)), OPEN)


async def test_a_conflict_entry_is_no_business_of_a_table(region_bench: RegionBench) -> None:
    with pytest.raises(ReplicatorError, match="conflict log"):
        await region_bench.region.execute(LogConflict(K, ConflictKind.UNVERSIONED, V1, None, None), OPEN)


@pytest.mark.servers
async def test_a_missing_table_is_named(dynamo_place: Place) -> None:
    bench = DynamoRegionBench(dynamo_place, {"pk": "S"})
    put = Put(K, item("k"), V1, AbsentOrStampBelow(V1))
    for request in (put, RaiseTombstone(K, V1), GetItem(K)):
        with pytest.raises(TableMissing, match=r"(orders|side)-.* in eu"):
            await bench.region.execute(request, OPEN)


async def test_a_repair_writes_only_on_what_it_saw(region_bench: RegionBench) -> None:
    region = region_bench.region
    await region_bench.seed({K: Slot(item("k", "foreign"), V2)})
    put = Put(K, item("k"), V2, StampIs(None))
    assert await region.execute(GuardedPut(put, TombstoneIs(V1)), OPEN) == Refused(by_tombstone=True)
    assert await region.execute(Delete(K, ContentIs(item("k"))), OPEN) != Done()
    assert await region.execute(GuardedPut(put, TombstoneIs(V2)), OPEN) == Done()
    assert await region.execute(Delete(K, ContentIs(item("k"))), OPEN) != Done()
    assert await region.execute(Put(K, item("k", "b"), V2, StampIs(b'{"S":"%b"}' % V2.encode())), OPEN) == Done()
    assert await region.execute(Put(K, item("k"), V3, Absent()), OPEN) != Done()
    assert await region.execute(Delete(K, StampIs(b'{"S":"%b"}' % V2.encode())), OPEN) == Done()
    assert await region.execute(Put(K, item("k"), V3, Absent()), OPEN) == Done()
    assert seen((await region_bench.found([K]))[K].item) == seen(held("k", V3))


async def test_a_condition_on_content_does_not_notice_an_attribute_that_came(region_bench: RegionBench) -> None:
    less, other = Image(b'{"pk":{"S":"k"},"m":{"M":{}}}'), Image(b'{"pk":{"S":"k"},"m":{"M":{"n":{"N":"1"}}}}')
    there = Image(b'{"pk":{"S":"k"},"m":{"M":{"n":{"N":"1.0"}}},"came":{"L":[]}}')
    await region_bench.seed({K: Slot(there)})
    assert seen((await region_bench.found([K]))[K].item) == seen(there)
    assert await region_bench.region.execute(Delete(K, ContentIs(less)), OPEN) != Done()
    assert await region_bench.region.execute(Delete(K, ContentIs(other)), OPEN) == Done()


# -- agreement -----------------------------------------------------------------------------------------------------

STAMPS: list[Callable[[Image, str, str, str], Image | None]] = [
    lambda _image, _low, _same, _high: None,
    lambda image, _low, _same, _high: image,
    lambda image, low, _same, _high: Image(stamped(image, low)),
    lambda image, _low, same, _high: Image(stamped(image, same)),
    lambda image, _low, _same, high: Image(stamped(image, high)),
    lambda image, _low, same, _high: Image(stamped(image, same + "!P")),
    lambda image, _low, same, _high: Image(stamped(image, same[:-1])),
    lambda image, _low, _same, _high: Image(stamped(image, "")),
    lambda image, _low, _same, _high: Image(stamped(image, "zz")),
    lambda image, _low, _same, _high: Image(image.wire[:-1] + b',"_rep":{"N":"0"}}'),
    lambda image, _low, _same, _high: Image(image.wire[:-1] + b',"_rep":{"B":"AA=="}}'),
    lambda image, _low, _same, _high: Image(image.wire[:-1] + b',"_rep":{"NULL":true}}'),
    lambda image, _low, same, _high: Image(image.wire[:-1] + b',"_rep":{"SS":["' + same.encode() + b'"]}}'),
]
CONDITIONS: list[type[Condition]] = [StampBelow, AbsentOrStampBelow, UnstampedOrStampBelow]
KINDS = 15
KEYS = {
    "one key attribute": {"pk": "S"},
    "a number as sort key, first by name": {"pk": "S", "a": "N"},
}


def as_seen(dice: Random, standing: Slot, new: Image) -> SeenCondition:
    """A condition of a repair, often on what stands there."""
    there = held_item(standing.item)
    stamps = [None, b'{"S":"another"}', *([] if there is None else [there.seen])]
    contents = [new, *([] if standing.item is None else [unreserved(standing.item)] * 2)]
    choices: list[SeenCondition] = [Absent(), StampIs(dice.choice(stamps)), ContentIs(dice.choice(contents))]
    return dice.choice(choices)


def requests_for(dice: Random, where: ItemKey, standing: Slot, new: Image, version: str) -> list[Request]:
    """Every kind of request at one version, and those of repairs on what stands there."""
    repair = Put(where, new, version, as_seen(dice, standing, new))
    puts = [Put(where, new, version, when(version)) for when in CONDITIONS]
    return [
        *puts,
        *(GuardedPut(put, TombstoneBelow(version)) for put in puts),
        *(Delete(where, when(version)) for when in CONDITIONS),
        RaiseTombstone(where, version),
        GetItem(where),
        GetTombstone(where),
        repair,
        GuardedPut(repair, TombstoneIs(dice.choice([version, standing.tombstone or version]))),
        Delete(where, as_seen(dice, standing, new)),
    ]


def random_value(dice: Random) -> object:
    return dice.choice(
        [
            {"S": "".join(dice.choices('aü\u6f22 "\\', k=dice.randrange(4)))},
            {"N": str(dice.randrange(10**38))},
            {"N": f"{dice.randrange(-99, 99)}.5"},
            {"BOOL": dice.random() < 0.5},
            {"NULL": True},
            {"B": "AAE="},
            {"SS": ["a", "b"]},
            {"M": {"inner": {"L": [{"N": "1"}, {"M": {}}]}}},
        ]
    )


def random_item(dice: Random, where: ItemKey) -> Image:
    attributes = {name: random_value(dice) for name in dice.sample(["x", "y", "Z#1", "version"], dice.randrange(4))}
    return Image(
        json.dumps({**json.loads(where.wire), **attributes}, separators=(",", ":"), ensure_ascii=False).encode()
    )


def random_versions(dice: Random) -> tuple[str, str, str]:
    """Three rising versions, often close to each other."""
    middle = dice.choice([dice.randrange(1, 100), dice.randrange(1, 10**39)])
    distance = dice.choice([1, dice.randrange(1, middle + 1)])
    low, same, high = (ordered_version(0, 17, number) for number in (middle - distance, middle, middle + distance))
    return low, same, high


def cases(dice: Random, keys: dict[str, str], rounds: int) -> list[tuple[Slot, Request]]:
    """Every state of a key under every request, with other content and versions in every round; one key per case."""
    made: list[tuple[Slot, Request]] = []
    shapes = itertools.product(range(rounds), STAMPS, range(4), range(KINDS))
    for number, (_, stamp, tombstone, kind) in enumerate(shapes):
        parts = {"pk": ("S", f"case {number}"), "a": ("N", str(number))}
        where = ItemKey(tuple((name, *parts[name]) for name in sorted(keys)))
        low, same, high = random_versions(dice)
        standing = Slot(stamp(random_item(dice, where), low, same, high), [None, low, same, high][tombstone])
        made.append((standing, requests_for(dice, where, standing, random_item(dice, where), same)[kind]))
    return made


def where_of(request: Request) -> ItemKey:
    return request.put.key if isinstance(request, GuardedPut) else request.key


def comparable(response: Response) -> object:
    match response:
        case Refused(standing, by_tombstone):
            return "refused", seen(standing), by_tombstone
        case Found(standing, tombstone):
            return "found", seen(standing), tombstone
        case _:
            return "done"


@pytest.mark.servers
@pytest.mark.parametrize("rounds", [1, pytest.param(3, marks=pytest.mark.long)])
@pytest.mark.parametrize("keys", KEYS.values(), ids=KEYS)
async def test_conditions_evaluated_in_memory_and_rendered_for_a_server_agree(
    dynamo_place: Place, keys: dict[str, str], rounds: int
) -> None:
    made = cases(Random("agreement" + "".join(keys)), keys, rounds)
    assert len(made) == rounds * 13 * 4 * KINDS
    start = {where_of(request): slot for slot, request in made}
    server, memory = DynamoRegionBench(dynamo_place, keys), MemoryRegion()
    await server.create()
    await server.seed(start)
    memory.slots.update(start)
    told = await gathered([server.region.execute(request, OPEN) for _, request in made])
    after = await server.found(list(start))
    differences = []
    for (slot, request), response in zip(made, told, strict=True):
        expected = memory.carry_out(request)
        left, right = memory.slot(where_of(request)), after[where_of(request)]
        same_state = (seen(left.item), left.tombstone) == (seen(right.item), right.tombstone)
        if comparable(response) != comparable(expected) or not same_state:
            differences.append((slot, request, comparable(response), comparable(expected), same_state))
    assert differences == []
    outcomes = {str(comparable(response)).split("'")[1] if response != Done() else "done" for response in told}
    assert outcomes == {"done", "refused", "found"}
