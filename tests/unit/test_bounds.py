"""The bounds of one process, from settings."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from replicator.app.bounds import caches_of, connections_of, limits_of, regions_of
from replicator.engine.limits import Limits
from replicator.settings import Settings

ORDERS: dict[str, Any] = {"name": "orders", "table": "orders", "source": "us", "replicas": ["eu"]}


def settings(*rules: dict[str, Any], **more: Any) -> Settings:
    regions = {"us": {"region": "us-east-1"}, "eu": {"region": "eu-west-1"}, "ap": {"region": "ap-northeast-1"}}
    document = {"group": "test", "regions": regions, "coordination": {"region": "us"}, "rules": rules or [ORDERS]}
    return Settings(**{**document, **more})


def test_the_engine_has_the_same_defaults_as_the_settings() -> None:
    assert limits_of(settings()) == Limits()


def test_a_dead_worker_is_taken_over_from_within_fifteen_seconds_by_default() -> None:
    limits = limits_of(settings())
    assert limits.lease_seconds + 2 * limits.watch_seconds + limits.heartbeat_seconds <= 15
    assert limits.heartbeat_seconds * 2 <= limits.lease_seconds


def test_a_shard_that_stands_still_is_no_stall_before_its_worker_counts_as_dead() -> None:
    patient = settings(coordination={"region": "us", "lease": "2m", "stall": "30s"})
    assert limits_of(patient).stall_seconds == 120


def test_others_are_watched_at_least_as_often_as_they_beat() -> None:
    quick = settings(coordination={"region": "us", "lease": "1s", "heartbeat": "300ms"})
    assert limits_of(quick).watch_seconds == pytest.approx(0.3)


@pytest.mark.parametrize(
    "times",
    [
        {"heartbeat": "6s"},
        {"tables": "500ms"},
        {"moves": 0},
        {"describes_per_second": 0},
        {"describes_per_second": 11},
    ],
)
def test_times_that_do_not_fit_each_other_are_refused(times: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        settings(coordination={"region": "us", **times})


def test_every_target_has_its_share_of_connections_and_a_choice_has_some_for_several_tables() -> None:
    one = connections_of(settings())
    assert one["eu"] - one["us"] == 256
    many = connections_of(settings({**ORDERS, "table": "orders-*"}))
    assert many["eu"] - many["us"] == 8 * 256
    rules = [{**ORDERS, "name": f"r{n}", "table": f"table{n}-*"} for n in range(50)]
    assert connections_of(settings(*rules))["eu"] == 8192


def test_only_what_rules_use_is_opened_also_before_their_tables_are_known() -> None:
    cached = {**ORDERS, "table": "orders-*", "cache": [{"cache": "eu_main", "key": "order:{pk}"}]}
    caches = {name: {"region": "eu", "url": "redis://127.0.0.1:1/0"} for name in ("eu_main", "eu_other")}
    there = settings(cached, caches=caches)
    assert regions_of(there) == {"us", "eu"}
    assert caches_of(there) == {"eu_main"}
