"""Where a rule reads the changes of its source: one choice between the kinds of streams, for all that read one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from replicator.adapters.dynamodb.streams import DynamoStreams
from replicator.adapters.kinesis.streams import KinesisStreams, kinesis_arn
from replicator.domain.rules import KinesisSource

if TYPE_CHECKING:
    from replicator.adapters.aws.clients import Place
    from replicator.domain.shards.leases import StreamRef
    from replicator.ports.sources import Stream


def stream_of(place: Place, source: KinesisSource | None) -> Stream:
    """The streams that a rule reads in a region; None: those of the tables themselves."""
    return DynamoStreams(place) if source is None else KinesisStreams(place, source)


def stream_behind(place: Place, stream: StreamRef) -> Stream:
    """What a stream that is known is read by, whatever rules say of it now."""
    arn = kinesis_arn(stream)
    return DynamoStreams(place) if not arn else KinesisStreams(place, KinesisSource(arn, in_microseconds=False))
