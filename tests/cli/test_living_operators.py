"""The commands of operators beside daemons that run."""

from __future__ import annotations

import json
import os
import signal
from contextlib import suppress

import pytest

from tests.cli.daemons import Daemon, owners, running, wait_until
from tests.cli.worlds import World

pytestmark = pytest.mark.servers


def write(world: World, *numbers: int, text: str = "x") -> None:
    for number in numbers:
        world.put("us", "orders", pk={"S": "a"}, sk={"N": str(number)}, text={"S": text})


def arrived(world: World, *numbers: int) -> bool:
    return {item["sk"]["N"] for item in world.items("eu", "orders")} >= {str(number) for number in numbers}


def records(world: World) -> int:
    """How many records the owners of shards have done since they took them."""
    (rule,) = world.run("status", "--json").json["rules"]
    return sum(target["counts"].get("records", 0) for shard in rule["shards"] for target in shard["targets"])


def test_a_released_shard_and_a_rewound_one_are_read_on(world: World) -> None:
    world.sound()
    with running(world) as daemon:
        daemon.await_ready()
        write(world, 1, 2, 3)
        wait_until(lambda: arrived(world, 1, 2, 3), "the items do not arrive")
        answer = world.run("leases", "list", "--json")
        (worker,) = answer.json["workers"]
        assert worker["is"] == "alive"
        assert worker["admin"].endswith(str(daemon.port))
        (shard,) = answer.json["shards"]
        assert shard["owner"] == worker["worker"]
        (released,) = world.run("leases", "release", "--all", "--json").json["released"]
        assert released["shard"] == shard["shard"]
        wait_until(lambda: owners(world).get("us") == {worker["worker"]}, "the shard is not claimed again")
        write(world, 4)
        wait_until(lambda: arrived(world, 1, 2, 3, 4), "the shard is not read on")

        def stored() -> bool:
            position = world.run("leases", "list", "--fast", "--json").json["shards"][0]["positions"][
                "orders/replica/eu:orders"
            ]
            return bool(position) and position.isdecimal()

        wait_until(stored, "no position is stored")
        for number in (1, 2, 3, 4):
            world.call("eu", "DeleteItem", TableName="orders", Key={"pk": {"S": "a"}, "sk": {"N": str(number)}})
        rewound = world.run("rewind", "orders", "--to", "trim_horizon", "--yes", "--json").json["rewound"]
        assert [entry["shard"] for entry in rewound] == [shard["shard"]]
        wait_until(lambda: arrived(world, 1, 2, 3, 4), "the records are not read again")
        assert daemon.stop() == 0


def test_a_paused_rule_rests_and_goes_on_where_it_stood(world: World) -> None:
    world.sound()
    with running(world) as daemon:
        daemon.await_ready()
        write(world, 1)
        wait_until(lambda: arrived(world, 1), "the item does not arrive")
        assert world.run("pause", "orders").code == 0
        wait_until(lambda: rests(daemon), "it does not rest")
        write(world, 2)
        assert world.run("resume", "orders").code == 0
        wait_until(lambda: arrived(world, 1, 2), "it does not go on")
        assert daemon.stop() == 0


def test_a_daemon_goes_on_behind_what_a_kcl_consumer_processed(world: World) -> None:
    world.sound()
    world.table("us", "kcl", {"leaseKey": "S"})
    write(world, 1, 2)
    arn = world.call("us", "DescribeTable", TableName="orders")["Table"]["LatestStreamArn"]
    (shard,) = world.call_streams("us", "DescribeStream", StreamArn=arn)["StreamDescription"]["Shards"]
    start = {"StreamArn": arn, "ShardId": shard["ShardId"], "ShardIteratorType": "TRIM_HORIZON"}
    iterator = world.call_streams("us", "GetShardIterator", **start)["ShardIterator"]
    records = world.call_streams("us", "GetRecords", ShardIterator=iterator)["Records"]
    first = records[0]["dynamodb"]["SequenceNumber"]
    world.put("us", "kcl", leaseKey={"S": shard["ShardId"]}, checkpoint={"S": first}, leaseCounter={"N": "1"})
    world.rule["start"] = "latest"
    assert world.run("import-kcl", "kcl", "--yes").code == 0
    with running(world) as daemon:
        daemon.await_ready()
        wait_until(lambda: arrived(world, 2), "the record behind the position does not arrive")
        write(world, 3)
        wait_until(lambda: arrived(world, 2, 3), "it does not go on")
        assert not arrived(world, 1), "what was processed before is read again"
        assert daemon.stop() == 0


def rests(daemon: Daemon) -> bool:
    """No shard is read for the rule."""
    status = daemon.answers("/status")
    assert status is not None
    (rule,) = json.loads(status)["rules"]
    return not any(shard["targets"] for shard in rule["shards"])


# -- several workers -----------------------------------------------------------------------------------------------


def alive(pid: int) -> bool:
    with suppress(ProcessLookupError):
        os.kill(pid, 0)
        return True
    return False


def logged(line: str) -> dict[str, object]:
    """A line of the log; nothing when it is none, or is cut short: its writer may have been killed."""
    with suppress(json.JSONDecodeError):
        return dict(json.loads(line)) if line.startswith("{") else {}
    return {}


def events(daemon: Daemon, name: str) -> list[dict[str, object]]:
    return [line for line in map(logged, daemon.said().splitlines()) if line.get("event") == name]


@pytest.mark.slow
def test_several_workers_share_the_work_survive_a_death_and_end_together(world: World) -> None:
    world.sound()
    with running(world, "--workers", "2") as daemon:
        wait_until(lambda: events(daemon, "workers_ready") != [], "the workers are not ready")
        ports = {str(event["port"]) for event in events(daemon, "admin_listening")}
        assert ports == {str(daemon.port), str(daemon.port + 1)}
        write(world, 1)
        wait_until(lambda: arrived(world, 1), "the item does not arrive")
        wait_until(lambda: records(world) > 0, "status does not find the worker that has the shard")
        assert all(worker["daemon"] for worker in world.run("status", "--json").json["workers"])
        pids = {event["process"]: int(str(event["pid"])) for event in events(daemon, "worker_started")}
        for pid in pids.values():
            os.kill(pid, signal.SIGKILL)
        wait_until(lambda: len(events(daemon, "worker_started")) == 4, "the workers are not started again")
        write(world, 2)
        wait_until(lambda: arrived(world, 1, 2), "the shard is not taken over")
        assert daemon.stop() == 0
        assert not any(alive(int(str(event["pid"]))) for event in events(daemon, "worker_started"))
        assert owners(world) == {}


@pytest.mark.slow
def test_workers_end_when_their_parent_is_killed(world: World) -> None:
    world.sound()
    with running(world, "--workers", "2") as daemon:
        wait_until(lambda: events(daemon, "workers_ready") != [], "the workers are not ready")
        pids = [int(str(event["pid"])) for event in events(daemon, "worker_started")]
        daemon.process.kill()
        wait_until(lambda: not any(alive(pid) for pid in pids), "the workers outlive their parent")
        assert owners(world) == {}


def test_a_wrong_world_ends_all_workers_with_one_sentence(world: World) -> None:
    answer = world.run("run", "--workers", "3")
    assert answer.code == 78
    assert answer.errors.count("replicator init") == 1


@pytest.mark.parametrize("number", ["0", "many", "1000"])
def test_a_number_of_workers_that_is_none_is_refused(world: World, number: str) -> None:
    answer = world.run("run", "--workers", number)
    assert (answer.code, "Write a number from 1 to 256" in answer.errors) == (2, True)
