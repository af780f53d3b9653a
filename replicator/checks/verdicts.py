"""What is wrong with the world of one rule: what keeps all of it from running, and what keeps single targets.

Pure, and made of the same facts as `check`. What every rule needs is no rule's own: see `shared_facts`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING

from msgspec import Struct, field

from replicator.checks.described_tables import own_tables
from replicator.checks.facts import Fact, Status
from replicator.checks.judge import judge_rule, own_facts
from replicator.checks.region_facts import region_facts
from replicator.domain.errors import EXIT_UNREACHABLE, AccessRefused, NotDynamoDB
from replicator.domain.identifiers import RegionId, RuleName, TableName
from replicator.domain.targets import replica_id
from replicator.domain.values import replace
from replicator.settings import OrderedRule

if TYPE_CHECKING:
    from replicator.checks.comparison import World
    from replicator.domain.targets import TargetId
    from replicator.settings import RuleSettings, Settings

_SIDE, _OWED = "side table", "owed table"
_LEAST_OF_MESH = 2
"""A mesh runs when so many of its regions are sound."""

_SHOWS_NOTHING = (AccessRefused, NotDynamoDB)

_OF_RULES = frozenset({_SIDE, _OWED})


class Verdict(Struct, frozen=True):
    """What is wrong with a rule on one table.

    `rule`: with all of it; `targets`: with single ones; `silent`: of which, None being the rule, something does not
    answer, so that more may be wrong.
    """

    rule: Fact | None = None
    targets: Mapping[TargetId, Fact] = field(default_factory=dict)
    silent: frozenset[TargetId | None] = frozenset()


def verdict(settings: Settings, world: World, rule: RuleSettings, *, runs: bool = False) -> Verdict:
    """What is wrong with a rule; `settings` hold it. A cache holds nothing: it is owed what it does not carry out.

    A region of a mesh is a target that may be wrong alone, as long as two others are sound: what it misses is owed to
    it. Of a rule that `runs` only its sources are looked at, since what it does not need now holds nothing.
    """
    if not rule.sources:
        return Verdict()
    own = judge_rule(settings, world, rule)
    if runs and not isinstance(rule, OrderedRule):
        own = [fact for fact in own if fact.name != "stream"]  # a region may be written all the same
    of_rule: list[Fact] = []
    tables: dict[TargetId, list[Fact]] = {}
    for region, table in rule.replica_tables:
        there = [fact for fact in own if fact.subject == f"table {table} in {region}"]
        purposes = [_SIDE] if runs or isinstance(rule, OrderedRule) else [_SIDE, _OWED]
        around = _around(settings, world, region, *purposes)
        tables[replica_id(RuleName(rule.name), RegionId(region), TableName(table))] = [*around, *there]
    if isinstance(rule, OrderedRule):
        purposes = [_OWED] if rule.owed_regions else []
        of_rule += () if runs else _around(settings, world, rule.source, *purposes)
    elif not runs and sum(_first(facts) is None for facts in tables.values()) < _LEAST_OF_MESH:
        of_rule += (fact for facts in tables.values() for fact in facts)
        tables = {}
    of_rule += (fact for fact in own if not any(fact in facts for facts in tables.values()))
    if runs:
        of_rule, tables = _seen(of_rule), {target: _seen(facts) for target, facts in tables.items()}
    wrong = {target: _first(facts) for target, facts in tables.items()}
    everything: list[tuple[TargetId | None, list[Fact]]] = [(None, of_rule), *tables.items()]
    return Verdict(
        _first(of_rule),
        {target: fact for target, fact in wrong.items() if fact is not None},
        frozenset(who for who, facts in everything if any(map(_is_silent, facts))),
    )


def _seen(facts: Iterable[Fact]) -> list[Fact]:
    """Facts about a rule that runs: a look that was refused, or answered by something else, shows nothing.

    What runs shows by itself whether it is answered, and goes on as soon as it is.
    """
    return [
        replace(fact, exit_code=EXIT_UNREACHABLE) if fact.is_wrong and issubclass(fact.kind, _SHOWS_NOTHING) else fact
        for fact in facts
    ]


def shared_facts(settings: Settings, world: World) -> list[Fact]:
    """What every rule needs: the coordination region, and the tables that are the process's own."""
    home = world[settings.coordination.region]
    own = [each for each in own_tables(settings) if each.purpose not in _OF_RULES]
    return [
        *region_facts(settings, home, thorough=False),
        *(fact for each in own for fact in own_facts(world[each.region], each, thorough=False)),
    ]


def _around(settings: Settings, world: World, region: str, *purposes: str) -> Iterator[Fact]:
    """Facts about a region, and about our own tables of these purposes there."""
    yield from region_facts(settings, world[region], thorough=False)
    for own in own_tables(settings):
        if own.region == region and own.purpose in purposes:
            yield from own_facts(world[region], own, thorough=False)


def _first(facts: Iterable[Fact]) -> Fact | None:
    return next((fact for fact in facts if fact.is_wrong), None)


def _is_silent(fact: Fact) -> bool:
    return fact.status is Status.FAILED and not fact.is_wrong
