"""How many writes every region's stream has seen: the judge of silence, and of the price of replication.

Invariant: a write of the daemon that changes an item leaves a record in its region; so a stream that grows no more
means that writes ceased, and records beyond the users' writes are the daemon's.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from replicator.demo.dynamodb import LocalRegion
from replicator.demo.world import World

QUIET_SECONDS: Final = 5.0
"""Longer than the daemon ever waits before it writes, where the servers answer: for another region's stamp, or for a
record further down the stream."""

_POLL_SECONDS = 0.5
_STREAMS = "DynamoDBStreams_20120810"
_PAGE = 1_000


class _Records(msgspec.Struct, frozen=True):
    records: tuple[msgspec.Raw, ...] = msgspec.field(default=(), name="Records")
    iterator: str | None = msgspec.field(default=None, name="NextShardIterator")


@dataclass(slots=True)
class StreamCounter:
    """Counts the records of one table's stream. The demo's server has one shard for each stream, and never rolls it."""

    region: LocalRegion
    table: str
    iterator: str | None = None
    counted: int = 0

    async def count(self) -> int:
        """Every record that was ever written to the stream."""
        iterator = self.iterator or await self._first_iterator()
        while True:
            body = {"ShardIterator": iterator, "Limit": _PAGE}
            page = msgspec.json.decode(await self.region.call("GetRecords", body, _STREAMS), type=_Records)
            self.counted += len(page.records)
            assert page.iterator is not None, "the stream is enabled"
            self.iterator = iterator = page.iterator
            if not page.records:
                return self.counted

    async def _first_iterator(self) -> str:
        described: dict[str, Any] = msgspec.json.decode(
            await self.region.call("DescribeTable", {"TableName": self.table})
        )
        arn = described["Table"]["LatestStreamArn"]
        stream: dict[str, Any] = msgspec.json.decode(
            await self.region.call("DescribeStream", {"StreamArn": arn}, _STREAMS)
        )
        (shard,) = stream["StreamDescription"]["Shards"]
        body = {"StreamArn": arn, "ShardId": shard["ShardId"], "ShardIteratorType": "TRIM_HORIZON"}
        answer: dict[str, str] = msgspec.json.decode(await self.region.call("GetShardIterator", body, _STREAMS))
        return answer["ShardIterator"]


@dataclass(frozen=True, slots=True)
class Streams:
    """All streams of a world."""

    counters: tuple[StreamCounter, ...]

    @classmethod
    def of(cls, world: World) -> Streams:
        """The streams of every table in every region."""
        return cls(
            tuple(
                StreamCounter(world.regions[region], name)
                for table in world.tables
                for region, name in table.names.items()
            )
        )

    async def count(self) -> int:
        """All records of all streams."""
        return sum([await counter.count() for counter in self.counters])

    async def wait_for_silence(self, alike: Callable[[], Awaitable[bool]], quiet: float, seconds: float) -> bool:
        """Wait until no write has come for `quiet` seconds and the regions are alike; False when it took longer."""
        loop = asyncio.get_running_loop()
        end = loop.time() + seconds
        count, since = await self.count(), loop.time()
        while loop.time() < end:
            await asyncio.sleep(_POLL_SECONDS)
            now = await self.count()
            if now != count:
                count, since = now, loop.time()
            elif loop.time() - since > quiet and await alike():
                return True
        return False
