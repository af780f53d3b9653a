"""What entries hold: exact in every format, and the same for readers and the daemon."""

from __future__ import annotations

import base64
import json
from decimal import Decimal
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from replicator.domain.cache_values import Shape, unpacked

EXACT = "12345678901234567890.123456789012345678"
ITEM: dict[str, Any] = {
    "pk": {"S": 'ü"\n'},
    "n": {"N": EXACT},
    "whole": {"N": "-7"},
    "half": {"N": "0.5"},
    "b": {"B": "AQI="},
    "tags": {"SS": ["b", "a"]},
    "sizes": {"NS": ["2", "1"]},
    "parts": {"BS": ["AQ=="]},
    "yes": {"BOOL": True},
    "none": {"NULL": True},
    "in": {"M": {"l": {"L": [{"N": "1"}, {"M": {}}]}}},
}  # fmt: skip
PLAIN = {
    "pk": 'ü"\n', "b": "AQI=", "tags": ["a", "b"], "parts": ["AQ=="], "yes": True, "none": None,
}  # fmt: skip


@pytest.mark.parametrize(
    ("numbers", "values"),
    [
        ("string", {"n": EXACT, "whole": "-7", "half": "0.5", "sizes": ["1", "2"], "in": {"l": ["1", {}]}}),
        ("number", {"n": Decimal(EXACT), "whole": -7, "half": Decimal("0.5"), "sizes": [1, 2], "in": {"l": [1, {}]}}),
    ],
)
def test_json_is_plain_and_exact(numbers: str, values: dict[str, Any]) -> None:
    shape = Shape("json", numbers)
    assert shape.decode(shape.encode(ITEM)) == PLAIN | values
    assert json.loads(shape.encode(ITEM)).keys() == ITEM.keys()


@pytest.mark.parametrize(
    ("numbers", "values"),
    [
        ("string", {"n": EXACT, "whole": "-7", "half": "0.5", "sizes": ["1", "2"], "in": {"l": ["1", {}]}}),
        ("number", {"n": EXACT, "whole": -7, "half": 0.5, "sizes": [1, 2], "in": {"l": [1, {}]}}),
    ],
)
def test_messagepack_is_what_others_read(numbers: str, values: dict[str, Any]) -> None:
    shape = Shape("msgpack", numbers)
    expected = PLAIN | {"b": b"\1\2", "parts": [b"\1"]} | values
    assert shape.decode(shape.encode(ITEM)) == expected
    assert msgspec.msgpack.decode(shape.encode(ITEM)) == expected


def test_a_hash_has_a_text_for_each_attribute() -> None:
    shape = Shape("hash")
    texts = {
        "pk": 'ü"\n', "n": EXACT, "whole": "-7", "half": "0.5", "b": "AQI=", "tags": '["a","b"]', "sizes": '["1","2"]',
        "parts": '["AQ=="]', "yes": "true", "none": "null", "in": '{"l":["1",{}]}',
    }  # fmt: skip
    assert shape.decode(shape.encode(ITEM)) == texts
    assert Shape("hash", "number").decode(Shape("hash", "number").encode(ITEM))["sizes"] == "[1,2]"


def test_only_the_attributes_that_are_named_are_kept() -> None:
    assert Shape(attributes=("pk", "other")).encode(ITEM) == '{"pk":{"S":"ü\\"\\n"}}'.encode()
    assert Shape("json", attributes=("whole",)).encode(ITEM) == b'{"whole":"-7"}'
    assert Shape().is_whole
    assert not Shape(attributes=("pk",)).is_whole
    assert not Shape("json").is_whole


@pytest.mark.parametrize(
    ("number", "packed"),
    [
        ("127", 127), ("-32", -32), ("128", 128), ("18446744073709551615", 2**64 - 1),
        ("-9223372036854775808", -(2**63)), ("18446744073709551616", "18446744073709551616"), ("1E+30", 1e30),
        ("0.1", 0.1), ("1E-130", 1e-130),
        ("9.9999999999999999999999999999999999999E+125", "9.9999999999999999999999999999999999999E+125"),
        ("-0", 0), ("100", 100), ("1.50", 1.5),
    ],
)  # fmt: skip
def test_a_number_is_packed_where_that_is_exact(number: str, packed: float | str) -> None:
    payload = Shape("msgpack", "number").encode({"n": {"N": number}})
    found = unpacked(payload)["n"]
    assert found == packed or (not isinstance(found, str) and Decimal(repr(found)) == Decimal(number))
    assert msgspec.msgpack.decode(payload) == {"n": found}


plain = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False) | st.text() | st.binary(),
    lambda inner: st.lists(inner, max_size=20) | st.dictionaries(st.text(), inner, max_size=20),
    max_leaves=30,
)


@given(plain)
def test_any_messagepack_of_others_is_read(value: Any) -> None:
    assert unpacked(msgspec.msgpack.encode(value)) == value


@pytest.mark.parametrize("size", [31, 32, 255, 256, 65_535, 65_536])
def test_long_values_are_packed_too(size: int) -> None:
    item: dict[str, Any] = {
        "s": {"S": "x" * size},
        "b": {"B": base64.b64encode(b"y" * size).decode()},
        "l": {"L": [{"NULL": True}] * size},
        "m": {"M": {str(n): {"BOOL": False} for n in range(size)}},
    }
    payload = Shape("msgpack").encode(item)
    assert msgspec.msgpack.decode(payload) == unpacked(payload)
    assert len(unpacked(payload)["s"]) == size


@pytest.mark.parametrize("payload", [b"", b"\xc1", b"\xa5ab", b"\xc0\xc0", b"\xcd\x01", b"\x81\x90\xc0"])
def test_what_is_no_messagepack_is_refused(payload: bytes) -> None:
    with pytest.raises(ValueError, match="MessagePack"):
        unpacked(payload)


@pytest.mark.parametrize("options", [("yaml", "string"), ("json", "float")])
def test_other_formats_are_refused(options: tuple[str, str]) -> None:
    with pytest.raises(ValueError, match="must be one of"):
        Shape(*options)
