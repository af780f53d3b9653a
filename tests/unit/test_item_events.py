"""Changes as events: exact values, ids that follow from the stream, and what is let out."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import msgspec
import pytest
from cloudevents.core.formats.json import JSONFormat
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from replicator.domain.errors import MalformedRecord, PoisonRecord
from replicator.domain.filters import Filter, Where
from replicator.domain.identifiers import RegionId, RuleName, SequenceNumber, TableName
from replicator.domain.image import Image
from replicator.domain.item_events import EventShape, ItemEvent, Numbers, event_of, from_kept, is_let_out, kept
from replicator.domain.records import ChangeRecord, Event, ItemKey
from replicator.domain.rules import Rule, TtlDeletes
from replicator.domain.shards.leases import StreamRef
from replicator.domain.transforms import Transform
from tests.unit.strategies import Typed, image, items

ARN = "arn:aws:dynamodb:us-east-1:111122223333:table/orders"
STREAM = StreamRef(RegionId("us"), TableName("orders"), f"{ARN}/stream/2026-01-31T10:00:00.000", 1_769_853_600_000)
KEY = ItemKey((("pk", "S", "k"),))
RULE = Rule(RuleName("orders"), RegionId("us"), TableName("orders"), ())


def change(old: Typed | None, new: Typed | None, *, by_ttl: bool = False, partial: bool = False) -> ChangeRecord:
    event = Event.REMOVE if new is None else Event.INSERT if old is None else Event.MODIFY
    images = [None if each is None else image(each) for each in (old, new)]
    return ChangeRecord(event, KEY, images[0], images[1], SequenceNumber("100"), 1_769_860_800.5, by_ttl, partial)


def data_of(record: ChangeRecord, shape: EventShape) -> Any:
    return json.loads(event_of(record, STREAM, shape).cloud_event, parse_float=Decimal, parse_int=Decimal)["data"]


def plain(typed: Typed, *, as_number: bool) -> Any:
    """What a value is for a reader, said a second time."""
    ((kind, value),) = typed.items()
    number: Any = Decimal if as_number else str
    if kind == "L":
        return [plain(each, as_number=as_number) for each in value]
    if kind == "M":
        return {name: plain(each, as_number=as_number) for name, each in value.items()}
    if kind == "NULL":
        return None
    if kind == "NS":
        return [number(each) for each in value]
    return number(value) if kind == "N" else value


@given(items, items)
def test_typed_events_hold_the_images_of_the_stream_as_they_are(old: Typed, new: Typed) -> None:
    data = data_of(change(old, new), EventShape(typed=True))
    assert data == {"key": {"pk": {"S": "k"}}, "old": old, "new": new}


@given(items, st.sampled_from(Numbers))
def test_plain_events_hold_every_value_exactly(new: Typed, numbers: Numbers) -> None:
    data = data_of(change(None, new), EventShape(numbers=numbers))
    wanted = {name: plain(value, as_number=numbers is Numbers.NUMBER) for name, value in new.items()}
    assert data == {"key": {"pk": "k"}, "new": wanted}


@given(items)
def test_an_event_is_the_same_after_a_replay_and_as_it_was_kept(new: Typed) -> None:
    event = event_of(change(None, new), STREAM, EventShape())
    assert event.cloud_event == event_of(change(None, dict(reversed(new.items()))), STREAM, EventShape()).cloud_event
    assert from_kept(kept(event)).cloud_event == event.cloud_event


@given(items)
def test_the_sdk_reads_every_event_and_no_character_is_one_that_queues_refuse(new: Typed) -> None:
    text = event_of(change(None, new | {"odd": {"S": "\ufffe\uffff\x00\x1f"}}), STREAM, EventShape()).cloud_event
    event = JSONFormat().read(None, text)
    assert event.get_id() == "orders/2026-01-31T10:00:00.000/100"
    assert (event.get_source(), event.get_subject()) == (ARN, '{"pk":"k"}')
    moment = event.get_time()
    assert moment is not None
    assert moment.timestamp() == 1_769_860_800.5
    assert all(ord(each) >= 0x20 and each not in "\ufffe\uffff" for each in text.decode())


@pytest.mark.parametrize(
    ("record", "kind"),
    [
        (change(None, {"pk": {"S": "k"}}), "inserted"),
        (change({"pk": {"S": "k"}}, {"pk": {"S": "k"}}), "modified"),
        (change({"pk": {"S": "k"}}, None), "removed"),
        (change({"pk": {"S": "k"}}, None, by_ttl=True), "expired"),
    ],
)
def test_a_type_says_what_happened_and_a_delete_by_ttl_is_known(record: ChangeRecord, kind: str) -> None:
    assert event_of(record, STREAM, EventShape()).type == f"dynamodb.item.{kind}"


def test_an_event_shows_the_attributes_that_it_is_let_and_never_the_version() -> None:
    item = {"pk": {"S": "k"}, "a": {"S": "1"}, "b": {"S": "2"}, "_rep": {"S": "v"}}
    assert data_of(change(None, item), EventShape())["new"] == {"pk": "k", "a": "1", "b": "2"}
    transform = Transform(project=frozenset("bc"), rename=(("b", "z"),), constant=(("n", b'{"N":"1"}'),))
    assert data_of(change(item, item), EventShape(transform=transform)) == {
        "key": {"pk": "k"},
        "old": {"pk": "k", "z": "2", "n": "1"},
        "new": {"pk": "k", "z": "2", "n": "1"},
    }


def test_values_of_each_type_are_shown_plain_or_as_the_stream_has_them() -> None:
    elements = [{"N": "1.5"}, {"NULL": True}, {"M": {"b": {"B": "AA=="}}}, {"NS": ["1", "2"]}, {"SS": ["x"]}]
    item: Typed = {"pk": {"S": "k"}, "v": {"L": elements}}
    assert data_of(change(None, item), EventShape(typed=True))["new"] == item
    shown: list[Any] = [Decimal("1.5"), None, {"b": "AA=="}, [Decimal(1), Decimal(2)], ["x"]]
    assert data_of(change(None, item), EventShape(numbers=Numbers.NUMBER))["new"] == {"pk": "k", "v": shown}
    shown = ["1.5", None, {"b": "AA=="}, ["1", "2"], ["x"]]
    other = next(numbers for numbers in Numbers if numbers is not Numbers.NUMBER)
    assert data_of(change(None, item), EventShape(numbers=other))["new"] == {"pk": "k", "v": shown}


def test_without_an_arn_of_the_stream_the_label_is_its_creation() -> None:
    nameless = StreamRef(STREAM.region, STREAM.table, "", STREAM.generation)
    assert event_of(change(None, {"pk": {"S": "k"}}), nameless, EventShape()).id == "orders/2026-01-31T10:00:00.000/100"


def test_a_change_that_came_by_kinesis_is_named_by_its_event_and_timed_to_the_microsecond() -> None:
    kinesis = StreamRef(STREAM.region, STREAM.table, "arn:aws:kinesis:us-east-1:111122223333:stream/changes", 1_000)
    made = 1_769_860_800_123_457
    record = structs.replace(change(None, {"pk": {"S": "k"}}), micros=made, created_at=made / 1e6, event_id="e-1")
    event = event_of(record, kinesis, EventShape())
    assert (event.id, event.source) == ("orders/1970-01-01T00:00:01.000/e-1", ARN)
    assert json.loads(event.cloud_event)["time"] == "2026-01-31T12:00:00.123457Z"


def test_a_record_without_a_time_makes_an_event_without_one() -> None:
    record = structs.replace(change(None, {"pk": {"S": "k"}}), created_at=0.0)
    assert b'"time"' not in event_of(record, STREAM, EventShape()).cloud_event


def test_keys_have_one_partition_each() -> None:
    one = event_of(change(None, {"pk": {"S": "k"}}), STREAM, EventShape())
    other = structs.replace(change(None, {"pk": {"S": "k"}}), key=ItemKey((("pk", "N", "1"),)))
    assert len(one.partition_key) == 32
    assert one.partition_key != event_of(other, STREAM, EventShape()).partition_key
    assert len(one.digest) == 64


@pytest.mark.parametrize("wire", [b'{"pk":{"S":"k"},"a":{}}', b'{"pk":{"S":"k"},"a":{"N":"x"}}', b'{"a":{"M":[1]}}'])
def test_an_image_that_is_no_item_is_a_malformed_record(wire: bytes) -> None:
    record = structs.replace(change(None, {"pk": {"S": "k"}}), new=Image(wire))
    with pytest.raises(MalformedRecord):
        event_of(record, STREAM, EventShape(numbers=Numbers.NUMBER))
    with pytest.raises(MalformedRecord):
        from_kept(wire)


# -- what is let out ---------------------------------------------------------------------------------------------------

SMALL, LARGE = {"pk": {"S": "k"}, "size": {"S": "small"}}, {"pk": {"S": "k"}, "size": {"S": "large"}}


def only(size: str) -> Filter:
    return Filter(where=Where(f"size == '{size}'"))


def test_what_an_item_was_or_is_has_to_pass_both_filters() -> None:
    shape = EventShape(filter=only("small"))
    assert is_let_out(RULE, change(None, SMALL), shape)
    assert is_let_out(RULE, change(SMALL, LARGE), shape)
    assert is_let_out(RULE, change(SMALL, None), shape)
    assert not is_let_out(RULE, change(None, LARGE), shape)
    rule = Rule(RULE.name, RULE.source, RULE.table, (), filter=only("large"))
    assert not is_let_out(rule, change(SMALL, LARGE), shape)


def test_events_and_expiries_that_are_not_wanted_stay_in() -> None:
    shape = EventShape(filter=Filter(events=frozenset({Event.REMOVE})))
    assert not is_let_out(RULE, change(None, SMALL), shape)
    assert is_let_out(RULE, change(SMALL, None, by_ttl=True), shape)
    rule = Rule(RULE.name, RULE.source, RULE.table, (), ttl_deletes=TtlDeletes.SKIP)
    assert not is_let_out(rule, change(SMALL, None, by_ttl=True), shape)


def test_of_a_partial_record_the_key_is_what_the_item_was() -> None:
    prefix = Filter(key_prefix=(("pk", "k"),))
    assert is_let_out(RULE, change(None, None, partial=True), EventShape(filter=prefix))


def test_a_filter_that_cannot_be_evaluated_refuses_the_event() -> None:
    with pytest.raises(PoisonRecord):
        is_let_out(RULE, change(None, {"pk": {"S": "k"}}), EventShape(filter=Filter(where=Where("abs(pk) > `1`"))))


def test_an_event_shows_its_id_and_no_value() -> None:
    event = event_of(change(None, {"pk": {"S": "k"}, "note": {"S": "private"}}), STREAM, EventShape())
    assert event.id in repr(event)
    assert "private" not in repr(event)


def test_an_event_whose_data_is_too_long_refers_to_it() -> None:
    event = ItemEvent("1", "urn:t", "t", "k", 0.0, "p", msgspec.Raw(b"{}"))
    stored = event.stored_at("s3://bucket/1")
    assert (stored.id, stored.dataref, bytes(stored.data)) == ("1", "s3://bucket/1", b"null")
