"""How each service of AWS takes events: its operation, its bounds, its entries, and what it answers about each.

One entry a service. FIFO queues and topics keep the order of a group, which is the item's key, and drop what has an id
that they had within five minutes. Nothing here knows how calls are made.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from msgspec import Struct

from replicator.adapters.sinks.encoding import Encoded
from replicator.domain.item_events import CONTENT_TYPE

_KIB, _MIB = 1024, 1024 * 1024
_ATTRIBUTE_BYTES = _KIB
"""Room for what goes beside a body, which counts as well."""


class Failure(Struct, frozen=True):
    """What a service says about one entry. `of_sender`: it would say the same again."""

    code: str
    reason: str
    of_sender: bool = False


class Service(Struct, frozen=True):
    """One service.

    `request` takes the address and the entries, `failures` the answer and how many entries there were; it returns one
    failure or None per entry. `probe` is the operation that shows whether the place exists, and its arguments.
    """

    client: str
    operation: str
    action: str
    most: int
    event_bytes: int
    call_bytes: int
    at_once: int
    request: Callable[[str, Sequence[Encoded]], dict[str, Any]]
    failures: Callable[[Mapping[str, Any], int], list[Failure | None]]
    ending: bytes = b""


def _attributes(each: Encoded) -> dict[str, Any]:
    return {
        "content-type": {"DataType": "String", "StringValue": CONTENT_TYPE},
        "type": {"DataType": "String", "StringValue": each.event.type},
    }


def _group(address: str, each: Encoded) -> dict[str, str]:
    if not address.endswith(".fifo"):
        return {}
    return {"MessageGroupId": each.event.partition_key, "MessageDeduplicationId": each.event.digest}


def _to_sqs(address: str, part: Sequence[Encoded]) -> dict[str, Any]:
    entries = [
        {"Id": str(n), "MessageBody": each.body.decode(), "MessageAttributes": _attributes(each)}
        | _group(address, each)
        for n, each in enumerate(part)
    ]
    return {"QueueUrl": address, "Entries": entries}


def _to_sns(address: str, part: Sequence[Encoded]) -> dict[str, Any]:
    entries = [
        {"Id": str(n), "Message": each.body.decode(), "MessageAttributes": _attributes(each)} | _group(address, each)
        for n, each in enumerate(part)
    ]
    return {"TopicArn": address, "PublishBatchRequestEntries": entries}


def _by_id(answer: Mapping[str, Any], count: int) -> list[Failure | None]:
    """Entries are named: what is in neither list did not answer."""
    found: list[Failure | None] = [Failure("", "it was not answered") for _ in range(count)]
    for each in answer.get("Successful") or ():
        found[int(each["Id"])] = None
    for each in answer.get("Failed") or ():
        found[int(each["Id"])] = Failure(each.get("Code", ""), each.get("Message", ""), each.get("SenderFault", False))
    return found


def _to_eventbridge(address: str, part: Sequence[Encoded]) -> dict[str, Any]:
    entries = [
        {
            "Source": "replicator",
            "DetailType": each.event.type,
            "Detail": each.body.decode(),
            "Resources": [each.event.source],
            "EventBusName": address,
        }
        | ({} if each.event.moment is None else {"Time": each.event.moment})
        for each in part
    ]
    return {"Entries": entries}


def _to_kinesis(address: str, part: Sequence[Encoded]) -> dict[str, Any]:
    return {
        "StreamName": address,
        "Records": [{"Data": each.body, "PartitionKey": each.event.partition_key} for each in part],
    }


def _to_firehose(address: str, part: Sequence[Encoded]) -> dict[str, Any]:
    return {"DeliveryStreamName": address, "Records": [{"Data": each.body} for each in part]}


def _by_place(member: str) -> Callable[[Mapping[str, Any], int], list[Failure | None]]:
    """Entries are answered in their order."""

    def failures(answer: Mapping[str, Any], count: int) -> list[Failure | None]:
        answers: Iterator[Mapping[str, Any]] = iter(answer.get(member) or ())
        found: list[Failure | None] = []
        for _ in range(count):
            each = next(answers, None)
            if each is None:
                found.append(Failure("", "it was not answered"))
            else:
                code = each.get("ErrorCode")
                found.append(None if not code else Failure(code, each.get("ErrorMessage", "")))
        return found

    return failures


SERVICES: Mapping[str, Service] = {
    "sqs": Service(
        client="sqs", operation="send_message_batch", action="SendMessageBatch",
        most=10, event_bytes=_MIB - _ATTRIBUTE_BYTES, call_bytes=_MIB - 10 * _ATTRIBUTE_BYTES, at_once=32,
        request=_to_sqs, failures=_by_id,
    ),
    "sns": Service(
        client="sns", operation="publish_batch", action="PublishBatch",
        most=10, event_bytes=256 * _KIB - _ATTRIBUTE_BYTES, call_bytes=256 * _KIB - 10 * _ATTRIBUTE_BYTES, at_once=32,
        request=_to_sns, failures=_by_id,
    ),
    "eventbridge": Service(
        client="events", operation="put_events", action="PutEvents",
        most=10, event_bytes=256 * _KIB - _ATTRIBUTE_BYTES, call_bytes=256 * _KIB - 10 * _ATTRIBUTE_BYTES, at_once=32,
        request=_to_eventbridge, failures=_by_place("Entries"),
    ),
    "kinesis": Service(
        client="kinesis", operation="put_records", action="PutRecords",
        most=500, event_bytes=_MIB - _ATTRIBUTE_BYTES, call_bytes=4 * _MIB, at_once=8,
        request=_to_kinesis, failures=_by_place("Records"),
    ),
    "firehose": Service(
        client="firehose", operation="put_record_batch", action="PutRecordBatch",
        most=500, event_bytes=1000 * _KIB, call_bytes=4 * _MIB - 512 * _KIB, at_once=8,
        request=_to_firehose, failures=_by_place("RequestResponses"), ending=b"\n",
    ),
}  # fmt: skip
"""By `to` of the configuration. Sizes are those of the services' pages of quotas, less what goes beside a body."""
