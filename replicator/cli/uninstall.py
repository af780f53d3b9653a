"""`replicator uninstall`: say what is removed, ask, clean the tables in this process, then forget the rule."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from replicator.cli.confirmation import ask, need_yes, who
from replicator.cli.following import follow_shown
from replicator.cli.output import note, print_json, print_rows
from replicator.cli.running import loaded, on_group
from replicator.domain.copying.uninstalls import Kept
from replicator.domain.errors import EXIT_FAULT, EXIT_STOPPED
from replicator.domain.jobs import added
from replicator.domain.verdict.kinds import counted
from replicator.operations.documents import document
from replicator.operations.group import rule_named
from replicator.operations.parked_rows import regions_of
from replicator.operations.uninstall import (
    UninstallPlan,
    UninstallRequest,
    begin,
    forget,
    is_clean,
    kept,
    make_way,
    plan_uninstall,
    refuse_running,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from replicator.domain.jobs import Job
    from replicator.operations.group import Group

_COLUMNS = ("region", "table", "removes", "items", "MB", "read units", "write units", "reads/s", "writes/s")

_WHY = {
    Kept.CHANGED: "changed meanwhile, so something stamps them still: find it and stop it",
    Kept.MARKED: "are marked by a delete that was not finished: run the rule until it has caught up, then stop it",
    "refused": "were refused by their table: `replicator inspect` shows them",
}


@dataclass(frozen=True, slots=True)
class _Done:
    plan: UninstallPlan
    jobs: Sequence[Job] = field(default=())
    rows: int | None = None


def uninstall_rule(config: Path | None, request: UninstallRequest, *, dry_run: bool, yes: bool, as_json: bool) -> int:
    """Exit code 0: nothing of the rule is left; 1: something had to stay, so its rows stay, too."""
    settings = loaded(config)
    rule = rule_named(settings, request.rule)
    if not dry_run:
        need_yes(yes=yes, as_json=as_json)

    async def work(group: Group) -> _Done:
        if not dry_run:
            await refuse_running(group, rule)
        plan = await plan_uninstall(group, request, by=who())
        if not as_json:
            _show(plan)
        if dry_run:
            return _Done(plan)
        ask(f"Remove all this? Rule {rule.name} cannot be resumed afterwards, only started afresh.", yes=yes)
        await refuse_running(group, rule, plan.written)
        await make_way(group, plan, by=who())
        jobs = await _clean(group, plan, as_json=as_json)
        return _Done(plan, jobs, await forget(group, plan) if is_clean(jobs) else None)

    regions = {*regions_of(settings), *(region for each in settings.rules for region in each.regions_used)}
    try:
        done = on_group(settings, work, regions)
    except KeyboardInterrupt:
        note("No worker continues this; run the same command again to continue.")
        raise
    return _end(done, dry_run=dry_run, as_json=as_json)


async def _clean(group: Group, plan: UninstallPlan, *, as_json: bool) -> list[Job]:
    """Take stamps and side rows away, table by table."""
    from replicator.app.job_worker import working_on_jobs

    settings = group.settings.model_copy(update={"rules": list(plan.rules)})
    async with working_on_jobs(settings, uninstalls=True):
        return [await follow_shown(group, await begin(group, job), quiet=as_json) for job in plan.jobs]


def _show(plan: UninstallPlan) -> None:
    rows = [
        [
            each.region,
            each.table,
            each.removes,
            f"{each.items}",
            f"{each.bytes / 1e6:.1f}",
            f"{each.read_units}",
            f"{each.write_units}",
            f"{each.read_units_per_second}",
            f"{each.write_units_per_second}",
        ]
        for each in plan.tables
    ]
    print_rows(_COLUMNS, rows)
    streams = ", ".join(plan.streams) or "no stream"
    sys.stdout.write(
        f"Rule {plan.rule} also has progress on {streams}, {counted(plan.gaps, 'gap')},"
        f" {counted(plan.parked, 'parked key')} and {counted(plan.earlier_jobs, 'earlier job')}. Counts of items are"
        " DynamoDB's, up to six hours old; write units are at most. Items, cache entries and conflict entries stay.\n"
    )
    for _, stream, consumer in plan.consumers:
        sys.stdout.write(f"Consumer {consumer} of Kinesis stream {stream} is deregistered.\n")
    for table in plan.left_out:
        sys.stdout.write(f"Table {table} was written by the rule once and is not in its configuration: it stays.\n")
    for job in plan.cancels:
        sys.stdout.write(f"Job {job} of the rule is not over: it is cancelled.\n")
    for job in plan.begun:
        sys.stdout.write(
            f"Job {job} was interrupted; it continues. If the rule ran, cancel it (`replicator jobs cancel {job}`)"
            " and start afresh.\n"
        )
    sys.stdout.flush()


def _end(done: _Done, *, dry_run: bool, as_json: bool) -> int:
    counts = added(*(job.counts for job in done.jobs))
    if as_json:
        shown = [
            {"job": job.job_id, "state": job.state, "note": job.note, "counts": document(job.counts)}
            for job in done.jobs
        ]
        print_json({"plan": done.plan.shown, "jobs": shown, "removed": done.rows is not None, "rows": done.rows})
    elif not dry_run:
        sys.stdout.write(
            f"{counts.get('unstamped', 0):,.0f} stamps and {counts.get('side_rows', 0):,.0f} side rows were removed;"
            f" {counts.get('read_units', 0):,.0f} read units, {counts.get('write_units', 0):,.0f} write units.\n"
        )
        _say(done)
        if counts.get(Kept.FOREIGN):
            note(f"{counts[Kept.FOREIGN]:,.0f} items hold something else in the attribute: it stays.")
    return EXIT_STOPPED if dry_run or done.rows is not None else EXIT_FAULT


def _say(done: _Done) -> None:
    """How it ended."""
    if done.rows is not None:
        sys.stdout.write(f"Rule {done.plan.rule} is forgotten ({counted(done.rows, 'row')}).\n")
        return
    for job in done.jobs:
        if job.state != "done":
            note(f"Job {job.job_id} is {job.state}. {job.note}".strip())
    for name, count in kept(done.jobs).items():
        if count:
            note(f"{count:,.0f} items or rows {_WHY[name]}, then run this again.")
    note(f"What is stored of rule {done.plan.rule} is kept until its tables are clean.")
