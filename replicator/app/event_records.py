"""Records of events as an event source mapping sends them, from streams of tables and from Kinesis."""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping
from typing import Any

import msgspec

from replicator.adapters.dynamodb.stream_wire import parse_record
from replicator.adapters.kinesis.envelope import Delivered, place_in_stream
from replicator.domain.errors import MalformedRecord, WorldMismatch
from replicator.domain.identifiers import TableName
from replicator.domain.records import ChangeRecord, StreamRecord

_ENCODE = msgspec.json.Encoder().encode


def parts_of(arn: str) -> tuple[str, TableName, str]:
    """Region, table and label of a stream, from its ARN."""
    parts = arn.split(":", 5)
    names = parts[-1].split("/")
    if len(parts) != 6 or len(names) != 4 or (names[0], names[2]) != ("table", "stream"):  # noqa: PLR2004
        raise WorldMismatch(
            f"The event source {arn!r} is no stream of a DynamoDB table.", advice="Map streams of tables only."
        )
    return parts[3], TableName(names[1]), names[3]


def stream_record(event: Mapping[str, Any]) -> StreamRecord:
    """One record of an event: what a stream sends, but for times, which streams round down to whole seconds."""
    record = parse_record(_ENCODE(event))
    if isinstance(record, ChangeRecord):
        return msgspec.structs.replace(record, created_at=float(math.floor(record.created_at)))
    return record


def delivered(event: Mapping[str, Any]) -> Delivered:
    """One record of an event of Kinesis; `MalformedRecord` when it is none."""
    try:
        record = event["kinesis"]
        data = base64.b64decode(record["data"], validate=True)
        return Delivered(
            place_in_stream(str(record["sequenceNumber"])), data, float(record["approximateArrivalTimestamp"])
        )
    except (KeyError, TypeError, ValueError) as error:
        raise MalformedRecord(f"A record is not what Kinesis sends to a function ({error!r}).") from error
