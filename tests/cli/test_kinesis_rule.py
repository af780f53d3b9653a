"""A rule that reads in Kinesis, from `init` to its move back: the program at the laboratory's Kinesis.

Shards are pushed to it; behind a start, a rewind and now and then they are polled, too.
"""

from __future__ import annotations

import base64
import json
import time
import zlib
from collections.abc import Iterator
from typing import Any

import pytest

from replicator.laboratory.streamlab import StreamLab
from replicator.laboratory.streamlab.changes import Change
from replicator.laboratory.streamlab.envelope import envelope
from tests.cli.daemons import running, wait_until
from tests.cli.worlds import REGIONS, World

pytestmark = [pytest.mark.servers, pytest.mark.long]

WEEK = 7 * 86_400.0
KINESIS = {
    "DescribeStreamSummary",
    "ListShards",
    "GetShardIterator",
    "GetRecords",
    "SubscribeToShard",
    "RegisterStreamConsumer",
    "DescribeStreamConsumer",
    "DeregisterStreamConsumer",
}
"""Without CreateStream, which users call; reading calls of a table's own stream have the same names."""


@pytest.fixture
def lab(world: World) -> Iterator[StreamLab]:
    """Kinesis in front of the world's tables, with repeats and disorder."""
    disorder = {"kinesis_duplicates": 0.5, "kinesis_disorder": 0.5, "retention_seconds": WEEK}
    with StreamLab.start(world.directory, world.endpoint_url, **disorder) as started:  # type: ignore[arg-type]
        yield started


def retention_left(world: World) -> float:
    (rule,) = world.run("status", "--json").json["rules"]
    left = [target["retention_left_seconds"] for target in rule["targets"]]
    for shard in rule["shards"]:
        left += [] if shard["over"] else [target["retention_left_seconds"] for target in shard["targets"]]
    return min([each for each in left if each is not None], default=0.0)


def park_and_retry(front: World, world: World) -> None:
    """A change that this program cannot read is parked as it came; one that can reads it again, with its time."""
    change = Change(
        "INSERT", b'{"pk":{"S":"z"},"sk":{"N":"1"}}', b'{"pk":{"S":"z"},"sk":{"N":"1"},"b":{"B":"AP8="}}', b"", 0, 0
    )
    micros = int(time.time() * 1_000_000)
    readable = envelope(change, table="orders", region=REGIONS["us"], event_id="e", micros=micros)
    unread = readable.replace(b'"INSERT"', b'"UPSERT"')
    sent = {"StreamName": "changes", "PartitionKey": "0" * 32, "Data": base64.b64encode(unread).decode()}
    front._call("us", "Kinesis_20131202", "PutRecord", sent)
    wait_until(lambda: len(world.run("parked", "list", "--json").json["parked"]) == 1, "nothing is parked")
    (row,) = world.run("parked", "list", "--json").json["parked"]
    assert (row["key"], "unknown event 'UPSERT'" in row["why"]) == (None, True)
    (tried,) = world.run("parked", "retry", "--all", "--json").json["retried"]
    assert "unknown event 'UPSERT'" in tried["why"]
    (body,) = [item for item in world.items("us", "replicator-owed-test") if item["sk"]["S"].startswith("body|")]
    kept = json.loads(zlib.decompress(base64.b64decode(body["z"]["B"])))
    assert base64.b64decode(kept["data"]) == unread
    kept["data"] = base64.b64encode(readable).decode()
    body["z"] = {"B": base64.b64encode(zlib.compress(json.dumps(kept).encode())).decode()}
    world.put("us", "replicator-owed-test", **body)
    (tried,) = world.run("parked", "retry", "--all", "--json").json["retried"]
    assert tried["settled"] == "retried"
    (item,) = [item for item in world.items("eu", "orders") if item["pk"]["S"] == "z"]
    assert (item["b"], item["_rep"]["S"][-40:]) == ({"B": "AP8="}, f"{micros:040}")
    assert world.run("parked", "list", "--json").json["parked"] == []
    front.put("us", "orders", pk={"S": "z"}, sk={"N": "1"})


def leases(world: World, *options: str) -> list[dict[str, Any]]:
    streams: list[dict[str, Any]] = world.run("leases", "list", "--fast", "--json", *options).json["streams"]
    return streams


def own_arn(world: World) -> str:
    """Of the table's own stream."""
    arn: str = world.call("us", "DescribeTable", TableName="orders")["Table"]["LatestStreamArn"]
    return arn


def granted(world: World, role: str) -> set[str]:
    """Actions of Kinesis, and on tables about it, that a role may ask for."""
    policy = world.run("iam", "--offline", "--account", world.account, "--role", role).json["us"]
    actions = {action.partition(":")[::2] for statement in policy["Statement"] for action in statement["Action"]}
    assert ("dynamodb", "GetRecords") not in actions
    return {action for service, action in actions if service == "kinesis" or "Kinesis" in action}


def asked(lab: StreamLab) -> set[str]:
    """The same, as they were asked for."""
    calls = set(lab.stats()["calls"])
    assert lab.stats()["refused"].keys() <= {"ResourceNotFoundException"}, (
        "of the consumer and shard that are not there"
    )
    return {call for call in calls if call in KINESIS or "Kinesis" in call}


def test_a_rule_reads_in_kinesis_and_moves_with_a_new_epoch_alone(  # noqa: PLR0915 - one life of a rule
    world: World, lab: StreamLab
) -> None:
    front = World(lab.url, "", world.account, world.directory)
    front._call("us", "Kinesis_20131202", "CreateStream", {"StreamName": "changes", "ShardCount": 2})
    world.config["regions"]["us"]["endpoints"] = {"dynamodb": lab.url, "kinesis": lab.url, "streams": lab.url}
    world.rule["stream"] = {"kinesis": "changes", "fan_out": True}
    world.config["copying"] = {"margin": "10ms"}
    world.table("us")
    world.table("eu")
    world.initialise()
    made = world.run("init", "--enable-streams")
    assert (made.code, "enabled in Kinesis stream changes" in made.said) == (0, True)
    assert granted(world, "setup") - asked(lab) == {"DeregisterStreamConsumer"}, "uninstall does that"
    assert world.check().failures() == []

    def same() -> bool:
        held = [{name: value for name, value in item.items() if name != "_rep"} for item in world.items("eu", "orders")]
        return sorted(map(str, held)) == sorted(map(str, world.items("us", "orders")))

    with running(world) as daemon:
        daemon.await_ready()
        for number in range(12):
            front.put("us", "orders", pk={"S": "a"}, sk={"N": str(number % 4)}, n={"N": str(number)})
        lab.command("reshard", shards=3, table="kinesis/changes")
        front.call("us", "DeleteItem", TableName="orders", Key={"pk": {"S": "a"}, "sk": {"N": "1"}})
        front.put("us", "orders", pk={"S": "b"}, sk={"N": "1"}, blob={"B": "AP8="})
        wait_until(lambda: len(world.items("eu", "orders")) == 4 and same(), "the items do not arrive")
        wait_until(lambda: "SubscribeToShard" in asked(lab), "nothing is pushed")
        assert world.run("rewind", "orders", "--to", "1h", "--yes").code == 0
        lab.command("settle")
        wait_until(same, "what was read again changed something")
        park_and_retry(front, world)
        wait_until(same, "what was retried stays in the way")
        wait_until(lambda: WEEK - 3600 < retention_left(world) <= WEEK, "the stream's own retention does not show")
        assert daemon.stop() == 0
    assert WEEK - 3600 < retention_left(world) < WEEK, "nor does it when no worker is there"
    assert granted(world, "setup") | granted(world, "worker") == asked(lab) | {"DeregisterStreamConsumer"}
    del world.rule["stream"]
    (refused,) = [said for said in world.check().failures() if "epoch" in said]
    assert "in which us:orders through Kinesis stream changes wrote there" in refused
    assert "set `epoch: 1` or higher" in refused

    def settled() -> bool:
        state = json.loads(daemon.answers("/status") or "{}")
        jobs = [job["kind"] for job in state.get("jobs", ())]
        repaired.extend(jobs)
        return state.get("standing") == [] and not jobs and "resync" in repaired

    repaired: list[str] = []
    world.rule["epoch"] = 1
    with running(world, name="moved") as daemon:
        daemon.await_ready()
        front.put("us", "orders", pk={"S": "c"}, sk={"N": "1"})
        wait_until(lambda: len(world.items("eu", "orders")) == 6 and same(), "the rule did not move")
        wait_until(settled, "what it left still counts, or the gap is not repaired")
        wait_until(lambda: world.run("gaps", "list", "--json").json["gaps"] == [], "the gap stays")
        (rule,) = world.run("status", "--json").json["rules"]
        assert {":kinesis:" in shard["stream"] for shard in rule["shards"]} == {False}
        assert [(each["stream"], each["left"]) for each in leases(world)] == [(own_arn(world), False)]
        assert {each["left"] for each in leases(world, "--all")} == {False, True}
        rewound = world.run("rewind", "orders", "--to", "1h", "--yes", "--json").json
        assert {step["stream"] for step in rewound["rewound"]} == {own_arn(world)}
        assert daemon.stop() == 0
    world.rule["stream"] = {"kinesis": "changes", "fan_out": True}
    removed = world.run("uninstall", "orders", "--yes")
    assert (removed.code, "of Kinesis stream changes is deregistered." in removed.said) == (0, True)
    assert granted(world, "setup") | granted(world, "worker") == asked(lab)
    assert "would register" in world.run("init", "--dry-run").said
