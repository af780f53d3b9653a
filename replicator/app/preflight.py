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

import structlog
from msgspec import Struct

from replicator.app.rule_preflight import Premises, Sight, examine, rule_id, targets_of
from replicator.checks.facts import Fact, Status
from replicator.checks.survey import Survey, preflight
from replicator.checks.verdicts import verdict
from replicator.domain.errors import EXIT_UNREACHABLE, ReplicatorError
from replicator.domain.held import HeldId, Hold
from replicator.domain.identifiers import RuleName, TableName
from replicator.domain.rules import Rule
from replicator.domain.values import replace
from replicator.settings import RuleSettings, Settings
from replicator.settings.compiled_rules import rule_per_source

_PATIENCE_SECONDS = 10.0
"""How long a start waits for what does not answer."""


class Start(Struct, frozen=True):
    """What a start found, and what is held."""

    survey: Survey
    holds: Sequence[Hold]


async def prepare_start(premises: Premises, *, strict: bool = False) -> Start:
    """Return when the engine may start; raise what forbids it. It may be cancelled at any time.

    What it returns holds the tables of rules that choose them. `strict`: nothing is held, the start is refused instead.
    """
    survey = await _patiently(premises, strict=strict)
    log = structlog.get_logger("replicator")
    caches = _subjects(premises)
    for fact in survey.facts:
        if fact.status is Status.WARNING:
            log.warning("noticed", subject=fact.subject, fact=fact.name, found=fact.found, advice=fact.remedy)
        elif fact.status is Status.FAILED and (fact.subject in caches or not fact.is_wrong):
            log.error("unreachable", subject=fact.subject, reason=fact.found, advice=fact.remedy)
    sight = Sight(survey.settings, survey.world)
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


async def _patiently(premises: Premises, *, strict: bool) -> Survey:
    """What is there, once every service answered or patience is over and some rule can work."""
    log = structlog.get_logger("replicator")
    deadline = premises.clock.monotonic() + _PATIENCE_SECONDS
    warned = False
    while True:
        survey = await preflight(premises.settings, premises.places, premises.caches, premises.finder)
        failures = [fact for fact in survey.facts if fact.status is Status.FAILED]
        if not strict:  # a cache is owed what it does not carry out
            failures = [fact for fact in failures if fact.subject not in _subjects(premises)]
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
    found = verdict(survey.settings, survey.world, rule)
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

    It needs its source and the coordination table, and of its targets one that answers: the others wait by themselves,
    and caches are owed what they miss. A mesh can in each region by itself: it reads on from one region what waits for
    another one.
    """
    silent = {fact.subject for fact in failures}
    if silent & {f"region {rule.source}", f"region {settings.coordination.region}"}:
        return True
    return all(f"region {target.region}" in silent for target in rule.targets)


def _subjects(premises: Premises) -> set[str]:
    return {f"cache {name}" for name in premises.caches}
