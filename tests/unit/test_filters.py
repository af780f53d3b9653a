from __future__ import annotations

import pytest
from hypothesis import given

from replicator.domain.errors import PoisonRecord
from replicator.domain.filters import Equals, Filter, Where
from tests.unit.strategies import Typed, image, items

ORDER = image(
    {
        "pk": {"S": "order#1"},
        "status": {"S": "paid"},
        "total": {"N": "10.50"},
        "vip": {"BOOL": True},
        "note": {"NULL": True},
        "lines": {"L": [{"M": {"sku": {"S": "a"}, "count": {"N": "2"}}}]},
    }
)


@given(items)
def test_a_filter_that_asks_nothing_lets_every_item_through(item: dict[str, Typed]) -> None:
    assert Filter().matches(image(item))


def test_no_filter_lets_an_absent_item_through() -> None:
    assert not Filter().matches(None)
    assert not Filter(exists=("pk",)).matches(None)


@pytest.mark.parametrize(
    ("prefix", "passes"),
    [("order#", True), ("", True), ("order#1", True), ("order#12", False), ("invoice#", False)],
)
def test_a_key_prefix_compares_the_beginning_of_a_text(prefix: str, passes: bool) -> None:
    assert Filter(key_prefix=(("pk", prefix),)).matches(ORDER) is passes


def test_a_key_prefix_on_another_type_or_a_missing_attribute_fails() -> None:
    assert not Filter(key_prefix=(("total", "1"),)).matches(ORDER)
    assert not Filter(key_prefix=(("sk", "1"),)).matches(ORDER)


@pytest.mark.parametrize(
    ("test", "passes"),
    [
        (Equals("status", "paid"), True),
        (Equals("status", "pai"), False),
        (Equals("missing", "paid"), False),
        (Equals("total", "10.5", is_number=True), True),
        (Equals("total", "1.05E+1", is_number=True), True),
        (Equals("total", "10.51", is_number=True), False),
        (Equals("total", "10.50"), False),
        (Equals("status", "10.5", is_number=True), False),
        (Equals("vip", value=True), True),
        (Equals("vip", value=False), False),
        (Equals("status", value=True), False),
        (Equals("note", None), True),
        (Equals("vip", None), False),
        (Equals("missing", None), False),
    ],
)
def test_equality_compares_like_with_like_and_numbers_by_value(test: Equals, passes: bool) -> None:
    assert Filter(equals=(test,)).matches(ORDER) is passes


def test_existence_does_not_look_at_the_value() -> None:
    assert Filter(exists=("note", "vip")).matches(ORDER)
    assert not Filter(exists=("note", "missing")).matches(ORDER)


@pytest.mark.parametrize(
    ("expression", "passes"),
    [
        ("status == 'paid' && total > `10`", True),
        ("total < `10`", False),
        ("lines[?sku == 'a']", True),
        ("lines[?sku == 'b']", False),
        ("missing", False),
        ("note", False),
        ("vip", True),
        ("!vip", False),
        ("`0`", True),
        ("''", False),
        ("`{}`", False),
        ("lines[0].count", True),
    ],
)
def test_a_where_expression_is_true_as_jmespath_understands_it(expression: str, passes: bool) -> None:
    assert Filter(where=Where(expression)).matches(ORDER) is passes


def test_a_where_expression_that_cannot_be_evaluated_names_no_values() -> None:
    with pytest.raises(PoisonRecord, match="where") as raised:
        Filter(where=Where("length(total) > `1`")).matches(ORDER)
    assert "10.5" not in raised.value.sentence


def test_every_clause_of_a_filter_must_hold() -> None:
    clauses = {
        "key_prefix": (("pk", "order#"),),
        "equals": (Equals("status", "paid"),),
        "exists": ("vip",),
        "where": Where("vip"),
    }
    assert Filter(**clauses).matches(ORDER)  # type: ignore[arg-type]
    failing = {
        "key_prefix": (("pk", "x"),),
        "equals": (Equals("status", "x"),),
        "exists": ("x",),
        "where": Where("x"),
    }
    for name, clause in failing.items():
        assert not Filter(**{**clauses, name: clause}).matches(ORDER)  # type: ignore[arg-type]
