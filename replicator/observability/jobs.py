"""Jobs as metrics and for /status. Labels are kinds and rules; of several jobs of a rule the sums count."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from prometheus_client import CollectorRegistry, Counter, Gauge

from replicator.domain.copying.sureness import nines

if TYPE_CHECKING:
    from replicator.domain.jobs import Job, JobProgress
    from replicator.observability.status_board import Board


class JobMetrics:
    """How far jobs are; every worker reports all of them."""

    def __init__(self, registry: CollectorRegistry) -> None:
        job = ["kind", "rule"]

        def gauge(name: str, text: str, labels: list[str]) -> Gauge:
            return Gauge(f"replicator_{name}", text, labels, registry=registry)

        self.running = gauge("jobs", "Jobs that are not over; every worker reports all of them.", [*job, "state"])
        self.items = gauge("job_items", "Items that the open jobs are done with.", job)
        self.total = gauge("job_items_expected", "Items that the open jobs will go through, about.", job)
        self.rate = gauge("job_items_per_second", "Items per second, all workers together.", job)
        self.eta = gauge("job_eta_seconds", "Time until the last of the jobs is done, at this rate.", job)
        rule = ["rule"]
        self.swept_at = gauge("sweep_ended_timestamp_seconds", "When the last full comparison of a rule ended.", rule)
        self.sweep_differences = gauge("sweep_differences", "Differences that it found and did not correct.", rule)
        self.sweep_nines = gauge(
            "sweep_nines", "Share of equal items among those compared, as a number of nines.", rule
        )
        self.ended = Counter(
            "replicator_jobs_ended_total", "Jobs that are over, where they ended.", ["kind", "state"], registry=registry
        )


def refresh(metrics: JobMetrics, board: Board) -> None:
    """Set what belongs to the jobs that are not over."""
    for gauge in (metrics.running, metrics.items, metrics.total, metrics.rate, metrics.eta):
        gauge.clear()
    _sweeps(metrics, board)
    latest: dict[tuple[str, str], float] = {}
    for progress in board.jobs.values():
        labels = (str(progress.job.kind), str(progress.job.rule))
        metrics.running.labels(*labels, str(progress.job.state)).inc()
        metrics.items.labels(*labels).inc(progress.items)
        metrics.total.labels(*labels).inc(progress.total)
        metrics.rate.labels(*labels).inc(progress.rate or 0.0)
        if progress.eta_seconds is not None:
            latest[labels] = max(latest.get(labels, 0.0), progress.eta_seconds)
    for labels, seconds in latest.items():
        metrics.eta.labels(*labels).set(seconds)


def _sweeps(metrics: JobMetrics, board: Board) -> None:
    """The last full comparisons; of a rule with many tables the oldest, all differences, and the fewest nines."""
    for gauge in (metrics.swept_at, metrics.sweep_differences, metrics.sweep_nines):
        gauge.clear()
    for rule in {job.rule for job in board.sweeps}:
        found = [job for job in board.sweeps if job.rule == rule]
        metrics.swept_at.labels(rule).set(min(job.ended_at or 0.0 for job in found))
        metrics.sweep_differences.labels(rule).set(sum(job.counts.get("differences", 0) for job in found))
        known = [sure for job in found if (sure := nines_of(job)) is not None]
        if known:
            metrics.sweep_nines.labels(rule).set(min(known))


def nines_of(job: Job) -> float | None:
    """How many nines of what a job compared are equal."""
    return nines(job.counts.get("compared", 0), job.counts.get("differences", 0))


def shown_sweeps(board: Board) -> list[dict[str, Any]]:
    """The last full comparisons, for /status."""
    return [
        {
            "job": job.job_id,
            "rule": job.rule,
            "table": job.table,
            "ended_at": job.ended_at,
            "compared": round(job.counts.get("compared", 0)),
            "differences": round(job.counts.get("differences", 0)),
            "mended": round(job.counts.get("mended", 0)),
            "nines": nines_of(job),
        }
        for job in board.sweeps
    ]


def shown(board: Board) -> list[dict[str, Any]]:
    """Every job that is not over, for /status."""
    return [_job(progress) for progress in board.jobs.values()]


def _job(progress: JobProgress) -> dict[str, Any]:
    job, rate, eta = progress.job, progress.rate, progress.eta_seconds
    return {
        "job": job.job_id,
        "kind": job.kind,
        "rule": job.rule,
        "table": job.table,
        "targets": [target.text for target in job.targets],
        "state": job.state,
        "note": job.note,
        "items": round(progress.items),
        "items_expected": round(progress.total),
        "items_per_second": None if rate is None else round(rate, 1),
        "eta_seconds": None if eta is None else round(eta),
        "segments": job.segments,
        "segments_done": progress.done,
        "segments_owned": progress.owners,
        "counts": dict(progress.counts),
    }
