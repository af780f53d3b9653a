"""Which repairs follow losses of records, and which losses are repaired: streams name no key ranges, so whole tables.

Invariant: a loss is closed only by a repair of its target that began when the loss was known, went over the whole
table, and mended all that it found; what was lost later asks for another one. A repair that was cancelled or failed, or
left differences, is not asked for again.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from hashlib import sha256

from msgspec import Struct

from replicator.domain.copying.contents import Kind
from replicator.domain.gaps import Gap, OpenGap
from replicator.domain.identifiers import RegionId, TableName
from replicator.domain.jobs import Job, JobKind, JobState, parts_of
from replicator.domain.rules import OnGap, Rule, Target

SEGMENTS = 64
"""Of a repair that a worker asks for, which knows no sizes."""

_WHOLE = frozenset({JobKind.RESYNC, JobKind.REPAIR})
_NARROWED = frozenset({"keys", "prefix", "sample", "dry_run"})
_OF_A_LOSS = frozenset(Kind) - {Kind.EXTRA}
"""Differences that a lost record may have left. Extra items that a repair lets stay were never replicated."""


class Resync(Struct, frozen=True):
    """What is to be done: repairs to be asked for, losses to note them at, and losses that are repaired."""

    create: Sequence[Job] = ()
    note: Sequence[tuple[Gap, str]] = ()
    close: Sequence[tuple[Gap, str]] = ()


def plan(gaps: Iterable[OpenGap], jobs: Sequence[Job], rules: Iterable[Rule], now: float) -> Resync:
    """What follows from the losses that are open, the jobs that are known and the rules that run."""
    running = {target.target_id: (rule, target) for rule in rules for target in rule.targets if resyncs(rule, target)}
    create: dict[str, Job] = {}
    note: list[tuple[Gap, str]] = []
    close: list[tuple[Gap, str]] = []
    for gap in gaps:
        covering = [job for job in jobs if _covers(job, gap)]
        done = [job for job in covering if job.state is JobState.DONE]
        under_way = [job for job in covering if job.state.is_open]
        target_id = gap.gap.target_id
        whole = [job for job in done if not any(job.counts.get(kind) for kind in _OF_A_LOSS)]
        if whole:
            close.append((gap.gap, whole[0].job_id))
        elif under_way:
            note += [(gap.gap, under_way[0].job_id)] if gap.job != under_way[0].job_id else []
        elif target_id in running and not covering:
            job = _job(*running[target_id], max(now, gap.at))
            create[job.job_id] = job
    return Resync(tuple(create.values()), tuple(note), tuple(close))


def resyncs(rule: Rule, target: Target) -> bool:
    """Whether a repair follows what a target lost: of caches or events alone there is no table to repair."""
    return rule.on_gap is OnGap.RESYNC and target.table is not None


def _covers(job: Job, gap: OpenGap) -> bool:
    """Whether a job goes over the whole table of what was lost, and began when the loss was known."""
    whole = job.kind in _WHOLE and _NARROWED.isdisjoint(name for name, value in job.options.items() if value)
    return whole and gap.gap.target_id in job.targets and job.created_at >= gap.at


def _job(rule: Rule, target: Target, at: float) -> Job:
    """The repair of a target; the same whichever worker asks for it first in a second."""
    name = sha256(f"{target.target_id}|{int(at)}".encode()).hexdigest()[:12]
    tables = rule.members if rule.mesh is not None else _replicated(rule, target)
    return Job(
        f"resync-{name}",
        JobKind.RESYNC,
        rule.name,
        rule.table,
        (target.target_id,),
        parts_of(tables, SEGMENTS),
        by="on_gap: resync",
        created_at=at,
    )


def _replicated(rule: Rule, target: Target) -> tuple[tuple[RegionId, TableName], ...]:
    assert target.table is not None, "only tables are repaired"
    return ((rule.source, rule.table), (target.region, target.table))
