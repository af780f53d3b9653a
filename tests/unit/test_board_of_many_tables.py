"""The board while the tables of a rule come and go: target ids are shared, streams are not."""

from __future__ import annotations

from replicator.domain.errors import Unreachable
from replicator.domain.identifiers import RegionId, RuleName, ShardId, TableName, WorkerId
from replicator.domain.modes.ordered import Effect
from replicator.domain.progress import Position
from replicator.domain.rules import Rule, Target
from replicator.domain.shards.leases import Lease, StreamRef
from replicator.observability.metrics import Metrics
from replicator.observability.observer import LiveObserver
from replicator.observability.readiness import unready
from replicator.observability.status_board import Board
from replicator.observability.status_document import shown
from replicator.observability.target_states import Choice
from replicator.ports.events import BatchReport, Place
from replicator.ports.services import ServiceId, ServiceKind, source_service

US, EU, RULE = RegionId("us"), RegionId("eu"), RuleName("orders")
SHARD = ShardId("s0")


class Clock:
    def now(self) -> float:
        return 1000.0

    def monotonic(self) -> float:
        return 1000.0


def rule(table: str) -> Rule:
    return Rule(RULE, US, TableName(table), (Target(RULE, EU, TableName(table)),))


def stream(table: str) -> StreamRef:
    return StreamRef(US, TableName(table), f"arn:{table}", 1)


def applied(observer: LiveObserver, table: str, records: int) -> None:
    place = Place(stream(table), SHARD, rule(table).targets[0])
    observer.lease_claimed(Lease(stream(table), SHARD, WorkerId("me"), 1))
    effects = {Effect.APPLIED: records}
    observer.batch_applied(BatchReport(place, records, records, 0, effects, 0, {}, 0, 0, 0, Position("7"), 0.0, 0.01))


def choice(*tables: str) -> Choice:
    return Choice("orders", "us", "orders-*", tables, {"orders-x": ("It has no stream.", "Enable one.")})


def board_with(*tables: str) -> tuple[Board, LiveObserver]:
    board = Board("test", [], Clock())
    board.reads([rule(table) for table in tables], [choice(*tables)])
    return board, LiveObserver(board, Metrics(), Clock())


def test_tables_of_one_rule_are_counted_and_shown_apart() -> None:
    board, observer = board_with("orders-1", "orders-2")
    applied(observer, "orders-1", 3)
    applied(observer, "orders-2", 5)
    rules = {told["table"]: told for told in shown(board)["rules"]}
    assert {table: told["totals"][f"orders/replica/eu:{table}"]["records"] for table, told in rules.items()} == {
        "orders-1": 3,
        "orders-2": 5,
    }
    assert [shard["stream"] for shard in rules["orders-1"]["shards"]] == ["arn:orders-1"]
    assert [shard["stream"] for shard in rules["orders-2"]["shards"]] == ["arn:orders-2"]


def test_choices_are_shown_with_what_they_leave_out() -> None:
    board, _ = board_with("orders-1")
    assert shown(board)["choices"] == [
        {
            "rule": "orders",
            "region": "us",
            "chooses": "orders-*",
            "tables": ["orders-1"],
            "left_out": [{"table": "orders-x", "reason": "It has no stream.", "advice": "Enable one."}],
        }
    ]


def source_of(table: str) -> ServiceId:
    return source_service(ServiceKind.SOURCE, RegionId("us"), TableName(table))


def test_what_is_told_late_of_a_table_that_is_no_longer_read_makes_nobody_unready() -> None:
    board, observer = board_with("orders-1", "orders-2")
    observer.cycle(stream("orders-1"), 1, 1)
    observer.cycle(stream("orders-2"), 1, 1)
    assert unready(board) == []
    board.reads([rule("orders-1")], [choice("orders-1")])
    observer.service_failed(source_of("orders-2"), Unreachable("It is gone."))
    observer.service_failed(source_of("orders-1"), Unreachable("It does not answer."))
    board.reads([rule("orders-1")], [choice("orders-1")])
    assert list(board.services) == [source_of("orders-1")]
    assert [told["table"] for told in shown(board)["rules"]] == ["orders-1"]


def test_a_table_that_comes_again_must_be_listed_again() -> None:
    board, observer = board_with("orders-1")
    observer.cycle(stream("orders-1"), 1, 1)
    board.reads([], [choice()])
    board.reads([rule("orders-1")], [choice("orders-1")])
    assert unready(board) == ["rule orders: the stream of orders-1 in us was not listed yet"]


def test_a_worker_is_not_ready_before_it_looked_for_tables_and_ready_without_any() -> None:
    board = Board("test", [], Clock())
    assert unready(board) == ["the tables of the rules have not been checked yet"]
    LiveObserver(board, Metrics(), Clock()).session_began(WorkerId("me"))
    assert unready(board) == []
