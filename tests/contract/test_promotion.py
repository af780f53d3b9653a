"""A loser that is written again: what is planned, and that it is written only onto what was shown."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from replicator.adapters.dynamodb.conflict_log import stored
from replicator.domain.conflict_document import document
from replicator.domain.conflicts import ConflictEntry, ConflictKind, LogConflict, Operation, Reason, Witness
from replicator.domain.identifiers import RegionId, RuleName, SequenceNumber, ShardId, TableName
from replicator.domain.image import Image
from replicator.domain.records import ItemKey
from replicator.operations import promotion
from replicator.operations.conflict_entries import ConflictEntries, EntryFilter, EntryUnknown, find
from replicator.operations.promotion import Promotion, PromotionRefused, PromotionRequest
from tests.contract.ruled_regions import ORDERED, Item, Regions, mesh, ruled

pytestmark = [pytest.mark.servers, pytest.mark.usefixtures("account")]

KEY = {"pk": {"S": "a"}, "sk": {"N": "1"}}
SHOWN: Item = {**KEY, "note": {"S": "won"}, "tags": {"SS": ["b", "a"]}, "map": {"M": {}}}
LOST: Item = {**KEY, "note": {"S": "lost"}, "ver": {"N": "3"}}


@pytest.fixture
async def ordered(dynamodb_url: str) -> AsyncIterator[Regions]:
    async with ruled(dynamodb_url, ORDERED) as regions:
        yield regions


def image(item: Item) -> Image:
    return Image(json.dumps(item).encode())


async def logged(regions: Regions, lost: Item | None = LOST, *, masked: str = "", bound: int = 390_000) -> str:
    """An entry of the conflict log with this loser, which lost in eu (None: a delete that lost); its id."""
    put = lost is not None
    conflict = LogConflict(
        key=ItemKey((("pk", "S", "a"), ("sk", "N", "1"))),
        kind=ConflictKind.PUT_PUT if put else ConflictKind.PUT_DELETE,
        winner_version="1!P!w",
        winner=image({**KEY, "note": {"S": "won"}, "ver": {"N": "7"}}),
        loser=None if lost is None else image(lost),
        reason=Reason.VERSION,
        loser_version="1!P!l",
        winner_region="us",
        loser_region="eu",
        loser_op=Operation.PUT if put else Operation.DELETE,
    )
    witness = Witness(RegionId("us"), ShardId("shard-1"), SequenceNumber("17"))
    mode = regions.settings.rules[0].mode
    entry = ConflictEntry(conflict, TableName("orders"), RuleName("orders"), mode, witness, 1_790_000_000.0)
    row = stored(document(entry, frozenset({masked}), bound))
    row |= {"item": {"S": entry.item}, "exp": {"N": "4102444800"}}
    await regions.put("us", row, "replicator-conflicts-test")
    return entry.id


async def planned(regions: Regions, entry_id: str, **asked: Any) -> Promotion:
    return await promotion.plan(regions.group, PromotionRequest(entry_id, **asked))


async def promoted(regions: Regions, entry_id: str, **asked: Any) -> Promotion:
    """The same, written."""
    done = await planned(regions, entry_id, **asked)
    assert await promotion.write(regions.group, done) == []
    return done


# -- what is planned -----------------------------------------------------------------------------------------------


async def test_an_entry_is_found_by_a_part_of_its_id_and_by_its_key(ordered: Regions) -> None:
    entry_id = await logged(ordered)
    entries = ConflictEntries(ordered.group)
    assert (await entries.one(entry_id[:8]))["key"] == KEY
    wanted = EntryFilter(key='{"pk": "a", "sk": 1}')
    assert [entry["id"] for entry in await find(ordered.group, wanted)] == [entry_id]
    for unknown in ("0" * 64, "0000", "xyz!"):
        with pytest.raises(EntryUnknown):
            await entries.one(unknown)


async def test_in_mode_ordered_a_loser_goes_to_the_source_without_a_stamp(ordered: Regions) -> None:
    entry_id = await logged(ordered, {**LOST, "_rep": {"S": "0" * 56}})
    done = await promoted(ordered, entry_id)
    assert (done.region, done.table, done.before) == ("us", "orders", None)
    assert [await ordered.items(region) for region in ("us", "eu")] == [[LOST], []]
    with pytest.raises(PromotionRefused, match="do not write in region eu"):
        await planned(ordered, entry_id, region="eu")
    with pytest.raises(PromotionRefused, match="--version has no meaning"):
        await planned(ordered, entry_id, version="1")


async def test_in_mode_versioned_a_loser_gets_a_version_above_item_and_tombstone(dynamodb_url: str) -> None:
    async with ruled(dynamodb_url, mesh("versioned")) as regions:
        entry_id = await logged(regions)
        await regions.put("eu", {**KEY, "note": {"S": "won"}, "ver": {"N": "7.5"}})
        assert (await promoted(regions, entry_id)).region == "eu"
        assert await regions.items("eu") == [{**LOST, "ver": {"N": "8"}}]
        await promoted(regions, entry_id, region="us", version="20")
        assert await regions.items("us") == [{**LOST, "ver": {"N": "20"}}]
        with pytest.raises(PromotionRefused, match="not above"):
            await planned(regions, entry_id, region="us", version="19")
        deleted = {"k": {"S": 'orders|[["pk","S","a"],["sk","N","1"]]'}, "v": {"S": "35014"}}  # at version 40
        await regions.put("eu", deleted, "replicator-side-test")
        item = (await planned(regions, entry_id)).item
        assert item is not None
        assert item.attributes["ver"] == {"N": "41"}


@pytest.mark.parametrize(
    ("version", "standing"),
    [
        ({"attribute": "ver", "type": "time"}, "2026-01-01T00:00:00.123Z"),
        ({"attribute": "ver", "type": "string", "width": 3}, "abc"),
    ],
)
async def test_text_versions_are_raised_where_it_is_known_how(
    dynamodb_url: str, version: dict[str, Any], standing: str
) -> None:
    async with ruled(dynamodb_url, mesh("versioned", version=version)) as regions:
        entry_id = await logged(regions, {**KEY, "ver": {"S": standing}})
        if version["type"] == "string":
            with pytest.raises(PromotionRefused, match="only the application knows"):
                await planned(regions, entry_id)
            item = (await planned(regions, entry_id, version="abz")).item
        else:
            item = (await planned(regions, entry_id)).item
        assert item is not None
        raised = item.attributes["ver"]["S"]
        assert (raised > standing, len(raised)) == (True, len(standing))


async def test_in_mode_active_active_a_loser_goes_where_it_lost_without_its_stamp(dynamodb_url: str) -> None:
    async with ruled(dynamodb_url, mesh("active-active")) as regions:
        entry_id = await logged(regions, {**LOST, "_rep": {"S": "stamp"}})
        assert (await promoted(regions, entry_id)).region == "eu"
        assert await regions.items("eu") == [LOST]


async def test_a_delete_that_lost_is_done_again(ordered: Regions) -> None:
    await ordered.put("us", SHOWN)
    assert (await promoted(ordered, await logged(ordered, None))).item is None
    assert await ordered.items("us") == []


@pytest.mark.parametrize("how", [{"masked": "note"}, {"bound": 60}])
async def test_an_image_that_is_not_whole_is_not_promoted(ordered: Regions, how: dict[str, Any]) -> None:
    with pytest.raises(PromotionRefused, match="cannot be restored"):
        await planned(ordered, await logged(ordered, **how))


# -- what came in between ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("delete", [False, True])
@pytest.mark.parametrize(
    "meanwhile",
    [
        {**SHOWN, "note": {"S": "newer"}},
        {name: value for name, value in SHOWN.items() if name != "map"},
        None,
    ],
    ids=["changed", "less", "gone"],
)
async def test_an_item_that_changed_since_it_was_shown_stays(
    ordered: Regions, meanwhile: Item | None, *, delete: bool
) -> None:
    await ordered.put("us", SHOWN)
    shown = await planned(ordered, await logged(ordered, None if delete else LOST))
    if meanwhile is None:
        await ordered.call("us", "delete_item", TableName="orders", Key=KEY)
    else:
        await ordered.put("us", meanwhile)
    before = await ordered.items("us")
    with pytest.raises(PromotionRefused, match="has changed since it was shown"):
        await promotion.write(ordered.group, shown)
    assert await ordered.items("us") == before


async def test_an_item_that_came_since_nothing_was_shown_stays(ordered: Regions) -> None:
    shown = await planned(ordered, await logged(ordered))
    await ordered.put("us", SHOWN)
    with pytest.raises(PromotionRefused):
        await promotion.write(ordered.group, shown)
    assert [item["note"] for item in await ordered.items("us")] == [SHOWN["note"]]


async def test_an_attribute_that_the_loser_has_too_stands_in_the_way_of_another_value(ordered: Regions) -> None:
    await ordered.put("us", SHOWN)
    shown = await planned(ordered, await logged(ordered))
    await ordered.put("us", {**SHOWN, "ver": {"N": "9"}})
    with pytest.raises(PromotionRefused):
        await promotion.write(ordered.group, shown)


async def test_an_attribute_that_was_not_shown_is_named_when_it_is_written_over(ordered: Regions) -> None:
    await ordered.put("us", SHOWN)
    shown = await planned(ordered, await logged(ordered))
    await ordered.put("us", {**SHOWN, "surprise": {"S": "!"}})
    assert await promotion.write(ordered.group, shown) == ["surprise"]


@pytest.mark.parametrize("delete", [False, True])
async def test_a_loser_with_any_number_of_attributes_is_promoted(ordered: Regions, *, delete: bool) -> None:
    """The condition stays within DynamoDB's bounds, and says first what the write would take away."""
    many = {f"field{number:03d}": {"S": "x"} for number in range(600)}
    await ordered.put("us", {**SHOWN, **many})
    shown = await planned(ordered, await logged(ordered, None if delete else {**LOST, **many}))
    await ordered.put("us", {**SHOWN, **many, "field599": {"S": "changed"}})
    assert await promotion.write(ordered.group, shown) == ["field599"]


async def test_a_stamp_that_a_worker_sets_meanwhile_is_no_change(dynamodb_url: str) -> None:
    async with ruled(dynamodb_url, mesh("active-active")) as regions:
        await regions.put("eu", SHOWN)
        shown = await planned(regions, await logged(regions))
        await regions.put("eu", {**SHOWN, "_rep": {"S": "stamp"}})
        assert await promotion.write(regions.group, shown) == []
