"""Changes as DynamoDB sends them to Kinesis: the same record and the same write as from the table's own stream."""

from __future__ import annotations

import base64
import json
from itertools import permutations
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from replicator.adapters.dynamodb.stream_wire import parse_record
from replicator.adapters.kinesis.envelope import Delivered, parse_change, parse_kept, place_in_stream
from replicator.app.event_records import delivered, stream_record
from replicator.domain.coalescing import coalesce, in_order, plan_run
from replicator.domain.errors import MalformedRecord
from replicator.domain.identifiers import RegionId, RuleName, SequenceNumber, TableName
from replicator.domain.image import Image
from replicator.domain.item_events import EventShape, event_of
from replicator.domain.records import ChangeRecord, Event, ForeignRecord, ItemKey, UnreadRecord
from replicator.domain.rules import KinesisSource, Rule, TtlDeletes
from replicator.domain.shards.leases import StreamRef
from replicator.domain.versions import is_ordered_version, sequence_of
from replicator.laboratory.streamlab.changes import Change, record_text
from replicator.laboratory.streamlab.envelope import Precision, envelope
from tests.unit.strategies import image, values

MICROS = 1_700_000_000_123_456
PLACE = SequenceNumber("4" * 56)
ARRIVED = 1_700_000_001.5
GENERATION = 1_700_000_000_000
RULE = Rule(RuleName("orders"), RegionId("us"), TableName("orders"), targets=(), ttl_deletes=TtlDeletes.SKIP)

keys = st.one_of(
    st.text(min_size=1, max_size=4).map(lambda value: {"S": value}),
    st.just({"N": "12345678901234567890123456789012345678"}),
    st.just({"B": "AP8="}),
)
attributes = st.dictionaries(st.text(st.characters(codec="utf-8"), min_size=1, max_size=4), values(), max_size=4)


def text(item: dict[str, Any] | None) -> bytes:
    return b"" if item is None else image(item).wire


@st.composite
def changes(draw: st.DrawFn) -> Change:
    key = {"pk": draw(keys)}
    old = draw(st.none() | attributes.map(lambda more: {**more, **key}))
    new = draw(attributes.map(lambda more: {**more, **key}) if old is None else st.none() | st.just(old))
    event = "REMOVE" if new is None else "INSERT" if old is None else "MODIFY"
    return Change(event, text(key), text(new), text(old), MICROS // 1_000_000, 0, by_ttl=draw(st.booleans()))


def sent(change: Change, precision: Precision = "MICROSECOND", **more: Any) -> bytes:
    data = envelope(change, table="orders", region="us-east-1", event_id="e1", micros=MICROS, precision=precision)
    return json.dumps({**json.loads(data), **more}).encode() if more else data


def parsed(data: bytes, table: str = "orders") -> Any:
    return parse_change(Delivered(PLACE, data, ARRIVED), table)


def content(item: Image | None) -> Any:
    return None if item is None else json.loads(item.wire)


@given(change=changes())
def test_a_change_is_the_record_that_the_tables_own_stream_gives(change: Change) -> None:
    theirs = parse_record(record_text(change, 17, "NEW_AND_OLD_IMAGES", "us-east-1", "model"))
    ours = parsed(sent(change))
    assert isinstance(theirs, ChangeRecord)
    assert isinstance(ours, ChangeRecord)
    assert (ours.event, ours.key, ours.by_ttl, ours.partial) == (
        theirs.event,
        theirs.key,
        theirs.by_ttl,
        theirs.partial,
    )
    assert (content(ours.old), content(ours.new)) == (content(theirs.old), content(theirs.new))
    assert (ours.sequence, ours.created_at, ours.micros) == (PLACE, MICROS / 1_000_000, MICROS)


@given(change=changes())
def test_a_change_becomes_the_write_that_it_becomes_from_the_tables_own_stream(change: Change) -> None:
    found = []
    for record in (
        parse_record(record_text(change, 17, "NEW_AND_OLD_IMAGES", "us-east-1", "model")),
        parsed(sent(change)),
    ):
        assert isinstance(record, ChangeRecord)
        (run,) = coalesce([record])
        planned = plan_run(RULE, run, GENERATION)
        assert planned is None or is_ordered_version(planned.version)
        found.append(
            None if planned is None else (planned.action, planned.key, content(planned.old), content(planned.new))
        )
    assert found[0] == found[1]


PUT = Change("INSERT", b'{"pk":{"S":"k"}}', b'{"pk":{"S":"k"},"n":{"N":"1"}}', b"", 1_700_000_000, 0)


@pytest.mark.parametrize(
    ("precision", "micros"),
    [("MICROSECOND", MICROS), ("MILLISECOND", MICROS // 1000 * 1000), ("unmarked", MICROS // 1000 * 1000)],
)
def test_the_creation_time_counts_in_the_unit_that_is_named_or_by_its_digits(precision: Precision, micros: int) -> None:
    assert parsed(sent(PUT, precision)).micros == micros


def test_an_emulators_seconds_are_understood() -> None:
    changed = json.loads(sent(PUT, "unmarked"))
    changed["dynamodb"]["ApproximateCreationDateTime"] = 1_700_000_000
    assert parsed(json.dumps(changed).encode()).micros == 1_700_000_000_000_000


def test_the_version_holds_the_time_and_not_the_place() -> None:
    (run,) = coalesce([parsed(sent(PUT))])
    planned = plan_run(RULE, run, GENERATION)
    assert planned is not None
    assert sequence_of(planned.version) == MICROS


def test_another_tables_change_is_passed_over_with_its_place() -> None:
    foreign = ForeignRecord(PLACE, "orders", ARRIVED)
    assert parsed(sent(PUT), "bills") == foreign
    assert parsed(sent(PUT, eventName="RENAME", dynamodb={}), "bills") == foreign
    assert foreign.number == int(PLACE)


DAMAGED = {
    "no JSON": (b"\x00\x01", "not a change as DynamoDB sends it"),
    "no table": (b'{"eventName":"INSERT"}', "not a change as DynamoDB sends it"),
    "no keys": (sent(PUT, dynamodb={"ApproximateCreationDateTime": MICROS}), "not a change as DynamoDB sends it"),
    "an event that is none": (sent(PUT, eventName="RENAME"), "unknown event 'RENAME'"),
    "another source": (sent(PUT, eventSource="aws:s3"), "event source 'aws:s3'"),
    "an insert without an image": (sent(PUT).replace(b"NewImage", b"NoImage"), "its images do not agree"),
    "a time in no unit": (
        sent(PUT, dynamodb={"ApproximateCreationDateTime": 17, "Keys": {"pk": {"S": "k"}}}),
        "no unit of time that is known",
    ),
    "a time in another unit than it says": (
        sent(PUT).replace(b"MICROSECOND", b"MILLISECOND"),
        "not in unit 'MILLISECOND'",
    ),
    "binary that is base64 once": (sent(PUT).replace(b'"n":{"N":"1"}', b'"n":{"B":"AP8="}'), "not base64 twice"),
    "an image that is no item": (sent(PUT).replace(b'"n":{"N":"1"}', b'"B":["x"]'), "not a change as DynamoDB"),
}


@pytest.mark.parametrize(("data", "why"), DAMAGED.values(), ids=DAMAGED)
def test_what_cannot_be_understood_is_kept_with_one_sentence(data: bytes, why: str) -> None:
    record = parsed(data)
    assert isinstance(record, UnreadRecord)
    assert why in record.why
    assert record.why.count(". ") == 0
    assert (record.sequence, record.created_at, record.rank) == (PLACE, ARRIVED, str(round(ARRIVED * 1_000_000)))


def test_what_was_kept_is_read_again_as_it_came() -> None:
    once = parsed(sent(PUT, eventName="RENAME"))
    assert isinstance(once, UnreadRecord)
    assert parse_kept(once.raw) == once
    mended = msgspec.json.decode(once.raw)
    mended["data"] = msgspec.json.decode(msgspec.json.encode(sent(PUT)))
    again = parse_kept(msgspec.json.encode(mended))
    assert again == parsed(sent(PUT))
    assert parse_kept(record_text(PUT, 17, "NEW_AND_OLD_IMAGES", "us-east-1", "model")) is None


@pytest.mark.parametrize("number", ["", "-1", "1e5", "\u0661", "1" * 65])
def test_a_place_that_is_no_number_is_refused(number: str) -> None:
    with pytest.raises(MalformedRecord, match="not an integer"):
        place_in_stream(number)


# -- order ---------------------------------------------------------------------------------------------------------


def put(number: int) -> Image:
    return image({"pk": {"S": "k"}, "n": {"N": str(number)}})


def made(place: int, micros: int, old: Image | None, new: Image | None, event_id: str) -> ChangeRecord:
    event = Event.REMOVE if new is None else Event.INSERT if old is None else Event.MODIFY
    number = SequenceNumber(str(place))
    return ChangeRecord(event, ItemKey((("pk", "S", "k"),)), old, new, number, 1.0, micros=micros, event_id=event_id)


TIED = {
    "an insert, an update and a removal": [
        made(1, 5000, None, put(1), "z"),
        made(2, 5000, put(1), put(2), "y"),
        made(3, 5000, put(2), None, "x"),
    ],
    "a removal and another item": [made(1, 5000, put(1), None, "z"), made(2, 5000, None, put(2), "a")],
    "an item that was only there for a moment": [
        made(1, 5000, None, put(1), "z"),
        made(2, 5000, put(1), None, "a"),
    ],
}


@pytest.mark.parametrize("records", TIED.values(), ids=TIED)
def test_changes_of_one_millisecond_follow_the_one_whose_image_they_replaced(records: list[ChangeRecord]) -> None:
    for shuffled in permutations(records):
        ordered = in_order(shuffled)
        assert [record.event_id for record in ordered] == [record.event_id for record in records]
        assert [record.micros for record in ordered] == [5000 + place for place in range(len(records))]
    (run,) = coalesce(records)
    assert run.ties == len(records) - 1


def test_changes_of_one_millisecond_that_say_nothing_of_each_other_follow_their_ids() -> None:
    one, two = made(1, 5000, put(7), put(1), "b"), made(2, 5000, put(8), put(2), "a")
    assert [record.event_id for record in in_order((one, two))] == ["a", "b"]


def test_repeats_of_a_change_are_no_ties_and_share_its_time() -> None:
    one, again = made(1, 5000, None, put(1), "a"), made(4, 5000, None, put(1), "a")
    later = made(2, 5001, put(1), put(2), "b")
    assert [(record.number, record.micros) for record in in_order((later, again, one))] == [
        (4, 5000),
        (1, 5000),
        (2, 5001),
    ]
    (run,) = coalesce([later, again, one])
    assert run.ties == 0


def test_of_a_page_in_any_order_the_latest_image_is_written() -> None:
    records = [made(1, 10, None, put(1), "a"), made(2, 20, put(1), put(2), "b"), made(3, 30, put(2), put(3), "c")]
    for shuffled in permutations(records):
        (run,) = coalesce(shuffled)
        planned = plan_run(RULE, run, GENERATION)
        assert planned is not None
        assert (planned.new, sequence_of(planned.version), planned.old) == (put(3), 30, None)


# -- as events -----------------------------------------------------------------------------------------------------


@given(changes(), st.sampled_from(["model", "documentation"]), st.booleans())
def test_an_event_says_the_same_from_every_source(change: Change, identity: str, typed: bool) -> None:
    streamed, enveloped = record_text(change, 17, "NEW_AND_OLD_IMAGES", "us-east-1", identity), sent(change)
    invoked = {
        "kinesis": {
            "sequenceNumber": PLACE,
            "data": base64.b64encode(enveloped).decode(),
            "approximateArrivalTimestamp": ARRIVED,
        }
    }
    records = [
        parse_record(streamed),
        stream_record(json.loads(streamed)),
        parsed(enveloped),
        parse_change(delivered(invoked), "orders"),
    ]
    stream = StreamRef(RegionId("us"), TableName("orders"), "", GENERATION)
    events = [event_of(record, stream, EventShape(typed=typed)) for record in records]
    assert len({(each.type, each.subject, each.partition_key, bytes(each.data)) for each in events}) == 1
    assert events[0].type.endswith("expired") == (change.by_ttl and change.event == "REMOVE")
    assert [each.id.rpartition("/")[2] for each in events] == ["17", "17", "e1", "e1"]


def test_a_consumer_is_named_for_its_group_and_table_and_none_without_a_group() -> None:
    names = {KinesisSource("changes", group="g").consumer_of(table) for table in ("a", "b" * 255)}
    assert len(names) == 2
    assert all(len(name) <= 128 for name in names)
    assert KinesisSource("changes").consumer_of("a") == ""
