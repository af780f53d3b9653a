"""Where every shard and target stands, from the coordination table and the living workers.

The table gives owners and positions even when every worker is dead; lag and counts come from the admin servers that
heartbeats name, as far as they answer and are of the same group.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from replicator.adapters.dynamodb.coordination import Pause, StoredStream
from replicator.domain.drivers import Drivers
from replicator.domain.driving import DRIVEN
from replicator.domain.errors import EXIT_UNREACHABLE, ReplicatorError
from replicator.domain.identifiers import RuleName, ShardId
from replicator.domain.progress import END
from replicator.domain.shards.applied_through import retention_left_seconds
from replicator.domain.shards.leases import StreamState
from replicator.domain.shards.snapshot import Snapshot
from replicator.domain.shards.standstill import Observed, explain, waits
from replicator.domain.targets import TargetId
from replicator.domain.values import replace
from replicator.operations.away_status import RegionStatus, away_status
from replicator.operations.canaries import canary_status
from replicator.operations.gaps import ListedGap, list_gaps
from replicator.operations.group import ALIVE, rule_named
from replicator.operations.group_status import (
    FINISHED,
    GroupStatus,
    RuleStatus,
    ShardStatus,
    SourceTable,
    TargetStatus,
    WaitStatus,
    WorkerStatus,
)
from replicator.operations.jobs import ListedJob, list_jobs, with_rates
from replicator.operations.lag_status import Reached, reached, rounded, summed_up
from replicator.operations.left_streams import leaves
from replicator.operations.pacing_status import pacing_status
from replicator.operations.parked_rows import Silent, open_rows
from replicator.operations.parked_status import ParkedStatus, parked_status
from replicator.operations.problems import with_verdict
from replicator.operations.worker_status import Live, ask_all, by_worker, chosen_of, held_of, live_of
from replicator.settings.compiled_rules import rule_per_source

if TYPE_CHECKING:
    from replicator.domain.identifiers import WorkerId
    from replicator.domain.rules import Rule
    from replicator.domain.shards.leases import LeaseRow, Pulse, StreamRef
    from replicator.operations.group import Group
    from replicator.settings import RuleSettings, Settings

_TABLE_LEFT = "table no longer read"


@dataclass(frozen=True, slots=True)
class _Stored:
    """What the coordination table and the owed tables hold; `silent`: why some of the latter do not say."""

    streams: Sequence[StoredStream] = ()
    pulses: Mapping[WorkerId, Pulse] = field(default_factory=dict)
    gaps: Sequence[ListedGap] = ()
    pauses: Sequence[Pause] = ()
    parked: Sequence[ParkedStatus] = ()
    regions: Sequence[RegionStatus] = ()
    resting: Sequence[Pause] = ()
    jobs: Sequence[ListedJob] = ()
    silent: Silent = field(default_factory=dict)
    alive: int = 0


async def status(group: Group, only: str | None = None) -> GroupStatus:
    """What both sources say; an error only when neither says anything. `only`: of one rule, and of the group."""
    if only is not None:
        rule_named(group.settings, only)
    silent: Silent = {}
    (stored, trouble), rows = await asyncio.gather(_ask_table(group), open_rows(group, silent=silent))
    daemons = by_worker(await ask_all(group.settings, (pulse.admin for pulse in stored.pulses.values())))
    if trouble is not None and not daemons:
        raise trouble
    parked = parked_status(rows, silent, daemons.values(), group.table.clock.now())
    regions = await away_status(group, daemons, stored.resting, silent)
    jobs = stored.jobs if trouble is not None else with_rates(stored.jobs, daemons)
    alive = len(daemons) if daemons or trouble is not None else await _alive(group, stored.pulses)
    found = replace(stored, parked=parked, silent=silent, regions=regions, jobs=jobs, alive=alive)
    sentences = {region: error.sentence for region, error in silent.items()}
    joined = _joined(group.settings, found, daemons, trouble, group.table.clock.now())
    return with_verdict(joined if only is None else joined.of(only), group.settings, sentences, only)


async def _alive(group: Group, pulses: Mapping[WorkerId, Pulse]) -> int:
    """How many heartbeats move, where no worker answers."""
    staying = {worker: pulse for worker, pulse in pulses.items() if not pulse.leaving}
    return sum(state == ALIVE for state in (await group.living(staying, staying)).values())


async def _ask_table(group: Group) -> tuple[_Stored, ReplicatorError | None]:
    try:
        streams, pulses = await group.streams(), await group.membership.members()
        pauses, resting = await group.operations.pauses(), await group.operations.region_pauses()
        known = {pause.rule for pause in pauses}
        pauses += [
            Pause(rule, driving.since, DRIVEN.format(rule))
            for rule, driving in (await group.membership.driven()).items()
            if driving.by is Drivers.LAMBDA and rule not in known
        ]
        gaps, jobs = await list_gaps(group), await list_jobs(group)
        return _Stored(streams, pulses, gaps, pauses, resting=resting, jobs=jobs), None
    except ReplicatorError as error:
        return _Stored(), error


def _joined(
    settings: Settings,
    stored: _Stored,
    daemons: Mapping[str, Mapping[str, Any]],
    trouble: ReplicatorError | None,
    now: float,
) -> GroupStatus:
    first = next(iter(daemons.values()), None)
    chosen = chosen_of(daemons)
    owners: dict[tuple[str | None, str], str | None] = {
        (read.stream.arn, str(shard_id)): row.owner for read in stored.streams for shard_id, row in read.rows.items()
    }
    paused = {pause.rule for pause in stored.pauses}
    if trouble is not None:  # workers know it as it was when the table last answered
        paused = {
            known["name"] for daemon in daemons.values() for known in daemon.get("rules", ()) if known.get("paused")
        }
    configured = {rule.name for rule in settings.rules}
    return GroupStatus(
        group=settings.group,
        daemon=None if first is None else _without_rules(first),
        coordination_error=None if trouble is None else trouble.sentence,
        workers=[_worker(worker, pulse, daemons.get(worker)) for worker, pulse in sorted(stored.pulses.items())],
        rules=[
            _rule(
                settings,
                rule,
                stored,
                live_of(daemons, owners, rule.name, lost=trouble is not None),
                chosen=chosen.get(rule.name),
                paused=rule.name in paused,
                pause=next((each for each in stored.pauses if each.rule == rule.name), None),
                held=held_of(daemons, rule.name),
                now=now,
            )
            for rule in settings.rules
        ],
        gaps=[gap for gap in stored.gaps if gap.is_open],
        parked=stored.parked,
        regions=stored.regions,
        pacing=pacing_status(daemons.values()),
        jobs=stored.jobs,
        unconfigured=sorted({name for stream in stored.streams for name in stream.rules} - configured),
        unreadable=[
            *(problem.sentence for stream in stored.streams for problem in stream.problems),
            *(f"region {region}: {error.sentence}" for region, error in sorted(stored.silent.items())),
        ],
        resting=stored.resting,
        canaries=canary_status(daemons.values()),
        alive=stored.alive,
        unanswered=sorted(region for region, error in stored.silent.items() if error.exit_code == EXIT_UNREACHABLE),
    )


def _rule(  # noqa: PLR0913 - what is known of it, given once
    settings: Settings,
    rule: RuleSettings,
    stored: _Stored,
    live: Live,
    *,
    chosen: set[str] | None,
    paused: bool,
    pause: Pause | None,
    held: Sequence[Mapping[str, Any]],
    now: float,
) -> RuleStatus:
    told = {worker: pulse.through for worker, pulse in stored.pulses.items()}
    standing = {
        each.stream: reached(_runs(settings, rule, each.stream), each, told)
        for each in stored.streams
        if _reads(rule, each)
    }
    words = [
        (
            found,
            {
                (ShardId(shard), target): said
                for (arn, shard), targets in live.items()
                for target, said in targets.items()
                if arn == stream.arn and said.get("region") == (target.region or stream.region)
            },
        )
        for stream, found in standing.items()
    ]
    targets = summed_up(words)
    return RuleStatus(
        name=rule.name,
        mode=rule.mode,
        sources=[SourceTable(region, table) for region, table in _sources(rule, stored.streams)],
        shards=list(_shards(settings, rule, stored, live, standing, chosen)),
        paused=paused,
        targets=targets,
        held=held,
        paused_seconds=None if pause is None else round(max(0.0, now - pause.paused_at), 1),
        pause_note="" if pause is None else pause.note,
    )


def _worker(worker: WorkerId, pulse: Pulse, daemon: Mapping[str, Any] | None) -> WorkerStatus:
    if daemon is None:
        return WorkerStatus(worker, pulse.beat, pulse.admin, None)
    rules = {rule["name"] for rule in daemon.get("rules", ())} | {each["rule"] for each in daemon.get("choices", ())}
    return WorkerStatus(worker, pulse.beat, pulse.admin, _without_rules(daemon), sorted(rules))


def _without_rules(daemon: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in daemon.items() if key != "rules"}


def _shards(  # noqa: PLR0913, PLR0917 - what is known, given once
    settings: Settings,
    rule: RuleSettings,
    group: _Stored,
    live: Live,
    standing: Mapping[StreamRef, Reached],
    tables: set[str] | None,
) -> Iterator[ShardStatus]:
    """Every shard of a rule: those that are stored, then those that are seen by a worker only.

    `tables`: those that the rule chooses, when a worker says so.
    """
    for stored in group.streams:
        stream = stored.stream
        if not _reads(rule, stored):
            continue
        runs = _runs(settings, rule, stream)
        configured = {target.target_id for each in runs for target in each.targets}
        waiting = _waits(runs, stored, group)
        for shard_id, row in sorted(stored.rows.items()):
            seen = live.get((stream.arn, shard_id), {})
            names = {target for target in {*row.checkpoints, *seen} if target.rule == rule.name} or configured
            targets = [
                _target(target, target.region or stream.region, row, seen.pop(target, {}), standing[stream])
                for target in sorted(names & configured or names)
            ]
            yield ShardStatus(
                shard=shard_id,
                region=stream.region,
                table=stream.table,
                stream=stream.arn,
                owner=row.owner,
                epoch=row.epoch,
                over=_over(targets, is_chosen=tables is None or stream.table in tables),
                waits=waiting.get(shard_id),
                targets=targets,
            )
    for (arn, shard), seen in live.items():
        if seen:
            targets = [_target(target, live.get("region"), None, live, None) for target, live in seen.items()]
            yield ShardStatus(shard, None, None, arn, None, None, None, None, targets)


def _target(
    target: TargetId, region: str | None, row: LeaseRow | None, live: Mapping[str, Any], standing: Reached | None
) -> TargetStatus:
    stored = None if row is None else row.checkpoints.get(target)
    saved = None if stored is None else stored.text
    known = None if standing is None or row is None else standing.lag(target, row.shard_id)
    kept: dict[str, float | None] = {} if known is None else {"lag_seconds": round(known, 1)}
    if known is not None and standing is not None:
        kept["retention_left_seconds"] = rounded(retention_left_seconds(known, standing.kept))
    figures = live if "lag_seconds" in live else kept
    return TargetStatus(
        target=target,
        region=region,
        checkpoint=saved,
        position=live.get("position", saved),
        lag_seconds=figures.get("lag_seconds"),
        seconds_since_progress=live.get("seconds_since_progress"),
        counts=live.get("counts", {}),
        blocked=live.get("blocked"),
        retention_left_seconds=figures.get("retention_left_seconds"),
        applied_through=None if standing is None or row is None else standing.through(target, row.shard_id),
        stalled=live.get("stalled"),
        state=live.get("state"),
    )


def _over(targets: Sequence[TargetStatus], *, is_chosen: bool) -> str | None:
    """Why a shard is not read any more: it is finished, or its table went; None when it is read, or to be read."""
    if any(target.blocked for target in targets):
        return None
    if targets and all(target.position == END.text for target in targets):
        return FINISHED
    return None if is_chosen else _TABLE_LEFT


def _reads(rule: RuleSettings, stored: StoredStream) -> bool:
    """Whether a rule reads a stream; of one that chooses its tables, whether it ever did."""
    stream = stored.stream
    known = rule.name in stored.rules if rule.choice else (stream.region, stream.table) in rule.sources
    return known and not leaves(rule, stream) and not stored.is_drained_for(RuleName(rule.name))


def _sources(rule: RuleSettings, streams: Sequence[StoredStream]) -> list[tuple[str, str]]:
    """The tables that a rule reads; of one that chooses them, those that it has progress on."""
    if rule.choice is None:
        return rule.sources
    read = [stored.stream for stored in streams if _reads(rule, stored)]
    return sorted({(str(stream.region), str(stream.table)) for stream in read})


def _runs(settings: Settings, rule: RuleSettings, stream: StreamRef) -> list[Rule]:
    """A rule as it is run on a stream now; what is stored of other targets is what the rule was before."""
    seen = rule_per_source(settings, rule if rule.choice is None else rule.on(stream.table))
    return [each for each in seen if each.source == stream.region]


def _waits(runs: Sequence[Rule], stored: StoredStream, group: _Stored) -> dict[str, WaitStatus]:
    """Why shards are not read for a rule, as the rows show; whether shards can be read is not asked."""
    unreadable = stored.problems[0] if stored.problems else None
    state = StreamState(stored.rows, stored.seat, stored.starts, 0.0, unreadable)
    observed = Observed(
        paused={RuleName(pause.rule) for pause in group.pauses}, live=group.pulses.keys(), readable=stored.rows.keys()
    )
    return {
        shard_id: WaitStatus(wait.why.value, *explain(wait, [shard_id], unreadable.sentence if unreadable else ""))
        for run in runs
        for shard_id, wait in waits(Snapshot(state, [run]), run, observed).items()
    }
