"""`verify` and `repair` as programs, where no daemon lives: they do the job themselves."""

from __future__ import annotations

import pytest
import redis

from replicator.cli.comparisons import _end
from replicator.domain.versions import generation_of, ordered_version
from replicator.laboratory.servers import Valkey
from replicator.operations.cache_orphans import Orphans
from replicator.operations.verification import CacheReport, Report, Units
from tests.cli.worlds import Answer, World

pytestmark = pytest.mark.servers

Item = dict[str, dict[str, str]]
V1 = ordered_version(0, 1_700_000_000_000, 7)


def item(name: str, value: str) -> Item:
    return {"pk": {"S": name}, "sk": {"N": "1"}, "value": {"S": value}}


def stamped(name: str, value: str) -> Item:
    return {**item(name, value), "_rep": {"S": V1}}


@pytest.fixture
def damaged(world: World) -> World:
    """A source with five items, and a replica that differs in four keys."""
    world.config["copying"] = {"margin": "100ms"}
    world.sound()
    for name in ("same", "gone", "changed", "foreign"):
        world.put("us", "orders", **item(name, "right"))
    world.put("eu", "orders", **stamped("same", "right"))
    world.put("eu", "orders", **stamped("changed", "wrong"))
    world.put("eu", "orders", **item("foreign", "private"))
    world.put("eu", "orders", **stamped("extra", "left over"))
    # Where the rule reads: a repair writes below every record of that stream.
    stream = world.call("us", "DescribeTable", TableName="orders")["Table"]
    generation = generation_of(stream["LatestStreamLabel"])
    row = {"pk": {"S": "test|streams"}, "sk": {"S": f"us|orders|{generation:013d}"}}
    world.put("us", "replicator-coordination", **row, arn={"S": stream["LatestStreamArn"]}, sv={"N": "1"})
    return world


def kinds(answer: Answer) -> dict[str, str]:
    return {each["key"]["pk"]["S"]: each["kind"] for each in answer.json["differences"]}


def test_verify_names_what_differs_and_repair_mends_it(damaged: World) -> None:
    found = damaged.run("verify", "orders", "--json")
    assert found.code == 1, found.said
    assert kinds(found) == {"gone": "missing", "changed": "differs", "foreign": "unstamped", "extra": "extra"}
    report = found.json
    assert (report["compared"], report["difference_count"], report["waited"]) == (5, 4, False)
    assert report["units"]["read"] > 0
    assert "private" not in found.said
    (first, *_) = report["differences"]
    assert first["target"] == "eu:orders"
    path = damaged.directory / "found.json"
    path.write_text(found.output)
    mended = damaged.run("repair", "orders", "--from", str(path), "--yes", "--json")
    assert mended.code == 0, mended.said
    assert (mended.json["mended"], mended.json["identical"]) == (4, True)
    shown = damaged.run("conflicts", "list", "--kind", "repair", "--json")
    logged = {entry["key"]["pk"]["S"]: entry["id"] for entry in shown.json["conflicts"]}
    assert set(logged) == {"changed", "foreign", "extra"}
    assert damaged.run("conflicts", "promote", logged["changed"], "--yes").code == 0
    values = {each["pk"]["S"]: each["value"]["S"] for each in damaged.items("us", "orders")}
    assert values == {"same": "right", "gone": "right", "changed": "wrong", "foreign": "right"}


def test_a_repair_without_a_daemon_drops_the_entries_of_what_it_mends(damaged: World, valkey: Valkey) -> None:
    entry = f"{damaged.account}:changed:1"
    with redis.Redis.from_url(valkey.url) as cache:
        cache.set(entry, f"V:{V1}|wrong")
        assert damaged.run("repair", "orders", "--yes", "--json").code == 0
        assert cache.get(entry) is None
    assert owed_entries(damaged) == [], "what it owed it has settled"


def test_what_a_repair_without_a_daemon_cannot_drop_is_owed(damaged: World, valkey: Valkey) -> None:
    """No record follows a repair, so nothing else would drop the entries; the next one does, which may."""
    entry = f"{damaged.account}:changed:1"
    with redis.Redis.from_url(valkey.url) as cache:
        cache.acl_setuser(
            "reader", enabled=True, passwords=["+secret"], keys=["*"], categories=["+@read", "+@connection"]
        )
        cache.set(entry, f"V:{V1}|wrong")
        damaged.config["caches"]["eu_main"] |= {"username": "reader", "password": "secret"}
        mended = damaged.run("repair", "orders", "--yes", "--json")
        assert (mended.code, mended.json["mended"]) == (0, 4), mended.said
        assert "Cache eu_main did not drop some entries (4)" in mended.said
        assert entry in owed_entries(damaged)
        del damaged.config["caches"]["eu_main"]["username"], damaged.config["caches"]["eu_main"]["password"]
        assert cache.get(entry) is not None
        (stands,) = damaged.run("caches", "--json").json["caches"]
        assert stands["keys"] >= 4, stands


def owed_entries(world: World) -> list[str]:
    rows = world.items("eu", "replicator-owed-test")
    return [row["k"]["S"] for row in rows if row["sk"]["S"].startswith("debt|")]


def test_verify_looks_for_entries_of_items_that_are_gone_where_asked(damaged: World, valkey: Valkey) -> None:
    with redis.Redis.from_url(valkey.url) as cache:
        cache.set(f"{damaged.account}:same:1", f"V:{V1}|right")
    found = damaged.run("verify", "orders", "--caches", "--json")
    assert [(each["looked_at"], each["orphans"]) for each in found.json["cache_orphans"]] == [(1, 0)], found.said
    assert "--caches" in damaged.run("verify", "orders", "--caches", "--detach").said


def test_a_verification_that_found_entries_of_items_that_are_gone_has_found_something(
    capsys: pytest.CaptureFixture[str],
) -> None:
    caches, units = CacheReport(0, 0, 0, 0), Units(1, 0)
    report = Report(
        "verify-1", "orders", "verify", "done", 5, [], 0, {}, 0, 0, 0, 0, 0, 0, caches, units, None, waited=True
    )
    gone = Orphans("eu_main", "o:{pk}", ["orders"], looked_at=7, orphans=1, keys=["o:gone"])
    assert [_end(report, found, as_json=True) for found in (None, [], [gone])] == [0, 0, 1]
    assert _end(report, [gone], as_json=False) == 1
    assert "o:gone shows an item that is gone" in capsys.readouterr().err


def test_named_keys_are_compared_and_shown_with_values_when_asked(damaged: World) -> None:
    key = '{"pk": "foreign", "sk": 1}'
    shown = damaged.run("verify", "orders", "--key", key, "--values")
    assert shown.code == 1, shown.said
    assert "unstamped" in shown.output
    assert "private" in shown.output
    assert "1 difference (1 unstamped) in 1 compared" in shown.output
    assert "this process does the job" in shown.errors
    nowhere = damaged.run("verify", "orders", "--key", '{"pk": "nowhere", "sk": 1}', "--key", '{"pk": "same", "sk": 1}')
    assert nowhere.code == 0, nowhere.said
    assert "1 of the keys asked for are in no table" in nowhere.errors


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["verify", "orders", "--sample", "200%"], "no share of a table"),
        (["repair", "orders", "--extra", "burn", "--yes"], "Choices are: keep, delete, list."),
        (["repair", "orders", "--from", "/nowhere", "--yes"], "no report of a verify"),
        (["repair", "orders"], "There is no terminal to ask on"),
    ],
)
def test_what_makes_no_sense_is_refused_before_anything_is_asked_of_the_world(
    world: World, arguments: list[str], said: str
) -> None:
    answer = world.run(*arguments)
    assert answer.code == 2, answer.said
    assert said in answer.errors
