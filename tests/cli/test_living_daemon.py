"""The commands beside a daemon that runs."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator

import pytest

from tests.cli.daemons import Daemon, owners, running, wait_until
from tests.cli.proxy import denying
from tests.cli.worlds import World

pytestmark = pytest.mark.servers


@pytest.fixture
def daemon(world: World) -> Iterator[Daemon]:
    """`replicator run` on a sound world, ready."""
    world.sound()
    with running(world) as daemon:
        daemon.await_ready()
        yield daemon


def test_status_shows_lag_and_counts_while_it_lives_and_positions_when_it_is_gone(world: World, daemon: Daemon) -> None:
    for number in range(5):
        world.put("us", "orders", pk={"S": "a"}, sk={"N": str(number)})
    wait_until(lambda: len(world.items("eu", "orders")) == 5, "the items do not arrive")

    def target() -> dict[str, object]:
        (shard,) = world.run("status", "--json").json["rules"][0]["shards"]
        (found,) = shard["targets"]
        return {**found, "owner": shard["owner"]}

    def lives() -> bool:
        found = target()
        assert found["blocked"] is None
        return found["lag_seconds"] is not None and all(found[name] for name in ("checkpoint", "owner", "counts"))

    wait_until(lives, "lag and counts do not show")
    living = target()
    assert world.run("inspect", "orders", '{"pk":"a","sk":1}', "--json").json["agree"] is True
    assert world.check().failures() == []
    assert daemon.stop() == 0
    gone = target()
    assert gone["owner"] is None
    lag = gone["lag_seconds"]
    assert isinstance(lag, float)
    assert lag < 60.0, "it counts from when the shard was last found level"
    assert gone["applied_through"] is not None
    assert gone["position"] == living["position"]


@pytest.mark.long
def test_a_log_that_nobody_reads_stops_nothing(world: World) -> None:
    world.sound()
    world.config["log"] = {"level": "debug"}
    pipe = world.directory / "daemon.log"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    writer = os.open(pipe, os.O_WRONLY)
    full = os.write(writer, b"x" * 65_536)
    with running(world) as daemon:
        daemon.await_ready()
        world.put("us", "orders", pk={"S": "a"}, sk={"N": "1"})
        wait_until(lambda: len(world.items("eu", "orders")) == 1, "the item does not arrive")
        assert daemon.stop() == 0
    written = os.read(reader, 2 * full)
    assert (len(written), set(written)) == (full, set(b"x")), "something was written, so the pipe was not full"
    os.close(reader)
    os.close(writer)


def test_its_progress_is_not_touched(world: World, daemon: Daemon) -> None:
    world.rule["name"] = "renamed"
    answer = world.run("rules", "rename", "orders", "renamed")
    assert answer.code == 78
    assert "of group test is running" in answer.errors
    assert daemon.process.poll() is None


@pytest.mark.parametrize(("first", "second"), [("versioned", "active-active"), ("active-active", "versioned")])
def test_a_table_stays_with_the_mode_that_wrote_it(world: World, first: str, second: str) -> None:
    world.mesh(first)
    with running(world) as daemon:
        daemon.await_ready()
        assert daemon.stop() == 0
    version = {"version": "ver"} if second == "versioned" else {}
    kept = {name: value for name, value in world.rule.items() if name != "version"}
    world.config["rules"][0] = {**kept, "mode": second, **version}
    refused = world.run("run")
    assert refused.code == 78
    assert f"is of mode {second}, but orders in us was written in mode {first}" in refused.errors
    world.config["side_table"] = "replicator-side-anew"
    assert world.run("init").code == 0
    with running(world) as daemon:
        daemon.await_ready()


# -- meshes --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["versioned", "active-active"])
def test_a_mesh_is_read_in_every_region_and_shown_as_one_rule(world: World, mode: str) -> None:
    world.mesh(mode)
    with running(world) as daemon:
        daemon.await_ready()
        world.put("us", "orders", pk={"S": "a"}, sk={"N": "1"}, ver={"N": "1"})
        world.put("eu", "orders", pk={"S": "b"}, sk={"N": "1"}, ver={"N": "1"})

        def agree(key: str) -> bool:
            answer = world.run("inspect", "orders", json.dumps({"pk": key, "sk": 1}), "--json").json
            regions = [place for place in answer["places"] if place["role"] == "region"]
            return answer["agree"] and {place["state"] for place in regions} == {"present"}

        wait_until(lambda: agree("a") and agree("b"), "the regions do not agree")

        def counted() -> set[tuple[str, str]]:
            (rule,) = world.run("status", "--json").json["rules"]
            shown = [(shard["region"], target) for shard in rule["shards"] for target in shard["targets"]]
            return {(region, target["target"]) for region, target in shown if target["counts"]}

        wait_until(
            lambda: counted() == {(region, "orders/mesh/eu+us") for region in ("us", "eu")}, "the counts do not show"
        )
        assert world.check().failures() == []
        rows = [row["k"]["S"] for region in ("us", "eu") for row in world.items(region, "replicator-side-test")]
        assert not any(row.endswith("|epoch") for row in rows), "an epoch belongs to mode ordered"


@pytest.mark.slow
def test_a_mesh_starts_while_one_of_its_regions_does_not_answer(world: World) -> None:
    world.mesh("active-active")
    world.config["regions"]["eu"]["endpoint_url"] = "http://127.0.0.1:1"
    with running(world) as daemon:
        wait_until(lambda: set(owners(world)) == {"us"}, "the region that answers is not read")
        daemon.await_ready()  # neither a restart nor another worker could do more
        assert "See regions.eu in the configuration." in daemon.said()


def test_a_daemon_tells_at_its_start_that_the_clock_of_its_machine_is_far_off(world: World) -> None:
    world.sound()
    with denying(world.endpoint_url, ahead_seconds=600.0) as url:
        world.config["regions"]["eu"]["endpoint_url"] = url
        with running(world) as daemon:
            wait_until(lambda: "s behind the region's" in daemon.said(), "the clock is not told of")
            assert "Synchronise this machine's clock" in daemon.said()
            daemon.await_ready()
            assert daemon.stop() == 0


def test_what_is_kept_for_a_while_lives_as_long_by_servers_time_whatever_the_machine_s_clock_shows(
    world: World,
) -> None:
    """A tombstone that had expired when it was written would be taken away before late changes of its item came."""
    world.sound()
    days = 20 * 86_400.0
    world.put("eu", "orders", pk={"S": "a"}, sk={"N": "1"}, text={"S": "of no source"})
    with denying(world.endpoint_url, ahead_seconds=days) as url:
        for region in world.config["regions"].values():
            region["endpoint_url"] = url
        world.config["log"] = {"level": "error"}
        with running(world) as daemon:
            daemon.await_ready()
            world.put("us", "orders", pk={"S": "a"}, sk={"N": "1"}, text={"S": "x"})
            wait_until(lambda: "_rep" in world.items("eu", "orders")[0], "the item is not replicated")
            world.call("us", "DeleteItem", TableName="orders", Key={"pk": {"S": "a"}, "sk": {"N": "1"}})
            wait_until(lambda: not world.items("eu", "orders"), "the delete is not replicated")
            assert daemon.stop() == 0
    expiries = [
        int(row["exp"]["N"])
        for region, table in (("eu", "replicator-side-test"), ("us", "replicator-conflicts-test"))
        for row in world.items(region, table)
        if "exp" in row
    ]
    assert len(expiries) == 2, expiries
    now = time.time() + days
    assert all(now + 6 * 86_400 < each for each in expiries), [(each - now) / 86_400 for each in expiries]


def test_a_mesh_does_not_begin_anew_under_another_name(world: World) -> None:
    world.mesh("active-active")
    with running(world) as daemon:
        wait_until(lambda: set(owners(world)) == {"eu", "us"}, "no stream is read")
        assert daemon.stop() == 0
    world.rule["name"] = "renamed"
    answer = world.run("run")
    assert answer.code == 78, answer.said
    assert "Rule 'renamed' has no progress on the stream of orders in us, but rule 'orders' has" in answer.errors
    assert world.run("rules", "rename", "orders", "renamed").code == 0
    with running(world) as daemon:
        daemon.await_ready()
