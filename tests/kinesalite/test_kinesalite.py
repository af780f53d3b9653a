"""A stream on Kinesis at kinesalite, an implementation that is none of ours: true parents, numbers and iterators.

`.ci/run` installs it from the lock beside this file; where it or node is missing, this is skipped.
"""

from __future__ import annotations

import asyncio
import hashlib
import shutil
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from replicator.adapters.aws.clients import Place
from replicator.adapters.dynamodb.streams import whole_listing
from replicator.adapters.kinesis.streams import KinesisStreams
from replicator.domain.errors import RecordsTrimmed, ShardGone, StreamUnusable
from replicator.domain.identifiers import SequenceNumber, ShardId, TableName
from replicator.domain.progress import HORIZON, Position, after
from replicator.domain.records import ChangeRecord, changes
from replicator.domain.rules import KinesisSource
from replicator.domain.shards.leases import StreamRef
from replicator.domain.shards.lineage import Shard
from replicator.laboratory.servers import LOOPBACK, Child, clean_environment, free_ports
from replicator.laboratory.streamlab.changes import Change
from replicator.laboratory.streamlab.envelope import envelope
from tests.contract.worlds import no_fallback, place
from tests.patience import PATIENT_SECONDS

_ROOT = Path(__file__).parents[2]
_PROGRAM = _ROOT / ".cache/tools/kinesalite/node_modules/kinesalite/cli.js"
_NODE = shutil.which("node")
ORDERS = TableName("orders")
_PARENTS = 2

pytestmark = [
    pytest.mark.servers,
    pytest.mark.skipif(_NODE is None or not _PROGRAM.is_file(), reason="node or kinesalite is not installed"),
]


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    port, directory = free_ports(1), tmp_path_factory.mktemp("kinesalite")
    assert _NODE is not None
    quick = [f"--{what}StreamMs={1}" for what in ("create", "delete", "update")]
    child = Child.spawn(
        "kinesalite",
        ["exec", _NODE, str(_PROGRAM), f"--port={port}", "--shardLimit=50", *quick],
        log=directory / "kinesalite.log",
        environment=clean_environment(),
    )
    yield f"http://{LOOPBACK}:{port}"
    child.stop()


class Bench:
    """A stream of kinesalite that holds changes of one table, as DynamoDB would send them."""

    def __init__(self, opened: Place, name: str) -> None:
        self.place = opened
        self.name = name
        self.streams = KinesisStreams(opened, KinesisSource(name))
        self.made = 0

    async def call(self, operation: str, **parameters: Any) -> Any:
        client, _ = await self.place.kinesis.opened()
        return await getattr(client, operation)(StreamName=self.name, **parameters)

    async def until_active(self) -> None:
        async with asyncio.timeout(PATIENT_SECONDS):
            while (await self.call("describe_stream"))["StreamDescription"]["StreamStatus"] != "ACTIVE":  # noqa: ASYNC110
                await asyncio.sleep(0.01)

    async def begin(self, shards: int) -> None:
        async with asyncio.timeout(PATIENT_SECONDS):
            while True:
                try:
                    await self.call("create_stream", ShardCount=shards)
                except OSError:
                    await asyncio.sleep(0.05)
                except Exception as error:
                    if "Connect" not in type(error).__name__:
                        raise
                    await asyncio.sleep(0.05)
                else:
                    break
        await self.until_active()

    async def write(self, count: int) -> None:
        """Changes of five keys, in turn."""
        for _ in range(count):
            self.made += 1
            name = f"k{self.made % 5}"
            keys = b'{"pk":{"S":"%b"}}' % name.encode()
            new = b'{"pk":{"S":"%b"},"n":{"N":"%d"}}' % (name.encode(), self.made)
            change = Change("INSERT", keys, new, b"", 0, 0)
            micros = 1_700_000_000_000_000 + self.made
            data = envelope(change, table=ORDERS, region="eu", event_id=str(self.made), micros=micros)
            await self.call("put_record", Data=data, PartitionKey=hashlib.md5(name.encode()).hexdigest())

    async def ref(self) -> StreamRef:
        (ref,) = await self.streams.streams(ORDERS)
        return ref

    async def shards(self) -> list[Shard]:
        return await whole_listing(self.streams, await self.ref())

    async def read(self, shard: Shard, position: Position = HORIZON) -> list[ChangeRecord]:
        """Everything behind a place: to the end of a closed shard, else until nothing is left."""
        found: list[ChangeRecord] = []
        iterator: str | None = await self.streams.iterator(await self.ref(), shard.shard_id, position)
        while iterator is not None:
            page = await self.streams.read(iterator, 3)
            found += changes(page.records)
            assert shard.closed or page.next_iterator is not None, "an open shard has no end"
            is_over = page.is_level and not page.records and not shard.closed  # it calls every page level
            iterator = None if is_over else page.next_iterator
        return found

    async def read_until_it_fails(self, iterator: str) -> None:
        """A stream goes a moment after it was deleted."""
        async with asyncio.timeout(PATIENT_SECONDS):
            while True:
                await self.streams.read(iterator, 10)


@pytest.fixture
async def bench(url: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Bench]:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    async with place(url, lean=no_fallback) as opened:
        made = Bench(opened, request.node.name[:60])
        await made.begin(2)
        yield made


async def test_every_change_comes_once_over_splits_and_merges_with_parents_first(bench: Bench) -> None:
    await bench.write(12)
    one, two = await bench.shards()
    await bench.call("split_shard", ShardToSplit=one.shard_id, NewStartingHashKey=str(1 << 126))
    await bench.until_active()
    await bench.write(12)
    right = (await bench.shards())[-1]
    assert right.parents == (one.shard_id,)
    await bench.call("merge_shards", ShardToMerge=right.shard_id, AdjacentShardToMerge=two.shard_id)
    await bench.until_active()
    await bench.write(12)
    listed = {shard.shard_id: shard for shard in await bench.shards()}
    (merged,) = [shard for shard in listed.values() if len(shard.parents) == _PARENTS]
    assert set(merged.parents) == {right.shard_id, two.shard_id}
    assert sum(shard.closed for shard in listed.values()) == 1 + _PARENTS
    records = [record for shard in listed.values() for record in await bench.read(shard)]
    assert sorted(record.micros for record in records) == [1_700_000_000_000_001 + number for number in range(36)]
    of_keys: dict[object, list[int]] = {}
    for record in records:  # shards are listed parents first
        of_keys.setdefault(record.key, []).append(record.micros)
    assert all(times == sorted(times) for times in of_keys.values())


async def test_reading_goes_on_behind_any_record(bench: Bench) -> None:
    await bench.write(15)
    for shard in await bench.shards():
        records = await bench.read(shard)
        for place_, record in enumerate(records):
            assert await bench.read(shard, after(record.sequence)) == records[place_ + 1 :]


async def test_what_is_gone_says_so(bench: Bench) -> None:
    ref, (one, _) = await bench.ref(), await bench.shards()
    iterator = await bench.streams.iterator(ref, one.shard_id, HORIZON)
    with pytest.raises(ShardGone):
        await bench.streams.iterator(ref, ShardId("shardId-000000000099"), HORIZON)
    with pytest.raises(RecordsTrimmed):
        await bench.streams.iterator(ref, one.shard_id, after(SequenceNumber("17")))
    await bench.call("delete_stream")
    with pytest.raises(ShardGone):
        await bench.read_until_it_fails(iterator)
    with pytest.raises(StreamUnusable, match="There is no Kinesis stream"):
        await bench.streams.current(ORDERS)
