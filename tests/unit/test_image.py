from __future__ import annotations

import json
from decimal import Context, Decimal
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from replicator.domain.errors import MalformedRecord
from replicator.domain.image import (
    Image,
    canonical,
    content_hash,
    is_bare,
    normal_number,
    parted,
    plain,
    restamped,
    same_content,
    stamped,
    unreserved,
)
from tests.unit.strategies import Typed, image, items, numbers, values

VERSION = "7" * 56

VERBATIM = [
    b'{"pk":{"S":"k"},"n":{"N":"12345678901234567890123456789012345678"}}',
    b'{"pk":{"S":"k"},"n":{"N":"1.10"},"m":{"N":"-0"},"e":{"N":"1E+125"}}',
    b'{"pk":{"S":"k"},"s":{"SS":["b","a"]},"n":{"NS":["2","1.0"]},"b":{"BS":["AA==","AQ=="]}}',
    b'{"pk":{"S":"k"},"empty":{"S":""},"bytes":{"B":""},"nothing":{"NULL":true}}',
    b'{"pk":{"S":"k"},"deep":{"M":{"z":{"L":[{"M":{"_rep":{"S":"x"}}},{"BOOL":false}]},"a":{"M":{}}}}}',
    '{"pk":{"S":"k"},"Größe":{"S":"\\u00fc 漢字 \\n"}}'.encode(),
]


@pytest.mark.parametrize("wire", VERBATIM)
def test_an_image_without_reserved_attributes_is_carried_byte_for_byte(wire: bytes) -> None:
    assert unreserved(Image(wire)).wire == wire


@pytest.mark.parametrize("wire", VERBATIM)
def test_a_stamp_is_added_behind_untouched_bytes(wire: bytes) -> None:
    assert stamped(Image(wire), VERSION) == wire[:-1] + b',"_rep":{"S":"' + VERSION.encode() + b'"}}'


@given(items)
def test_a_stamped_image_reads_its_stamp_and_gives_back_its_content(item: dict[str, Typed]) -> None:
    written = Image(stamped(image(item), VERSION))
    assert written.stamp == VERSION
    assert unreserved(written).wire == image(item).wire
    assert written.attributes == {**item, "_rep": {"S": VERSION}}


def written(item: dict[str, Typed], escape: str) -> bytes:
    """An image as servers may write it: a name may hold escapes that are not needed."""
    text = json.dumps(item, ensure_ascii=escape == "ascii", separators=(",", ":"))
    return (text.replace("/", "\\/") if escape == "solidus" else text).encode("utf-8", "surrogatepass")


@given(
    items,
    st.text(st.characters(exclude_categories=["Cs"]), min_size=1) | st.sampled_from(['my "st/\\', "日本", "a\nb", "/"]),
    st.sampled_from(["none", "ascii", "solidus"]),
)
def test_a_stamp_of_any_name_is_added_and_cut_again(item: dict[str, Typed], name: str, escape: str) -> None:
    assume(name not in item and not name.startswith("aws:rep:"))
    marked = stamped(Image(written(item, escape)), VERSION, name)
    assert json.loads(marked) == {**item, name: {"S": VERSION}}
    again = Image(written(json.loads(marked), escape))
    assert json.loads(unreserved(again, name).wire) == item


@given(items, st.lists(st.sampled_from(["_rep", "aws:rep:deleting", "aws:rep:updatetime"]), unique=True), st.data())
def test_reserved_attributes_are_cut_wherever_they_stand(
    item: dict[str, Typed], reserved: list[str], data: st.DataObject
) -> None:
    order = data.draw(st.permutations([*item, *reserved]))
    whole = image({name: item.get(name, {"S": "x"}) for name in order})
    assert unreserved(whole).wire == image({name: item[name] for name in order if name in item}).wire


def test_a_reserved_attribute_with_an_escaped_name_is_recognised() -> None:
    escaped = Image(rb'{"pk":{"S":"k"},"\u005frep":{"S":"stamp"},"\u0061ws:rep:deleting":{"BOOL":true}}')
    assert escaped.stamp == "stamp"
    assert unreserved(escaped).wire == b'{"pk":{"S":"k"}}'


@pytest.mark.parametrize(
    "wire",
    [
        b'{"pk":{"S":"a"},"m":{"M":{"x":{"S":"b"},"_rep":{"S":"c"}}}}',
        b'{"pk":{"S":"a"},"l":{"L":[{"M":{"x":{"S":"b"},"_rep":{"S":"c"}}}]}}',
        b'{"pk":{"S":"a,\\"_rep\\":{\\"S\\":"}}',
    ],
)
def test_what_only_looks_like_a_stamp_at_the_end_is_content(wire: bytes) -> None:
    assert parted(Image(wire)) == (Image(wire), None)


@pytest.mark.parametrize("value", [b'"c"', b'"c\\"}}"', b'"\\\\"', b'""', b' "c"', b'"c" '])
@pytest.mark.parametrize("behind", [b"", b',"z":{"S":"d"}'])
def test_a_stamp_is_cut_however_it_is_spelled_and_wherever_it_stands(value: bytes, behind: bytes) -> None:
    wire = b'{"pk":{"S":"a"},"_rep":{"S":%b}%b}' % (value, behind)
    bare, seen = parted(Image(wire))
    assert bare == Image(b'{"pk":{"S":"a"}%b}' % behind)
    assert seen is not None
    assert json.loads(seen) == {"S": json.loads(value)}


def test_an_image_with_nothing_to_cut_stays_the_same_object() -> None:
    mentions = image({"pk": {"S": "_rep"}})
    assert unreserved(mentions) is mentions
    plain_image = image({"pk": {"S": "k"}})
    assert unreserved(plain_image) is plain_image


@pytest.mark.parametrize("stamp", [{"N": "1"}, {"NULL": True}, {"M": {}}])
def test_a_reserved_attribute_of_another_type_is_no_stamp(stamp: Typed) -> None:
    assert image({"pk": {"S": "k"}, "_rep": stamp}).stamp is None


def test_an_item_without_the_attribute_has_no_stamp() -> None:
    assert image({"pk": {"S": "k"}}).stamp is None
    assert image({"pk": {"S": "_rep"}}).stamp is None


@pytest.mark.parametrize("wire", [b"null", b"[]", b'{"pk":"k"}', b"{", b"\xff"])
def test_bytes_that_are_no_item_are_refused_when_they_are_read(wire: bytes) -> None:
    with pytest.raises(MalformedRecord, match="not DynamoDB JSON"):
        _ = Image(wire).attributes


@pytest.mark.parametrize("wire", [b"null", b"[]", b"{", b"\xff", b'{"pk":}', b'{"pk":5}'])
def test_bytes_that_are_no_item_are_refused_when_one_attribute_is_read(wire: bytes) -> None:
    with pytest.raises(MalformedRecord, match="not DynamoDB JSON"):
        Image(wire).attribute("pk")


def test_images_are_values_of_their_bytes_and_never_shown() -> None:
    assert Image(b"{}") == Image(b"{}")
    assert Image(b"{}") != Image(b"{} ")
    assert Image(b"{}") != b"{}"
    assert len({Image(b"{}"), Image(b"{}")}) == 1
    assert "secret" not in repr(image({"pk": {"S": "secret"}}))


# -- canonical content ---------------------------------------------------------------------------------------------


def same(left: Any, right: Any) -> bool:  # noqa: PLR0911 - one per kind of value
    """Whether two typed values are equal for DynamoDB; slow, and written without the code under test."""
    ((kind, one),), ((other, two),) = left.items(), right.items()
    if kind != other:
        return False
    if kind == "N":
        return Fraction(one) == Fraction(two)
    if kind == "NS":
        return {Fraction(number) for number in one} == {Fraction(number) for number in two}
    if kind in {"SS", "BS"}:
        return set(one) == set(two)
    if kind == "L":
        return len(one) == len(two) and all(same(a, b) for a, b in zip(one, two, strict=True))
    if kind == "M":
        return same_item(one, two)
    return bool(one == two)


def same_item(left: dict[str, Any], right: dict[str, Any]) -> bool:
    return left.keys() == right.keys() and all(same(left[name], right[name]) for name in left)


few = values(
    strings=st.sampled_from(["", "a", "b"]),
    figures=st.sampled_from(["1", "1.0", "10", "1E+1", "0", "-0.0", "1.10", "1.1"]),
)
few_items = st.dictionaries(st.sampled_from("ab"), few, max_size=2)


@given(few_items, few_items)
def test_canonical_bytes_are_equal_exactly_when_items_are(left: dict[str, Typed], right: dict[str, Typed]) -> None:
    assert (canonical(image(left)) == canonical(image(right))) == same_item(left, right)
    assert same_content(image(left), image(right)) == same_item(left, right)


def respelled(typed: Any, data: st.DataObject) -> Any:
    """The same value, written differently."""
    ((kind, value),) = typed.items()
    match kind:
        case "N":
            return {"N": _respelled_number(value, data)}
        case "NS":
            return {"NS": data.draw(st.permutations([_respelled_number(number, data) for number in value]))}
        case "SS" | "BS":
            return {kind: data.draw(st.permutations(value))}
        case "L":
            return {"L": [respelled(element, data) for element in value]}
        case "M":
            return {"M": respelled_item(value, data)}
        case _:
            return typed


def _respelled_number(number: str, data: st.DataObject) -> str:
    mantissa, mark, exponent = number.lower().partition("e")
    zeros = data.draw(st.sampled_from(["", "0", "00"]))
    padded = mantissa + (zeros if "." in mantissa else "." + zeros + "0")
    return padded + mark + exponent


def respelled_item(item: dict[str, Any], data: st.DataObject) -> dict[str, Any]:
    return {name: respelled(item[name], data) for name in data.draw(st.permutations(list(item)))}


@given(items, st.data())
def test_canonical_bytes_do_not_depend_on_how_an_item_is_spelled(item: dict[str, Typed], data: st.DataObject) -> None:
    other = image(respelled_item(item, data))
    assert canonical(other) == canonical(image(item))
    assert content_hash(other) == content_hash(image(item))
    assert same_content(Image(stamped(other, VERSION)), image(item))


def test_what_is_no_item_is_not_compared() -> None:
    with pytest.raises(MalformedRecord):
        same_content(Image(b'{"pk":'), Image(b"{}"))


@given(items)
def test_canonical_bytes_ignore_the_stamp(item: dict[str, Typed]) -> None:
    assert canonical(Image(stamped(image(item), VERSION))) == canonical(image(item))


def test_items_that_differ_in_the_last_of_38_digits_differ() -> None:
    one = image({"n": {"N": "12345678901234567890123456789012345678"}})
    two = image({"n": {"N": "12345678901234567890123456789012345679"}})
    assert content_hash(one) != content_hash(two)


@given(numbers(), numbers())
def test_normal_numbers_are_equal_exactly_when_numbers_are(left: str, right: str) -> None:
    assert (normal_number(left) == normal_number(right)) == (Fraction(left) == Fraction(right))


@given(numbers())
def test_a_normal_number_keeps_its_value(number: str) -> None:
    assert Fraction(normal_number(number)) == Fraction(number)


def _by_arithmetic(number: str) -> str:
    """The normal form that durable hashes hold."""
    normal = Decimal(number).normalize(Context(prec=60, Emin=-400, Emax=400))
    return str(normal) if normal else "0"


_CLOSE = r"-?0{0,2}[0-9]{1,20}[1-9]?0{0,3}(\.0{0,3}[0-9]{0,18}[1-9]?0{0,3})?(E[+-]?[0-9]{1,2})?"
"""What looks like a normal number: zeros before and behind, a fraction of nothing, exponents."""


@given(st.one_of(numbers(), st.from_regex(_CLOSE, fullmatch=True)))
@example("1" * 38)
@example("-" + "9" * 38)
@example("1234567890123456789.0000000000000000001")
@example("-0")
@example("0.5")
@example("-0.10")
@example("10")
@example("1.0")
@example("01")
@example("1E1")
def test_a_normal_number_is_always_spelled_as_arithmetic_spells_it(number: str) -> None:
    assert normal_number(number) == _by_arithmetic(number)


@given(st.from_regex(r"-?[1-9][0-9]{0,36}[1-9]|-?[1-9][0-9]{0,18}\.[0-9]{0,18}[1-9]", fullmatch=True))
def test_a_number_that_is_normal_stays_as_it_is(number: str) -> None:
    assert normal_number(number) == number == _by_arithmetic(number)


# -- plain JSON ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        ({"S": "a"}, "a"),
        ({"N": "1"}, 1),
        ({"N": "1E+3"}, 1000),
        ({"N": "1.5"}, 1.5),
        ({"N": "1E+20"}, 1e20),
        ({"B": "AA=="}, "AA=="),
        ({"BOOL": False}, False),
        ({"NULL": True}, None),
        ({"SS": ["a", "b"]}, ["a", "b"]),
        ({"NS": ["1", "2.5"]}, [1, 2.5]),
        ({"L": [{"N": "1"}, {"NULL": True}]}, [1, None]),
        ({"M": {"a": {"M": {"b": {"S": "c"}}}}}, {"a": {"b": "c"}}),
    ],
)
def test_typed_values_become_plain_json(typed: Typed, expected: object) -> None:
    found = plain(typed)
    assert found == expected
    assert type(found) is type(expected)


@given(values())
def test_every_typed_value_has_a_plain_form_that_is_json(typed: Typed) -> None:
    assert json.loads(json.dumps(plain(typed))) == plain(typed)


def test_images_are_unequal_exactly_when_they_are_not_equal() -> None:
    one, same, other = Image(b'{"pk":{"S":"k"}}'), Image(b'{"pk":{"S":"k"}}'), Image(b'{"pk":{"S":"l"}}')
    assert (one == same, one != same) == (True, False)
    assert (one == other, one != other) == (False, True)


@pytest.mark.parametrize(
    ("one", "alike", "other"),
    [
        ({"N": "1.50"}, {"N": "15E-1"}, {"N": "1.5000000000000000000000000000000000001"}),
        ({"NS": ["2", "1.0"]}, {"NS": ["1", "2.00"]}, {"NS": ["1", "3"]}),
        ({"SS": ["b", "a"]}, {"SS": ["a", "b"]}, {"SS": ["a", "c"]}),
        ({"BS": ["AQ==", "AA=="]}, {"BS": ["AA==", "AQ=="]}, {"BS": ["AA=="]}),
        ({"L": [{"N": "1.0"}, {"S": "a"}]}, {"L": [{"N": "1"}, {"S": "a"}]}, {"L": [{"S": "a"}, {"N": "1"}]}),
        ({"M": {"a": {"N": "1.0"}, "b": {"S": "x"}}}, {"M": {"b": {"S": "x"}, "a": {"N": "1"}}}, {"M": {}}),
        ({"BOOL": True}, {"BOOL": True}, {"BOOL": False}),
        ({"B": "AA=="}, {"B": "AA=="}, {"S": "AA=="}),
    ],
)
def test_values_of_each_type_are_alike_however_they_are_spelled(one: Typed, alike: Typed, other: Typed) -> None:
    first, second, third = (image({"pk": {"S": "k"}, "v": value}) for value in (one, alike, other))
    assert canonical(first) == canonical(second)
    assert canonical(first) != canonical(third)


def test_what_bears_the_stamp_that_it_had_is_no_stamp_anew() -> None:
    bare = Image(b'{"pk":{"S":"k"}}')
    old, new = Image(stamped(bare, "1" * 56)), Image(stamped(bare, "2" * 56))
    assert restamped(old, new) == (bare.wire, b'{"S":"' + b"1" * 56 + b'"}', b'{"S":"' + b"2" * 56 + b'"}')
    assert restamped(new, new) is None
    assert (is_bare(bare), is_bare(new)) == (True, False)
