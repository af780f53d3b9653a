"""`replicator iam` grants what the program asks of AWS, and nothing else: shown by an endpoint that notes calls."""

from __future__ import annotations

import asyncio
import itertools
import json
import re
import secrets
import time
from collections.abc import Coroutine, Iterator
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path
from typing import Any

import hcl2
import pytest
from aiobotocore.session import AioSession

from replicator.adapters.aws.clients import open_place
from replicator.adapters.export_sources import export_files
from replicator.app.function_configuration import configuration
from replicator.app.invocations import Process
from replicator.domain.values import replace
from replicator.domain.versions import ordered_version
from replicator.laboratory.servers import MiniStack
from replicator.settings import Region
from tests.cli.daemons import running, wait_until
from tests.cli.recorder import Asked, Recorder, recording
from tests.cli.test_parked import NO_ROOM
from tests.cli.worlds import REGIONS, World, fresh_account
from tests.contract.worlds import PATIENT
from tests.event_consumers import aws_consumers

pytestmark = pytest.mark.servers

OWNED = ("replicator-side-test", "replicator-owed-test", "replicator-coordination", "replicator-conflicts-test")
RULES = ("orders", "carts", "docs")
"""The one that chooses its tables needs what the first needs, beside the choice."""

TABLES = ("orders", "carts", "docs", "logs-a")


@pytest.fixture(scope="module")
def recorder(ministack: MiniStack) -> Iterator[Recorder]:
    with recording(ministack.endpoint_url) as found:
        yield found


@pytest.fixture
def recorded(ministack: MiniStack, recorder: Recorder, tmp_path: Path) -> World:
    """Every mode, and a choice of tables; what the program asks is noted."""
    world = World(ministack.endpoint_url, "", fresh_account(), tmp_path)
    for region in world.config["regions"].values():
        region["endpoint_url"] = recorder.url
    world.config["caches"] = {}
    world.config["copying"] = {"margin": "10ms"}
    world.config["rules"] = [
        {
            "name": "orders",
            "table": "orders",
            "source": "us",
            "replicas": ["eu"],
            "filter": {"exists": ["text"]},
            "canary": {},
        },
        {"name": "carts", "table": "carts", "mode": "active-active", "regions": ["us", "eu"]},
        {"name": "docs", "table": "docs", "mode": "versioned", "regions": ["us", "eu"], "version": "ver"},
        {"name": "logs", "table": {"glob": "logs-*", "tag": {"a": "b"}}, "source": "us", "replicas": ["eu"]},
    ]
    for table in TABLES:
        for region in REGIONS:
            world.table(region, table)
    arn = world.call("us", "DescribeTable", TableName="logs-a")["Table"]["TableArn"]
    world.call("us", "TagResource", ResourceArn=arn, Tags=[{"Key": "a", "Value": "b"}])
    recorder.asked.clear()
    return world


def put(world: World, region: str, table: str, number: int, text: str = "", **more: dict[str, str]) -> None:
    world.put(region, table, pk={"S": "a"}, sk={"N": str(number)}, text={"S": text}, ver={"N": "1"}, **more)


def delete(world: World, region: str, table: str, number: int) -> None:
    world.call(region, "DeleteItem", TableName=table, Key={"pk": {"S": "a"}, "sk": {"N": str(number)}})


def texts(world: World, region: str, table: str) -> dict[str, str]:
    return {item["sk"]["N"]: item["text"]["S"] for item in world.items(region, table) if "text" in item}


def granted(world: World, *role: str) -> set[Asked]:
    """Every pair of an action and a resource that the policies of a role allow, by AWS region."""
    given = world.run("iam", *role).json
    given = {role[role.index("--region") + 1]: given} if "--region" in role else given
    return {
        Asked(REGIONS[region], action, resource.split(":", 5)[-1])
        for region, policy in given.items()
        for statement in policy["Statement"]
        for action in statement["Action"]
        for resource in statement["Resource"]
    }


def covers(grant: Asked, asked: Asked) -> bool:
    return grant.action == asked.action and fnmatchcase(asked.resource, grant.resource)


def differences(grants: set[Asked], asked: set[Asked]) -> dict[str, list[Asked]]:
    """What was asked without being granted there, and what is granted without having been asked in any region."""
    return {
        "not granted": sorted(
            one for one in asked if not any(covers(grant, one) for grant in grants if grant.region == one.region)
        ),
        "not used": sorted(grant for grant in grants if not any(covers(_kind(grant), _kind(one)) for one in asked)),
    }


def _kind(asked: Asked) -> Asked:
    """Tables that are chosen need what those do that are named, and their tags beside; streams are of one kind."""
    if asked.action == "dynamodb:ListTagsOfResource":
        return asked
    resource = re.sub(r"table/logs-[a*]", "table/orders", asked.resource)
    return replace(asked, resource=re.sub(r"table/[a-z]+/stream/", "table/orders/stream/", resource))


BUCKET_OF_EVENTS = "events-that-are-too-long"
NONE: dict[str, list[Asked]] = {"not granted": [], "not used": []}


def traffic(world: World) -> None:
    """Each kind of write that a worker makes, while one runs."""
    put(world, "us", "orders", 1, "x" * NO_ROOM)
    put(world, "us", "orders", 4, "x" * NO_ROOM)
    put(world, "us", "orders", 2, "small")
    put(world, "us", "orders", 3, "mine")  # meets an item without a version
    put(world, "us", "logs-a", 1)
    put(world, "us", "logs-a", 2)
    for table in ("carts", "docs"):
        put(world, "us", table, 1)
        put(world, "eu", table, 2)
    wait_until(lambda: texts(world, "eu", "orders") == {"2": "small", "3": "mine"}, "orders do not arrive")
    for number in (3, 5):
        put(world, "us", "carts", number)
        put(world, "us", "docs", number)
    wait_until(
        lambda: all(len(world.items(region, table)) == 4 for region in REGIONS for table in ("carts", "docs")),
        "a mesh does not converge",
    )
    world.put("us", "orders", pk={"S": "a"}, sk={"N": "2"})  # no longer passes the filter
    put(world, "us", "orders", 1, "fits")
    delete(world, "us", "logs-a", 2)
    for table in ("carts", "docs"):
        delete(world, "us", table, 1)
        delete(world, "eu", table, 2)
    wait_until(lambda: texts(world, "eu", "orders") == {"1": "fits", "3": "mine"}, "orders do not follow")
    # Two regions write one item at once, so one of them loses.
    for region in REGIONS:
        for table in ("carts", "docs"):
            put(world, region, table, 3, region)
    wait_until(lambda: len({entry["rule"]["S"] for entry in world.items("us", OWNED[3])}) == 3, "no write loses")
    wait_until(lambda: set(texts(world, "eu", "logs-a")) == {"1"}, "a chosen table does not follow")
    wait_until(
        lambda: all(len(world.items(region, table)) == 2 for region in REGIONS for table in ("carts", "docs")),
        "deletes do not arrive",
    )


@pytest.mark.long
def test_each_role_is_granted_what_its_commands_ask_for_and_nothing_else(
    recorded: World, recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    grants = {role: granted(recorded, "--role", role) for role in ("setup", "worker", "operator")}
    grants["function"] = granted(recorded, "--lambda")
    found = {}
    recorded.call("eu", "DeleteTable", TableName="orders")
    recorder.asked.clear()
    assert recorded.run("init", "--enable-streams", "--replicas").code == recorded.run("init").code == 0
    setup = set(recorder.asked)
    put(recorded, "eu", "orders", 3, "foreign")
    recorder.asked.clear()
    assert recorded.run("check").code == 0
    with running(recorded) as daemon:
        daemon.await_ready()
        traffic(recorded)
        put(recorded, "eu", "orders", 9, "extra")  # what differs is looked at again
        codes = {rule: recorded.run("verify", rule, "--json").code for rule in RULES}
        assert codes == {"orders": 1, "carts": 0, "docs": 0}
        assert daemon.stop() == 0
    found["worker"] = differences(grants["worker"], recorder.asked)
    recorder.asked.clear()
    operate(recorded)
    found["operator"] = differences(grants["operator"], recorder.asked)
    drive(recorded, *RULES, "logs")
    recorder.asked.clear()
    invoke(recorded, monkeypatch)
    # The mapping reads streams by itself, and the runtime writes logs.
    found["function"] = differences(
        {grant for grant in grants["function"] if not re.search("Stream|Shard|Records|log-group", f"{grant}")},
        recorder.asked,
    )
    recorder.asked.clear()
    for rule in RULES:
        recorded.run("uninstall", rule, "--yes")
    found["setup"] = differences(grants["setup"], setup | recorder.asked)
    assert found == dict.fromkeys(found, NONE)


def drive(world: World, *rules: str) -> None:
    """Let functions drive rules, for so long that none waits for a lease."""
    for rule in rules:
        driven = world.run("rules", "drive", rule, "--by", "lambda")
        assert driven.code == 0, driven.said
        world.call(
            "us",
            "UpdateItem",
            TableName="replicator-coordination",
            Key={"pk": {"S": "test|rules"}, "sk": {"S": rule}},
            UpdateExpression="SET driven_since = :then",
            ExpressionAttributeValues={":then": {"N": str(int(time.time()) - 3600)}},
        )


def invoke(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Events as a mapping sends them, of each kind of table, to a function in this process."""
    for name, value in {**world.environment, "AWS_SECRET_ACCESS_KEY": "none"}.items():
        monkeypatch.setenv(name, value)
    records = []
    number = itertools.count(10**30)

    def change(region: str, table: str, item: str, new: dict[str, Any] | None, old: dict[str, Any] | None) -> None:
        arn = world.call(region, "DescribeTable", TableName=table)["Table"]["LatestStreamArn"]
        key = {"pk": {"S": item}, "sk": {"N": "1"}}
        images = {name: {**key, **image} for name, image in (("NewImage", new), ("OldImage", old)) if image is not None}
        event = "REMOVE" if new is None else "INSERT" if old is None else "MODIFY"
        sequence = {"SequenceNumber": str(next(number)), "ApproximateCreationDateTime": time.time()}
        record = {"eventID": sequence["SequenceNumber"], "eventName": event, "eventSource": "aws:dynamodb"}
        records.append({**record, "eventSourceARN": arn, "dynamodb": {"Keys": key, **sequence, **images}})

    one, two, large = (
        {"text": {"S": text}, "ver": {"N": ver}} for text, ver in (("one", "1"), ("two", "2"), ("x" * NO_ROOM, "1"))
    )
    world.put("eu", "orders", pk={"S": "met"}, sk={"N": "1"}, text={"S": "foreign"})
    for table in ("orders", "logs-a"):
        change("us", table, "met", one, None)
        change("us", table, "large", large, None)
    change("us", "orders", "never", None, {})  # what the filter never let pass
    for region, other in (("us", "eu"), ("eu", "us")):
        for table in ("carts", "docs"):
            world.put(region, table, pk={"S": region}, sk={"N": "1"}, **one)
            world.put(other, table, pk={"S": region}, sk={"N": "1"}, **two)
            change(region, table, region, one, None)
            change(region, table, region, None, one)
            change(region, table, f"{region}-large", large, None)
            change(region, table, f"{region}-new", two, None)
    process = Process()
    try:
        assert process.handle({"Records": records}, 60_000) == {"batchItemFailures": []}
        records.clear()
        for region, table in (
            ("us", "orders"),
            *((region, table) for region in REGIONS for table in ("carts", "docs")),
        ):
            change(region, table, "large" if table == "orders" else f"{region}-large", None, large)
        assert process.handle({"Records": records}, 60_000) == {"batchItemFailures": []}
    finally:
        process.close()


def damage(world: World, region: str, table: str) -> None:
    """Change an item and keep its version."""
    world.call(
        region,
        "UpdateItem",
        TableName=table,
        Key={"pk": {"S": "a"}, "sk": {"N": "3"}},
        UpdateExpression="SET damage = :d",
        ExpressionAttributeValues={":d": {"S": "d"}},
    )


def operate(world: World) -> None:
    """What operators do; no worker lives, so commands do the work themselves."""
    for table in ("orders", "carts", "docs"):
        damage(world, "eu", table)
    put(world, "eu", "orders", 8, "ours", _rep={"S": ordered_version(0, 1_700_000_000_000, 7)})
    for rule in RULES:
        assert world.run("repair", rule, "--extra", "delete", "--yes", "--json").code in {0, 1}
    for entry in {entry["rule"]["S"]: entry for entry in world.items("us", OWNED[3])}.values():
        log = {**entry, "id": {"S": entry["id"]["S"][::-1]}, "loser_op": {"S": "delete"}}
        world.call("us", "PutItem", TableName=OWNED[3], Item=log)
    listed = world.run("conflicts", "list", "--json").json["conflicts"]
    for entry in {
        (entry["rule"], entry["loser_op"]): entry["id"] for entry in listed if entry["rule"] in RULES
    }.values():
        assert world.run("conflicts", "promote", entry, "--yes").code == 0
    world.run("conflicts", "list", "--rule", "orders", "--key", '{"pk": "a", "sk": 3}')
    (row,) = world.run("parked", "list", "--json").json["parked"]
    world.run("parked", "retry", row["row"])
    assert world.run("parked", "drop", row["row"], "--yes").code == 0
    assert world.run("rewind", "orders", "--to", "trim_horizon", "--yes").code == 0
    planned = world.run("plan", "--sample", "3", "--json")
    assert {step["rule"]: step["needs"] for step in planned.json["steps"]} == {}, planned.said
    assert world.run("resume", "orders").code == 0


def test_policies_are_as_iam_and_terraform_read_them(recorded: World) -> None:
    """Nothing is unbounded but what AWS bounds by nothing, and both formats say the same."""
    given = recorded.run("iam").json
    unbounded = {
        statement["Sid"]: statement["Action"]
        for policy in given.values()
        for statement in policy["Statement"]
        if "*" in statement["Resource"]
    }
    assert unbounded == {
        "ListStreamsTakesNoResource": ["dynamodb:ListStreams"],
        "ListTablesTakesNoResource": ["dynamodb:ListTables"],
    }
    assert recorded.run("iam", "--region", "eu").json == given["eu"]
    written = hcl2.loads(recorded.run("iam", "--format", "terraform").output)
    assert [_policy(document) for document in written["data"]] == [
        [(statement["Action"], statement["Resource"]) for statement in policy["Statement"]] for policy in given.values()
    ]


def _policy(document: Any) -> list[tuple[list[str], list[str]]]:
    ((_, labelled),) = document.items()
    ((_, body),) = labelled.items()
    unquoted = json.loads(json.dumps(body).replace('\\"', ""))
    return [(statement["actions"], statement["resources"]) for statement in unquoted["statement"]]


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("--offline",), 2, "--account us=NUMBER"),
        (("--offline", "--account", "12"), 2, "'12' is no account"),
        (("--offline", "--account", "111122223333", "--region", "ap"), 2, "no region ap"),
        (("--lambda", "--role", "setup"), 2, "a role of its own"),
        (("--function", "name"), 2, "Add --lambda"),
        (("--export", "bucket"), 2, "s3://BUCKET/PREFIX"),
        (("--config-s3", "s3://a/b"), 2, "Add --lambda"),
        (("--lambda", "--config-s3", "s3://a/b", "--config-ssm", "a"), 2, "Say --config-s3 or --config-ssm"),
        (("--lambda", "--config-key", "arn:a"), 2, "Say --config-s3 or --config-ssm"),
        (("--lambda", "--config-s3", "a/b"), 78, "'a/b' is no object of S3"),
        (("--offline", "--account", "111122223333", "--account", "eu=444455556666"), 0, "444455556666:table/orders"),
        (("--offline", "--account", "111122223333", "--export", "s3://b/p"), 0, "arn:aws:s3:::b/p/*"),
        (("--offline", "--account", "111122223333", "--lambda"), 0, "us-east-1:111122223333:log-group:/aws/lambda/"),
    ],
)
def test_what_a_policy_is_asked_for_is_judged_before_the_world_is(
    arguments: tuple[str, ...], code: int, words: str, tmp_path: Path
) -> None:
    answer = World("http://127.0.0.1:1", "redis://127.0.0.1:1", "1", tmp_path).run("iam", *arguments)
    assert (answer.code, words in answer.said) == (code, True), answer.said


def asks(recorder: Recorder, what: Coroutine[Any, Any, object]) -> set[Asked]:
    """What a piece of the program asks for."""
    recorder.asked.clear()
    asyncio.run(what)
    return set(recorder.asked)


@pytest.fixture
def bare(ministack: MiniStack, recorder: Recorder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    """A configuration without tables, and its account's credentials."""
    world = World(ministack.endpoint_url, "", fresh_account(), tmp_path)
    for region in world.config["regions"].values():
        region["endpoint_url"] = recorder.url
    world.config["caches"] = {}
    world.config["rules"] = [{"name": "orders", "table": "orders", "source": "us", "replicas": ["eu"]}]
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", world.account)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "none")
    return world


def offline(world: World) -> tuple[str, ...]:
    return "--offline", "--account", world.account


def test_a_function_is_granted_its_configuration_wherever_it_is(
    bare: World, recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"AWS_DEFAULT_REGION": "us-east-1", "AWS_ENDPOINT_URL": recorder.url}.items():
        monkeypatch.setenv(name, value)
    content, own = bare.path.read_text(), granted(bare, *offline(bare), "--lambda", "--region", "us")
    bucket = f"configuration-{bare.account}"
    version = asyncio.run(_store(bare, bucket, content))
    for variable, option, place in (
        ("REPLICATOR_CONFIG_S3", "--config-s3", f"s3://{bucket}/a/replicator.yaml"),
        ("REPLICATOR_CONFIG_S3", "--config-s3", f"s3://{bucket}/a/replicator.yaml?versionId={version}"),
        ("REPLICATOR_CONFIG_SSM", "--config-ssm", "/replicator/config:1,plain"),
    ):
        with monkeypatch.context() as patch:
            patch.setenv(variable, place)
            asked = asks(recorder, configuration())
        assert asked == granted(bare, *offline(bare), "--lambda", "--region", "us", option, place) - own
        assert asked


async def _store(world: World, bucket: str, content: str) -> str:
    """The configuration, as an object whose version is returned, and as a parameter in two parts."""
    head, _, rules = content.partition("rules:")
    async with _client(world, "s3") as s3:
        await s3.create_bucket(Bucket=bucket)
        await s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
        stored = await s3.put_object(Bucket=bucket, Key="a/replicator.yaml", Body=content.encode())
    async with _client(world, "ssm") as ssm:
        for name, part in (("/replicator/config", head), ("plain", f"rules:{rules}")):
            await ssm.put_parameter(Name=name, Value=part, Type="SecureString")
    return str(stored["VersionId"])


def test_a_key_of_a_customer_is_granted_through_the_one_service_that_uses_it(bare: World) -> None:
    """No program calls the key service: the database, and where the configuration is, do."""
    key = f"arn:aws:kms:us-east-1:{bare.account}:key/0"
    for option, place, service in (("--config-s3", "s3://a/b", "s3"), ("--config-ssm", "a", "ssm")):
        given = bare.run("iam", *offline(bare), "--lambda", "--region", "us", option, place, "--config-key", key).json
        (statement,) = (one for one in given["Statement"] if one["Action"] == ["kms:Decrypt"])
        assert statement["Resource"] == [key]
        assert statement["Condition"] == {"StringEquals": {"kms:ViaService": f"{service}.us-east-1.amazonaws.com"}}


def test_keys_of_kinesis_streams_are_granted_to_those_who_read_them(bare: World) -> None:
    key = f"arn:aws:kms:us-east-1:{bare.account}:key/0"
    bare.rule["stream"] = {"kinesis": "changes"}
    for region in REGIONS:
        bare.table(region)

    async def encrypt(named: str) -> None:
        async with _client(bare, "kinesis") as kinesis:
            if not (await kinesis.list_streams())["StreamNames"]:
                await kinesis.create_stream(StreamName="changes", ShardCount=1)
            await kinesis.start_stream_encryption(StreamName="changes", EncryptionType="KMS", KeyId=named)

    def decrypts(*role: str) -> list[dict[str, Any]]:
        policy = bare.run("iam", "--region", "us", *role).json
        return [one for one in policy["Statement"] if one["Action"] == ["kms:Decrypt"]]

    asyncio.run(encrypt(key))
    (statement,) = decrypts("--lambda")
    assert statement["Resource"] == [key]
    assert statement["Condition"] == {"StringEquals": {"kms:ViaService": "kinesis.us-east-1.amazonaws.com"}}
    assert decrypts("--role", "setup") == []
    asyncio.run(encrypt("alias/aws/kinesis"))
    assert decrypts() == [], "AWS's own key needs no grant"
    asyncio.run(encrypt("alias/mine"))
    assert "names its key alias/mine" in bare.run("iam").errors


def test_readers_of_an_export_are_granted_what_they_ask_for(bare: World, recorder: Recorder) -> None:
    bucket = f"exports-{bare.account}"

    async def prepare() -> None:
        async with _client(bare, "s3") as s3:
            await s3.create_bucket(Bucket=bucket)
            await s3.put_object(Bucket=bucket, Key="a/manifest", Body=b"{}")

    async def read() -> None:
        settings = Region.model_validate({"region": REGIONS["us"], "endpoint_url": recorder.url})
        async with open_place("us", settings, PATIENT, connections=1) as place:
            files, folder = export_files(f"s3://{bucket}/a", place)
            for name in await files.names(folder):
                assert await files.read(name) == b"{}"

    asyncio.run(prepare())
    for role in ("worker", "operator"):
        more = granted(bare, *offline(bare), "--role", role, "--export", f"s3://{bucket}/a") - granted(
            bare, *offline(bare), "--role", role
        )
        assert differences(more, asks(recorder, read())) == NONE


def test_the_base_identity_is_granted_the_roles_that_it_assumes(bare: World, recorder: Recorder) -> None:
    for name, region in bare.config["regions"].items():
        region |= {"role_arn": f"arn:aws:iam::{bare.account}:role/there/{name}"}

    async def assume() -> None:
        for name, region in bare.config["regions"].items():
            async with open_place(name, Region.model_validate(region), PATIENT, connections=1) as place:
                await place.dynamodb.list_tables()

    asked = {(one.action, one.resource) for one in asks(recorder, assume())} - {("dynamodb:ListTables", "*")}
    given = bare.run("iam", *offline(bare)).json["base"]["Statement"]
    assert {
        (action, arn.split(":", 5)[5]) for each in given for action in each["Action"] for arn in each["Resource"]
    } == asked
    assert {resource for _, resource in asked} == {"role/there/us", "role/there/eu"}


def test_a_worker_and_a_function_are_granted_what_they_ask_of_sinks_of_events(
    recorded: World, recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    events = asyncio.run(_places_of_events(recorded))
    events[0]["oversize"] = {"s3": f"s3://{BUCKET_OF_EVENTS}/long", "above": 1024}
    recorded.config["rules"] = [{"name": "orders", "table": "orders", "source": "us", "events": events}]
    assert recorded.run("init", "--enable-streams").code == 0
    recorder.asked.clear()
    assert recorded.run("check").code == 0
    with running(recorded):
        put(recorded, "us", "orders", 1, text="x" * 1024)
        wait_until(lambda: len(of_sinks(recorder.asked)) >= 13, "events are not sent")
    assert differences(of_sinks(granted(recorded, "--role", "worker")), of_sinks(recorder.asked)) == NONE
    drive(recorded, "orders")
    recorder.asked.clear()
    send(recorded, monkeypatch)
    wanted = {grant for grant in of_sinks(granted(recorded, "--lambda")) if "log-group" not in grant.resource}
    assert differences(wanted, of_sinks(recorder.asked)) == NONE


def send(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """One event of a mapping."""
    for name, value in {**world.environment, "AWS_SECRET_ACCESS_KEY": "none"}.items():
        monkeypatch.setenv(name, value)
    arn = world.call("us", "DescribeTable", TableName="orders")["Table"]["LatestStreamArn"]
    key = {"pk": {"S": "a"}, "sk": {"N": "7"}}
    change: dict[str, Any] = {
        "Keys": key,
        "NewImage": {**key, "text": {"S": "x" * 1024}},
        "SequenceNumber": f"{10**30}",
    }
    change["ApproximateCreationDateTime"] = time.time()
    record = {"eventID": "e", "eventName": "INSERT", "eventSource": "aws:dynamodb", "eventSourceARN": arn}
    process = Process()
    try:
        assert process.handle({"Records": [{**record, "dynamodb": change}]}, 60_000) == {"batchItemFailures": []}
    finally:
        process.close()


async def _places_of_events(world: World) -> list[dict[str, Any]]:
    """One place of each service."""
    consumers = aws_consumers(partial(_client, world))
    kinds = ("sqs", "sns", "eventbridge", "kinesis", "firehose")
    async with _client(world, "s3") as s3:
        await s3.create_bucket(Bucket=BUCKET_OF_EVENTS)
    return [await consumers[kind].create(f"changes-{secrets.randbelow(10**6)}") for kind in kinds]


def _client(world: World, service: str) -> Any:
    """A client that is not recorded."""
    create: Any = AioSession().create_client
    return create(
        service,
        region_name=REGIONS["us"],
        endpoint_url=world.endpoint_url,
        aws_access_key_id=world.account,
        aws_secret_access_key="any",
    )


def of_sinks(some: set[Asked]) -> set[Asked]:
    """A call without entries, by which `check` sees whether sending is denied, names no bus."""
    return {one for one in some if not one.action.startswith("dynamodb:") and not one.resource.endswith("event-bus/*")}
