"""The entry point of a function, called in this process as a runtime calls it, on real tables and a real cache."""

from __future__ import annotations

import asyncio
import base64
import itertools
import json
import logging
import os
import signal
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import pytest
import redis

from replicator.adapters.clock import SystemClock
from replicator.adapters.dynamodb.streams import DynamoStreams
from replicator.adapters.kinesis.streams import KinesisStreams
from replicator.app.invocations import Process
from replicator.domain.identifiers import TableName
from replicator.domain.rules import KinesisSource as KinesisOrigin
from replicator.laboratory import emulator
from replicator.laboratory.event_source import (
    Event,
    EventSource,
    Handlers,
    Invoke,
    KinesisFeed,
    MappingOptions,
    TableFeed,
)
from replicator.laboratory.streamlab import StreamLab
from tests.cli.proxy import serving, watched
from tests.contract.worlds import place
from tests.integration.harness import CREDENTIALS, Item, World, eventually, open_world, plain

pytestmark = pytest.mark.servers

MINUTE = 60_000
LARGEST = 409_600
CHANGES = 61
LEASE_SECONDS = 5.0
"""As the harness has it."""
WRITES_BEFORE_THE_END = 8
AT_ONCE = 4
ITEM: Item = {"pk": {"S": "a"}, "n": {"N": "1.0000000000000000000000000000000000001"}, "b": {"B": b"\x00\xff"}}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with open_world(tmp_path_factory.mktemp("function")) as opened:
        yield opened


class Source:
    """A table with a stream as a mapping sees it: its changes as events, whose number goes up."""

    def __init__(self, arn: str) -> None:
        self.arn = arn
        self._number = 10**30

    def record(self, new: Item | None, old: Item | None = None) -> dict[str, Any]:
        self._number += 1
        images = {name: wire(item) for name, item in (("NewImage", new), ("OldImage", old)) if item is not None}
        key = (new or old or {})["pk"]
        event = "REMOVE" if new is None else "INSERT" if old is None else "MODIFY"
        change = {"Keys": {"pk": key}, "SequenceNumber": str(self._number), "ApproximateCreationDateTime": 1.7e9 + 0.5}
        return {
            "eventID": str(self._number),
            "eventName": event,
            "eventSource": "aws:dynamodb",
            "eventSourceARN": self.arn,
            "dynamodb": change | images,
        }


def wire(item: Item) -> dict[str, Any]:
    """An item as events carry it."""
    coded = {name: dict(value) for name, value in item.items()}
    for value in coded.values():
        if "B" in value:
            value["B"] = base64.b64encode(value["B"]).decode()
    return coded


async def source_of(world: World, table: str) -> Source:
    async with world.client("us") as client:
        described = await client.describe_table(TableName=table)
    return Source(described["Table"]["LatestStreamArn"])


@pytest.fixture(scope="module")
def config(world: World) -> Path:
    asyncio.run(world.create_tables())
    path = world.write_settings(world.settings())
    world.initialise(path)
    return path


@pytest.fixture(scope="module")
def orders(world: World, config: Path) -> Source:
    """The source of the rule."""
    return asyncio.run(source_of(world, "orders"))


@pytest.fixture
def aged(world: World, config: Path) -> None:
    """Functions have driven the rule for long."""
    age(world, config, by="lambda")


@pytest.fixture
def variables(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment of a function."""
    monkeypatch.setenv("REPLICATOR_CONFIG", str(config))
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def process(variables: None) -> Iterator[Process]:
    opened = Process()
    yield opened
    opened.close()


def age(world: World, config: Path, *, by: str, group: str = "test") -> None:
    """Let this have driven the rule for long, so that no test has to wait for a lease."""
    drive(world, config, by)

    async def shift() -> None:
        async with world.client("us") as client:
            await client.update_item(
                TableName="replicator-coordination",
                Key={"pk": {"S": f"{group}|rules"}, "sk": {"S": "orders"}},
                UpdateExpression="SET driven_since = :then",
                ExpressionAttributeValues={":then": {"N": str(int(time.time()) - 3600)}},
            )

    asyncio.run(shift())


@asynccontextmanager
async def mapped(world: World, invoke: Invoke, options: MappingOptions) -> AsyncIterator[EventSource]:
    """A mapping of the source table."""
    async with place(world.endpoint, region="us-east-1") as there:
        streams = DynamoStreams(there)
        stream = await streams.current(TableName("orders"))
        source = EventSource(TableFeed(streams, stream, "us-east-1"), invoke, SystemClock(), options)
        running = asyncio.create_task(source.run())
        yield source
        source.stop()
        await running


def drive(world: World, config: Path, by: str) -> dict[str, Any]:
    done = world.command("rules", "drive", "orders", "--by", by, "--json", config=config)
    assert done.returncode == 0, done.stderr
    said: dict[str, Any] = json.loads(done.stdout)
    return said


def drivers(world: World, config: Path) -> str:
    """What `replicator rules` says that drives the rule."""
    (rule,) = json.loads(world.command("rules", "--json", config=config).stdout)["rules"]
    driven_by: str = rule["driven_by"]
    return driven_by


def failed(process: Process, *records: dict[str, Any], milliseconds: int = MINUTE) -> list[str]:
    """Numbers that the answer to an event reports."""
    # As the runtime does: what it hands over was JSON.
    answer = process.handle(json.loads(json.dumps({"Records": records})), milliseconds)
    return [each["itemIdentifier"] for each in answer["batchItemFailures"]]


class Lines(logging.Handler):
    """What the program logs."""

    def __init__(self) -> None:
        super().__init__()
        self._lines: list[dict[str, Any]] = []

    def emit(self, record: logging.LogRecord) -> None:
        if isinstance(record.msg, dict):
            self._lines.append(record.msg)

    def take(self, *events: str) -> list[dict[str, Any]]:
        """Lines of these kinds since it was last looked at."""
        lines, self._lines = self._lines, []
        return [line for line in lines if line["event"] in events]


@pytest.fixture
def lines() -> Iterator[Lines]:
    handler = Lines()
    logging.getLogger("replicator").addHandler(handler)
    yield handler
    logging.getLogger("replicator").removeHandler(handler)


# -- what is brought -----------------------------------------------------------------------------------------------


async def test_events_of_a_mapping_bring_a_table_to_its_replicas_and_caches(
    world: World, config: Path, variables: None, aged: None
) -> None:
    """Real records of a stream, in batches that fail in the middle: binaries, numbers, deletes."""
    async with world.client("us") as client:
        for number in range(60):
            item = {**ITEM, "pk": {"S": f"k{number % 25}"}, "serial": {"N": str(number)}}
            await client.put_item(TableName="orders", Item=item)
        await client.delete_item(TableName="orders", Key={"pk": {"S": "k3"}})
    cache = redis.Redis(port=world.valkey_port, db=1)
    cache.set("copy:k3", b"old")
    ends = itertools.cycle([True, False, True])

    handlers = Handlers(Process, MINUTE)

    async def invoke(event: Event) -> Any:
        if next(ends):
            return await handlers.invoke(event)
        await handlers.invoke({"Records": event["Records"][:5]})
        raise TimeoutError

    truth = {key: plain(item) for key, item in (await world.scan("us", "orders")).items() if key.startswith("k")}
    assert len(truth) == 24

    async def brought() -> bool:
        copies = (await world.replicas()).values()
        return all({key: item for key, item in copy.items() if key.startswith("k")} == truth for copy in copies)

    async with mapped(world, invoke, MappingOptions(batch_size=17, factor=2)) as source:
        await eventually("all of it", lambda: source.counts.records >= CHANGES and not source.waiting)
        await eventually("the replicas", brought)
    await handlers.close()
    assert source.counts.failed > 0
    assert source.counts.discarded == []
    assert cache.get("copy:k3") is None


def test_a_refused_record_is_parked_and_the_answer_is_empty(
    world: World, config: Path, process: Process, orders: Source, aged: None
) -> None:
    large = {"pk": {"S": "large"}, "x": {"S": "x" * (LARGEST - 8)}}
    assert failed(process, orders.record(large), orders.record({"pk": {"S": "small"}})) == []
    parked = json.loads(world.command("parked", "list", "--json", config=config).stdout)["parked"]
    assert {row["shown"] for row in parked} == {"pk=large"}
    assert "small" in asyncio.run(world.replicas())["eu"]
    assert failed(process, orders.record({"pk": {"S": "large"}}, large)) == []
    assert json.loads(world.command("parked", "list", "--json", config=config).stdout)["parked"] == []


@pytest.mark.usefixtures("aged", "variables")
def test_a_refused_record_that_cannot_be_parked_is_reported_and_is_parked_when_it_comes_again(
    world: World, config: Path, orders: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    large = orders.record({"pk": {"S": "unparked"}, "x": {"S": "x" * (LARGEST - 8)}})
    small, behind = orders.record({"pk": {"S": "before"}}), orders.record({"pk": {"S": "behind"}})
    with serving(world.endpoint) as server:
        settings = world.settings()
        settings["regions"]["us"]["endpoint_url"] = server.url
        monkeypatch.setenv("REPLICATOR_CONFIG", str(world.write_settings(settings, "unparked.yaml")))
        process = Process()
        try:
            assert failed(process, small) == []
            server.denied = frozenset({"PutItem", "UpdateItem"})  # what a row of the owed table takes
            number = large["dynamodb"]["SequenceNumber"]
            assert failed(process, small, large, behind, milliseconds=5000) == [number]
            server.denied = frozenset()
            assert failed(process, large, behind) == []
            parked = json.loads(world.command("parked", "list", "--json", config=config).stdout)["parked"]
            assert {row["shown"] for row in parked} == {"pk=unparked"}
            assert failed(process, orders.record({"pk": {"S": "unparked"}})) == []
        finally:
            process.close()
    assert "behind" in asyncio.run(world.replicas())["eu"]


def test_what_cannot_be_begun_before_the_end_is_reported_from_the_first_record_on(
    process: Process, orders: Source, aged: None
) -> None:
    first, second = orders.record(ITEM), orders.record(ITEM)
    assert failed(process, first) == []
    assert failed(process, first, second, milliseconds=1500) == [first["dynamodb"]["SequenceNumber"]]
    assert failed(process, first, second) == []


# -- what is refused -----------------------------------------------------------------------------------------------


def test_records_of_an_unknown_table_are_passed_and_said_once_or_refused_if_that_is_wanted(
    process: Process, orders: Source, lines: Lines, monkeypatch: pytest.MonkeyPatch
) -> None:
    strange = Source(orders.arn.replace("table/orders", "table/strange"))
    records = [strange.record(ITEM) for _ in range(3)]
    assert failed(process, *records) == []
    assert failed(process, *records) == []
    (line,) = lines.take("unknown_table")
    assert line["table"] == "us-east-1:strange"
    monkeypatch.setenv("LAMBDA_UNKNOWN", "fail")
    assert failed(process, *records) == [records[0]["dynamodb"]["SequenceNumber"]]


@pytest.mark.parametrize(
    ("event", "sentence"),
    [
        ({}, "This is no event of an event source mapping"),
        ({"Records": [{"Sns": {}}]}, "This is no event of an event source mapping"),
        ({"Records": [{"eventSource": "aws:sqs", "eventSourceARN": "arn:x"}]}, "Events of 'aws:sqs'"),
        (
            {"Records": [{"eventSource": "aws:dynamodb", "eventSourceARN": "arn:x", "dynamodb": {}}]},
            "A record is not what DynamoDB Streams sends",
        ),
    ],
)
def test_an_event_that_cannot_be_understood_is_refused_as_a_whole_with_one_sentence(
    process: Process, lines: Lines, event: dict[str, Any], sentence: str
) -> None:
    assert process.handle(event, MINUTE) == {"batchItemFailures": [{"itemIdentifier": ""}]}
    (line,) = lines.take("event_refused", "batch_refused")
    assert sentence in line["reason"]


def test_a_configuration_that_is_wrong_is_one_sentence_at_every_event(
    process: Process, orders: Source, lines: Lines, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REPLICATOR_CONFIG", "/no/such/file.yaml")
    record = orders.record(ITEM)
    for _ in range(2):
        assert failed(process, record) == [record["dynamodb"]["SequenceNumber"]]
        (line,) = lines.take("batch_refused")
        assert "/no/such/file.yaml" in line["reason"]


# -- what drives ---------------------------------------------------------------------------------------------------


def test_a_function_waits_a_lease_after_the_hand_over_and_ends_at_once_when_pods_drive(
    world: World, config: Path, process: Process, orders: Source, lines: Lines
) -> None:
    record = orders.record(ITEM)
    number = record["dynamodb"]["SequenceNumber"]
    age(world, config, by="pods")
    assert failed(process, record) == [number]
    assert "driven by pods" in lines.take("batch_refused")[0]["reason"]
    assert drivers(world, config) == "pods"
    assert drive(world, config, "lambda") == {"rule": "orders", "by": "lambda", "changed": True}
    process.close()
    assert failed(process, record) == [number]
    assert "pods may not have ended yet" in lines.take("batch_refused")[0]["reason"]
    age(world, config, by="lambda")
    process.close()
    assert failed(process, record) == []
    assert drivers(world, config) == "lambda"
    shown = json.loads(world.command("status", "--json", config=config).stdout)
    (rule,) = shown["rules"]
    assert (rule["paused"], "Functions run it" in rule["pause_note"]) == (True, True)
    assert drive(world, config, "pods")["changed"]
    process.close()
    assert failed(process, record) == [number]


@pytest.mark.usefixtures("config")
def test_a_rule_that_functions_would_refuse_is_not_handed_to_them(world: World) -> None:
    settings = world.settings(rule={"insert_guard": "probe"})
    path = world.write_settings(settings, "probe.yaml")
    refused = world.command("rules", "drive", "orders", "--by", "lambda", config=path)
    assert (refused.returncode, "`insert_guard: probe`" in refused.stderr) == (2, True), refused.stderr
    assert refused.stderr.count("\n") == 1


@pytest.mark.usefixtures("aged", "variables")
def test_a_rule_that_came_to_need_leases_is_refused_by_functions(
    world: World, orders: Source, lines: Lines, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = world.write_settings(world.settings(rule={"insert_guard": "probe"}), "probe.yaml")
    monkeypatch.setenv("REPLICATOR_CONFIG", str(path))
    process, record = Process(), orders.record(ITEM)
    assert failed(process, record) == [record["dynamodb"]["SequenceNumber"]]
    process.close()
    assert "`insert_guard: probe`" in lines.take("batch_refused")[0]["reason"]


# -- the real runtime ----------------------------------------------------------------------------------------------


class Emulated:
    """The function under the emulator; in the middle of its writes to one replica its process is sent a signal."""

    def __init__(self, function: emulator.Emulator) -> None:
        self.function = function
        self.writes = 0
        self._number: signal.Signals | None = None
        self._process = 0

    def sent(self, operation: str) -> None:
        """A write that is on its way."""
        if operation in {"PutItem", "TransactWriteItems"}:
            self.writes += 1
            if self._number is not None and self.writes == WRITES_BEFORE_THE_END:
                os.kill(self._process, self._number)

    def attack(self, number: signal.Signals | None) -> int:
        """Send this after some more writes; returns the function's process as it is now."""
        self.writes, self._number, self._process = 0, number, self.function.runtime or 0
        return self._process


@pytest.fixture(scope="module")
def emulated(world: World, config: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Emulated]:
    if emulator.missing() is not None:
        pytest.skip(f"{emulator.missing()}")
    found: list[Emulated] = []
    with watched(world.endpoint, lambda operation: found[0].sent(operation)) as eu:  # noqa: PLW0108 - it is found later
        settings = world.settings(apply={"concurrency": AT_ONCE, "backoff_max": "1s"})
        settings["regions"]["eu"]["endpoint_url"] = eu
        path = world.write_settings(settings, "emulated.yaml")
        variables = {**CREDENTIALS, "REPLICATOR_CONFIG": str(path)}
        with closing(emulator.Emulator.start(tmp_path_factory.mktemp("emulated"), variables, seconds=60)) as function:
            found.append(Emulated(function))
            yield found[0]


def many(prefix: str) -> dict[str, Item]:
    return {name: {**ITEM, "pk": {"S": name}} for name in (f"{prefix}{number:02}" for number in range(60))}


@pytest.mark.long
@pytest.mark.usefixtures("aged")
def test_under_the_emulator_nothing_is_lost_when_the_functions_process_is_killed_in_the_middle_of_its_writes(
    world: World, emulated: Emulated, orders: Source
) -> None:
    """The real runtime client; a killed process has answered nothing, so everything comes again."""
    first, items = {**ITEM, "pk": {"S": "emulated"}}, many("w")
    assert emulated.function.handle({"Records": [orders.record(first)]}, 0) == {"batchItemFailures": []}
    assert emulated.function.handle({"Records": [orders.record(first, first)]}, 0) == {"batchItemFailures": []}
    event = {"Records": [orders.record(item) for item in items.values()]}
    victim = emulated.attack(signal.SIGKILL)
    with pytest.raises(emulator.InvocationFailed):
        emulated.function.handle(event, 0)
    brought = asyncio.run(world.replicas())["eu"]
    assert 0 < len(brought.keys() & items.keys()) < len(items), "it was killed in the middle of its writes"
    emulated.attack(None)
    assert emulated.function.handle(event, 0) == {"batchItemFailures": []}
    assert emulated.function.runtime not in {None, victim}
    for there in asyncio.run(world.replicas()).values():
        assert {key: item for key, item in there.items() if key in items} == items
        assert there["emulated"] == first


@pytest.mark.long
@pytest.mark.usefixtures("aged")
async def test_a_function_that_was_frozen_sends_nothing_when_it_wakes_up_and_pods_drive(
    world: World, config: Path, emulated: Emulated, orders: Source
) -> None:
    """But for what was on its way already, which versions judge."""
    event = {"Records": [orders.record(item) for item in many("f").values()]}
    assert await asyncio.to_thread(emulated.function.handle, {"Records": event["Records"][:1]}, 0)
    process = emulated.attack(signal.SIGSTOP)
    invoked = asyncio.create_task(asyncio.to_thread(emulated.function.handle, event, 0))
    await eventually("the end of its writes", lambda: emulated.writes >= WRITES_BEFORE_THE_END)
    await asyncio.to_thread(drive, world, config, "pods")
    await asyncio.sleep(LEASE_SECONDS)
    before = emulated.writes
    os.kill(process, signal.SIGCONT)
    assert (await invoked)["batchItemFailures"]
    assert before < WRITES_BEFORE_THE_END + AT_ONCE
    assert emulated.writes <= before + AT_ONCE


# -- Kinesis -------------------------------------------------------------------------------------------------------

KINESIS = "arn:aws:kinesis:us-east-1:000000000000:stream/changes"


class KinesisSource:
    """A Kinesis stream as a mapping sees it."""

    def __init__(self) -> None:
        self._number = 10**30

    def record(self, item: Item, *, micros: int, table: str = "orders") -> dict[str, Any]:
        """A change in the envelope, whose binary values are base64 twice."""
        twice = wire(item)
        for value in twice.values():
            if "B" in value:
                value["B"] = base64.b64encode(value["B"].encode()).decode()
        self._number += 1
        change = {
            "ApproximateCreationDateTime": micros,
            "ApproximateCreationDateTimePrecision": "MICROSECOND",
            "Keys": {"pk": item["pk"]},
            "NewImage": twice,
        }
        envelope = {"eventName": "INSERT", "tableName": table, "eventID": str(self._number), "dynamodb": change}
        kinesis = {
            "sequenceNumber": str(self._number),
            "data": base64.b64encode(json.dumps(envelope).encode()).decode(),
            "approximateArrivalTimestamp": micros / 1e6,
        }
        return {"eventSource": "aws:kinesis", "eventSourceARN": KINESIS, "kinesis": kinesis}


async def prepare_kinesis(url: str) -> None:
    async with place(url, region="us-east-1") as there:
        client, _ = await there.kinesis.opened()
        await client.create_stream(StreamName="changes", ShardCount=1)


KINESIS_SERVICE = {"DescribeStream", "DescribeStreamSummary", "ListShards", "GetShardIterator", "GetRecords"}


async def read_by_a_mapping(world: World, lab: StreamLab, item: Item) -> list[str]:
    """An item whose change a mapping of the Kinesis stream brings to functions; what it gave up."""
    handlers = Handlers(Process, MINUTE, most=1)
    async with place(lab.url, region="us-east-1") as there:
        kinesis = KinesisStreams(there, KinesisOrigin("changes"))
        feed = KinesisFeed(there, kinesis, await kinesis.current(TableName("orders")))
        assert feed.arn == KINESIS
        source = EventSource(feed, handlers.invoke, SystemClock(), MappingOptions(factor=2))
        running = asyncio.create_task(source.run())
        async with world.client("us") as client:
            await client.put_item(TableName="orders", Item=item)
        await eventually("the change", lambda: source.counts.records > 0)
        source.stop()
        await running
    await handlers.close()
    return source.counts.discarded


@pytest.mark.usefixtures("variables")
def test_events_of_kinesis_bring_the_newest_of_what_comes_in_any_order_and_pass_other_tables(
    world: World, config: Path, lines: Lines, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with StreamLab.start(tmp_path, world.endpoint) as lab:
        settings = world.settings(group="kinesis", rule={"stream": {"kinesis": "changes"}})
        settings["regions"]["us"]["endpoint_url"] = lab.url
        path = world.write_settings(settings, "kinesis.yaml")
        asyncio.run(prepare_kinesis(lab.url))
        done = world.command("init", "--enable-streams", config=path)
        assert done.returncode == 0, done.stderr
        age(world, path, by="lambda", group="kinesis")
        monkeypatch.setenv("REPLICATOR_CONFIG", str(path))
        process, source, now = Process(), KinesisSource(), int(time.time() * 1e6)
        newer, older = ({**ITEM, "pk": {"S": "stream"}, "serial": {"N": serial}} for serial in ("2", "1"))
        late = source.record(older, micros=now - 500)
        records = [source.record(newer, micros=now), late, source.record(ITEM, micros=now, table="bills")]
        try:
            assert failed(process, *records) == []
            assert failed(process, *records) == []
            assert failed(process, {**late, "eventSourceARN": f"{KINESIS}/consumer/pushed:1700000000"}) == []
            (line,) = lines.take("unknown_table")
            assert line["table"] == "us-east-1:changes:bills"
            malformed = {**late, "kinesis": {**late["kinesis"], "data": "?"}}
            assert failed(process, malformed) == [late["kinesis"]["sequenceNumber"]]
            assert "not what Kinesis sends" in lines.take("batch_refused")[0]["reason"]
            # The table's own stream is another source, whose versions do not compare.
            other = asyncio.run(source_of(world, "orders")).record(newer)
            assert failed(process, other) == [other["dynamodb"]["SequenceNumber"]]
            assert "in Kinesis" in lines.take("batch_refused")[0]["reason"]
        finally:
            process.close()
        mapped = {**ITEM, "pk": {"S": "mapped"}}
        assert asyncio.run(read_by_a_mapping(world, lab, mapped)) == []
        policy = world.command("iam", "--lambda", "--region", "us", config=path)
        granted = {action for each in json.loads(policy.stdout)["Statement"] for action in each["Action"]}
        asked = {f"kinesis:{call}" for call in lab.stats()["calls"] if call in KINESIS_SERVICE}
        assert {action for action in granted if action.startswith("kinesis:")} - asked == {"kinesis:DescribeStream"}, (
            "AWS asks that when a mapping is made"
        )
        assert asked <= granted
    for items in asyncio.run(world.replicas()).values():
        assert items["stream"] == newer
        assert items["mapped"] == mapped
