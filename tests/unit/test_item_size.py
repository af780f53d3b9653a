from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given

from replicator.domain.errors import MalformedRecord
from replicator.domain.image import Image
from replicator.domain.item_size import LARGEST_ITEM, STAMP_BYTES, excess, item_size
from tests.unit.strategies import Typed, image, items

# What DynamoDB's guide says of each type; of a number, whose size it calls approximate, the least.
SIZES: list[tuple[dict[str, Any], int]] = [
    ({"S": "abc"}, 3),
    ({"S": "ü漢"}, 5),
    ({"S": ""}, 0),
    ({"B": "AAE="}, 2),
    ({"B": ""}, 0),
    ({"N": "0"}, 1),
    ({"N": "7"}, 2),
    ({"N": "-12.50"}, 3),
    ({"N": "1E+125"}, 2),
    ({"N": "12345678901234567890123456789012345678"}, 20),
    ({"N": "000100"}, 2),
    ({"BOOL": True}, 1),
    ({"NULL": True}, 1),
    ({"SS": ["a", "bc"]}, 3),
    ({"NS": ["1", "234"]}, 5),
    ({"BS": ["AAE=", "AA=="]}, 3),
    ({"L": []}, 3),
    ({"L": [{"S": "a"}, {"NULL": True}]}, 7),
    ({"M": {}}, 3),
    ({"M": {"k": {"S": "ab"}}}, 7),
]


@pytest.mark.parametrize(("value", "size"), SIZES)
def test_a_value_is_counted_as_dynamodb_counts_it(value: Typed, size: int) -> None:
    assert item_size(image({"name": value})) == 4 + size


@given(items)
def test_no_encoding_is_shorter_than_what_it_encodes(item: dict[str, Typed]) -> None:
    escaped = Image(json.dumps(item, separators=(",", ":")).encode())
    assert item_size(image(item)) == item_size(escaped) <= min(len(image(item).wire), len(escaped.wire))


def filled(size: int) -> Image:
    """An item of so many bytes."""
    return image({"pk": {"S": "k"}, "x": {"S": "y" * (size - 4)}})


@pytest.mark.parametrize(
    ("size", "found"),
    [(1000, None), (LARGEST_ITEM - STAMP_BYTES, None), (LARGEST_ITEM - STAMP_BYTES + 1, LARGEST_ITEM + 1)],
)
def test_an_item_is_too_large_when_it_has_no_room_for_its_version(size: int, found: int | None) -> None:
    assert item_size(filled(size)) == size
    assert excess(filled(size), STAMP_BYTES) == found


def test_a_version_takes_sixty_bytes() -> None:
    assert len("_rep") + 56 == STAMP_BYTES


def test_an_image_that_is_long_only_on_the_wire_is_not_too_large() -> None:
    many = image({"pk": {"S": "k"}, "x": {"L": [{"N": "1"}] * 60_000}})
    assert len(many.wire) > LARGEST_ITEM
    assert excess(many, STAMP_BYTES) is None


@pytest.mark.parametrize("wire", [b'{"pk":"a"}', b'{"pk":{"S":5}}'])
def test_what_is_no_item_has_no_size(wire: bytes) -> None:
    with pytest.raises(MalformedRecord, match="not DynamoDB JSON"):
        item_size(Image(wire))
