"""One item everywhere: what is found of it at each place, and whether the places agree."""

from __future__ import annotations

import json
from typing import Any

import pytest
from redis.asyncio import Redis

from replicator.domain.errors import Throttled, Unreachable
from replicator.domain.image import Image
from replicator.domain.stamps import Stamp, StampKind, Version, content_of
from replicator.operations.inspect import Inspection, inspect
from replicator.operations.inspect_reasons import differences
from replicator.operations.item_copies import ItemCopy, or_unknown
from tests.contract.ruled_regions import ORDERED, REGIONS, Item, Regions, mesh, ruled

pytestmark = [pytest.mark.servers, pytest.mark.usefixtures("account")]

KEY = {"pk": {"S": "a"}, "sk": {"N": "1"}}
SIDE, SIDE_KEY = "replicator-side-test", {"S": 'orders|[["pk","S","a"],["sk","N","1"]]'}
EARLY = Version(1_700_000_000_000_000, 0, "us", 10**13 + 7)
LATE = Version(1_700_000_001_000_000, 2, "eu", 10**13 + 9)
ONE, TWO = f"{1:056d}", f"{2:056d}"


def item(note: str, **more: Any) -> Item:
    return {**KEY, "note": {"S": note}, **more}


def stamped(plain: Item, version: Version, kind: StampKind = StampKind.VALUE, attribute: str = "_rep") -> Item:
    """The item as a worker leaves it."""
    content = content_of(Image(json.dumps(plain).encode()), attribute)
    return {**plain, attribute: {"S": Stamp(version, kind, content, "-").sealed("nonce000")}}


async def looked(regions: Regions) -> tuple[Inspection, dict[tuple[str, str], ItemCopy]]:
    """What is found, and by role and region."""
    found = await inspect(regions.settings, regions.settings.rules[0], '{"pk": "a", "sk": 1}')
    return found, {(place.role, place.region): place for place in found.places}


# -- ordered -------------------------------------------------------------------------------------------------------


async def test_every_kind_of_difference_is_seen(dynamodb_url: str, redis_url: str) -> None:
    caches = {"main": {"region": "eu", "url": redis_url}}
    rule = {**ORDERED, "cache": [{"cache": "main", "key": "inspected:{pk}:{sk}"}]}
    async with ruled(dynamodb_url, rule, caches=caches) as regions, Redis.from_url(redis_url) as redis:
        await regions.put("us", item("new"))
        await regions.put("eu", item("old", more={"S": "x"}, _rep={"S": ONE}))
        await redis.set("inspected:a:1", b"T:" + TWO.encode())
        found, places = await looked(regions)
        assert found.agree is False
        assert [(each.attribute, each.how) for each in differences(found.places)] == [
            ("more", "is more"),
            ("note", "has another value"),
        ]
        assert {role: place.agrees for (role, _), place in places.items()} == {
            "source": None,
            "replica": False,
            "tombstone": None,
            "cache": False,
        }
        for region in REGIONS:
            await regions.call(region, "delete_item", TableName="orders", Key=KEY)
        await regions.put("eu", {"k": SIDE_KEY, "v": {"S": TWO}}, SIDE)
        found, places = await looked(regions)
        assert (found.agree, places["tombstone", "eu"].version, places["replica", "eu"].state) == (True, TWO, "absent")
        await redis.set("inspected:a:1", b"L:token")
        found, places = await looked(regions)
        assert (found.agree, places["cache", "eu"].state) == (True, "being filled")


async def test_nothing_is_expected_where_the_filter_keeps_the_item_out(dynamodb_url: str) -> None:
    async with ruled(dynamodb_url, {**ORDERED, "filter": {"equals": {"public": True}}}) as regions:
        await regions.put("us", item("private"))
        assert (await looked(regions))[0].agree is True


# -- active-active -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("there", "state", "intact"),
    [
        (item("x"), "present, not stamped yet", None),
        ({**stamped(item("x"), EARLY), "note": {"S": "changed"}}, "present, changed since its stamp", False),
        (stamped(item("x"), EARLY, StampKind.MARK), "marked for deletion", True),
        (item("x", _rep={"S": "0" * 56}), "present, with a stamp that this rule did not write", None),
    ],
    ids=["bare", "changed", "mark", "foreign"],
)
async def test_a_stamp_says_what_is_known_of_its_item(
    dynamodb_url: str, there: Item, state: str, intact: bool | None
) -> None:
    async with ruled(dynamodb_url, mesh("active-active")) as regions:
        await regions.put("us", there)
        _, places = await looked(regions)
    place = places["region", "us"]
    assert (place.state, (place.details["stamp"] or {}).get("intact")) == (state, intact)


async def test_what_regions_remember_of_a_delete_is_shown(dynamodb_url: str) -> None:
    row = {"k": SIDE_KEY, "v": {"S": LATE.text}, "p": {"S": "-"}, "h": {"S": "x" * 16}}
    seen = {"f": {"S": EARLY.text}, "ls": {"S": f"{9:053d}"}, "lv": {"S": LATE.text}}
    async with ruled(dynamodb_url, mesh("active-active")) as regions:
        await regions.put("us", stamped(item("old"), EARLY))
        await regions.put("eu", {**row, **seen}, SIDE)
        found, places = await looked(regions)
    assert found.agree is False
    side = places["side row", "eu"]
    assert side.version == side.details["tombstone"] == side.details["removed"] == LATE.text
    assert (side.details["floor"], side.details["removed_at"]) == (EARLY.text, f"{9:053d}")
    assert [places["region", region].agrees for region in REGIONS] == [False, True]
    told = "tombstone, floor 2023-11-14T22:13:20Z us 10000000000007, saw the delete 2023-11-14T22:13:21Z+2 eu"
    assert told in side.state


async def test_a_stamp_may_have_another_name(dynamodb_url: str) -> None:
    async with ruled(dynamodb_url, mesh("active-active", stamp="_version")) as regions:
        for region, version in (("us", EARLY), ("eu", LATE)):
            await regions.put(region, stamped(item("same"), version, attribute="_version"))
        found, places = await looked(regions)
    assert (found.agree, places["region", "eu"].version) == (True, LATE.text)


async def test_nothing_is_expected_of_a_key_that_the_filter_keeps_out(dynamodb_url: str) -> None:
    async with ruled(dynamodb_url, mesh("active-active", filter={"key_prefix": {"pk": "order#"}})) as regions:
        await regions.put("us", item("here only"))
        found, places = await looked(regions)
    assert (found.agree, places["region", "us"].agrees) == (True, None)


# -- versioned -----------------------------------------------------------------------------------------------------


async def test_versions_say_which_region_is_behind(dynamodb_url: str) -> None:
    async with ruled(dynamodb_url, mesh("versioned")) as regions:

        async def shown(us: Item, eu: Item) -> list[tuple[str, str | None, bool | None]]:
            await regions.put("us", us)
            await regions.put("eu", eu)
            _, places = await looked(regions)
            copies = [places["region", region] for region in REGIONS]
            return [(copy.state, copy.version, copy.agrees) for copy in copies]

        newer, older = item("new", ver={"N": "10"}), item("old", ver={"N": "9"})
        assert await shown(newer, older) == [("present", "10", True), ("present", "9", False)]
        bare = "present, without a version"
        assert await shown(item("none"), item("some", ver={"N": "-5"})) == [
            (bare, None, False),
            ("present", "-5", True),
        ]
        await regions.put("eu", {"k": SIDE_KEY, "v": {"S": "35007"}}, SIDE)  # 7 as a side row holds it
        await regions.put("us", item("late", ver={"N": "7"}))
        await regions.call("eu", "delete_item", TableName="orders", Key=KEY)
        _, places = await looked(regions)
        side = places["side row", "eu"]
        assert (side.state, side.version) == ("tombstone", "7")
        assert [places["region", region].agrees for region in REGIONS] == [False, True], "a tombstone counts as greater"


async def test_a_place_that_throttles_hides_no_other_one() -> None:
    async def throttled() -> None:
        raise Throttled("GetItem on orders in eu failed.")

    seen = await or_unknown(throttled())
    assert isinstance(seen, Unreachable)
    assert seen.sentence == "GetItem on orders in eu failed. Raise the capacity of the table or lower the load."
