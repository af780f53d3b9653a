"""A rule goes on where a KCL consumer stopped.

Invariant: progress that a rule has already is never overwritten. A target's start is stored last, so an import that was
interrupted counts for nothing and can be repeated.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from replicator.adapters.dynamodb.streams import DynamoStreams, whole_listing
from replicator.checks.described_tables import pages
from replicator.domain.errors import WorldMismatch
from replicator.domain.identifiers import ShardId, TableName
from replicator.domain.progress import END, HORIZON
from replicator.domain.shards.leases import Rewind
from replicator.domain.verdict.kinds import counted
from replicator.operations.errors import RequestRefused
from replicator.operations.group import Group, Move, rule_named
from replicator.operations.kcl_leases import ImportedShard, KclLease, lease_of, moved, of_stream, takings
from replicator.settings.compiled_rules import rule_per_source

if TYPE_CHECKING:
    from replicator.domain.rules import Rule
    from replicator.domain.shards.leases import LeaseRow, StreamRef
    from replicator.settings import RuleSettings, Settings

_WATCH_SECONDS = 5.0
"""A KCL worker renews its leases several times in its failover time, which is 10 s by default."""

_BEFORE_RETENTION_SECONDS = 26 * 3600
"""The start lies before everything that a stream can hold: a rule with `start: latest` must skip nothing now."""

_MOST_MISSING = 5


@dataclass(frozen=True, slots=True)
class ImportRequest:
    """What the operator asked for: the lease table; the rule, else the only one; the region, else the rule's source."""

    table: str
    rule: str | None = None
    region: str | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """What will be stored, and what an operator should know before."""

    rule: Rule
    stream: StreamRef
    taken: Sequence[ImportedShard]
    warnings: Sequence[str]


def rule_of_import(settings: Settings, request: ImportRequest) -> Rule:
    """The rule as it reads one stream."""
    rule = _rule(settings, request)
    if rule.choice is not None:
        raise RequestRefused(
            f"Rule {rule.name} chooses its tables.", advice="Name the table in a rule of its own for this import."
        )
    readings = rule_per_source(settings, rule)
    found = [reading for reading in readings if request.region in {None, reading.source}]
    names = ", ".join(str(reading.source) for reading in readings)
    if not found:
        raise RequestRefused(f"Rule {rule.name} reads no stream in {request.region}.", advice=f"It reads in: {names}.")
    if len(found) == 1 and found[0].stream is not None:
        raise RequestRefused(
            f"Rule {rule.name} reads Kinesis stream {found[0].stream.name}, and leases are imported of readers of"
            " DynamoDB Streams.",
            advice="Start the rule with `start: trim_horizon`: applying records again changes nothing.",
        )
    if len(found) > 1:
        raise RequestRefused(f"Rule {rule.name} reads in several regions: {names}.", advice="Name one with --region.")
    return found[0]


def _rule(settings: Settings, request: ImportRequest) -> RuleSettings:
    if request.rule is not None:
        return rule_named(settings, request.rule)
    if len(settings.rules) > 1:
        names = ", ".join(rule.name for rule in settings.rules)
        raise RequestRefused(f"There are several rules: {names}.", advice="Name one with --rule.")
    return settings.rules[0]


async def plan(group: Group, rule: Rule, table: str) -> Plan:
    """What an import would store; refused beside progress, living workers, and leases of another table's consumer."""
    streams = DynamoStreams(group.places[rule.source])
    stream = await streams.current(TableName(rule.table))
    await _refuse_progress(group, rule, stream)
    group.announce("looking for living workers and for a consumer that still runs ...")
    await group.refuse_living()
    before = await _leases(group, rule, table)
    listed = await whole_listing(streams, stream)
    mine = of_stream(before, rule.table, stream.arn.rpartition("/stream/")[2])
    ids = {shard.shard_id for shard in listed}
    if not any(lease.shard in ids for lease in mine):
        raise WorldMismatch(
            f"None of the {len(before)} leases in {table} is on a shard of the present stream of {rule.table}"
            f" in {rule.source}.",
            advice="Name the lease table of the consumer of this table, or the rule that reads the consumer's table.",
        )
    warnings = _warnings(before, mine, ids)
    await asyncio.sleep(_WATCH_SECONDS)
    if owners := moved(before, await _leases(group, rule, table)):
        warnings.append(
            f"The old consumer still runs ({', '.join(owners)}): its positions move on. Stop it first; what it does"
            " meanwhile is done again, which versions make harmless."
        )
    taken = list(takings(mine, listed))
    warnings += [f"Shard {each.shard.shard_id}: {each.why}." for each in taken if not each.is_exact]
    return Plan(rule, stream, taken, warnings)


def _warnings(leases: Sequence[KclLease], mine: Sequence[KclLease], listed: Collection[ShardId]) -> list[str]:
    warnings = []
    if len(mine) < len(leases):
        warnings.append(f"Leases of other streams are not imported: {len(leases) - len(mine)}.")
    lost = sorted(lease.shard for lease in mine if lease.shard not in listed and lease.position != END)
    if lost:
        some = ", ".join(lost[:_MOST_MISSING]) + (", ..." if len(lost) > _MOST_MISSING else "")
        warnings.append(f"{counted(len(lost), 'shard')} left the stream before the old consumer had read them: {some}.")
    return warnings


async def _refuse_progress(group: Group, rule: Rule, stream: StreamRef) -> None:
    starts = await group.registry.starts(stream)
    known = sorted({target.target_id for target in rule.targets} & set(starts))
    if known:
        raise WorldMismatch(
            f"Rule {rule.name} has progress on the stream of {rule.table} in {rule.source} already ({known[0]}).",
            advice="Use `replicator rewind` to read again; or import under a new rule name.",
        )


async def _leases(group: Group, rule: Rule, table: str) -> list[KclLease]:
    """Every lease of the table."""
    what = f"Scan of the lease table {table} in {rule.source}"
    rows = pages(what, group.places[rule.source].dynamodb.scan, TableName=table, ConsistentRead=True)
    leases = [lease async for row in rows if (lease := lease_of(row)) is not None]
    if not leases:
        raise WorldMismatch(
            f"Table {table} in {rule.source} holds no KCL lease of a DynamoDB stream.",
            advice="Name the lease table: it has the name of the KCL application.",
        )
    return leases


async def store(group: Group, planned: Plan) -> None:
    """Lineage, then positions, then the starts, which make them count."""
    started_at = (await group.time()).earliest() - _BEFORE_RETENTION_SECONDS
    await group.coordination.discover(planned.stream, [taken.shard for taken in planned.taken], started_at)
    rows = (await group.coordination.state(planned.stream)).rows
    targets = [target.target_id for target in planned.rule.targets]
    for taken in planned.taken:
        # At the horizon the mark of a rewind says that what is gone before it is no loss of this rule's.
        marks = {} if taken.position != HORIZON else dict.fromkeys(targets, Rewind(0.0, HORIZON))
        await _put(
            group, planned.stream, rows[taken.shard.shard_id], Move(dict.fromkeys(targets, taken.position), marks)
        )
    await group.registry.remember_stream(planned.stream)
    for target in planned.rule.targets:
        await group.registry.start(planned.stream, target, started_at=started_at)


async def _put(group: Group, stream: StreamRef, row: LeaseRow, move: Move) -> None:
    """Move targets to a position, from wherever they were."""
    await group.move(stream, row, lambda _: move)
