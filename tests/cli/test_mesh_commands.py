"""`inspect`, `status` and `rules` for rules whose users write in every region."""

from __future__ import annotations

import json
from typing import Any

import pytest

from replicator.domain.image import Image
from replicator.domain.stamps import Stamp, StampKind, Version, content_of
from tests.cli.worlds import REGIONS, Answer, World

pytestmark = pytest.mark.servers

KEY = {"pk": {"S": "a"}, "sk": {"N": "1"}}
SIDE_KEY = 'orders|[["pk","S","a"],["sk","N","1"]]'
SIDE = "replicator-side-test"
NONCE = "nonce000"
EARLY = Version(1_700_000_000_000_000, 0, "us", 10**13 + 7)
LATE = Version(1_700_000_001_000_000, 2, "eu", 10**13 + 9)

Item = dict[str, dict[str, str]]


def item(note: str, **more: dict[str, str]) -> Item:
    return {**KEY, "note": {"S": note}, **more}


def stamped(plain: Item, version: Version, kind: StampKind = StampKind.VALUE, attribute: str = "_rep") -> Item:
    """The item as the daemon leaves it."""
    content = content_of(Image(json.dumps(plain).encode()), attribute)
    return {**plain, attribute: {"S": Stamp(version, kind, content, "-").sealed(NONCE)}}


def look(world: World, *options: str) -> Answer:
    answer = world.run("inspect", "orders", '{"pk": "a", "sk": 1}', "--json", *options)
    assert answer.code == (0 if answer.json["agree"] else 1), answer.said
    return answer


def places(answer: Answer) -> dict[tuple[str, str], dict[str, Any]]:
    return {(place["role"], place["region"]): place for place in answer.json["places"]}


def cached(world: World, key: str, entry: bytes) -> None:
    import redis

    client = redis.Redis.from_url(world.redis_url)
    client.set(f"{world.account}:{key}", entry)
    client.close()


# -- inspect, active-active ----------------------------------------------------------------------------------------


def test_inspect_shows_an_item_that_all_regions_agree_on(world: World) -> None:
    world.mesh("active-active")
    for region in REGIONS:
        world.put(region, "orders", **stamped(item("private"), EARLY))
    payload = json.dumps(item("private")).encode()
    cached(world, "a:1", b"V:1|" + payload)
    answer = look(world)
    assert (answer.json["mode"], answer.json["agree"]) == ("active-active", True)
    assert "private" not in answer.said
    found = places(answer)
    assert set(found) == {("region", "us"), ("side row", "us"), ("region", "eu"), ("side row", "eu"), ("cache", "eu")}
    us = found["region", "us"]
    assert (us["state"], us["version"], us["agrees"]) == ("present", EARLY.text, True)
    assert us["stamp"] == {"version": EARLY.text, "kind": "value", "intact": True, "parent": "-"}
    assert found["side row", "us"]["state"] == "none"
    assert found["cache", "eu"]["agrees"] is True
    assert "private" in look(world, "--values").output


def test_inspect_tells_which_region_of_a_diverged_item_is_behind(world: World) -> None:
    world.mesh("active-active")
    world.put("us", "orders", **stamped(item("old"), EARLY))
    world.put("eu", "orders", **stamped(item("new"), LATE))
    cached(world, "a:1", b"V:1|" + json.dumps(item("old")).encode())
    answer = look(world)
    assert answer.json["agree"] is False
    found = places(answer)
    assert found["region", "us"]["agrees"] is False
    assert found["region", "eu"]["agrees"] is True
    assert found["cache", "eu"]["agrees"] is False
    plain = world.run("inspect", "orders", '{"pk": "a", "sk": 1}').output
    assert "\t2023-11-14T22:13:20Z us 10000000000007\t" in plain
    assert "\t2023-11-14T22:13:21Z+2 eu 10000000000009\t" in plain
    assert plain.startswith("Places differ.\n")


# -- status and rules ----------------------------------------------------------------------------------------------


def progress(world: World, rule: str, **regions: str) -> None:
    """Store what daemons would have stored for a rule: a position per region."""
    table = "replicator-coordination"
    for region, position in regions.items():
        arn = f"arn:of:{region}"
        stream = {"pk": {"S": "test|streams"}, "sk": {"S": f"{region}|orders|0000000000001"}, "sv": {"N": "1"}}
        here = {"pk": {"S": f"test|{region}|{arn}"}, "sv": {"N": "1"}}
        world.put("us", table, **stream, arn={"S": arn})
        world.put("us", table, **here, sk={"S": f"target|{rule}/mesh/eu+us"}, started_at={"N": "1"})
        owned = {"epoch": {"N": "3"}, "owner": {"S": "w1"}, f"at:{rule}/mesh/eu+us": {"S": position}}
        world.put("us", table, **here, sk={"S": "shard|s1"}, **owned)


def positions(world: World) -> dict[tuple[str, str], str]:
    """What is stored: (region, target) -> position."""
    rows = world.items("us", "replicator-coordination")
    return {
        (row["pk"]["S"].split("|")[1], name.removeprefix("at:")): row[name]["S"]
        for row in rows
        for name in row
        if name.startswith("at:")
    }


def test_status_tells_the_position_on_every_region_of_a_mesh(world: World) -> None:
    world.mesh("active-active")
    progress(world, "orders", us="42", eu="43")
    rule = world.run("status", "--json").json["rules"][0]
    assert rule["sources"] == [{"region": region, "table": "orders"} for region in REGIONS]
    told = {
        (shard["region"], target["target"], target["region"], target["position"])
        for shard in rule["shards"]
        for target in shard["targets"]
    }
    assert told == {("us", "orders/mesh/eu+us", "us", "42"), ("eu", "orders/mesh/eu+us", "eu", "43")}
    plain = world.run("status").output
    assert "orders\tall from us\ts1\tw1\t3\t42" in plain
    assert "orders\tall from eu\ts1\tw1\t3\t43" in plain


def test_rules_lists_a_mesh_with_all_of_its_regions(world: World) -> None:
    world.mesh("versioned")
    progress(world, "orders", us="42", eu="43")
    (rule,) = world.run("rules", "--json").json["rules"]
    assert rule["sources"] == rule["replicas"] == ["us:orders", "eu:orders"]
    assert sorted(rule["progress"]) == ["eu:orders", "us:orders"]
    assert "orders\tversioned\tus:orders, eu:orders\tone another\teu_main (invalidate)" in world.run("rules").output


def test_progress_of_a_mesh_moves_to_its_new_name_in_every_region(world: World) -> None:
    world.mesh("active-active")
    progress(world, "before", us="42", eu="43")
    checked = world.check()
    assert checked.code == 78
    assert sum("replicator rules rename before NEW" in sentence for sentence in checked.failures()) == 2
    assert world.run("rules", "rename", "before", "orders", "--json").json == {"rule": "before", "rows": 4}
    assert positions(world) == {("us", "orders/mesh/eu+us"): "42", ("eu", "orders/mesh/eu+us"): "43"}
    assert world.check().code == 0


def test_progress_of_a_mesh_is_forgotten_in_every_region(world: World) -> None:
    world.mesh("active-active")
    progress(world, "before", us="42", eu="43")
    assert world.run("rules", "forget", "before").code == 0
    assert positions(world) == {}
