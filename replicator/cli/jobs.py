"""`replicator jobs`: what is at work on whole tables, and how to let it rest, go on, or end."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

from replicator.cli.confirmation import who
from replicator.cli.following import detachable, follow_shown
from replicator.cli.output import note, print_json, print_rows, shown_time
from replicator.cli.running import loaded, on_group
from replicator.domain.errors import EXIT_STOPPED
from replicator.domain.plain_text import on_one_line
from replicator.operations import jobs
from replicator.operations.documents import document
from replicator.operations.group import Group, known_rule
from replicator.operations.jobs import ListedJob

_COLUMNS = ("job", "kind:3", "rule", "table:4", "state", "items", "of about:1", "segments:5", "since:2", "note:6")
_MOST_NOTES = 20


def list_jobs(config: Path | None, rule: str | None, *, everything: bool, as_json: bool) -> int:
    """A row per job."""
    settings = loaded(config)
    found = on_group(settings, lambda group: jobs.list_jobs(group, rule, everything=everything))
    known_rule(settings, rule, found)
    if as_json:
        print_json({"jobs": found})
        return EXIT_STOPPED
    if not found:
        note("There is no such job." if everything or rule else "No job runs; --all shows those that are over.")
        return EXIT_STOPPED
    print_rows(_COLUMNS, map(_row, found), one_line=True)
    return EXIT_STOPPED


def _row(job: ListedJob) -> list[str]:
    return [
        job.job,
        job.kind,
        job.rule,
        job.table,
        job.state,
        str(job.items),
        str(job.items_expected),
        f"{job.segments_done}/{job.segments}",
        shown_time(job.created_at),
        job.note,
    ]


def show_job(config: Path | None, job_id: str, *, watch: bool, as_json: bool) -> int:
    """One job with its counts and what it said; `watch`: follows it to its end first."""
    followed: list[str] = []

    async def work(group: Group) -> tuple[ListedJob, list[tuple[str, object]]]:
        job = await jobs.job_named(group, job_id)
        followed.append(job.job_id)
        if watch:
            job = await follow_shown(group, job, quiet=as_json)
        return jobs.listed(await jobs.progress(group, job)), [*await group.jobs.notes(job.job_id)]

    with detachable(followed):
        job, notes = on_group(loaded(config), work)
    if as_json:
        print_json({**document(job), "notes": [said for _, said in notes]})
        return EXIT_STOPPED
    shown = document(job)
    counts = shown.pop("counts")
    for name, value in {**shown, **counts}.items():
        if value not in {None, ""} if not isinstance(value, list | dict) else value:
            text = ", ".join(value) if isinstance(value, list) else f"{value}"
            sys.stdout.write(f"{name}\t{on_one_line(text)}\n")
    for name, said in notes[:_MOST_NOTES]:
        sys.stdout.write(f"{on_one_line(name)}\t{on_one_line(str(said))}\n")
    if len(notes) > _MOST_NOTES:
        note(f"{len(notes) - _MOST_NOTES} more; --json shows all.")
    return EXIT_STOPPED


def steer(config: Path | None, deed: Callable[[Group], Awaitable[ListedJob]], *, as_json: bool) -> int:
    """Let a job rest, go on, or end."""
    job = on_group(loaded(config), deed)
    if as_json:
        print_json(job)
    else:
        sys.stdout.write(f"Job {job.job} is {job.state}.\n")
    return EXIT_STOPPED


def pause_job(config: Path | None, job_id: str, *, as_json: bool) -> int:
    """Let a job rest."""
    return steer(config, lambda group: jobs.pause(group, job_id, who()), as_json=as_json)


def resume_job(config: Path | None, job_id: str, *, as_json: bool) -> int:
    """Let a job go on."""
    return steer(config, lambda group: jobs.resume(group, job_id), as_json=as_json)


def cancel_job(config: Path | None, job_id: str, *, as_json: bool) -> int:
    """End a job."""
    return steer(config, lambda group: jobs.cancel(group, job_id, who()), as_json=as_json)
