"""What the API shows: what operations return, as commands show it with `--json`."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from replicator.admin.api.endpoints import VALUES, Endpoint, Field
from replicator.admin.api.masking import MASK, shown_entry
from replicator.domain.verdict.kinds import Problem, Verdict
from replicator.operations import gaps, jobs, parked_rows
from replicator.operations.audit import ListedDeed, list_deeds
from replicator.operations.cache_orphans import MOST, OrphanRequest, Orphans, find_orphans
from replicator.operations.caches import CacheStatus, cache_status
from replicator.operations.conflict_entries import ConflictEntries, find, wanted_entries
from replicator.operations.documents import document
from replicator.operations.group import known_rule
from replicator.operations.group_status import GroupStatus, WorkerStatus
from replicator.operations.inspect import inspect
from replicator.operations.inspect_reasons import Difference, differences, reasons
from replicator.operations.lag_history import History, lag_history
from replicator.operations.leases import LeaseFilter, Leases, ListedShard, list_leases
from replicator.operations.plans import Planned, plan
from replicator.operations.reloading import Reloaded, reload
from replicator.operations.rules import list_rules
from replicator.operations.status import status
from replicator.operations.table_argument import rule_on_table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from replicator.admin.api.endpoints import Asked
    from replicator.operations.parked_rows import Silent

_RULE = Field("rule", "only of this rule", option="--rule")
_ALL = Field("all", "include finished and acknowledged ones", "boolean", option="--all", default=False)
ORPHANS_SECONDS = 180.0
"""How long a look for orphans may take, a minute of which is between its two parts."""
_MOST_ROWS, _SHOWN_ROWS, _MOST_NOTES = 1000, 200, 1000


def _limit(default: int) -> Field:
    return Field("limit", "at most so many", "integer", option="--limit", most=_MOST_ROWS, default=default)


def id_of(what: str) -> Field:
    """The id of something, in the path."""
    return Field("id", f"id of the {what}, or its beginning", place="path", required=True, most=128)


@dataclass(frozen=True, slots=True)
class TargetLag:
    """How far a target of a rule is, over all shards at which it stands."""

    rule: str
    target: str
    applied_through: datetime | None
    lag_seconds: float | None
    retention_left_seconds: float | None
    unknown_shards: int
    paused: bool


# -- the group ---------------------------------------------------------------------------------------------------------


async def _verdict(asked: Asked) -> Any:
    found = await status(asked.group)
    return {"group": found.group, "verdict": found.verdict, "problems": found.problems}


async def _targets(asked: Asked) -> Any:
    found = await status(asked.group)
    return {
        "group": found.group,
        "coordination_error": found.coordination_error,
        "targets": [
            TargetLag(
                rule.name,
                target.target.text,
                target.applied_through,
                target.lag_seconds,
                target.retention_left_seconds,
                target.unknown_shards,
                rule.paused,
            )
            for rule in found.rules
            for target in rule.targets
        ],
    }


async def _workers(asked: Asked) -> Any:
    found = await status(asked.group)
    trouble = found.coordination_error
    return {"group": found.group, "alive": found.alive, "coordination_error": trouble, "workers": found.workers}


async def _rules(asked: Asked) -> Any:
    found = await list_rules(asked.group)
    trouble = None if found.trouble is None else found.trouble.sentence
    return {"group": asked.group.settings.group, "rules": found.rules, "trouble": trouble}


async def _leases(asked: Asked) -> Any:
    given = asked.given
    return await list_leases(
        asked.group, LeaseFilter(given["rule"], given["owner"], everything=given["all"], fast=given["fast"])
    )


async def _shards(asked: Asked) -> Any:
    found = await list_leases(asked.group, LeaseFilter(asked.given["rule"], everything=asked.given["all"], fast=True))
    return {**_some(found.shards, asked, "shards"), "unreadable": found.unreadable}


async def _caches(asked: Asked) -> Any:
    return {"group": asked.group.settings.group, "caches": await cache_status(asked.group)}


async def _orphans(asked: Asked) -> Any:
    wanted = OrphanRequest(asked.given["rule"], asked.given["most"])
    return {"group": asked.group.settings.group, "templates": await find_orphans(asked.group, wanted)}


async def _plan(asked: Asked) -> Any:
    return {"group": asked.group.settings.group, "steps": (await plan(asked.group)).steps}


async def _configuration(asked: Asked) -> Any:
    return {"group": asked.group.settings.group, "workers": await reload(asked.group, dry_run=True)}


async def _audit(asked: Asked) -> Any:
    return {"group": asked.group.settings.group, "deeds": await list_deeds(asked.group, asked.given["limit"])}


async def _session(asked: Asked) -> Any:
    """What the console may do with the token that it was given, and the time here."""
    return {"token": asked.caller.name, "access": asked.caller.access, "now": datetime.now(UTC)}


async def _inspect(asked: Asked) -> Any:
    """One item everywhere; what stands in the conflict log beside it is masked like any entry."""
    group, given = asked.group, asked.given
    found = await inspect(
        group.settings, await rule_on_table(group.settings, given["rule"], given["table"]), given["key"]
    )
    why = None if found.agree is not False else document(await reasons(group, found, given["key"]))
    if why is not None:
        why["logged"] = [shown_entry(entry, values=asked.values) for entry in why["logged"]]
    return {
        **found.document(values=asked.values),
        "troubles": found.troubles,
        "differences": list(differences(found.places)),
        "reasons": why,
        "masked": not asked.values,
    }


# -- what is kept ------------------------------------------------------------------------------------------------------


async def _gaps(asked: Asked) -> Any:
    found = await gaps.list_gaps(asked.group, asked.given["rule"])
    known_rule(asked.group.settings, asked.given["rule"], found)
    return {"group": asked.group.settings.group, "gaps": [gap for gap in found if asked.given["all"] or gap.is_open]}


async def _jobs(asked: Asked) -> Any:
    found = await jobs.list_jobs(asked.group, asked.given["rule"], everything=asked.given["all"])
    known_rule(asked.group.settings, asked.given["rule"], found)
    return {"group": asked.group.settings.group, "jobs": found}


async def _job(asked: Asked) -> Any:
    job = await jobs.job_named(asked.group, asked.given["id"])
    notes = await asked.group.jobs.notes(job.job_id, _MOST_NOTES)
    listed = jobs.listed(await jobs.progress(asked.group, job))
    return {"job": listed, "notes": [{"name": name, "said": said} for name, said in notes]}


async def _conflicts(asked: Asked) -> Any:
    given = asked.given
    wanted = wanted_entries(
        rule=given["rule"], key=given["key"], kind=given["kind"], since=given["since"], limit=given["limit"]
    )
    found = await find(asked.group, wanted)
    known_rule(asked.group.settings, given["rule"], found)
    entries = [shown_entry(entry, values=asked.values) for entry in found]
    return {"group": asked.group.settings.group, "conflicts": entries}


async def _conflict(asked: Asked) -> Any:
    entry = await ConflictEntries(asked.group).one(asked.given["id"])
    return {"conflict": shown_entry(entry, values=asked.values)}


async def _parked(asked: Asked) -> Any:
    silent: Silent = {}
    rule = asked.given["rule"]
    found = await parked_rows.list_parked(asked.group, rule, everything=asked.given["all"], silent=silent)
    known_rule(asked.group.settings, rule, found)
    unreadable = [error.sentence for error in silent.values()]
    return {"group": asked.group.settings.group, **_some(found, asked, "parked"), "unreadable": unreadable}


async def _parked_row(asked: Asked) -> Any:
    found = await parked_rows.parked_named(asked.group, asked.given["id"])
    kept: str | None = MASK
    if asked.values:
        body = await parked_rows.kept_body(asked.group, found)
        kept = None if body is None else body.decode(errors="replace")
    return {**document(found.row), "kept": kept, "masked": not asked.values}


def _some(rows: Sequence[Any], asked: Asked, name: str) -> dict[str, Any]:
    limit = asked.given["limit"]
    return {name: rows[:limit], "more": len(rows) > limit}


_TROUBLE = {"coordination_error": str | None}
_FILTERS = (
    _RULE,
    Field("key", "only of this item; JSON, or the value of a simple key", option="--key"),
    Field("kind", "only of this kind, for example put_put", option="--kind"),
    Field("since", "only since then: a time, or a span such as 2h", option="--since"),
)

READS = (
    Endpoint("session", "GET", "/session", "The token in use, its permissions, and the time",
             {"token": str | None, "access": str, "now": datetime}, _session),
    Endpoint("status", "GET", "/status", "The whole state: verdict, problems, rules, targets, shards, workers",
             GroupStatus, lambda asked: status(asked.group), command="status", once=True),
    Endpoint("verdict", "GET", "/verdict", "The problems, and their remedies",
             {"group": str, "verdict": Verdict, "problems": list[Problem]}, _verdict, command="status --problems"),
    Endpoint("rules", "GET", "/rules", "The rules, and stored progress of rules that are not configured",
             {"group": str, "rules": list[dict[str, Any]], "trouble": str | None}, _rules, command="rules"),
    Endpoint("targets", "GET", "/targets", "Every target: its lag, and how long its stream keeps unread records",
             {"group": str, **_TROUBLE, "targets": list[TargetLag]}, _targets, command="status", once=True),
    Endpoint("history", "GET", "/history", "The lag of every target over the last hour",
             History, lambda asked: lag_history(asked.group), command="status --watch", once=True),
    Endpoint("workers", "GET", "/workers", "Workers that have a heartbeat, and the answers of their admin servers",
             {"group": str, "alive": int | None, **_TROUBLE, "workers": list[WorkerStatus]}, _workers,
             command="status --wide", once=True),
    Endpoint("leases", "GET", "/leases", "Workers, streams, shards: owner, epoch, state, checkpoints", Leases, _leases,
             (_RULE, Field("owner", "only of this worker, by its beginning, or `free`", option="--owner"), _ALL,
              Field("fast", "do not check heartbeats, which takes seconds", "boolean", option="--fast",
                    default=False)), command="leases list"),
    Endpoint("shards", "GET", "/shards", "Shards with their parents: reading, waiting or finished",
             {"shards": list[ListedShard], "more": bool, "unreadable": list[str]}, _shards,
             (_RULE, _ALL, _limit(_MOST_ROWS)), command="leases list --fast"),
    Endpoint("gaps", "GET", "/gaps", "Gaps that are not acknowledged, oldest first",
             {"group": str, "gaps": list[gaps.ListedGap]}, _gaps, (_RULE, _ALL), command="gaps list"),
    Endpoint("jobs", "GET", "/jobs", "Jobs over whole tables, with their progress",
             {"group": str, "jobs": list[jobs.ListedJob]}, _jobs, (_RULE, _ALL), command="jobs list"),
    Endpoint("job", "GET", "/jobs/{id}", "One job, with its findings",
             {"job": jobs.ListedJob, "notes": list[dict[str, Any]]}, _job, (id_of("job"),), command="jobs show"),
    Endpoint("conflicts", "GET", "/conflicts", "Conflict entries, newest first",
             {"group": str, "conflicts": list[dict[str, Any]]}, _conflicts, (*_FILTERS, _limit(50), VALUES),
             command="conflicts list"),
    Endpoint("conflict", "GET", "/conflicts/{id}", "One conflict entry with both images",
             {"conflict": dict[str, Any]}, _conflict, (id_of("entry"), VALUES), command="conflicts show"),
    Endpoint("parked", "GET", "/parked", "Changes that targets refused, oldest first, with the reasons",
             {"group": str, "parked": list[parked_rows.ParkedRow], "more": bool, "unreadable": list[str]}, _parked,
             (_RULE, _ALL, _limit(_SHOWN_ROWS)), command="parked list"),
    Endpoint("parked_row", "GET", "/parked/{id}", "One parked key, with the stored change",
             dict[str, Any], _parked_row, (id_of("row"), VALUES), command="parked show"),
    Endpoint("inspect", "GET", "/rules/{rule}/inspect", "One item in every region and cache, and why copies differ",
             {"rule": str, "mode": str, "key": dict[str, Any], "agree": bool | None, "places": list[dict[str, Any]],
              "troubles": list[str], "differences": list[Difference], "reasons": dict[str, Any] | None, "masked": bool},
             _inspect,
             (Field("rule", "name of the rule", place="path", required=True, most=128),
              Field("key", "JSON, or the value of a simple key", place="query", required=True),
              Field("table", "which one, when the rule chooses several", option="--table"), VALUES), command="inspect",
             token=True),
    Endpoint("caches", "GET", "/caches", "The state of the caches, and their backlog",
             {"group": str, "caches": list[CacheStatus]}, _caches, command="caches", once=True),
    Endpoint("orphans", "GET", "/caches/orphans",
             "Cache entries of items that are gone, by two looks a minute apart; a comparison of tables meets none",
             {"group": str, "templates": list[Orphans]}, _orphans,
             (_RULE, Field("most", "entries to look at for each key template", "integer", option="--most", most=MOST,
                           default=MOST)), command="caches --orphans", token=True, seconds=ORPHANS_SECONDS),
    Endpoint("plan", "GET", "/plan", "The bootstraps and repairs that the configuration needs",
             {"group": str, "steps": list[Planned]}, _plan, command="plan",
             token=True, once=True),
    Endpoint("configuration", "GET", "/configuration", "What each worker would change if it reloaded its file now",
             {"group": str, "workers": list[Reloaded]}, _configuration, command="reload --dry-run",
             token=True, once=True, seconds=60.0),
    Endpoint("audit", "GET", "/audit", "Actions through this API, newest first",
             {"group": str, "deeds": list[ListedDeed]}, _audit, (_limit(100),), command="audit"),
)  # fmt: skip
"""Every operation that changes nothing."""
