"""What the log says at info: what a person needs, and little of it however much is applied."""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
import structlog

from replicator.domain.identifiers import RegionId, RuleName, ShardId, TableName, WorkerId
from replicator.domain.modes.ordered import Effect
from replicator.domain.progress import Position
from replicator.domain.rules import Rule, Target
from replicator.domain.shards.leases import Lease, StreamRef
from replicator.observability.logs import configure
from replicator.observability.metrics import Metrics
from replicator.observability.observer import LiveObserver
from replicator.observability.status_board import Board
from replicator.observability.summaries import EVERY_SECONDS
from replicator.ports.events import BatchReport, Place

US, ORDERS, RULE = RegionId("us"), TableName("orders"), RuleName("orders")
TARGETS = [Target(RULE, RegionId(region), ORDERS) for region in ("ap", "eu")]
STREAM = StreamRef(US, ORDERS, "arn", 1)
MOST_BYTES_PER_THOUSAND_RECORDS = 5_000


class Hands:
    """A clock that is moved by hand."""

    at = 1_000.0

    def now(self) -> float:
        return self.at

    def monotonic(self) -> float:
        return self.at


class Life:
    """A worker's events, as the engine reports them."""

    def __init__(self, level: str, capsys: pytest.CaptureFixture[str]) -> None:
        configure(level, "json")
        self._capsys = capsys
        self.clock = Hands()
        self.board = Board("test", [Rule(RULE, US, ORDERS, tuple(TARGETS))], self.clock)
        self.observer = LiveObserver(self.board, Metrics(), self.clock)

    def begins(self) -> None:
        self.observer.session_began(WorkerId("w1"))
        lease = Lease(STREAM, ShardId("s1"), WorkerId("w1"), 1)
        self.observer.lease_claimed(lease)
        for target in TARGETS:
            self.observer.shard_started(lease, target)

    def applies(self, records: int, target: Target) -> None:
        place = Place(STREAM, ShardId("s1"), target)
        self.observer.batch_began(place, self.clock.at)
        self.observer.batch_applied(
            BatchReport(
                place=place,
                position=Position("10"),
                records=records,
                changes=records,
                skipped=0,
                effects=Counter({Effect.APPLIED: records}),
                adopted=0,
                conflicts={},
                cache_actions=records,
                keyless=0,
                retries=0,
                lag_seconds=0.3,
                took_seconds=0.1,
            )
        )

    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self._capsys.readouterr().err.splitlines()]


@pytest.fixture(autouse=True)
def _logging_as_before() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:], root.level = handlers, level
    structlog.reset_defaults()


def test_a_thousand_records_a_minute_cost_less_than_five_kilobytes_and_a_line_a_rule(
    capsys: pytest.CaptureFixture[str],
) -> None:
    life = Life("info", capsys)
    life.begins()
    life.applies(1, TARGETS[0])
    capsys.readouterr()
    for _ in range(100):
        for target in TARGETS:
            life.applies(10, target)
        life.clock.at += EVERY_SECONDS / 99
    life.observer.cycle(STREAM, 1, 1)
    written = capsys.readouterr().err
    assert len(written) <= MOST_BYTES_PER_THOUSAND_RECORDS
    events = [json.loads(line) for line in written.splitlines()]
    (line,) = [event for event in events if event["event"] == "rule_applied"]
    assert (line["rule"], line["greatest_lag_seconds"]) == ("orders", 0.3)
    assert 1900 <= line["records"] <= 2000


def test_the_first_page_of_a_rule_is_told_at_once_and_the_last_ones_at_the_end(
    capsys: pytest.CaptureFixture[str],
) -> None:
    life = Life("info", capsys)
    life.applies(3, TARGETS[0])
    assert [line["records"] for line in life.lines()] == [3]
    life.applies(4, TARGETS[0])
    life.observer.cycle(STREAM, 1, 1)
    assert [line for line in life.lines() if line["event"] == "rule_applied"] == []
    life.observer.summarise(all_of_them=True)
    assert [line["records"] for line in life.lines()] == [4]
    life.observer.summarise(all_of_them=True)
    assert life.lines() == []


def test_every_page_has_a_line_when_debugging(capsys: pytest.CaptureFixture[str]) -> None:
    life = Life("debug", capsys)
    for _ in range(3):
        life.applies(2, TARGETS[0])
    assert [line["records"] for line in life.lines() if line["event"] == "batch_applied"] == [2, 2, 2]


def test_ready_is_told_once_with_what_runs(capsys: pytest.CaptureFixture[str]) -> None:
    life = Life("info", capsys)
    life.observer.cycle(None, 0, 0)
    assert "ready" not in [line["event"] for line in life.lines()]
    life.begins()
    life.observer.paused({RuleName("other"): 1.0})
    for _ in range(3):
        life.observer.cycle(STREAM, 1, 1)
    (line,) = [line for line in life.lines() if line["event"] == "ready"]
    assert {name: line[name] for name in ("rules", "targets", "paused")} == {
        "rules": ["orders"],
        "targets": 2,
        "paused": ["other"],
    }
