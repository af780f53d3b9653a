"""Plans: what is needed follows from what differs, and items are judged as the daemon would judge them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from replicator.domain.filters import Filter, Where
from replicator.domain.identifiers import RegionId, RuleName, TableName
from replicator.domain.image import Image, stamped
from replicator.domain.modes.ordered import InsertGuard, OrderedPolicy
from replicator.domain.plans import Estimate, Fate, Needs, Running, View, changes, effect, estimated, running
from replicator.domain.records import ItemKey
from replicator.domain.rules import Rule
from replicator.domain.targets import TargetKind
from replicator.domain.transforms import Transform
from replicator.domain.values import replace
from replicator.domain.versions import ordered_version

EU = View("orders", "orders/replica/eu:orders", TargetKind.REPLICA, "ordered", "us:orders", aspects={"filter": "a"})
AP = replace(EU, target="orders/replica/ap:orders")
NAMED = replace(EU, rule="new", target="new/replica/eu:orders")
OTHER = replace(EU, rule="new", target="new/replica/eu:x")
CACHES = View("orders", "orders/source_caches/us", TargetKind.SOURCE_CACHES, "ordered", "us:orders")
MESH = View("orders", "orders/mesh/eu+us", TargetKind.MESH, "versioned", "eu:orders+us:orders")


@pytest.mark.parametrize(
    ("old", "new", "needed"),
    [
        ([EU], [EU], []),
        ([EU], [EU, AP], [(AP.target, Needs.BOOTSTRAP)]),
        ([EU], [EU, CACHES], [(CACHES.target, Needs.NOTHING)]),
        ([EU, AP], [EU], [(AP.target, Needs.NOTHING)]),
        ([EU], [replace(EU, aspects={"filter": "b"})], [(EU.target, Needs.REPAIR)]),
        ([EU], [replace(EU, aspects={"filter": "a", "transform": "t"})], [(EU.target, Needs.REPAIR)]),
        ([EU], [replace(EU, source="ap:orders", epoch=1)], [(EU.target, Needs.REPAIR)]),
        ([EU], [MESH], [(MESH.target, Needs.REBUILD), (EU.target, Needs.NOTHING)]),
        ([EU], [NAMED], [("", Needs.RENAME)]),
        ([EU], [OTHER], [(OTHER.target, Needs.BOOTSTRAP), ("", Needs.FORGET)]),
        ([], [MESH], [(MESH.target, Needs.BOOTSTRAP)]),
    ],
)  # fmt: skip
def test_what_is_needed_follows_from_what_differs(
    old: list[View], new: list[View], needed: list[tuple[str, Needs]]
) -> None:
    assert [(step.target, step.needs) for step in changes(old, new)] == needed


def test_why_names_what_changed_and_how_to_go_on() -> None:
    moved = replace(EU, source="ap:orders", aspects={})
    (lowered,), (raised,) = changes([EU], [moved]), changes([EU], [replace(moved, epoch=1)])
    assert "Raise `epoch`" in lowered.why
    assert "Raise `epoch`" not in raised.why
    (changed,) = changes([EU], [replace(EU, aspects={"filter": "b", "transform": "t"})])
    assert "filter, transform" in changed.why
    assert changed.command == "replicator repair orders"
    (renamed,) = changes([EU], [NAMED])
    assert renamed.command == "replicator rules rename orders new"


def test_a_name_is_taken_over_by_one_rule_only() -> None:
    new = [replace(EU, rule=name, target=f"{name}/replica/eu:orders") for name in ("one", "two")]
    assert sorted(step.needs for step in changes([EU], new)) == [Needs.BOOTSTRAP, Needs.RENAME]


# -- items -----------------------------------------------------------------------------------------------------------

KEY = ItemKey((("pk", "S", "a"),))
RULE = Rule(RuleName("orders"), RegionId("us"), TableName("orders"), (), filter=Filter(where=Where("size != 'none'")))


def image(**attributes: str) -> Image:
    return Image(json.dumps({"pk": {"S": "a"}, **{name: {"S": value} for name, value in attributes.items()}}).encode())


def held(**attributes: str) -> Image:
    return Image(stamped(image(**attributes), ordered_version(0, 1, 7)))


@pytest.mark.parametrize(
    ("source", "there", "fate", "attributes", "units"),
    [
        (image(a="1"), None, Fate.ADDED, ("+a", "+pk"), 4),
        (image(a="1"), held(a="1"), Fate.SAME, (), 0),
        (image(a="1", b="2"), held(a="2", c="3"), Fate.CHANGED, ("~a", "+b", "-c"), 1),
        (image(a="x" * 1500), held(a="1"), Fate.CHANGED, ("~a",), 2),
        (image(size="none"), held(a="1"), Fate.REMOVED, (), 2),
        (image(size="none"), None, Fate.LEFT_OUT, (), 0),
    ],
)
def test_what_becomes_of_an_item(
    source: Image, there: Image | None, fate: Fate, attributes: tuple[str, ...], units: int
) -> None:
    found = effect(RULE, None, KEY, source, there)
    assert (found.fate, found.attributes, found.units) == (fate, attributes, units)


def test_a_transform_is_what_is_compared_and_what_cannot_be_transformed_is_said() -> None:
    dropping = Transform(drop=frozenset({"b"}))
    assert effect(RULE, dropping, KEY, image(a="1", b="2"), held(a="1")).fate is Fate.SAME
    found = effect(RULE, Transform(rename=(("a", "b"),)), KEY, image(a="1", b="2"), None)
    assert (found.fate, "renamed to it" in found.why, found.wanted) == (Fate.PARKED, True, None)


def test_probing_costs_half() -> None:
    probing = replace(RULE, policy=OrderedPolicy(insert_guard=InsertGuard.PROBE))
    assert effect(probing, None, KEY, image(a="1"), None).units == 1


def test_an_estimate_goes_by_the_sample_where_there_is_one() -> None:
    effects: list[Any] = [effect(RULE, None, KEY, image(a="1"), there) for there in (None, held(a="1"))]
    assert estimated(100, 7, effects, 400) == Estimate(100, 7, 200, 2)
    assert estimated(100, 7, [], 400) == Estimate(100, 7, 400)


def test_keys_that_are_made_in_another_way_need_another_table() -> None:
    (step,) = changes([replace(EU, aspects={"key": "a"})], [replace(EU, aspects={"key": "b"})])
    assert (step.needs, step.target) == (Needs.REBUILD, EU.target)
    assert "use another table" in step.why


def test_what_a_target_takes_a_day_goes_by_the_rate_of_its_source() -> None:
    assert running(0.5, 2) == Running(0.5, 86_400)
