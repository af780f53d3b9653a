"""A rule's canary with a real daemon and real servers: seen to arrive, shown, left out elsewhere, and removed."""

from __future__ import annotations

import time

import pytest

from replicator.domain.canary import PREFIX
from replicator.laboratory.streamlab import StreamLab
from tests.cli.daemons import running, wait_until
from tests.cli.test_lag_from_outside import metric
from tests.cli.worlds import World

pytestmark = pytest.mark.servers

KEY = f"{PREFIX}orders#us"


def keys(world: World, region: str) -> set[str]:
    return {item["pk"]["S"] for item in world.items(region, "orders")}


def test_a_canary_is_seen_to_arrive_at_table_and_cache_and_removed_in_the_end(world: World) -> None:
    world.sound()
    world.rule["canary"] = {"every": "1s"}
    world.put("us", "orders", pk={"S": "a"}, sk={"N": "1"})
    with running(world) as daemon:
        for cache in ("", *world.config["caches"]):
            of = {"rule": "orders", "source": "us", "region": "eu", "cache": cache}
            wait_until(lambda of=of: metric(daemon, "canary_lag_seconds", quantile="0.99", **of) is not None, cache)  # type: ignore[misc]
            assert metric(daemon, "canary_late", **of) == 0.0
        assert KEY in keys(world, "us") & keys(world, "eu")
        found = world.run("status", "--json").json
        assert {(each["region"], each["cache"], each["late"]) for each in found["canaries"]} == {
            ("eu", cache, False) for cache in ("", *world.config["caches"])
        }
        assert "canary" in world.run("status", "--wide").output
        compared = world.run("verify", "orders", "--json")
        assert compared.json["compared"] == 1, compared.said
        assert world.run("conflicts", "list", "--json").json["conflicts"] == []
        assert daemon.stop() == 0
    assert world.run("uninstall", "orders", "--yes").code == 0
    assert keys(world, "us") == keys(world, "eu") == {"a"}


def test_a_table_whose_partition_key_is_a_number_takes_none(world: World) -> None:
    world.sound()
    world.rule["canary"] = {}
    for region in ("us", "eu"):
        world.call(region, "DeleteTable", TableName="orders")
        world.table(region, "orders", keys={"pk": "N"}, view="NEW_AND_OLD_IMAGES")
    checked = world.run("check")
    assert checked.code == 78
    assert "takes no canary of rule orders: its partition key pk is of type N" in checked.said


@pytest.mark.long
def test_one_arrives_through_kinesis_and_expires_where_tables_have_a_time_to_live(world: World) -> None:
    with StreamLab.start(world.directory, world.endpoint_url, kinesis_duplicates=0.5, kinesis_disorder=0.5) as lab:
        front = World(lab.url, "", world.account, world.directory)
        front._call("us", "Kinesis_20131202", "CreateStream", {"StreamName": "changes", "ShardCount": 2})
        world.config["regions"]["us"]["endpoints"] = {"dynamodb": lab.url, "kinesis": lab.url, "streams": lab.url}
        world.rule.update({"stream": {"kinesis": "changes"}, "canary": {"every": "1s"}})
        for region in ("us", "eu"):
            world.table(region)
            world.expire(region, "orders", "gone")
        world.initialise()
        assert world.run("init", "--enable-streams").code == 0
        with running(world) as daemon:
            of = {"rule": "orders", "source": "us", "region": "eu", "cache": ""}
            wait_until(lambda: metric(daemon, "canary_lag_seconds", quantile="0.99", **of) is not None, "none arrives")
            assert metric(daemon, "canary_late", **of) == 0.0
            items = [item for region in ("us", "eu") for item in world.items(region, "orders")]
            days = [(int(item["gone"]["N"]) - time.time()) / 86_400 for item in items]
            assert [round(each) for each in days] == [7, 7]
            assert daemon.stop() == 0
