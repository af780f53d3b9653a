"""An event source mapping: reads a table's stream and calls a function with batches, as AWS Lambda does.

Per shard there are as many lanes as the parallelisation factor says, a key is always in the same lane, and a lane has
one invocation at a time. What an answer reports as failed comes again from the lowest number on; an invocation that
ends badly comes again as a whole. Records that were tried too often, or are too old, go to the failure destination.
Shards begin when their parents are through. Invariant: nothing else is left out, and no lane changes its order.
"""

from __future__ import annotations

import asyncio
import base64
import json
import zlib
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from replicator.adapters.dynamodb.streams import DynamoStreams, whole_listing
from replicator.domain.errors import ReplicatorError
from replicator.domain.identifiers import ShardId
from replicator.domain.progress import HORIZON, after
from replicator.domain.records import ChangeRecord, StreamRecord, UnreadRecord
from replicator.domain.shards.leases import StreamRef
from replicator.domain.shards.lineage import Shard
from replicator.ports.clock import Clock

Event = Mapping[str, Any]
Invoke = Callable[[Event], Awaitable[Any]]
"""Calls the function; raises when the invocation ended badly."""

_TTL = {"type": "Service", "principalId": "dynamodb.amazonaws.com"}
_PAGE = 1000
_LISTING_SECONDS = 1.0
_LONGEST_PAUSE_SECONDS = 5.0
_LANE_HOLDS = 10_000
"""Records that wait in a lane at most; then the shard is not read on."""


class Handler(Protocol):
    """One process of a function, in this process."""

    def handle(self, event: Event, milliseconds: int) -> Any:
        """The answer to an event."""

    def close(self) -> None:
        """End it."""


class Handlers:
    """As many processes of a function as there are invocations at once, each in a thread."""

    def __init__(self, make: Callable[[], Handler], milliseconds: int) -> None:
        self._make = make
        self._milliseconds = milliseconds
        self._idle: list[Handler] = []
        self._all: list[Handler] = []

    async def invoke(self, event: Event) -> Any:
        """Call one that is idle; a new one when none is."""
        if not self._idle:
            self._idle.append(self._make())
            self._all.append(self._idle[-1])
        handler = self._idle.pop()
        try:
            return await asyncio.to_thread(handler.handle, event, self._milliseconds)
        finally:
            self._idle.append(handler)

    async def close(self) -> None:
        """End all of them, when nothing is invoked any more."""
        for handler in self._all:
            await asyncio.to_thread(handler.close)


@dataclass(frozen=True, slots=True)
class MappingOptions:
    """The choices of a mapping, by AWS's names and with its limits where they matter. None: without an end."""

    batch_size: int = 100
    window_seconds: float = 0.0
    factor: int = 1
    reports_failures: bool = True
    bisects: bool = False
    most_retries: int | None = None
    oldest_seconds: float | None = None
    poll_seconds: float = 0.2


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
    discarded: list[str] = field(default_factory=list)
    """Sequence numbers that went to the failure destination."""


class EventSource:
    """One mapping between one stream and one function."""

    def __init__(  # noqa: PLR0913, PLR0917 - its collaborators, given once
        self,
        streams: DynamoStreams,
        stream: StreamRef,
        aws_region: str,
        invoke: Invoke,
        clock: Clock,
        options: MappingOptions,
    ) -> None:
        self._streams = streams
        self._stream = stream
        self._aws_region = aws_region
        self._invoke = invoke
        self._clock = clock
        self._options = options
        self._stop = asyncio.Event()
        self._begun: dict[ShardId, asyncio.Task[None]] = {}
        self._through: set[ShardId] = set()
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
                    shards = await whole_listing(self._streams, self._stream)
                except ReplicatorError:
                    shards = []
                listed = {shard.shard_id for shard in shards}
                for shard in shards:
                    parents = {parent for parent in shard.parents if parent in listed}
                    if shard.shard_id not in self._begun and parents <= self._through:
                        task = group.create_task(self._shard(shard), name=f"mapping of {shard.shard_id}")
                        self._begun[shard.shard_id] = task
                await self._pause(_LISTING_SECONDS)

    async def _pause(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._stop.wait()
        except TimeoutError:
            return

    async def _shard(self, shard: Shard) -> None:
        """Read a shard to its end and divide it among lanes."""
        lanes = [_Lane(self, shard.shard_id) for _ in range(self._options.factor)]
        async with asyncio.TaskGroup() as group:
            for lane in lanes:
                group.create_task(lane.run(self._stop), name="lane")
            iterator: str | None = None
            place = HORIZON
            while not self._stop.is_set():
                try:
                    iterator = iterator or await self._streams.iterator(self._stream, shard.shard_id, place)
                    page = await self._streams.read(iterator, _PAGE)
                except ReplicatorError:
                    iterator = None
                    await self._pause(self._options.poll_seconds)
                    continue
                for record in page.records:
                    lane = lanes[zlib.crc32(_key(record)) % len(lanes)]
                    lane.add(record)
                    place = after(record.sequence)
                self.waiting += len(page.records)
                iterator = page.next_iterator
                if iterator is None:
                    break
                while any(lane.is_full for lane in lanes) and not self._stop.is_set():
                    await self._pause(self._options.poll_seconds)
                if not page.records:
                    await self._pause(self._options.poll_seconds)
            for lane in lanes:
                lane.end()
        if not self._stop.is_set():
            self._through.add(shard.shard_id)

    # -- what lanes ask ------------------------------------------------------------------------------------------------

    @property
    def options(self) -> MappingOptions:
        """The choices of the mapping."""
        return self._options

    async def call(self, records: Sequence[StreamRecord]) -> int | None:
        """Invoke the function; how many records from the first on are through, None: it ended badly."""
        self.counts.invocations += 1
        event = {"Records": [event_of(record, self._stream.arn, self._aws_region) for record in records]}
        try:
            answer = await self._invoke(json.loads(json.dumps(event)))
            failed = [each["itemIdentifier"] for each in (answer or {}).get("batchItemFailures") or ()]
        except Exception:  # noqa: BLE001 - whatever it is, it is the function's
            self.counts.failed += 1
            return None
        if not self._options.reports_failures or not failed:
            return len(records)
        numbers = [record.sequence for record in records]
        self.counts.partial += 1
        if not all(each in numbers for each in failed):
            return 0
        return min(numbers.index(each) for each in failed)

    def passed(self, records: Sequence[StreamRecord], *, discarded: bool = False) -> None:
        """Records are through, or go to the failure destination."""
        self.waiting -= len(records)
        if discarded:
            self.counts.discarded += [record.sequence for record in records]
        else:
            self.counts.records += len(records)

    def is_old(self, record: StreamRecord) -> bool:
        """Whether a record is older than the mapping keeps it."""
        oldest = self._options.oldest_seconds
        return oldest is not None and 0 < record.created_at < self._clock.now() - oldest


class _Lane:
    """Some keys of a shard: one invocation at a time."""

    def __init__(self, source: EventSource, shard: ShardId) -> None:
        self._source = source
        self._shard = shard
        self._waits: deque[StreamRecord] = deque()
        self._news = asyncio.Event()
        self._ended = False

    @property
    def is_full(self) -> bool:
        return len(self._waits) >= _LANE_HOLDS

    def add(self, record: StreamRecord) -> None:
        self._waits.append(record)
        self._news.set()

    def end(self) -> None:
        """Nothing more comes."""
        self._ended = True
        self._news.set()

    async def run(self, stop: asyncio.Event) -> None:
        options = self._source.options
        while not stop.is_set():
            if not self._waits:
                if self._ended:
                    return
                self._news.clear()
                await _either(self._news, stop)
                continue
            if options.window_seconds and len(self._waits) < options.batch_size and not self._ended:
                await _either(stop, seconds=options.window_seconds)
            batch = [self._waits.popleft() for _ in range(min(options.batch_size, len(self._waits)))]
            await self._bring(batch, stop)

    async def _bring(self, batch: list[StreamRecord], stop: asyncio.Event) -> None:
        """Call the function until a batch is through, or is given up."""
        source, options, tries = self._source, self._source.options, 0
        while batch and not stop.is_set():
            old = [record for record in batch if source.is_old(record)]
            if old:
                source.passed(old, discarded=True)
                batch = [record for record in batch if not source.is_old(record)]
                continue
            done = await source.call(batch)
            if done:
                source.passed(batch[:done])
                batch, tries = batch[done:], 0
            if not batch:
                return
            tries += 1
            if done is None and options.bisects and len(batch) > 1:
                half = len(batch) // 2
                await self._bring(batch[:half], stop)
                await self._bring(batch[half:], stop)
                return
            if options.most_retries is not None and tries > options.most_retries:
                source.passed(batch, discarded=True)
                return
            if not done:
                await _either(stop, seconds=min(_LONGEST_PAUSE_SECONDS, 0.1 * 2.0**tries))


async def _either(*events: asyncio.Event, seconds: float | None = None) -> None:
    """Wait for one of some events, or so long."""
    waiting = [asyncio.ensure_future(event.wait()) for event in events]
    try:
        await asyncio.wait(waiting, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for each in waiting:
            each.cancel()


def _key(record: StreamRecord) -> bytes:
    return record.key.wire if isinstance(record, ChangeRecord) else b""


def event_of(record: StreamRecord, arn: str, aws_region: str) -> dict[str, Any]:
    """A record as it stands in an event; times are exact to the second, as the stream's are."""
    head = {"eventSource": "aws:dynamodb", "eventSourceARN": arn, "awsRegion": aws_region, "eventVersion": "1.1"}
    head["eventID"] = base64.b16encode(record.sequence.encode()).decode().lower()[:32]
    if not isinstance(record, ChangeRecord):
        assert isinstance(record, UnreadRecord), "streams of tables hold no others"
        raw: dict[str, Any] = json.loads(record.raw)
        return raw | head
    images = {"NewImage": record.new, "OldImage": record.old}
    change: dict[str, Any] = {name: json.loads(image.wire) for name, image in images.items() if image is not None}
    change["Keys"] = json.loads(record.key.wire)
    change |= {"SequenceNumber": record.sequence, "StreamViewType": "NEW_AND_OLD_IMAGES"}
    change["ApproximateCreationDateTime"] = record.created_at
    made_by = {"userIdentity": _TTL} if record.by_ttl else {}
    return {**head, "eventName": record.event.value, "dynamodb": change, **made_by}
