"""Keys as operators type them."""

from __future__ import annotations

import pytest

from replicator.operations.item_key import KeyInvalid, parse_key

BOTH = (("pk", "S"), ("sk", "N"))
NUMBER = (("id", "N"),)


@pytest.mark.parametrize(
    ("text", "schema", "parts"),
    [
        ('{"pk": "a", "sk": 1}', BOTH, (("pk", "S", "a"), ("sk", "N", "1"))),
        ('{"sk": {"N": "1.0"}, "pk": {"S": "a"}}', BOTH, (("pk", "S", "a"), ("sk", "N", "1"))),
        ("10.0", NUMBER, (("id", "N", "10"),)),
        ('{"id": 1e2}', NUMBER, (("id", "N", "100"),)),
        ("-0.5e-3", NUMBER, (("id", "N", "-0.0005"),)),
        ("plain text", (("name", "S"),), (("name", "S", "plain text"),)),
        ("pk=a, b=c, sk=7", BOTH, (("pk", "S", "a, b=c"), ("sk", "N", "7"))),
        ("pk=a,sk=7", BOTH, (("pk", "S", "a"), ("sk", "N", "7"))),
        ("sk=7, pk=a, b", BOTH, (("pk", "S", "a, b"), ("sk", "N", "7"))),
        ("id=10", NUMBER, (("id", "N", "10"),)),
        ("name", (("name", "S"),), (("name", "S", "name"),)),
        ("AAE=", (("raw", "B"),), (("raw", "B", "AAE="),)),
    ],
)
def test_a_key_is_plain_json_dynamodb_json_or_the_value_of_a_simple_key(
    text: str, schema: tuple[tuple[str, str], ...], parts: tuple[tuple[str, str, str], ...]
) -> None:
    assert parse_key(text, schema).parts == parts


@pytest.mark.parametrize("text", ["a", '{"pk": "a"}', '{"pk": "a", "sk": "x"}', '{"pk": {"N": "1"}, "sk": 1}', "{"])
def test_what_is_no_key_of_the_table_is_refused_with_what_one_looks_like(text: str) -> None:
    with pytest.raises(KeyInvalid) as refused:
        parse_key(text, BOTH)
    assert refused.value.advice == """The key is pk (S), sk (N): write 'pk=a, sk=1', or '{"pk": "a", "sk": 1}'."""


@pytest.mark.parametrize("text", ["NaN", "Infinity", "abc", "1e126", "1e-131", "9" * 39, '{"id": 1e99999}'])
def test_what_is_no_number_of_dynamodb_is_refused(text: str) -> None:
    with pytest.raises(KeyInvalid, match="has a value of the wrong type"):
        parse_key(text, NUMBER)


@pytest.mark.parametrize("text", ["?", "A", '{"raw": 1}'])
def test_what_is_no_base64_is_refused(text: str) -> None:
    with pytest.raises(KeyInvalid):
        parse_key(text, (("raw", "B"),))
