"""The writes of mode `active-active` in memory and on a server: one contract, and the proof that both agree."""

from __future__ import annotations

import itertools
import json
import time
from random import Random
from typing import Any

import pytest
from msgspec.structs import replace

from replicator.adapters.aws.clients import Place
from replicator.adapters.dynamodb.tables import DynamoRegion, fresh_nonce
from replicator.domain.errors import LeaseLost, PoisonRecord, WorldMismatch
from replicator.domain.image import Image, canonical, stamped
from replicator.domain.modes.requests import (
    Absent,
    DeleteMarked,
    Done,
    Found,
    FoundRow,
    GetItem,
    GetSideRow,
    MergeTombstone,
    NoteRemoval,
    RaiseFloor,
    Refused,
    RefusedRow,
    Response,
    Restamp,
    SettleTombstone,
    StampCondition,
    StampedPut,
    StampIs,
    StampRequest,
    Unstamp,
    UnstampedOrBelow,
)
from replicator.domain.records import ItemKey
from replicator.domain.stamps import (
    NO_PARENT,
    NO_ROW,
    SideRow,
    Stamp,
    StampKind,
    Tombstone,
    Version,
    content_of,
    held,
    parse_stamp,
    write_sequence,
)
from replicator.laboratory.memory import MemoryRegion, OpenFence, Slot
from tests.contract.worlds import DynamoRegionBench, RegionBench, Turnstile, gathered

OPEN = OpenFence()
K = ItemKey((("pk", "S", "k"),))
NONCE = "nonce-_8"
Typed = dict[str, Any]


def version(number: int, region: str = "aa") -> Version:
    return Version(1_700_000_000_000_000, 0, region, write_sequence(1_700_000_000_000, number))


V1, V2, V3 = map(version, (1, 2, 3))


def item(name: str = "k", value: str = "a") -> Image:
    return Image(json.dumps({"pk": {"S": name}, "value": {"S": value}}, separators=(",", ":")).encode())


def stamp(at: Version, image: Image, kind: StampKind = StampKind.VALUE) -> Stamp:
    return Stamp(at, kind, content_of(image), NO_PARENT)


def standing(at: Version, image: Image | None = None, kind: StampKind = StampKind.VALUE) -> Image:
    image = item() if image is None else image
    return Image(stamped(image, stamp(at, image, kind).sealed(NONCE)))


def seen(image: Image | None, attribute: str = "_rep") -> StampIs:
    found = held(image, attribute)
    return StampIs(None if found is None else found.seen)


def tombstone(at: Version) -> Tombstone:
    return Tombstone(at, NO_PARENT, content_of(item()))


def known(image: Image | None) -> bytes | None:
    """An item as far as worlds must agree: its content and its stamp, however they are spelled."""
    return None if image is None else canonical(image, "nothing is left out")


async def written(bench: RegionBench, request: StampRequest) -> tuple[Response, Slot]:
    """The answer, and what stands there afterwards."""
    answer = await bench.region.execute(request, OPEN)
    return answer, (await bench.found([K]))[K]


async def test_a_stamped_put_carries_its_stamp_and_a_nonce_of_its_own(region_bench: RegionBench) -> None:
    first, after = await written(region_bench, StampedPut(K, item(), stamp(V1, item()), Absent()))
    refused, _ = await written(region_bench, StampedPut(K, item(), stamp(V2, item()), Absent()))
    assert first == Done()
    assert isinstance(refused, Refused)
    assert refused.item is not None
    assert known(refused.item) == known(after.item)
    assert after.item is not None
    assert after.item.stamp is not None
    assert parse_stamp(after.item.stamp) == stamp(V1, item())
    _, again = await written(region_bench, StampedPut(K, item(), stamp(V1, item()), seen(after.item)))
    assert again.item is not None
    assert again.item.stamp != after.item.stamp


async def test_a_stamp_is_set_and_nothing_else_is_touched(region_bench: RegionBench) -> None:
    image = Image(b'{"pk":{"S":"k"},"n":{"N":"1.50"},"s":{"SS":["b","a"]},"m":{"M":{"_rep":{"S":"x"}}}}')
    await region_bench.seed({K: Slot(image)})
    answer, after = await written(region_bench, Restamp(K, stamp(V1, image), StampIs(None)))
    assert answer == Done()
    assert after.item is not None
    assert canonical(after.item) == canonical(image)
    refused, _ = await written(region_bench, Restamp(K, stamp(V2, image), StampIs(None)))
    assert isinstance(refused, Refused)
    assert known(refused.item) == known(after.item)


async def test_a_stamp_is_never_set_where_no_item_stands(region_bench: RegionBench) -> None:
    for when in (StampIs(None), seen(standing(V1))):
        answer, after = await written(region_bench, Restamp(K, stamp(V2, item()), when))
        assert answer == Refused()
        assert after == Slot()


async def test_a_stamp_is_taken_off_as_it_was_seen_and_nothing_else_is_touched(region_bench: RegionBench) -> None:
    image = standing(V1, Image(b'{"pk":{"S":"k"},"n":{"N":"1.50"},"m":{"M":{"_rep":{"S":"x"}}}}'))
    assert await written(region_bench, Unstamp(K, seen(image))) == (Refused(), Slot())
    await region_bench.seed({K: Slot(image)})
    refused, after = await written(region_bench, Unstamp(K, seen(standing(V2))))
    assert isinstance(refused, Refused)
    assert known(refused.item) == known(after.item) == known(image)
    answer, after = await written(region_bench, Unstamp(K, seen(image)))
    assert answer == Done()
    assert known(after.item) == canonical(image)


async def test_only_the_delete_that_marked_an_item_deletes_it(region_bench: RegionBench) -> None:
    for image in (standing(V2), standing(V1, kind=StampKind.MARK), item()):
        await region_bench.seed({K: Slot(image)})
        answer, after = await written(region_bench, DeleteMarked(K, V2))
        assert isinstance(answer, Refused)
        assert known(answer.item) == known(after.item) == known(image)
    await region_bench.seed({K: Slot(standing(V2, kind=StampKind.MARK))})
    assert await written(region_bench, DeleteMarked(K, V2)) == (Done(), Slot())
    assert await written(region_bench, DeleteMarked(K, V2)) == (Refused(), Slot())


async def test_a_tombstone_of_another_region_only_rises_and_keeps_the_rest(region_bench: RegionBench) -> None:
    row = SideRow(None, V1, 7, V1)
    await region_bench.seed({K: Slot(None, None, row)})
    answer, after = await written(region_bench, MergeTombstone(K, tombstone(V2)))
    assert (answer, after.row) == (Done(), replace(row, tombstone=tombstone(V2)))
    for lower in (V1, V2):
        assert await written(region_bench, MergeTombstone(K, tombstone(lower))) == (RefusedRow(after.row), after)


async def test_an_own_tombstone_is_written_only_over_what_was_read(region_bench: RegionBench) -> None:
    answer, after = await written(region_bench, SettleTombstone(K, NO_ROW, tombstone(V2), 9))
    assert (answer, after.row) == (Done(), SideRow(tombstone(V2), None, 9, V2))
    refused = RefusedRow(after.row)
    assert (await written(region_bench, SettleTombstone(K, NO_ROW, tombstone(V3), 9)))[0] == refused
    other_floor = replace(after.row, floor=V1)
    assert (await written(region_bench, SettleTombstone(K, other_floor, tombstone(V3), 9)))[0] == refused
    kept, after = await written(region_bench, SettleTombstone(K, after.row, tombstone(V3), None))
    assert (kept, after.row) == (Done(), SideRow(tombstone(V3), None, 9, V2))


async def test_a_floor_is_written_only_over_what_was_read(region_bench: RegionBench) -> None:
    answer, after = await written(region_bench, RaiseFloor(K, NO_ROW, V1))
    assert (answer, after.row) == (Done(), SideRow(floor=V1))
    assert (await written(region_bench, RaiseFloor(K, NO_ROW, V2)))[0] == RefusedRow(after.row)
    assert (await written(region_bench, RaiseFloor(K, after.row, V2)))[1].row == SideRow(floor=V2)


async def test_a_removal_is_noted_unless_a_later_one_is(region_bench: RegionBench) -> None:
    for removed, expected in ((V2, V2), (V1, V2), (V2, V2), (V3, V3)):
        answer, after = await written(region_bench, NoteRemoval(K, removed.sequence, removed))
        assert after.row == SideRow(removed_at=expected.sequence, removed=expected)
        assert answer == (Done() if removed == expected else RefusedRow(after.row))


async def test_a_row_that_is_not_there_is_empty(region_bench: RegionBench) -> None:
    assert await region_bench.region.execute(GetSideRow(K), OPEN) == FoundRow(NO_ROW)


async def test_no_stamp_is_sent_behind_a_fallen_fence(region_bench: RegionBench) -> None:
    requests: list[StampRequest] = [
        StampedPut(K, item(), stamp(V2, item()), Absent()),
        Restamp(K, stamp(V2, item()), StampIs(None)),
        DeleteMarked(K, V2),
        MergeTombstone(K, tombstone(V2)),
        GetSideRow(K),
    ]
    for request in requests:
        with pytest.raises(LeaseLost):
            await region_bench.region.execute(request, Turnstile(LeaseLost("The lease is gone.")))
    assert (await region_bench.found([K]))[K] == Slot()


async def test_a_stamp_that_no_longer_fits_is_poison(region_bench: RegionBench) -> None:
    refused = await region_bench.refuse(K, item())
    with pytest.raises(PoisonRecord):
        await region_bench.region.execute(StampedPut(K, refused, stamp(V1, refused), Absent()), OPEN)
    assert (await region_bench.found([K]))[K] == Slot()


def test_nonces_are_eight_characters_that_a_stamp_may_end_with() -> None:
    nonces = {fresh_nonce() for _ in range(200)}
    assert len(nonces) == 200
    assert all(parse_stamp(stamp(V1, item()).sealed(nonce)) is not None for nonce in nonces)


@pytest.mark.servers
async def test_every_write_of_a_row_moves_its_expiry_forward(dynamo_place: Place) -> None:
    server = DynamoRegionBench(dynamo_place, {"pk": "S"})
    await server.create()
    requests: list[StampRequest] = [
        MergeTombstone(K, tombstone(V1)),
        SettleTombstone(K, SideRow(tombstone(V1)), tombstone(V2), 1),
        RaiseFloor(K, SideRow(tombstone(V2)), V1),
        NoteRemoval(K, 2, V3),
    ]
    for request in requests:
        before = int(time.time()) + 7 * 86_400
        assert await server.region.execute(request, OPEN) == Done()
        row = await server.side_row(K)
        assert before <= int(row["exp"]["N"]) <= before + 60
        assert row["sv"] == {"N": "1"}


@pytest.mark.servers
async def test_a_row_of_another_mode_is_refused_with_a_sentence(dynamo_place: Place) -> None:
    server = DynamoRegionBench(dynamo_place, {"pk": "S"})
    await server.create()
    await server.seed({K: Slot(None, "7" * 56)})
    with pytest.raises(WorldMismatch, match="no version of mode active-active"):
        await server.region.execute(GetSideRow(K), OPEN)


# -- agreement -----------------------------------------------------------------------------------------------------

OTHERS: list[Typed] = [
    {"N": "1.50"},
    {"B": "AAE="},
    {"NULL": True},
    {"BOOL": False},
    {"SS": ["b", "a"]},
    {"M": {"S": {"S": "x"}}},
    {"S": ""},
    {"S": "zz"},
]
"""What a user may have put where a stamp belongs."""


def random_version(dice: Random) -> Version:
    """Often close to another one."""
    return Version(dice.randrange(2), dice.randrange(2), dice.choice(["aa", "bb"]), dice.randrange(3))


def random_item(dice: Random, where: ItemKey, attribute: str) -> Image | None:
    """Nothing, or an item: unstamped, stamped, marked, or with something else in the stamp's place."""
    image = plain(dice, where)
    match dice.randrange(8):
        case 0:
            return None
        case 1:
            return image
        case 2:
            typed = dice.choice(OTHERS)
            return Image(json.dumps({**image.attributes, attribute: typed}, separators=(",", ":")).encode())
        case 3:
            return Image(stamped(image, random_version(dice).text, attribute))
        case _:
            sealed = stamp(random_version(dice), image, dice.choice(list(StampKind))).sealed(NONCE)
            return Image(stamped(image, sealed, attribute))


def plain(dice: Random, where: ItemKey) -> Image:
    """An item without a stamp."""
    attributes = {**json.loads(where.wire), "value": {"S": dice.choice("ab")}}
    return Image(json.dumps(attributes, separators=(",", ":")).encode())


def random_row(dice: Random) -> SideRow:
    def some() -> Version | None:
        return random_version(dice) if dice.random() < 0.6 else None

    deleted, removed = some(), some()
    return SideRow(
        tombstone=None if deleted is None else tombstone(deleted),
        floor=some(),
        removed_at=None if removed is None else dice.randrange(1000),
        removed=removed,
    )


def random_condition(dice: Random, there: Image | None, other: Image | None, attribute: str) -> StampCondition:
    """A condition of each kind; often about exactly what stands there."""
    match dice.randrange(4):
        case 0:
            return Absent()
        case 1:
            return UnstampedOrBelow(random_version(dice))
        case 2:
            return seen(there, attribute)
        case _:
            return seen(other, attribute)


def requests_for(dice: Random, where: ItemKey, slot: Slot, attribute: str) -> list[GetItem | StampRequest]:
    """A request of every kind, often about what stands there."""
    new = plain(dice, where)
    when = random_condition(dice, slot.item, random_item(dice, where, attribute), attribute)
    at, row = random_version(dice), slot.row if dice.random() < 0.6 else random_row(dice)
    found = held(slot.item, attribute)
    marked = found.version if found is not None and found.version is not None and dice.random() < 0.7 else at
    return [
        GetItem(where),
        StampedPut(where, new, stamp(at, new, dice.choice(list(StampKind))), when),
        Restamp(where, stamp(at, new), when if isinstance(when, StampIs) else seen(slot.item, attribute)),
        Unstamp(where, when if isinstance(when, StampIs) else seen(slot.item, attribute)),
        DeleteMarked(where, marked),
        GetSideRow(where),
        MergeTombstone(where, tombstone(at)),
        SettleTombstone(where, row, tombstone(at), dice.choice([None, 5])),
        RaiseFloor(where, row, at),
        NoteRemoval(where, dice.randrange(1000), at),
    ]


def cases(dice: Random, rounds: int, attribute: str) -> list[tuple[Slot, GetItem | StampRequest]]:
    """Random states under requests of every kind; one key per case."""
    made = []
    for number, kind in itertools.product(range(rounds), range(10)):
        where = ItemKey((("a", "N", str(number)), ("pk", "S", f"case {number} {kind}")))
        slot = Slot(random_item(dice, where, attribute), None, random_row(dice))
        made.append((slot, requests_for(dice, where, slot, attribute)[kind]))
    return made


def comparable(response: Response) -> object:
    match response:
        case Refused(there):
            return "refused", known(there)
        case Found(there):
            return "found", known(there)
        case _:
            return response


@pytest.mark.servers
@pytest.mark.parametrize("attribute", ["_rep", "sync-stamp"])
async def test_stamps_and_rows_evaluated_in_memory_and_rendered_for_a_server_agree(
    dynamo_place: Place, attribute: str
) -> None:
    made = cases(Random(f"stamps in {attribute}"), rounds=360, attribute=attribute)
    assert len(made) == 3600
    start = {request.key: slot for slot, request in made}
    server = DynamoRegionBench(dynamo_place, {"pk": "S", "a": "N"})
    memory = MemoryRegion(nonce=lambda: NONCE, stamp_attribute=attribute)
    region = server.region
    assert isinstance(region, DynamoRegion)
    region._nonce, region._stamp = (lambda: NONCE), attribute
    await server.create()
    await server.seed(start)
    memory.slots.update(start)
    told = await gathered([region.execute(request, OPEN) for _, request in made])
    after = await server.found(list(start))
    differences = []
    for (slot, request), response in zip(made, told, strict=True):
        expected = comparable(memory.carry_out(request))
        left, right = memory.slot(request.key), after[request.key]
        same = (known(left.item), left.row) == (known(right.item), right.row)
        if comparable(response) != expected or not same:
            differences.append((slot, request, comparable(response), expected, same))
    assert differences == []
    assert {type(response) for response in told} == {Done, Refused, RefusedRow, Found, FoundRow}
