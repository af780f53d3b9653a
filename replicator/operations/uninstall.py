"""What is left of a rule in tables and rows, and its removal when no worker runs the rule any more.

Invariant: nothing of a rule's progress is forgotten before its tables are clean; nothing is taken that another rule of
the configuration, or of a living worker, needs; and what was interrupted goes on where it was.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from replicator.adapters.dynamodb.coordination import KnownTables, RuleRows
from replicator.adapters.dynamodb.table_claims import SideTableClaims
from replicator.adapters.kinesis.consumers import deregister
from replicator.adapters.kinesis.streams import summary
from replicator.checks.table_choices import with_tables
from replicator.domain.copying.uninstalls import Kept
from replicator.domain.errors import StreamUnusable, TableMissing, WorldMismatch
from replicator.domain.identifiers import RegionId, RuleName, TableName
from replicator.domain.jobs import Counts, Job, JobKind, JobState, Part, added, place_name, segments_for
from replicator.domain.rules import KinesisSource
from replicator.domain.targets import TargetKind, parse_target
from replicator.engine.copying.uninstalling import SIDE_TABLE
from replicator.operations.bootstrap import READ_BYTES, described, quarter, units_of
from replicator.operations.canaries import remove_canaries
from replicator.operations.gaps import list_gaps
from replicator.operations.group import ALIVE, rule_named
from replicator.operations.jobs import cancel, new_job_id, submit
from replicator.operations.parked_rows import open_rows
from replicator.operations.rules import forget_rows
from replicator.operations.worker_status import ask_all, by_worker
from replicator.settings import ActiveRule, OrderedRule
from replicator.settings.compiled_rules import kinesis_source, rule_per_source
from replicator.settings.cross_checks import written_under

if TYPE_CHECKING:
    from replicator.domain.key_mapping import KeyMapping
    from replicator.domain.shards.leases import Pulse
    from replicator.operations.group import Group
    from replicator.settings import RuleSettings, Settings

STAMPS, SIDE_ROWS = "stamps", "side rows"
"""What is removed from a table."""

_NOT_CLEAN = (Kept.CHANGED, Kept.MARKED, "refused")
"""Counts of what keeps a table from being clean."""

_Place = tuple[RegionId, TableName]


@dataclass(frozen=True, slots=True)
class UninstallRequest:
    """What is asked for; units per second and region."""

    rule: str
    read_units: int | None = None
    write_units: int | None = None


@dataclass(frozen=True, slots=True)
class TablePlan:
    """What is read of one table, and written at most: units in all, and at most per second."""

    region: RegionId
    table: TableName
    removes: str
    items: int
    bytes: int
    read_units: int
    write_units: int
    read_units_per_second: int
    write_units_per_second: int


@dataclass(frozen=True, slots=True)
class UninstallPlan:
    """What is removed. `begun`: jobs that were interrupted and go on; `left_out`: tables that stay as they are.

    `cancels`: other jobs of the rule, which are not over and which no worker is at work on. `consumers`: those of
    Kinesis streams, by region, to which shards were pushed for this rule alone.
    """

    rule: RuleName
    tables: Sequence[TablePlan]
    streams: Sequence[str]
    gaps: int
    parked: int
    earlier_jobs: int
    begun: Sequence[str]
    cancels: Sequence[str]
    left_out: Sequence[str]
    consumers: Sequence[tuple[RegionId, str, str]]
    """(region, stream, name)."""
    jobs: Sequence[Job]
    rules: Sequence[RuleSettings] = field(repr=False)
    """The rule as if it named one table, once per table."""

    @property
    def written(self) -> set[_Place]:
        """Every table that the rule writes."""
        return _written(self.rules)

    @property
    def shown(self) -> dict[str, Any]:
        """The plan for a document."""
        names = ("rule", "tables", "streams", "gaps", "parked", "earlier_jobs", "begun", "cancels", "left_out")
        return {name: getattr(self, name) for name in names} | {"consumers": [name for _, _, name in self.consumers]}


def _written(rules: Sequence[RuleSettings]) -> set[_Place]:
    return set(_mappings(rules))


def _mappings(rules: Sequence[RuleSettings]) -> dict[_Place, KeyMapping | None]:
    """Every table that rules write, with how its keys are made; None: they are the source's."""
    found = (each for rule in rules for each in written_under(rule))
    return {(RegionId(region), TableName(table)): keys for (region, table), keys in found}


def _alone(rules: Sequence[RuleSettings]) -> set[_Place]:
    """The tables in which no other rule may have items: keys that are mapped are those of one rule alone."""
    return {place for place, keys in _mappings(rules).items() if keys is None}


async def plan_uninstall(group: Group, request: UninstallRequest, *, by: str) -> UninstallPlan:
    """What is to be removed; nothing is stored. The group has clients of every region of its rules."""
    rule = rule_named(group.settings, request.rule)
    alone = group.settings.model_copy(update={"rules": [rule]})
    rules = [each for each in (await with_tables(alone, group.places)).rules if each.sources]
    name, written = RuleName(rule.name), _written(rules)
    _refuse_shared(group.settings, rule, _alone(rules))
    left_out = [place_name(*place) for place in await KnownTables(group.table).of_rule(name) if place not in written]
    jobs = await group.jobs.jobs()
    begun = {job.table: job for job in jobs if _is_of(job, name) and job.state.is_open}
    cancels = _under_way(jobs, name)
    tables: list[TablePlan] = []
    planned: list[Job] = []
    for each in rules:
        found = [
            table
            for place in _places(group.settings, each)
            if (table := await _table(group, request, *place)) is not None
        ]
        tables += found
        planned.append(begun.get(TableName(each.table_name)) or _job(group.settings, each, found, by))
    await _refuse_taken(group, name, tables, _mappings(rules))
    return UninstallPlan(
        name,
        tables,
        [stored.stream.where for stored in await group.streams() if name in stored.rules],
        len(await list_gaps(group, name)),
        len(await open_rows(group, name)),
        sum(job.rule == name and not job.state.is_open for job in jobs),
        [job.job_id for job in begun.values()],
        [job.job_id for job in cancels],
        left_out,
        consumers_of(group.settings, rules),
        planned,
        rules,
    )


def consumers_of(settings: Settings, rules: Sequence[RuleSettings]) -> list[tuple[RegionId, str, str]]:
    """Consumers of the rule that no other rule of the configuration reads by."""

    def used(rule: RuleSettings) -> set[tuple[RegionId, str, str]]:
        sources: list[tuple[str, str, KinesisSource | None]] = [
            (region, table, kinesis_source(rule, region, settings.group)) for region, table in rule.sources
        ]
        return {
            (RegionId(region), kinesis.stream, kinesis.consumer_of(table))
            for region, table, kinesis in sources
            if kinesis is not None and kinesis.group
        }

    others = {each for rule in settings.rules if rule.name != rules[0].name for each in used(rule)} if rules else set()
    return sorted({each for rule in rules for each in used(rule)} - others)


def _is_of(job: Job, rule: RuleName) -> bool:
    return job.kind is JobKind.UNINSTALL and job.rule == rule


def _under_way(jobs: Sequence[Job], rule: str) -> list[Job]:
    """Jobs of the rule that are not over and that write what is to be removed, or read it."""
    return [job for job in jobs if job.rule == rule and job.state.is_open and job.kind is not JobKind.UNINSTALL]


def _places(settings: Settings, rule: RuleSettings) -> list[tuple[RegionId, TableName, str]]:
    """Tables with stamps, and side tables; mode `versioned` has neither."""
    if not isinstance(rule, OrderedRule | ActiveRule):
        return []
    side = TableName(settings.side_table_name)
    stamps = [(RegionId(region), TableName(table), STAMPS) for region, table in rule.replica_tables]
    return [*stamps, *((RegionId(region), side, SIDE_ROWS) for region in dict.fromkeys(rule.regions_written))]


async def _table(
    group: Group, request: UninstallRequest, region: RegionId, table: TableName, removes: str
) -> TablePlan | None:
    """None of a table that is not there: then nothing of the rule is in it."""
    try:
        found = await described(group, region, table)
    except TableMissing:
        return None
    items, copying, had = int(found["ItemCount"]), group.settings.copying, found.get("ProvisionedThroughput", {})
    return TablePlan(
        region,
        table,
        removes,
        items,
        int(found["TableSizeBytes"]),
        math.ceil(int(found["TableSizeBytes"]) / READ_BYTES),
        items * units_of(found),
        request.read_units or quarter(had, "ReadCapacityUnits") or copying.read_units,
        request.write_units or quarter(had, "WriteCapacityUnits") or copying.write_units,
    )


def _job(settings: Settings, rule: RuleSettings, tables: Sequence[TablePlan], by: str) -> Job:
    """The job on one table of the rule, in all its regions. A region's tables share its units: the least counts."""
    targets = [target for each in rule_per_source(settings, rule) for target in each.targets]
    units: dict[str, dict[RegionId, int]] = {"read_units": {}, "write_units": {}}
    for table in tables:
        for name, of_region in units.items():
            per_second = getattr(table, f"{name}_per_second")
            of_region[table.region] = min(per_second, of_region.get(table.region, per_second))
    return Job(
        new_job_id(JobKind.UNINSTALL),
        JobKind.UNINSTALL,
        RuleName(rule.name),
        TableName(rule.table_name),
        tuple(dict.fromkeys(target.target_id for target in targets)),
        tuple(Part(place_name(table.region, table.table), segments_for(table.bytes, 1)) for table in tables),
        options={SIDE_TABLE: settings.side_table_name, **units},
        by=by,
        items=sum(table.items for table in tables),
    )


# -- what must not be ----------------------------------------------------------------------------------------------


def _refuse_shared(settings: Settings, rule: RuleSettings, written: set[_Place]) -> None:
    """Refuse when another rule of the configuration writes one of the tables, by name or by choice."""
    for other in settings.rules:
        for region, table in sorted(written) if other.name != rule.name else ():
            here = settings.regions[region].place
            regions = [each for each in other.regions_written if settings.regions[each].place == here]
            named = any((each, table) in other.replica_tables for each in regions)
            if named or (regions and other.choice is not None and other.choice.names(table)):
                raise _needed(other.name, place_name(region, table))


async def _refuse_taken(
    group: Group, rule: RuleName, tables: Sequence[TablePlan], mappings: Mapping[_Place, KeyMapping | None]
) -> None:
    """Refuse when another rule has written one of the tables since; a former name of this one does not count."""
    names = {None, rule, *(await RuleRows(group.table).formerly()).get(rule, ())}
    claims = _claims(group)
    with_side_rows = {table.region for table in tables if table.removes == SIDE_ROWS}
    for table in tables:
        if table.removes == STAMPS and table.region in with_side_rows:
            writer = await claims.writer(table.region, table.table, mappings.get((table.region, table.table)))
            if writer not in names:
                raise _needed(str(writer), place_name(table.region, table.table))


def _needed(rule: str, where: str) -> WorldMismatch:
    return WorldMismatch(
        f"Rule {rule} writes {where} too, and needs the stamps there.",
        advice=f"Uninstall rule {rule} alone, or remove it first.",
    )


def _claims(group: Group) -> SideTableClaims:
    clients = {region: place.dynamodb for region, place in group.places.items()}
    return SideTableClaims(clients.__getitem__, group.settings.side_table_name)


async def refuse_running(group: Group, rule: RuleSettings, written: set[_Place] | None = None) -> bool:
    """Refuse while a living worker runs the rule, a job of it, or another one on its tables.

    Returns whether any worker lives.

    A worker says at its admin address what it runs. One that does not answer is taken to run the rule, unless it is
    about to leave and reads nothing, as a command that does a job.
    """
    pulses = await group.membership.members()
    lease = group.settings.coordination.lease.total_seconds()
    if pulses:
        group.announce(f"looking at the workers of group {group.settings.group} ...")
    states = await group.living(pulses, pulses, lease)
    living = {worker: pulses[worker] for worker, state in states.items() if state == ALIVE}
    daemons = by_worker(await ask_all(group.settings, [pulse.admin for pulse in living.values()]))
    shared = {place for place, keys in _mappings([rule]).items() if keys is not None}
    places = {place_name(*place) for place in (written if written is not None else _written([rule])) - shared}
    for worker, document in daemons.items():
        _refuse_runs(worker, document, rule.name, places)
    for worker, pulse in living.items():
        if worker not in daemons and not _is_idle(pulse):
            raise WorldMismatch(
                f"Worker {worker} is alive and does not say which rules it runs.",
                advice="Stop it, or run this where its admin server can be reached.",
            )
    for job in _under_way(await group.jobs.jobs(), rule.name):
        owners = {segment.owner for segment in await group.jobs.segments(job.job_id)}
        for at_work in sorted(worker for worker in living if worker in owners):
            raise WorldMismatch(
                f"Worker {at_work} is at work on job {job.job_id} ({job.kind}) of rule {rule.name}.",
                advice=f"Wait for it, or `replicator jobs cancel {job.job_id}` and wait until that worker has ended.",
            )
    return bool(daemons) or any(not _is_idle(pulse) for pulse in living.values())


def _is_idle(pulse: Pulse) -> bool:
    return pulse.leaving and not pulse.through and not pulse.admin


def _refuse_runs(worker: str, document: Mapping[str, Any], rule: str, places: set[str]) -> None:
    choices = {choice.get("rule") for choice in document.get("choices", ())}
    known = [*document.get("rules", ()), *({"name": name} for name in choices)]
    if any(each.get("name") == rule for each in known):
        raise WorldMismatch(
            f"Worker {worker} runs rule {rule}.",
            advice=(
                "Take the rule out of its configuration or stop it, then run this again with a configuration that"
                " still has the rule."
            ),
        )
    for each in known:
        needed = places & _places_of(each)
        if needed:
            raise _needed(str(each["name"]), min(needed))


def _places_of(shown: Mapping[str, Any]) -> set[str]:
    """The tables that a rule writes, as a worker shows it."""
    targets = [target for text in shown.get("totals", {}) if (target := parse_target(text)) is not None]
    replicas = {target.name for target in targets if target.kind is TargetKind.REPLICA}
    is_mesh = any(target.kind is TargetKind.MESH for target in targets)
    return replicas | ({f"{shown['source']}:{shown['table']}"} if is_mesh else set())


# -- doing it ------------------------------------------------------------------------------------------------------


async def make_way(group: Group, plan: UninstallPlan, *, by: str) -> None:
    """Cancel the rule's other jobs."""
    for job_id in plan.cancels:
        await cancel(group, job_id, by)


async def begin(group: Group, job: Job) -> Job:
    """Store a job, or let the one that was interrupted go on."""
    if job.job_id in {each.job_id for each in await group.jobs.jobs()}:
        if job.state is JobState.PAUSED:
            await group.jobs.change(job, JobState.RUNNING)
        return job
    return await submit(group, job)


def is_clean(jobs: Sequence[Job]) -> bool:
    """Whether jobs came to their end and nothing stayed in a table that had to go."""
    return all(job.state is JobState.DONE for job in jobs) and not sum(kept(jobs).values())


def kept(jobs: Sequence[Job]) -> Counts:
    """What stayed in tables that had to go, by why."""
    counts = added(*(job.counts for job in jobs))
    return {name: counts.get(name, 0) for name in map(str, _NOT_CLEAN)}


async def forget(group: Group, plan: UninstallPlan) -> int:
    """Delete everything that is stored of the rule, its tables being clean; returns how many rows changed."""
    any_alive = await refuse_running(group, rule_named(group.settings, plan.rule), plan.written)
    claims = _claims(group)
    for (region, table), keys in _mappings(plan.rules).items():
        try:
            await claims.forget(region, table, keys)
        except TableMissing:
            continue
    await remove_canaries(group.places, plan.rules)
    for region, stream, name in plan.consumers:
        place = group.places[region]
        try:
            await deregister(place, (await summary(place, stream)).arn, name)
        except StreamUnusable:
            continue
    changed = await forget_rows(group, plan.rule)
    if not any_alive:
        sources = {(RegionId(region), TableName(table)) for rule in plan.rules for region, table in rule.sources}
        changed += await RuleRows(group.table).forget_unread(plan.rule, sources)
    return changed
