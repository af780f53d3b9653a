"""One mapping between one stream and one function.

Per shard there are as many lanes as the parallelisation factor says, a key is always in the same lane, and a lane has
one invocation at a time. What an answer reports as failed comes again from the lowest number on; an invocation that
ends badly comes again as a whole, or in halves. Records that were tried too often, or are too old, go to the failure
destination. Shards begin when their parents are through. Invariant: nothing else is left out, and no lane changes its
order.
"""

from __future__ import annotations

import asyncio
import json
import zlib
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from replicator.domain.errors import ReplicatorError

if TYPE_CHECKING:
    from replicator.domain.identifiers import ShardId
    from replicator.domain.shards.lineage import Shard
    from replicator.laboratory.event_source.feeds import Fed, Feed
    from replicator.laboratory.event_source.options import Event, MappingOptions
    from replicator.ports.clock import Clock

Invoke = Callable[["Event"], Awaitable[Any]]
"""Calls the function; raises when the invocation ended badly."""

_LISTING_SECONDS = 1.0
_LONGEST_PAUSE_SECONDS = 5.0
_LANE_HOLDS = 10_000
"""Records that wait in a lane at most; then the shard is not read on."""

_ENVELOPE_BYTES = len('{"Records": []}')
_RETRIES, _AGE = "RetryAttemptsExhausted", "RecordAgeExceeded"


@dataclass
class Counts:
    """What a mapping did."""

    invocations: int = 0
    failed: int = 0
    """Invocations that ended badly."""
    partial: int = 0
    """Answers that reported a failure."""
    records: int = 0
    """Records that are through."""
    destination: list[Mapping[str, Any]] = field(default_factory=list)
    """What the failure destination was sent: about batches, without their records, as AWS does."""
    discarded: list[str] = field(default_factory=list)
    """Sequence numbers of all records that it was sent something about."""


class EventSource:
    """One mapping between one stream and one function."""

    def __init__(self, feed: Feed, invoke: Invoke, clock: Clock, options: MappingOptions) -> None:
        self._feed = feed
        self._invoke = invoke
        self._clock = clock
        self._stop = asyncio.Event()
        self._begun: dict[ShardId, asyncio.Task[None]] = {}
        self._through: set[ShardId] = set()
        self.options = options
        self.waiting = 0
        """Records that were read and are not through."""
        self.counts = Counts()

    def stop(self) -> None:
        """Disable the mapping: what was read and is not through is forgotten, as its place is."""
        self._stop.set()

    async def run(self) -> None:
        """Follow the stream until it is stopped."""
        async with asyncio.TaskGroup() as group:
            while not self._stop.is_set():
                try:
                    shards = await self._feed.shards()
                except ReplicatorError:
                    shards = []
                listed = {shard.shard_id for shard in shards}
                for shard in shards:
                    parents = {parent for parent in shard.parents if parent in listed}
                    if shard.shard_id not in self._begun and parents <= self._through:
                        task = group.create_task(self._shard(shard), name=f"mapping of {shard.shard_id}")
                        self._begun[shard.shard_id] = task
                await _either(self._stop, seconds=_LISTING_SECONDS)

    async def _shard(self, shard: Shard) -> None:
        """Read a shard to its end and divide it among lanes."""
        lanes = [_Lane(self, shard.shard_id) for _ in range(self.options.factor)]
        async with asyncio.TaskGroup() as group:
            for lane in lanes:
                group.create_task(lane.run(self._stop), name="lane")
            iterator: str | None = None
            behind: str | None = None
            while not self._stop.is_set():
                try:
                    iterator = iterator or await self._feed.iterator(shard.shard_id, behind)
                    records, iterator = await self._feed.read(iterator)
                except ReplicatorError:
                    iterator = None
                    await _either(self._stop, seconds=self.options.poll_seconds)
                    continue
                for record in records:
                    lanes[zlib.crc32(record.lane) % len(lanes)].add(record)
                    behind = record.sequence
                self.waiting += len(records)
                if iterator is None:
                    break
                while any(lane.is_full for lane in lanes) and not self._stop.is_set():
                    await _either(self._stop, seconds=self.options.poll_seconds)
                if not records:
                    await _either(self._stop, seconds=self.options.poll_seconds)
            for lane in lanes:
                lane.end()
        if not self._stop.is_set():
            self._through.add(shard.shard_id)

    # -- what lanes ask ------------------------------------------------------------------------------------------------

    async def call(self, records: Sequence[Fed]) -> int | None:
        """Invoke the function; how many records from the first on are through, None: it ended badly."""
        self.counts.invocations += 1
        event = {"Records": [record.event for record in records]}
        try:
            answer = await self._invoke(json.loads(json.dumps(event)))
            failed = [each["itemIdentifier"] for each in (answer or {}).get("batchItemFailures") or ()]
        except Exception:  # noqa: BLE001 - whatever it is, it is the function's
            self.counts.failed += 1
            return None
        if not self.options.reports_failures or not failed:
            return len(records)
        numbers = [record.sequence for record in records]
        self.counts.partial += 1
        if not all(each in numbers for each in failed):
            return 0
        return min(numbers.index(each) for each in failed)

    def passed(self, records: Sequence[Fed]) -> None:
        """Records are through."""
        self.waiting -= len(records)
        self.counts.records += len(records)

    def discard(self, records: Sequence[Fed], shard: ShardId, why: str) -> None:
        """Records are given up: the failure destination gets where they lie."""
        self.waiting -= len(records)
        self.counts.discarded += [record.sequence for record in records]
        batch = {
            "shardId": shard,
            "startSequenceNumber": records[0].sequence,
            "endSequenceNumber": records[-1].sequence,
            "approximateArrivalOfFirstRecord": _moment(records[0].created_at),
            "approximateArrivalOfLastRecord": _moment(records[-1].created_at),
            "batchSize": len(records),
            "streamArn": self._feed.arn,
        }
        info = "KinesisBatchInfo" if ":kinesis:" in self._feed.arn else "DDBStreamBatchInfo"
        now = _moment(self._clock.now())
        said = {"requestContext": {"condition": why}, "version": "1.0", "timestamp": now, info: batch}
        self.counts.destination.append(said)

    def old(self, records: Sequence[Fed]) -> list[Fed]:
        """Those that are older than the mapping keeps records."""
        oldest = self.options.oldest_seconds
        if oldest is None:
            return []
        return [record for record in records if 0 < record.created_at < self._clock.now() - oldest]


class _Lane:
    """Some keys of a shard: one invocation at a time."""

    def __init__(self, source: EventSource, shard: ShardId) -> None:
        self._source = source
        self._shard = shard
        self._waits: deque[Fed] = deque()
        self._bytes = _ENVELOPE_BYTES
        """Of an invocation with all that waits."""
        self._news = asyncio.Event()
        self._ended = False

    @property
    def is_full(self) -> bool:
        return len(self._waits) >= _LANE_HOLDS

    def add(self, record: Fed) -> None:
        self._waits.append(record)
        self._bytes += record.size
        self._news.set()

    def end(self) -> None:
        """Nothing more comes."""
        self._ended = True
        self._news.set()

    async def run(self, stop: asyncio.Event) -> None:
        while not stop.is_set():
            if self._waits:
                await self._window(stop)
                await self._bring(self._batch(), stop)
            elif self._ended:
                return
            else:
                self._news.clear()
                await _either(self._news, stop)

    async def _window(self, stop: asyncio.Event) -> None:
        """Wait until a batch is full, or the window behind its first record is over."""
        try:
            async with asyncio.timeout(self._source.options.window_seconds):
                while not (self._is_batch_full() or self._ended or stop.is_set()):
                    self._news.clear()
                    await _either(self._news, stop)
        except TimeoutError:
            return

    def _is_batch_full(self) -> bool:
        options = self._source.options
        return len(self._waits) >= options.batch_size or self._bytes > options.payload_bytes

    def _batch(self) -> list[Fed]:
        """As many as an invocation may hold: one at least, whatever its size."""
        options, size = self._source.options, _ENVELOPE_BYTES
        batch: list[Fed] = []
        while self._waits and len(batch) < options.batch_size:
            size += self._waits[0].size
            if batch and size > options.payload_bytes:
                break
            batch.append(self._waits.popleft())
            self._bytes -= batch[-1].size
        return batch

    async def _bring(self, batch: list[Fed], stop: asyncio.Event) -> None:
        """Call the function until a batch is through, or is given up."""
        source, options, tries = self._source, self._source.options, 0
        while batch and not stop.is_set():
            if old := source.old(batch):
                source.discard(old, self._shard, _AGE)
                batch = [record for record in batch if record not in old]
                continue
            done = await source.call(batch)
            if done:
                source.passed(batch[:done])
                batch, tries = batch[done:], 0
            if not batch:
                return
            tries += 1
            if done is None and options.bisects and len(batch) > 1:
                half = len(batch) // 2  # which is no retry
                await self._bring(batch[:half], stop)
                await self._bring(batch[half:], stop)
                return
            if options.most_retries is not None and tries > options.most_retries:
                source.discard(batch, self._shard, _RETRIES)
                return
            if not done:
                await _either(stop, seconds=min(_LONGEST_PAUSE_SECONDS, 0.1 * 2.0 ** min(tries, 10)))


async def _either(*events: asyncio.Event, seconds: float | None = None) -> None:
    """Wait for one of some events, or so long."""
    waiting = [asyncio.ensure_future(event.wait()) for event in events]
    try:
        await asyncio.wait(waiting, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for each in waiting:
            each.cancel()


def _moment(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
