"""Keys that are made from a source's keys: never one for two items, read back, and apart where a constant is."""

from __future__ import annotations

import base64
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from replicator.domain.errors import PoisonRecord
from replicator.domain.image import normal_number
from replicator.domain.key_mapping import LONGEST_PARTITION_KEY, LONGEST_SORT_KEY, KeyMapping, key_mapping
from replicator.domain.records import ItemKey, key_of
from replicator.settings.compiled_rules import rules_of, transform_text
from tests.unit.test_table_choices import refusals, settings

MAPPINGS = [
    key_mapping({"pk": "tenant#{pk}", "sk": "{sk}"}),
    key_mapping({"id": "{pk}#{sk:N}"}),
    key_mapping({"id": "o/{sk:N}-/{pk}}}"}),
    key_mapping({"origin": {"constant": "orders"}, "id": "{pk}, {sk:N}"}),
    key_mapping({"sk": "{pk}", "pk": "{sk}"}),
    key_mapping({"pk": "{pk}", "sk": "{pk}é{sk:N}"}),
    key_mapping({"id": "{pk}2{sk:N}A"}),
]
texts = st.text(st.sampled_from("a#%{}/-,é \n2|") | st.characters(codec="utf-8"), min_size=1, max_size=12)
numbers = st.one_of(
    st.integers(-(10**38) + 1, 10**38 - 1).map(str),
    st.decimals(-1000, 1000, places=3, allow_nan=False).map(str),
    st.sampled_from(["0", "-0", "1E+2", "100", "1.50", "1e-130", "9.9e125"]),
)
keys = st.builds(lambda pk, sk: key_of({"pk": {"S": pk}, "sk": {"N": sk}}), texts, numbers)


def normal(key: ItemKey) -> ItemKey:
    """Equal of keys that are one item's."""
    return ItemKey(tuple((name, kind, normal_number(v) if kind == "N" else v) for name, kind, v in key.parts))


@pytest.mark.parametrize("mapping", MAPPINGS, ids=lambda mapping: mapping.text)
@given(one=keys, two=keys)
@example(key_of({"pk": {"S": "a#1"}, "sk": {"N": "2"}}), key_of({"pk": {"S": "a"}, "sk": {"N": "12"}}))
@example(key_of({"pk": {"S": "%23"}, "sk": {"N": "2"}}), key_of({"pk": {"S": "#"}, "sk": {"N": "2"}}))
@example(key_of({"pk": {"S": "50%"}, "sk": {"N": "2"}}), key_of({"pk": {"S": "50"}, "sk": {"N": "52"}}))
def test_two_items_never_have_one_key_and_every_key_is_read_back(
    mapping: KeyMapping, one: ItemKey, two: ItemKey
) -> None:
    assert (normal(mapping.mapped(one)) == normal(mapping.mapped(two))) == (normal(one) == normal(two))
    back = mapping.source_of(mapping.mapped(one))
    assert back is not None
    assert normal(back) == normal(one)


@given(st.binary(max_size=20), st.binary(max_size=20))
def test_binary_keys_are_told_apart_and_read_back(one: bytes, two: bytes) -> None:
    mapping = key_mapping({"id": "{pk:B}+/{sk:B}"})
    made = [
        key_of(
            {"pk": {"B": base64.b64encode(a).decode() or "AA=="}, "sk": {"B": base64.b64encode(b).decode() or "AA=="}}
        )
        for a, b in ((one, two), (two, one))
    ]
    assert (mapping.mapped(made[0]) == mapping.mapped(made[1])) == (made[0] == made[1])
    assert [mapping.source_of(mapping.mapped(key)) for key in made] == made


def test_a_key_is_what_it_is_documented_to_be() -> None:
    key = key_of({"pk": {"S": "50%#x"}, "sk": {"N": "1.50E2"}})
    assert key_mapping({"id": "o#{pk}#{sk:N}"}).mapped(key) == key_of({"id": {"S": "o#50%25%23x#150"}})
    copied = key_mapping({"sk": "{sk}", "pk": "o#{pk}"}).mapped(key)
    assert copied == key_of({"pk": {"S": "o#50%25#x"}, "sk": {"N": "1.50E2"}})


def test_no_digit_of_an_escaped_character_is_taken_for_what_stands_between() -> None:
    mapping = key_mapping({"id": "{pk}2{sk:N}"})
    key = key_of({"pk": {"S": "50%2"}, "sk": {"N": "7"}})
    assert mapping.mapped(key) == key_of({"id": {"S": "50%25%3227"}})
    assert mapping.source_of(mapping.mapped(key)) == key


def test_a_binary_part_is_its_base64_and_read_back() -> None:
    mapping = key_mapping({"id": "{pk:B}#{sk:N}"})
    key = key_of({"pk": {"B": "+/8="}, "sk": {"N": "7"}})
    assert mapping.mapped(key) == key_of({"id": {"S": "+/8=#7"}})
    assert mapping.source_of(mapping.mapped(key)) == key


@pytest.mark.parametrize(
    ("there", "why"),
    [
        ({"id": {"S": "p#a#1"}}, "another constant"),
        ({"id": {"S": "o#a"}}, "too few parts"),
        ({"id": {"S": "o#a#1#"}}, "no number"),
        ({"id": {"S": "o#a#01"}}, "a number in another form"),
        ({"id": {"S": "o#%41#1"}}, "an escape that is none"),
        ({"id": {"S": "o#%zz#1"}}, "no escape"),
        ({"id": {"S": "o##1"}}, "an empty value"),
        ({"id": {"N": "1"}}, "another type"),
        ({"pk": {"S": "o#a#1"}}, "another attribute"),
    ],
)
def test_what_no_item_can_have_is_no_items_key(there: dict[str, Any], why: str) -> None:
    assert key_mapping({"id": "o#{pk}#{sk:N}"}).source_of(key_of(there)) is None, why


def test_an_attribute_that_is_held_twice_must_agree() -> None:
    mapping = key_mapping({"pk": "{pk}", "sk": "{pk}#{sk:N}"})
    assert mapping.source_of(key_of({"pk": {"S": "a"}, "sk": {"S": "a#1"}})) is not None
    assert mapping.source_of(key_of({"pk": {"S": "b"}, "sk": {"S": "a#1"}})) is None


APART: list[tuple[dict[str, Any], dict[str, Any], bool]] = [
    ({"pk": "a#{pk}"}, {"pk": "b#{pk}"}, True),
    ({"pk": "a#{pk}"}, {"pk": "a#x{pk}"}, False),
    ({"pk": "{pk}#a"}, {"pk": "{pk}#b"}, True),
    ({"pk": "{pk}#a"}, {"pk": "b#{pk}"}, False),
    ({"pk": "{pk}"}, {"pk": "a#{pk}"}, False),
    ({"pk": {"constant": "a"}, "sk": "{pk}"}, {"pk": {"constant": "b"}, "sk": "{pk}"}, True),
    ({"pk": {"constant": "a"}, "sk": "{pk}"}, {"pk": {"constant": "a"}, "sk": "{pk}"}, False),
    ({"pk": {"constant": "a#1"}, "sk": "{pk}"}, {"pk": "a#{pk}", "sk": "{pk}"}, False),
    ({"pk": {"constant": "a#"}, "sk": "{pk}"}, {"pk": "a#{pk}", "sk": "{pk}"}, True),
    ({"pk": "{pk}", "sk": "a#{pk}"}, {"pk": "{pk}", "sk": "b#{pk}"}, True),
    ({"pk": "a#{pk}"}, {"id": "b#{pk}"}, False),
]


@pytest.mark.parametrize(("one", "two", "apart"), APART)
def test_mappings_are_apart_by_what_is_constant_in_one_attribute(
    one: dict[str, Any], two: dict[str, Any], apart: bool
) -> None:
    assert key_mapping(one).meets(key_mapping(two)) is key_mapping(two).meets(key_mapping(one)) is not apart
    assert key_mapping(one).meets(None)


@given(texts, texts, st.sampled_from(APART))
def test_keys_of_mappings_that_are_apart_never_meet(pk: str, other: str, case: tuple[Any, Any, bool]) -> None:
    one, two = key_mapping(case[0]), key_mapping(case[1])
    there = one.mapped(key_of({"pk": {"S": pk}}))
    if case[2]:
        assert there != two.mapped(key_of({"pk": {"S": other}}))
        assert two.source_of(there) is None


def test_a_key_that_is_too_long_or_of_another_kind_is_refused() -> None:
    mapping = key_mapping({"pk": "o#{pk}", "sk": "#{pk}"})
    fits = "é" * ((LONGEST_SORT_KEY - 1) // 2)
    assert mapping.source_of(mapping.mapped(key_of({"pk": {"S": fits}}))) is not None
    with pytest.raises(PoisonRecord, match="sk has 1025 bytes, and DynamoDB takes 1024"):
        mapping.mapped(key_of({"pk": {"S": fits + "aa"}}))
    with pytest.raises(PoisonRecord, match=f"pk has 2049 bytes, and DynamoDB takes {LONGEST_PARTITION_KEY}"):
        key_mapping({"pk": "o#{pk}"}).mapped(key_of({"pk": {"S": "a" * 2047}}))
    with pytest.raises(PoisonRecord, match="pk has type N, and the key mapping takes it for S"):
        mapping.mapped(key_of({"pk": {"N": "1"}}))
    with pytest.raises(PoisonRecord, match="two items could have one key"):
        mapping.mapped(key_of({"pk": {"S": "a"}, "sk": {"S": "b"}}))


@pytest.mark.parametrize(
    ("written", "words"),
    [
        ({"pk": "x"}, "key.pk: 'x' has no placeholder; write {constant: x}"),
        ({"pk": "{a}{b}"}, "nothing between them"),
        ({"pk": "{a}%{b}"}, "a % between two placeholders"),
        ({"pk": "{a:X}"}, "none of {name}"),
        ({"pk": "{}"}, "none of {name}"),
        ({"pk": "{a!r}"}, "none of {name}"),
        ({"pk": "{a"}, "key.pk: "),
        ({"pk": {"constant": "x"}}, "every item would have one key"),
    ],
)
def test_a_mapping_that_could_not_be_read_back_is_refused(written: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words.replace("{", r"\{").replace(".", r"\.")):
        key_mapping(written)


def test_mappings_are_one_when_they_are_written_alike() -> None:
    """A configuration that is read again makes no other rule of it."""
    one, two = (settings(merging("orders", {"pk": text})) for text in ("o#{pk}",) * 2)
    assert rules_of(one) == rules_of(two)
    assert rules_of(one) != rules_of(settings(merging("orders", {"pk": "p#{pk}"})))


def test_types_at_the_target_follow_the_sources() -> None:
    mapping = key_mapping({"pk": "o#{pk}", "sk": "{sk}"})
    assert mapping.kinds({"pk": "S", "sk": "N"}) == [("pk", "S"), ("sk", "N")]
    assert mapping.mistyped({"pk": "N", "sk": "N"}) == [("pk", "N")]
    assert key_mapping({"id": "{pk}#{sk:N}"}).mistyped({"pk": "S", "sk": "N"}) == []


# -- as the file writes them -----------------------------------------------------------------------------------------


def merging(name: str, key: dict[str, Any] | None, **more: Any) -> dict[str, Any]:
    replica = {"region": "eu", "table": "all", **({} if key is None else {"transform": {"key": key}})}
    return {"name": name, "table": name, "source": "us", "replicas": [replica], **more}


def test_two_rules_write_one_table_under_keys_that_are_apart() -> None:
    read = settings(merging("orders", {"pk": "o#{pk}"}), merging("bills", {"pk": "b#{pk}"}))
    assert [target.keys is not None for rule in rules_of(read) for target in rule.targets] == [True, True]


@pytest.mark.parametrize("key", [None, {"pk": "{pk}"}, {"pk": "o#{pk}"}, {"pk": "o#x{pk}"}, {"id": "b#{pk}"}])
def test_two_rules_whose_keys_may_meet_are_refused(key: dict[str, Any] | None) -> None:
    said = refusals(merging("orders", {"pk": "o#{pk}"}), merging("bills", key))
    assert "table 'all' in region 'eu' is already written by rule 'orders'; two rules write one table only" in said


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"primary_key": ["pk", "sk"]}, "transform.key: lacks sk of the primary key, so two items could have one key"),
        ({"primary_key": ["id"]}, "transform.key: names pk, which is no attribute of the primary key"),
        (
            {"events": [{"to": "sqs", "queue": "q", "transform": {"key": {"a": "{pk}"}}}]},
            "Extra inputs are not permitted",
        ),
    ],
)
def test_a_mapping_that_the_file_shows_to_be_wrong_is_refused(more: dict[str, Any], words: str) -> None:
    assert words in refusals(merging("orders", {"pk": "o#{pk}"}, **more))


def test_an_entry_that_is_refreshed_beside_a_mapped_replica_is_named_by_its_keys() -> None:
    caches = {"eu_main": {"region": "eu", "url": "redis://localhost"}}

    def cached(key: str) -> dict[str, Any]:
        action = {"cache": "eu_main", "key": key, "action": "refresh"}
        return merging("orders", {"id": "o#{pk}"}, primary_key=["pk"], cache=[action])

    settings(cached("all:{id}"), caches=caches)
    assert "lacks id of the primary key" in refusals(cached("all:{pk}"), caches=caches)


def test_a_transform_without_a_key_has_the_digest_that_it_had_before_keys_could_be_mapped() -> None:
    read = settings(merging("orders", None) | {"replicas": [{"region": "eu", "transform": {"drop": ["a"]}}]})
    (rule,) = rules_of(read)
    assert '"key"' not in transform_text(read, read.rules[0], rule.targets[0])


@pytest.mark.parametrize("value", ["NaN", "Infinity"])
def test_a_number_that_is_none_has_no_key(value: str) -> None:
    with pytest.raises(PoisonRecord, match="invalid number"):
        key_mapping({"id": "{pk}#{sk:N}"}).make(key_of({"pk": {"S": "a"}, "sk": {"N": value}}))
