"""Prometheus metrics, in a registry of their own. Labels are rules, regions and tables; never keys or shards."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    Info,
    ProcessCollector,
    disable_created_metrics,
)

from replicator import __version__
from replicator.observability.caches import CacheMetrics
from replicator.observability.canaries import CanaryMetrics
from replicator.observability.jobs import JobMetrics

_SECONDS = (0.05, 0.1, 0.25, 0.5, 1, 2, 3, 5, 10, 30, 60, 300, 900, 3600, 21_600, 86_400)

LEASE_EVENTS = ("claimed", "finished", "stopped", "handed_over", "withdrawn", "lost", "failed", "other")
"""What happens to leases; a series for each from the start, so that a first loss is an increase."""


class Metrics:
    """Every metric of the process."""

    def __init__(self) -> None:  # noqa: PLR0915 - a statement per metric
        disable_created_metrics()  # type: ignore[no-untyped-call]  # a second series per counter, for nothing
        self.registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        Info("replicator", "Version of the program.", registry=registry).info({"version": __version__})
        target = ["rule", "region"]
        table = ["table", "region"]

        def counter(name: str, text: str, labels: list[str]) -> Counter:
            return Counter(f"replicator_{name}", text, labels, registry=registry)

        def gauge(name: str, text: str, labels: list[str]) -> Gauge:
            return Gauge(f"replicator_{name}", text, labels, registry=registry)

        self.records = counter("records_total", "Stream records done at a target.", target)
        self.changes = counter("changes_total", "Changes sent to a replica, by its answer.", [*target, "effect"])
        self.skipped = counter("skipped_records_total", "Records that the rule's filter excluded.", target)
        self.replica_written = counter("replica_written_total", "Items without a version that were adopted.", target)
        self.conflicts = counter("conflicts_total", "Conflict entries written.", [*target, "kind", "outcome"])
        self.cache_actions = counter("cache_actions_total", "Invalidations and refreshes sent to caches.", target)
        self.keyless = counter("cache_keyless_images_total", "Images without an attribute of the key template.", target)
        self.unstored = counter(
            "cache_unstored_refreshes_total", "Entries dropped because their cache had no room to refresh them.", target
        )
        self.too_large = counter(
            "cache_too_large_values_total", "Entries dropped because their values are larger than max_bytes.", target
        )
        self.foreign_records = counter(
            "foreign_records_total", "Records of other tables on the same Kinesis stream, passed over.", target
        )
        self.ties = counter(
            "ties_total", "Changes of one key and one time, put in order by their images or ids.", target
        )
        self.late = counter(
            "late_events_total", "Events of changes that arrived after a later one of their key was sent.", target
        )
        self.kept_removals = counter("kept_removals_total", "Deletes superseded by a later removal.", target)
        self.refused = counter("refused_changes_total", "Changes that a target refused and that were parked.", target)
        self.parked = gauge("parked_keys", "Keys and records that are parked: refused by a target, and kept.", target)
        self.parked_age = gauge("parked_oldest_seconds", "Time since the oldest parked key was refused.", target)
        self.held = gauge("rule_held", "1 for a rule or target that its world keeps from running.", [*target, "cause"])
        self.writes = WriteMetrics(registry)
        self.caches = CacheMetrics(registry)
        self.canaries = CanaryMetrics(registry)
        self.jobs = JobMetrics(registry)
        self.retries = counter("retries_total", "Requests repeated, by the error's kind.", [*target, "error"])
        self.blocked = gauge("blocked_targets", "Shards on which a target cannot go on.", target)
        self.lag = gauge("lag_seconds", "Age of the oldest record not yet applied; 0 when caught up (+-1 s).", target)
        self.lag_unknown = gauge("lag_unknown_shards", "Shards on which a target's lag is not known.", target)
        self.idle = gauge("seconds_since_progress", "Time since a target last moved or was caught up.", target)
        self.record_age = Histogram(
            "replicator_record_age_seconds",
            "Age of the newest record of a page when the page was applied (+-1 s).",
            target,
            registry=registry,
            buckets=_SECONDS,
        )
        self.batch_seconds = Histogram(
            "replicator_batch_seconds", "Time to apply a page.", target, registry=registry, buckets=_SECONDS
        )
        self.polls = counter("polls_total", "GetRecords calls that were answered.", table)
        self.polled = counter("polled_records_total", "Records read from streams.", table)
        self.expired = counter("expired_iterators_total", "Shard iterators renewed.", table)
        self.shards = gauge("listed_shards", "Shards that the stream lists.", table)
        self.owned = gauge("owned_shards", "Shards that this worker reads.", table)
        self.open_shards = gauge("open_shards", "Shards that get records: as many workers can be busy.", table)
        self.backlog = gauge("backlog_seconds", "The greatest lag of this worker's shards of a stream.", table)
        self.retention_left = gauge(
            "retention_left_seconds", "Time until the stream drops a record that was not applied; 0: it did.", target
        )
        self.stalled = gauge("stalled_shards", "Shards that this worker owns and does not progress on.", target)
        self.waiting = gauge(
            "waiting_shards",
            "Shards that do not move for a rule while no worker is at work on them; every worker reports all of them.",
            [*target, "why"],
        )
        self.stalls = counter("stalls_total", "Times that a shard did not progress for too long.", target)
        self.gaps = counter("gaps_total", "Loss intervals found: records trimmed before they were read.", target)
        self.gaps_passed = counter("gaps_passed_total", "Gaps after which a target continued.", target)
        self.gaps_open = gauge("gaps_open", "Gaps at which targets are stopped now.", target)
        self.gaps_unrepaired = gauge(
            "gaps_unrepaired",
            "Loss intervals that are neither accepted nor repaired; every worker reports all of them.",
            target,
        )
        self.describes = counter("discovery_calls_total", "DescribeStream calls.", table)
        self.leases = counter("leases_total", "Leases claimed and ended.", ["event"])
        for event in LEASE_EVENTS:
            self.leases.labels(event)
        self.checkpoints = counter("checkpoints_total", "Checkpoints stored.", table)
        self._of_group(gauge)
        self._of_process(counter)

    def _of_process(self, counter: Callable[[str, str, list[str]], Counter]) -> None:
        """What went wrong in this process."""
        self.faults = counter("shard_faults_total", "Unexpected errors of shard workers.", ["rule"])
        self.failures = counter("service_failures_total", "Failures of discovery, reading and heartbeat.", ["error"])

    def _of_group(self, gauge: Callable[[str, str, list[str]], Gauge]) -> None:
        """How targets stand wherever they stand, and what one worker reports for all."""
        self.target_shards = gauge("target_shards", "Shards of a target, by state.", ["rule", "region", "state"])
        self.paused = gauge("paused_seconds", "Time since a rule was paused; one worker reports it for all.", ["rule"])
        self.workers = gauge("workers", "Workers that have a heartbeat; one worker reports it for all.", ["state"])
        region = ["rule", "region"]
        self.away = gauge("region_away", "Whether a mesh's region is away for this worker: 1 or 0.", region)
        self.owed = gauge(
            "owed_keys", "Keys in the backlog of a mesh's region; reported by one worker per source.", region
        )
        self.owed_age = gauge("owed_oldest_seconds", "Age of the oldest entry of the backlog.", region)
        self.unreachable = gauge(
            "coordination_unreachable_seconds", "Time since the coordination table took a heartbeat, if it refuses.", []
        )
        self.configuration = gauge(
            "configuration_refused_seconds", "Time since a changed configuration has been refused; 0: none is.", []
        )
        self.clock_behind = gauge(
            "clock_behind_seconds",
            "How far this machine's clock is behind those of AWS; below 5 either way it is 0.",
            [],
        )


class WriteMetrics:
    """How replicas are written: limits, requests in flight, throttles and write units."""

    def __init__(self, registry: CollectorRegistry) -> None:
        target = ["rule", "region"]
        self.request_limit = Gauge(
            "replicator_request_limit",
            "Requests in flight that a replica is allowed now, by kind; it adapts.",
            [*target, "kind"],
            registry=registry,
        )
        self.in_flight = Gauge(
            "replicator_requests_in_flight",
            "Requests to a replica that wait for their answer.",
            target,
            registry=registry,
        )
        self.throttled = Counter(
            "replicator_throttled_requests_total", "Requests that a replica threw back.", target, registry=registry
        )
        self.units = Counter(
            "replicator_write_units_total",
            "Write units consumed in a region; only with write_units.",
            target,
            registry=registry,
        )
        self.units_limit = Gauge(
            "replicator_write_units_limit", "The rule's write_units in a region.", target, registry=registry
        )
        self.units_waiting = Gauge(
            "replicator_write_units_waiting", "Requests that wait for write units.", target, registry=registry
        )
        self.told: dict[tuple[Counter, tuple[str, str], object], float] = {}
        """How far counters were raised already, by the object that has the figure."""
