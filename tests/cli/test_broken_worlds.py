"""`check` and `run` on broken worlds: one sentence that names the thing and the remedy, the right exit code."""

from __future__ import annotations

import json
import re
import socket
from collections.abc import Callable
from typing import Any

import pytest
import redis

from tests.cli.daemons import running, wait_until
from tests.cli.proxy import WRITES, denying
from tests.cli.worlds import KEYS, World
from tests.seeds import first

pytestmark = pytest.mark.servers

NOWHERE = "http://127.0.0.1:1"


def no_source_table(world: World) -> None:
    world.rule["table"] = "missing"
    world.rule["replicas"] = [{"region": "eu", "table": "orders"}]


def no_replica_table(world: World) -> None:
    world.rule["replicas"] = [{"region": "eu", "table": "missing"}]


def no_stream(world: World) -> None:
    world.table("us", "silent")
    world.rule.update(table="silent", replicas=[{"region": "eu", "table": "orders"}])


def wrong_view(world: World) -> None:
    world.table("us", "keys-only", view="KEYS_ONLY")
    world.rule.update(table="keys-only", replicas=[{"region": "eu", "table": "orders"}])


def other_key_type(world: World) -> None:
    world.table("eu", "other", {"pk": "S", "sk": "S"})
    world.rule["replicas"] = [{"region": "eu", "table": "other"}]


def other_key_name(world: World) -> None:
    world.table("eu", "other", {"pk": "S"})
    world.rule["replicas"] = [{"region": "eu", "table": "other"}]


def other_index_type(world: World) -> None:
    world.table("us", "indexed", view="NEW_AND_OLD_IMAGES", index={"total": "N"})
    world.table("eu", "indexed", index={"total": "S"})
    world.rule["table"] = "indexed"


def no_side_table(world: World) -> None:
    world.config["side_table"] = "no-side"


def no_coordination_table(world: World) -> None:
    world.config["coordination"]["table"] = "no-coordination"


def foreign_side_table(world: World) -> None:
    world.config["side_table"] = "orders"


def filtered_by_another_type(world: World) -> None:
    world.rule["filter"] = {"equals": {"sk": "7"}}


def prefix_of_a_number(world: World) -> None:
    world.rule["filter"] = {"key_prefix": {"sk": "7"}}


def another_key_than_the_tables(world: World) -> None:
    world.rule["primary_key"] = ["pk"]


def refreshed_by_half_a_key(world: World) -> None:
    world.rule["cache"][0].update(key=f"{world.account}:{{pk}}:{{email}}", action="refresh")


STARTED = 4
"""So many of these are also refused by `run`, which asks and tells as `check` does."""

BROKEN = [
    (no_source_table, ["Table missing in us does not exist", "rule orders"]),
    (refreshed_by_half_a_key, ["rules[0].cache[0].key", "lacks sk of the primary key", "set action: invalidate"]),
    (no_coordination_table, ["no-coordination in us does not exist", "replicator init"]),
    (foreign_side_table, ["orders in eu is not a side table", "pk (S), sk (N) instead of k (S)"]),
    (no_replica_table, ["Table missing in eu does not exist", "rules[0].replicas[0]"]),
    (no_stream, ["silent in us", "rule orders", "no stream", "init --enable-streams"]),
    (wrong_view, ["keys-only in us", "KEYS_ONLY", "NEW_AND_OLD_IMAGES", "disable the stream"]),
    (other_key_type, ["other in eu has the key pk (S), sk (S)", "pk (S), sk (N)", "rule orders"]),
    (other_key_name, ["other in eu has the key pk (S),", "pk (S), sk (N)"]),
    (other_index_type, ["by_it of table indexed in eu", "total (S)", "total (N)", "Re-create the index"]),
    (no_side_table, ["no-side in eu does not exist", "replicator init"]),
    (filtered_by_another_type, ["rules[0].filter.equals names sk as S, but it is N in orders in us"]),
    (prefix_of_a_number, ["rules[0].filter.key_prefix names sk as S, but it is N in orders in us"]),
    (another_key_than_the_tables, ["orders in us", "the key pk (S), sk (N), but primary_key of rule orders names pk."]),
]


@pytest.mark.parametrize(("breaks", "parts"), first(5, BROKEN))
def test_check_and_run_tell_what_is_broken_and_refuse(
    world: World, breaks: Callable[[World], None], parts: list[str]
) -> None:
    world.sound()
    breaks(world)
    checked = world.check()
    assert checked.code == 78
    assert any(all(part in sentence for part in parts) for sentence in checked.failures()), checked.failures()
    if (breaks, parts) not in BROKEN[:STARTED]:
        return
    started = world.run("run")
    assert started.code == 78, started.said
    last = started.errors.strip().splitlines()[-1]
    assert last.startswith("replicator: ")
    assert all(part in last for part in parts), last


def test_a_sound_world_passes(world: World) -> None:
    world.sound()
    answer = world.check()
    assert answer.code == 0, answer.said
    assert answer.failures() == answer.warnings() == []
    statuses = {fact["status"] for fact in answer.json["facts"]}
    assert statuses == {"ok"}


def test_check_writes_nothing(world: World) -> None:
    world.sound()
    tables = {(region, name) for region in ("us", "eu") for name in world.tables(region)}
    world.check()
    assert {(region, name) for region in ("us", "eu") for name in world.tables(region)} == tables
    assert [world.items(region, name) for region, name in sorted(tables)] == [[]] * len(tables)


def test_a_promotion_that_does_not_raise_the_epoch_is_refused(world: World) -> None:
    world.sound()
    source = {"k": {"S": "orders|epoch"}, "sv": {"N": "1"}, "epoch": {"N": "3"}, "generation": {"N": "1"}}
    world.put("eu", "replicator-side-test", **source, source={"S": "ap:orders"})
    world.rule["epoch"] = 3
    for answer in (world.check(), world.run("run")):
        assert answer.code == 78
        assert "copies us:orders to orders in eu in epoch 3, in which ap:orders wrote there." in answer.said
        assert "set `epoch: 4` or higher" in answer.said
    world.rule["epoch"] = 4
    assert world.check().code == 0


# -- modes ---------------------------------------------------------------------------------------------------------


def refused_mode(world: World, mode: str, written: str) -> None:
    """`check` and `run` refuse to write in this mode, and say what to do."""
    for answer in (world.check(), world.run("run")):
        assert answer.code == 78, answer.said
        assert f"Rule 'orders' is of mode {mode}, but orders in eu was written in mode {written}" in answer.said
        assert f"Set the mode back to {written}, or set `side_table` to a new name" in answer.said


def marked(world: World, mode: str, *, layout: str = "1") -> None:
    """As a start in this mode leaves the side table."""
    world.put("eu", "replicator-side-test", k={"S": "orders|mode"}, mode={"S": mode}, sv={"N": layout})


@pytest.mark.parametrize("mode", first(1, ["versioned", "active-active"]))
def test_a_mesh_where_an_ordered_rule_wrote_is_refused(world: World, mode: str) -> None:
    world.mesh(mode)
    world.put("eu", "replicator-side-test", k={"S": "orders|epoch"}, sv={"N": "1"}, epoch={"N": "0"})
    refused_mode(world, mode, "ordered")
    world.config["side_table"] = "replicator-side-anew"
    assert world.run("init").code == 0
    assert world.check().code == 0


@pytest.mark.parametrize("written", first(1, ["active-active", "versioned"]))
def test_an_ordered_rule_where_a_mesh_wrote_is_refused(world: World, written: str) -> None:
    world.sound()
    marked(world, written)
    refused_mode(world, "ordered", written)


def test_one_mesh_where_another_wrote_is_refused(world: World) -> None:
    world.mesh("versioned")
    marked(world, "active-active")
    refused_mode(world, "versioned", "active-active")


@pytest.mark.parametrize("mode", first(1, ["ordered", "versioned", "active-active"]))
def test_side_rows_of_a_newer_program_are_refused_in_every_mode(world: World, mode: str) -> None:
    if mode == "ordered":
        world.sound()
    else:
        world.mesh(mode)
    marked(world, mode, layout="2")
    for answer in (world.check(), world.run("run")):
        assert answer.code == 78, answer.said
        assert (
            "The side table of orders in eu holds rows of a newer replicator: orders|mode is of layout 2" in answer.said
        )
        assert "Upgrade this program" in answer.said
    marked(world, mode)
    assert world.check().code == 0


@pytest.mark.parametrize("name", first(1, ["_rep", "aws:rep:region"]))
def test_a_key_attribute_that_is_never_copied_is_refused(world: World, name: str) -> None:
    keys = {"pk": "S", name: "S"}
    world.table("us", view="NEW_AND_OLD_IMAGES", keys=keys)
    world.table("eu", keys=keys)
    world.run("init")
    for answer in (world.check(), world.run("run")):
        assert answer.code == 78
        assert f"has the key attribute {name}, a name that is kept for replication" in answer.said


@pytest.mark.parametrize("operation", first(1, WRITES))
def test_a_denied_write_is_found_without_writing(world: World, operation: str) -> None:
    world.sound()
    with denying(world.endpoint_url, operation) as url:
        world.config["regions"]["eu"]["endpoint_url"] = url
        answer = world.check()
    assert answer.code == 78
    table = "replicator-side-test in eu" if operation == "UpdateItem" else "orders in eu"
    action = "ConditionCheckItem" if operation == "TransactWriteItems" else operation
    sentences = answer.failures()
    assert all(each.startswith(f"{action} on ") for each in sentences), sentences
    (sentence,) = [each for each in sentences if each.startswith(f"{action} on {table} ")]
    assert " is denied (AccessDeniedException" in sentence
    assert f"Grant dynamodb:{action} on the table to the identity of regions.eu." in sentence
    assert world.items("eu", "orders") == []


_OLD = "KMS key access denied error: the ciphertext refers to a customer master key that you are not allowed to access."
_KEY = "arn:aws:kms:eu-west-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab"
_NEW = f"User: arn:aws:iam::1:user/x is not authorized to perform: kms:Decrypt on resource: {_KEY} because of a policy"


@pytest.mark.parametrize(
    ("code", "reason"),
    first(1, [("AccessDeniedException", _OLD), ("KMSAccessDeniedException", ""), ("AccessDeniedException", _NEW)]),
)
def test_a_key_that_may_not_be_used_is_named_with_what_to_grant(world: World, code: str, reason: str) -> None:
    world.sound()
    if reason != _NEW:
        specification = {"Enabled": True, "SSEType": "KMS", "KMSMasterKeyId": _KEY}
        world.call("eu", "UpdateTable", TableName="orders", SSESpecification=specification)
    page = json.dumps({"__type": f"com.amazonaws.dynamodb.v20120810#{code}", "message": reason}).encode()
    with denying(world.endpoint_url, "GetItem", *WRITES, page=page, status=400) as url:
        world.config["regions"]["eu"]["endpoint_url"] = url
        answer = world.check()
    assert answer.code == 78
    said = {fact["subject"]: fact for fact in answer.json["facts"] if fact["fact"] == "permissions"}
    fact = said["table orders in eu"]
    assert fact["status"] == "failed"
    assert fact["found"].startswith(f"The key {_KEY} of KMS, which encrypts orders in eu, may not be used: GetItem on")
    assert fact["remedy"].startswith(f"Grant kms:Decrypt on {_KEY} to the identity of regions.eu, in its policy")
    other = said["side table replicator-side-test in eu"]
    key = f"The key {_KEY} of KMS" if reason == _NEW else "The key of KMS"
    assert other["found"].startswith(f"{key}, which encrypts replicator-side-test in eu, may not be used")


@pytest.mark.parametrize(
    ("operation", "region"), first(1, [("BatchGetItem", "eu"), ("Scan", "us"), ("Scan", "eu"), ("GetItem", "us")])
)
@pytest.mark.parametrize("on_gap", ["resync", "stop"])
def test_what_jobs_may_not_read_fails_where_a_rule_starts_jobs_by_itself(
    world: World, operation: str, region: str, on_gap: str
) -> None:
    world.sound()
    world.rule["on_gap"] = on_gap
    with denying(world.endpoint_url, operation) as url:
        world.config["regions"][region]["endpoint_url"] = url
        answer = world.check()
    said = {fact["subject"]: fact for fact in answer.json["facts"] if fact["fact"] == "jobs may read it"}
    assert said.keys() == {"table orders in us", "table orders in eu"}
    fact = said[f"table orders in {region}"]
    assert fact["status"] == ("failed" if on_gap == "resync" else "warning")
    assert fact["found"].startswith(f"{operation} on orders in {region} is denied (AccessDeniedException")
    remedy = f"Grant dynamodb:{operation} on the table to the identity of regions.{region}: bootstrap, verify"
    assert fact["remedy"].startswith(remedy)


def test_denied_reading_of_the_stream_is_found(world: World) -> None:
    world.sound()
    with denying(world.endpoint_url, "GetRecords") as url:
        world.config["regions"]["us"]["endpoint_url"] = url
        answer = world.check()
    assert answer.code == 78
    (sentence,) = answer.failures()
    assert "GetRecords on the stream of orders in us" in sentence
    assert "Grant" in sentence


def test_credentials_that_nobody_accepts_are_one_failure_and_the_rest_is_skipped(world: World) -> None:
    world.sound()
    with denying(world.endpoint_url, "DescribeTable", "GetCallerIdentity") as url:
        world.config["regions"]["eu"]["endpoint_url"] = url
        answer = world.check()
        started = world.run("run")
    assert answer.code == started.code == 78
    assert "tried again" not in answer.said + started.errors.splitlines()[-1]
    (sentence,) = answer.failures()
    assert "AccessDeniedException" in sentence
    assert "See regions.eu in the configuration." in sentence
    assert "skipped" in {fact["status"] for fact in answer.json["facts"]}


@pytest.mark.parametrize("status", [200, 404])
def test_an_endpoint_that_is_something_else_is_told(world: World, status: int) -> None:
    world.sound()
    page = b"<html>It works!</html>"
    with denying(world.endpoint_url, "DescribeTable", "GetCallerIdentity", page=page, status=status) as url:
        world.config["regions"]["eu"]["endpoint_url"] = url
        answer = world.check()
    assert answer.code == 78
    told = "The endpoint of eu does not answer as DynamoDB does. Correct endpoint_url or endpoints of regions.eu."
    assert any(sentence.startswith(told) for sentence in answer.failures()), answer.failures()


def test_a_clock_that_is_far_off_is_a_failure_and_one_that_is_off_a_warning(world: World) -> None:
    world.sound()
    for ahead, code, direction in ((600.0, 78, "behind"), (-20.0, 0, "ahead of")):
        with denying(world.endpoint_url, ahead_seconds=ahead) as url:
            world.config["regions"]["eu"]["endpoint_url"] = url
            answer = world.check()
        assert answer.code == code
        told = answer.failures() or answer.warnings()
        found = [match for sentence in told if (match := re.search(rf"clock is (\d+) s {direction}", sentence))]
        assert found, told
        assert abs(int(found[0][1]) - abs(ahead)) <= 15, told  # dates are whole seconds, and an answer takes its time


# -- what does not answer ------------------------------------------------------------------------------------------


def unreachable_region(world: World) -> str:
    world.config["regions"]["eu"]["endpoint_url"] = NOWHERE
    return "See regions.eu in the configuration."


def unreachable_redis(world: World) -> str:
    world.config["caches"]["eu_main"]["url"] = "redis://127.0.0.1:1/0"
    return "See caches.eu_main in the configuration."


@pytest.mark.parametrize("breaks", [unreachable_region, unreachable_redis])
def test_what_does_not_answer_is_told_with_69(world: World, breaks: Callable[[World], str]) -> None:
    world.sound()
    part = breaks(world)
    checked = world.check()
    assert checked.code == 69
    (sentence,) = checked.failures()
    assert "got no answer" in sentence
    assert part in sentence


@pytest.mark.slow
@pytest.mark.parametrize("breaks", [unreachable_region])
def test_run_waits_a_little_for_what_it_needs_then_ends_with_69(world: World, breaks: Callable[[World], str]) -> None:
    world.sound()
    part = breaks(world)
    started = world.run("run")
    assert started.code == 69, started.said
    last = started.errors.strip().splitlines()[-1]
    assert part in last
    assert "by itself" not in last


@pytest.mark.slow
def test_run_starts_beside_a_replica_that_does_not_answer(world: World) -> None:
    world.table("us", "copies")
    world.rule["replicas"] = ["eu", {"region": "us", "table": "copies"}]
    world.sound()
    unreachable_region(world)
    with running(world) as daemon:
        # It is not called ready: neither the replica nor what its cache is owed answers.
        wait_until(lambda: "shard_started" in daemon.said(), "the worker does not begin")
        world.put("us", "orders", pk={"S": "a"}, sk={"N": "1"})
        wait_until(lambda: len(world.items("us", "copies")) == 1, "the replica that answers does not get the item")
        assert "unreachable" in daemon.said()
        assert daemon.stop() == 0


def test_wrong_and_unreachable_together_are_78(world: World) -> None:
    world.sound()
    unreachable_redis(world)
    no_replica_table(world)
    assert world.check().code == 78


def test_a_port_in_use_is_told_with_its_key(world: World) -> None:
    world.sound()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        world.config["admin"]["port"] = taken.getsockname()[1]
        started = world.run("run")
    assert started.code == 78
    assert "admin.port: cannot listen on 127.0.0.1" in started.errors.strip().splitlines()[-1]


def test_a_host_that_is_none_is_told_with_its_key(world: World) -> None:
    world.sound()
    world.config["admin"]["host"] = "nowhere.invalid"
    started = world.run("run")
    assert started.code == 78
    assert "admin.host: 'nowhere.invalid' is not an address of this machine" in started.errors.splitlines()[-1]


def test_a_database_that_the_cache_does_not_have_is_a_wrong_configuration(world: World) -> None:
    world.sound()
    world.config["caches"]["eu_main"]["url"] = world.redis_url.rpartition("/")[0] + "/99"
    answer = world.check()
    assert answer.code == 78
    assert any("has no database of this number" in sentence for sentence in answer.failures()), answer.failures()


def test_a_profile_and_a_url_that_cannot_be_used_name_their_key(world: World) -> None:
    world.config["regions"]["eu"]["profile"] = "nobody"
    answer = world.run("check")
    assert answer.code == 78
    assert "regions.eu.profile: 'nobody'" in answer.errors
    del world.config["regions"]["eu"]["profile"]
    world.config["caches"]["eu_main"]["url"] = "redis://127.0.0.1:6379/0?health_check_interval=often"
    answer = world.run("check")
    assert answer.code == 78
    assert "caches.eu_main.url is not a URL" in answer.errors


@pytest.mark.parametrize("command", ["run", "check", "init", "status", "rules"])
def test_a_wrong_file_ends_every_command_the_same_way(world: World, command: str) -> None:
    world.rule["sourcex"] = "us"
    answer = world.run(command)
    assert answer.code == 78
    assert "`rules[0].sourcex` is not a known key; did you mean `source`?" in answer.said


# -- what works and may surprise -----------------------------------------------------------------------------------


def index_over_more(world: World) -> str:
    world.table("us", "plain", view="NEW_AND_OLD_IMAGES")
    world.table("eu", "plain", index={"total": "S"})
    world.rule["table"] = "plain"
    return "by_it of table plain in eu is over total (S), which no key or index of the source plain in us fixes"


def expiry_at_the_replica(world: World) -> str:
    world.expire("eu", "orders", "exp")
    return "ttl_deletes: replicate"


def no_expiry_at_the_replica(world: World) -> str:
    world.rule["ttl_deletes"] = "skip"
    return "ttl_deletes: skip"


def only_some_events(world: World) -> str:
    world.rule["filter"] = {"events": ["INSERT", "MODIFY"]}
    return "rules[0].filter.events lets only INSERT, MODIFY pass"


def older_items(world: World) -> str:
    for number in range(3):
        world.put("us", "orders", pk={"S": "a"}, sk={"N": str(number)})
    return "The source orders in us holds about 3 items, this replica 0."


@pytest.mark.parametrize(
    "changes", [index_over_more, expiry_at_the_replica, no_expiry_at_the_replica, only_some_events, older_items]
)
def test_what_may_surprise_is_a_warning_and_no_failure(world: World, changes: Callable[[World], str]) -> None:
    world.sound()
    words = changes(world)
    answer = world.check()
    assert answer.code == 0, answer.failures()
    assert [words in sentence for sentence in answer.warnings()] == [True], answer.warnings()


def test_a_cache_without_tls_on_another_machine_is_a_warning(world: World) -> None:
    world.config["caches"]["eu_main"]["url"] = "redis://cache.invalid:6379/0"
    answer = world.check()
    assert any("caches.eu_main.url has no TLS" in sentence for sentence in answer.warnings())


def test_the_same_table_under_two_region_ids_cannot_be_its_own_replica(world: World) -> None:
    """The file alone cannot tell: the two endpoints are written differently and lead to one table."""
    world.table("us", view="NEW_AND_OLD_IMAGES", keys=KEYS)
    with denying(world.endpoint_url) as url:
        world.config["regions"]["eu"] = {"region": "us-east-1", "endpoint_url": url}
        world.run("init")
        answer = world.check()
    assert answer.code == 78
    assert any("rules[0].replicas[0] of rule orders is the source table itself" in said for said in answer.failures())


# -- rights at a cache ---------------------------------------------------------------------------------------------

RIGHTS = ("+info", "+get", "+set", "+unlink", "+getrange", "+scan", "+eval", "+evalsha")


def restricted(world: World, pattern: str, *rights: str) -> None:
    """Let the world's cache be used by a user of its own, with these rights."""
    user = f"user{world.account}"
    with redis.Redis.from_url(world.redis_url) as client:
        client.execute_command("ACL", "SETUSER", user, "reset", "on", ">pw", pattern, *rights)
    world.config["caches"]["eu_main"] |= {"username": user, "password": "pw"}


def test_a_cache_user_with_the_documented_rights_passes(world: World) -> None:
    world.sound()
    world.rule["cache"][0]["action"] = "refresh"
    restricted(world, f"~{world.account}:*", *RIGHTS)
    answer = world.check()
    assert answer.code == 0, answer.failures()
    (fact,) = [
        fact for fact in answer.json["facts"] if fact["subject"] == "cache eu_main" and fact["fact"] == "permissions"
    ]
    assert "UNLINK, GET, SET, EVAL and EVALSHA on keys like" in fact["found"]
    assert not [sentence for sentence in answer.warnings() if "cache" in sentence]


def test_a_cache_that_could_not_be_flushed_or_read_again_is_a_warning(world: World) -> None:
    world.sound()
    restricted(world, f"~{world.account}:*", "+info", "+unlink")
    answer = world.check()
    assert answer.code == 0, answer.failures()
    (fact,) = [fact for fact in answer.json["facts"] if "SCAN is denied" in fact["found"]]
    assert fact["remedy"] == "Grant +scan to the user of caches.eu_main."
    (fact,) = [fact for fact in answer.json["facts"] if "nothing is verified" in fact["found"]]
    assert "Grant +getrange" in fact["remedy"]
    (fact,) = [fact for fact in answer.json["facts"] if fact["fact"] == "user"]
    assert fact["found"].endswith("+info +unlink +getrange +scan")


@pytest.mark.parametrize(
    ("missing", "action", "denied"),
    first(
        2,
        [
            ("+unlink", "invalidate", "UNLINK"),
            ("+eval", "refresh", "EVAL"),
            ("+evalsha", "refresh", "EVALSHA"),
            ("+set", "refresh", "SET"),
            ("+get", "refresh", "GET"),
        ],
    ),
)
def test_a_right_that_is_missing_at_a_cache_is_named(world: World, missing: str, action: str, denied: str) -> None:
    world.sound()
    world.rule["cache"][0]["action"] = action
    restricted(world, f"~{world.account}:*", *(right for right in RIGHTS if right != missing))
    answer = world.check()
    assert answer.code == 78
    (sentence,) = answer.failures()
    assert sentence.startswith(f"{denied} on keys like {world.account}:replicator-probe-")
    assert f"Grant {missing} and the pattern ~{world.account}:*:* to the user of caches.eu_main." in sentence


def test_a_key_pattern_that_fits_no_key_is_named(world: World) -> None:
    world.sound()
    restricted(world, "~nothing:*", *RIGHTS)
    answer = world.check()
    assert answer.code == 78
    (sentence,) = answer.failures()
    assert f"the pattern ~{world.account}:*:*" in sentence


def test_a_key_pattern_over_numbers_is_proven_with_a_number(world: World) -> None:
    world.sound()
    restricted(world, f"~{world.account}:*:[0-9]*", *RIGHTS)
    answer = world.check()
    assert answer.code == 0, answer.failures()


# -- filters -------------------------------------------------------------------------------------------------------


def tried(world: World, conditions: dict[str, Any], *, ordered: bool = True) -> tuple[str, str]:
    """How a filter fares on three items: status and sentence of its fact."""
    if ordered:
        world.sound()
        world.rule["filter"] = conditions
    else:
        world.mesh("versioned", filter=conditions)
    for number in range(3):
        world.put("us", "orders", pk={"S": "a"}, sk={"N": str(number)}, level={"S": "3"}, status={"S": f"s{number}"})
    answer = world.check()
    assert answer.code == 0, answer.failures()
    (found,) = [
        (fact["status"], fact["found"])
        for fact in answer.json["facts"]
        if fact["fact"] == "filter" and "items of orders in us" in fact["found"]
    ]
    return found


def test_a_filter_is_tried_on_items_that_are_there(world: World) -> None:
    assert tried(world, {"equals": {"level": "3"}, "where": "status != 's1'"}) == (
        "ok",
        "2 of 3 items of orders in us match.",
    )


def test_a_filter_that_matches_none_of_the_items_is_a_warning(world: World) -> None:
    status, found = tried(world, {"equals": {"level": 3}})
    assert status == "warning"
    assert found.startswith("0 of 3 items of orders in us match.")


def test_a_filter_that_cannot_be_evaluated_on_items_is_a_warning(world: World) -> None:
    status, found = tried(world, {"where": "abs(level) > `1`"})
    assert status == "warning"
    assert found.startswith("0 of 3 items of orders in us match. On 3 the filter's `where` cannot be evaluated")


def test_a_filter_of_a_mesh_is_tried_too(world: World) -> None:
    status, found = tried(world, {"equals": {"pk": "b"}}, ordered=False)
    assert (status, found[: found.index(".")]) == ("warning", "0 of 3 items of orders in us match")


def test_a_filter_that_may_not_be_tried_is_no_failure(world: World) -> None:
    world.sound()
    world.rule["filter"] = {"exists": ["level"]}
    assert "orders in us has no items to try the filter on." in world.check().output
    with denying(world.endpoint_url, "Scan") as url:
        world.config["regions"]["us"]["endpoint_url"] = url
        answer = world.check()
    (refused,) = answer.failures()
    assert refused.startswith("Scan on orders in us is denied (AccessDeniedException")
    (fact,) = [fact for fact in answer.json["facts"] if fact["fact"] == "filter"]
    assert fact["status"] == "skipped"
    assert (
        "The filter was not tried on items of orders in us: Scan on orders in us failed: AccessDenied" in fact["found"]
    )


def test_what_only_the_file_shows_is_told_offline(world: World) -> None:
    world.rule["filter"] = {"where": "status == active"}
    world.rule["cache"][0]["action"] = "refresh"
    answer = world.run("check", "--offline", "--json")
    assert answer.code == 0
    (warned,) = answer.warnings()
    assert warned.startswith("rules[0].filter: where compares two attributes of an item with each other")
    (skipped,) = [fact["found"] for fact in answer.json["facts"] if fact["status"] == "skipped"]
    assert "Whether the key of rules[0].cache[0] holds the whole primary key" in skipped
