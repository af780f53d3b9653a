"""What differs between two configurations, and what of it can be applied to a daemon that runs."""

from __future__ import annotations

from hashlib import sha256
from typing import Any

import pytest

from replicator.app.reload import Known, not_live
from replicator.settings import Settings
from replicator.settings.changes import changes
from replicator.settings.compiled_rules import meanings_of

US = {"region": "us-east-1"}
EU = {"region": "eu-west-1"}
AP = {"region": "ap-south-1"}
ORDERS = {"name": "orders", "table": "orders", "source": "us", "replicas": ["eu"]}
USERS = {"name": "users", "table": "users", "source": "us", "replicas": ["eu"]}
ONE = {"region": "eu", "url": "redis://127.0.0.1:1/0"}
TOKEN = "0123456789abcdef0123456789abcdef"
LIVE_TOKEN = "changes admin.api.tokens.al, secrets.s"
MASK = {"mask": {"attributes": ["name"], "hmac": "s"}}
BASE: dict[str, Any] = {
    "group": "test",
    "regions": {"us": US, "eu": EU, "ap": AP},
    "coordination": {"region": "us"},
    "caches": {"one": ONE},
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
        ({"rules": [ORDERS]}, "removes users", None),  # what is stored of it decides
        ({"group": "other"}, "changes group", "group is read at the start only"),
        ({"polling": {"page": 10}, "drain": "9s"}, "changes polling.page, drain", "polling.page is read at the start"),
        ({"log": {"level": "debug"}}, "changes log.level", None),
        ({"telemetry": {"endpoint": "http://x:1"}}, "changes telemetry", "telemetry is read at the start only"),
        ({"regions": {**BASE["regions"], "sa": AP}}, "changes regions.sa", None),
        ({"regions": {"us": US, "eu": EU}}, "changes regions.ap", None),
        ({"regions": {**BASE["regions"], "eu": AP}}, "changes regions.eu", "regions.eu is read at the start only"),
        ({"caches": {}}, "changes caches.one", None),
        ({"caches": {"one": {**ONE, "prefix": "a:"}}}, "changes caches.one", "caches.one is read at the start only"),
        ({"rules": [{**ORDERS, "replicas": ["eu", "ap"]}, USERS]}, "changes orders (replicas)", None),
        ({"rules": [{**ORDERS, "cache": [{"cache": "one", "key": "{pk}"}]}, USERS]}, "changes orders (cache)", None),
        ({"rules": [ORDERS, USERS, {**USERS, "name": "many", "table": "many-*"}]}, "adds many", None),
        ({"secrets": {"s": TOKEN}, "admin": {"api": {"tokens": {"al": {"secret": "s"}}}}}, LIVE_TOKEN, None),
        ({"admin": {"port": 1}}, "changes admin.port", "admin.port is read at the start only"),
        (
            {"secrets": {"s": TOKEN}, "rules": [{**ORDERS, "replicas": [{"region": "eu", "transform": MASK}]}, USERS]},
            "changes orders (replicas); changes secrets.s",
            None,
        ),
    ],
)
def test_changes_are_named_and_what_cannot_be_applied_now_has_a_reason(
    changed: dict[str, Any], shown: str, reason: str | None
) -> None:
    before, after = settings(), settings(**changed)
    found = changes(before, after)
    assert found.shown == shown
    assert found.are_none == (shown == "changes nothing")
    reasons = not_live(before, after, found, Known(before.regions, before.caches))
    assert (reasons == []) if reason is None else any(reason in each for each in reasons)


def test_a_value_is_never_shown() -> None:
    other = {"one": {"region": "eu", "url": "redis://:planted-secret@127.0.0.1:2/0"}}
    found = changes(settings(), settings(caches=other))
    assert found.shown == "changes caches.one"


def test_a_secret_of_a_rule_that_runs_is_read_at_the_start_only() -> None:
    masked = {"rules": [{**ORDERS, "replicas": [{"region": "eu", "transform": MASK}]}, USERS]}
    before, after = settings(secrets={"s": TOKEN}, **masked), settings(secrets={"s": TOKEN[::-1]}, **masked)
    known = Known(before.regions, before.caches)
    reasons = not_live(before, after, changes(before, after), known)
    assert reasons == ["secrets.s is read at the start only: restart the workers for that."]


def test_a_region_that_left_the_file_comes_back_as_it_was_opened_or_not_at_all() -> None:
    without = settings(regions={"us": US, "eu": EU})
    known = Known(settings().regions, settings().caches).along(without)
    for region, reason in ((AP, None), ({"region": "ap-south-2"}, "regions.ap is read at the start only")):
        after = settings(regions={"us": US, "eu": EU, "ap": region})
        reasons = not_live(without, after, changes(without, after), known)
        assert [reason in each for each in reasons if reason] == [True] * bool(reason)


def test_the_meaning_of_a_rule_is_what_is_configured_of_it() -> None:
    orders = meanings_of(settings())["orders"]
    assert meanings_of(settings(rules=[USERS, {**ORDERS, "start": "trim_horizon"}]))["orders"] == orders
    cached = {**ORDERS, "cache": [{"cache": "one", "key": "{pk}"}]}
    others = [
        meanings_of(settings(rules=[{**ORDERS, "replicas": ["ap"]}]))["orders"],
        meanings_of(settings(rules=[{**ORDERS, "filter": {"exists": ["a"]}}]))["orders"],
        meanings_of(settings(rules=[cached]))["orders"],
        meanings_of(settings(rules=[cached], caches={"one": {**ONE, "prefix": "p:"}}))["orders"],
    ]
    assert len({orders, *others}) == len(others) + 1


def test_the_meaning_of_a_rule_is_that_of_its_own_text() -> None:
    cached = {**ORDERS, "cache": [{"cache": "one", "key": "{pk}"}]}
    one = settings(rules=[USERS, cached])
    for rule in one.rules:
        caches = "".join(f"|{action.cache}|" for action in rule.cache)
        digest = sha256((rule.model_dump_json(exclude_defaults=True) + caches).encode()).hexdigest()
        assert digest.startswith(meanings_of(one)[rule.name])
