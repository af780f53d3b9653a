"""Records as functions are given them: the same change is the same write from every source, for pods and functions."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from hypothesis import given

from replicator.adapters.dynamodb.stream_wire import parse_record
from replicator.adapters.kinesis.envelope import parse_change
from replicator.app.event_records import delivered, parts_of, stream_record
from replicator.domain.coalescing import coalesce, plan_run
from replicator.domain.errors import MalformedRecord, WorldMismatch
from replicator.domain.records import ChangeRecord
from replicator.laboratory.streamlab.changes import Change, record_text
from tests.unit.test_kinesis_envelope import ARRIVED, GENERATION, PLACE, RULE, changes, content, parsed, sent


def as_an_event(document: Any) -> Any:
    """What the runtime makes of the JSON that it is sent."""
    return json.loads(json.dumps(document))


def of_kinesis(data: bytes) -> dict[str, Any]:
    """A record of an event of Kinesis."""
    coded = base64.b64encode(data).decode()
    return {"kinesis": {"sequenceNumber": PLACE, "data": coded, "approximateArrivalTimestamp": ARRIVED}}


def written(record: Any) -> Any:
    """The write that a record becomes, but for its version."""
    assert isinstance(record, ChangeRecord)
    (run,) = coalesce([record])
    planned = plan_run(RULE, run, GENERATION)
    if planned is None:
        return None
    return planned.action, planned.key, content(planned.old), content(planned.new)


def same(one: Any, other: Any) -> bool:
    """Whether two records say the same; images may be written in other bytes."""
    return (content(one.old), content(one.new)) == (content(other.old), content(other.new)) and all(
        getattr(one, name) == getattr(other, name)
        for name in ("event", "key", "by_ttl", "sequence", "created_at", "micros", "partial")
    )


@given(change=changes())
def test_a_change_is_the_same_write_from_every_source(change: Change) -> None:
    text = record_text(change, 17, "NEW_AND_OLD_IMAGES", "us-east-1", "model")
    event = as_an_event({**json.loads(text), "eventSourceARN": "arn:x"})
    event["dynamodb"]["ApproximateCreationDateTime"] += 0.5  # functions get parts of a second, readers do not
    polled, called = parse_record(text), stream_record(event)
    assert same(polled, called)
    read, pushed = parsed(sent(change)), parse_change(delivered(as_an_event(of_kinesis(sent(change)))), "orders")
    assert same(read, pushed)
    assert written(polled) == written(called) == written(read) == written(pushed)


@pytest.mark.parametrize(
    "wrong",
    [
        {},
        {"kinesis": {}},
        {"kinesis": {"sequenceNumber": "1", "data": "?", "approximateArrivalTimestamp": 1.0}},
        {"kinesis": {"sequenceNumber": "1", "data": "", "approximateArrivalTimestamp": "now"}},
        {"kinesis": {"sequenceNumber": "x", "data": "", "approximateArrivalTimestamp": 1.0}},
        {"kinesis": None},
    ],
)
def test_what_is_no_record_of_kinesis_is_refused_in_one_sentence(wrong: dict[str, Any]) -> None:
    with pytest.raises(MalformedRecord) as caught:
        delivered(wrong)
    assert "\n" not in caught.value.sentence


@pytest.mark.parametrize("arn", ["", "arn:x", "arn:aws:sqs:us-east-1:0:queue", "arn:aws:dynamodb:us-east-1:0:table/a"])
def test_what_is_no_stream_of_a_table_is_refused(arn: str) -> None:
    with pytest.raises(WorldMismatch, match="no stream of a DynamoDB table"):
        parts_of(arn)
