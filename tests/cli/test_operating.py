"""The commands of operators on stored rows, when every daemon is dead."""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from tests.cli.worlds import Answer, World

pytestmark = pytest.mark.servers

TO_EU = "orders/replica/eu:orders"
AT_EU, REWIND_EU = f"at:{TO_EU}", f"rewind:{TO_EU}"

TABLE = "replicator-coordination"
SHARDS = 1000


@pytest.fixture
def sound(world: World) -> World:
    """A world with tables and a stream, that no worker has read yet."""
    world.sound()
    return world


def stream_of(world: World) -> tuple[str, str]:
    """ARN of the stream of orders, and its one shard."""
    arn = world.call("us", "DescribeTable", TableName="orders")["Table"]["LatestStreamArn"]
    (shard,) = world.call_streams("us", "DescribeStream", StreamArn=arn)["StreamDescription"]["Shards"]
    return arn, shard["ShardId"]


def store(world: World, arn: str, shard: str, **more: dict[str, Any]) -> None:
    """A shard's row, and what goes with it."""
    common = {"sv": {"N": "1"}}
    world.put("us", TABLE, pk={"S": "test|streams"}, sk={"S": "us|orders|0000000000001"}, arn={"S": arn}, **common)
    pk = {"S": f"test|us|{arn}"}
    world.put("us", TABLE, pk=pk, sk={"S": f"target|{TO_EU}"}, started_at={"N": "1"}, **common)
    world.put("us", TABLE, pk=pk, sk={"S": f"shard|{shard}"}, epoch={"N": "3"}, **common, **more)


def rows(world: World) -> dict[str, dict[str, Any]]:
    return {row["sk"]["S"]: row for row in world.items("us", TABLE)}


def leases(world: World, *arguments: str) -> dict[str, dict[str, Any]]:
    answer = world.run("leases", "list", "--fast", *arguments, "--json")
    assert answer.code == 0, answer.said
    return {shard["shard"]: shard for shard in answer.json["shards"]}


# -- leases --------------------------------------------------------------------------------------------------------


def test_without_any_lease_a_sentence_says_so(sound: World) -> None:
    assert (
        "no worker, stream or shard was found; `replicator run` starts a worker." in sound.run("leases", "list").errors
    )


def test_leases_show_owner_epoch_state_and_positions(sound: World) -> None:
    store(
        sound,
        "arn",
        "s1",
        owner={"S": "w1"},
        **{AT_EU: {"S": "SHARD_END"}},
        closed={"BOOL": True},
    )
    store(sound, "arn", "s2", owner={"S": "w1"}, parents={"SS": ["s1"]}, **{AT_EU: {"S": "42"}})
    store(sound, "arn", "s3", parents={"SS": ["s2"]})
    assert set(leases(sound)) == {"s2", "s3"}
    everything = leases(sound, "--all")
    assert everything["s1"]["state"] == "finished"
    assert (everything["s2"]["owner"], everything["s2"]["epoch"], everything["s2"]["state"]) == ("w1", 3, "open")
    assert everything["s2"]["positions"] == {TO_EU: "42"}
    assert (everything["s3"]["state"], everything["s3"]["waits_for"]) == ("waiting", ["s2"])
    assert set(leases(sound, "--owner", "w")) == {"s2"}
    assert set(leases(sound, "--owner", "free")) == {"s3"}
    plain = sound.run("leases", "list", "--rule", "orders")
    assert "no other worker is alive to take them over" in plain.errors
    assert "w1\tsilent" in plain.output
    assert "waiting for s2" in plain.output
    assert "worker w1 is silent and owns 2 shards" in plain.errors
    assert "hidden: 1 finished shard; --all" in plain.errors


def test_status_hides_finished_shards_unless_asked_and_from_no_script(sound: World) -> None:
    store(sound, "arn", "s1", **{AT_EU: {"S": "SHARD_END"}}, closed={"BOOL": True})
    nothing = sound.run("status")
    assert "no shard is read any more" in nothing.output
    store(sound, "arn", "s2", parents={"SS": ["s1"]}, **{AT_EU: {"S": "42"}})
    plain = sound.run("status")
    assert ("s2" in plain.output, "s1" in plain.output) == (True, False)
    assert "hidden: 1 shard (finished); --all shows them." in plain.errors
    everything = sound.run("status", "--all")
    (line,) = [line for line in everything.output.splitlines() if "s1" in line]
    assert line.endswith("\tfinished")
    assert "hidden" not in everything.errors
    shards = sound.run("status", "--json").json["rules"][0]["shards"]
    assert {shard["shard"]: shard["over"] for shard in shards} == {"s1": "finished", "s2": None}


def test_status_tells_why_a_shard_is_not_read_also_of_one_that_was_never_begun(sound: World) -> None:
    store(sound, "arn", "s1", closed={"BOOL": True}, **{AT_EU: {"S": "42"}})
    store(sound, "arn", "s2", parents={"SS": ["s1"]})
    output = sound.run("status").output
    (first,) = [line for line in output.splitlines() if "\ts1\t" in line]
    (second,) = [line for line in output.splitlines() if "\ts2\t" in line]
    assert "waits: No worker takes shard s1." in first
    assert "waits: Shard s2 cannot be read before the end of s1." in second
    shards = sound.run("status", "--json").json["rules"][0]["shards"]
    assert {shard["shard"]: shard["waits"]["why"] for shard in shards} == {"s1": "unclaimed", "s2": "parents"}


def test_status_shows_what_a_daemon_says_while_the_table_does_not_answer(world: World) -> None:
    target = {"target": "orders/replica/eu:orders", "region": "eu", "lag_seconds": None, "seconds_since_progress": 3.0}
    shard = {"shard": "s1", "stream": "arn", "targets": [target]}  # it has read nothing yet
    with answering({"group": "test", "worker": "w1", "rules": [{"name": "orders", "shards": [shard]}]}) as address:
        world.config["admin"]["port"] = int(address.rpartition(":")[2])
        plain = world.run("status")
        assert "orders\teu:orders\ts1\tnone\t\tnone\t\t\t3.0 s\t\t\tok" in plain.output
        assert "replicator init" in plain.output
        (shown,) = world.run("status", "--json").json["rules"][0]["shards"]
    assert (shown["shard"], shown["stream"], shown["owner"]) == ("s1", "arn", None)
    assert shown["targets"][0]["position"] is None


def test_status_names_a_row_that_cannot_be_read_and_shows_the_others(sound: World) -> None:
    store(sound, "arn", "s1", **{"at:orders/replica/eu:orders": {"S": "42"}})
    sound.put(
        "us", TABLE, pk={"S": "test|us|arn"}, sk={"S": "shard|s2"}, **{"at:orders/replica/eu:orders": {"S": "nowhere"}}
    )
    plain = sound.run("status")
    assert ("\ts1\t" in plain.output, "\ts2\t" in plain.output) == (True, False)
    assert "shard|s2" in plain.output
    (sentence,) = sound.run("status", "--json").json["unreadable"]
    assert "Delete the row: its shard is then read again" in sentence


def test_status_hides_shards_of_tables_that_the_daemons_read_no_more(sound: World) -> None:
    sound.rule["table"] = "ord*"
    store(sound, "arn", "s1", **{AT_EU: {"S": "42"}})
    assert "s1" in sound.run("status").output
    choice = {"rule": "orders", "region": "us", "chooses": "ord*", "tables": ["ordinary"], "left_out": []}
    with answering(
        {"group": "test", "worker": "w1", "choices": [choice], "stock_clients": {"eu": "a proxy is set"}}
    ) as address:
        pulse = {"beat": {"N": "1"}, "admin": {"S": address}, "sv": {"N": "1"}}
        sound.put("us", TABLE, pk={"S": "test|workers"}, sk={"S": "w1"}, **pulse)
        plain = sound.run("status")
        assert "s1" not in plain.output
        assert "hidden: 1 shard (table no longer read)" in plain.errors
        assert (
            "the AWS client sends the calls of region eu, at more CPU than the lean transport: a proxy" in plain.errors
        )
        assert "\ttable no longer read" in sound.run("status", "--all").output
        choice["tables"] = ["orders"]
        assert "s1" in sound.run("status").output


@contextmanager
def answering(document: dict[str, Any]) -> Iterator[str]:
    """An admin server that shows this status; yields its address."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("content-type", "application/json")
            self.end_headers()
            self.wfile.write(json.dumps(document).encode())

        def log_message(self, *_: Any) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_a_thousand_shards_are_listed(sound: World) -> None:
    store(sound, "arn", "s0000")
    pk = {"S": "test|us|arn"}
    for first in range(0, SHARDS, 25):
        puts = [
            {"PutRequest": {"Item": {"pk": pk, "sk": {"S": f"shard|s{n:04d}"}, "epoch": {"N": "1"}, "sv": {"N": "1"}}}}
            for n in range(first, first + 25)
        ]
        sound.call("us", "BatchWriteItem", RequestItems={TABLE: puts})
    assert len(leases(sound)) == SHARDS


def test_a_worker_whose_heart_beats_is_alive(sound: World) -> None:
    store(sound, "arn", "s1", owner={"S": "w0"})
    with beating(sound, "test|workers", "w0", "beat"):
        answer = sound.run("leases", "list", "--json")
    (worker,) = answer.json["workers"]
    assert (worker["worker"], worker["is"], worker["shards"]) == ("w0", "alive", 1)
    assert answer.json["shards"][0]["owner_is"] == "alive"


@contextmanager
def beating(world: World, pk: str, sk: str, attribute: str, table: str = TABLE) -> Iterator[None]:
    """A counter that rises in the background."""
    over = threading.Event()

    def beat() -> None:
        number = 0
        while not over.wait(0.05):
            number += 1
            world.put("us", table, pk={"S": pk}, sk={"S": sk}, sv={"N": "1"}, **{attribute: {"N": str(number)}})

    thread = threading.Thread(target=beat)
    thread.start()
    try:
        time.sleep(0.3)
        yield
    finally:
        over.set()
        thread.join()


def test_a_release_takes_the_owner_away_and_raises_the_epoch(sound: World) -> None:
    for name, owner in (("s1", "w1"), ("s2", "w1"), ("s3", "w2")):
        store(sound, "arn", name, owner={"S": owner}, **{AT_EU: {"S": "42"}})
    answer = sound.run("leases", "release", "--worker", "w1", "--json")
    assert {entry["shard"] for entry in answer.json["released"]} == {"s1", "s2"}
    row = rows(sound)["shard|s1"]
    assert ("owner" in row, row["epoch"], row[AT_EU]) == (False, {"N": "4"}, {"S": "42"})
    assert rows(sound)["shard|s3"]["owner"] == {"S": "w2"}
    assert "taken from w2, epoch 4" in sound.run("leases", "release", "--shard", "s3", "--yes").output
    again = sound.run("leases", "release", "--shard", "s3")
    assert (again.code, "had no owner" in again.errors) == (0, True)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "needs one of --shard, --worker and --all"),
        (["--all", "--worker", "w1"], "needs one of"),
        (["--all", "--stream", "arn"], "--stream goes with --shard"),
        (["--shard", "s9"], "No stream of this group has a shard s9"),
    ],
)
def test_a_release_that_names_nothing_is_refused(sound: World, arguments: list[str], words: str) -> None:
    answer = sound.run("leases", "release", *arguments)
    assert (answer.code, words in answer.errors) == (2, True), answer.said


# -- rewind --------------------------------------------------------------------------------------------------------


def test_a_rewind_moves_a_shard_to_its_horizon_and_skips_what_is_older_than_asked(sound: World) -> None:
    arn, shard = stream_of(sound)
    store(sound, arn, shard, owner={"S": "w1"}, **{AT_EU: {"S": "42"}})
    answer = sound.run("rewind", "orders", "--to", "2h", "--yes", "--json")
    assert answer.code == 0, answer.said
    (moved,) = answer.json["rewound"]
    assert (moved["shard"], moved["target"], moved["from"], moved["to"]) == (
        shard,
        TO_EU,
        "42",
        "TRIM_HORIZON",
    )
    row = rows(sound)[f"shard|{shard}"]
    assert ("owner" in row, row["epoch"], row[AT_EU]) == (
        False,
        {"N": "4"},
        {"S": "TRIM_HORIZON"},
    )
    before, until = row[REWIND_EU]["S"].split()
    assert time.time() - 7300 < float(before) < time.time() - 7100
    assert until == "42"
    assert "nothing to rewind" in sound.run("rewind", "orders", "--to", "trim_horizon", "--yes").output


def test_a_rewind_leaves_shards_that_the_stream_no_longer_lists(sound: World) -> None:
    arn, shard = stream_of(sound)
    store(sound, arn, shard, **{AT_EU: {"S": "42"}})
    store(sound, arn, "shardId-gone", **{AT_EU: {"S": "SHARD_END"}})
    answer = sound.run("leases", "rewind", "orders", "--to", "trim_horizon", "--yes", "--json")
    assert [moved["shard"] for moved in answer.json["rewound"]] == [shard]
    assert answer.json["gone"] == [{"stream": "us:orders", "shard": "shardId-gone"}]
    assert rows(sound)["shard|shardId-gone"][AT_EU] == {"S": "SHARD_END"}


def test_a_rewind_to_a_record_reads_on_behind_it(sound: World) -> None:
    arn, shard = stream_of(sound)
    for number in ("1", "2"):
        sound.put("us", "orders", pk={"S": "a"}, sk={"N": number})
    start = {"StreamArn": arn, "ShardId": shard, "ShardIteratorType": "TRIM_HORIZON"}
    iterator = sound.call_streams("us", "GetShardIterator", **start)["ShardIterator"]
    records = sound.call_streams("us", "GetRecords", ShardIterator=iterator)["Records"]
    first, second = (record["dynamodb"]["SequenceNumber"] for record in records)
    store(
        sound,
        arn,
        shard,
        **{AT_EU: {"S": second}, REWIND_EU: {"S": f"9.5 {second}"}},
    )
    shown = sound.run("rewind", "orders", "--shard", shard, "--to", first, "--yes")
    assert (shown.code, f"behind {first}" in shown.output) == (0, True), shown.said
    row = rows(sound)[f"shard|{shard}"]
    assert row[AT_EU] == {"S": first}
    assert REWIND_EU not in row


def test_in_a_mesh_a_region_narrows_a_rewind_to_its_stream(world: World) -> None:
    world.mesh("active-active")
    for region in ("us", "eu"):
        arn = world.call(region, "DescribeTable", TableName="orders")["Table"]["LatestStreamArn"]
        (shard,) = world.call_streams(region, "DescribeStream", StreamArn=arn)["StreamDescription"]["Shards"]
        pk, version = {"S": f"test|{region}|{arn}"}, {"N": "1"}
        seen = {"arn": {"S": arn}, "sv": version}
        world.put("us", TABLE, pk={"S": "test|streams"}, sk={"S": f"{region}|orders|0000000000001"}, **seen)
        progress = {"epoch": version, "sv": version, "at:orders/mesh/eu+us": {"S": "42"}}
        world.put("us", TABLE, pk=pk, sk={"S": f"shard|{shard['ShardId']}"}, **progress)
    eu = world.run("rewind", "orders", "--to", "trim_horizon", "--region", "eu", "--yes", "--json")
    assert [entry["region"] for entry in eu.json["rewound"]] == ["eu"], eu.said
    rest = world.run("rewind", "orders", "--to", "trim_horizon", "--yes", "--json")
    assert [entry["region"] for entry in rest.json["rewound"]] == ["us"], rest.said


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["orders", "--to", "trim_horizon"], "Add --yes"),
        (["orders", "--to", "42", "--yes"], "Add --shard"),
        (["orders", "--to", "soon", "--yes"], "no place to rewind to"),
        (["order", "--to", "2h", "--yes"], "There is no rule order. Perhaps orders is meant. Rules are: orders."),
        (["order", "--to", "2h"], "There is no rule order. Perhaps orders is meant. Rules are: orders."),
        (["orders", "--to", "2h", "--region", "ap", "--yes"], "has no region ap"),
        (["orders", "--to", "2h", "--shard", "s9", "--yes"], "no progress on shard s9"),
        (["orders", "--to", "99", "--shard", "SHARD", "--yes"], "never moves forward"),
    ],
)
def test_a_rewind_that_makes_no_sense_is_refused_and_moves_nothing(
    sound: World, arguments: list[str], words: str
) -> None:
    arn, shard = stream_of(sound)
    store(sound, arn, shard, **{AT_EU: {"S": "42"}})
    before = rows(sound)
    answer = sound.run("rewind", *(shard if argument == "SHARD" else argument for argument in arguments))
    assert (answer.code, words in answer.errors) == (2, True), answer.said
    assert rows(sound) == before


# -- pause and gaps ------------------------------------------------------------------------------------------------


def test_a_pause_is_stored_shown_and_taken_away_and_can_be_repeated(sound: World) -> None:
    assert "is paused" in sound.run("pause", "orders", "--note", "migration").output
    assert "already paused" in sound.run("pause", "orders", "--yes").output
    assert sound.run("status", "--json").json["rules"][0]["paused"] is True
    said = sound.run("status")
    assert said.code == 1
    assert "orders is paused for 0.0 s: replicator resume orders\n" in re.sub(r"\d\.\d s", "0.0 s", said.output)
    assert "An operator paused it: migration" in said.output
    assert sound.run("leases", "list", "--json").json["paused"][0]["note"] == "migration"
    assert any("It is paused. migration" in warning for warning in sound.check().warnings())
    assert sound.run("resume", "orders", "--json").json == {"rule": "orders", "paused": False, "changed": True}
    assert "was not paused" in sound.run("resume", "orders", "--yes").output
    assert sound.run("status", "--json").json["rules"][0]["paused"] is False
    for command in ("pause", "resume"):
        answer = sound.run(command, "order")
        assert (answer.code, "There is no rule order." in answer.errors) == (2, True)


GAP = "fccae137d602"  # of what follows


def gap(world: World) -> None:
    text = {
        "stream": "arn",
        "region": "us",
        "table": "orders",
        "shard": "s1",
        "target": TO_EU,
        "after": "42",
    }
    text |= {"pk": "test|gaps", "sk": GAP, "why": "trimmed"}
    numbers = {"sv": "1", "generation": "1", "found_at": "1780000000.5"}
    item = {name: {"S": value} for name, value in text.items()} | {
        name: {"N": value} for name, value in numbers.items()
    }
    world.call("us", "PutItem", TableName=TABLE, Item=item)


def test_a_gap_is_listed_until_it_is_accepted(sound: World) -> None:
    gap(sound)
    (found,) = sound.run("gaps", "list", "--json").json["gaps"]
    assert (found["gap"], found["target"], found["after"], found["until"]) == (
        GAP,
        TO_EU,
        "42",
        None,
    )
    for command in ("gaps", "parked", "jobs", "conflicts"):
        mistyped = sound.run(command, "list", "--rule", "order", "--json")
        assert (mistyped.code, mistyped.json["exit_code"]) == (2, 2)
        assert mistyped.json["errors"] == ["There is no rule order. Perhaps orders is meant. Rules are: orders."]
    assert f"gaps acknowledge {GAP}" in sound.run("status").output
    assert any("1 losses are not acknowledged" in warning for warning in sound.check().warnings())
    refused = sound.run("gaps", "acknowledge", GAP[:4])
    assert (refused.code, "Add --yes" in refused.errors) == (2, True)
    accepted = sound.run("gaps", "acknowledge", GAP[:4], "--note", "compared", "--yes")
    assert "behind 42" in accepted.output
    assert "continues after it" in accepted.output
    assert sound.run("gaps", "list", "--json").json["gaps"] == []
    (kept,) = sound.run("gaps", "list", "--all", "--json").json["gaps"]
    assert kept["note"] == "compared"
    assert kept["acknowledged_by"]
    again = sound.run("gaps", "acknowledge", GAP[:4], "--json")
    assert (again.code, again.json["changed"]) == (0, False)


@pytest.mark.parametrize("gap_id", ["97a", "ffff"])
def test_a_gap_that_is_not_named_well_is_refused(sound: World, gap_id: str) -> None:
    gap(sound)
    assert sound.run("gaps", "acknowledge", gap_id, "--yes").code == 2


# -- import-kcl ----------------------------------------------------------------------------------------------------


def kcl(world: World, *leases: tuple[str, str], counter: str = "1") -> None:
    """A lease table with leases."""
    if "kcl" not in world.tables("us"):
        world.table("us", "kcl", {"leaseKey": "S"})
    for key, checkpoint in leases:
        world.put(
            "us",
            "kcl",
            leaseKey={"S": key},
            checkpoint={"S": checkpoint},
            checkpointSubSequenceNumber={"N": "0"},
            leaseCounter={"N": counter},
            leaseOwner={"S": "old"},
        )


def imported(world: World, *arguments: str) -> Answer:
    return world.run("import-kcl", "kcl", *arguments)


def test_positions_of_a_kcl_consumer_are_taken(sound: World) -> None:
    arn, shard = stream_of(sound)
    label = arn.rpartition("/stream/")[2]
    kcl(sound, (f"{sound.account}:orders:{label}:{shard}", "42"), (f"{sound.account}:users:{label}:{shard}", "43"))
    tried = imported(sound, "--dry-run", "--json")
    assert tried.code == 0, tried.said
    assert [(each["shard"], each["position"]) for each in tried.json["shards"]] == [(shard, "42")]
    assert any("Leases of other streams are not imported: 1." in warning for warning in tried.json["warnings"])
    assert f"shard|{shard}" not in rows(sound)
    assert imported(sound).code == 2
    done = imported(sound, "--yes")
    assert (done.code, "Positions of 1 shard were taken" in done.output) == (0, True), done.said
    stored = rows(sound)
    assert stored[f"shard|{shard}"][AT_EU] == {"S": "42"}
    assert "started_at" in stored[f"target|{TO_EU}"]
    (shown,) = sound.run("status", "--json").json["rules"][0]["shards"]
    assert shown["targets"][0]["position"] == "42"
    again = imported(sound, "--yes")
    assert (again.code, "has progress on the stream" in again.errors) == (78, True)


def test_a_position_that_is_no_place_begins_at_the_horizon_and_says_so(sound: World) -> None:
    arn, shard = stream_of(sound)
    kcl(sound, (shard, "LATEST"))
    done = imported(sound, "--yes", "--json")
    assert done.json["shards"][0]["exact"] is False
    assert any("which is no place" in warning for warning in done.json["warnings"])
    assert rows(sound)[f"shard|{shard}"][AT_EU] == {"S": "TRIM_HORIZON"}
    assert arn


def test_a_kcl_consumer_that_still_runs_is_told(sound: World) -> None:
    _, shard = stream_of(sound)
    kcl(sound, (shard, "42"))
    over = threading.Event()

    def renew() -> None:
        number = 1
        while not over.wait(0.1):
            number += 1
            kcl(sound, (shard, "42"), counter=str(number))

    thread = threading.Thread(target=renew)
    thread.start()
    try:
        tried = imported(sound, "--dry-run", "--json")
    finally:
        over.set()
        thread.join()
    assert any("still runs (old)" in warning for warning in tried.json["warnings"])


@pytest.mark.parametrize(
    ("leases", "words"),
    [
        ([("shardId-of-another", "42")], "None of the 1 leases"),
        ([("leader", "42")], "holds no KCL lease"),
        ([("shardId-x", "nowhere")], "no place in a stream"),
    ],
)
def test_a_table_that_is_not_the_consumer_s_is_refused(sound: World, leases: list[tuple[str, str]], words: str) -> None:
    kcl(sound, *leases)
    answer = imported(sound, "--yes")
    assert (answer.code, words in answer.errors) == (78, True), answer.said


def test_nothing_is_imported_beside_a_living_worker(sound: World) -> None:
    _, shard = stream_of(sound)
    kcl(sound, (shard, "42"))
    with beating(sound, "test|workers", "w0", "beat"):
        answer = imported(sound, "--yes")
    assert (answer.code, "Worker w0 of group test is running." in answer.errors) == (78, True), answer.said


def test_an_import_that_was_interrupted_can_be_repeated(sound: World) -> None:
    arn, shard = stream_of(sound)
    pk = {"S": f"test|us|{arn}"}
    sound.put(
        "us",
        TABLE,
        pk=pk,
        sk={"S": f"shard|{shard}"},
        sv={"N": "1"},
        epoch={"N": "0"},
        **{AT_EU: {"S": "40"}},
    )
    kcl(sound, (shard, "42"))
    assert imported(sound, "--yes").code == 0
    assert rows(sound)[f"shard|{shard}"][AT_EU] == {"S": "42"}
