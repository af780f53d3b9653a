"""Limits, throttles and write units as metrics, in /status, and in the words of `status`."""

from __future__ import annotations

import json
from typing import Any

import pytest
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from replicator.cli.status_screen import slow_words
from replicator.domain.identifiers import RegionId, RuleName, TableName
from replicator.domain.pacing import Pace
from replicator.domain.rules import Rule, Target
from replicator.domain.write_units import UnitBucket
from replicator.observability.metrics import Metrics
from replicator.observability.observer import LiveObserver
from replicator.observability.status_board import Board
from replicator.observability.status_document import shown
from replicator.operations.pacing_status import PacingStatus, SlowedRule, ThrottledTable, pacing_status
from replicator.ports.events import PacedTable

US, EU = RegionId("us"), RegionId("eu")
RULE, ORDERS, MORE = RuleName("orders"), TableName("orders"), TableName("more")


class Hands:
    """A clock that is moved by hand."""

    def __init__(self) -> None:
        self.at = 1000.0

    def now(self) -> float:
        return self.at

    def monotonic(self) -> float:
        return self.at


class Sight:
    """A board of a rule with two tables in one region, which share a bound."""

    def __init__(self) -> None:
        self.clock = Hands()
        self.rules = [Rule(RULE, US, table, (Target(RULE, EU, table),)) for table in (ORDERS, MORE)]
        self.metrics, self.board = Metrics(), Board("test", self.rules, self.clock)
        self.observer = LiveObserver(self.board, self.metrics, self.clock)
        self.bucket = UnitBucket(500, self.clock.at)
        self.paces = {table: Pace(256, self.clock.at) for table in (ORDERS, MORE)}
        for table, pace in self.paces.items():
            self.observer.paces(PacedTable(RULE, EU, table, pace, self.bucket))

    def value(self, name: str, **labels: str) -> float | None:
        self.observer.refresh_gauges()
        text = generate_latest(self.metrics.registry).decode()
        found = {
            (sample.name, tuple(sorted(sample.labels.items()))): sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        }
        return found.get((f"replicator_{name}", tuple(sorted(({"rule": "orders", "region": "eu"} | labels).items()))))

    def throttle(self, table: TableName, times: int = 51) -> None:
        pace = self.paces[table]
        for _ in range(times):
            pace.throttled(pace.singles, pace.singles.begin(), self.clock.at)

    @property
    def writes(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = json.loads(json.dumps(shown(self.board)))["writes"]
        return found

    def daemon(self, worker: str) -> dict[str, Any]:
        return {"worker": worker, "writes": self.writes}


@pytest.fixture
def sight() -> Sight:
    return Sight()


def test_the_lowest_limit_of_a_rules_tables_and_the_sum_of_what_is_in_flight_are_shown(sight: Sight) -> None:
    assert sight.value("request_limit", kind="single") == 64
    sight.throttle(MORE)
    sight.paces[ORDERS].singles.begin()
    sight.paces[MORE].transactions.begin()
    assert sight.value("request_limit", kind="single") == 32
    assert sight.value("request_limit", kind="transaction") == 64
    assert sight.value("requests_in_flight") == 2


def test_throttles_and_units_are_counted_from_scrape_to_scrape(sight: Sight) -> None:
    sight.throttle(MORE, 5)
    assert sight.value("throttled_requests_total") == 5
    sight.throttle(ORDERS, 3)
    sight.bucket.take(40, sight.clock.at)
    assert sight.value("throttled_requests_total") == 8
    assert sight.value("throttled_requests_total") == 8
    assert sight.value("write_units_total") == 40
    assert sight.value("write_units_limit") == 500


def test_what_was_set_right_downwards_never_makes_a_counter_fall(sight: Sight) -> None:
    sight.bucket.take(40, sight.clock.at)
    assert sight.value("write_units_total") == 40
    sight.bucket.take(-10, sight.clock.at)
    assert sight.value("write_units_total") == 40
    sight.bucket.take(30, sight.clock.at)
    assert sight.value("write_units_total") == 60


def test_a_table_that_no_rule_writes_any_more_vanishes_and_what_it_counted_stays(sight: Sight) -> None:
    sight.throttle(MORE, 5)
    sight.bucket.waiting = 3
    assert sight.value("write_units_waiting") == 3
    assert sight.value("throttled_requests_total") == 5
    sight.board.reads(sight.rules[:1], ())
    assert [each["table"] for each in sight.writes] == ["orders"]
    assert sight.value("throttled_requests_total") == 5
    sight.board.reads([], ())
    assert sight.value("request_limit", kind="single") is None
    assert sight.value("write_units_waiting") is None


def test_status_shows_every_table_that_is_written(sight: Sight) -> None:
    sight.throttle(MORE)
    sight.bucket.take(100, sight.clock.at)
    more, orders = sight.writes
    assert more == {
        "rule": "orders",
        "region": "eu",
        "table": "more",
        "ceiling": 256,
        "in_flight": 0,
        "limits": {"single": 32, "transaction": 64},
        "throttles": 51,
        "throttled_lately": {"single": 51, "transaction": 0},
        "write_units": {"per_second": 500, "taken_per_second": 10.0, "taken": 100.0, "waiting": 0, "slowed": False},
    }
    assert orders["limits"] == {"single": 64, "transaction": 64}


def test_nothing_is_said_of_what_is_written_as_fast_as_it_comes(sight: Sight) -> None:
    sight.throttle(MORE, 50)
    told = pacing_status([sight.daemon("a")])
    assert (told.throttled, told.slowed) == ([], [])


def test_a_table_that_throttles_most_is_named_with_what_it_gets(sight: Sight) -> None:
    sight.throttle(MORE)
    told = pacing_status([sight.daemon("a")])
    assert told.throttled == [ThrottledTable("a", "orders", "eu", "more", 32)]


def test_status_says_in_sentences_what_is_slow_and_why() -> None:
    (slowed,) = slow_words(PacingStatus([], [SlowedRule("orders", "eu", 500, 498.5)]))
    assert slowed == "rule orders takes 498.5 of 500 write units a second in eu and is limited by write_units."


def test_a_rule_that_waits_for_units_is_named_with_what_all_workers_take(sight: Sight) -> None:
    first = sight.daemon("a")
    sight.bucket.take(200, sight.clock.at)
    sight.bucket.slowed(sight.clock.at)
    told = pacing_status([first, sight.daemon("b"), {"worker": "c"}])
    assert told.slowed == [SlowedRule("orders", "eu", 500, 20.0)]
