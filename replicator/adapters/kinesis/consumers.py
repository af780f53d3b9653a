"""Consumers of Kinesis streams, to which shards are pushed: how they are made, found and removed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from botocore.exceptions import ClientError
from msgspec import Struct

from replicator.adapters.aws.errors import CLIENT_ERRORS, error_code, member, translate
from replicator.adapters.kinesis.destinations import stream_name
from replicator.domain.errors import ReplicatorError, StreamUnusable, WorldMismatch

if TYPE_CHECKING:
    from replicator.adapters.aws.clients import Place

ACTIVE = "ACTIVE"
_MOST_CONSUMERS = 20
_NOT_FOUND, _TOO_MANY, _IN_USE = "ResourceNotFoundException", "LimitExceededException", "ResourceInUseException"


class Consumer(Struct, frozen=True):
    """A consumer that is registered. `status` as Kinesis names it."""

    arn: str
    status: str


async def described(place: Place, stream_arn: str, name: str) -> Consumer | None:
    """A consumer of a stream; None when there is none of the name."""
    what = f"DescribeStreamConsumer on {name} of Kinesis stream {stream_name(stream_arn)} in {place.region_id}"
    client, _ = await place.kinesis.opened()
    try:
        answer = await client.describe_stream_consumer(StreamARN=stream_arn, ConsumerName=name)
    except ClientError as error:
        if error_code(error) == _NOT_FOUND:
            return None
        raise translate(error, what) from error
    except CLIENT_ERRORS as error:
        raise translate(error, what) from error
    found: Any = member(answer, "ConsumerDescription", what)
    return Consumer(str(member(found, "ConsumerARN", what)), str(member(found, "ConsumerStatus", what)))


def consumer_problem(found: Consumer | None, name: str, stream: str, region: str) -> ReplicatorError | None:
    """Why shards cannot be pushed to a consumer; None: they can."""
    if found is None:
        return StreamUnusable(
            f"Kinesis stream {stream} in {region} has no consumer {name}, which fan_out needs.",
            advice="`replicator init` registers it; without `fan_out` shards are polled.",
        )
    if found.status != ACTIVE:
        return StreamUnusable(
            f"Consumer {name} of Kinesis stream {stream} in {region} is {found.status}.",
            advice="Wait for it: it takes a minute."
            if found.status == "CREATING"
            else "Wait until it is gone, then run `replicator init`, which registers it again.",
        )
    return None


async def register(place: Place, stream_arn: str, name: str) -> None:
    """Make a consumer; one that is there is as good."""
    stream = stream_name(stream_arn)
    what = f"RegisterStreamConsumer {name} of Kinesis stream {stream} in {place.region_id}"
    client, _ = await place.kinesis.opened()
    try:
        await client.register_stream_consumer(StreamARN=stream_arn, ConsumerName=name)
    except ClientError as error:
        if error_code(error) == _IN_USE:
            return
        if error_code(error) == _TOO_MANY:
            raise WorldMismatch(
                f"Kinesis stream {stream} in {place.region_id} takes no more consumers: it may have {_MOST_CONSUMERS},"
                " and few that are being made at a time.",
                advice="Deregister one that is not needed or wait, and run `replicator init` again; or leave out"
                " `fan_out`, so that shards are polled.",
            ) from error
        raise translate(error, what) from error
    except CLIENT_ERRORS as error:
        raise translate(error, what) from error


async def deregister(place: Place, stream_arn: str, name: str) -> bool:
    """Remove a consumer; returns whether it was there."""
    what = f"DeregisterStreamConsumer {name} of Kinesis stream {stream_name(stream_arn)} in {place.region_id}"
    client, _ = await place.kinesis.opened()
    try:
        await client.deregister_stream_consumer(StreamARN=stream_arn, ConsumerName=name)
    except ClientError as error:
        if error_code(error) == _NOT_FOUND:
            return False
        raise translate(error, what) from error
    except CLIENT_ERRORS as error:
        raise translate(error, what) from error
    return True
