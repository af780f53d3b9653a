"""What a group's status says as figures, and the verdict on them.

Reading positions and asking workers is `status`; what is wrong is decided in `domain.verdict`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from replicator.domain.shards.standstill import Why
from replicator.domain.values import replace
from replicator.domain.verdict.figures import (
    Away,
    AwayCache,
    Figures,
    Loss,
    Refused,
    Rest,
    TargetFigure,
    Throttle,
    Trouble,
    Unread,
    held_figure,
    late_canary,
    place_of,
    trouble_of,
)
from replicator.domain.verdict.judgement import judge

if TYPE_CHECKING:
    from replicator.domain.shards.leases import StreamRef
    from replicator.domain.targets import TargetId
    from replicator.operations.group_status import GroupStatus, RuleStatus
    from replicator.operations.parked_status import ParkedStatus
    from replicator.settings import Settings

_FROM_ROWS = frozenset({Why.OTHER_CONFIGURATION, Why.UNREADABLE_ROW})
"""Reasons to wait that count at once, whatever workers say."""


def with_verdict(
    found: GroupStatus, settings: Settings, silent: Mapping[str, str], only: str | None = None
) -> GroupStatus:
    """The same with the verdict, and the problems that it is made of. `silent`: why regions do not answer.

    `only`: of this rule, which alone was looked for, and of the group.
    """
    verdict, problems = judge(figures_of(found, settings, silent), only)
    return replace(found, verdict=verdict, problems=problems)


def figures_of(found: GroupStatus, settings: Settings, silent: Mapping[str, str]) -> Figures:
    """What the status of a group says, as figures."""
    daemons = daemons_of(found)
    held = [held_figure(row, rule.name) for rule in found.rules for row in rule.held]
    away = {f"region {region}: {why}" for region, why in silent.items()}
    error = found.coordination_error
    seconds = [daemon.get("coordination", {}).get("unreachable_seconds") or None for daemon in daemons]
    since = max((each for each in seconds if each), default=None)
    under_way = {job.job for job in found.jobs}
    return Figures(
        group=found.group,
        rules=len({rule.name for rule in found.rules}) or len(settings.rules),
        workers=found.alive,
        coordination=None
        if error is None
        else Trouble(error, "The state reported by workers is shown.", seconds=since),
        targets=[figure for rule in found.rules for figure in target_figures(rule)],
        held=held,
        unread=list(_unread(found, daemons)),
        rests=list(_rests(found)),
        losses=[
            Loss(gap.gap, str(gap.rule), _place(gap.target, gap.stream), gap.job, over=gap.job not in under_way)
            for gap in found.gaps
        ],
        refused=[
            Refused(str(each.target.rule), _refuser(each), each.keys, each.records, each.oldest_seconds)
            for each in found.parked
        ],
        away=[
            Away(each.rule, each.region, each.away_seconds, each.why, each.keys, each.rebuild)
            for each in found.regions
            if each.away_seconds is not None and not each.paused
        ],
        caches=list(_caches(daemons)),
        throttled=[Throttle(each.rule, each.region, each.table, each.allowed) for each in found.pacing.throttled],
        canaries=[late_canary(row) for daemon in daemons for row in daemon.get("canaries", ()) if row["late"]],
        not_run=_not_run(found, daemons),
        mixed=_mixed(daemons),
        unanswered={region: silent.get(region, "") for region in found.unanswered},
        unreadable=[each for each in found.unreadable if each not in away],
        services={name: trouble_of(said) for daemon in daemons for name, said in daemon.get("services", {}).items()},
        clocks={str(each.get("worker")): float(each["clock"]["behind_seconds"]) for each in daemons if "clock" in each},
        configuration=next((trouble_of(each) for each in map(_refused, daemons) if each is not None), None),
        differences={
            sweep["rule"]: sweep["differences"]
            for daemon in daemons
            for sweep in daemon.get("sweeps", ())
            if sweep["differences"] > 0
        },
    )


def daemons_of(found: GroupStatus) -> list[Mapping[str, Any]]:
    """What every worker that answers says."""
    daemons = [worker.daemon for worker in found.workers if worker.daemon is not None]
    return daemons or ([] if found.daemon is None else [found.daemon])


def _caches(daemons: list[Mapping[str, Any]]) -> Iterator[AwayCache]:
    """Caches that do not answer some worker, or refuse a part: for how long, and what all workers owe them."""
    found: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for daemon in daemons:
        for cache in daemon.get("caches", ()):
            found.setdefault((cache["cache"], cache["region"]), []).append(cache)
    for (name, region), told in sorted(found.items()):
        away = [each for each in told if each["standing"] != "here"]
        if away:
            worst = max(away, key=lambda each: float(each["seconds"]))
            keys = sum(each["keys"] for each in told)
            yield AwayCache(name, region, worst["seconds"], worst["why"], keys, any(e["owes_flush"] for e in told))
        elif refusing := [each for each in told if each.get("refuses")]:
            keys = sum(each["keys"] for each in told)
            oldest = max(each["oldest_seconds"] or 0.0 for each in told)
            flush = any(each["owes_flush"] for each in told)
            yield AwayCache(name, region, oldest, refusing[0]["refuses"], keys, flush, partly=True)


def _refused(daemon: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Why a worker does not take up what its configuration says now."""
    refused: Mapping[str, Any] | None = daemon.get("configuration", {}).get("refused")
    return refused


def target_figures(rule: RuleStatus) -> Iterator[TargetFigure]:
    """Each target at each shard that is read."""
    for shard in rule.shards:
        for target in () if shard.over else shard.targets:
            yield TargetFigure(
                rule.name,
                place_of(target.target, target.region, shard.table),
                shard.shard,
                target.lag_seconds,
                target.retention_left_seconds,
                None if target.blocked is None else trouble_of(target.blocked),
                None if target.stalled is None else trouble_of(target.stalled),
            )


def _unread(found: GroupStatus, daemons: list[Mapping[str, Any]]) -> Iterator[Unread]:
    """What workers saw stand still for long; without any that runs a rule, what its rows say."""
    for rule in found.rules:
        if rule.paused or any(row["target"] is None for row in rule.held):
            continue
        told = {
            (each["why"], tuple(each["shards"])): Unread(rule.name, each["shards"], trouble_of(each))
            for daemon in daemons
            for known in daemon.get("rules", ())
            if known["name"] == rule.name
            for each in known.get("standstills", ())
        }
        named = {shard for unread in told.values() for shard in unread.shards}
        yield from told.values()
        for shard in rule.shards:
            if shard.waits and not shard.over and shard.waits.why in _FROM_ROWS and shard.shard not in named:
                yield Unread(rule.name, [shard.shard], Trouble(shard.waits.reason, shard.waits.remedy))


def _rests(found: GroupStatus) -> Iterator[Rest]:
    for rule in found.rules:
        if rule.paused:
            yield Rest(rule.name, None, rule.paused_seconds, rule.pause_note)
    for region in found.regions:
        if region.paused:
            yield Rest(region.rule, region.region, region.away_seconds, region.why)


def _not_run(found: GroupStatus, daemons: list[Mapping[str, Any]]) -> list[str]:
    """Rules that are configured here and that no worker runs or holds, as all that answer say."""
    if found.coordination_error or not daemons or any(daemon.get("worker") is None for daemon in daemons):
        return []
    run = {name for worker in found.workers for name in worker.rules}
    if any(worker.daemon is None for worker in found.workers):
        return []
    return [rule.name for rule in found.rules if rule.name not in run and not rule.held]


def _mixed(daemons: list[Mapping[str, Any]]) -> list[str]:
    """Rules that are not configured alike at every worker that answers and stays."""
    told = [
        said["rules"]
        for daemon in daemons
        if "rules" in (said := daemon.get("configuration", {})) and not daemon.get("draining")
    ]
    names = dict.fromkeys(name for rules in told for name in rules)
    return [name for name in names if len({rules.get(name) for rules in told}) > 1]


def _place(target: TargetId, stream: StreamRef) -> str:
    return place_of(target, stream.region, stream.table)


def _refuser(each: ParkedStatus) -> str:
    return place_of(each.target, None, each.table)
