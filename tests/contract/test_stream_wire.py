"""Records as servers write them: a page is read in one go, and every record as if it were read alone."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import example, given, settings
from hypothesis import strategies as st

from replicator.adapters.dynamodb.stream_wire import parse_record, parse_records
from replicator.domain.errors import MalformedRecord
from replicator.domain.records import ChangeRecord

_text = st.text(max_size=6)
_value = st.one_of(
    st.builds(lambda text: {"S": text}, _text),
    st.builds(lambda number: {"N": number}, st.from_regex(r"-?[0-9]{1,38}(\.[0-9]{1,5})?", fullmatch=True)),
    st.builds(lambda text: {"B": text}, st.sampled_from(["AAEC", "", "/w=="])),
)
_key = st.dictionaries(_text, _value, min_size=1, max_size=2)
_odd_key: st.SearchStrategy[Any] = st.sampled_from(
    [{}, {"pk": {}}, {"pk": {"S": "a", "N": "1"}}, {"pk": {"BOOL": True}}, {"pk": {"SS": "a"}}, {"pk": "a"}, None, []]
)
_image = st.dictionaries(_text, _value | st.just({"M": {"a": {"NULL": True}}}), min_size=1, max_size=3)
_odd_image: st.SearchStrategy[Any] = st.sampled_from([{}, None, [], "item", 5])
_identity = st.sampled_from(
    [
        {"type": "Service", "principalId": "dynamodb.amazonaws.com"},
        {"Type": "Service", "PrincipalId": "dynamodb.amazonaws.com"},
        {"principalId": "another"},
        None,
        5,
    ]
)


@st.composite
def records(draw: st.DrawFn) -> dict[str, Any]:
    """A record, most often as DynamoDB writes it; else as a compatible server may, or as nothing should."""
    odd = draw(st.integers(0, 9)) == 0
    change: dict[str, Any] = {
        "Keys": draw(_odd_key if odd and draw(st.booleans()) else _key),
        "SequenceNumber": draw(
            st.sampled_from(["", "x", "-1", "1" * 41, "٣"]) if odd and draw(st.booleans()) else _sequence
        ),
        "ApproximateCreationDateTime": draw(st.sampled_from([1_790_000_000, 1_790_000_000.0, 0])),
    }
    event = draw(st.sampled_from(["INSERT", "MODIFY", "REMOVE", *(["UPSERT"] if odd else [])]))
    for name, usual in (("NewImage", event != "REMOVE"), ("OldImage", event != "INSERT")):
        if usual != (draw(st.integers(0, 4)) == 0):
            change[name] = draw(_odd_image if draw(st.integers(0, 9)) == 0 else _image)
    record: dict[str, Any] = {"eventName": event, "dynamodb": change, "eventVersion": "1.1"}
    if draw(st.booleans()):
        record["userIdentity"] = draw(_identity)
    return record


_sequence = st.integers(0, 10**39).map(str)


@given(page=st.lists(records(), max_size=4), spaces=st.booleans())
@example(page=[{"eventName": "REMOVE", "dynamodb": {"Keys": {"k": {"S": "a"}}, "SequenceNumber": "1"}}], spaces=True)
@settings(max_examples=80)
def test_a_page_holds_what_its_records_hold_one_by_one(page: list[dict[str, Any]], spaces: bool) -> None:
    separators = (", ", ": ") if spaces else (",", ":")
    texts = [json.dumps(record, separators=separators) for record in page]
    body = '{"NextShardIterator":"next","Records":[' + ",".join(texts) + "]}"
    try:
        alone = [parse_record(text.encode()) for text in texts]
    except MalformedRecord:
        return  # not even its place is known, so the page is no page
    found = parse_records(body.encode(), "GetRecords", 7.0)
    assert (found.records, found.next_iterator, found.at) == (tuple(alone), "next", 7.0)


def test_images_and_keys_keep_every_digit_and_no_page() -> None:
    image = b'{"k":{"N":"12345678901234567890123456789012345678"},"f":{"N":"1.10"},"\\u00e9":{"S":"\\ud83d\\ude00"}}'
    filler = b'{"k":{"S":"%b"}}' % (b"x" * 100_000)
    one = (
        b'{"eventName":"%b","dynamodb":{"SequenceNumber":"%d","Keys":{"k":{"N":"12345678901234567890123456789012345678"}},'
        b'"NewImage":%b}}'
    )
    body = b'{"Records":[%b,%b]}' % (one % (b"INSERT", 1, image), one % (b"INSERT", 2, filler))
    first, _ = parse_records(body, "GetRecords").records
    assert isinstance(first, ChangeRecord)
    assert first.new is not None
    assert type(first.new.wire) is bytes
    assert first.new.wire == image
    assert first.key.parts == (("k", "N", "12345678901234567890123456789012345678"),)
