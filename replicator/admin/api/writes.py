"""What the API does: the same operations as commands, in the name of a token."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from replicator.admin.api.endpoints import VALUES, Endpoint, Field
from replicator.admin.api.masking import masked
from replicator.admin.api.reads import ORPHANS_SECONDS, id_of
from replicator.domain.copying.meshes import Missing
from replicator.domain.copying.ordered import Extra
from replicator.domain.errors import WorldMismatch
from replicator.domain.jobs import JobKind
from replicator.operations import gaps, jobs, parked, parked_rows, pauses, promotion
from replicator.operations.bootstrap import BootstrapRequest, plan_bootstrap
from replicator.operations.cache_orphans import MOST, OrphanRequest, Orphans, find_orphans
from replicator.operations.comparison_requests import ComparisonRequest, comparison, parse_sample
from replicator.operations.documents import document
from replicator.operations.parked_rows import ParkedRow
from replicator.operations.reloading import Reloaded, reload
from replicator.operations.table_argument import rule_on_table

if TYPE_CHECKING:
    from replicator.admin.api.endpoints import Asked
    from replicator.domain.jobs import Job
    from replicator.operations.promotion import Promotion

_MOST_UNITS = 10_000_000


def _body(name: str, about: str, kind: Any = "string", option: str | None = None, **more: Any) -> Field:
    named = f"--{name.replace('_', '-')}" if option is None else option
    return Field(name, about, kind, place="body", option=named, **more)


_RULE = Field("rule", "name of the rule", place="path", required=True, most=128)
_REGION = _body("region", "only in this region, which the rule writes")
_NOTE = _body("note", "why; kept and shown", most=500, default="")
_CHANGED = {"rule": str, "region": str | None, "paused": bool, "changed": bool}


async def _pause(asked: Asked) -> Any:
    rule, region, note = (asked.given[name] for name in ("rule", "region", "note"))
    if region is None:
        changed = await pauses.pause(asked.group, rule, note)
    else:
        changed = await pauses.pause_region(asked.group, rule, region, note)
    return {"rule": rule, "region": region, "paused": True, "changed": changed}


async def _resume(asked: Asked) -> Any:
    rule, region = asked.given["rule"], asked.given["region"]
    if region is None:
        changed = await pauses.resume(asked.group, rule)
    else:
        changed = await pauses.resume_region(asked.group, rule, region)
    return {"rule": rule, "region": region, "paused": False, "changed": changed}


async def _acknowledge(asked: Asked) -> Any:
    seen = await gaps.gap_named(asked.group, asked.given["id"])
    gap, changed = await gaps.acknowledge(asked.group, seen, by=_by(asked), note=asked.given["note"])
    return {"gap": gap, "changed": changed}


async def _retry(asked: Asked) -> Any:
    row = await parked_rows.parked_named(asked.group, asked.given["id"])
    (retried,) = await parked.retry(asked.group, [row], by=_by(asked))
    return retried


async def _drop(asked: Asked) -> Any:
    row = await parked_rows.parked_named(asked.group, asked.given["id"])
    return await parked.drop(asked.group, row, by=_by(asked))


async def _drop_orphans(asked: Asked) -> Any:
    wanted = OrphanRequest(asked.given["rule"], asked.given["most"], drop=True)
    return {"group": asked.group.settings.group, "templates": document(await find_orphans(asked.group, wanted))}


# -- conflicts ---------------------------------------------------------------------------------------------------------


async def _planned(asked: Asked) -> Promotion:
    given = asked.given
    request = promotion.PromotionRequest(given["id"], given["region"], given["version"])
    return await promotion.plan(asked.group, request)


async def _preview(asked: Asked) -> Any:
    return _shown(await _planned(asked), values=asked.values)


async def _promote(asked: Asked) -> Any:
    planned = await _planned(asked)
    if planned.seen != asked.given["seen"]:
        sentence = "The item has changed since it was shown; nothing was written."
        raise WorldMismatch(sentence, advice="Load it again.")
    replaced = await promotion.write(asked.group, planned)
    return {**_shown(planned, values=False), "replaced_meanwhile": replaced}


def _shown(planned: Promotion, *, values: bool) -> dict[str, Any]:
    before, after = (None if each is None else each.attributes for each in (planned.before, planned.item))
    old, new = before or {}, after or {}
    differs = [name for name in {**old, **new} if old.get(name) != new.get(name)]
    keys = planned.entry["key"]
    return {
        "id": planned.entry["id"],
        "region": planned.region,
        "table": planned.table,
        "key": keys,
        "before": before if values else masked(before, keys),
        "after": after if values else masked(after, keys),
        "differs": sorted(differs),
        "seen": planned.seen,
        "masked": not values,
    }


# -- jobs --------------------------------------------------------------------------------------------------------------


async def _bootstrap(asked: Asked) -> Any:
    given = asked.given
    wanted = BootstrapRequest(
        given["rule"],
        given["table"],
        given["region"],
        given["extra"],
        read_units=given["read_units"],
        write_units=given["write_units"],
    )
    workers = max(1, await jobs.living_workers(asked.group))
    return await _begun(asked, (await plan_bootstrap(asked.group, wanted, workers=workers, by=_by(asked))).job)


async def _verify(asked: Asked) -> Any:
    sample = asked.given["sample"]
    return await _compare(asked, JobKind.VERIFY, sample=None if sample is None else parse_sample(sample))


async def _repair(asked: Asked) -> Any:
    chosen = {name: asked.given[name] for name in ("extra", "missing", "write_units")}
    return await _compare(asked, JobKind.REPAIR, **chosen)


async def _compare(asked: Asked, kind: JobKind, **more: Any) -> Any:
    given = asked.given
    workers = max(1, await jobs.living_workers(asked.group))
    rule = await rule_on_table(asked.group.settings, given["rule"], given["table"])
    keys = () if given["key"] is None else (given["key"],)
    request = ComparisonRequest(keys=keys, prefix=given["prefix"], read_units=given["read_units"], **more)
    return await _begun(asked, await comparison(asked.group, rule, kind, request, workers=workers, by=_by(asked)))


async def _begun(asked: Asked, job: Job) -> Any:
    return {"job": jobs.listed(await jobs.progress(asked.group, await jobs.submit(asked.group, job)))}


async def _pause_job(asked: Asked) -> Any:
    return {"job": await jobs.pause(asked.group, asked.given["id"], _by(asked))}


async def _resume_job(asked: Asked) -> Any:
    return {"job": await jobs.resume(asked.group, asked.given["id"])}


async def _cancel_job(asked: Asked) -> Any:
    return {"job": await jobs.cancel(asked.group, asked.given["id"], _by(asked))}


async def _reload(asked: Asked) -> Any:
    workers = await reload(asked.group, dry_run=asked.given["dry_run"])
    return {"group": asked.group.settings.group, "workers": document(workers)}


def _by(asked: Asked) -> str:
    assert asked.caller.name is not None, "whatever changes something has a token"
    return asked.caller.name


_PROMOTION = {
    "id": str, "region": str, "table": str, "key": dict[str, Any], "before": dict[str, Any] | None,
    "after": dict[str, Any] | None, "differs": list[str], "seen": str, "masked": bool,
}  # fmt: skip
_JOB = {"job": jobs.ListedJob}
_ENTRY = id_of("conflict entry")
_READ, _WRITE = (
    _body(f"{what}_units", f"{what} units per second and region at most", "integer", most=_MOST_UNITS)
    for what in ("read", "write")
)
_TABLE = _body("table", "which one, when the rule chooses several")
_SOME = (_RULE, _TABLE, _body("key", "only this item"), _body("prefix", "only keys that begin so"), _READ)
_EXTRA = _body(
    "extra",
    "how to treat items without a version",
    choices=tuple(each.value for each in Extra),
    default=Extra.LIST.value,
)
_MISSING = _body(
    "missing",
    "in a mesh: how to treat an item missing without a tombstone",
    choices=tuple(each.value for each in Missing),
    default=Missing.KEEP.value,
)

WRITES = (
    Endpoint("pause", "POST", "/rules/{rule}/pause", "Pause a rule until it is resumed", _CHANGED, _pause,
             (_RULE, _REGION, _NOTE), command="pause"),
    Endpoint("resume", "POST", "/rules/{rule}/resume", "Resume a rule from its checkpoint", _CHANGED, _resume,
             (_RULE, _REGION), command="resume"),
    Endpoint("acknowledge_gap", "POST", "/gaps/{id}/acknowledge",
             "Accept a gap, so that a target that stopped at it continues after it",
             {"gap": gaps.ListedGap, "changed": bool}, _acknowledge, (id_of("gap"), _NOTE), command="gaps acknowledge"),
    Endpoint("retry_parked", "POST", "/parked/{id}/retry", "Retry a refused change", parked.RetriedRow, _retry,
             (id_of("row"),), command="parked retry", seconds=60.0),
    Endpoint("drop_parked", "POST", "/parked/{id}/drop",
             "Drop a refused change; it is logged as a conflict of kind `dropped`", ParkedRow, _drop,
             (id_of("row"),), command="parked drop"),
    Endpoint("drop_orphans", "POST", "/caches/orphans/drop",
             "Drop cache entries of items that are gone, if two looks a minute apart find them",
             {"group": str, "templates": list[Orphans]}, _drop_orphans,
             (_body("rule", "only of this rule"),
              _body("most", "entries to look at for each key template", "integer", most=MOST, default=MOST)),
             command="caches --orphans --drop", seconds=ORPHANS_SECONDS),
    Endpoint("promotion", "GET", "/conflicts/{id}/promotion",
             "What promoting the loser would write, and what it would replace", _PROMOTION, _preview,
             (_ENTRY, Field("region", "where, when the rule writes several"),
              Field("version", "the version attribute's value, where only the application knows the next"), VALUES),
             token=True),
    Endpoint("promote", "POST", "/conflicts/{id}/promote", "Restore the losing version, as a new write",
             {**_PROMOTION, "replaced_meanwhile": list[str]}, _promote,
             (_ENTRY, _body("seen", "the preview's value; refused if the item changed since", option="", required=True),
              _body("region", "where, when the rule writes several"),
              _body("version", "the version attribute's value, where only the application knows the next")),
             command="conflicts promote"),
    Endpoint("verify", "POST", "/rules/{rule}/verify", "Start to compare a rule's tables and their caches",
             _JOB, _verify, (*_SOME, _body("sample", "only a part, at random, for example 1%")),
             command="verify --detach", seconds=60.0),
    Endpoint("repair", "POST", "/rules/{rule}/repair", "Start to correct items that differ", _JOB, _repair,
             (*_SOME, _WRITE, _EXTRA, _MISSING), command="repair --detach", seconds=60.0),
    Endpoint("bootstrap", "POST", "/rules/{rule}/bootstrap", "Start to copy existing items of a rule's tables", _JOB,
             _bootstrap, (_RULE, _TABLE, _body("region", "only the replica there"), _READ, _WRITE, _EXTRA),
             command="bootstrap --detach", seconds=60.0),
    Endpoint("pause_job", "POST", "/jobs/{id}/pause", "Pause a job after its current pages", _JOB, _pause_job,
             (id_of("job"),), command="jobs pause"),
    Endpoint("resume_job", "POST", "/jobs/{id}/resume", "Resume a job where it paused", _JOB, _resume_job,
             (id_of("job"),), command="jobs resume"),
    Endpoint("cancel_job", "POST", "/jobs/{id}/cancel", "Cancel a job; what it has done is kept", _JOB, _cancel_job,
             (id_of("job"),), command="jobs cancel"),
    Endpoint("reload", "POST", "/reload", "Let every worker reload its configuration",
             {"group": str, "workers": list[Reloaded]}, _reload,
             (_body("dry_run", "only report what would change", "boolean", default=False),), command="reload",
             seconds=90.0),
)  # fmt: skip
"""Every operation that changes something, and the preview of one."""
