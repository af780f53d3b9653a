"""Which tables the rules mean that choose them by glob or tags, and which of these a rule can work with.

Owns the asking: ListTables, and ListTagsOfResource for what a glob leaves over. Invariant: replicator's own tables are
never found, and a table that something is wrong with costs no other table its replication.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from msgspec import Struct, field

from replicator.checks.described_tables import ask, describe
from replicator.checks.facts import Fact, Status, failed, ok, warning, wrong
from replicator.checks.judge import judge_rule
from replicator.domain.errors import EXIT_UNREACHABLE, ReplicatorError, TableMissing
from replicator.settings import MOST_TABLES, choosing, expanded, target_problems

if TYPE_CHECKING:
    from replicator.adapters.aws.clients import Place
    from replicator.checks.comparison import World
    from replicator.settings import RuleSettings, Settings

_MOST_PAGES = 1000
_SHOWN_NAMES = 10
_TAG_CALLS_PER_SECOND = 8.0
"""ListTagsOfResource takes 10 calls per second of an account."""


class LeftOut(Struct, frozen=True):
    """A table that a rule chooses and does not replicate, why, and what to do."""

    rule: str
    region: str
    table: str
    reason: str
    advice: str


class Chosen(Struct, frozen=True):
    """What one look found: tables by the name of the rule, and rules whose tables could not be looked for."""

    tables: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    failed: Mapping[str, ReplicatorError] = field(default_factory=dict)
    left_out: tuple[LeftOut, ...] = ()


class TableFinder:
    """Looks for the tables of every choice; what it learns once about a table's ARN it keeps."""

    def __init__(self, settings: Settings, places: Mapping[str, Place]) -> None:
        self._settings = settings
        self._places = places
        self._arns: dict[tuple[str, str], str] = {}
        self._tag_calls = _Pace(_TAG_CALLS_PER_SECOND)
        self.failed: Mapping[str, ReplicatorError] = {}
        """Why the last look did not find the tables of some rules."""

    def rewritten(self, settings: Settings) -> None:
        """The configuration is another one from now on."""
        self._settings = settings

    async def look(self) -> Chosen:
        """Every choice, as the world is now. Nothing is raised: a failed look-up is reported for its rule."""
        rules = choosing(self._settings)
        answers = await asyncio.gather(*(self._tables(rule) for rule in rules.values()))
        found = dict(zip(rules, answers, strict=True))
        tables = {name: answer for name, answer in found.items() if isinstance(answer, tuple)}
        self.failed = {name: answer for name, answer in found.items() if isinstance(answer, ReplicatorError)}
        return Chosen(
            {name: answer[:MOST_TABLES] for name, answer in tables.items()},
            self.failed,
            tuple(
                LeftOut(
                    name,
                    rules[name].regions_used[0],
                    table,
                    f"Rule {name} chooses more than {MOST_TABLES} tables; {table} is one of the others.",
                    "Choose by a narrower glob or by tags, with several rules.",
                )
                for name, answer in tables.items()
                for table in answer[MOST_TABLES:]
            ),
        )

    async def _tables(self, rule: RuleSettings) -> tuple[str, ...] | ReplicatorError:
        choice, place = rule.choice, self._places[rule.regions_used[0]]
        assert choice is not None, "only choices are looked for"
        try:
            names = [name for name in await _listed(place) if choice.names(name)]
            names = [name for name in names if name not in self._settings.own_table_names]
            if choice.tag:
                tags = [await self._tags(place, name) for name in names]
                names = [name for name, own in zip(names, tags, strict=True) if own is not None and choice.tagged(own)]
        except ReplicatorError as error:
            return error
        return tuple(sorted(names))

    async def _tags(self, place: Place, table: str) -> dict[str, str] | None:
        """A table's tags; None when it is gone."""
        what = f"ListTagsOfResource on {table} in {place.region_id}"
        tags: dict[str, str] = {}
        more: dict[str, str] = {}
        try:
            arn = await self._arn(place, table)
            for _ in range(_MOST_PAGES):
                await self._tag_calls.turn()
                answer = await ask(what, place.dynamodb.list_tags_of_resource, ResourceArn=arn, **more)
                tags |= {tag["Key"]: tag["Value"] for tag in answer.get("Tags", [])}
                if not answer.get("NextToken"):
                    break
                more = {"NextToken": answer["NextToken"]}
        except TableMissing:
            self._arns.pop((place.region_id, table), None)
            return None
        return tags

    async def _arn(self, place: Place, table: str) -> str:
        key = (place.region_id, table)
        if key not in self._arns:
            self._arns[key] = (await describe(place, table)).arn
        return self._arns[key]


async def _listed(place: Place) -> list[str]:
    """Names of all tables of a region."""
    what = f"ListTables in {place.region_id}"
    names: list[str] = []
    more: dict[str, str] = {}
    for _ in range(_MOST_PAGES):
        answer = await ask(what, place.dynamodb.list_tables, **more)
        names += answer.get("TableNames", [])
        if not answer.get("LastEvaluatedTableName"):
            break
        more = {"ExclusiveStartTableName": answer["LastEvaluatedTableName"]}
    return names


class _Pace:
    """Calls at a rate, after a burst of one second's worth."""

    def __init__(self, per_second: float) -> None:
        self._per_second = per_second
        self._left = per_second
        self._at = time.monotonic()

    async def turn(self) -> None:
        """Wait for one's turn; turns are given in the order in which they were asked for."""
        now = time.monotonic()
        self._left = min(self._per_second, self._left + (now - self._at) * self._per_second) - 1
        self._at = now
        if self._left < 0:
            await asyncio.sleep(-self._left / self._per_second)


# -- what commands need ----------------------------------------------------------------------------------------------


async def with_tables(settings: Settings, places: Mapping[str, Place]) -> Settings:
    """The settings with the tables that their choices find now; an error when one cannot be looked for."""
    if not choosing(settings):
        return settings
    found = await TableFinder(settings, places).look()
    for error in found.failed.values():
        raise error
    return expanded(settings, found.tables)


# -- what a rule can work with ---------------------------------------------------------------------------------------


def choice_facts(settings: Settings, chosen: Chosen) -> Iterator[Fact]:
    """What each choice found, and whether rules that choose get into each other's way."""
    for name, rule in choosing(settings).items():
        subject, region = f"tables of rule {name}", rule.regions_used[0]
        tables = chosen.tables.get(name, ())
        if name in chosen.failed:
            yield failed(subject, "found", chosen.failed[name])
        elif tables:
            yield ok(subject, "found", f"{len(tables)} in {region} for {rule.choice}: {_some(tables)}.")
        else:
            found = f"No table in {region} is {rule.choice}, so rule {name} does nothing until there is one."
            yield warning(subject, "found", found, "Correct table of the rule if there should be one.")
    yield from clashes(settings, chosen)


def clashes(settings: Settings, chosen: Chosen) -> Iterator[Fact]:
    """Whether rules that choose get into each other's way."""
    remedy = "Narrow the glob or the tags of one of the rules, so that they do not meet."
    for problem in target_problems(expanded(settings, chosen.tables)):
        yield wrong("tables of rules", "distinct", f"{problem}.", remedy)


def _some(names: Sequence[str]) -> str:
    shown = ", ".join(names[:_SHOWN_NAMES])
    return shown if len(names) <= _SHOWN_NAMES else f"{shown} and {len(names) - _SHOWN_NAMES} more"


def sift(
    written: Settings, tables: Mapping[str, Collection[str]], world: World
) -> tuple[dict[str, tuple[str, ...]], tuple[LeftOut, ...]]:
    """Of the tables that choices found those that nothing is wrong with, and the others.

    What does not answer is not wrong. A table that a rule names itself is never left out.
    """
    settings = expanded(written, tables)
    kept: dict[str, tuple[str, ...]] = {}
    left_out = []
    for name in choosing(written):
        rules = [rule for rule in settings.rules if rule.name == name and rule.sources]
        faults = {rule.table_name: _fault(settings, world, rule) for rule in rules}
        kept[name] = tuple(table for table, fault in faults.items() if fault is None)
        left_out += [fault for fault in faults.values() if fault is not None]
    return kept, tuple(left_out)


def _fault(settings: Settings, world: World, rule: RuleSettings) -> LeftOut | None:
    region, table = rule.sources[0]
    for fact in judge_rule(settings, world, rule):
        if fact.status is Status.FAILED and fact.exit_code != EXIT_UNREACHABLE:
            return LeftOut(rule.name, region, table, fact.found, fact.remedy)
    return None
