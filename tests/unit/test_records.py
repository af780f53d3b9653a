from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from replicator.domain.errors import MalformedRecord
from replicator.domain.identifiers import SequenceNumber
from replicator.domain.image import Image
from replicator.domain.records import ChangeRecord, Event, ItemKey, UnreadRecord, change_record, item_key
from replicator.domain.versions import ordered_version
from tests.unit.strategies import text

KEY = b'{"pk":{"S":"a"}}'
OLD = b'{"pk":{"S":"a"},"n":{"N":"1"}}'
NEW = b'{"pk":{"S":"a"},"n":{"N":"2"}}'


def record(
    event: str = "MODIFY",
    key: bytes = KEY,
    old: bytes | None = OLD,
    new: bytes | None = NEW,
    sequence: str = "100",
    *,
    by_ttl: bool = False,
) -> ChangeRecord:
    return change_record(event=event, key=key, old=old, new=new, sequence=sequence, created_at=7.0, by_ttl=by_ttl)


def test_a_record_keeps_what_the_stream_said() -> None:
    found = record(sequence="00000000000000000000042", by_ttl=True)
    assert found.event is Event.MODIFY
    assert (found.old and found.old.wire, found.new and found.new.wire) == (OLD, NEW)
    assert (found.sequence, found.number) == ("00000000000000000000042", 42)
    assert (found.created_at, found.by_ttl) == (7.0, True)


EMPTY = [None, b"{}", b" { } ", b"null"]


@pytest.mark.parametrize("nothing", EMPTY)
@pytest.mark.parametrize(
    ("event", "has_old", "has_new"),
    [
        ("INSERT", True, False),
        ("INSERT", False, False),
        ("MODIFY", True, False),
        ("MODIFY", False, False),
        ("REMOVE", True, True),
        ("REMOVE", False, True),
    ],
)
def test_what_an_item_is_now_is_not_guessed(event: str, has_old: bool, has_new: bool, nothing: bytes | None) -> None:
    with pytest.raises(MalformedRecord, match="images do not agree"):
        record(event, old=OLD if has_old else nothing, new=NEW if has_new else nothing)


@pytest.mark.parametrize("nothing", EMPTY)
@pytest.mark.parametrize(
    ("event", "has_old", "told", "partial"),
    [
        ("INSERT", False, Event.INSERT, False),
        ("INSERT", True, Event.MODIFY, False),
        ("MODIFY", True, Event.MODIFY, False),
        ("MODIFY", False, Event.INSERT, True),
        ("REMOVE", True, Event.REMOVE, False),
        ("REMOVE", False, Event.REMOVE, True),
    ],
)
def test_the_images_tell_what_happened(
    event: str, has_old: bool, told: Event, partial: bool, nothing: bytes | None
) -> None:
    found = record(event, old=OLD if has_old else nothing, new=nothing if event == "REMOVE" else NEW)
    assert (found.event, found.partial) == (told, partial)
    assert (found.old is not None) == has_old
    assert (found.new is not None) == (event != "REMOVE")
    assert found.before == (Image(KEY) if partial else found.old)


def test_an_unknown_event_is_refused_by_its_name() -> None:
    with pytest.raises(MalformedRecord, match="unknown event 'UPSERT'"):
        record("UPSERT")


@pytest.mark.parametrize(
    "sequence", ["", "-1", "1.0", "1e3", "abc", "\N{ARABIC-INDIC DIGIT ONE}", "1" * 41, "9" * 5000]
)
def test_a_sequence_number_that_no_version_can_hold_is_refused(sequence: str) -> None:
    with pytest.raises(MalformedRecord, match="not an integer of at most 40 digits"):
        record(sequence=sequence)


def test_an_image_with_white_space_before_its_first_name_is_carried_as_it_came() -> None:
    spaced = b'{ "pk":{"S":"a"},\n"n":{"N":"2"}}'
    found = record(new=spaced)
    assert found.new == Image(spaced)
    assert found.event is Event.MODIFY


@pytest.mark.parametrize("image", [b"[]", b'"x"', b"[{}]"])
def test_an_image_that_is_no_item_is_refused(image: bytes) -> None:
    with pytest.raises(MalformedRecord, match="not an item"):
        record(new=image)


@given(
    event=st.one_of(st.sampled_from(["INSERT", "MODIFY", "REMOVE"]), st.text(max_size=8)),
    key=st.one_of(
        st.just(KEY), st.binary(max_size=12), st.sampled_from([b"{}", b'{"a":{}}', b'{"a":{"S":1}}', b"null"])
    ),
    old=st.one_of(st.none(), st.just(OLD), st.binary(max_size=5)),
    new=st.one_of(st.none(), st.just(NEW), st.binary(max_size=5)),
    sequence=st.one_of(st.integers(-1, 10**41).map(str), st.text(max_size=6)),
)
def test_whatever_arrives_becomes_a_consistent_record_or_a_malformed_one(
    event: str, key: bytes, old: bytes | None, new: bytes | None, sequence: str
) -> None:
    try:
        found = record(event, key, old, new, sequence)
    except MalformedRecord:
        return
    assert (found.old is None) == (found.event is Event.INSERT or found.partial)
    assert (found.new is not None) == (found.event is not Event.REMOVE)
    assert found.key.parts
    assert ordered_version(0, 0, found.number).endswith(found.sequence.lstrip("0"))


# -- keys ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "wire",
    [
        b"",
        b"null",
        b"[]",
        b"{}",
        b'{"pk":"a"}',
        b'{"pk":{}}',
        b'{"pk":{"S":"a","N":"1"}}',
        b'{"pk":{"S":1}}',
        b'{"pk":{"BOOL":"true"}}',
        b'{"pk":{"S":"a"},"sk":{"BOOL":"true"}}',
        b'{"pk":{"S":"\xff"}}',
    ],
)
def test_a_key_that_is_none_is_refused(wire: bytes) -> None:
    with pytest.raises(MalformedRecord, match="A key"):
        item_key(wire)


def test_equal_keys_are_equal_however_their_json_is_written() -> None:
    one = item_key(b'{"sk":{"N":"1"},"pk":{"S":"\\u00fc"}}')
    two = item_key('{ "pk" : {"S": "ü"}, "sk": {"N":"1"} }'.encode())
    assert one == two
    assert hash(one) == hash(two)
    assert one.wire == two.wire == '{"pk":{"S":"ü"},"sk":{"N":"1"}}'.encode()


@given(st.dictionaries(text.filter(bool), st.tuples(st.sampled_from("SNB"), text), min_size=1, max_size=2))
def test_a_key_survives_its_wire_form(parts: dict[str, tuple[str, str]]) -> None:
    key = ItemKey(tuple((name, kind, value) for name, (kind, value) in sorted(parts.items())))
    assert item_key(key.wire) == key
    assert json.loads(key.wire) == {name: {kind: value} for name, (kind, value) in parts.items()}


def test_a_key_is_shown_with_names_and_values() -> None:
    assert item_key(b'{"sk":{"N":"1"},"pk":{"S":"a"}}').shown == "pk=a, sk=1"


key_parts = st.tuples(st.sampled_from(["a", "b|"]), st.sampled_from("SNB"), st.text('|":,a', max_size=3))


@given(
    st.tuples(st.sampled_from(["t", "t|", 't|[["a"']), st.lists(key_parts, min_size=1, max_size=2).map(tuple)),
    st.tuples(st.sampled_from(["t", "t|", 't|[["a"']), st.lists(key_parts, min_size=1, max_size=2).map(tuple)),
)
def test_different_items_never_share_a_side_row(
    one: tuple[str, tuple[tuple[str, str, str], ...]], two: tuple[str, tuple[tuple[str, str, str], ...]]
) -> None:
    assert (ItemKey(one[1]).side_key(one[0]) == ItemKey(two[1]).side_key(two[0])) == (one == two)


def test_the_key_of_a_side_row_fits_dynamodb_however_long_the_items_key_is() -> None:
    longest = ItemKey((("pk", "S", "ü" * 1024), ("sk", "S", "x" * 1024)))
    other = ItemKey((("pk", "S", "ü" * 1024), ("sk", "S", "y" * 1024)))
    assert len(longest.side_key("orders").encode()) <= 1024
    assert longest.side_key("orders") != other.side_key("orders")
    assert longest.side_key("orders") != longest.side_key("invoices")
    fits = ItemKey((("pk", "S", "x" * (1024 - len('orders|[["pk","S",""]]'))),))
    assert fits.side_key("orders") == f'orders|[["pk","S","{"x" * 1002}"]]'


def test_a_record_that_was_not_read_shows_no_value() -> None:
    unread = UnreadRecord(SequenceNumber("7"), b'{"secret":1}', "It is cut.")
    assert repr(unread) == "UnreadRecord(7, 12 bytes)"
    assert unread.number == 7
