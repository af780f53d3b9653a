"""What differs between two configurations, and what of it can be applied to a daemon that runs."""

from __future__ import annotations

from typing import Any

import pytest

from replicator.app.reload import not_live
from replicator.settings import Settings
from replicator.settings.changes import changes

US = {"region": "us-east-1"}
EU = {"region": "eu-west-1"}
AP = {"region": "ap-south-1"}
ORDERS = {"name": "orders", "table": "orders", "source": "us", "replicas": ["eu"]}
USERS = {"name": "users", "table": "users", "source": "us", "replicas": ["eu"]}
BASE: dict[str, Any] = {
    "group": "test",
    "regions": {"us": US, "eu": EU, "ap": AP},
    "coordination": {"region": "us"},
    "caches": {"one": {"region": "eu", "url": "redis://127.0.0.1:1/0"}},
    "rules": [ORDERS, USERS],
}


def settings(**changed: Any) -> Settings:
    return Settings(**{**BASE, **changed})


@pytest.mark.parametrize(
    ("changed", "shown", "reason"),
    [
        ({}, "changes nothing", None),
        ({"rules": [USERS, ORDERS]}, "changes nothing", None),
        ({"rules": [ORDERS, USERS, {**USERS, "name": "new", "table": "new"}]}, "adds new", None),
        ({"rules": [ORDERS, {**USERS, "epoch": 1}]}, "changes users (epoch)", "epoch of rule users"),
        ({"rules": [{**ORDERS, "on_gap": "stop"}, USERS]}, "changes orders (on_gap)", None),
        (
            {"rules": [{**ORDERS, "replicas": [{"region": "eu", "write_units": 5}]}, USERS]},
            "changes orders (replicas)",
            None,
        ),
        ({"rules": [ORDERS]}, "removes users", "Rule users cannot be removed"),
        ({"group": "other"}, "changes group", "group is read at the start only"),
        ({"rules": [{**ORDERS, "replicas": ["eu", "ap"]}, USERS]}, "changes orders (replicas)", "Region ap is used by"),
        (
            {"rules": [{**ORDERS, "cache": [{"cache": "one", "key": "{pk}"}]}, USERS]},
            "changes orders (cache)",
            "Cache one is used by no rule",
        ),
        ({"rules": [ORDERS, USERS, {**USERS, "name": "many", "table": "many-*"}]}, "adds many", "chooses its tables"),
    ],
)
def test_changes_are_named_and_what_cannot_be_applied_now_has_a_reason(
    changed: dict[str, Any], shown: str, reason: str | None
) -> None:
    before, after = settings(), settings(**changed)
    found = changes(before, after)
    assert found.shown == shown
    assert found.are_none == (shown == "changes nothing")
    reasons = not_live(before, after, found)
    assert (reasons == []) if reason is None else any(reason in each for each in reasons)


def test_a_value_is_never_shown() -> None:
    other = {"one": {"region": "eu", "url": "redis://:planted-secret@127.0.0.1:2/0"}}
    found = changes(settings(), settings(caches=other))
    assert found.shown == "changes caches"
