"""Events of shards: their leases, losses, standstills."""

from __future__ import annotations

from collections.abc import Collection, Hashable, Mapping, Sequence

from replicator.domain.errors import ReplicatorError
from replicator.domain.gaps import Gap
from replicator.domain.identifiers import ShardId
from replicator.domain.progress import Position
from replicator.domain.rules import Target
from replicator.domain.shards.leases import Lease, StreamRef
from replicator.domain.shards.standstill import Standstill
from replicator.domain.targets import TargetId
from replicator.observability import log_fields
from replicator.observability.gauges import gap_labels
from replicator.observability.metrics import LEASE_EVENTS
from replicator.observability.reports import Reports, topic_of
from replicator.observability.target_states import End, Stall, Trouble, spot_of
from replicator.ports.events import Place
from replicator.ports.services import target_service

LOST, STOPPED = "lost", "stopped"
"""Words of the engine for the end of a lease."""
_ENDS = {LOST: End.LOST, "finished": End.FINISHED}


class ShardEvents(Reports):
    """What happens to shards.

    It is as long as this part of the port: one method for each event, so that a line, its metrics and the board never
    part.
    """

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
        self._reminders.over(topic_of(Place(lease.stream, lease.shard_id, target)))
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
            reason = "A new member receives every record that is not yet applied; older items must be copied."
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

    def entries_not_kept(self, place: Place, cache: str, *, dropped: bool) -> None:
        """Entries of a cache may be older than the table."""
        what = "A cache or its key template came into the rule behind the target's first changes, or came back"
        fields = {"cache": cache, "shard": place.shard_id, **log_fields.of_stream(place.stream)}
        fields["rule"] = place.target.rule
        if dropped:
            self._log.info("cache_entries_dropped", reason=f"{what}: all entries of the rules are dropped.", **fields)
            return
        reason = f"{what}, and its key templates do not begin with a constant text that tells its entries from others."
        advice = "Drop the entries of this rule in the cache yourself; until they expire, they may be stale."
        self._log.warning("cache_entries_not_dropped", reason=reason, advice=advice, **fields)

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

    def gap_closed(self, gap: Gap, job_id: str) -> None:
        """A repair has gone over the table that lost records."""
        self._log.warning("gap_closed", **log_fields.of_gap(gap), job=job_id)

    def open_gaps(self, gaps: Mapping[TargetId, int]) -> None:
        """Losses of the whole group that are neither accepted nor repaired."""
        self._board.open_gaps = dict(gaps)

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


def _stall_topic(lease: Lease, target: Target) -> Hashable:
    return ("stall", *spot_of(lease.stream, lease.shard_id), target.target_id)
