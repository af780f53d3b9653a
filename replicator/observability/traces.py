"""Traces: a span per page that was read, per batch that was applied, and per call of a cache or a sink.

Decorators around ports, which change nothing of what passes. A batch is applied behind its pages, many at a time, so it
has no parent: it links to the reads that brought its records. Attributes name rules, targets, tables and shards, and
count; no key and no value is among them. Only a process with a collector configured pays for this, or imports it.
"""

from __future__ import annotations

import time
from collections import OrderedDict, deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from opentelemetry.trace import Link, Span, SpanContext, SpanKind, StatusCode, Tracer

from replicator.domain.cache_keys import CacheAction
from replicator.domain.errors import ReplicatorError
from replicator.domain.identifiers import SequenceNumber, ShardId, TableName
from replicator.domain.item_events import EventShape, ItemEvent
from replicator.domain.progress import Position
from replicator.domain.shards.leases import StreamRef
from replicator.domain.shards.lineage import Shard
from replicator.ports.events import BatchReport
from replicator.ports.sources import RecordPage, ShardPage, Stream
from replicator.ports.targets import Cache, CacheAnswer, CacheFill, Fence, Sink

_ITERATORS_KEPT = 4096
"""Iterators whose shard is remembered: more than a worker reads shards."""

_READS_KEPT = 16
"""Reads of a shard that a batch may link to: a target that is far behind links to the last ones."""

_NANOSECONDS = 1_000_000_000

_ShardOf = tuple[str, ShardId]
"""The ARN of a stream and a shard of it."""


@dataclass(slots=True)
class _Reads:
    """Reads of a shard, the newest last, and up to where each target linked to them."""

    contexts: deque[tuple[int, SpanContext]] = field(default_factory=lambda: deque(maxlen=_READS_KEPT))
    count: int = 0
    linked: dict[str, int] = field(default_factory=dict)

    def since(self, target: str) -> list[SpanContext]:
        """What was read since a target's last batch."""
        before = self.linked.get(target, 0)
        self.linked[target] = self.count
        return [context for number, context in self.contexts if number > before]


class Traces:
    """What makes spans of one process."""

    def __init__(self, tracer: Tracer) -> None:
        self._tracer = tracer
        self._reads: OrderedDict[_ShardOf, _Reads] = OrderedDict()

    def stream(self, stream: Stream) -> Stream:
        """A stream whose pages have spans."""
        return TracedStream(stream, self)

    def cache(self, name: str, cache: Cache) -> Cache:
        """A cache whose batches have spans."""
        return TracedCache(name, cache, self)

    def sink(self, name: str, sink: Sink) -> Sink:
        """A sink whose calls have spans."""
        return TracedSink(name, sink, self)

    @contextmanager
    def span(self, name: str, kind: SpanKind, **attributes: str | int) -> Iterator[Span]:
        """A span around a call; an error is recorded by its kind alone, because its text may name a key."""
        span = self._tracer.start_span(name, kind=kind, attributes=_named(attributes))
        try:
            yield span
        except ReplicatorError as error:
            span.set_status(StatusCode.ERROR, type(error).__name__)
            raise
        finally:
            span.end()

    def was_read(self, shard: _ShardOf, began: int, page: RecordPage) -> None:
        """Note a page with records: its span is made now, since empty pages have none."""
        attributes = _named({"stream": shard[0], "shard": shard[1], "records": len(page.records)})
        span = self._tracer.start_span("read", kind=SpanKind.CONSUMER, attributes=attributes, start_time=began)
        span.end()
        reads = self._reads.setdefault(shard, _Reads())
        self._reads.move_to_end(shard)
        if len(self._reads) > _ITERATORS_KEPT:
            self._reads.popitem(last=False)
        reads.count += 1
        if span.get_span_context().trace_flags.sampled:
            reads.contexts.append((reads.count, span.get_span_context()))

    def applied(self, report: BatchReport) -> None:
        """Note a batch that is durable at a target, with links to the reads of its records."""
        place, now = report.place, time.time_ns()
        reads = self._reads.get((place.stream.arn, place.shard_id))
        contexts = [] if reads is None else reads.since(str(place.target.target_id))
        span = self._tracer.start_span(
            "apply",
            kind=SpanKind.INTERNAL,
            links=[Link(context) for context in contexts],
            start_time=now - int(report.took_seconds * _NANOSECONDS),
            attributes=_named(
                {
                    "rule": place.target.rule,
                    "target": str(place.target.target_id),
                    "stream": place.stream.arn,
                    "shard": place.shard_id,
                    "records": report.records,
                    "changes": report.changes,
                    "cache_actions": report.cache_actions,
                    "retries": report.retries,
                    "parked": report.parked,
                }
            ),
        )
        span.end(now)


def _named(attributes: dict[str, str | int]) -> dict[str, str | int]:
    return {f"replicator.{name}": value for name, value in attributes.items()}


class TracedStream:
    """A stream, with a span for every page that has records."""

    def __init__(self, stream: Stream, traces: Traces) -> None:
        self._stream = stream
        self._traces = traces
        self._shards: OrderedDict[str, _ShardOf] = OrderedDict()
        """What iterators are of."""

    async def current(self, table: TableName) -> StreamRef:
        """As the stream says."""
        return await self._stream.current(table)

    async def streams(self, table: TableName) -> list[StreamRef]:
        """As the stream says."""
        return await self._stream.streams(table)

    def reads(self, stream: StreamRef) -> bool:
        """As the stream says."""
        return self._stream.reads(stream)

    def kept_seconds(self, stream: StreamRef) -> float | None:
        """As the stream says."""
        return self._stream.kept_seconds(stream)

    async def shows_images(self, stream: StreamRef) -> bool:
        """As the stream says."""
        return await self._stream.shows_images(stream)

    async def shard_page(self, stream: StreamRef, after: ShardId | None) -> ShardPage:
        """As the stream says."""
        return await self._stream.shard_page(stream, after)

    async def children(self, stream: StreamRef, parent: ShardId) -> list[Shard] | None:
        """As the stream says."""
        return await self._stream.children(stream, parent)

    async def iterator(
        self, stream: StreamRef, shard_id: ShardId, position: Position, first: SequenceNumber | None = None
    ) -> str:
        """As the stream says; the iterator's shard is remembered."""
        iterator = await self._stream.iterator(stream, shard_id, position, first)
        self._remember(iterator, (stream.arn, shard_id))
        return iterator

    async def read(self, iterator: str, limit: int) -> RecordPage:
        """The next page, with a span when it has records."""
        began = time.time_ns()
        page = await self._stream.read(iterator, limit)
        shard = self._shards.pop(iterator, None)
        if shard is not None:
            if page.next_iterator is not None:
                self._remember(page.next_iterator, shard)
            if page.records:
                self._traces.was_read(shard, began, page)
        return page

    def _remember(self, iterator: str, shard: _ShardOf) -> None:
        self._shards[iterator] = shard
        if len(self._shards) > _ITERATORS_KEPT:
            self._shards.popitem(last=False)


class TracedCache:
    """A cache, with a span for every batch."""

    def __init__(self, name: str, cache: Cache, traces: Traces) -> None:
        self._name = name
        self._cache = cache
        self._traces = traces

    async def apply(self, actions: Sequence[CacheAction]) -> CacheAnswer:
        """Carry the actions out."""
        with self._traces.span("cache", SpanKind.CLIENT, cache=self._name, actions=len(actions)) as span:
            answer = await self._cache.apply(actions)
            span.set_attributes(_named({"changed": answer.changed, "refused": len(answer.refused)}))
            return answer

    async def fill(self, fills: Sequence[CacheFill]) -> int:
        """As the cache says."""
        return await self._cache.fill(fills)

    async def heads(self, keys: Sequence[str]) -> list[bytes]:
        """As the cache says."""
        return await self._cache.heads(keys)


class TracedSink:
    """A sink, with a span for every call."""

    def __init__(self, name: str, sink: Sink, traces: Traces) -> None:
        self._name = name
        self._sink = sink
        self._traces = traces

    @property
    def shape(self) -> EventShape:
        """As the sink says."""
        return self._sink.shape

    @property
    def most(self) -> int:
        """As the sink says."""
        return self._sink.most

    @property
    def at_once(self) -> int:
        """As the sink says."""
        return self._sink.at_once

    async def send(self, events: Sequence[ItemEvent], fences: Sequence[Fence] = ()) -> Sequence[ReplicatorError | None]:
        """Send events."""
        with self._traces.span("send", SpanKind.PRODUCER, sink=self._name, events=len(events)) as span:
            answers = await self._sink.send(events, fences)
            span.set_attributes(_named({"refused": sum(answer is not None for answer in answers)}))
            return answers
