"""State of other versions: what 0.1.0 left is gone on with, and what a newer layout holds is refused.

`rows_of_0_1_0.json` is what the program of that version left, killed, on the servers that these tests run: it had
replicated five items, taken two of them away again, and written over one that it did not know.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import redis

from replicator.app.invocations import Process
from tests.cli.daemons import Daemon, running, wait_until
from tests.cli.worlds import World
from tests.seeds import first

pytestmark = pytest.mark.servers

RECORDED = Path(__file__).with_name("rows_of_0_1_0.json").read_text()
COORDINATION = "replicator-coordination"
OF_THEN = {
    "arn:aws:dynamodb:us-east-1:000000000000:table/orders/stream/2026-11-29T14:55:02.142": "arn",
    "1795964102142": "generation",
    "000000017959641091310000000008": "position",
    "order:": "prefix",
}
"""What of the recorded state is another thing in another place, by its name here."""


# -- what 0.1.0 left -----------------------------------------------------------------------------------------------


def restored(world: World) -> dict[str, Any]:
    """Put what 0.1.0 left into a world of today: its stream, its account and its cache are others."""
    del world.config["rules"][0]["cache"][0]["key"]
    world.config["rules"][0]["cache"][0] |= {"key": f"{world.account}:{{pk}}", "action": "refresh", "ttl": "1h"}
    world.table("us", keys={"pk": "S"}, view="NEW_AND_OLD_IMAGES")
    world.table("eu", keys={"pk": "S"})
    world.initialise()
    (stream,) = world.call_streams("us", "ListStreams", TableName="orders")["Streams"]
    for item in json.loads(RECORDED)["tables"]["us/orders"]:
        world.put("us", "orders", **item)
    here = {
        "arn": stream["StreamArn"],
        "generation": str(milliseconds(stream["StreamLabel"])),
        "position": numbers(world, stream["StreamArn"])[-1],
        "prefix": f"{world.account}:",
    }
    text = RECORDED
    for then, name in OF_THEN.items():
        assert then in text
        text = text.replace(then, here[name])
    state: dict[str, Any] = json.loads(text)
    for place, rows in state["tables"].items():
        region, _, table = place.partition("/")
        for row in rows if place != "us/orders" else ():
            world.call(region, "PutItem", TableName=table, Item=row)
    with redis.Redis.from_url(world.redis_url) as cache:
        for key, entry in state["cache"].items():
            cache.set(key, entry)
    return state


def milliseconds(label: str) -> int:
    return round(datetime.fromisoformat(label).replace(tzinfo=UTC).timestamp() * 1000)


def numbers(world: World, arn: str) -> list[str]:
    """Sequence numbers of all records of a stream with one shard."""
    (shard,) = world.call_streams("us", "DescribeStream", StreamArn=arn)["StreamDescription"]["Shards"]
    start = {"StreamArn": arn, "ShardId": shard["ShardId"], "ShardIteratorType": "TRIM_HORIZON"}
    iterator = world.call_streams("us", "GetShardIterator", **start)["ShardIterator"]
    records = world.call_streams("us", "GetRecords", ShardIterator=iterator)["Records"]
    return [record["dynamodb"]["SequenceNumber"] for record in records]


def held(world: World, region: str) -> dict[str, str]:
    return {item["pk"]["S"]: item["n"]["N"] for item in world.items(region, "orders")}


def logged(daemon: Daemon, event: str) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in daemon.said().splitlines() if line.startswith("{")]
    return [line for line in lines if line["event"] == event]


def test_what_0_1_0_left_is_gone_on_with(world: World) -> None:
    before = restored(world)["tables"]
    world.config["log"] = {"level": "debug"}
    with running(world) as daemon:
        daemon.await_ready()
        world.put("us", "orders", pk={"S": "kept"}, n={"N": "3"})
        world.put("us", "orders", pk={"S": "recreated"}, n={"N": "3"})
        world.call("us", "DeleteItem", TableName="orders", Key={"pk": {"S": "deleted"}})
        expected = {"kept": "3", "changed": "2", "recreated": "3"}
        wait_until(lambda: held(world, "eu") == expected, "the replica does not follow")
        wait_until(lambda: entries(world) == {"kept": "V:3", "changed": "V:2", "deleted": "T:"}, str(entries(world)))
        (logged_conflict,) = world.run("conflicts", "list", "--json").json["conflicts"]
        assert daemon.stop() == 0
    assert [line["target"] for line in logged(daemon, "target_carried_over")] == ["orders/replica/eu:orders"]
    assert sum(line["records"] for line in logged(daemon, "batch_applied")) == 3, "nothing is done again"
    assert not logged(daemon, "gap_found")
    assert logged_conflict["id"] == before["us/replicator-conflicts-test"][0]["id"]["S"]
    (old,) = (row for row in before[f"us/{COORDINATION}"] if row["sk"]["S"].startswith("shard|"))
    (new,) = (row for row in world.items("us", COORDINATION) if row["sk"] == old["sk"])
    assert new["at:orders/eu"] == old["at:orders/eu"], "where 0.1.0 would go on stays as it was"
    assert int(new["at:orders/replica/eu:orders"]["S"]) > int(old["at:orders/eu"]["S"])


def entries(world: World) -> dict[str, str]:
    """What the cache says of items: a value's number, or that there is none."""
    found = {}
    with redis.Redis.from_url(world.redis_url, decode_responses=True) as cache:
        for name in ("kept", "changed", "deleted"):
            kind, _, payload = str(cache.get(f"{world.account}:{name}")).partition("|")
            found[name] = kind[:2] + (json.loads(payload)["n"]["N"] if payload else "")
    return found


# -- a newer layout ------------------------------------------------------------------------------------------------

ROWS = {
    "workers": ("test|workers", "worker-of-2027"),
    "rules": ("test|rules", "orders"),
    "streams": ("test|streams", "us|orders|0000000001000"),
    "tables": ("test|tables", "orders|eu|orders"),
    "regions": ("test|regions", "orders|eu"),
    "jobs": ("test|jobs", "job|1"),
    "functions": ("test|functions", "orders|arn"),
}


def newer(world: World, kind: str) -> str:
    """Put a row there that a later version might write; returns what it is refused with."""
    partition, sort = ROWS[kind]
    world.put("us", COORDINATION, pk={"S": partition}, sk={"S": sort}, sv={"N": "9"}, other={"S": "x"})
    return (
        f"The coordination table {COORDINATION} in us holds rows of a newer replicator: {partition} / {sort} is of"
        " layout 9, and this program knows layout 1."
    )


@pytest.mark.parametrize("kind", first(1, list(ROWS)))
def test_check_names_a_row_of_a_newer_layout(world: World, kind: str) -> None:
    world.sound()
    sentence = newer(world, kind)
    answer = world.check()
    assert answer.code == 78
    (failure,) = answer.failures()
    assert failure.startswith(sentence)
    assert "Upgrade this program" in failure


def test_commands_end_with_one_sentence_at_rows_of_a_newer_layout(world: World) -> None:
    world.sound()
    sentences = {kind: newer(world, kind) for kind in ("streams", "jobs")}
    for arguments, kind in ((("status",), "streams"), (("jobs", "list"), "jobs"), (("run",), "streams")):
        answer = world.run(*arguments)
        assert answer.code == 78, answer.said
        assert answer.errors.count(sentences[kind]) == 1, answer.said
        assert "Upgrade this program to the version of its newest worker" in answer.errors


def test_a_daemon_ends_beside_a_worker_of_a_newer_layout(world: World) -> None:
    world.sound()
    with running(world) as daemon:
        daemon.await_ready()
        sentence = newer(world, "workers")
        wait_until(lambda: daemon.process.poll() is not None, "the daemon goes on")
        assert daemon.process.poll() == 78
        assert sentence in daemon.said()
    assert not [row for row in world.items("us", COORDINATION) if row["sv"]["N"] == "9" and "beat" in row]


def test_a_function_does_nothing_at_rows_of_a_newer_layout(
    world: World, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    world.sound()
    sentence = newer(world, "streams")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
    for name, value in world.environment.items():
        monkeypatch.setenv(name, value)
    process, number = Process(), "000000017959641091310000000008"
    record = {
        "eventSource": "aws:dynamodb",
        "eventSourceARN": "arn:aws:dynamodb:us-east-1:1:table/orders/stream/a",
        "dynamodb": {"SequenceNumber": number},
    }
    try:
        answer = process.handle({"Records": [record]}, 20_000)
    finally:
        process.close()
    assert answer == {"batchItemFailures": [{"itemIdentifier": number}]}, "it comes again"
    assert sentence in capsys.readouterr().err
