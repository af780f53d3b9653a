"""Before the start: look at the world, wait a little for what does not answer, hold what would end badly.

A rule is held when its world is wrong, when it would silently begin anew under another name on one of the streams that
it reads, or in another mode or epoch on a table that it writes; of an `ordered` rule only the targets that this is
about. A start is refused (78) when what every rule needs is wrong, or no rule is left that can run; and (69) when
nothing that is configured can work because services do not answer. What does not answer while some rule can work is
logged, and tried again for as long as the daemon runs.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

import structlog

from replicator.adapters.aws.clients import Place
from replicator.adapters.dynamodb.coordination import DynamoRegistry
from replicator.adapters.dynamodb.streams import DynamoStreams
from replicator.adapters.dynamodb.table_claims import EpochClaim, ModeClaim, note_epoch, note_mode
from replicator.checks.cache_facts import Probed
from replicator.checks.comparison import World
from replicator.checks.facts import Fact, Status
from replicator.checks.survey import Survey, preflight
from replicator.checks.table_choices import TableFinder
from replicator.checks.verdicts import verdict
from replicator.domain.errors import EXIT_UNREACHABLE, ReplicatorError, WorldMismatch
from replicator.domain.held import HeldId, Hold
from replicator.domain.identifiers import RuleName, TableName
from replicator.domain.rules import Rule, Target
from replicator.domain.shards.leases import StreamRef
from replicator.domain.targets import TargetId
from replicator.engine.ownership.target_succession import TargetSuccession
from replicator.ports.clock import Clock
from replicator.settings import RuleSettings, Settings
from replicator.settings.compiled_rules import rule_per_source, shape_of

_PATIENCE_SECONDS = 10.0
"""How long a start waits for what does not answer."""


@dataclass(frozen=True, slots=True)
class Premises:
    """What the look at the world needs."""

    settings: Settings
    places: Mapping[str, Place]
    caches: Mapping[str, Probed]
    registry: DynamoRegistry
    succession: TargetSuccession
    clock: Clock
    finder: TableFinder


@dataclass(frozen=True, slots=True)
class Start:
    """What a start found, and what is held."""

    survey: Survey
    holds: Sequence[Hold]


@dataclass(frozen=True, slots=True)
class Sight:
    """What was seen of some tables and caches. `settings`: with all rules, also those that were not looked for."""

    settings: Settings
    world: World
    caches: Mapping[str, Fact]


@dataclass(frozen=True, slots=True)
class Findings:
    """What is wrong with a rule on one table; `silent`: of which, None being the rule, something does not answer."""

    holds: Sequence[Hold] = ()
    silent: frozenset[TargetId | None] = frozenset()


async def prepare_start(premises: Premises, *, strict: bool = False) -> Start:
    """Return when the engine may start; raise what forbids it. It may be cancelled at any time.

    What it returns holds the tables of rules that choose them. `strict`: nothing is held, the start is refused instead.
    """
    survey = await _patiently(premises, strict=strict)
    log = structlog.get_logger("replicator")
    for fact in survey.facts:
        if fact.status is Status.WARNING:
            log.warning("noticed", subject=fact.subject, fact=fact.name, found=fact.found, advice=fact.remedy)
        elif fact.status is Status.FAILED and not fact.is_wrong:
            log.error("unreachable", subject=fact.subject, reason=fact.found, advice=fact.remedy)
    sight = Sight(survey.settings, survey.world, survey.caches)
    holds = unchosen(survey.unchosen)
    for rule in survey.settings.rules:
        if rule.sources:
            holds += (await examine(premises, sight, rule)).holds
    if holds and (strict or not _some_can_run(survey, {hold.held for hold in holds})):
        raise _refusal([hold.error for hold in holds])
    return Start(survey, holds)


def unchosen(failed: Mapping[str, ReplicatorError]) -> list[Hold]:
    """Rules whose tables cannot be looked for, as long as something is wrong with that."""
    return [
        Hold(HeldId(RuleName(name), TableName("")), error)
        for name, error in failed.items()
        if error.exit_code != EXIT_UNREACHABLE
    ]


def _some_can_run(survey: Survey, held: Collection[HeldId]) -> bool:
    """Whether a rule is left with a target that is not held; one that waits for tables is."""
    return any(
        HeldId(RuleName(rule.name), TableName("")) not in held
        if not rule.sources
        else any(target not in held for target in targets_of(survey.settings, rule)) and rule_id(rule) not in held
        for rule in survey.settings.rules
    )


def rule_id(rule: RuleSettings) -> HeldId:
    """What a rule on one table is held as."""
    return HeldId(RuleName(rule.name), TableName(rule.table_name))


def targets_of(settings: Settings, rule: RuleSettings) -> list[HeldId]:
    """What its targets are held as."""
    runs = rule_per_source(settings, rule)
    return [replace(rule_id(rule), target=target.target_id) for run in runs for target in run.targets]


async def examine(premises: Premises, sight: Sight, rule: RuleSettings, *, runs: bool = False) -> Findings:
    """What is wrong with a rule on one table that was looked at; a rule that `runs` was vouched for before."""
    found = verdict(sight.settings, sight.world, rule, sight.caches)
    whole, silent = rule_id(rule), set(found.silent)
    holds = [] if found.rule is None else [Hold(whole, found.rule.error)]
    if holds and not runs:
        return Findings(holds, frozenset(silent))
    refused = {target: fact.error for target, fact in found.targets.items()}
    try:
        for seen in rule_per_source(sight.settings, rule) if not runs else ():
            refused = await vouch_for(premises, seen) | refused
    except ReplicatorError as error:
        if error.exit_code != EXIT_UNREACHABLE:
            return Findings([Hold(whole, error)], frozenset(silent))
        silent.add(None)
        _tell_unreachable(rule.name, error)
    holds += [Hold(replace(whole, target=target), error) for target, error in refused.items()]
    return Findings(holds, frozenset(silent))


async def vouch_for(premises: Premises, rule: Rule) -> dict[TargetId, ReplicatorError]:
    """Raise what forbids a rule to begin on a table that it reads, or does not answer.

    Returns what forbids it to write single targets; where that does not answer it is logged and left out.
    """
    await premises.succession.carry_over(rule)  # before the rule's claims, which show whose a table was
    stream = await _identity(premises, rule, {other.name for other in premises.settings.rules})
    refused = {}
    for target in rule.targets:
        try:
            await _claim(premises, rule, target, stream)
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


async def _patiently(premises: Premises, *, strict: bool) -> Survey:
    """What is there, once every service answered or patience is over and some rule can work."""
    log = structlog.get_logger("replicator")
    deadline = premises.clock.monotonic() + _PATIENCE_SECONDS
    warned = False
    while True:
        survey = await preflight(premises.settings, premises.places, premises.caches, premises.finder)
        failures = [fact for fact in survey.facts if fact.status is Status.FAILED]
        wrong = [fact for fact in (failures if strict else survey.shared) if fact.is_wrong]
        if wrong:
            raise _refusal([fact.error for fact in wrong])
        silent = [fact for fact in failures if not fact.is_wrong]
        rules = [rule for rule in survey.settings.rules if _may_run(survey, rule)]
        if not silent or not rules:
            return survey
        if premises.clock.monotonic() >= deadline:
            runs = [run for rule in rules for run in rule_per_source(survey.settings, rule)]
            if all(_hindered(premises.settings, run, silent) for run in runs):
                raise _refusal([fact.error for fact in silent])
            return survey
        if not warned:
            for fact in silent:
                log.warning("waiting", subject=fact.subject, reason=fact.found, advice=fact.remedy)
        warned = True
        await asyncio.sleep(1)


def _may_run(survey: Survey, rule: RuleSettings) -> bool:
    """Whether nothing that was seen is wrong with all of a rule."""
    found = verdict(survey.settings, survey.world, rule, survey.caches)
    held = {replace(rule_id(rule), target=target) for target in found.targets} if rule.sources else set()
    return found.rule is None and (not rule.sources or not held.issuperset(targets_of(survey.settings, rule)))


def _refusal(errors: Sequence[ReplicatorError]) -> ReplicatorError:
    first = errors[0]
    more = f" ({len(errors) - 1} more: see `replicator check`.)" if len(errors) > 1 else ""
    error = ReplicatorError(first.message, advice=first.advice + more)
    error.exit_code = first.exit_code
    return error


def _hindered(settings: Settings, rule: Rule, failures: Sequence[Fact]) -> bool:
    """Whether a rule can do nothing as long as something does not answer.

    A mesh can in each region by itself: it reads on from one region what waits for another one.
    """
    subjects = {f"region {region}" for region in (rule.source, settings.coordination.region)}
    for target in rule.targets:
        subjects.add(f"region {target.region}")
        subjects |= {f"cache {cache.cache}" for cache in target.caches}
    return any(fact.subject in subjects for fact in failures)


async def _identity(premises: Premises, rule: Rule, configured: set[str]) -> StreamRef:
    """A rule's name is the identity of its progress: refuse to begin anew, silently, under another name.

    Returns the stream that the rule reads.
    """
    log = structlog.get_logger("replicator")
    stream = await DynamoStreams(premises.places[rule.source]).current(rule.table)
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
    shape = next(shape_of(other) for other in premises.settings.rules if other.name == rule.name)
    changed = [target for target in rule.targets if await premises.registry.note_shape(stream, target, shape)]
    if changed:
        reason = "The filter or a key template changed; existing items were not evaluated again."
        log.warning("rule_changed", rule=rule.name, reason=reason)
    return stream


async def _claim(premises: Premises, rule: Rule, target: Target, stream: StreamRef) -> None:
    """Raise what forbids a rule to write a target's table, by what the side table knows of it.

    A table stays with the mode that wrote it: versions of different modes do not compare. An epoch, which only mode
    `ordered` has, is never lowered, and another source begins a new one.
    """
    if target.table is None:
        return
    client, side_table = premises.places[target.region].dynamodb, premises.settings.side_table_name
    mode = ModeClaim(rule.name, target.region, target.table, rule.mode)
    await note_mode(client, side_table=side_table, claim=mode)
    if rule.mesh is None:
        source = f"{stream.region}:{stream.table}"
        epoch = EpochClaim(rule.name, target.region, target.table, rule.epoch, source, stream.generation)
        await note_epoch(client, side_table=side_table, claim=epoch)
