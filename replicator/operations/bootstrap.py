"""What a bootstrap would read and write, as a job that is not stored yet, and what it costs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from replicator.adapters.aws.errors import CLIENT_ERRORS, member, translate
from replicator.adapters.export_sources import export_files
from replicator.domain.copying.exports import Export
from replicator.domain.copying.ordered import Extra
from replicator.domain.identifiers import RegionId, RuleName, TableName
from replicator.domain.item_size import STAMP_BYTES
from replicator.domain.jobs import Job, JobKind, Part, parts_of, place_name, segments_for
from replicator.domain.modes.ordered import InsertGuard
from replicator.domain.rules import ActivePlan, Rule, Target
from replicator.engine.copying.applied import covered_since
from replicator.engine.copying.exports import EXPORT, TOO_OLD_ADVICE, open_export, too_old
from replicator.operations.errors import RequestRefused
from replicator.operations.group import Group, rule_named
from replicator.operations.jobs import new_job_id
from replicator.settings.compiled_rules import rule_per_source

if TYPE_CHECKING:
    from replicator.domain.targets import TargetId
    from replicator.settings import RuleSettings

READ_BYTES, _WRITE_BYTES = 4096, 1024
_SHARE_OF_PROVISIONED = 4
_MILLION = 1_000_000
READ_PRICE, WRITE_PRICE = 0.125, 0.625
"""US dollars per million on-demand units in us-east-1, for a sense of proportion."""


@dataclass(frozen=True, slots=True)
class BootstrapRequest:
    """What is asked for. `region`: only the replica there; else those that no bootstrap has filled."""

    rule: str
    table: str | None = None
    region: str | None = None
    extra: str = Extra.LIST
    verify: bool = True
    read_units: int | None = None
    write_units: int | None = None
    export: str | None = None
    """Where a point-in-time export lies that is read in place of the table."""


@dataclass(frozen=True, slots=True)
class RegionPlan:
    """What is read and written in one table: units in all, and at most per second."""

    region: RegionId
    table: TableName
    items: int
    bytes: int
    read_units: int
    write_units: int
    read_units_per_second: int
    write_units_per_second: int


@dataclass(frozen=True, slots=True)
class BootstrapPlan:
    """A bootstrap before it begins; counts of items and bytes are DynamoDB's own, hours old."""

    job: Job
    regions: Sequence[RegionPlan]

    @property
    def dollars(self) -> float:
        """About what it costs on demand in us-east-1."""
        reads = sum(each.read_units for each in self.regions) * READ_PRICE
        return (reads + sum(each.write_units for each in self.regions) * WRITE_PRICE) / _MILLION

    @property
    def seconds(self) -> float:
        """About how long it takes at least, within its units."""
        spans = [each.read_units / each.read_units_per_second for each in self.regions]
        return max([*spans, *(each.write_units / each.write_units_per_second for each in self.regions)])

    @property
    def shown(self) -> dict[str, Any]:
        """The plan for a document."""
        job = self.job
        return {
            "job": job.job_id,
            "rule": job.rule,
            "table": job.table,
            "targets": [target.text for target in job.targets],
            "items": job.items,
            "segments": job.segments,
            "regions": list(self.regions),
            "dollars": round(self.dollars, 2),
            "seconds": round(self.seconds),
        }


async def plan_bootstrap(group: Group, request: BootstrapRequest, *, workers: int, by: str) -> BootstrapPlan:
    """The job that does what is asked for; nothing is stored. The group has clients of the rule's regions."""
    extra = [each.value for each in Extra]
    if request.extra not in extra:
        raise RequestRefused(f"--extra {request.extra} is none of {', '.join(extra)}.", advice="")
    written = _on_table(rule_named(group.settings, request.rule), request.table)
    rules = rule_per_source(group.settings, written)
    targets = await _chosen(group, rules, request)
    members = rules[0].members
    written_to = members if rules[0].mesh else [(target.region, _table(target)) for target in targets]
    tables = {where: await described(group, *where) for where in dict.fromkeys((*members, *written_to))}
    regions = [_region(group, request, rules[0], where, tables, written_to) for where in tables]
    export = None if request.export is None else await _export(group, rules[0], targets, request.export)
    largest = max(found["TableSizeBytes"] for where, found in tables.items() if where in members)
    segments = segments_for(largest, workers)
    job = Job(
        new_job_id(JobKind.BOOTSTRAP),
        JobKind.BOOTSTRAP,
        RuleName(written.name),
        TableName(written.table_name),
        tuple(dict.fromkeys(target.target_id for target in targets)),
        parts_of(members, segments) if export is None else (Part(EXPORT, min(segments, len(export.files))),),
        options={
            **({} if export is None else {EXPORT: request.export}),
            "segments": segments,
            "extra": request.extra,
            "verify": request.verify,
            "compared": [place_name(*where) for where in tables],
            "read_units": {each.region: each.read_units_per_second for each in regions},
            "write_units": {each.region: each.write_units_per_second for each in regions},
        },
        by=by,
        items=sum(tables[where]["ItemCount"] for where in members) if export is None else export.items,
    )
    return BootstrapPlan(job, regions)


async def _export(group: Group, rule: Rule, targets: Sequence[Target], where: str) -> Export:
    """An export that can be copied from, as far as is known before a worker has begun."""
    if rule.mesh is not None:
        raise RequestRefused(
            "The regions of a mesh are scanned; an export shows one of them, as it was.",
            advice="Leave --from-export out.",
        )
    export = await open_export(*export_files(where, group.places[rule.source]))
    for target in targets:
        since = await covered_since(group.registry, rule, target)
        if since is not None and export.at < since:
            raise RequestRefused(too_old(export.at, since), advice=TOO_OLD_ADVICE)
    return export


def _on_table(rule: RuleSettings, table: str | None) -> RuleSettings:
    if rule.choice is None:
        return rule
    if table is None:
        raise RequestRefused(f"Rule {rule.name} chooses its tables.", advice="Name one with --table.")
    return rule.on(table)


def _table(target: Target) -> TableName:
    assert target.table is not None, "only tables are filled"
    return target.table


async def _chosen(group: Group, rules: Sequence[Rule], request: BootstrapRequest) -> list[Target]:
    """The targets to fill: the mesh, the replica that is named, or those that no bootstrap has filled."""
    if rules[0].mesh is not None:
        if request.region is not None:
            raise RequestRefused("A mesh is bootstrapped as a whole.", advice="Leave --region out.")
        return [rule.targets[0] for rule in rules]
    replicas = [target for target in rules[0].targets if target.table is not None]
    if request.region is not None:
        named = [target for target in replicas if target.region == request.region]
        if not named:
            regions = ", ".join(dict.fromkeys(target.region for target in replicas)) or "no region"
            raise RequestRefused(
                f"Rule {request.rule} has no replica in {request.region}.", advice=f"It has one in {regions}."
            )
        return named
    if not replicas:
        raise RequestRefused(f"Rule {request.rule} has no replica to fill.", advice="")
    filled: Mapping[TargetId, float] = await group.jobs.filled()
    left = [target for target in replicas if target.target_id not in filled]
    if not left:
        raise RequestRefused(
            f"Every replica of rule {request.rule} was bootstrapped before, so there is nothing to copy.",
            advice="`replicator verify` compares them; --region bootstraps one again.",
        )
    return left


def _region(  # noqa: PLR0913, PLR0917 - what is known, given once
    group: Group,
    request: BootstrapRequest,
    rule: Rule,
    where: tuple[RegionId, TableName],
    tables: Mapping[tuple[RegionId, TableName], Mapping[str, Any]],
    written_to: Sequence[tuple[RegionId, TableName]],
) -> RegionPlan:
    """What is read and written of one table; what a verification reads is not among it."""
    found, copying = tables[where], group.settings.copying
    is_read = where in rule.members and request.export is None
    sources = [tables[member] for member in rule.members if rule.mesh is None or member != where]
    writes = sum(_write_units(rule, each) for each in sources) if where in written_to else 0
    if isinstance(rule.mesh, ActivePlan):
        writes += int(found["ItemCount"]) * units_of(found)  # its own items are stamped
    had = found.get("ProvisionedThroughput", {})
    return RegionPlan(
        *where,
        found["ItemCount"],
        found["TableSizeBytes"],
        math.ceil(found["TableSizeBytes"] / READ_BYTES) if is_read else 0,
        writes,
        request.read_units or quarter(had, "ReadCapacityUnits") or copying.read_units,
        request.write_units or quarter(had, "WriteCapacityUnits") or copying.write_units,
    )


def quarter(provisioned: Mapping[str, Any], name: str) -> int:
    """A quarter of what a provisioned table has; 0 of one that pays on demand."""
    return math.ceil(int(provisioned.get(name, 0)) / _SHARE_OF_PROVISIONED)


def _write_units(rule: Rule, source: Mapping[str, Any]) -> int:
    """What it takes to write every item of a source to one other table."""
    units = units_of(source)
    if rule.mesh is None and rule.policy.insert_guard is InsertGuard.TRANSACT:
        units = 2 * (units + 1)  # a transaction counts twice, and checks the tombstone
    items = int(source["ItemCount"])
    return items * units


def units_of(source: Mapping[str, Any]) -> int:
    """Write units of a table's mean item, with a stamp."""
    mean = int(source["TableSizeBytes"]) / max(1, int(source["ItemCount"]))
    return max(1, math.ceil((mean + STAMP_BYTES) / _WRITE_BYTES))


async def described(group: Group, region: RegionId, table: TableName) -> dict[str, Any]:
    """A table as DynamoDB describes it; with what is provisioned only where that is paid for."""
    what = f"DescribeTable of {table} in {region}"
    try:
        answer = await group.places[region].dynamodb.describe_table(TableName=table)
    except CLIENT_ERRORS as error:
        raise translate(error, what) from error
    found: dict[str, Any] = {"ItemCount": 0, "TableSizeBytes": 0, **member(answer, "Table", what)}
    if found.get("BillingModeSummary", {}).get("BillingMode") == "PAY_PER_REQUEST":
        found.pop("ProvisionedThroughput", None)
    return found
