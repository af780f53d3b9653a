"""Where DynamoDB sends a table's changes: the Kinesis streams that are its destinations, and what is wrong with one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct

from replicator.adapters.aws.errors import CLIENT_ERRORS, member, translate
from replicator.domain.errors import StreamUnusable
from replicator.domain.identifiers import TableName
from replicator.domain.rules import KinesisSource

if TYPE_CHECKING:
    from replicator.adapters.aws.clients import Place

_WAYS = {
    "ACTIVE": "",
    "ENABLING": "It is being enabled: wait for it.",
    "UPDATING": "",
    "DISABLING": "Enable it again with `replicator init --enable-streams`.",
    "DISABLED": "Enable it again with `replicator init --enable-streams`.",
    "ENABLE_FAILED": "Look for the reason in DescribeKinesisStreamingDestination, and enable it again.",
}


class Destination(Struct, frozen=True):
    """One Kinesis stream that a table's changes go to, or went to. `precision` is empty where AWS does not name it."""

    stream_arn: str
    status: str
    precision: str = ""

    @property
    def name(self) -> str:
        """The stream's name."""
        return stream_name(self.stream_arn)


def stream_name(stream: str) -> str:
    """The name in an ARN; a name is itself."""
    return stream.rpartition(":stream/")[2]


async def destinations(place: Place, table: TableName) -> list[Destination]:
    """Every destination of a table."""
    what = f"DescribeKinesisStreamingDestination on {table} in {place.region_id}"
    try:
        answer = await place.dynamodb.describe_kinesis_streaming_destination(TableName=table)
    except CLIENT_ERRORS as error:
        raise translate(error, what) from error
    return [
        Destination(
            str(member(listed, "StreamArn", what)),
            str(member(listed, "DestinationStatus", what)),
            str(listed.get("ApproximateCreationDateTimePrecision", "")),
        )
        for listed in answer.get("KinesisDataStreamDestinations", [])
    ]


async def enable(place: Place, table: TableName, stream_arn: str) -> None:
    """Let a table's changes go to a stream, with times in microseconds."""
    what = f"EnableKinesisStreamingDestination on {table} in {place.region_id}"
    try:
        await place.dynamodb.enable_kinesis_streaming_destination(
            TableName=table,
            StreamArn=stream_arn,
            EnableKinesisStreamingConfiguration={"ApproximateCreationDateTimePrecision": "MICROSECOND"},
        )
    except CLIENT_ERRORS as error:
        raise translate(error, what) from error


def problem(found: list[Destination], table: TableName, region: str, source: KinesisSource) -> StreamUnusable | None:
    """What is wrong with a stream as the place where a table's changes are read; None: nothing."""
    name = source.name
    mine = [each for each in found if source.stream in {each.name, each.stream_arn}]
    if not mine:
        others = ", ".join(sorted(each.name for each in found))
        where = f"; it sends them to {others}" if others else ""
        return StreamUnusable(
            f"Table {table} in {region} does not send its changes to Kinesis stream {name}{where}.",
            advice="`replicator init --enable-streams` makes the stream a destination of the table.",
        )
    (destination, *_) = sorted(mine, key=lambda each: each.status != "ACTIVE")
    way = _WAYS.get(destination.status, "Enable it again with `replicator init --enable-streams`.")
    if way:
        return StreamUnusable(
            f"Kinesis stream {name} as a destination of table {table} in {region} is {destination.status}.", advice=way
        )
    if source.in_microseconds and destination.precision not in {"", "MICROSECOND"}:
        return StreamUnusable(
            f"Kinesis stream {name} gets the changes of table {table} in {region} with times in"
            f" {destination.precision.lower()}s, so two writes within one could end in the wrong one.",
            advice="Set the destination's ApproximateCreationDateTimePrecision to MICROSECOND"
            " (UpdateKinesisStreamingDestination), or accept it with `precision: millisecond`.",
        )
    return None
