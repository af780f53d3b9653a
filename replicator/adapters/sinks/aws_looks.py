"""What services of AWS say about a place that events go to, before any is sent.

A call without entries shows whether sending is allowed: a service that denies it says so, and one that lets it in finds
the call empty, which nothing comes of.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from msgspec import Struct

_ACTIVE = "ACTIVE"


class Look(Struct, frozen=True):
    """What was found. `ordered`: whether it keeps the order of an item's events; `trouble`: why it takes none now."""

    ordered: bool
    longest: int | None = None
    """Bytes of one event, when that is a choice of its owner."""
    trouble: str = ""


async def _queue(client: Any, address: str) -> Look:
    answer = await client.get_queue_attributes(QueueUrl=address, AttributeNames=["All"])
    found = answer.get("Attributes", {})
    longest = found.get("MaximumMessageSize")
    return Look(found.get("FifoQueue") == "true", None if longest is None else int(longest))


async def _topic(client: Any, address: str) -> Look:
    answer = await client.get_topic_attributes(TopicArn=address)
    return Look(answer.get("Attributes", {}).get("FifoTopic") == "true")


async def _bus(client: Any, address: str) -> Look:
    await client.describe_event_bus(Name=address)
    return Look(ordered=False)


async def _stream(client: Any, address: str) -> Look:
    answer = await client.describe_stream_summary(StreamName=address)
    return Look(ordered=True, trouble=_state(answer["StreamDescriptionSummary"]["StreamStatus"], (_ACTIVE, "UPDATING")))


async def _delivery(client: Any, address: str) -> Look:
    answer = await client.describe_delivery_stream(DeliveryStreamName=address)
    state = answer["DeliveryStreamDescription"]["DeliveryStreamStatus"]
    return Look(ordered=False, trouble=_state(state, (_ACTIVE,)))


def _state(state: str, good: tuple[str, ...]) -> str:
    return "" if state in good else f"is {state}"


LOOKS: Mapping[str, tuple[str, Callable[[Any, str], Awaitable[Look]]]] = {
    "sqs": ("GetQueueAttributes", _queue),
    "sns": ("GetTopicAttributes", _topic),
    "events": ("DescribeEventBus", _bus),
    "kinesis": ("DescribeStreamSummary", _stream),
    "firehose": ("DescribeDeliveryStream", _delivery),
}
"""By the name of the client: the action, and the look."""
