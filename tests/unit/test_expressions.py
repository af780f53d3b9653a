"""Expressions stay within what DynamoDB takes, whatever they are made of."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from replicator.adapters.dynamodb.coordination.changes import Change, text
from replicator.adapters.dynamodb.expressions import LONGEST_EXPRESSION, MOST_OPERATORS, as_shown
from replicator.settings.cross_checks import MOST_TARGETS


def stated(members: bytes) -> dict[str, Any]:
    whole: dict[str, Any] = json.loads(b"{" + members + b"}")
    return whole


def operators(expression: str) -> int:
    """As DynamoDB counts them: comparisons, functions and what joins them."""
    return len(re.findall(r" = | AND | OR |NOT |attribute_\w+\(", expression))


names = st.lists(st.text(min_size=1, max_size=8), max_size=700, unique=True)


@given(names, names, st.booleans())
def test_what_was_shown_is_stated_within_the_bounds_of_an_expression(
    before: list[str], after: list[str], deletes: bool
) -> None:
    shown = {"pk": {"S": "k"}, **{name: {"S": "old"} for name in before}}
    written = {} if deletes else {"pk": {"S": "k"}, **{name: {"S": "new"} for name in after}}
    condition = stated(as_shown(shown, written, "pk"))
    expression = condition["ConditionExpression"]
    assert len(expression.encode()) <= LONGEST_EXPRESSION
    assert operators(expression) <= MOST_OPERATORS
    asked = set(condition["ExpressionAttributeNames"].values())
    assert asked
    assert asked <= shown.keys() | written.keys()
    assert {place.replace(":", "#") for place in condition["ExpressionAttributeValues"]} <= set(
        condition["ExpressionAttributeNames"]
    )


@pytest.mark.parametrize("fields", [1, 100, 148, 149, 150, 160, 600])
def test_what_a_write_would_take_away_is_stated_first(fields: int) -> None:
    same = {f"a{number}": {"S": "same"} for number in range(600)}
    shown = {**same, **{f"z{number}": {"S": "old"} for number in range(fields)}}
    condition = stated(as_shown(shown, same, "pk"))
    asked = list(condition["ExpressionAttributeNames"].values())
    assert len(asked) == MOST_OPERATORS // 2
    assert [name for name in asked if name.startswith("z")] == sorted(name for name in shown if name.startswith("z"))[
        : MOST_OPERATORS // 2
    ]


def test_many_attributes_that_a_write_adds_stay_within_the_bounds() -> None:
    written = {f"a{number}": {"S": "new"} for number in range(600)}
    condition = stated(as_shown({"pk": {"S": "k"}}, written, "pk"))
    assert len(condition["ConditionExpression"].encode()) <= LONGEST_EXPRESSION
    assert operators(condition["ConditionExpression"]) <= MOST_OPERATORS


def test_attributes_that_a_write_adds_are_stated_to_be_missing() -> None:
    condition = stated(as_shown({"pk": {"S": "k"}}, {"pk": {"S": "k"}, "new": {"S": "x"}}, "pk"))
    assert condition["ConditionExpression"] == "attribute_not_exists(#0) AND #1 = :1"
    assert condition["ExpressionAttributeNames"] == {"#0": "new", "#1": "pk"}


def test_positions_of_as_many_targets_as_a_table_may_have_fit_one_update() -> None:
    """Twice as many names: a rewind sets a position and a bound for each."""
    change = Change(
        sets={f"at:{number}": text("x") for number in range(2 * MOST_TARGETS)},
        when={"owner": text("me"), "epoch": text("1")},
    )
    assert len(change.request()["UpdateExpression"]) <= LONGEST_EXPRESSION
