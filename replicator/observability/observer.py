"""One event, one call: a log line, metrics, and the status board.

May lose things and decides nothing. Keys appear, item values never do. Repeated troubles are logged as `reminders`
says: once, then once a minute, with the number of times. What is normal with many workers (a lease claimed, handed over
or lost) is information, once.
"""

from __future__ import annotations

from collections.abc import Collection, Hashable, Mapping, Sequence

import structlog

from replicator.domain.errors import ReplicatorError, Throttled, Unreachable
from replicator.domain.gaps import Gap
from replicator.domain.held import Hold
from replicator.domain.identifiers import RuleName, ShardId, WorkerId
from replicator.domain.modes.ordered import Effect
from replicator.domain.owed_keys import OwedKey, Settlement
from replicator.domain.presence import Reason, Standing
from replicator.domain.progress import Position, latest
from replicator.domain.rules import Target
from replicator.domain.shards.leases import Lease, StreamRef
from replicator.domain.shards.standstill import Standstill
from replicator.domain.targets import TargetId
from replicator.observability import log_fields
from replicator.observability.gauges import gap_labels, refresh
from replicator.observability.log_throttle import Reminders
from replicator.observability.metrics import LEASE_EVENTS, Metrics
from replicator.observability.status_board import Board, End, Stall, Trouble, spot_of
from replicator.ports.clock import Clock
from replicator.ports.events import BatchReport, Overview, OwedRows, PacedTable, Place, RegionState
from replicator.ports.services import OF_A_STREAM, ServiceId, ServiceKind, stream_service, target_service

_NO_ROOM = Throttled(
    "A cache has no room, so entries were dropped instead of refreshed.",
    advice="Raise maxmemory of the cache, or set an eviction policy; entries come back as they are read.",
)
LOST, STOPPED = "lost", "stopped"
"""Words of the engine for the end of a lease."""
_ENDS = {LOST: End.LOST, "finished": End.FINISHED}


class LiveObserver:
    """Logs, counts and notes every event.

    It is as long as the port: one method for each event, so that a line, its metrics and the board never part.
    """

    def __init__(self, board: Board, metrics: Metrics, clock: Clock) -> None:
        self._board = board
        self._metrics = metrics
        self._clock = clock
        self._log = structlog.get_logger("replicator")
        self._reminders = Reminders(clock)

    # -- reading and applying --------------------------------------------------------------------------------------

    def polled(
        self, stream: StreamRef, shard_id: ShardId, position: Position, records: int, level_at: float | None = None
    ) -> None:
        """The records behind a position were asked for."""
        self._metrics.polls.labels(stream.table, stream.region).inc()
        shard = self._board.read(stream, shard_id)
        if records:
            self._metrics.polled.labels(stream.table, stream.region).inc(records)
            self._board.behind(shard, position)
        elif level_at is not None:
            self._board.caught_up(shard, position, level_at)

    def batch_began(self, place: Place, oldest: float) -> None:
        """A page is about to be applied."""
        state = self._board.state(place)
        state.pending_since, state.level, state.heard = oldest, False, True

    def batch_applied(self, report: BatchReport) -> None:
        """A page is durable at a target."""
        place, metrics = report.place, self._metrics
        labels = (place.target.rule, place.target.region)
        state = self._board.state(place)
        state.pending_since, state.last_lag = None, report.lag_seconds
        state.through = latest(state.through, report.position.through)
        counts = _counts(report)
        state.counts.update(counts)
        self._board.total(place).update(counts)
        metrics.records.labels(*labels).inc(report.records)
        for effect, number in report.effects.items():
            metrics.changes.labels(*labels, effect.value).inc(number)
        metrics.skipped.labels(*labels).inc(report.skipped)
        metrics.replica_written.labels(*labels).inc(report.adopted)
        for (kind, outcome), number in report.conflicts.items():
            metrics.conflicts.labels(*labels, kind, outcome).inc(number)
        metrics.cache_actions.labels(*labels).inc(report.cache_actions)
        metrics.keyless.labels(*labels).inc(report.keyless)
        metrics.unstored.labels(*labels).inc(report.unstored)
        metrics.kept_removals.labels(*labels).inc(report.kept_removals)
        metrics.refused.labels(*labels).inc(report.parked)
        metrics.batch_seconds.labels(*labels).observe(report.took_seconds)
        if report.lag_seconds is not None:
            metrics.record_age.labels(*labels).observe(report.lag_seconds)
        self._log.info(
            "batch_applied",
            rule=place.target.rule,
            region=place.target.region,
            table=place.stream.table,
            shard=place.shard_id,
            position=report.position.text,
            lag_seconds=None if report.lag_seconds is None else round(report.lag_seconds, 1),
            took_ms=round(report.took_seconds * 1000),
            **counts,
        )
        if report.unstored:
            where = {"rule": place.target.rule, "region": place.target.region}
            self._warn(("cache full", *labels), "cache_full", _NO_ROOM, **where)

    def parked(self, place: Place, owed: OwedKey) -> None:
        """A target refused a change, which is kept as a row."""
        due = self._reminders.due(owed.row_id, "record_parked")
        if due is not None:
            more = {"withheld": due.withheld} if due.withheld else {}
            self._log.warning(
                "record_parked", reason=owed.why, **log_fields.of_owed(place, owed), bytes=owed.size, **more
            )

    def unparked(self, place: Place, owed: OwedKey, how: Settlement) -> None:
        """A parked key was settled."""
        self._reminders.over(owed.row_id)
        self._log.info("record_unparked", how=how.value, **log_fields.of_owed(place, owed))

    def owed_rows(self, rows: OwedRows) -> None:
        """What a target is owed now."""
        self._board.owed[rows.region, rows.to] = rows

    def paces(self, table: PacedTable) -> None:
        """From now on a table is written like this."""
        self._board.paced[table.rule, table.region, table.table] = table

    def region_stands(self, state: RegionState) -> None:
        """A region of a mesh is away or late, or is here again."""
        before = self._board.regions.get((state.rule, state.region))
        self._board.regions[state.rule, state.region] = state, self._clock.monotonic() - state.seconds
        if before is None and state.standing is Standing.HERE:
            return
        fields = {"rule": state.rule, "region": state.region}
        if state.standing is Standing.AWAY:
            self._log.warning("region_away", reason=state.why, advice=_AWAY[state.reason], **fields)
        elif state.standing is Standing.LATE:
            self._log.info("region_late", reason=state.why, **fields)
        else:
            self._log.info("region_back", **fields)

    def moved(self, place: Place, position: Position) -> None:
        """A target's frontier moved."""
        self._board.state(place).moved(position, self._clock.monotonic())

    def stands(self, place: Place, position: Position) -> None:
        """A target goes on, or begins, at this stored position."""
        self._board.state(place).stands(position)

    def retrying(self, place: Place, error: ReplicatorError, attempt: int) -> None:
        """A request failed and will be repeated."""
        self._metrics.retries.labels(place.target.rule, place.target.region, type(error).__name__).inc()
        self._log.debug("request_failed", target=place.target.target_id.text, error=error.message, attempt=attempt)

    def blocked(self, place: Place, error: ReplicatorError, key: str | None) -> None:
        """A target cannot go on."""
        self._metrics.retries.labels(place.target.rule, place.target.region, type(error).__name__).inc()
        state = self._board.state(place)
        if state.trouble is None:
            state.trouble = Trouble(error, key, self._clock.monotonic())
        else:
            state.trouble.error, state.trouble.key = error, key
            state.trouble.times += 1
        self._warn(
            _topic(place),
            "target_blocked",
            error,
            rule=place.target.rule,
            region=place.target.region,
            table=place.stream.table,
            shard=place.shard_id,
            key=key,
        )

    def unblocked(self, place: Place) -> None:
        """A blocked target goes on."""
        state = self._board.state(place)
        self._board.shard(place.stream, place.shard_id).gaps.pop(place.target.target_id, None)
        if state.trouble is not None:
            blocked_seconds = round(self._clock.monotonic() - state.trouble.since, 1)
            state.trouble = None
            self._reminders.over(_topic(place))
            self._log.info(
                "target_unblocked",
                rule=place.target.rule,
                region=place.target.region,
                table=place.stream.table,
                shard=place.shard_id,
                blocked_seconds=blocked_seconds,
            )

    # -- shards and leases -----------------------------------------------------------------------------------------

    def checkpoint_saved(self, lease: Lease, positions: Mapping[TargetId, Position]) -> None:
        """Positions were stored."""
        self._metrics.checkpoints.labels(lease.stream.table, lease.stream.region).inc()
        self._log.debug(
            "checkpoint_saved",
            shard=lease.shard_id,
            positions={target.text: place.text for target, place in positions.items()},
        )

    def shard_started(self, lease: Lease, target: Target) -> None:
        """A shard is read for a target from now on."""
        self._board.started(lease, target)
        self._log.info("shard_started", **log_fields.of_target(lease, target))

    def shard_stopped(self, lease: Lease, target: Target, why: str) -> None:
        """A shard is no longer read for a target."""
        self._reminders.over(_topic(Place(lease.stream, lease.shard_id, target)))
        self._reminders.over(_stall_topic(lease, target))
        self._board.withdrawn(lease, target.target_id, _ENDS.get(why, End.GIVEN_BACK))
        log = self._log.debug if why == LOST else self._log.info  # the lease's end says it, once
        log("shard_stopped", why=why, **log_fields.of_target(lease, target))

    def shard_failed(self, lease: Lease, target: Target, error: BaseException) -> None:
        """An error that is no `ReplicatorError` ended what was done for a target on a shard."""
        self._metrics.faults.labels(target.rule).inc()
        fault = ReplicatorError(f"{type(error).__name__}: an error that was not expected.")
        service = target_service(lease.stream, lease.shard_id, target.target_id)
        self._board.services[service] = Trouble(fault, None, self._clock.monotonic())
        self._log.error("shard_failed", exc_info=error, **log_fields.of_target(lease, target))

    def lease_claimed(self, lease: Lease) -> None:
        """A shard is ours."""
        self._metrics.leases.labels("claimed").inc()
        self._board.claimed(lease)
        self._log.info("lease_claimed", **log_fields.of_lease(lease))

    def lease_ended(self, lease: Lease, why: str) -> None:
        """A shard is no longer ours."""
        event = "handed_over" if why == STOPPED and not self._board.draining else why.replace(" ", "_")
        self._metrics.leases.labels(event if event in LEASE_EVENTS else "other").inc()
        self._board.ended(lease)
        for service in self._board.end_services(lease.stream, lease.shard_id):
            self._reminders.over(service)
        self._log.info("lease_ended", why=event.replace("_", " "), **log_fields.of_lease(lease))

    def target_carried_over(
        self, stream: StreamRef, target_id: TargetId, former: Sequence[TargetId], joins: Collection[str]
    ) -> None:
        """A target goes on where others were."""
        fields = {"target": target_id.text, "former": [other.text for other in former], **log_fields.of_stream(stream)}
        if joins:
            reason = "What joins gets every record that was not done by now; what is older must be copied."
            self._log.warning("members_joined", members=sorted(joins), reason=reason, **fields)
        else:
            self._log.info("target_carried_over", **fields)

    def target_begun_anew(self, stream: StreamRef, target_id: TargetId, former: TargetId) -> None:
        """A target begins by its rule's start."""
        reason = "The stored progress is of another table: the target begins as the rule's `start` says."
        self._log.warning(
            "target_begun_anew",
            target=target_id.text,
            former=former.text,
            reason=reason,
            **log_fields.of_stream(stream),
        )

    def gap_found(self, gap: Gap) -> None:
        """Records were lost before they were read."""
        self._metrics.gaps.labels(*gap_labels(gap)).inc()
        shard = self._board.shards.get(spot_of(gap.stream, gap.shard_id))
        before = None if shard is None else shard.gaps.get(gap.target_id)
        known = before is not None and (before.gap_id, before.until) == (gap.gap_id, gap.until)
        if shard is not None:
            shard.gaps[gap.target_id] = gap
        if not known:
            self._log.error("gap_found", **log_fields.of_gap(gap), why=gap.why)

    def gap_passed(self, gap: Gap, why: str) -> None:
        """A target goes on behind a gap."""
        self._metrics.gaps_passed.labels(*gap_labels(gap)).inc()
        shard = self._board.shards.get(spot_of(gap.stream, gap.shard_id))
        if shard is not None:
            shard.gaps.pop(gap.target_id, None)
        self._log.warning("gap_passed", **log_fields.of_gap(gap), why=why)

    def stalled(self, lease: Lease, target: Target, reason: str, remedy: str) -> None:
        """A target does not progress on a shard that is ours."""
        shard = self._board.shard(lease.stream, lease.shard_id)
        standing = shard.stalls.get(target.target_id)
        if standing is None:
            self._metrics.stalls.labels(target.rule, lease.stream.region).inc()
            shard.stalls[target.target_id] = Stall(reason, remedy, self._clock.monotonic())
        else:
            standing.reason, standing.remedy = reason, remedy
        due = self._reminders.due(_stall_topic(lease, target), "shard_stalled")
        if due is not None:
            seconds = {} if standing is None else {"seconds": round(self._clock.monotonic() - standing.since)}
            more = {"withheld": due.withheld} if due.withheld else {}
            self._log.warning(
                "shard_stalled",
                reason=reason,
                advice=remedy,
                **log_fields.of_target(lease, target),
                **seconds,
                **more,
            )

    def unstalled(self, lease: Lease, target: Target) -> None:
        """It progresses again."""
        shard = self._board.shard(lease.stream, lease.shard_id)
        stall = shard.stalls.pop(target.target_id, None)
        self._reminders.over(_stall_topic(lease, target))
        if stall is not None:
            seconds = round(self._clock.monotonic() - stall.since, 1)
            self._log.info("shard_unstalled", stalled_seconds=seconds, **log_fields.of_target(lease, target))

    def standstills(self, stream: StreamRef, found: Sequence[Standstill]) -> None:
        """Rules that stand still on shards of a stream that no pipeline of this worker answers for."""
        over = self._board.stands(stream, found)
        for each in found:
            due = self._reminders.due((stream, each.rule, each.why), "rule_stalled")
            if due is not None:
                more = {"withheld": due.withheld} if due.withheld else {}
                self._log.warning(
                    "rule_stalled",
                    **log_fields.of_standstill(stream, each),
                    reason=each.reason,
                    advice=each.remedy,
                    **more,
                )
        for waiting in over:
            self._reminders.over((stream, waiting.standstill.rule, waiting.standstill.why))
            seconds = round(self._clock.monotonic() - waiting.since, 1)
            self._log.info(
                "rule_unstalled", **log_fields.of_standstill(stream, waiting.standstill), stalled_seconds=seconds
            )

    def iterator_expired(self, stream: StreamRef, shard_id: ShardId) -> None:
        """An iterator was derived anew."""
        self._metrics.expired.labels(stream.table, stream.region).inc()
        self._log.info("iterator_expired", shard=shard_id, table=stream.table)

    # -- services --------------------------------------------------------------------------------------------------

    def session_began(self, worker: WorkerId) -> None:
        """This process lives under a new worker id."""
        former, self._board.worker = self._board.worker, worker
        if former is None:
            self._log.info("session_began", worker=worker)
        else:
            reason = "The lease time passed without a heartbeat: shards are claimed anew under another id."
            self._log.info("session_began", worker=worker, former=former, reason=reason)

    def cycle(
        self,
        stream: StreamRef | None,
        shards: int,
        owned: int,  # noqa: ARG002 - counted from the leases that are held: a lost one is none
        open_shards: int | None = None,
    ) -> None:
        """A cycle over a stream's shards was attempted."""
        self._board.attempted(stream, shards)
        if stream is not None:
            self._metrics.shards.labels(stream.table, stream.region).set(shards)
            if open_shards is not None:
                self._metrics.open_shards.labels(stream.table, stream.region).set(open_shards)

    def described(self, stream: StreamRef) -> None:
        """A DescribeStream call was made."""
        self._metrics.describes.labels(stream.table, stream.region).inc()

    def paused(self, rules: Mapping[RuleName, float]) -> None:
        """These rules are paused now, and no others; what changed is logged."""
        before, self._board.paused = self._board.paused, dict(rules)
        for rule in sorted(self._board.paused.keys() - before):
            self._log.info("rule_paused", rule=rule)
        for rule in sorted(before.keys() - self._board.paused):
            self._log.info("rule_resumed", rule=rule)

    def held(self, holds: Sequence[Hold]) -> None:
        """These are held now, and nothing else; what changed is logged."""
        before = {each.hold.held: each for each in self._board.held}
        self._board.holds(holds)
        for hold in holds:
            known = before.pop(hold.held, None)
            if known is None or known.hold.error.message != hold.error.message:
                error, fields = hold.error, log_fields.of_held(hold.held)
                self._log.warning(
                    "rule_held", cause=hold.cause, reason=error.message, advice=error.worker_advice, **fields
                )
        for each in before.values():
            seconds = round(self._clock.monotonic() - each.since, 1)
            self._log.info("rule_released", held_seconds=seconds, **log_fields.of_held(each.hold.held))

    def service_failed(self, service: ServiceId, error: ReplicatorError) -> None:
        """A background service failed and will be repeated."""
        self._metrics.failures.labels(type(error).__name__).inc()
        self._board.attempted(None, 0)
        trouble = self._board.services.get(service)
        if trouble is None:
            self._board.services[service] = Trouble(error, None, self._clock.monotonic())
        else:
            trouble.error = error
            trouble.times += 1
        self._warn(service, "service_failed", error, **log_fields.of_service(service))

    def service_hangs(self, service: ServiceId, seconds: float) -> None:
        """A background service waits for an answer. That is no attempt, so the health check may restart the process."""
        error = Unreachable(f"It has waited {seconds:.0f} s for an answer.")
        self._board.services.setdefault(service, Trouble(error, None, self._clock.monotonic())).error = error
        self._warn(service, "service_hangs", error, **log_fields.of_service(service))

    def overview(self, overview: Overview | None) -> None:
        """What no worker reads, as this worker looks after for all; None: another one does."""
        if (overview is None) != (self._board.overview is None):
            self._log.info("overview_given_up" if overview is None else "overview_taken")
        self._board.overseen(overview)

    def stream_left(self, stream: StreamRef) -> None:
        """This session looks at a stream no more; nothing is said to be over that may not be."""
        for service in [stream_service(kind, stream) for kind in OF_A_STREAM]:
            self._board.services.pop(service, None)
            self._reminders.over(service)
        for waiting in self._board.stands(stream, ()):
            self._reminders.over((stream, waiting.standstill.rule, waiting.standstill.why))

    def service_recovered(self, service: ServiceId) -> None:
        """The service works again."""
        if service.kind is ServiceKind.HEARTBEAT:
            self._board.beat_at = self._clock.monotonic()
        if self._board.services.pop(service, None) is not None:
            self._reminders.over(service)
            self._log.info("service_recovered", **log_fields.of_service(service))

    def refresh_gauges(self) -> None:
        """Set the gauges that grow by themselves; called before every scrape."""
        refresh(self._metrics, self._board)

    def _warn(self, topic: Hashable, event: str, error: ReplicatorError, **fields: object) -> None:
        """Log a trouble if a line is due."""
        due = self._reminders.due(topic, event)
        if due is not None:
            more = {"withheld": due.withheld} if due.withheld else {}
            self._log.warning(
                event, reason=error.message, advice=error.worker_advice, times=due.times, **fields, **more
            )


_AWAY = {
    Reason.SILENT: "The others go on; what it misses is owed to it and brought when it answers.",
    Reason.DECLARED: "`replicator resume RULE --region ID` ends that; what it misses is brought then.",
    Reason.OVERDUE: "Rebuild it: docs/operations.md, A replica is away.",
}


def _topic(place: Place) -> Hashable:
    return (*spot_of(place.stream, place.shard_id), place.target.target_id)


def _stall_topic(lease: Lease, target: Target) -> Hashable:
    return ("stall", *spot_of(lease.stream, lease.shard_id), target.target_id)


def _counts(report: BatchReport) -> dict[str, int]:
    effects = {effect.value: report.effects.get(effect, 0) for effect in Effect}
    return {
        "records": report.records,
        "changes": report.changes,
        "skipped": report.skipped,
        **effects,
        "adopted": report.adopted,
        "conflicts": sum(report.conflicts.values()),
        "cache_actions": report.cache_actions,
        "keyless": report.keyless,
        "unstored": report.unstored,
        "parked": report.parked,
        "retries": report.retries,
    }
