"""One event, one call: a log line, metrics, and the status board.

May lose things and decides nothing. Keys appear, item values never do. Repeated troubles are logged as `reminders`
says: once, then once a minute, with the number of times. What is normal with many workers (a lease claimed, handed over
or lost) is information, once.
"""

from __future__ import annotations

from collections import Counter
from hashlib import sha256
from typing import TYPE_CHECKING

from replicator.domain.cache_horizons import Horizon
from replicator.domain.canary import Arrivals, CanaryPlace
from replicator.domain.errors import ReplicatorError, Throttled
from replicator.domain.identifiers import ShardId
from replicator.domain.modes.ordered import Effect
from replicator.domain.owed_keys import OwedKey, Settlement
from replicator.domain.presence import Reason, Standing
from replicator.domain.progress import Position, latest
from replicator.domain.shards.leases import StreamRef
from replicator.domain.values import replace
from replicator.observability import canaries, log_fields
from replicator.observability.gauges import refresh
from replicator.observability.reports import topic_of
from replicator.observability.service_events import ServiceEvents
from replicator.observability.shard_events import ShardEvents
from replicator.observability.target_states import Trouble
from replicator.ports.events import (
    BatchReport,
    CacheHorizons,
    CacheState,
    Inconsistency,
    OwedRows,
    PacedTable,
    Place,
    RegionState,
)

if TYPE_CHECKING:
    from replicator.observability.traces import Traces

_TOO_MUCH = "Its backlog is full, so all entries are dropped when it answers."
_STALE = "It is older than its table, so long behind a change that it lacks. It is dropped."
_OLD = "It is a different server than before. Entries that it may have lost are dropped again (debt.on_restore)."
_IGNORED = Throttled(
    "A cache's backlog is full; entries of further changes stay stale until they expire.",
    advice="Restore it, then drop its entries; or set its debt.policy to flush.",
)
_NO_ROOM = Throttled(
    "A cache has no room, so entries were dropped instead of refreshed.",
    advice="Raise maxmemory of the cache, or set an eviction policy; entries come back as they are read.",
)


class LiveObserver(ShardEvents, ServiceEvents):
    """Logs, counts and notes every event.

    It is as long as this part of the port: one method for each event, so that a line, its metrics and the board never
    part.
    """

    traces: Traces | None = None
    """What makes spans of batches, where a collector is configured."""

    def polled(  # noqa: PLR0913, PLR0917 - what one answer says
        self,
        stream: StreamRef,
        shard_id: ShardId,
        position: Position,
        records: int,
        level_at: float | None = None,
        behind: float | None = None,
    ) -> None:
        """The records behind a position were asked for."""
        self._metrics.polls.labels(stream.table, stream.region).inc()
        self._board.compared(behind)
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
        if self.traces is not None:
            self.traces.applied(report)
        place, metrics = report.place, self._metrics
        lag = None if report.lag_seconds is None else max(0.0, report.lag_seconds)
        labels = (place.target.rule, place.target.label)
        state = self._board.state(place)
        state.pending_since, state.last_lag = None, lag
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
        metrics.too_large.labels(*labels).inc(report.too_large)
        metrics.kept_removals.labels(*labels).inc(report.kept_removals)
        metrics.foreign_records.labels(*labels).inc(report.foreign)
        metrics.ties.labels(*labels).inc(report.ties)
        metrics.late.labels(*labels).inc(report.late)
        metrics.refused.labels(*labels).inc(report.parked)
        metrics.batch_seconds.labels(*labels).observe(report.took_seconds)
        if lag is not None:
            metrics.record_age.labels(*labels).observe(lag)
        self._log.debug(
            "batch_applied",
            rule=place.target.rule,
            region=place.target.region,
            table=place.stream.table,
            shard=place.shard_id,
            position=report.position.text,
            lag_seconds=None if lag is None else round(lag, 1),
            took_ms=round(report.took_seconds * 1000),
            **counts,
        )
        self._summaries.add(place.target.rule, counts, lag, self._clock.monotonic())
        self.summarise()
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

    def cache_stands(self, state: CacheState) -> None:
        """A cache fell away or is back, or is owed more or less than before."""
        where = (state.cache, state.region)
        before, _ = self._board.caches.get(where, (None, 0.0))
        self._board.caches[where] = state, self._clock.monotonic() - state.seconds
        self._metrics.caches.told(state, before)
        fields = {"cache": state.cache, "region": state.region}
        owed = {} if before is None else {"flush": before.owes_flush, "entries": before.keys}
        if state.error is not None:
            self._warn(("cache", *where), "cache_away", state.error, **fields)
        elif before is not None and before.error is not None:
            self._reminders.over(("cache", *where))
            self._log.info("cache_back", **fields, **owed)
        if state.refusing is not None:
            self._warn(("cache part", *where), "cache_refuses", state.refusing, **fields)
        elif before is not None and before.refusing is not None:
            self._reminders.over(("cache part", *where))
        if state.ignored > (0 if before is None else before.ignored):
            self._warn(("cache debt", *where), "cache_actions_ignored", _IGNORED, **fields)
        if before is not None and state.owes_flush and not before.owes_flush:
            self._log.warning("cache_flush_owed", reason=_TOO_MUCH, **fields)
        if before is not None and state.restores > before.restores:
            self._log.warning("cache_may_be_old", reason=_OLD, **fields)
        if before is not None and state.flushes > before.flushes:
            self._log.warning("cache_flushed", **fields)
        if before is not None and before.keys and not state.keys:
            self._log.info("cache_settled", settled=state.settled, **fields)

    def cache_verified(self, found: CacheHorizons) -> None:
        """Entries of a cache were read again behind their actions."""
        where = (found.cache, found.region)
        self._metrics.caches.verified(found, self._board.horizons.get(where))
        horizons = [Horizon(each.seconds, Counter(each.found)) for each in found.horizons]
        self._board.horizons[where] = replace(found, horizons=horizons)

    def canary(self, place: CanaryPlace, arrivals: Arrivals | None) -> None:
        """How a rule's canary arrives at a place; None: this worker writes it no longer."""
        canaries.told(self._board, self._log, place, arrivals)

    def cache_inconsistent(self, found: Inconsistency) -> None:
        """An entry is older than its table; it is being dropped."""
        self._log.warning(
            "cache_inconsistent",
            reason=_STALE,
            cache=found.cache,
            region=found.region,
            entry=sha256(found.entry.encode()).hexdigest()[:16],
            seconds=found.seconds,
        )

    def moved(self, place: Place, position: Position) -> None:
        """A target's frontier moved."""
        self._board.state(place).moved(position, self._clock.monotonic())

    def stands(self, place: Place, position: Position) -> None:
        """A target goes on, or begins, at this stored position."""
        self._board.state(place).stands(position)

    def retrying(self, place: Place, error: ReplicatorError, attempt: int) -> None:
        """A request failed and will be repeated."""
        self._metrics.retries.labels(place.target.rule, place.target.label, type(error).__name__).inc()
        self._log.debug("request_failed", target=place.target.target_id.text, error=error.message, attempt=attempt)

    def blocked(self, place: Place, error: ReplicatorError, key: str | None) -> None:
        """A target cannot go on."""
        self._metrics.retries.labels(place.target.rule, place.target.label, type(error).__name__).inc()
        state = self._board.state(place)
        if state.trouble is None:
            state.trouble = Trouble(error, key, self._clock.monotonic())
        else:
            state.trouble.error, state.trouble.key = error, key
            state.trouble.times += 1
        self._warn(
            topic_of(place),
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
            self._reminders.over(topic_of(place))
            self._log.info(
                "target_unblocked",
                rule=place.target.rule,
                region=place.target.region,
                table=place.stream.table,
                shard=place.shard_id,
                blocked_seconds=blocked_seconds,
            )

    def refresh_gauges(self) -> None:
        """Set the gauges that grow by themselves; called before every scrape."""
        refresh(self._metrics, self._board)


_AWAY = {
    Reason.SILENT: "The other regions continue; its changes are stored as its backlog and applied when it answers.",
    Reason.DECLARED: "`replicator resume RULE --region ID` ends the pause and applies its backlog.",
    Reason.OVERDUE: "Rebuild it: docs/operations.md, A replica is away.",
}


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
        "foreign": report.foreign,
        "retries": report.retries,
    }
