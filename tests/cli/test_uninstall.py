"""`uninstall` as a program: what of a rule is left in tables and rows goes, what others need stays."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from replicator.domain.versions import ordered_version
from tests.cli.daemons import running, wait_until
from tests.cli.worlds import World

pytestmark = pytest.mark.servers

V1 = ordered_version(0, 1_700_000_000_000, 7)
COORDINATION, SIDE = "replicator-coordination", "replicator-side-test"
STREAM = "arn:of:the:stream"


def tombstone(table: str, name: str) -> str:
    return f"{table}|" + json.dumps([["pk", "S", name], ["sk", "N", "1"]], separators=(",", ":"))


def row(world: World, pk: str, sk: str, **attributes: Any) -> None:
    world.put("us", COORDINATION, pk={"S": f"test|{pk}"}, sk={"S": sk}, sv={"N": "1"}, **attributes)


@pytest.fixture
def left(world: World) -> World:
    """A rule that ran once: stamped items, tombstones, progress, a gap's pause, a bootstrap's mark."""
    world.sound()
    for number in range(3):
        world.put("eu", "orders", pk={"S": f"k{number}"}, sk={"N": "1"}, _rep={"S": V1}, value={"S": "kept"})
    world.put("eu", "orders", pk={"S": "plain"}, sk={"N": "1"})
    for text in (tombstone("orders", "gone"), tombstone("others", "gone"), "orders|epoch", "others|epoch"):
        world.put("eu", SIDE, k={"S": text}, v={"S": V1}, sv={"N": "1"})
    world.put("eu", SIDE, k={"S": "orders|mode"}, mode={"S": "ordered"}, rule={"S": "orders"}, sv={"N": "1"})
    row(world, "streams", "us|orders|0000000000001", arn={"S": STREAM})
    at = {"at:orders/replica/eu:orders": {"S": "42"}, "serves": {"SS": ["orders/replica/eu:orders"]}}
    row(world, f"us|{STREAM}", "shard|s1", epoch={"N": "3"}, owner={"S": "dead"}, **at)
    row(world, f"us|{STREAM}", "seat", epoch={"N": "1"}, owner={"S": "dead"})
    row(world, f"us|{STREAM}", "target|orders/replica/eu:orders", started_at={"N": "1"})
    row(world, "rules", "orders", paused_at={"N": "1"})
    row(world, "rules", "another", paused_at={"N": "1"})
    row(world, "tables", "orders|eu|orders", table_id={"S": "t"})
    row(world, "jobs", "filled|orders/replica/eu:orders", at={"N": "1"}, job={"S": "b"})
    row(world, "jobs", "filled|another/replica/eu:others", at={"N": "1"}, job={"S": "c"})
    return world


def interrupted(world: World, job: str, kind: str = "uninstall") -> None:
    """A job of the rule that rests."""
    document = {
        "targets": ["orders/replica/eu:orders"],
        "parts": [["eu:orders", 1, None], [f"eu:{SIDE}", 1, None]],
        "options": {"side_table": SIDE},
        "by": "operator",
        "items": 8,
    }
    texts = {"kind": kind, "rule": "orders", "table": "orders", "state": "paused", "note": ""}
    texts["document"] = json.dumps(document)
    row(world, "jobs", f"job|{job}", created_at={"N": "1"}, **{name: {"S": text} for name, text in texts.items()})
    row(world, "jobs", "on|job|orders/replica/eu:orders", job={"S": job})


@contextmanager
def beating(beat: Callable[[], None]) -> Iterator[None]:
    """A heartbeat that goes on meanwhile."""
    ended = threading.Event()

    def go_on() -> None:
        while not ended.wait(0.5):
            beat()

    thread = threading.Thread(target=go_on)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def rows(world: World) -> set[tuple[str, str]]:
    return {(each["pk"]["S"], each["sk"]["S"]) for each in world.items("us", COORDINATION)}


def test_nothing_of_the_rule_is_left_and_nothing_of_others_is_gone(left: World) -> None:
    before = rows(left)
    said = left.run("uninstall", "orders", "--dry-run", "--json")
    assert said.code == 0, said.said
    assert {(each["region"], each["table"], each["removes"]) for each in said.json["plan"]["tables"]} == {
        ("eu", "orders", "stamps"),
        ("eu", SIDE, "side rows"),
    }
    assert said.json["plan"]["streams"] == ["us:orders"]
    assert (rows(left), said.json["removed"]) == (before, False)
    done = left.run("uninstall", "orders", "--yes", "--json")
    assert done.code == 0, done.said
    (job,) = done.json["jobs"]
    assert (job["state"], job["counts"]["unstamped"], job["counts"]["side_rows"]) == ("done", 3, 1)
    assert 4 <= job["counts"]["write_units"] < 8
    assert 8 <= job["counts"]["read_units"] < 16
    assert done.json["removed"] is True
    items = left.items("eu", "orders")
    assert len(items) == 4
    assert not any("_rep" in item for item in items)
    assert sum(item.get("value") == {"S": "kept"} for item in items) == 3
    assert {each["k"]["S"] for each in left.items("eu", SIDE)} == {tombstone("others", "gone"), "others|epoch"}
    kept = {("test|rules", "another"), ("test|jobs", "filled|another/replica/eu:others")}
    assert {(pk, sk) for pk, sk in rows(left) if pk != "test|workers"} == kept


def test_what_another_rule_needs_is_refused_and_stays(left: World) -> None:
    row(left, f"us|{STREAM}", "target|another/replica/eu:others", started_at={"N": "1"})
    left.put("eu", SIDE, k={"S": "orders|mode"}, mode={"S": "ordered"}, rule={"S": "newer"}, sv={"N": "1"})
    refused = left.run("uninstall", "orders", "--yes")
    assert refused.code == 78
    assert "Rule newer writes eu:orders too" in refused.errors
    chooses = {"name": "many", "table": {"glob": "ord*"}, "source": "us", "replicas": ["eu"]}
    left.config["rules"].append(chooses)
    refused = left.run("uninstall", "orders", "--yes")
    assert refused.code == 78
    assert "Rule many writes eu:orders too" in refused.errors
    del left.config["rules"][1]
    left.put("eu", SIDE, k={"S": "orders|mode"}, mode={"S": "ordered"}, rule={"S": "orders"}, sv={"N": "1"})
    interrupted(left, "u1")
    done = left.run("uninstall", "orders", "--yes", "--json")
    assert done.code == 0, done.said
    assert done.json["plan"]["begun"] == [job["job"] for job in done.json["jobs"]] == ["u1"]
    assert not any("_rep" in item for item in left.items("eu", "orders"))
    stream = {sk for pk, sk in rows(left) if pk == f"test|us|{STREAM}"}
    assert stream == {"shard|s1", "seat", "target|another/replica/eu:others"}


def test_other_jobs_of_the_rule_are_cancelled_unless_a_worker_is_at_work_on_one(left: World) -> None:
    interrupted(left, "b7", "bootstrap")
    owned = {"owner": {"S": "w"}, "epoch": {"N": "1"}, "of": {"N": "1"}}
    row(left, "job|b7", "segment|eu:orders|0000", **owned)
    beat = 0

    def live() -> None:
        nonlocal beat
        beat += 1
        row(left, "workers", "w", beat={"N": str(beat)}, news={"N": "-1"}, admin={"S": ""})

    live()
    with beating(live):
        refused = left.run("uninstall", "orders", "--yes")
    assert refused.code == 78
    assert "Worker w is at work on job b7 (bootstrap) of rule orders." in refused.errors
    assert sum("_rep" in item for item in left.items("eu", "orders")) == 3
    done = left.run("uninstall", "orders", "--yes", "--json")
    assert done.code == 0, done.said
    assert (done.json["plan"]["cancels"], done.json["plan"]["begun"]) == (["b7"], [])
    assert not any("_rep" in item for item in left.items("eu", "orders"))


def test_a_living_worker_that_runs_the_rule_is_named_and_one_that_runs_others_goes_on(world: World) -> None:
    world.sound()
    for region in ("us", "eu"):
        world.table(region, "former")
    world.put("eu", "former", pk={"S": "a"}, sk={"N": "1"}, _rep={"S": V1})
    with running(world) as daemon:
        daemon.await_ready()
        world.put("us", "orders", pk={"S": "a"}, sk={"N": "1"})
        wait_until(lambda: bool(world.items("eu", "orders")), "the item does not arrive")
        row(world, "streams", "us|former|0000000000001", arn={"S": STREAM})
        row(world, f"us|{STREAM}", "shard|s1", epoch={"N": "3"}, **{"at:former/replica/eu:former": {"S": "42"}})
        before = {sk for pk, sk in rows(world) if pk.startswith("test|us|")}
        world.config["rules"].append({"name": "former", "table": "former", "source": "us", "replicas": ["eu"]})
        done = world.run("uninstall", "former", "--yes")
        assert done.code == 0, done.said
        assert "1 stamps and 0 side rows were removed" in done.output
        assert "_rep" in world.items("eu", "orders")[0]
        assert {sk for pk, sk in rows(world) if pk.startswith("test|us|")} == before
        (shard,) = (each for each in world.items("us", COORDINATION) if each["sk"]["S"] == "shard|s1")
        assert "at:former/replica/eu:former" not in shard
        assert daemon.is_ready()
        refused = world.run("uninstall", "orders", "--yes")
        assert refused.code == 78
        assert "runs rule orders." in refused.errors
        assert "Take the rule out of its configuration or stop it" in refused.errors
        assert daemon.stop() == 0


def test_it_asks_first(world: World) -> None:
    answer = world.run("uninstall", "orders")
    assert answer.code == 2
    assert "There is no terminal to ask on" in answer.errors
