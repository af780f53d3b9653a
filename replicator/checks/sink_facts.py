"""Facts about sinks of events: whether they are there, let events in, and keep the order of an item's events."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, assert_never

from replicator.adapters.sinks.aws import AwsSink
from replicator.adapters.sinks.aws_services import SERVICES
from replicator.adapters.sinks.opening import shown, sinks_of
from replicator.adapters.sinks.oversize import BucketOfData
from replicator.adapters.sinks.redis_stream import RedisStreamSink
from replicator.adapters.sinks.webhook import WebhookSink
from replicator.checks.facts import Fact, failed, ok, warning, wrong
from replicator.domain.errors import ReplicatorError

if TYPE_CHECKING:
    from replicator.adapters.sinks.aws_looks import Look
    from replicator.adapters.sinks.opening import SinkId
    from replicator.ports.targets import Sink
    from replicator.settings import Settings

_FREE = frozenset({"none", "stream"})


async def sink_facts(settings: Settings, sinks: Mapping[SinkId, Sink]) -> list[Fact]:
    """Everything about every sink that is opened; no event is sent."""
    wanted = sinks_of(settings)
    each_once = {id(sink): (name, sink) for name, sink in sinks.items()}
    found = await asyncio.gather(
        *(_facts(sink, wanted[name].to, f"sink {shown(wanted[name], name[1])}") for name, sink in each_once.values())
    )
    return [*_from_kinesis(settings), *(fact for facts in found for fact in facts)]


def _from_kinesis(settings: Settings) -> Iterator[Fact]:
    for rule in settings.rules:
        if rule.events and rule.streams:
            yield warning(
                f"rule {rule.name}", "order of events",
                f"Rule {rule.name} reads a Kinesis stream: a change that comes later than its `reorder` is sent behind"
                " later ones.",
                "Compare the time of events, exact to a microsecond; replicator_late_events_total counts them.",
            )  # fmt: skip


async def _facts(sink: Sink, to: str, subject: str) -> list[Fact]:
    assert isinstance(sink, AwsSink | RedisStreamSink | WebhookSink), "those are all that are opened"
    facts = [] if sink.objects is None else [await _bucket(sink.objects, subject)]
    try:
        match sink:
            case AwsSink():
                return [*_judged(await sink.look(), to, subject, stores=bool(facts)), *facts]
            case RedisStreamSink():
                return [_key(await sink.held(), subject), *facts]
            case WebhookSink():
                await sink.reached()
                return [ok(subject, "answers", "No event was sent to it."), *facts]
            case _:
                assert_never(sink)
    except ReplicatorError as error:
        return [failed(subject, "answers", error), *facts]


async def _bucket(objects: BucketOfData, subject: str) -> Fact:
    try:
        await objects.look()
    except ReplicatorError as error:
        return failed(subject, "oversize", error)
    return ok(subject, "oversize", f"Data that is too long goes to {objects.shown}; nothing was written there.")


def _judged(found: Look, to: str, subject: str, *, stores: bool) -> Iterator[Fact]:
    if found.trouble:
        yield wrong(subject, "exists", f"The {subject} {found.trouble}.", "Wait until it is ACTIVE.")
        return
    yield ok(subject, "exists", "Sending to it is not denied; no event was sent.")
    if not found.ordered:
        yield warning(
            subject, "order", f"The {subject} keeps no order, so events of an item may arrive in any.",
            "Compare time and id at the consumer, or use a queue or topic whose name ends in .fifo, or a stream.",
        )  # fmt: skip
    longest = SERVICES[to].event_bytes
    if found.longest is not None and found.longest < longest:
        yield warning(
            subject, "size", f"The {subject} takes {found.longest:,} bytes at most; longer events are parked.",
            f"Raise its MaximumMessageSize, or {'set oversize.above' if stores else 'let it show fewer attributes'}.",
        )  # fmt: skip


def _key(held: str, subject: str) -> Fact:
    if held in _FREE:
        return ok(subject, "exists", "It does not exist yet; the first event creates it." if held == "none" else "")
    return wrong(subject, "exists", f"The key of the {subject} holds a {held}, no stream.", "Name another key.")
