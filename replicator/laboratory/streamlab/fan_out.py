"""Enhanced fan-out of the laboratory's Kinesis: consumers of streams, and subscriptions to shards.

As on AWS: one subscription per consumer and shard; a second one is refused for a while and takes over then; each lives
for five minutes; the last event of a shard names its children, and no place to go on at.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import count
from typing import Any, Final

import msgspec

from replicator.laboratory.streamlab.counters import Counters, Reading
from replicator.laboratory.streamlab.event_stream import event, exception
from replicator.laboratory.streamlab.options import Options
from replicator.laboratory.streamlab.refusals import ServiceError
from replicator.laboratory.streamlab.shard import LabShard
from replicator.laboratory.streamlab.stream import LabStream
from replicator.laboratory.streamlab.tables import LabClock

_MOST_CONSUMERS: Final = 20
_MOST_RECORDS, _MOST_BYTES = 1000, 1024 * 1024
_IN_USE, _NOT_FOUND, _WRONG = "ResourceInUseException", "ResourceNotFoundException", "InvalidArgumentException"


class Position(msgspec.Struct):
    """Where a subscription begins."""

    Type: str = ""
    SequenceNumber: str | None = None
    Timestamp: float = 0.0


@dataclass(slots=True, eq=False)
class Consumer:
    """A consumer of a stream."""

    name: str
    arn: str
    stream: LabStream
    created_at: float

    def status(self, now: float, creating_seconds: float) -> str:
        """As Kinesis names it."""
        return "ACTIVE" if now - self.created_at >= creating_seconds else "CREATING"


@dataclass(slots=True, eq=False)
class Subscription:
    """One consumer's subscription to one shard; `place` is what it sends next."""

    consumer: Consumer
    shard: LabShard
    place: int
    began_at: float
    reader: int
    from_horizon: bool
    caller: str
    sent_at: float = float("-inf")


@dataclass(frozen=True, slots=True)
class Sent:
    """What goes out next; `over`: nothing follows."""

    message: bytes = b""
    reading: Reading | None = None
    over: bool = False


@dataclass(slots=True)
class FanOut:
    """All consumers and subscriptions."""

    clock: LabClock
    options: Options
    counters: Counters
    consumers: dict[str, Consumer] = field(default_factory=dict)
    """By ARN."""
    subscriptions: dict[tuple[str, str], Subscription] = field(default_factory=dict)
    """The present ones, by consumer and shard."""
    _readers: Any = field(default_factory=lambda: count(-1, -1))

    # -- consumers -----------------------------------------------------------------------------------------------------

    def of(self, stream: LabStream, name: str) -> Consumer | None:
        """A consumer of a stream by its name."""
        return next((each for each in self.consumers.values() if (each.stream, each.name) == (stream, name)), None)

    def register(self, stream: LabStream, name: str) -> dict[str, Any]:
        """RegisterStreamConsumer."""
        if self.of(stream, name) is not None:
            raise ServiceError(_IN_USE, f"Consumer {name} of stream {stream.label} exists.")
        if sum(each.stream is stream for each in self.consumers.values()) >= _MOST_CONSUMERS:
            raise ServiceError("LimitExceededException", f"Stream {stream.label} has {_MOST_CONSUMERS} consumers.")
        now = self.clock.now()
        made = Consumer(name, f"{stream.arn}/consumer/{name}:{int(now)}", stream, now)
        self.consumers[made.arn] = made
        return {"Consumer": self._shown(made)}

    def found(self, stream: LabStream | None, name: str, arn: str) -> Consumer:
        """The consumer of an ARN, or of a stream and a name."""
        known = self.consumers.get(arn) if stream is None else self.of(stream, name)
        if known is None or known.stream.closed_at is not None:
            raise ServiceError(_NOT_FOUND, f"There is no consumer {name or arn}.")
        return known

    def describe(self, consumer: Consumer) -> dict[str, Any]:
        """DescribeStreamConsumer."""
        return {"ConsumerDescription": self._shown(consumer) | {"StreamARN": consumer.stream.arn}}

    def deregister(self, consumer: Consumer) -> dict[str, Any]:
        """DeregisterStreamConsumer: its subscriptions end."""
        del self.consumers[consumer.arn]
        return {}

    def _shown(self, consumer: Consumer) -> dict[str, Any]:
        return {
            "ConsumerName": consumer.name,
            "ConsumerARN": consumer.arn,
            "ConsumerStatus": consumer.status(self.clock.now(), self.options.consumer_seconds),
            "ConsumerCreationTimestamp": int(consumer.created_at),
        }

    # -- subscriptions -------------------------------------------------------------------------------------------------

    def subscribe(self, consumer: Consumer, shard: LabShard, place: int, kind: str, caller: str) -> Subscription:
        """SubscribeToShard: the subscription, which takes over from one that is there."""
        now, key = self.clock.now(), (consumer.arn, shard.shard_id)
        if consumer.status(now, self.options.consumer_seconds) != "ACTIVE":
            raise ServiceError(_IN_USE, f"Consumer {consumer.name} is not ACTIVE.")
        present = self.subscriptions.get(key)
        if present is not None and now - present.began_at < self.options.takeover_seconds:
            raise ServiceError(_IN_USE, f"Another active subscription exists for shard {shard.shard_id}.")
        begins = kind in {"TRIM_HORIZON", "AT_SEQUENCE_NUMBER"}
        made = Subscription(consumer, shard, place, now, next(self._readers), begins, caller)
        self.subscriptions[key] = made
        return made

    def next(self, own: Subscription) -> Sent | None:
        """What a subscription sends now; None: nothing yet."""
        now, shard, stream = self.clock.now(), own.shard, own.consumer.stream
        if own.consumer.arn not in self.consumers or stream.closed_at is not None:
            return Sent(exception(_NOT_FOUND, "The consumer or its stream is gone."), over=True)
        if self.subscriptions.get((own.consumer.arn, shard.shard_id)) is not own:
            return Sent(exception(_IN_USE, f"Another subscription to {shard.shard_id} took over."), over=True)
        if now - own.began_at >= self.options.subscription_seconds:
            return Sent(over=True)
        start = max(own.place, shard.trimmed)
        page = shard.page(start, _MOST_RECORDS, _MOST_BYTES)
        stop = start + len(page)
        ended = not shard.is_open and stop == shard.total
        if not page and not ended and now - own.sent_at < self.options.heartbeat_seconds:
            return None
        own.place, own.sent_at = stop, now
        behind = 0 if stop == shard.total else max(1, round((now - shard.times[stop - shard.trimmed]) * 1000))
        parts = [b'{"Records":[', b",".join(page), b'],"MillisBehindLatest":%d' % behind]
        if ended:
            parts.append(b',"ChildShards":' + msgspec.json.encode(_children(stream, shard)))
        else:
            number = (
                shard.numbers[stop - shard.trimmed - 1] if stop > shard.trimmed else max(shard.first, shard.horizon)
            )
            parts.append(b',"ContinuationSequenceNumber":"%d"' % number)
        parts.append(b"}")
        reading = Reading(own.caller, stream, shard, own.reader, own.from_horizon, start, stop, ended)
        self.counters.reading(reading)
        return Sent(event("SubscribeToShardEvent", b"".join(parts)), reading, over=ended)

    def leave(self, own: Subscription) -> None:
        """A subscription is over; how long ago it began counts on for the next one."""
        key = own.consumer.arn, own.shard.shard_id
        if self.subscriptions.get(key) is own and self.clock.now() - own.began_at >= self.options.takeover_seconds:
            del self.subscriptions[key]


def _children(stream: LabStream, shard: LabShard) -> list[dict[str, Any]]:
    listed = [stream.shards[name] for name in stream.children.get(shard.shard_id, []) if name in stream.shards]
    return [
        {
            "ShardId": child.shard_id,
            "ParentShards": list(child.parents),
            "HashKeyRange": {"StartingHashKey": str(child.low << 64), "EndingHashKey": str((child.high << 64) - 1)},
        }
        for child in listed
    ]
