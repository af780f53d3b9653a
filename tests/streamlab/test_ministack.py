"""The laboratory in front of a MiniStack: tables there, shards here."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from aiobotocore.session import AioSession
from botocore.exceptions import ClientError

from replicator.adapters.dynamodb.streams import DynamoStreams, whole_listing
from replicator.adapters.kinesis.consumers import register
from replicator.adapters.kinesis.streams import KinesisStreams, kinesis_arn
from replicator.domain.identifiers import TableName
from replicator.domain.progress import HORIZON
from replicator.domain.records import ChangeRecord, changes
from replicator.domain.rules import KinesisSource
from replicator.laboratory.streamlab.changes import Change
from replicator.laboratory.streamlab.envelope import envelope
from replicator.laboratory.streamlab.refusals import Refused
from replicator.laboratory.streamlab.stream import LabStream
from tests.contract.worlds import create_table, fresh, place
from tests.patience import PATIENT_SECONDS
from tests.streamlab import Laboratory, StreamLab, laboratory, parse_script
from tests.streamlab.reader import chained, everything, histories

pytestmark = pytest.mark.servers


@pytest.fixture
async def front(dynamodb_url: str) -> AsyncIterator[Laboratory]:
    async with laboratory(dynamodb_url, seed=7, shards=4) as opened:
        yield opened


async def clients(stack: AsyncExitStack, url: str, region: str = "eu-west-1", account: str = "testing") -> list[Any]:
    """Plain clients for DynamoDB and its streams, as anybody would make them."""
    session = AioSession()
    return [
        await stack.enter_async_context(
            session.create_client(
                service,
                region_name=region,
                endpoint_url=url,
                aws_access_key_id=account,
                aws_secret_access_key="testing",
            )
        )
        for service in ("dynamodb", "dynamodbstreams")
    ]


def known(lab: Laboratory, table: str) -> list[LabStream]:
    """The laboratory's streams of a table."""
    return [stream for stream in lab.tables.streams() if stream.table == table]


async def write(dynamodb: Any, table: str, count: int, *, first: int = 0, keys: int = 20) -> None:
    """Changes, all of them different: a write that changes nothing leaves no record."""
    for n in range(first, first + count):
        await dynamodb.put_item(TableName=table, Item={"pk": {"S": f"ü{n % keys}"}, "n": {"N": str(n)}})


async def test_changes_of_a_table_are_spread_over_shards_and_keep_their_order(front: Laboratory) -> None:
    table = fresh("orders")
    async with place(front.url) as opened:
        streams = DynamoStreams(opened)
        await create_table(opened.dynamodb, table, {"pk": "S"}, stream=True)
        for n in range(4):
            await write(opened.dynamodb, table, 60, first=n * 60)
            await front.settle(table)
            (front.split, front.merge, front.roll, front.split)[n](table)
        records = await everything(streams, await streams.current(TableName(table)))
    assert len(records) == 240
    assert len(histories(records)) == 20
    assert chained(records)
    (stream,) = known(front, table)
    assert sum(shard.total > 0 for shard in stream.shards.values()) > 4


async def test_a_plain_client_sees_what_aws_would_send(front: Laboratory) -> None:
    table = fresh("orders")
    async with AsyncExitStack() as stack:
        dynamodb, streams = await clients(stack, front.url)
        await create_table(dynamodb, table, {"pk": "S"}, stream=True)
        await write(dynamodb, table, 10)
        await front.settle(table)
        (listed,) = (await streams.list_streams(TableName=table))["Streams"]
        described = (await streams.describe_stream(StreamArn=listed["StreamArn"]))["StreamDescription"]
        assert described["StreamStatus"] == "ENABLED"
        assert described["KeySchema"] == [{"AttributeName": "pk", "KeyType": "HASH"}]
        records = []
        for shard in described["Shards"]:
            assert set(shard["SequenceNumberRange"]) == {"StartingSequenceNumber"}
            asked = {"StreamArn": listed["StreamArn"], "ShardId": shard["ShardId"]}
            got = await streams.get_shard_iterator(**asked, ShardIteratorType="TRIM_HORIZON")
            page = await streams.get_records(ShardIterator=got["ShardIterator"])
            assert "NextShardIterator" in page
            headers = page["ResponseMetadata"]["HTTPHeaders"]
            assert headers["content-type"] == "application/x-amz-json-1.0"
            assert headers["x-amz-crc32"].isdecimal()
            records += page["Records"]
            latest = await streams.get_shard_iterator(**asked, ShardIteratorType="LATEST")
            assert (await streams.get_records(ShardIterator=latest["ShardIterator"]))["Records"] == []
        assert {record["eventName"] for record in records} == {"INSERT"}
        assert all(record["dynamodb"]["ApproximateCreationDateTime"].microsecond == 0 for record in records)
        assert {record["dynamodb"]["NewImage"]["n"]["N"] for record in records} == {str(n) for n in range(10)}
        with pytest.raises(ClientError, match="ResourceNotFoundException"):
            await streams.get_shard_iterator(
                StreamArn=listed["StreamArn"],
                ShardId="shardId-00000000000000000000-00000000",
                ShardIteratorType="LATEST",
            )


async def test_an_expired_item_is_removed_by_the_service(front: Laboratory) -> None:
    table = fresh("orders")
    async with place(front.url) as opened:
        streams = DynamoStreams(opened)
        await create_table(opened.dynamodb, table, {"pk": "S"}, stream=True)
        await write(opened.dynamodb, table, 3)
        await opened.dynamodb.delete_item(TableName=table, Key={"pk": {"S": "ü0"}})
        assert await front.expire(table, {"pk": {"S": "ü1"}})
        assert not await front.expire(table, {"pk": {"S": "never"}})
        front.set(ttl_identity="documentation")
        assert await front.expire(table, {"pk": {"S": "ü2"}})
        records = await everything(streams, await streams.current(TableName(table)))
    assert sorted(record.by_ttl for record in records if record.event.value == "REMOVE") == [False, True, True]


async def test_a_table_shows_the_laboratorys_stream_after_it_was_re_created(front: Laboratory) -> None:
    table = fresh("orders")
    async with AsyncExitStack() as stack:
        dynamodb, streams = await clients(stack, front.url)
        await create_table(dynamodb, table, {"pk": "S"}, stream=True)
        await write(dynamodb, table, 5)
        arn = await front.recreate(table)
        await write(dynamodb, table, 7, first=5)
        await front.settle(table)
        described = (await dynamodb.describe_table(TableName=table))["Table"]
        assert described["LatestStreamArn"] == arn
        assert arn == f"{described['TableArn']}/stream/{described['LatestStreamLabel']}"
        old, new = (one["StreamArn"] for one in (await streams.list_streams(TableName=table))["Streams"])
        assert new == arn
        assert (await streams.describe_stream(StreamArn=old))["StreamDescription"]["StreamStatus"] == "DISABLED"
        assert [stream.records for stream in known(front, table)] == [5, 7]
        await front.recreate(table, off=True)
        assert "StreamSpecification" not in (await dynamodb.describe_table(TableName=table))["Table"]


async def test_a_stream_that_users_switch_off_and_on_is_another_one(front: Laboratory) -> None:
    table = fresh("orders")
    async with AsyncExitStack() as stack:
        dynamodb, streams = await clients(stack, front.url)
        await create_table(dynamodb, table, {"pk": "S"}, stream=True)
        await write(dynamodb, table, 5)
        await dynamodb.update_table(TableName=table, StreamSpecification={"StreamEnabled": False})
        await write(dynamodb, table, 7, first=5)
        on = {"StreamEnabled": True, "StreamViewType": "NEW_AND_OLD_IMAGES"}
        await dynamodb.update_table(TableName=table, StreamSpecification=on)
        await write(dynamodb, table, 9, first=12)
        await front.settle(table)
        described = (await dynamodb.describe_table(TableName=table))["Table"]
        listed = (await streams.list_streams(TableName=table))["Streams"]
        assert listed[-1]["StreamArn"] == described["LatestStreamArn"]
        assert [(stream.records, stream.closed_at is None) for stream in known(front, table)] == [
            (5, False),
            (9, True),
        ]


async def test_regions_and_accounts_are_worlds_of_their_own(front: Laboratory) -> None:
    table = fresh("orders")
    worlds = [("eu-west-1", "testing"), ("us-east-1", "testing"), ("eu-west-1", "111122223333")]
    async with AsyncExitStack() as stack:
        arns = set()
        for number, (region, account) in enumerate(worlds):
            dynamodb, streams = await clients(stack, front.url, region, account)
            await create_table(dynamodb, table, {"pk": "S"}, stream=True)
            await write(dynamodb, table, number + 1)
            (listed,) = (await streams.list_streams(TableName=table))["Streams"]
            arns.add(listed["StreamArn"])
        await front.settle()
        assert len(arns) == 3
        assert sorted(stream.records for stream in known(front, table)) == [1, 2, 3]
        with pytest.raises(ClientError, match="ResourceNotFoundException"):
            await streams.describe_stream(
                StreamArn=next(stream.arn for stream in known(front, table) if stream.region == "us-east-1")
            )


async def test_a_table_that_was_made_elsewhere_is_found(front: Laboratory, dynamodb_url: str) -> None:
    table = fresh("orders")
    async with place(dynamodb_url) as direct, AsyncExitStack() as stack:
        await create_table(direct.dynamodb, table, {"pk": "S"}, stream=True)
        await write(direct.dynamodb, table, 5)
        arn = (await direct.dynamodb.describe_table(TableName=table))["Table"]["LatestStreamArn"]
        _, streams = await clients(stack, front.url)
        shards = (await streams.describe_stream(StreamArn=arn))["StreamDescription"]["Shards"]
        assert len(shards) == 4
        await front.settle(table)
        assert [stream.records for stream in known(front, table)] == [5]


async def test_the_generator_can_write_to_the_table(front: Laboratory) -> None:
    table = fresh("orders")
    async with place(front.url) as opened:
        streams = DynamoStreams(opened)
        await create_table(opened.dynamodb, table, {"pk": "S"}, stream=True)
        await front.generate(table, count=200, keys=10, apply=True)
        records = await everything(streams, await streams.current(TableName(table)))
        items = (await opened.dynamodb.scan(TableName=table))["Items"]
    assert chained(records)
    last = {name: history[-1].new for name, history in histories(records).items()}
    assert sum(image is not None for image in last.values()) == len(items)


async def test_a_script_runs_by_time_and_by_count(dynamodb_url: str) -> None:
    script = parse_script(
        [
            {"do": "make", "with": {"table": "orders", "region": "eu-west-1", "shards": 2}},
            {"do": "generate", "with": {"table": "orders", "count": 10}, "at": 0.05, "every": 0.01, "times": 3},
            {"do": "reshard", "with": {"shards": 6}, "records": 30},
        ]
    )
    async with laboratory(dynamodb_url, seed=1, script=script) as lab, asyncio.timeout(PATIENT_SECONDS):
        while lab.stats()["open_shards"] != 6:  # noqa: ASYNC110 - as a client outside would
            await asyncio.sleep(0.01)
        assert lab.stats()["records"] == 30


def test_a_laboratory_runs_as_a_child_and_takes_commands_over_http(dynamodb_url: str, tmp_path: Path) -> None:
    with StreamLab.start(tmp_path, dynamodb_url, seed=3, shards=3, table_shards={"wide": 5}) as lab:
        lab.command("make", table="orders", region="eu-west-1")
        lab.command("make", table="wide", region="eu-west-1")
        assert len(lab.command("roll", table="orders")) == 3
        assert lab.command("generate", table="orders", count=9) == 9
        assert lab.stats()["records"] == 9
        assert [len(stream["shards"]) for stream in lab.streams()] == [6, 5]
        for name, arguments in (("explode", {}), ("roll", {"tables": "orders"}), ("merge", {"table": "none"})):
            with pytest.raises(Refused):
                lab.command(name, **arguments)
    assert lab.child.process.returncode == 0


def test_a_laboratory_runs_by_hand_with_a_script(dynamodb_url: str, tmp_path: Path) -> None:
    script = tmp_path / "script.yaml"
    script.write_text("- {do: make, with: {table: orders, region: eu-west-1}}\n")
    command = [sys.executable, "-m", "replicator.laboratory.streamlab", "--upstream", dynamodb_url, "--shards", "3"]
    with subprocess.Popen([*command, "--script", str(script)], stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            url = json.loads(process.stdout.readline())["url"]
            deadline, shards = time.monotonic() + PATIENT_SECONDS, 0
            while shards != 3 and time.monotonic() < deadline:
                with urllib.request.urlopen(f"{url}/_lab/stats", timeout=60) as answer:
                    shards = json.load(answer)["open_shards"]
        finally:
            process.send_signal(signal.SIGTERM)
        assert (shards, process.wait(PATIENT_SECONDS)) == (3, 0)


@pytest.mark.filterwarnings("ignore:Sending a large body")
async def test_long_requests_and_answers_pass_through(front: Laboratory) -> None:
    table = fresh("orders")
    async with place(front.url) as opened:
        streams = DynamoStreams(opened)
        await create_table(opened.dynamodb, table, {"pk": "S"}, stream=True)
        items: Any = [{"PutRequest": {"Item": {"pk": {"S": str(n)}, "long": {"S": "x" * 300_000}}}} for n in range(20)]
        await opened.dynamodb.batch_write_item(RequestItems={table: items})
        stream, deadline, found = await streams.current(TableName(table)), time.monotonic() + PATIENT_SECONDS, 0
        while found != 20 and time.monotonic() < deadline:  # the laboratory hears of them one after the other
            found = len(await everything(streams, stream))
        assert found == 20


async def test_a_table_fails_with_its_region(front: Laboratory) -> None:
    table = fresh("orders")
    async with AsyncExitStack() as stack:
        eu, _ = await clients(stack, front.url)
        us, _ = await clients(stack, front.url, "us-east-1")
        for dynamodb in (eu, us):
            await create_table(dynamodb, table, {"pk": "S"})
        front.fault("error", region="us-east-1", code="ResourceNotFoundException", status=400)
        await write(eu, table, 1)
        with pytest.raises(us.exceptions.ResourceNotFoundException):
            await write(us, table, 1)
        front.clear()
        await write(us, table, 1)


async def test_ministack_pushes_too_and_what_it_pushes_is_read(
    dynamodb_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
    name, table = fresh("changes"), TableName("orders")
    source = KinesisSource(name, group="test")
    async with place(dynamodb_url) as opened:
        client, _ = await opened.kinesis.opened()
        await client.create_stream(StreamName=name, ShardCount=1)
        streams = KinesisStreams(opened, source)
        (ref,) = await streams.streams(table)
        await register(opened, kinesis_arn(ref), source.consumer_of(table))
        (shard,) = await whole_listing(streams, ref)
        iterator: str | None = await streams.iterator(ref, shard.shard_id, HORIZON)
        change = Change("INSERT", b'{"pk":{"S":"k"}}', b'{"pk":{"S":"k"},"b":{"B":"AP8="}}', b"", 0, 0)
        pushed: list[ChangeRecord] = []
        async with asyncio.timeout(PATIENT_SECONDS):
            for number in range(4):
                data = envelope(change, table=table, region="eu", event_id=str(number), micros=17 * 10**14 + number)
                await client.put_record(StreamName=name, Data=data, PartitionKey="k")
                while len(pushed) <= number:
                    assert iterator is not None
                    page = await streams.read(iterator, 100)
                    pushed += changes(page.records)
                    iterator = page.next_iterator
        assert [record.micros for record in pushed] == [17 * 10**14 + number for number in range(4)]
        assert page.pushed
