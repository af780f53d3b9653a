"""Before the start: look at the world, wait a little for what does not answer, refuse what would end badly.

A start is refused (78) when configuration or world is wrong, when a rule would silently begin anew under another
name on one of the streams that it reads, or in another mode or epoch on a table that it writes; and (69) when nothing
that is configured can work because services do not answer. What does not answer while some rule can work is logged, and
tried again for as long as the daemon runs.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import structlog

from replicator.adapters.aws.clients import Place
from replicator.adapters.dynamodb.coordination import DynamoRegistry
from replicator.adapters.dynamodb.streams import DynamoStreams
from replicator.adapters.dynamodb.table_claims import EpochClaim, ModeClaim, note_epoch, note_mode
from replicator.checks.cache_facts import Probed
from replicator.checks.facts import Fact, Status
from replicator.checks.survey import Survey, preflight
from replicator.checks.table_choices import TableFinder
from replicator.domain.errors import EXIT_UNREACHABLE, ReplicatorError, WorldMismatch
from replicator.domain.rules import Rule
from replicator.domain.shards.leases import StreamRef
from replicator.engine.ownership.target_succession import TargetSuccession
from replicator.ports.clock import Clock
from replicator.settings import Settings, expanded
from replicator.settings.compiled_rules import rules_of, shape_of

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


async def prepare_start(premises: Premises) -> Survey:
    """Return when the engine may start; raise what forbids it. It may be cancelled at any time.

    What it returns holds the tables of rules that choose them.
    """
    survey = await _patiently(premises)
    log = structlog.get_logger("replicator")
    for fact in survey.facts:
        if fact.status is Status.WARNING:
            log.warning("noticed", subject=fact.subject, fact=fact.name, found=fact.found, advice=fact.remedy)
        elif fact.status is Status.FAILED:
            log.error("unreachable", subject=fact.subject, reason=fact.found, advice=fact.remedy)
    for rule in rules_of(expanded(premises.settings, survey.tables)):
        with _tolerant(rule):
            await vouch_for(premises, rule)
    return survey


async def vouch_for(premises: Premises, rule: Rule) -> None:
    """Raise what forbids a rule to begin on a table that it reads, or does not answer."""
    await premises.succession.carry_over(rule)  # before the rule's claims, which show whose a table was
    stream = await _identity(premises, rule, {other.name for other in premises.settings.rules})
    await _mode(premises, rule)
    await _epoch(premises, rule, stream)


@contextmanager
def _tolerant(rule: Rule) -> Iterator[None]:
    """What does not answer forbids nothing; it is logged."""
    try:
        yield
    except ReplicatorError as error:
        if error.exit_code != EXIT_UNREACHABLE:
            raise
        log = structlog.get_logger("replicator")
        log.warning("unreachable", rule=rule.name, reason=error.message, advice=error.worker_advice)


async def _patiently(premises: Premises) -> Survey:
    """What is there, once every service answered or patience is over and some rule can work."""
    log = structlog.get_logger("replicator")
    deadline = premises.clock.monotonic() + _PATIENCE_SECONDS
    warned = False
    while True:
        survey = await preflight(premises.settings, premises.places, premises.caches, premises.finder)
        failures = [fact for fact in survey.facts if fact.status is Status.FAILED]
        wrong = [fact for fact in failures if fact.exit_code != EXIT_UNREACHABLE]
        if wrong:
            raise _refusal(wrong)
        if not failures:
            return survey
        if premises.clock.monotonic() >= deadline:
            rules = rules_of(expanded(premises.settings, survey.tables))
            if all(_hindered(premises.settings, rule, failures) for rule in rules):
                raise _refusal(failures)
            return survey
        if not warned:
            for fact in failures:
                log.warning("waiting", subject=fact.subject, reason=fact.found, advice=fact.remedy)
        warned = True
        await asyncio.sleep(1)


def _refusal(failures: Sequence[Fact]) -> ReplicatorError:
    first = failures[0]
    more = f" ({len(failures) - 1} more: see `replicator check`.)" if len(failures) > 1 else ""
    error = ReplicatorError(first.found, advice=first.remedy + more)
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


async def _mode(premises: Premises, rule: Rule) -> None:
    """A table stays with the mode that wrote it: versions of different modes do not compare."""
    for target in rule.targets:
        if target.table is not None:
            claim = ModeClaim(rule.name, target.region, target.table, rule.mode)
            with _tolerant(rule):
                await note_mode(
                    premises.places[target.region].dynamodb, side_table=premises.settings.side_table_name, claim=claim
                )


async def _epoch(premises: Premises, rule: Rule, stream: StreamRef) -> None:
    """An epoch is never lowered, and another source begins a new one: the side table knows the highest one seen.

    Only mode `ordered` has epochs.
    """
    source = f"{stream.region}:{stream.table}"
    for target in rule.targets if rule.mesh is None else ():
        if target.table is not None:
            claim = EpochClaim(rule.name, target.region, target.table, rule.epoch, source, stream.generation)
            with _tolerant(rule):
                await note_epoch(
                    premises.places[target.region].dynamodb, side_table=premises.settings.side_table_name, claim=claim
                )
