"""Sweeps: rules that are compared as a whole again and again, in the background.

Invariant: the next sweep of a rule has a name that follows from the last one, so workers that ask for it together ask
for one; and a rule has one sweep at a time.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from hashlib import sha256

from replicator.domain.identifiers import RuleName, TableName
from replicator.domain.jobs import Job, JobKind, JobState, parts_of
from replicator.domain.rules import Rule, Target

SEGMENTS = 64
"""Of a sweep, which a worker asks for that knows no sizes."""


def due(rules: Iterable[Rule], jobs: Sequence[Job], now: float) -> list[Job]:
    """The sweeps that are to begin now. `rules`: those that run, once per source; `jobs`: all that are known."""
    wanted: dict[tuple[RuleName, object], Rule] = {}
    for rule in sorted(rules, key=lambda rule: rule.source):
        if rule.sweep is not None and _compared(rule):
            wanted.setdefault((rule.name, rule.members), rule)
    found = []
    for rule in wanted.values():
        assert rule.sweep is not None, "chosen by it"
        last = _last(jobs, rule)
        over = last is None or not last.state.is_open
        if over and (last is None or now >= last.created_at + rule.sweep.every_seconds):
            found.append(_sweep(rule, last, now))
    return found


def passes(jobs: Iterable[Job]) -> list[Job]:
    """The last full pass over each table of each rule."""
    last: dict[tuple[RuleName, TableName], Job] = {}
    for job in sorted(jobs, key=lambda job: job.created_at):
        if job.kind is JobKind.SWEEP and job.state is JobState.DONE:
            last[job.rule, job.table] = job
    return list(last.values())


def is_last(job: Job, jobs: Iterable[Job]) -> bool:
    """Whether a sweep is the newest of its rule and table: by that the next one is named and timed."""
    later = (other.created_at > job.created_at for other in jobs if _same(other, job))
    return job.kind is JobKind.SWEEP and not any(later)


def _last(jobs: Iterable[Job], rule: Rule) -> Job | None:
    tables = {rule.table, *(table for _, table in rule.members)}
    ours = [job for job in jobs if job.kind is JobKind.SWEEP and job.rule == rule.name and job.table in tables]
    return max(ours, key=lambda job: job.created_at, default=None)


def _same(one: Job, other: Job) -> bool:
    return (one.kind, one.rule, one.table) == (other.kind, other.rule, other.table)


def _compared(rule: Rule) -> list[Target]:
    return [each for each in rule.targets if each.table is not None]


def _sweep(rule: Rule, last: Job | None, now: float) -> Job:
    assert rule.sweep is not None, "it is due"
    name = sha256(f"{rule.name}|{rule.table}|{'' if last is None else last.job_id}".encode()).hexdigest()[:12]
    compared = _compared(rule)
    tables = dict.fromkeys(
        rule.members
        if rule.mesh is not None
        else [(rule.source, rule.table), *((each.region, each.table) for each in compared if each.table is not None)]
    )
    return Job(
        f"sweep-{name}",
        JobKind.SWEEP,
        rule.name,
        rule.table,
        tuple(target.target_id for target in compared),
        parts_of(tables, SEGMENTS),
        options={
            "read_units": {region: rule.sweep.read_units for region, _ in tables},
            **({"repair": True} if rule.sweep.repair else {}),
        },
        by="verify of the rule",
        created_at=now,
    )
