"""One rule, before it may run: what is wrong with its world, and whether it may begin where its progress is.

A rule would be wrong to run that would silently begin anew under another name on one of the streams that it reads, or
in another mode or epoch on a table that it writes, or on a table that is another one than before. Invariant: what does
not answer forbids nothing; it is reported.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import structlog
from msgspec import Struct

from replicator.adapters.aws.clients import Place
from replicator.adapters.dynamodb.coordination import DynamoRegistry
from replicator.adapters.dynamodb.table_claims import EpochClaim, ModeClaim, note_epoch, note_mode
from replicator.adapters.sources import stream_of
from replicator.app.table_identities import TableIdentities
from replicator.checks.cache_facts import Probed
from replicator.checks.comparison import World, table_at
from replicator.checks.table_choices import TableFinder
from replicator.checks.verdicts import verdict
from replicator.domain.errors import EXIT_UNREACHABLE, NewerLayout, ReplicatorError, WorldMismatch
from replicator.domain.held import HeldId, Hold
from replicator.domain.identifiers import RegionId, RuleName, TableName
from replicator.domain.rules import Rule, Target
from replicator.domain.shards.leases import StreamRef
from replicator.domain.targets import TargetId, replica_id
from replicator.domain.values import replace
from replicator.engine.ownership.target_succession import TargetSuccession
from replicator.ports.clock import Clock
from replicator.ports.coordination import Registry
from replicator.ports.sources import Stream
from replicator.settings import OrderedRule, RuleSettings, Settings
from replicator.settings.compiled_rules import rule_per_source, shape_of


class Premises(Struct, frozen=True):
    """What the look at the world needs."""

    settings: Settings
    places: Mapping[str, Place]
    caches: Mapping[str, Probed]
    registry: DynamoRegistry
    succession: TargetSuccession
    clock: Clock
    finder: TableFinder
    identities: TableIdentities


class Sight(Struct, frozen=True):
    """What was seen of some tables. `settings`: with all rules, also those that were not looked for."""

    settings: Settings
    world: World


class Findings(Struct, frozen=True):
    """What is wrong with a rule on one table; `silent`: of which, None being the rule, something does not answer."""

    holds: Sequence[Hold] = ()
    silent: frozenset[TargetId | None] = frozenset()


def rule_id(rule: RuleSettings) -> HeldId:
    """What a rule on one table is held as."""
    return HeldId(RuleName(rule.name), TableName(rule.table_name))


def targets_of(settings: Settings, rule: RuleSettings) -> list[HeldId]:
    """What its targets are held as."""
    runs = rule_per_source(settings, rule)
    return [replace(rule_id(rule), target=target.target_id) for run in runs for target in run.targets]


def gates_of(settings: Settings, rule: RuleSettings) -> list[HeldId]:
    """What of it has a gate: its targets, and every region of a mesh."""
    name = RuleName(rule.name)
    tables = [replica_id(name, RegionId(region), TableName(table)) for region, table in rule.replica_tables]
    regions = [replace(rule_id(rule), target=table) for table in tables]
    return list(dict.fromkeys([*targets_of(settings, rule), *regions]))


async def examine(
    premises: Premises, sight: Sight, rule: RuleSettings, *, runs: bool = False, admitted: bool = False
) -> Findings:
    """What is wrong with a rule on one table that was looked at.

    A rule that `runs` is judged target by target; one that was `admitted` before is not asked for its claims again.
    """
    found = verdict(sight.settings, sight.world, rule, runs=runs)
    whole, silent = rule_id(rule), set(found.silent)
    gates = {each.target for each in gates_of(sight.settings, rule)}
    holds = [] if found.rule is None else [Hold(whole, found.rule.error)]
    if holds and not runs:
        return Findings(holds, frozenset(silent | gates))
    refused = {target: fact.error for target, fact in found.targets.items()}
    try:
        for seen in rule_per_source(sight.settings, rule) if not admitted else ():
            if seen.mesh is None or replica_id(seen.name, seen.source, seen.table) not in refused:
                refused = await admit_rule(premises, seen) | refused
        refused = await replaced_tables(premises, sight.world, rule, refused) | refused
    except NewerLayout:
        raise  # it is of the whole group
    except ReplicatorError as error:
        # Of a rule that runs what cannot be asked now leaves its targets as they are.
        if error.exit_code == EXIT_UNREACHABLE:
            _tell_unreachable(rule.name, error)
        elif not runs:
            return Findings([Hold(whole, error)], frozenset(silent | gates))
        silent |= {None, *gates}
    holds += [Hold(replace(whole, target=target), error) for target, error in refused.items()]
    return Findings(holds, frozenset(silent))


async def replaced_tables(
    premises: Premises, world: World, rule: RuleSettings, refused: Collection[TargetId] = ()
) -> dict[TargetId, ReplicatorError]:
    """Tables that are others than those that the rule wrote before, by the target that a replica there has or would.

    With `on_gap: resync` a rule of mode `ordered` takes such a table over, unless it is `refused` for another reason,
    and what it lacks is repaired as a gap is. A mesh does not: with a table's items their deletes may be lost, and what
    was deleted would come back.
    """
    found: dict[TargetId, ReplicatorError] = {}
    for region, name in rule.replica_tables:
        table = table_at(world, region, name)
        trouble = None if table is None else await premises.identities.trouble(rule.name, region, table)
        if table is None or trouble is None:
            continue
        target_id = replica_id(RuleName(rule.name), RegionId(region), TableName(name))
        if isinstance(rule, OrderedRule) and rule.on_gap == "resync" and target_id not in refused:
            (seen,) = rule_per_source(premises.settings, rule)
            stream = await stream_of(premises.places[seen.source], seen.stream).current(seen.table)
            await premises.identities.take_over(premises.registry, stream, target_id, region, table)
            trouble = await premises.identities.trouble(rule.name, region, table)
        if trouble is not None:
            found[target_id] = trouble
    return found


async def admit_rule(premises: Premises, rule: Rule) -> dict[TargetId, ReplicatorError]:
    """Raise what forbids a rule to begin on a table that it reads, or does not answer.

    Returns what forbids it to write single targets; where that does not answer it is logged and left out.
    """
    await premises.succession.carry_over(rule)  # before the rule's claims, which show whose a table was
    stream = await _identity(premises, rule, {other.name for other in premises.settings.rules})
    refused = {}
    for target in rule.targets:
        try:
            await _claim(premises, rule, target, stream)
        except NewerLayout:
            raise
        except ReplicatorError as error:
            if error.exit_code == EXIT_UNREACHABLE:
                _tell_unreachable(rule.name, error)
            else:
                refused[target.target_id] = error
    return refused


def _tell_unreachable(rule: str, error: ReplicatorError) -> None:
    """What does not answer forbids nothing; it is logged."""
    log = structlog.get_logger("replicator")
    log.warning("unreachable", rule=rule, reason=error.message, advice=error.worker_advice)


async def _identity(premises: Premises, rule: Rule, configured: set[str]) -> StreamRef:
    """A rule's name is the identity of its progress: refuse to begin anew, silently, under another name.

    Returns the stream that the rule reads.
    """
    log = structlog.get_logger("replicator")
    read = stream_of(premises.places[rule.source], rule.stream)
    stream = await read.current(rule.table)
    await check_succession(premises.registry, rule, stream, read)
    starts = await premises.registry.starts(stream)
    orphans = sorted({start.rule for start in starts.values()} - configured)
    if orphans and not any(start.rule == rule.name for start in starts.values()):
        raise WorldMismatch(
            f"Rule {rule.name!r} has no progress on the stream of {rule.table} in {rule.source}, but rule"
            f" {orphans[0]!r} has and is no longer configured.",
            advice=f"`replicator rules rename {orphans[0]} {rule.name}` keeps its progress,"
            f" `replicator rules forget {orphans[0]}` drops it.",
        )
    if orphans:
        log.warning("orphaned_progress", rules=orphans, table=rule.table, region=rule.source)
    written = next(other for other in premises.settings.rules if other.name == rule.name)
    changed = [
        target
        for target in rule.targets
        if await premises.registry.note_shape(stream, target, shape_of(premises.settings, written, target))
    ]
    if changed:
        reason = (
            "The filter, a transform or a key template changed, and existing items are not re-evaluated automatically:"
            f" `replicator verify {rule.name}` names what differs, `replicator repair {rule.name}` corrects it."
        )
        log.warning("rule_changed", rule=rule.name, reason=reason)
    return stream


async def check_succession(registry: Registry, rule: Rule, stream: StreamRef, read: Stream) -> None:
    """In a mesh the places of a region's writes only rise, so another kind of stream must be a younger one.

    Mode `ordered` has epochs for that.
    """
    if rule.mesh is None:
        return
    for known in await registry.streams(rule.source, rule.table):
        if known.ref.generation > stream.generation and not read.reads(known.ref):
            raise WorldMismatch(
                f"Rule {rule.name!r} is to read {rule.source_name}, and that stream is older than the one of another"
                " kind that was read before.",
                advice="Re-create that stream, so that it is the newer one, or read the other one again.",
            )


async def _claim(premises: Premises, rule: Rule, target: Target, stream: StreamRef) -> None:
    """Raise what forbids a rule to write a target's table, by what the side table knows of it.

    A table stays with the mode that wrote it: versions of different modes do not compare. An epoch, which only mode
    `ordered` has, is never lowered, and another source begins a new one.
    """
    if target.table is None:
        return
    client, side_table = premises.places[target.region].dynamodb, premises.settings.side_table_name
    mode = ModeClaim(rule.name, target.region, target.table, rule.mode, target.keys)
    await note_mode(client, side_table=side_table, claim=mode)
    if rule.mesh is None:
        written, generation = rule.source_name, stream.generation
        epoch = EpochClaim(rule.name, target.region, target.table, rule.epoch, written, generation, target.keys)
        await note_epoch(client, side_table=side_table, claim=epoch)
