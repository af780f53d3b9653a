"""Following a job on the terminal: a bar with rate and time left, or plain lines; Ctrl-C leaves the job alone."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from replicator.cli.output import note
from replicator.operations.jobs import follow

if TYPE_CHECKING:
    from replicator.domain.jobs import Job, JobProgress
    from replicator.operations.group import Group

_LINE_SECONDS = 10.0
"""Time between two lines where there is no terminal."""

_MINUTE, _HOUR = 60, 3600


async def follow_shown(group: Group, job: Job, *, quiet: bool = False) -> Job:
    """The job when it is over, its progress on standard error meanwhile; `quiet`: nothing is shown."""
    with _shown(job, quiet=quiet) as tell:
        return await follow(group, job.job_id, tell)


def how_to_follow(job_id: str) -> str:
    """A sentence for an operator who stops following."""
    return f"Job {job_id} continues. Follow it with `replicator jobs show {job_id} --watch`."


@contextmanager
def detachable(job_ids: list[str]) -> Iterator[None]:
    """Say how to follow the last of these jobs again when Ctrl-C ends this."""
    try:
        yield
    except KeyboardInterrupt:
        if job_ids:
            note(how_to_follow(job_ids[-1]))
        raise


@contextmanager
def _shown(job: Job, *, quiet: bool) -> Iterator[Callable[[JobProgress], None]]:
    if quiet:
        yield lambda _: None
    elif sys.stderr.isatty():
        with _bar(job) as tell:
            yield tell
    else:
        yield _Lines().tell


@contextmanager
def _bar(job: Job) -> Iterator[Callable[[JobProgress], None]]:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f}%"),
        TextColumn("{task.fields[said]}"),
    )
    with Progress(*columns, console=Console(stderr=True), transient=False) as bar:
        task = bar.add_task(f"{job.kind} {job.rule}", total=max(1, job.items), said="")

        def tell(progress: JobProgress) -> None:
            total = max(1.0, progress.total)
            done = total if not progress.job.state.is_open else min(progress.items, total)
            bar.update(task, total=total, completed=done, said=said(progress))

        yield tell


class _Lines:
    """A line now and then."""

    def __init__(self) -> None:
        self._next_at = 0.0

    def tell(self, progress: JobProgress) -> None:
        """Write a line when one is due, and at the end."""
        now = time.monotonic()
        if now >= self._next_at or not progress.job.state.is_open:
            self._next_at = now + _LINE_SECONDS
            note(f"{progress.job.kind} {progress.job.rule}: {said(progress)}")


def said(progress: JobProgress) -> str:
    """How far a job is, in a few words."""
    words = [f"{progress.items:,.0f} of about {progress.total:,.0f} items"]
    if not progress.job.state.is_open:
        words = [f"{progress.items:,.0f} items", progress.job.state]
    elif progress.job.state != "running":
        words.append(progress.job.state)
    if progress.job.state.is_open and progress.rate is not None:
        words.append(f"{progress.rate:,.0f}/s")
    if progress.eta_seconds is not None:
        words.append(f"{shown_span(progress.eta_seconds)} left")
    if progress.job.note:
        words.append(progress.job.note)
    return ", ".join(words)


def shown_span(seconds: float) -> str:
    """A time for people."""
    whole = round(seconds)
    if whole < _MINUTE:
        return f"{whole} s"
    if whole < _HOUR:
        return f"{whole // _MINUTE} min {whole % _MINUTE} s"
    return f"{whole // _HOUR} h {whole % _HOUR // _MINUTE} min"
