"""What is said of an expression without an item: what is called impossible is so, and what may be meant is let be."""

from __future__ import annotations

import jmespath
import pytest
from hypothesis import given
from hypothesis import strategies as st

from replicator.domain.filter_analysis import doubts, mistakes

MISTAKES = [
    ('status == "active"', "double quotes"),
    ('"active" == status', "double quotes"),
    ('order.status != "active"', "double quotes"),
    ('contains(tags, "x")', "double quotes"),
    ('starts_with(sk, "order")', "double quotes"),
    ('lines[?sku == "a"]', "double quotes"),
    ("a == 'x' && (b || !(c == \"y\"))", "double quotes"),
    ("active == true", "true or false"),
    ("false != archived", "true or false"),
    ("total > `true`", "neither number nor text"),
    ("total <= `null`", "neither number nor text"),
    ("`false`", "never hold"),
    ("'a' == 'b'", "never hold"),
    ("a == 'x' && a == 'y'", "never hold"),
    ("a == 'x' && b && a == 'y'", "never hold"),
    ("a.b == `1` && a.b == `true`", "never hold"),
    ("status && ''", "never hold"),
    ("`null` || `[]`", "never hold"),
    ("!`true`", "never hold"),
    ("status | `false`", "never hold"),
    ("length('abc') == `4`", "never hold"),
]


@pytest.mark.parametrize(("expression", "words"), MISTAKES)
def test_a_mistake_is_named(expression: str, words: str) -> None:
    (found,) = mistakes(expression)
    assert words in found


@pytest.mark.parametrize(
    "expression",
    [
        "\"status\" == 'active'",
        "total > `100` && status.name != 'draft'",
        "contains(['eu', 'uk'], market)",
        "created >= '2026-01-01'",
        '"a.b" == null && "日本"',
        "a == null",
        "a == `1` && a == `1.0`",
        "a == 'x' || a == 'y'",
        "a == 'x' && b == 'y'",
        "!(a == 'x')",
        "length(lines[?count > `1`]) > `0`",
        "lines[*].sku | contains(@, 'a')",
        "starts_with(sk, 'x')",
        "not_null(a, b) == 'c'",
        "lines[0:2]",
        "abs('x') == `1`",
        "vip",
    ],
)
def test_what_may_be_meant_is_neither_mistake_nor_doubt(expression: str) -> None:
    assert mistakes(expression) == doubts(expression) == []


@pytest.mark.parametrize(
    ("expression", "words"),
    [
        ("status == active", "two attributes"),
        ("total > paid", "two attributes"),
        ('status == "in transit"', "two attributes"),
        ("contains(tags, tag)", "two attributes"),
        ("`true`", "every item"),
        ("vip || !`false`", "every item"),
    ],
)
def test_what_may_surprise_is_a_doubt(expression: str, words: str) -> None:
    assert mistakes(expression) == []
    (doubt,) = doubts(expression)
    assert words in doubt


def test_no_sentence_repeats_the_expression() -> None:
    said = [
        *mistakes('status == "correcthorse"'),
        *doubts("status == correcthorse"),
        *mistakes("'correcthorse' == 'x'"),
    ]
    assert said
    assert "correcthorse" not in "".join(said)


terms = st.sampled_from(
    [
        "a",
        "b.c",
        "'x'",
        "'y'",
        "`1`",
        "`true`",
        "`false`",
        "`null`",
        "''",
        "a == 'x'",
        "a == 'y'",
        "b == `1`",
        "'x' == 'y'",
    ]
)
expressions = st.recursive(
    terms,
    lambda inner: (
        st.tuples(inner, inner).map(lambda pair: f"({pair[0]} && {pair[1]})")
        | st.tuples(inner, inner).map(lambda pair: f"({pair[0]} || {pair[1]})")
        | inner.map(lambda one: f"!({one})")
    ),
    max_leaves=6,
)
values = st.sampled_from(["x", "y", "", 1, 1.0, 2, True, False, None, [], ["x"], {}, {"c": "x"}])
documents = st.dictionaries(st.sampled_from(["a", "b", "x"]), values)


@given(expressions, documents)
def test_what_is_called_impossible_matches_no_item_and_what_holds_always_every_one(
    expression: str, document: dict[str, object]
) -> None:
    found = jmespath.search(expression, document)
    holds = found is not None and found is not False and found not in ("", [], {})
    if any("never hold" in sentence for sentence in mistakes(expression)):
        assert not holds
    if any("every item" in doubt for doubt in doubts(expression)):
        assert holds
