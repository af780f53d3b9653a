"""`replicator verify` and `replicator repair`: a job that compares tables, followed to its end, and what it found."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from replicator.cli.cache_orphans import print_orphans
from replicator.cli.confirmation import ask, need_yes, who
from replicator.cli.following import detachable, follow_shown, how_to_follow
from replicator.cli.output import note, print_json, print_rows, say
from replicator.cli.running import loaded, on_group
from replicator.domain.errors import EXIT_FAULT, EXIT_STOPPED
from replicator.domain.jobs import JobKind
from replicator.domain.values import replace
from replicator.domain.verdict.kinds import counted, were
from replicator.operations.cache_orphans import OrphanRequest, Orphans, find_orphans, regions_of
from replicator.operations.comparison_requests import ComparisonRequest, comparison
from replicator.operations.documents import document
from replicator.operations.gaps import list_gaps
from replicator.operations.jobs import living_workers, submit
from replicator.operations.table_argument import rule_on_table
from replicator.operations.verification import Report, nowhere, report_of, with_values

if TYPE_CHECKING:
    from replicator.domain.jobs import Job
    from replicator.operations.group import Group
    from replicator.settings import RuleSettings, Settings

_COLUMNS = ("key", "difference", "where")
_MOST_SHOWN = 50


@dataclass(frozen=True, slots=True)
class Asked:
    """What the command line says beside the request itself."""

    rule: str
    table: str | None = None
    values: bool = False
    caches: bool = False
    detach: bool = False
    yes: bool = False
    as_json: bool = False


def compare_tables(config: Path | None, kind: JobKind, request: ComparisonRequest, asked: Asked) -> int:
    """Exit code 0: nothing differs (any more); 1: something does, or the job did not come to its end."""
    settings = loaded(config)
    rule = asyncio.run(rule_on_table(settings, asked.rule, asked.table))
    asks = kind is JobKind.REPAIR and not request.dry_run
    if asks:
        need_yes(yes=asked.yes, as_json=asked.as_json)
    followed: list[str] = []
    orphans: list[Orphans] = []

    async def work(group: Group) -> Report | None:
        workers = await living_workers(group)
        job = await comparison(group, rule, kind, request, workers=max(1, workers), by=who())
        if asks:
            ask(f"Compare about {job.items:,} items of rule {rule.name}, and correct what differs?", yes=asked.yes)
        await submit(group, job)
        followed.append(job.job_id)
        if asked.detach and workers:
            return None
        if not workers:
            group.announce(f"No worker of group {settings.group} is alive: this process does the job.")
        async with _worker_for(settings, rule, needed=not workers) as left:
            job = await follow_shown(group, job, quiet=asked.as_json)
        for cache, entries in left.items():
            group.announce(
                f"Cache {cache} did not drop some entries ({entries}): it is owed them, and a worker drops them when it"
                " takes writes. `replicator caches` shows what is owed."
            )
        report = await _report(group, rule, job, asked)
        if asked.caches:
            orphans.extend(await find_orphans(group, OrphanRequest(asked.rule)))
        return report

    regions = rule.regions_used if not asked.caches else {*rule.regions_used, *regions_of(settings)}
    with detachable(followed):
        report = on_group(settings, work, regions)
    if report is None:
        return _detached(followed[0], as_json=asked.as_json)
    return _end(report, orphans if asked.caches else None, as_json=asked.as_json)


def nothing_to_repair(*, as_json: bool) -> int:
    """A report without differences asks for nothing."""
    if as_json:
        print_json({"job": None, "compared": 0, "differences": [], "mended": 0, "identical": True})
    else:
        say("The report names no difference, so nothing is to be repaired.")
    return EXIT_STOPPED


def _worker_for(settings: Settings, rule: RuleSettings, *, needed: bool) -> AbstractAsyncContextManager[dict[str, int]]:
    """This process as a worker, where no other one is there to do the job."""
    if not needed:
        return nullcontext({})
    from replicator.app.job_worker import working_on_jobs

    return working_on_jobs(settings, [rule])


async def _report(group: Group, rule: RuleSettings, job: Job, asked: Asked) -> Report:
    gaps = [gap.gap for gap in await list_gaps(group, asked.rule) if gap.is_open]
    report = await report_of(group.jobs, job, job.counts, gaps)
    if asked.values:
        shown = await with_values(group, rule, report.differences)
        report = replace(report, differences=shown)
    if report.is_identical:
        report = replace(report, nowhere=await nowhere(group, rule, job))
    return report


def _detached(job_id: str, *, as_json: bool) -> int:
    if as_json:
        print_json({"job": job_id, "state": "running"})
    else:
        say(how_to_follow(job_id))
    return EXIT_STOPPED


def _end(report: Report, orphans: Sequence[Orphans] | None, *, as_json: bool) -> int:
    """Print a report; `orphans`: what caches hold of items that are gone, if that was asked for."""
    if as_json:
        more = {} if orphans is None else {"cache_orphans": document(list(orphans))}
        print_json({**document(report), "identical": report.is_identical, **more})
    else:
        _show(report)
        if orphans is not None:
            print_orphans(orphans)
    sound = report.is_identical and not any(each.orphans for each in orphans or ())
    return EXIT_STOPPED if sound else EXIT_FAULT


def _show(report: Report) -> None:
    shown = report.differences[:_MOST_SHOWN]
    if shown:
        values = any("found" in each for each in shown)
        rows = [
            [json.dumps(each["key"]), each["kind"], each["target"], *([_values(each)] if values else [])]
            for each in shown
        ]
        print_rows((*_COLUMNS, *(["values"] if values else [])), rows)
    if report.difference_count > len(shown):
        note(f"{report.difference_count - len(shown)} more differences; --json lists them.")
    say(_summary(report))
    for sentence in _remarks(report):
        note(sentence)


def _values(each: object) -> str:
    assert isinstance(each, dict), "a difference is a document"
    return json.dumps({name: each.get(name) for name in ("source", "found") if name in each})


def _summary(report: Report) -> str:
    nines = "" if report.nines is None else f", {report.nines:g} nines"
    kinds = ", ".join(f"{count} {kind}" for kind, count in report.kinds.items())
    mended = f", {report.mended} mended" if report.kind in {JobKind.REPAIR, JobKind.RESYNC} else ""
    if report.state != "done":
        return f"Job {report.job} is {report.state}."
    many = "" if report.difference_count == 1 else "s"
    said = "No difference" if not report.difference_count else f"{report.difference_count} difference{many} ({kinds})"
    units = f"{report.units.read:,.0f} read units, {report.units.write:,.0f} write units"
    return f"{said} in {report.compared:,} compared{mended}{nines}; {units}."


def _remarks(report: Report) -> list[str]:
    """What a reader must know beside the count."""
    found: list[str] = []
    if report.nowhere:
        found.append(f"{report.nowhere} of the keys asked for are in no table: nothing was there to compare.")
    if report.moving:
        found.append(f"{counted(report.moving, 'key')} changed at every read and could not be compared.")
    if report.parked:
        found.append(f"parked: {counted(report.parked, 'key')}; `replicator parked list` says why.")
    if report.unjudged:
        found.append(f"{counted(report.unjudged, 'item')} could not be judged by the rule's filter.")
    if report.refused:
        found.append(f"{counted(report.refused, 'item')} {were(report.refused)} refused by the table.")
    caches = report.caches
    if caches.checked:
        dropped = f", {caches.invalidated} dropped" if caches.invalidated else ""
        found.append(
            f"{caches.checked} cache entries were compared: {caches.stale} stale{dropped}, {caches.opaque} of another"
            " format."
        )
    if report.gaps:
        found.append(f"{len(report.gaps)} losses are open: `replicator gaps list` shows them.")
    if not report.waited:
        found.append("No worker is running, so changes not yet applied count as differences.")
    return found
