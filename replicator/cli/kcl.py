"""`replicator import-kcl`: a rule goes on where a KCL consumer stopped.

Invariant: progress that a rule has already is never overwritten. A target's start is stored last, so an import that was
interrupted counts for nothing and can be repeated.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from replicator.adapters.aws.errors import CLIENT_ERRORS, translate
from replicator.adapters.dynamodb.streams import DynamoStreams, whole_listing
from replicator.cli.confirmation import ask, need_yes
from replicator.cli.output import print_json, print_rows
from replicator.domain.errors import EXIT_STOPPED, WorldMismatch
from replicator.domain.identifiers import TableName
from replicator.domain.progress import END, HORIZON
from replicator.domain.shards.leases import Rewind
from replicator.operations.errors import RequestRefused
from replicator.operations.group import ALIVE, Group, loaded, open_group, rule_named
from replicator.operations.kcl_leases import KclLease, Taken, lease_of, moved, of_stream, takings
from replicator.settings.compiled_rules import sights_of

if TYPE_CHECKING:
    from replicator.domain.rules import Rule
    from replicator.domain.shards.leases import StreamRef
    from replicator.settings import RuleSettings, Settings

_WATCH_SECONDS = 5.0
"""A KCL worker renews its leases several times in its failover time, which is 10 s by default."""

_BEFORE_RETENTION_SECONDS = 26 * 3600
"""The start lies before everything that a stream can hold: a rule with `start: latest` must skip nothing now."""

_TRIES = 5
_MOST_MISSING = 5
_COLUMNS = ("shard", "position", "why")


@dataclass(frozen=True, slots=True)
class Request:
    """What the operator asked for."""

    table: str
    rule: str | None
    region: str | None
    dry_run: bool
    yes: bool


@dataclass(frozen=True, slots=True)
class _Import:
    """What will be stored."""

    rule: Rule
    stream: StreamRef
    taken: Sequence[Taken]
    warnings: Sequence[str]


def import_leases(config: Path | None, request: Request, *, as_json: bool) -> int:
    """Show what will be taken, ask, and store it."""
    if not request.dry_run:
        need_yes(yes=request.yes, as_json=as_json)
    settings = loaded(config)
    rule = _rule(settings, request)
    return asyncio.run(_import(settings, rule, request, as_json=as_json))


def _rule(settings: Settings, request: Request) -> RuleSettings:
    if request.rule is not None:
        return rule_named(settings, request.rule)
    if len(settings.rules) > 1:
        names = ", ".join(rule.name for rule in settings.rules)
        raise RequestRefused(f"There are several rules: {names}.", advice="Name one with --rule.")
    return settings.rules[0]


def _sight(settings: Settings, rule: RuleSettings, request: Request) -> Rule:
    """The rule as it reads one stream."""
    if rule.choice is not None:
        raise RequestRefused(
            f"Rule {rule.name} chooses its tables.", advice="Name the table in a rule of its own for this import."
        )
    sights = sights_of(settings, rule)
    found = [sight for sight in sights if request.region in {None, sight.source}]
    names = ", ".join(str(sight.source) for sight in sights)
    if not found:
        raise RequestRefused(f"Rule {rule.name} reads no stream in {request.region}.", advice=f"It reads in: {names}.")
    if len(found) > 1:
        raise RequestRefused(f"Rule {rule.name} reads in several regions: {names}.", advice="Name one with --region.")
    return found[0]


async def _import(settings: Settings, rule: RuleSettings, request: Request, *, as_json: bool) -> int:
    sight = _sight(settings, rule, request)
    async with open_group(settings, {sight.source}) as group:
        plan = await _planned(group, sight, request)
        if not as_json:
            _show(plan)
        if not request.dry_run:
            ask(f"Let rule {sight.name} go on from here?", yes=request.yes)
            await _store(group, plan)
    if as_json:
        print_json(_document(plan, request))
    else:
        done = "would be taken" if request.dry_run else "were taken"
        sys.stdout.write(f"Positions of {len(plan.taken)} shards {done} for rule {sight.name}.\n")
    return EXIT_STOPPED


async def _planned(group: Group, rule: Rule, request: Request) -> _Import:
    streams = DynamoStreams(group.places[rule.source])
    stream = await streams.current(TableName(rule.table))
    await _refuse_progress(group, rule, stream)
    before = await _leases(group, rule, request.table)
    listed = await whole_listing(streams, stream)
    label = stream.arn.rpartition("/stream/")[2]
    mine = of_stream(before, rule.table, label)
    ids = {shard.shard_id for shard in listed}
    if not any(lease.shard in ids for lease in mine):
        raise WorldMismatch(
            f"None of the {len(before)} leases in {request.table} is on a shard of the present stream of {rule.table}"
            f" in {rule.source}.",
            advice="Name the lease table of the consumer of this table, or the rule that reads the consumer's table.",
        )
    warnings = _warnings(before, mine, ids)
    if owners := await _rising(group, rule, request.table, before):
        warnings.append(
            f"The old consumer still runs ({', '.join(owners)}): its positions move on. Stop it first; what it does"
            " meanwhile is done again, which versions make harmless."
        )
    taken = list(takings(mine, listed))
    warnings += [f"Shard {each.shard.shard_id}: {each.why}." for each in taken if not each.is_exact]
    return _Import(rule, stream, taken, warnings)


def _warnings(leases: Sequence[KclLease], mine: Sequence[KclLease], listed: set[Any]) -> list[str]:
    warnings = []
    if len(mine) < len(leases):
        warnings.append(f"{len(leases) - len(mine)} leases are of other streams and stay out.")
    lost = sorted(lease.shard for lease in mine if lease.shard not in listed and lease.position != END)
    if lost:
        some = ", ".join(lost[:_MOST_MISSING]) + (", ..." if len(lost) > _MOST_MISSING else "")
        warnings.append(f"{len(lost)} shards left the stream before the old consumer had read them: {some}.")
    return warnings


async def _refuse_progress(group: Group, rule: Rule, stream: StreamRef) -> None:
    """Neither progress nor a living worker: both would be overwritten, or overwrite."""
    starts = await group.registry.starts(stream)
    known = sorted(target_id for target_id in starts if target_id.rule == rule.name)
    if known:
        raise WorldMismatch(
            f"Rule {rule.name} has progress on the stream of {rule.table} in {rule.source} already ({known[0]}).",
            advice="Use `replicator rewind` to read again; or import under a new rule name.",
        )
    sys.stderr.write("replicator: looking for living workers and for a consumer that still runs ...\n")
    pulses = await group.membership.members()
    living = [worker for worker, state in (await group.living(pulses, pulses)).items() if state == ALIVE]
    if living:
        raise WorldMismatch(
            f"Worker {', '.join(living)} of group {group.settings.group} is running.",
            advice="Stop every daemon of the group, then run this again.",
        )


async def _leases(group: Group, rule: Rule, table: str) -> list[KclLease]:
    """Every lease of the table."""
    client = group.places[rule.source].dynamodb
    rows: list[dict[str, Any]] = []
    request: dict[str, Any] = {"TableName": table, "ConsistentRead": True}
    while True:
        try:
            answer = await client.scan(**request)
        except CLIENT_ERRORS as error:
            raise translate(error, f"Scan of the lease table {table} in {rule.source}") from error
        rows += answer.get("Items", [])
        if not answer.get("LastEvaluatedKey"):
            break
        request["ExclusiveStartKey"] = answer["LastEvaluatedKey"]
    leases = [lease for row in rows if (lease := lease_of(row)) is not None]
    if not leases:
        raise WorldMismatch(
            f"Table {table} in {rule.source} holds no KCL lease of a DynamoDB stream.",
            advice="Name the lease table: it has the name of the KCL application.",
        )
    return leases


async def _rising(group: Group, rule: Rule, table: str, before: Sequence[KclLease]) -> list[str]:
    await asyncio.sleep(_WATCH_SECONDS)
    return moved(before, await _leases(group, rule, table))


async def _store(group: Group, plan: _Import) -> None:
    """Lineage, then positions, then the starts, which make them count."""
    started_at = time.time() - _BEFORE_RETENTION_SECONDS
    await group.coordination.discover(plan.stream, [taken.shard for taken in plan.taken], started_at)
    rows = (await group.coordination.state(plan.stream)).rows
    targets = [target.target_id for target in plan.rule.targets]
    for taken in plan.taken:
        row = rows[taken.shard.shard_id]
        for _ in range(_TRIES):
            # At the horizon the mark of a rewind says that what is gone before it is no loss of this rule's.
            marks = {} if taken.position != HORIZON else dict.fromkeys(targets, Rewind(0.0, HORIZON))
            if await group.operations.rewind(plan.stream, row, dict.fromkeys(targets, taken.position), marks):
                break
            row = (await group.coordination.state(plan.stream)).rows[taken.shard.shard_id]
        else:
            raise WorldMismatch(
                f"Shard {taken.shard.shard_id} keeps changing hands.",
                advice="Stop every daemon of the group, then run this again.",
            )
    await group.registry.remember_stream(plan.stream)
    for target in plan.rule.targets:
        await group.registry.start(plan.stream, target, started_at=started_at)


# -- showing -------------------------------------------------------------------------------------------------------


def _show(plan: _Import) -> None:
    print_rows(_COLUMNS, [(each.shard.shard_id, each.position.text, each.why) for each in plan.taken])
    sys.stdout.flush()
    for warning in plan.warnings:
        sys.stderr.write(f"replicator: {warning}\n")


def _document(plan: _Import, request: Request) -> dict[str, Any]:
    return {
        "rule": plan.rule.name,
        "targets": [target.target_id.text for target in plan.rule.targets],
        "region": plan.stream.region,
        "table": plan.stream.table,
        "stream": plan.stream.arn,
        "lease_table": request.table,
        "dry_run": request.dry_run,
        "warnings": list(plan.warnings),
        "shards": [
            {
                "shard": each.shard.shard_id,
                "position": each.position.text,
                "why": each.why,
                "exact": each.is_exact,
            }
            for each in plan.taken
        ],
    }
