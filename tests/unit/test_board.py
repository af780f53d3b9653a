"""The board and what is drawn from it: /status, /readyz, /metrics."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
import structlog
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families
from structlog.testing import capture_logs

from replicator.domain.errors import AccessRefused, PoisonRecord, TableMissing, Unreachable
from replicator.domain.gaps import Gap
from replicator.domain.held import HeldId, Hold
from replicator.domain.identifiers import RegionId, RuleName, ShardId, TableName, WorkerId
from replicator.domain.modes.ordered import Effect
from replicator.domain.progress import Position
from replicator.domain.rules import Rule, Target
from replicator.domain.shards.leases import Lease, StreamRef
from replicator.domain.shards.standstill import Standstill, Why
from replicator.domain.targets import TargetId, mesh_id
from replicator.domain.values import replace
from replicator.observability.log_throttle import AGAIN_SECONDS, MOST_LINES
from replicator.observability.metrics import Metrics
from replicator.observability.observer import LiveObserver
from replicator.observability.status_board import Board
from replicator.observability.status_document import shown
from replicator.ports.events import BatchReport, Overview, Place, UnreadShard
from replicator.ports.services import ServiceId, ServiceKind, shard_service, source_service, stream_service

US, EU = RegionId("us"), RegionId("eu")
ORDERS, SHARD, RULE = TableName("orders"), ShardId("s0"), RuleName("orders")
EU_TARGET = Target(RULE, EU, ORDERS)
TO_EU = EU_TARGET.target_id
AT_10 = Position("10")


class Hands:
    """A clock that is moved by hand."""

    def __init__(self) -> None:
        self.at = 1_000.0

    def now(self) -> float:
        return self.at

    def monotonic(self) -> float:
        return self.at


class Sight:
    """An observer with everything behind it; both regions' streams have one ARN, as two accounts' emulators may."""

    def __init__(self) -> None:
        self.clock = Hands()
        self.rules = [
            Rule(RULE, US, ORDERS, (Target(RULE, EU, ORDERS),)),
            Rule(RuleName("back"), EU, ORDERS, (Target(RuleName("back"), US, ORDERS),)),
        ]
        self.metrics, self.board = Metrics(), Board("test", self.rules, self.clock)
        self.observer = LiveObserver(self.board, self.metrics, self.clock)
        self.us, self.eu = (StreamRef(region, ORDERS, "arn:one", 1) for region in (US, EU))

    def lease(self, stream: StreamRef, shard_id: ShardId = SHARD, epoch: int = 1) -> Lease:
        lease = Lease(stream, shard_id, WorkerId("me"), epoch)
        self.observer.lease_claimed(lease)
        return lease

    def place(self, stream: StreamRef, shard_id: ShardId = SHARD) -> Place:
        (target,) = next(rule for rule in self.rules if rule.source == stream.region).targets
        return Place(stream, shard_id, target)

    def apply(self, place: Place, *, age: float, position: Position = AT_10) -> None:
        """A page whose newest record is `age` seconds old."""
        position = replace(position, through=self.clock.at - age)
        self.observer.batch_began(place, self.clock.at - age)
        self.observer.batch_applied(
            BatchReport(place, 3, 3, 0, {Effect.APPLIED: 3}, 0, {}, 0, 0, 0, position, age, 0.01)
        )
        self.observer.moved(place, position)

    def samples(self) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
        """The answer of /metrics, parsed."""
        self.observer.refresh_gauges()
        text = generate_latest(self.metrics.registry).decode()
        return {
            (sample.name, tuple(sorted(sample.labels.items()))): sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        }

    def value(self, name: str, **labels: str) -> float | None:
        return self.samples().get((f"replicator_{name}", tuple(sorted(labels.items()))))

    def rule(self, name: str) -> Mapping[str, Any]:
        return next(rule for rule in self.status()["rules"] if rule["name"] == name)

    def status(self) -> dict[str, Any]:
        document: dict[str, Any] = json.loads(json.dumps(shown(self.board)))
        return document

    def ready(self) -> None:
        for rule, stream in zip(self.rules, (self.us, self.eu), strict=True):
            self.observer.cycle(stream, 1, 1)
            assert stream.region == rule.source


@pytest.fixture
def sight() -> Iterator[Sight]:
    structlog.reset_defaults()
    yield Sight()
    structlog.reset_defaults()


def checkpoint_of(lease: Lease) -> ServiceId:
    return shard_service(ServiceKind.CHECKPOINT, lease.stream, lease.shard_id)


def gap(stream: StreamRef, target: TargetId, after: Position = AT_10) -> Gap:
    return Gap(stream, SHARD, target, after, None, 1.0, "The records were trimmed.")


def test_a_paused_rule_shows_and_is_logged_once(sight: Sight) -> None:
    with capture_logs() as logs:
        for rules in ({}, {RULE: 5.0}, {RULE: 5.0}):
            sight.observer.paused(rules)
        assert [rule["paused"] for rule in sight.status()["rules"]] == [True, False]
        sight.observer.paused({})
    assert not sight.rule("orders")["paused"]
    assert [(line["event"], line["rule"]) for line in logs] == [("rule_paused", RULE), ("rule_resumed", RULE)]


def test_a_full_cache_is_counted_and_logged_once_a_minute(sight: Sight) -> None:
    report = BatchReport(sight.place(sight.us), 3, 3, 0, {}, 0, {}, 3, 0, 0, AT_10, 0.0, 0.01, unstored=2)
    with capture_logs() as logs:
        sight.observer.batch_applied(report)
        sight.observer.batch_applied(replace(report, unstored=0))
        sight.observer.batch_applied(report)
    (warned,) = [line for line in logs if line["event"] == "cache_full"]
    assert (warned["log_level"], warned["rule"], warned["region"]) == ("warning", "orders", "eu")
    assert "maxmemory" in warned["advice"]
    assert sight.value("cache_unstored_refreshes_total", rule="orders", region="eu") == 4


def test_sinks_of_one_region_and_the_replica_there_have_samples_of_their_own(sight: Sight) -> None:
    queue, topic = (Target(RULE, EU, None, sink=name) for name in ("sqs:orders", "sns:orders"))
    for number, target in enumerate((EU_TARGET, queue, topic)):
        sight.observer.batch_applied(
            BatchReport(Place(sight.us, SHARD, target), number, 0, 0, {}, 0, {}, 0, 0, 0, AT_10, 0.0, 0.01)
        )
    sight.observer.blocked(Place(sight.us, SHARD, topic), Unreachable("It is away."), None)
    regions = ("eu", "eu:sqs:orders", "eu:sns:orders")
    counted = [sight.value("records_total", rule="orders", region=region) for region in regions]
    blocked = [sight.value("blocked_targets", rule="orders", region=region) for region in regions]
    assert (counted, blocked) == ([0, 1, 2], [0, 0, 1])


# -- two regions with one ARN --------------------------------------------------------------------------------------


def test_two_regions_with_one_arn_stand_side_by_side(sight: Sight) -> None:
    leases = [sight.lease(stream) for stream in (sight.us, sight.eu)]
    sight.apply(sight.place(sight.us), age=5.0)
    sight.apply(sight.place(sight.eu), age=50.0, position=Position("20"))
    assert sight.status()["owned_shards"] == 2
    assert [shard["targets"][0]["position"] for shard in sight.rule("orders")["shards"]] == ["10"]
    assert [shard["targets"][0]["position"] for shard in sight.rule("back")["shards"]] == ["20"]
    sight.observer.polled(sight.us, SHARD, Position("20"), 0, sight.clock.at)
    assert sight.rule("back")["shards"][0]["targets"][0]["lag_seconds"] == 50.0
    sight.observer.shard_stopped(leases[0], EU_TARGET, "stopped")
    sight.observer.lease_ended(leases[0], "stopped")
    assert sight.rule("orders")["shards"] == []
    assert [shard["epoch"] for shard in sight.rule("back")["shards"]] == [1]


def test_a_trouble_of_one_region_is_told_though_the_other_has_the_same(sight: Sight) -> None:
    with capture_logs() as lines:
        for stream in (sight.us, sight.eu):
            sight.observer.blocked(sight.place(stream), Unreachable("No answer."), None)
    assert [line["region"] for line in lines] == ["eu", "us"]


def test_the_end_of_a_lease_ends_the_troubles_of_its_own_shard_only(sight: Sight) -> None:
    us, eu = sight.lease(sight.us), sight.lease(sight.eu)
    for lease in (us, eu):
        sight.observer.service_failed(checkpoint_of(lease), Unreachable("No answer."))
    sight.observer.lease_ended(us, "lost")
    assert list(sight.status()["services"]) == ["checkpoint of shard s0 of orders in eu"]


def test_a_region_whose_calls_the_stock_client_sends_is_named_once(sight: Sight) -> None:
    assert sight.status()["stock_clients"] == {}
    assert sight.board.sent_by_stock("eu", "a proxy is configured")
    assert not sight.board.sent_by_stock("eu", "a proxy is configured")
    assert sight.board.sent_by_stock("eu", "it would send other requests")
    assert sight.status()["stock_clients"] == {"eu": "it would send other requests"}


def test_two_streams_of_a_table_with_shards_of_one_name_are_told_apart(sight: Sight) -> None:
    old = sight.lease(sight.us)
    new = replace(old, stream=replace(sight.us, arn="arn:newer", generation=2))
    for lease in (old, new):
        sight.observer.service_failed(checkpoint_of(lease), Unreachable("No answer."))
    shown = "checkpoint of shard s0 of orders in us"
    assert list(sight.status()["services"]) == [shown, f"{shown} (arn:newer)"]
    sight.observer.lease_ended(old, "lost")
    assert list(sight.board.services) == [checkpoint_of(new)]


# -- lag -----------------------------------------------------------------------------------------------------------


def test_production_failure_30_the_backlog_counts_between_two_pages_too(sight: Sight) -> None:
    sight.lease(sight.us)
    sight.apply(sight.place(sight.us), age=3600.0)
    target = sight.rule("orders")["shards"][0]["targets"][0]
    assert (target["lag_seconds"], target["retention_left_seconds"]) == (3600.0, 23 * 3600)
    assert sight.value("lag_seconds", rule="orders", region="eu") == 3600.0
    assert sight.value("backlog_seconds", table="orders", region="us") == 3600.0
    assert sight.value("retention_left_seconds", rule="orders", region="eu") == 23 * 3600
    sight.observer.polled(sight.us, SHARD, AT_10, 0, sight.clock.at)
    assert sight.value("lag_seconds", rule="orders", region="eu") == 0.0
    assert sight.value("retention_left_seconds", rule="orders", region="eu") == 24 * 3600


def test_what_is_left_is_of_what_the_stream_keeps_and_that_may_change(sight: Sight) -> None:
    sight.lease(sight.us)
    sight.apply(sight.place(sight.us), age=3600.0)
    for days in (7, 365, 1):
        sight.observer.kept(sight.us, days * 86_400.0)
        assert sight.value("retention_left_seconds", rule="orders", region="eu") == days * 86_400 - 3600
        target = sight.rule("orders")["shards"][0]["targets"][0]
        assert target["retention_left_seconds"] == days * 86_400 - 3600


def test_the_lag_of_a_shard_that_nobody_reads_grows(sight: Sight) -> None:
    sight.lease(sight.us)
    sight.apply(sight.place(sight.us), age=1.0)
    sight.observer.polled(sight.us, SHARD, AT_10, 0, sight.clock.at)
    sight.clock.at += 60.0
    assert sight.value("lag_seconds", rule="orders", region="eu") == 60.0


def test_a_shard_that_gets_nothing_is_in_sight_and_caught_up_when_a_poll_says_so(sight: Sight) -> None:
    sight.observer.shard_started(sight.lease(sight.us), EU_TARGET)
    target = sight.rule("orders")["shards"][0]["targets"][0]
    assert (target["lag_seconds"], target["target"]) == (None, "orders/replica/eu:orders")
    assert sight.value("seconds_since_progress", rule="orders", region="eu") == 0.0
    sight.observer.polled(sight.us, SHARD, AT_10, 0, sight.clock.at)
    assert sight.value("lag_seconds", rule="orders", region="eu") == 0.0
    assert sight.value("retention_left_seconds", rule="orders", region="eu") == 24 * 3600


def test_the_lag_of_a_shard_that_is_never_read_and_of_which_no_time_is_stored_is_not_known(sight: Sight) -> None:
    sight.observer.shard_started(sight.lease(sight.us), EU_TARGET)
    sight.observer.stands(sight.place(sight.us), AT_10)
    sight.clock.at += 100.0
    assert sight.value("lag_seconds", rule="orders", region="eu") is None
    assert sight.value("backlog_seconds", table="orders", region="us") is None
    assert sight.value("retention_left_seconds", rule="orders", region="eu") is None
    assert sight.value("lag_unknown_shards", rule="orders", region="eu") == 1.0
    assert sight.value("seconds_since_progress", rule="orders", region="eu") == 100.0
    assert sight.rule("orders")["shards"][0]["targets"][0]["lag_seconds"] is None


def test_behind_a_restart_lag_counts_from_the_stored_time_until_records_say_more(sight: Sight) -> None:
    sight.observer.shard_started(sight.lease(sight.us), EU_TARGET)
    sight.observer.stands(sight.place(sight.us), replace(AT_10, through=sight.clock.at - 219.0))
    assert sight.value("lag_seconds", rule="orders", region="eu") is None, "whether anything waits is not known yet"
    assert sight.value("target_shards", rule="orders", region="eu", state="unknown") == 1.0
    sight.clock.at += 16.0
    assert sight.value("lag_seconds", rule="orders", region="eu") == 235.0
    assert sight.value("retention_left_seconds", rule="orders", region="eu") == 24 * 3600 - 235
    assert sight.value("lag_unknown_shards", rule="orders", region="eu") == 0.0
    sight.observer.polled(sight.us, SHARD, AT_10, 100)
    sight.observer.batch_began(sight.place(sight.us), sight.clock.at - 200.0)
    assert sight.value("lag_seconds", rule="orders", region="eu") == 200.0
    sight.observer.blocked(sight.place(sight.us), Unreachable("No answer."), None)
    sight.clock.at += 100.0
    assert sight.value("lag_seconds", rule="orders", region="eu") == 300.0


def test_one_empty_answer_does_not_show_that_nothing_is_behind(sight: Sight) -> None:
    sight.observer.shard_started(sight.lease(sight.us), EU_TARGET)
    sight.observer.stands(sight.place(sight.us), replace(AT_10, through=sight.clock.at - 219.0))
    sight.clock.at += 16.0
    sight.observer.polled(sight.us, SHARD, AT_10, 0)
    assert sight.value("lag_seconds", rule="orders", region="eu") == 235.0
    sight.observer.polled(sight.us, SHARD, Position("20"), 0, sight.clock.at)
    assert sight.value("lag_seconds", rule="orders", region="eu") == 235.0, "that is another place"
    sight.observer.polled(sight.us, SHARD, AT_10, 0, sight.clock.at)
    assert sight.value("lag_seconds", rule="orders", region="eu") == 0.0


def test_records_behind_a_place_end_its_being_level(sight: Sight) -> None:
    sight.observer.shard_started(sight.lease(sight.us), EU_TARGET)
    sight.observer.stands(sight.place(sight.us), AT_10)
    sight.observer.polled(sight.us, SHARD, AT_10, 0, sight.clock.at)
    sight.clock.at += 3.0
    sight.observer.polled(sight.us, SHARD, AT_10, 5)
    assert sight.value("lag_seconds", rule="orders", region="eu") == 3.0, "nothing was behind it three seconds ago"


# -- leases that are lost, and what belongs to the group ---------------------------------------------------------------


def lose(sight: Sight, lease: Lease) -> None:
    """The end of a session that the coordination table no longer confirms."""
    sight.observer.service_failed(ServiceId(ServiceKind.HEARTBEAT), Unreachable("No answer."))
    sight.observer.shard_stopped(lease, EU_TARGET, "lost")
    sight.observer.lease_ended(lease, "lost")
    sight.observer.session_began(WorkerId("next"))


def test_while_the_coordination_table_is_unreachable_lag_counts_on_and_nothing_is_owned(sight: Sight) -> None:
    lease = sight.lease(sight.us)
    sight.ready()
    sight.apply(sight.place(sight.us), age=0.0)
    sight.observer.polled(sight.us, SHARD, AT_10, 0, sight.clock.at)
    sight.observer.service_recovered(ServiceId(ServiceKind.HEARTBEAT))
    assert sight.value("coordination_unreachable_seconds") == 0.0
    sight.clock.at += 5.0
    lose(sight, lease)
    sight.clock.at += 2.0
    assert sight.value("lag_seconds", rule="orders", region="eu") == 7.0, "from the first moment"
    sight.clock.at += 143.0
    assert sight.value("lag_seconds", rule="orders", region="eu") == 150.0
    assert sight.value("retention_left_seconds", rule="orders", region="eu") == 24 * 3600 - 150
    assert sight.value("seconds_since_progress", rule="orders", region="eu") == 150.0
    assert sight.value("target_shards", rule="orders", region="eu", state="lost") == 1.0
    assert sight.value("coordination_unreachable_seconds") == 150.0
    assert sight.value("owned_shards", table="orders", region="us") == 0.0
    assert sight.status()["coordination"] == {"unreachable_seconds": 150.0}
    (standing,) = sight.status()["standing"]
    assert (standing["state"], standing["lag_seconds"], standing["shard"]) == ("lost", 150.0, "s0")


def test_what_was_lost_counts_until_it_is_claimed_again_or_another_worker_answers_for_it(sight: Sight) -> None:
    for shard_id in (SHARD, ShardId("s1")):
        lease = sight.lease(sight.us, shard_id)
        sight.apply(sight.place(sight.us, shard_id), age=10.0)
        lose(sight, lease)
    assert sight.value("target_shards", rule="orders", region="eu", state="lost") == 2.0
    sight.lease(sight.us, epoch=2)
    assert sight.value("target_shards", rule="orders", region="eu", state="lost") == 1.0
    sight.observer.overview(None)
    assert sight.value("target_shards", rule="orders", region="eu", state="lost") is None
    assert sight.value("lag_seconds", rule="orders", region="eu") is None


@pytest.mark.parametrize("why", ["stopped", "withdrawn"])
def test_a_shard_that_is_given_back_is_another_workers_to_report_unless_the_table_fails_then(
    sight: Sight, why: str
) -> None:
    lease = sight.lease(sight.us)
    sight.apply(sight.place(sight.us), age=10.0)
    sight.observer.shard_stopped(lease, EU_TARGET, why)
    sight.observer.lease_ended(lease, why)
    sight.observer.overview(None)
    assert sight.value("lag_seconds", rule="orders", region="eu") is None
    sight.observer.service_failed(ServiceId(ServiceKind.HEARTBEAT), Unreachable("No answer."))
    sight.clock.at += 50.0
    assert sight.value("lag_seconds", rule="orders", region="eu") == 60.0
    sight.observer.service_recovered(ServiceId(ServiceKind.HEARTBEAT))
    sight.observer.overview(None)
    assert sight.board.left == {}


def test_a_shard_that_is_finished_is_over(sight: Sight) -> None:
    lease = sight.lease(sight.us)
    sight.apply(sight.place(sight.us), age=10.0)
    sight.observer.shard_stopped(lease, EU_TARGET, "finished")
    assert sight.board.left == sight.board.lost == {}


def test_a_worker_that_begins_while_the_table_does_not_answer_knows_nothing_and_says_so(sight: Sight) -> None:
    assert sight.value("lag_unknown_shards", rule="orders", region="eu") is None
    sight.observer.service_failed(ServiceId(ServiceKind.HEARTBEAT), Unreachable("No answer."))
    sight.clock.at += 50.0
    assert sight.value("lag_unknown_shards", rule="orders", region="eu") == 1.0
    assert sight.value("lag_seconds", rule="orders", region="eu") is None
    sight.observer.overview(None)
    assert sight.value("lag_unknown_shards", rule="orders", region="eu") is None


def test_one_worker_tells_what_no_worker_reads(sight: Sight) -> None:
    target = sight.place(sight.us).target
    standing = [
        UnreadShard(sight.us, SHARD, target, "paused", sight.clock.at - 7200.0, sight.clock.at - 60.0),
        UnreadShard(sight.us, ShardId("s1"), target, "unclaimed", None, sight.clock.at),
    ]
    paused = {RULE: sight.clock.at - 5000.0}
    with capture_logs() as lines:
        for _ in range(2):
            sight.observer.overview(Overview(tuple(standing), paused, live=2, silent=1))
    assert [line["event"] for line in lines] == ["overview_taken"]
    assert sight.value("lag_seconds", rule="orders", region="eu") == 7200.0
    assert sight.value("retention_left_seconds", rule="orders", region="eu") == 22 * 3600
    assert sight.value("lag_unknown_shards", rule="orders", region="eu") == 1.0
    assert sight.value("seconds_since_progress", rule="orders", region="eu") == 60.0
    assert sight.value("target_shards", rule="orders", region="eu", state="paused") == 1.0
    assert sight.value("paused_seconds", rule="orders") == 5000.0
    assert [sight.value("workers", state=state) for state in ("live", "silent")] == [2.0, 1.0]
    sight.clock.at += 10.0
    assert sight.value("lag_seconds", rule="orders", region="eu") == 7210.0
    shown = {each["shard"]: each for each in sight.status()["standing"]}
    assert (shown["s0"]["state"], shown["s0"]["retention_left_seconds"]) == ("paused", 24 * 3600 - 7210)
    assert (shown["s1"]["state"], shown["s1"]["lag_seconds"]) == ("unclaimed", None)
    sight.observer.overview(None)
    assert sight.value("paused_seconds", rule="orders") is None
    assert sight.value("lag_seconds", rule="orders", region="eu") is None


def test_a_stream_that_is_left_is_not_said_to_have_recovered(sight: Sight) -> None:
    sight.observer.service_failed(stream_service(ServiceKind.SHARDS, sight.us), Unreachable("No answer."))
    sight.observer.standstills(sight.us, [UNCLAIMED])
    with capture_logs() as lines:
        sight.observer.stream_left(sight.us)
    assert lines == []
    assert sight.board.services == {}
    assert sight.board.waiting == {}


def test_a_second_session_says_so_quietly_and_names_the_first(sight: Sight) -> None:
    with capture_logs() as lines:
        sight.observer.session_began(WorkerId("one"))
        sight.observer.session_began(WorkerId("two"))
    assert [(line["log_level"], line.get("former")) for line in lines] == [("info", None), ("info", "one")]
    assert "The lease time passed" in lines[1]["reason"]


def test_gauges_vanish_with_the_shard_and_totals_stay(sight: Sight) -> None:
    lease = sight.lease(sight.us)
    sight.apply(sight.place(sight.us), age=1.0)
    sight.observer.shard_stopped(lease, EU_TARGET, "stopped")
    sight.observer.lease_ended(lease, "stopped")
    assert sight.value("lag_seconds", rule="orders", region="eu") is None
    assert sight.rule("orders")["totals"]["orders/replica/eu:orders"]["records"] == 3
    assert sight.board.shards == {}


# -- gaps and stalls -----------------------------------------------------------------------------------------------


def test_a_gap_is_open_until_it_is_passed_and_logged_once(sight: Sight) -> None:
    sight.lease(sight.us)
    sight.apply(sight.place(sight.us), age=1.0)
    lost = gap(sight.us, TO_EU)
    with capture_logs() as lines:
        sight.observer.gap_found(lost)
        sight.observer.gap_found(lost)
        assert sight.rule("orders")["shards"][0]["targets"][0]["gap"]["id"] == lost.gap_id
        assert sight.value("gaps_open", rule="orders", region="eu") == 1.0
        assert sight.value("retention_left_seconds", rule="orders", region="eu") == 0.0
        sight.observer.gap_passed(lost, "acknowledged")
    assert [(line["event"], line["log_level"], line["gap"]) for line in lines] == [
        ("gap_found", "error", lost.gap_id),
        ("gap_passed", "warning", lost.gap_id),
    ]
    assert sight.rule("orders")["shards"][0]["targets"][0]["gap"] is None
    assert sight.value("gaps_open", rule="orders", region="eu") == 0.0
    assert sight.value("gaps_passed_total", rule="orders", region="eu") == 1.0


def test_a_gap_that_closes_by_itself_is_open_no_more(sight: Sight) -> None:
    sight.lease(sight.us)
    sight.observer.blocked(sight.place(sight.us), Unreachable("Trimmed."), None)
    sight.observer.gap_found(gap(sight.us, TO_EU))
    sight.observer.unblocked(sight.place(sight.us))
    assert sight.value("gaps_open", rule="orders", region="eu") == 0.0


def test_a_gap_of_a_mesh_counts_for_the_region_whose_stream_lost_records(sight: Sight) -> None:
    sight.observer.gap_found(gap(sight.eu, mesh_id(RuleName("sessions"), [(US, ORDERS), (EU, ORDERS)])))
    assert sight.value("gaps_total", rule="sessions", region="eu") == 1.0


def test_production_failure_12_a_stall_is_told_once_a_minute_shown_and_makes_the_worker_unready(sight: Sight) -> None:
    sight.ready()
    lease = sight.lease(sight.us)
    with capture_logs() as lines:
        for _ in range(3):
            sight.observer.stalled(lease, EU_TARGET, "Nothing was read for 61 s.", "Release the shard.")
            sight.clock.at += 10.0
        assert [line["event"] for line in lines] == ["shard_stalled"]
        shard = sight.rule("orders")["shards"][0]
        assert shard["stalled"] == {
            "reason": "Nothing was read for 61 s.",
            "remedy": "Release the shard.",
            "seconds": 30.0,
        }
        (reason,) = sight.status()["unready"]
        assert reason.startswith("orders/replica/eu:orders on shard s0 of orders in us does not progress: Nothing was")
        assert sight.value("stalled_shards", rule="orders", region="us") == 1.0
        sight.clock.at += AGAIN_SECONDS
        sight.observer.stalled(lease, EU_TARGET, "Nothing was read for 161 s.", "Release the shard.")
        sight.observer.unstalled(lease, EU_TARGET)
    assert [line["event"] for line in lines] == ["shard_stalled", "shard_stalled", "shard_unstalled"]
    assert sight.status()["ready"]
    assert sight.value("stalled_shards", rule="orders", region="us") == 0.0
    assert sight.value("stalls_total", rule="orders", region="us") == 1.0


def test_a_stall_behind_a_poison_record_leaves_the_worker_ready(sight: Sight) -> None:
    sight.ready()
    lease = sight.lease(sight.us)
    sight.observer.blocked(sight.place(sight.us), PoisonRecord("Too large."), "pk=1")
    sight.observer.stalled(lease, EU_TARGET, "orders/eu is blocked.", "")
    assert sight.status()["ready"]


def test_a_stall_ends_with_the_lease(sight: Sight) -> None:
    lease = sight.lease(sight.us)
    sight.observer.stalled(lease, EU_TARGET, "Nothing was read.", "")
    sight.observer.shard_stopped(lease, EU_TARGET, "lost")
    sight.observer.lease_ended(lease, "lost")
    assert sight.value("stalled_shards", rule="orders", region="us") == 0.0


# -- what no pipeline answers for --------------------------------------------------------------------------------------

UNCLAIMED = Standstill(
    RULE, Why.UNCLAIMED, (ShardId("s1"), ShardId("s2")), "No worker takes shard s1.", "See the logs."
)


def test_a_rule_that_waits_is_told_once_a_minute_shown_and_makes_the_worker_unready(sight: Sight) -> None:
    sight.ready()
    with capture_logs() as lines:
        for _ in range(3):
            sight.observer.standstills(sight.us, [UNCLAIMED])
            sight.clock.at += 10.0
        assert [(line["event"], line["why"], line["shards"]) for line in lines] == [("rule_stalled", "unclaimed", 2)]
        assert sight.rule("back")["standstills"] == []
        assert sight.rule("orders")["standstills"] == [
            {
                "why": "unclaimed",
                "stream": "arn:one",
                "shards": ["s1", "s2"],
                "count": 2,
                "reason": "No worker takes shard s1.",
                "remedy": "See the logs.",
                "seconds": 30.0,
            }
        ]
        assert sight.status()["unready"] == [
            "rule orders on orders in us does not progress: No worker takes shard s1. See the logs."
        ]
        assert sight.value("waiting_shards", rule="orders", region="us", why="unclaimed") == 2.0
        sight.observer.standstills(sight.eu, [])
        assert not sight.status()["ready"], "another stream tells nothing of this one"
        sight.clock.at += AGAIN_SECONDS
        sight.observer.standstills(sight.us, [UNCLAIMED])
        sight.observer.standstills(sight.us, [])
    assert [line["event"] for line in lines] == ["rule_stalled", "rule_stalled", "rule_unstalled"]
    assert lines[-1]["stalled_seconds"] == 90.0
    assert sight.status()["ready"]
    assert sight.value("waiting_shards", rule="orders", region="us", why="unclaimed") is None


@pytest.mark.parametrize("told", ["blocked", "stalled"])
def test_a_wait_whose_reason_a_pipeline_here_tells_is_not_told_twice(sight: Sight, told: str) -> None:
    sight.ready()
    lease = sight.lease(sight.us)
    waits = Standstill(RULE, Why.MOTIONLESS, (SHARD,), "It does not move.", "See its owner.")
    if told == "blocked":
        sight.observer.blocked(sight.place(sight.us), PoisonRecord("Too large."), "pk=1")
    else:
        sight.observer.stalled(lease, EU_TARGET, "Nothing was read.", "")
    sight.observer.standstills(sight.us, [waits])
    assert not any("It does not move." in reason for reason in sight.status()["unready"])
    assert sight.value("waiting_shards", rule="orders", region="us", why="motionless") is None
    both = replace(waits, shards=(SHARD, ShardId("s9")))
    sight.observer.standstills(sight.us, [both])
    assert any("It does not move." in reason for reason in sight.status()["unready"]), "of the other shard it is news"


def test_a_whole_stream_that_waits_counts_as_one(sight: Sight) -> None:
    sight.observer.standstills(sight.us, [Standstill(RULE, Why.NO_SHARD, (), "No shard is known.", "")])
    assert sight.value("waiting_shards", rule="orders", region="us", why="no shard") == 1.0


def test_a_service_that_hangs_is_a_trouble_and_no_attempt(sight: Sight) -> None:
    members = ServiceId(ServiceKind.MEMBERS)
    sight.ready()
    sight.clock.at += 60.0
    with capture_logs() as lines:
        sight.observer.service_hangs(members, 60.0)
        sight.clock.at += 60.0
        sight.observer.service_hangs(members, 120.0)
    assert [line["event"] for line in lines] == ["service_hangs", "service_hangs"]
    (trouble,) = sight.status()["services"].values()
    assert trouble["reason"] == "It has waited 120 s for an answer."
    assert sight.board.health() is not None, "it may be worth a restart"
    assert sight.board.health() in sight.status()["unready"]
    sight.observer.service_recovered(members)
    assert sight.status()["services"] == {}


# -- leases --------------------------------------------------------------------------------------------------------


def test_production_failure_14_a_lost_lease_is_one_quiet_line(sight: Sight) -> None:
    lease = sight.lease(sight.us)
    with capture_logs() as lines:
        sight.observer.shard_stopped(lease, EU_TARGET, "lost")
        sight.observer.lease_ended(lease, "lost")
    told = [line for line in lines if line["log_level"] != "debug"]
    assert [(line["event"], line["log_level"], line["why"]) for line in told] == [("lease_ended", "info", "lost")]


@pytest.mark.parametrize(
    ("why", "draining", "event"),
    [
        ("stopped", False, "handed_over"),
        ("stopped", True, "stopped"),
        ("lost", False, "lost"),
        ("finished", False, "finished"),
        ("abducted", False, "other"),
    ],
)
def test_every_end_of_a_lease_is_counted_under_a_known_name(
    sight: Sight, why: str, event: str, *, draining: bool
) -> None:
    sight.board.draining = draining
    assert sight.value("leases_total", event=event) == 0.0
    sight.observer.lease_ended(sight.lease(sight.us), why)
    assert sight.value("leases_total", event=event) == 1.0
    assert sight.value("leases_total", event="claimed") == 1.0


def test_production_failure_30_the_autoscaler_sees_open_shards_and_discovery_calls(sight: Sight) -> None:
    sight.observer.described(sight.us)
    sight.observer.cycle(sight.us, 112, 5, 16)
    assert sight.value("discovery_calls_total", table="orders", region="us") == 1.0
    assert sight.value("open_shards", table="orders", region="us") == 16.0
    assert sight.value("listed_shards", table="orders", region="us") == 112.0


# -- many ----------------------------------------------------------------------------------------------------------


def test_a_thousand_equal_troubles_are_some_lines_and_a_number(sight: Sight) -> None:
    def outage() -> None:
        for number in range(1000):
            reading = shard_service(ServiceKind.READING, sight.us, ShardId(f"s{number}"))
            sight.observer.service_failed(reading, Unreachable("No answer."))

    with capture_logs() as lines:
        outage()
        assert len(lines) == MOST_LINES
        sight.clock.at += AGAIN_SECONDS
        outage()
    assert len(lines) == 2 * MOST_LINES
    assert lines[MOST_LINES]["withheld"] == 1000 - MOST_LINES
    unready = sight.status()["unready"]
    assert len(unready) < 30
    assert unready[-1] == "982 more reasons: see /status"


def test_a_thousand_shards_are_shown_and_scraped_without_shard_labels(sight: Sight) -> None:
    for number in range(1000):
        shard_id = ShardId(f"shardId-{number:032d}")
        sight.lease(sight.us, shard_id)
        sight.apply(sight.place(sight.us, shard_id), age=1.0)
    status = sight.status()
    samples = sight.samples()
    assert len(status["rules"][0]["shards"]) == status["owned_shards"] == 1000
    assert len(samples) < 300
    assert not any("shardId" in value for _, labels in samples for _, value in labels)


def test_a_poll_touches_its_own_shard_only(sight: Sight) -> None:
    others = [ShardId(f"s{number}") for number in range(1, 50)]
    for shard_id in others:
        sight.apply(sight.place(sight.us, shard_id), age=9.0)
    sight.apply(sight.place(sight.us), age=9.0)
    sight.observer.polled(sight.us, SHARD, AT_10, 0, sight.clock.at)
    behind = [shard["targets"][0]["lag_seconds"] for shard in sight.rule("orders")["shards"]]
    assert sorted(behind) == [0.0, *[9.0] * len(others)]


def test_nothing_is_known_before_the_first_page(sight: Sight) -> None:
    sight.observer.blocked(sight.place(sight.us), Unreachable("No answer."), None)
    target = sight.rule("orders")["shards"][0]["targets"][0]
    assert (target["lag_seconds"], target["retention_left_seconds"]) == (None, None)
    assert "position" not in target
    assert target["blocked"]["kind"] == "Unreachable"
    assert sight.value("blocked_targets", rule="orders", region="eu") == 1.0
    with capture_logs() as lines:
        sight.observer.unblocked(sight.place(sight.us))
    assert lines[0]["event"] == "target_unblocked"
    assert sight.value("blocked_targets", rule="orders", region="eu") == 0.0


# -- what is held ------------------------------------------------------------------------------------------------------

GONE = TableMissing("Table orders in us does not exist.")


def test_what_is_held_leaves_the_worker_ready_while_another_rule_runs(sight: Sight) -> None:
    sight.ready()
    held = Hold(HeldId(RULE, ORDERS), GONE)
    with capture_logs() as lines:
        sight.observer.held([held])
        sight.clock.at += 5
        sight.observer.held([held])
        sight.observer.service_failed(source_service(ServiceKind.SHARDS, US, ORDERS), TableMissing("Not found."))
        sight.observer.standstills(sight.us, [UNCLAIMED])
        status = sight.status()
        assert (status["ready"], status["unready"]) == (True, [])
        (row,) = status["held"]
        assert (row["rule"], row["target"], row["cause"], row["seconds"]) == ("orders", None, "missing", 5.0)
        assert sight.value("rule_held", rule="orders", region="us", cause="missing") == 1.0
        sight.observer.held([])
    assert [line["event"] for line in lines if "held" in line["event"] or "released" in line["event"]] == [
        "rule_held",
        "rule_released",
    ]
    assert not sight.status()["ready"], "what is not held any more is trouble again"


def test_a_worker_of_which_every_rule_is_held_is_not_ready(sight: Sight) -> None:
    sight.ready()
    back = Hold(HeldId(RuleName("back"), ORDERS), GONE)
    sight.observer.held([Hold(HeldId(RULE, ORDERS, TO_EU), GONE), back])
    assert [reason.partition(" is held")[0] for reason in sight.status()["unready"]] == [
        "back on orders",
        "orders/replica/eu:orders on orders",
    ]


def test_trouble_of_the_world_at_one_target_is_held_and_no_reason(sight: Sight) -> None:
    sight.ready()
    sight.observer.blocked(sight.place(sight.us), AccessRefused("PutItem is denied."), "pk=1")
    assert sight.status()["ready"]
    assert [(row["target"], row["cause"]) for row in sight.status()["held"]] == [("orders/replica/eu:orders", "denied")]
    sight.observer.unblocked(sight.place(sight.us))
    sight.observer.blocked(sight.place(sight.us), Unreachable("No answer."), "pk=1")
    assert (sight.status()["ready"], sight.status()["held"]) == (False, [])


@pytest.mark.parametrize("behind", [90.0, -90.0])
def test_a_lag_is_by_the_time_of_the_servers_whatever_the_own_clock_says(sight: Sight, behind: float) -> None:
    place = sight.place(sight.us)
    sight.lease(sight.us)
    theirs = sight.clock.at + behind
    sight.observer.batch_began(place, theirs - 20)
    sight.observer.polled(sight.us, SHARD, AT_10, 3, None, behind)
    (figure,) = sight.board.figures()
    assert figure.lag == pytest.approx(20)
    assert figure.retention_left == pytest.approx(86_400 - 20)
    report = BatchReport(place, 3, 3, 0, {Effect.APPLIED: 3}, 0, {}, 0, 0, 0, AT_10, 20.0, 0.01)
    sight.observer.batch_applied(report)
    assert sight.board.state(place).last_lag == pytest.approx(20)
    assert sight.samples()["replicator_clock_behind_seconds", ()] == behind
    assert "clock" in {problem["kind"] for problem in shown(sight.board)["problems"]}
    sight.observer.polled(sight.us, SHARD, AT_10, 3, None, -1.3)  # what an answer takes, and whole seconds
    assert sight.board.clock_behind == 0
    assert "clock" not in {problem["kind"] for problem in shown(sight.board)["problems"]}
