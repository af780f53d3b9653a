"""One event, one call: a log line, metrics, and the status board.

May lose things and decides nothing. Keys appear, item values never do. Repeated troubles are logged once, then once a
minute, with the number of times.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import structlog

from replicator.domain.errors import ReplicatorError
from replicator.domain.ordered import Effect
from replicator.domain.progress import Position
from replicator.domain.records import RuleName, ShardId, WorkerId
from replicator.ops.board import Board, Trouble
from replicator.ops.metrics import Metrics
from replicator.ports import BatchReport, Clock, Gap, Lease, Place, StreamRef

_AGAIN_SECONDS = 60.0


@dataclass(slots=True)
class _Told:
    at: float
    times: int = 0


class LiveObserver:
    """Tells logs, metrics and board."""

    def __init__(self, board: Board, metrics: Metrics, clock: Clock) -> None:
        self._board = board
        self._metrics = metrics
        self._clock = clock
        self._log = structlog.get_logger("replicator")
        self._told: dict[str, _Told] = {}

    # -- reading and applying --------------------------------------------------------------------------------------

    def polled(self, stream: StreamRef, shard_id: ShardId, position: Position, records: int) -> None:
        """The records behind a position were asked for."""
        self._metrics.polls.labels(stream.table, stream.region).inc()
        self._board.read(stream, shard_id)
        if records:
            self._metrics.polled.labels(stream.table, stream.region).inc(records)
        else:
            self._board.caught_up(stream, shard_id, position)

    def batch_began(self, place: Place, oldest: float) -> None:
        """A page is about to be applied."""
        self._board.state(place).pending_since = oldest

    def batch_applied(self, report: BatchReport) -> None:
        """A page is durable at a target."""
        place, metrics = report.place, self._metrics
        labels = (place.target.rule, place.target.region)
        state = self._board.state(place)
        state.pending_since, state.last_lag = None, report.lag_seconds
        counts = _counts(report)
        state.counts.update(counts)
        self._board.totals.setdefault(place.target.target_id, type(state.counts)()).update(counts)
        metrics.records.labels(*labels).inc(report.records)
        for effect, number in report.effects.items():
            metrics.changes.labels(*labels, effect.value).inc(number)
        metrics.skipped.labels(*labels).inc(report.skipped)
        metrics.replica_written.labels(*labels).inc(report.adopted)
        for (kind, outcome), number in report.conflicts.items():
            metrics.conflicts.labels(*labels, kind, outcome).inc(number)
        metrics.cache_actions.labels(*labels).inc(report.cache_actions)
        metrics.keyless.labels(*labels).inc(report.keyless)
        metrics.batch_seconds.labels(*labels).observe(report.took_seconds)
        if report.lag_seconds is not None:
            metrics.record_age.labels(*labels).observe(report.lag_seconds)
        self._log.info(
            "batch_applied",
            rule=place.target.rule,
            region=place.target.region,
            shard=place.shard_id,
            position=report.position.text,
            lag_seconds=None if report.lag_seconds is None else round(report.lag_seconds, 1),
            took_ms=round(report.took_seconds * 1000),
            **counts,
        )

    def moved(self, place: Place, position: Position) -> None:
        """A target's frontier moved."""
        state = self._board.state(place)
        state.position, state.progress_at = position, self._clock.monotonic()

    def retrying(self, place: Place, error: ReplicatorError, attempt: int) -> None:
        """A request failed and will be repeated."""
        self._metrics.retries.labels(place.target.rule, place.target.region, type(error).__name__).inc()
        self._log.debug("request_failed", target=place.target.target_id, error=error.message, attempt=attempt)

    def blocked(self, place: Place, error: ReplicatorError, key: str | None) -> None:
        """A target cannot go on."""
        self._metrics.retries.labels(place.target.rule, place.target.region, type(error).__name__).inc()
        state = self._board.state(place)
        if state.trouble is None:
            self._metrics.blocked.labels(place.target.rule, place.target.region).inc()
            state.trouble = Trouble(error, key, self._clock.monotonic())
        else:
            state.trouble.error, state.trouble.key = error, key
            state.trouble.times += 1
        self._warn(
            f"{place.target.target_id} on {place.shard_id}",
            "target_blocked",
            error,
            rule=place.target.rule,
            region=place.target.region,
            shard=place.shard_id,
            key=key,
        )

    def unblocked(self, place: Place) -> None:
        """A blocked target goes on."""
        state = self._board.state(place)
        if state.trouble is not None:
            self._metrics.blocked.labels(place.target.rule, place.target.region).dec()
            state.trouble = None
            self._told.pop(f"{place.target.target_id} on {place.shard_id}", None)
            self._log.info("target_unblocked", target=place.target.target_id, shard=place.shard_id)

    # -- shards and leases -----------------------------------------------------------------------------------------

    def checkpoint_saved(self, lease: Lease, positions: Mapping[str, Position]) -> None:
        """Positions were stored."""
        self._metrics.checkpoints.labels(lease.stream.table, lease.stream.region).inc()
        self._log.debug(
            "checkpoint_saved", shard=lease.shard_id, positions={name: place.text for name, place in positions.items()}
        )

    def shard_started(self, lease: Lease, rule: RuleName) -> None:
        """A rule started to read a shard."""
        self._log.info("shard_started", rule=rule, shard=lease.shard_id, table=lease.stream.table, epoch=lease.epoch)

    def shard_stopped(self, lease: Lease, rule: RuleName, why: str) -> None:
        """A rule no longer reads a shard."""
        for state in self._board.targets.values():
            on_shard = (state.place.stream.arn, state.place.shard_id) == (lease.stream.arn, lease.shard_id)
            if on_shard and state.place.target.rule == rule and state.trouble is not None:
                self._metrics.blocked.labels(rule, state.place.target.region).dec()
        self._board.forget(lease, rule)
        self._log.info("shard_stopped", rule=rule, shard=lease.shard_id, table=lease.stream.table, why=why)

    def shard_failed(self, lease: Lease, rule: RuleName, error: BaseException) -> None:
        """A shard's worker met an error that nobody expected."""
        self._metrics.faults.labels(rule).inc()
        fault = ReplicatorError(f"{type(error).__name__}: an error that nobody expected.")
        self._board.services[f"rule {rule} on shard {lease.shard_id}"] = Trouble(fault, None, self._clock.monotonic())
        self._log.error("shard_failed", rule=rule, shard=lease.shard_id, exc_info=error)

    def lease_claimed(self, lease: Lease) -> None:
        """A shard is ours."""
        self._metrics.leases.labels("claimed").inc()
        self._board.leases[lease.stream.arn, lease.shard_id] = lease
        self._log.info("lease_claimed", shard=lease.shard_id, table=lease.stream.table, epoch=lease.epoch)

    def lease_ended(self, lease: Lease, why: str) -> None:
        """A shard is no longer ours."""
        self._metrics.leases.labels(why).inc()
        self._board.leases.pop((lease.stream.arn, lease.shard_id), None)
        for what in [what for what in self._board.services if lease.shard_id in what]:
            self.service_recovered(what)
        self._log.info("lease_ended", shard=lease.shard_id, table=lease.stream.table, epoch=lease.epoch, why=why)

    def gap_found(self, gap: Gap) -> None:
        """Records were lost before they were read."""
        rule, region = gap.target_id.split("/", maxsplit=1)
        self._metrics.gaps.labels(rule, region).inc()
        self._log.error(
            "gap_found",
            target=gap.target_id,
            shard=gap.shard_id,
            stream=gap.stream.arn,
            after=gap.after.text,
            why=gap.why,
        )

    def iterator_expired(self, stream: StreamRef, shard_id: ShardId) -> None:
        """An iterator was derived anew."""
        self._metrics.expired.labels(stream.table, stream.region).inc()
        self._log.info("iterator_expired", shard=shard_id, table=stream.table)

    # -- services --------------------------------------------------------------------------------------------------

    def session_began(self, worker: WorkerId) -> None:
        """This process lives under a new worker id."""
        self._board.worker = worker
        self._log.info("session_began", worker=worker)

    def cycle(self, stream: StreamRef | None, shards: int, owned: int) -> None:
        """A discovery cycle was attempted."""
        self._board.attempted(stream, shards)
        if stream is not None:
            self._metrics.shards.labels(stream.table, stream.region).set(shards)
            self._metrics.owned.labels(stream.table, stream.region).set(owned)

    def service_failed(self, what: str, error: ReplicatorError) -> None:
        """A background service failed and will be repeated."""
        self._metrics.failures.labels(type(error).__name__).inc()
        self._board.attempted(None, 0)
        trouble = self._board.services.get(what)
        if trouble is None:
            self._board.services[what] = Trouble(error, None, self._clock.monotonic())
        else:
            trouble.error = error
            trouble.times += 1
        self._warn(what, "service_failed", error, service=what)

    def service_recovered(self, what: str) -> None:
        """The service works again."""
        if self._board.services.pop(what, None) is not None:
            self._told.pop(what, None)
            self._log.info("service_recovered", service=what)

    def refresh_gauges(self) -> None:
        """Set the gauges that grow by themselves; called before every scrape."""
        monotonic = self._clock.monotonic()
        lags: dict[tuple[str, str], float] = {}
        idles: dict[tuple[str, str], float] = {}
        for state in self._board.targets.values():
            labels: tuple[str, str] = (state.place.target.rule, state.place.target.region)
            lags[labels] = max(lags.get(labels, 0.0), self._board.lag(state) or 0.0)
            idles[labels] = max(idles.get(labels, 0.0), monotonic - state.progress_at)
        self._metrics.lag.clear()
        self._metrics.idle.clear()
        for labels, lag in lags.items():
            self._metrics.lag.labels(*labels).set(lag)
            self._metrics.idle.labels(*labels).set(idles[labels])

    def _warn(self, topic: str, event: str, error: ReplicatorError, **fields: object) -> None:
        """Log a trouble at first sight, and then once a minute."""
        now = self._clock.monotonic()
        told = self._told.get(topic)
        if told is not None:
            told.times += 1
            if now - told.at < _AGAIN_SECONDS:
                return
        self._log.warning(
            event, reason=error.message, advice=error.advice, times=1 if told is None else told.times, **fields
        )
        self._told[topic] = _Told(now)


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
        "retries": report.retries,
    }
