"""Transforms: the key stays, what is not named stays byte for byte, and no two attributes become one."""

from __future__ import annotations

import hmac
import json
from hashlib import sha256
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from replicator.domain.coalescing import Run, plan_run
from replicator.domain.errors import MalformedRecord, PoisonRecord
from replicator.domain.identifiers import RegionId, RuleName, SequenceNumber, TableName
from replicator.domain.image import Image, canonical_value
from replicator.domain.key_mapping import key_mapping
from replicator.domain.records import ChangeRecord, Event, ItemKey
from replicator.domain.rules import Rule, Target
from replicator.domain.transforms import Transform, held_under, shaped, shaped_if_it_can_be
from replicator.settings.transforms import ReplicaTransform, TransformSettings
from tests.unit.strategies import Typed, values

KEY = ItemKey((("pk", "S", "a"),))
HELD = {"pk": {"S": "a"}}
NAMES = ("a", "b", "c", "d")
SECRET = b"a secret of tests"


def image(**attributes: Typed) -> Image:
    return Image(json.dumps({**HELD, **attributes}).encode())


def after(transform: Transform, **attributes: Typed) -> dict[str, Any]:
    return dict(transform.apply(KEY, image(**attributes)).attributes)


items = st.dictionaries(st.sampled_from(NAMES), values(), max_size=4)
subsets = st.frozensets(st.sampled_from(NAMES))


@given(items, subsets, subsets, subsets)
def test_what_is_left_is_what_is_kept_and_neither_dropped_nor_changed_unless_it_is_masked(
    item: dict[str, Typed], project: frozenset[str], drop: frozenset[str], masked: frozenset[str]
) -> None:
    found = Transform(project=project, drop=drop, masked=masked, secret=SECRET).apply(KEY, image(**item))
    raw = msgspec.json.decode(found.wire, type=dict[str, msgspec.Raw])
    came = msgspec.json.decode(image(**item).wire, type=dict[str, msgspec.Raw])
    assert raw.keys() == {"pk"} | ((item.keys() & project) - drop)
    assert {name: raw[name] for name in raw.keys() - masked} == {name: came[name] for name in raw.keys() - masked}
    assert all(json.loads(bytes(raw[name])).keys() == {"S"} for name in raw.keys() & masked)


@given(values(), values())
def test_masks_are_equal_exactly_where_values_are(one: Typed, other: Typed) -> None:
    transform = Transform(masked=frozenset({"a"}), secret=SECRET)
    same = after(transform, a=one)["a"] == after(transform, a=other)["a"]
    assert same == (canonical_value(one) == canonical_value(other))
    assert after(Transform(masked=frozenset({"a"}), secret=b"another"), a=one) != after(transform, a=one)


def test_a_mask_is_the_keyed_digest_that_is_documented() -> None:
    """The value in its normal form is the message: readers that know the secret can make it, too."""
    mask = after(Transform(masked=frozenset({"a"}), secret=SECRET), a={"N": "1.10"})["a"]["S"]
    assert mask == hmac.new(SECRET, b'["N","1.1"]', sha256).hexdigest()


def test_names_are_exchanged_and_constants_win() -> None:
    transform = Transform(rename=(("a", "b"), ("b", "a")), constant=(("c", b'{"S":"always"}'),))
    assert after(transform, a={"S": "1"}, b={"S": "2"}, c={"S": "own"}) == {
        **HELD, "b": {"S": "1"}, "a": {"S": "2"}, "c": {"S": "always"},
    }  # fmt: skip


@pytest.mark.parametrize("names", [("a", "b"), ("b", "a")])
def test_an_attribute_in_the_way_of_a_renamed_one_is_no_silent_loss(names: tuple[str, str]) -> None:
    item = image(**{name: {"S": name} for name in names})
    with pytest.raises(PoisonRecord, match="renamed to it"):
        Transform(rename=(("a", "b"),)).apply(KEY, item)
    assert shaped_if_it_can_be(Transform(rename=(("a", "b"),)), KEY, item) is None


@pytest.mark.parametrize(
    "transform",
    [
        Transform(drop=frozenset({"pk"})),
        Transform(masked=frozenset({"pk"})),
        Transform(rename=(("pk", "x"),)),
        Transform(rename=(("x", "pk"),)),
        Transform(constant=(("pk", b'{"S":"x"}'),)),
    ],
)
def test_the_key_stays_as_it_is(transform: Transform) -> None:
    with pytest.raises(PoisonRecord, match="an attribute of the key"):
        transform.apply(KEY, image())
    assert after(Transform(project=frozenset({"a"}))) == HELD


MAPPED = key_mapping({"id": "o#{pk}"})


def test_a_mapped_key_is_set_last_and_what_the_sources_key_held_is_an_attribute_like_others() -> None:
    assert after(Transform(key=MAPPED), x={"N": "1"}) == {**HELD, "x": {"N": "1"}, "id": {"S": "o#a"}}
    assert after(Transform(key=MAPPED, drop=frozenset({"pk"}))) == {"id": {"S": "o#a"}}
    assert after(Transform(key=MAPPED, project=frozenset({"x"}))) == {"id": {"S": "o#a"}}
    assert after(Transform(key=MAPPED, rename=(("pk", "from"),))) == {"from": {"S": "a"}, "id": {"S": "o#a"}}
    assert after(Transform(key=key_mapping({"pk": "o#{pk}"}))) == {"pk": {"S": "o#a"}}


def test_an_attribute_in_the_way_of_the_targets_key_is_no_silent_loss() -> None:
    with pytest.raises(PoisonRecord, match="the key there has that name"):
        after(Transform(key=MAPPED), id={"S": "own"})
    renamed = Transform(key=MAPPED, rename=(("id", "own"),), drop=frozenset({"pk"}))
    assert after(renamed, id={"S": "own"}) == {"own": {"S": "own"}, "id": {"S": "o#a"}}
    assert after(Transform(key=MAPPED, drop=frozenset({"id", "pk"})), id={"S": "own"}) == {"id": {"S": "o#a"}}
    for clash in (
        Transform(key=MAPPED, constant=(("id", b'{"S":"x"}'),)),
        Transform(key=MAPPED, rename=(("x", "id"),)),
        Transform(key=MAPPED, masked=frozenset({"pk"})),
    ):
        with pytest.raises(PoisonRecord):
            after(clash)


def test_a_key_that_can_have_no_place_there_is_held_nowhere() -> None:
    long = ItemKey((("pk", "S", "a" * 2048),))
    transform = Transform(key=MAPPED)
    assert held_under(transform, long) is None
    assert shaped_if_it_can_be(transform, long, Image(long.wire)) is None
    assert held_under(transform, KEY) == ItemKey((("id", "S", "o#a"),))
    assert held_under(Transform(), KEY) is held_under(None, KEY) is KEY


def test_what_is_no_image_is_malformed() -> None:
    with pytest.raises(MalformedRecord):
        Transform().apply(KEY, Image(b"{"))
    with pytest.raises(MalformedRecord):
        Transform(masked=frozenset({"a"})).apply(KEY, Image(b'{"pk":{"S":"a"},"a":7}'))


def test_without_a_transform_images_are_the_same_objects() -> None:
    item = image(a={"S": "1"})
    assert shaped(None, KEY, item) is item
    assert shaped_if_it_can_be(None, KEY, item) is item
    assert shaped_if_it_can_be(Transform(), KEY, None) is None


def test_no_secret_is_shown() -> None:
    assert "secret of tests" not in repr(Transform(secret=SECRET))


def test_a_filter_judges_what_the_source_holds_and_versions_are_untouched() -> None:
    name = RuleName("orders")
    rule = Rule(name, RegionId("us"), TableName("orders"), (Target(name, RegionId("eu"), TableName("orders")),))
    old, new = image(a={"S": "1"}, b={"S": "2"}), image(a={"S": "3"}, b={"S": "4"})
    run = Run(KEY, (ChangeRecord(Event.MODIFY, KEY, old, new, SequenceNumber("7"), 1.0),))
    plain, changed = plan_run(rule, run, 1), plan_run(rule, run, 1, Transform(drop=frozenset({"b"})))
    assert plain is not None
    assert changed is not None
    assert (changed.version, changed.action, changed.key) == (plain.version, plain.action, plain.key)
    assert changed.new is not None
    assert changed.old is not None
    assert changed.new.attributes == {**HELD, "a": {"S": "3"}}
    assert changed.old.attributes == {**HELD, "a": {"S": "1"}}


# -- as they are written ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("written", "words"),
    [
        ({}, "does nothing"),
        ({"drop": ["_rep"]}, "kept for replication"),
        ({"constant": {"aws:rep:x": 1}}, "kept for replication"),
        ({"drop": ["a"], "rename": {"a": "b"}}, "changes a, which is left out before"),
        ({"project": ["a"], "mask": {"attributes": ["b"], "hmac": "key"}}, "changes b, which is left out before"),
        ({"rename": {"a": "x", "b": "x"}}, "gives the name x to two attributes"),
        ({"rename": {"a": "x"}, "constant": {"x": 1}}, "gives the name x to two attributes"),
        ({"constant": {"x": 10**39}}, "that DynamoDB cannot hold"),
        ({"constant": {"x": 1e300}}, "that DynamoDB cannot hold"),
        ({"key": {}}, "at least 1 item"),
        ({"key": {"a": "{a}", "b": "{b}", "c": "{c}"}}, "at most 2 items"),
        ({"key": {"pk": "x"}}, r"key\.pk: 'x' has no placeholder"),
        ({"key": {"pk": {"constant": ""}}}, "at least 1 character"),
        ({"key": {"_rep": "{pk}"}}, "kept for replication"),
        ({"key": {"pk": "{pk}"}, "constant": {"pk": 1}}, "gives a value to pk, which key sets"),
        ({"key": {"pk": "{pk}"}, "rename": {"a": "pk"}}, "gives a value to pk, which key sets"),
        ({"key": {"id": "{pk}"}, "mask": {"attributes": ["pk"], "hmac": "key"}}, "masks pk, and shows it in key"),
    ],
)
def test_a_transform_that_makes_no_sense_is_refused(written: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        ReplicaTransform.model_validate(written)


def test_scalars_of_every_kind_can_be_constants() -> None:
    written = {"constant": {"a": "text", "b": True, "c": 7, "d": 0.5, "e": None, "f": 0}}
    assert set(TransformSettings.model_validate(written).touched) == set("abcdef")
