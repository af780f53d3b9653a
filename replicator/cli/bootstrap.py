"""`replicator bootstrap`: say what it takes, ask, store the job, and follow it to the end of its comparison."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from replicator.cli.confirmation import ask, need_yes, who
from replicator.cli.following import detachable, follow_shown, how_to_follow, shown_span
from replicator.cli.output import note, print_json, print_rows, say
from replicator.cli.running import loaded, on_group
from replicator.domain.errors import EXIT_FAULT, EXIT_STOPPED
from replicator.domain.jobs import Job, JobState
from replicator.operations.bootstrap import BootstrapPlan, BootstrapRequest, plan_bootstrap
from replicator.operations.documents import document
from replicator.operations.group import Group, rule_named
from replicator.operations.jobs import follower_of, living_workers, submit, warn_without_workers

if TYPE_CHECKING:
    from replicator.settings import Settings

_COLUMNS = ("region", "table", "items", "MB", "read units", "write units", "reads/s", "writes/s")


@dataclass(frozen=True, slots=True)
class _Done:
    plan: BootstrapPlan
    job: Job | None = None
    compared: Job | None = None


def bootstrap_rule(  # noqa: PLR0913 - one parameter per option
    config: Path | None, request: BootstrapRequest, *, detach: bool, dry_run: bool, yes: bool, as_json: bool
) -> int:
    """Exit code 0: all was copied and is equal; 1: something differs, or the job did not come to its end."""
    settings = loaded(config)
    followed: list[str] = []

    async def work(group: Group) -> _Done:
        workers = max(1, len(await group.membership.members()))
        plan = await plan_bootstrap(group, request, workers=workers, by=who())
        if not as_json:
            _show(plan)
        if dry_run:
            return _Done(plan)
        need_yes(yes=yes, as_json=as_json)
        ask("Begin?", yes=yes)
        job = await submit(group, plan.job)
        followed.append(job.job_id)
        if detach:
            if not await living_workers(group):
                await warn_without_workers(group)
            return _Done(plan, job)
        await warn_without_workers(group)
        job = await follow_shown(group, job, quiet=as_json)
        compared = await follower_of(group, job)
        if compared is not None:
            followed.append(compared.job_id)
            compared = await follow_shown(group, compared, quiet=as_json)
        return _Done(plan, job, compared)

    with detachable(followed):
        done = on_group(settings, work, _regions(settings, request))
    return _end(done, as_json=as_json)


def _regions(settings: Settings, request: BootstrapRequest) -> list[str]:
    return rule_named(settings, request.rule).regions_used


def _show(plan: BootstrapPlan) -> None:
    rows = [
        [
            each.region,
            each.table,
            f"{each.items}",
            f"{each.bytes / 1e6:.1f}",
            f"{each.read_units}",
            f"{each.write_units}",
            f"{each.read_units_per_second}",
            f"{each.write_units_per_second}",
        ]
        for each in plan.regions
    ]
    print_rows(_COLUMNS, rows)
    say(
        f"{plan.job.items:,} items for {', '.join(target.text for target in plan.job.targets)}, in"
        f" {plan.job.segments} segments: at least {shown_span(plan.seconds)}, and about ${plan.dollars:,.2f} on demand"
        " in us-east-1. Counts are DynamoDB's, up to six hours old; a comparison at the end reads both sides again."
    )
    sys.stdout.flush()


def _end(done: _Done, *, as_json: bool) -> int:
    job, compared = done.job, done.compared
    if as_json:
        print_json(
            {
                "plan": done.plan.shown,
                "job": None if job is None else _shown(job),
                "verify": None if compared is None else _shown(compared),
            }
        )
    elif job is not None and job.state.is_open:
        say(how_to_follow(job.job_id))
    elif job is not None:
        say(f"Job {job.job_id} is {job.state}: {_counted(job)}.")
        if job.note:
            note(job.note)
        if compared is not None:
            say(f"Comparison {compared.job_id} is {compared.state}: {_counted(compared)}.")
    ended = [each for each in (job, compared) if each is not None and not each.state.is_open]
    differs = compared is not None and compared.counts.get("differences", 0) > 0
    return EXIT_FAULT if differs or any(each.state is not JobState.DONE for each in ended) else EXIT_STOPPED


def _shown(job: Job) -> dict[str, object]:
    return {"job": job.job_id, "state": job.state, "note": job.note, "counts": document(job.counts)}


def _counted(job: Job) -> str:
    return ", ".join(f"{count:,.0f} {name.replace('_', ' ')}" for name, count in sorted(job.counts.items()) if count)
