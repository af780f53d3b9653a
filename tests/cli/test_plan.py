"""`replicator plan OLD NEW`: what a changed file needs, without the network."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.cli.worlds import World


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World("http://127.0.0.1:1", "redis://127.0.0.1:1", "1", tmp_path)


def files(world: World, **changed: Any) -> tuple[str, str]:
    """The file as it is, and one with other keys of its rule."""
    old = world.path.rename(world.directory / "old.yaml")
    world.rule.update(changed)
    return str(old), str(world.path)


@pytest.mark.parametrize(
    ("changed", "needs"),
    [
        ({}, []),
        ({"start": "latest", "on_gap": "stop"}, []),
        ({"filter": {"exists": ["a"]}}, [("orders/replica/eu:orders", "repair")]),
        ({"replicas": [{"region": "eu", "transform": {"drop": ["a"]}}]}, [("orders/replica/eu:orders", "repair")]),
        (
            {"replicas": [{"region": "eu", "table": "copy"}]},
            [("orders/replica/eu:copy", "bootstrap"), ("orders/replica/eu:orders", "nothing")],
        ),
        ({"name": "renamed"}, [("", "rename")]),
        ({"table": "orders-*"}, [("orders/replica/eu:orders-*", "bootstrap"), ("orders/replica/eu:orders", "nothing")]),
    ],
)
def test_what_two_files_differ_in_is_named(world: World, changed: dict[str, Any], needs: list[tuple[str, str]]) -> None:
    planned = world.run("plan", *files(world, **changed), "--json")
    assert [(step["target"], step["needs"]) for step in planned.json["steps"]] == needs
    assert planned.code == bool(needs)


def test_another_group_begins_anew(world: World) -> None:
    old = world.path.rename(world.directory / "old.yaml")
    world.config["group"] = "other"
    planned = world.run("plan", str(old), str(world.path))
    assert (planned.code, "group was test and is other" in planned.output) == (1, True), planned.said


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--sample", "3"), "without looking at items"),
        (("third.yaml",), "two files at most"),
        (("--sample", "5000"), "1000"),
    ],
)
def test_a_plan_that_makes_no_sense_is_refused(world: World, arguments: tuple[str, ...], words: str) -> None:
    refused = world.run("plan", *files(world), *arguments)
    assert (refused.code, words in refused.errors) == (2, True), refused.said
