"""Changes of items as DynamoDB sends them to Kinesis: the true envelope.

Invariant: nothing but binary values and their number of base64 layers differs from what the table's own stream holds.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any, Final, Literal

import msgspec

from replicator.laboratory.streamlab.changes import Change

Precision = Literal["MICROSECOND", "MILLISECOND", "unmarked"]
"""As the destination says it; `unmarked`: milliseconds without a word about it, as older destinations send them."""

_TTL: Final = {"type": "Service", "principalId": "dynamodb.amazonaws.com"}


def envelope(  # noqa: PLR0913 - one for each part that a change itself does not tell
    change: Change, *, table: str, region: str, event_id: str, micros: int, precision: Precision = "MICROSECOND"
) -> bytes:
    """The data of one Kinesis record."""
    is_exact = precision == "MICROSECOND"
    dynamodb: dict[str, Any] = {
        "ApproximateCreationDateTime": micros if is_exact else micros // 1000,
        "Keys": _doubled(change.keys),
        "SizeBytes": len(change.keys) + len(change.new) + len(change.old),
    }
    if precision != "unmarked":
        dynamodb["ApproximateCreationDateTimePrecision"] = precision
    if change.new:
        dynamodb["NewImage"] = _doubled(change.new)
    if change.old:
        dynamodb["OldImage"] = _doubled(change.old)
    return msgspec.json.encode(
        {
            "awsRegion": region,
            "eventID": event_id,
            "eventName": change.event,
            "userIdentity": _TTL if change.by_ttl else None,
            "recordFormat": "application/json",
            "tableName": table,
            "dynamodb": dynamodb,
            "eventSource": "aws:dynamodb",
        }
    )


def _doubled(item: bytes) -> dict[str, Any]:
    return {name: _twice(typed) for name, typed in msgspec.json.decode(item).items()}


def _twice(typed: Mapping[str, Any]) -> dict[str, Any]:
    ((kind, value),) = typed.items()
    match kind:
        case "B":
            return {kind: _again(value)}
        case "BS":
            return {kind: [_again(each) for each in value]}
        case "L":
            return {kind: [_twice(each) for each in value]}
        case "M":
            return {kind: {name: _twice(each) for name, each in value.items()}}
    return dict(typed)


def _again(text: str) -> str:
    return base64.b64encode(text.encode()).decode()
