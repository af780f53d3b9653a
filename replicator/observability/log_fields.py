"""Fields of log lines: what a line is about, named the same everywhere."""

from __future__ import annotations

from replicator.domain.gaps import Gap
from replicator.domain.held import HeldId
from replicator.domain.jobs import JobProgress
from replicator.domain.owed_keys import SHOWN_ROW_ID, OwedKey
from replicator.domain.rules import Target
from replicator.domain.shards.leases import Lease, StreamRef
from replicator.domain.shards.standstill import Standstill
from replicator.ports.events import Place
from replicator.ports.services import ServiceId


def of_stream(stream: StreamRef) -> dict[str, object]:
    """Fields of a line about a stream."""
    return {"table": stream.table, "source": stream.region}


def of_service(service: ServiceId) -> dict[str, object]:
    """Fields of a line about a service."""
    return {"service": service.shown, **({} if service.arn is None else {"stream": service.arn})}


def of_job(progress: JobProgress) -> dict[str, object]:
    """Fields of a line about a job."""
    job = progress.job
    counts = {name: round(count, 1) for name, count in progress.counts.items()}
    return {"job": job.job_id, "kind": job.kind, "rule": job.rule, "table": job.table, "state": job.state, **counts}


def of_lease(lease: Lease) -> dict[str, object]:
    """Fields of a line about a leased shard."""
    return {
        "table": lease.stream.table,
        "source": lease.stream.region,
        "shard": lease.shard_id,
        "epoch": lease.epoch,
    }


def of_target(lease: Lease, target: Target) -> dict[str, object]:
    """Fields of a line about a target on a leased shard."""
    return {"rule": target.rule, "target": target.target_id.text, **of_lease(lease)}


def of_standstill(stream: StreamRef, standstill: Standstill) -> dict[str, object]:
    """Fields of a line about a rule that stands still."""
    return {
        "rule": standstill.rule,
        "table": stream.table,
        "source": stream.region,
        "why": standstill.why,
        "shards": len(standstill.shards),
        "shard": standstill.shards[0] if standstill.shards else None,
    }


def of_held(held: HeldId) -> dict[str, object]:
    """Fields of a line about what is held."""
    target = {} if held.target is None else {"target": held.target.text}
    return {"rule": held.rule, "table": held.table, **target}


def of_gap(gap: Gap) -> dict[str, object]:
    """Fields of a line about a gap."""
    return {
        "gap": gap.gap_id,
        "target": gap.target_id.text,
        "table": gap.stream.table,
        "source": gap.stream.region,
        "shard": gap.shard_id,
        "after": gap.after.text,
        "until": None if gap.until is None else gap.until.text,
    }


def of_owed(place: Place, owed: OwedKey) -> dict[str, object]:
    """Fields of a line about a row of what a target is owed."""
    return {
        "row": owed.row_id[:SHOWN_ROW_ID],
        "rule": place.target.rule,
        "region": place.target.region,
        "table": place.stream.table,
        "key": owed.shown,
        "version": owed.version,
        "tries": owed.tries,
    }
