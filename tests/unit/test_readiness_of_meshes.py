"""Readiness while a region of a mesh is away: the others are read, and a restart could do no more."""

from __future__ import annotations

from replicator.domain.errors import AccessRefused, ReplicatorError, Unreachable
from replicator.domain.identifiers import RegionId, RuleName, ShardId, TableName, WorkerId
from replicator.domain.modes.active_active.mesh import ActivePolicy
from replicator.domain.rules import ActivePlan, Rule, Target
from replicator.domain.shards.leases import Lease, StreamRef
from replicator.domain.shards.standstill import Standstill, Why
from replicator.observability.metrics import Metrics
from replicator.observability.observer import LiveObserver
from replicator.observability.readiness import unready
from replicator.observability.status_board import Board
from replicator.ports.events import Place
from replicator.ports.services import ServiceId, ServiceKind, owed_service, shard_service, source_service

US, EU = RegionId("us"), RegionId("eu")
ORDERS, SHARD, RULE = TableName("orders"), ShardId("s0"), RuleName("orders")
SILENT = Unreachable("It does not answer.")


class Clock:
    def now(self) -> float:
        return 1_000.0

    def monotonic(self) -> float:
        return 1_000.0


def mesh(home: RegionId, other: RegionId) -> Rule:
    return Rule(RULE, home, ORDERS, (Target(RULE, home, ORDERS),), mesh=ActivePlan((other,), ActivePolicy()))


def stream(region: RegionId) -> StreamRef:
    return StreamRef(region, ORDERS, f"arn:{region}", 1)


class Worker:
    """A board with a mesh of two regions, of which those named were listed."""

    def __init__(self, *listed: RegionId, more: tuple[Rule, ...] = ()) -> None:
        rules = [mesh(US, EU), mesh(EU, US), *more]
        self.board = Board("test", rules, Clock())
        self.observer = LiveObserver(self.board, Metrics(), Clock())
        self.observer.session_began(WorkerId("me"))
        for region in listed:
            self.observer.cycle(stream(region), 1, 1)

    def fails(self, region: RegionId, error: ReplicatorError = SILENT) -> None:
        """All that a worker meets of a source that does not answer."""
        source, shard = stream(region), shard_service(ServiceKind.READING, stream(region), SHARD)
        (target,) = next(rule for rule in self.board.rules if rule.source == region).targets
        self.observer.lease_claimed(Lease(source, SHARD, WorkerId("me"), 1))
        for service in (source_service(ServiceKind.SOURCE, region, ORDERS), shard):
            self.observer.service_failed(service, error)
        self.observer.blocked(Place(source, SHARD, target), error, None)
        self.observer.stalled(Lease(source, SHARD, WorkerId("me"), 1), target, "Nothing was read.", "Wait.")
        self.observer.standstills(source, [Standstill(RULE, Why.UNCLAIMED, (SHARD,), "It is not claimed.", "Wait.")])


def test_a_region_that_does_not_answer_leaves_a_worker_ready_that_reads_the_others() -> None:
    worker = Worker(US, EU)
    worker.fails(EU)
    worker.observer.service_failed(owed_service(EU, ORDERS, RULE, US), SILENT)
    assert unready(worker.board) == []


def test_a_worker_that_begins_while_a_region_is_away_is_ready_once_it_reads_the_others() -> None:
    worker = Worker()
    worker.fails(EU)
    assert "rule orders: the stream of orders in us was not listed yet" in unready(worker.board)
    worker.observer.cycle(stream(US), 1, 1)
    assert unready(worker.board) == []


def test_a_region_that_was_not_listed_yet_and_has_no_trouble_is_waited_for() -> None:
    assert unready(Worker(US).board) == ["rule orders: the stream of orders in eu was not listed yet"]


def test_a_worker_whose_every_region_is_away_is_not_ready() -> None:
    worker = Worker(US, EU)
    worker.fails(EU)
    worker.fails(US)
    reasons = "\n".join(unready(worker.board))
    assert "stream of orders in us" in reasons
    assert "stream of orders in eu" in reasons


def test_what_an_ordered_rule_cannot_read_is_a_reason_beside_a_mesh_on_the_same_table() -> None:
    rule = RuleName("copies")
    worker = Worker(US, EU, more=(Rule(rule, EU, ORDERS, (Target(rule, US, TableName("copies")),)),))
    worker.fails(EU)
    assert any("stream of orders in eu" in reason for reason in unready(worker.board))


def test_the_coordination_table_is_needed_whatever_region_it_is_in() -> None:
    worker = Worker(US, EU)
    worker.fails(EU)
    worker.observer.service_failed(ServiceId(ServiceKind.HEARTBEAT), SILENT)
    (reason,) = unready(worker.board)
    assert reason.startswith("heartbeat: ")


def test_other_trouble_of_a_region_is_a_reason_still() -> None:
    worker = Worker(US, EU)
    worker.observer.service_failed(source_service(ServiceKind.SHARDS, EU, ORDERS), AccessRefused("It is denied."))
    assert any("It is denied." in reason for reason in unready(worker.board))


def test_what_nothing_replicated_waits_for_keeps_no_worker_from_being_ready() -> None:
    worker = Worker(US, EU)
    assert unready(worker.board) == []
    for kind in (ServiceKind.DEBT, ServiceKind.VERIFYING):
        worker.observer.service_failed(ServiceId(kind, EU, cache="main"), SILENT)
    assert unready(worker.board) == []
