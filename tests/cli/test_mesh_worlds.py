"""`init`, `check` and `run` for rules whose users write in every region: what each needs, and what `check` says."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.cli.proxy import denying
from tests.cli.worlds import REGIONS, World

pytestmark = pytest.mark.servers

MODES = ("versioned", "active-active")
VIEW = "NEW_AND_OLD_IMAGES"
NOWHERE = "http://127.0.0.1:1"


def other_table(world: World, name: str = "other") -> None:
    """Let the second region be another table, which the test makes."""
    world.rule["regions"] = ["us", {"region": "eu", "table": name}]


def no_table(world: World) -> None:
    other_table(world, "missing")


def no_stream(world: World) -> None:
    world.table("eu", "other")
    other_table(world)


def wrong_view(world: World) -> None:
    world.table("eu", "other", view="NEW_IMAGE")
    other_table(world)


def other_key_type(world: World) -> None:
    world.table("eu", "other", {"pk": "S", "sk": "S"}, view=VIEW)
    other_table(world)


def other_key_name(world: World) -> None:
    world.table("eu", "other", {"id": "S", "sk": "N"}, view=VIEW)
    other_table(world)


def other_index_type(world: World) -> None:
    world.table("us", "indexed", view=VIEW, index={"total": "N"})
    world.table("eu", "indexed", view=VIEW, index={"total": "S"})
    world.rule["table"] = "indexed"


def filter_on_content(world: World) -> None:
    world.rule["filter"] = {"equals": {"country": "se"}}


def filter_prefix_on_content(world: World) -> None:
    world.rule["filter"] = {"key_prefix": {"country": "s"}}


def filter_of_another_type(world: World) -> None:
    world.rule["filter"] = {"equals": {"pk": 7}}


def no_side_table(world: World) -> None:
    world.call("us", "DeleteTable", TableName="replicator-side-test")


BROKEN = [
    (no_table, ["Table missing in eu does not exist", "table or regions of rule orders"]),
    (no_stream, ["Table other in eu, a region of rule orders, has no stream", "init --enable-streams"]),
    (wrong_view, ["other in eu", "NEW_IMAGE, but NEW_AND_OLD_IMAGES", "disable the stream"]),
    (other_key_type, ["other in eu has the key pk (S), sk (S), but orders in us has pk (S), sk (N)", "rule orders"]),
    (other_key_name, ["other in eu has the key id (S), sk (N), but orders in us has pk (S), sk (N)"]),
    (other_index_type, ["by_it of table indexed in us is over total (N)", "indexed in eu declares total (S)"]),
    (filter_on_content, ["rules[0].filter.equals names country", "no key attribute of orders in us (pk (S), sk (N))"]),
    (filter_prefix_on_content, ["rules[0].filter.key_prefix names country", "Name key attributes only"]),
    (filter_of_another_type, ["rules[0].filter.equals names pk as N, but it is S in orders in us"]),
    (no_side_table, ["replicator-side-test in us does not exist", "replicator init"]),
]


def refused(world: World, parts: list[str], *, by_run: bool = True) -> None:
    """`check` and `run` tell these parts in one sentence and end with 78."""
    checked = world.check()
    assert checked.code == 78
    assert any(all(part in sentence for part in parts) for sentence in checked.failures()), checked.failures()
    if not by_run:
        return
    started = world.run("run")
    assert started.code == 78, started.said
    last = started.errors.strip().splitlines()[-1]
    assert last.startswith("replicator: ")
    assert all(part in last for part in parts), last


@pytest.mark.parametrize(("breaks", "parts"), BROKEN)
def test_check_and_run_tell_what_is_broken_in_a_mesh_and_refuse(
    world: World, breaks: Callable[[World], None], parts: list[str]
) -> None:
    world.mesh("active-active")
    breaks(world)
    refused(world, parts, by_run=breaks is no_table)


@pytest.mark.parametrize(
    ("keys", "parts"),
    [
        ({"version": "sk"}, ["rules[0].version names sk, which is a key attribute of orders in us", "never changes"]),
        ({"version": {"attribute": "pk", "type": "time"}}, ["rules[0].version names pk, which is a key attribute"]),
    ],
)
def test_a_version_attribute_that_is_a_key_is_refused(world: World, keys: dict[str, object], parts: list[str]) -> None:
    world.mesh("versioned", **keys)
    refused(world, parts)


@pytest.mark.parametrize(("kind", "width"), [("string", 26), ("time", 24)])
def test_a_text_version_of_any_width_is_a_warning(world: World, kind: str, width: int) -> None:
    version = {"attribute": "ver", "type": kind}
    world.mesh("versioned", version=version)
    told = f"rules[0].version makes ver a {kind} of any width"
    answer = world.check()
    assert answer.code == 0
    assert any(told in sentence and "a later write can lose" in sentence for sentence in answer.warnings())
    world.rule["version"] = {**version, "width": width}
    assert not any(told in sentence for sentence in world.check().warnings())


def test_a_stamp_attribute_that_is_a_key_is_refused(world: World) -> None:
    world.mesh("active-active", stamp="pk")
    refused(world, ["rules[0].stamp names pk, which is a key attribute of orders in us"])


@pytest.mark.parametrize(
    ("mode", "keys", "parts"),
    [
        ("versioned", {}, ["rules[0].version makes ver N, but an index of indexed in eu is over ver (S)"]),
        ("active-active", {"stamp": "ver"}, ["rules[0].stamp makes ver S, but an index of indexed in us is over ver"]),
    ],
)
def test_an_index_that_refuses_every_version_is_told(
    world: World, mode: str, keys: dict[str, object], parts: list[str]
) -> None:
    kinds = {"us": "N", "eu": "S"}
    for region, kind in kinds.items():
        world.table(region, "indexed", view=VIEW, index={"ver": kind})
    world.mesh(mode, **keys)
    world.rule["table"] = "indexed"
    assert any(all(part in sentence for part in parts) for sentence in world.check().failures())


def test_two_region_ids_cannot_be_one_table(world: World) -> None:
    world.mesh("active-active")
    with denying(world.endpoint_url) as url:
        world.config["regions"]["eu"] = {"region": "us-east-1", "endpoint_url": url}
        answer = world.check()
    assert answer.code == 78
    told = "rules[0].regions[1] of rule orders is the same table as rules[0].regions[0]"
    assert any(told in sentence for sentence in answer.failures())


# -- sound meshes --------------------------------------------------------------------------------------------------


def test_a_sound_versioned_mesh_passes(world: World) -> None:
    world.mesh("versioned", filter={"key_prefix": {"pk": "order#"}, "equals": {"sk": 1}})
    answer = world.check()
    assert answer.code == 0, answer.said
    wanting = {fact["found"] for fact in answer.json["facts"] if fact["status"] != "ok"}
    assert all("has no items to try the filter on" in found for found in wanting), wanting


def test_a_sound_active_mesh_passes_with_a_word_about_its_stamps(world: World) -> None:
    world.mesh("active-active", stamp="_version")
    answer = world.check()
    assert answer.code == 0, answer.said
    (told,) = [fact for fact in answer.json["facts"] if fact["status"] != "ok"]
    assert (told["subject"], told["status"]) == ("rule orders", "warning")
    assert "Items without it, from before the start, are replicated when they are next written" in told["found"]
    assert "Never let an application write _version by itself, and strip it from imports" in told["remedy"]


def test_a_mesh_needs_streams_and_side_tables_in_every_region(world: World) -> None:
    world.mesh("active-active")
    facts = {(fact["subject"], fact["fact"]) for fact in world.check().json["facts"]}
    for region in REGIONS:
        table, side = f"table orders in {region}", f"side table replicator-side-test in {region}"
        assert {(table, fact) for fact in ("exists", "stream", "stream may be read", "permissions")} <= facts
        assert {(side, fact) for fact in ("exists", "schema", "TTL", "permissions")} <= facts


def test_it_is_told_how_long_tombstones_last_beyond_the_stream(world: World) -> None:
    world.mesh("active-active")
    (fact,) = [fact for fact in world.check().json["facts"] if fact["fact"] == "tombstones"]
    assert "168 h: 24 h of stream and 144 h for outages" in fact["found"]
    world.config["tombstone_ttl"] = "24h"
    assert "`tombstone_ttl`: must be at least 48h" in world.check().failures()[0]


@pytest.mark.parametrize("mode", MODES)
def test_init_enables_the_stream_of_every_region(world: World, mode: str) -> None:
    for region in REGIONS:
        world.table(region, "fresh")
    world.mesh(mode)
    world.rule["table"] = "fresh"
    first = {step["subject"]: step["action"] for step in world.run("init", "--enable-streams", "--json").json["steps"]}
    streams = [f"stream of fresh in {region}" for region in REGIONS]
    assert [first[stream] for stream in streams] == ["enabled with NEW_AND_OLD_IMAGES"] * 2
    again = {step["subject"]: step["action"] for step in world.run("init", "--enable-streams", "--json").json["steps"]}
    assert set(again.values()) == {"exists"}
    assert world.check().code == 0


def test_init_makes_a_side_table_in_every_region(world: World) -> None:
    world.mesh("versioned")
    assert all("replicator-side-test" in world.tables(region) for region in REGIONS)


# -- permissions ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("region", REGIONS)
def test_permissions_that_are_missing_in_any_region_are_found(world: World, region: str) -> None:
    world.mesh("active-active")
    operations = ("GetItem", "PutItem", "DeleteItem", "UpdateItem")
    with denying(world.endpoint_url, *operations) as url:
        world.config["regions"][region]["endpoint_url"] = url
        answer = world.check()
    assert answer.code == 78
    told = f"{', '.join(operations)} on orders in {region} is denied"
    assert any(sentence.startswith(told) for sentence in answer.failures()), answer.failures()
    assert world.items(region, "orders") == []


def test_only_stamps_need_updates_and_no_mesh_needs_transactions(world: World) -> None:
    world.mesh("versioned")
    with denying(world.endpoint_url, "TransactWriteItems", "UpdateItem") as url:
        world.config["regions"]["eu"]["endpoint_url"] = url
        side, owed = world.check().failures()
    assert side.startswith("UpdateItem on replicator-side-test in eu is denied")
    assert owed.startswith("UpdateItem on replicator-owed-test in eu is denied")


# -- what works and may surprise -----------------------------------------------------------------------------------


def expiry_in_one_region(world: World) -> str:
    world.expire("eu", "orders", "exp")
    return "TTL of the tables of rule orders differs: off in us; on exp in eu."


def expiry_on_two_attributes(world: World) -> str:
    world.expire("us", "orders", "until")
    world.expire("eu", "orders", "exp")
    return "differs: on until in us; on exp in eu."


def items_in_one_region(world: World) -> str:
    world.put("us", "orders", pk={"S": "a"}, sk={"N": "1"})
    return "orders in us holds about 1, orders in eu about 0 items."


def index_over_more(world: World) -> str:
    world.table("us", "plain", view=VIEW)
    world.table("eu", "plain", view=VIEW, index={"total": "S"})
    world.rule["table"] = "plain"
    return "by_it of table plain in eu is over total (S), which no key or index of plain in us fixes"


@pytest.mark.parametrize(
    "changes", [expiry_in_one_region, expiry_on_two_attributes, items_in_one_region, index_over_more]
)
def test_what_may_surprise_in_a_mesh_is_a_warning_and_no_failure(world: World, changes: Callable[[World], str]) -> None:
    world.mesh("versioned")
    words = changes(world)
    answer = world.check()
    assert answer.code == 0, answer.failures()
    assert [words in sentence for sentence in answer.warnings()] == [True], answer.warnings()


def test_expiry_that_is_alike_everywhere_is_sound(world: World) -> None:
    world.mesh("versioned")
    for region in REGIONS:
        world.expire(region, "orders", "exp")
    assert world.check().warnings() == []


# -- what does not answer ------------------------------------------------------------------------------------------


def test_a_region_that_does_not_answer_hides_nothing_about_the_others(world: World) -> None:
    world.mesh("active-active")
    world.config["regions"]["eu"]["endpoint_url"] = NOWHERE
    answer = world.check()
    assert answer.code == 69
    (sentence,) = answer.failures()
    assert "See regions.eu in the configuration." in sentence
    statuses = {(fact["subject"], fact["fact"]): fact["status"] for fact in answer.json["facts"]}
    assert statuses["table orders in us", "stream"] == "ok"
    assert statuses["table orders in eu", "exists"] == "skipped"


@pytest.mark.slow
def test_run_ends_with_69_when_no_region_of_a_mesh_answers(world: World) -> None:
    world.mesh("active-active")
    for region in REGIONS:
        world.config["regions"][region]["endpoint_url"] = NOWHERE
    assert world.run("run").code == 69
