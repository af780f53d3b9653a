"""Which tables the rules replicate that choose them by glob or tags, for as long as the daemon runs.

Invariant: a table is read only after it was looked at as everything is before a start; what is wrong with one costs no
other table its replication. A table is left only when two looks in a row did not find it, so that neither a listing
that forgot it nor its last records are in the way.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING

import structlog

from replicator.app.rule_preflight import Premises, admit_rule, replaced_tables
from replicator.checks.table_choices import LeftOut, sift
from replicator.checks.world import look
from replicator.domain.errors import ReplicatorError
from replicator.domain.identifiers import RuleName
from replicator.domain.values import replace
from replicator.observability.target_states import Choice
from replicator.ports.services import ServiceId, ServiceKind
from replicator.settings import choosing, expanded, target_problems
from replicator.settings.compiled_rules import rule_per_source

if TYPE_CHECKING:
    from replicator.checks.comparison import World
    from replicator.checks.survey import Survey
    from replicator.ports.events import Observer
    from replicator.settings import Settings

_MOST_SECONDS = 30.0
"""While there is nothing to read, the program shows at least this often that it lives."""

_MISSED_LOOKS = 2
_Key = tuple[str, str]
"""(rule, table)."""


class TableWatch:
    """The tables of every choice: looked for again and again, reported when they change."""

    def __init__(self, premises: Premises, survey: Survey, observer: Observer) -> None:
        """`survey`: what the start found."""
        self._premises = premises
        self._written = premises.settings
        self._observer = observer
        self._log = structlog.get_logger("replicator")
        self._tables = {name: dict.fromkeys(survey.tables.get(name, ()), 0) for name in choosing(self._written)}
        """By rule: its tables, and how many looks in a row did not find each."""
        self.turn = asyncio.Lock()
        """Held by a look; what rewrites takes it, because a look goes by the rules that it began with."""
        self._left_out: dict[_Key, LeftOut] = {}
        for name, tables in self._tables.items():
            self._log.info("tables_found", rule=name, tables=sorted(tables))
        self._tell_left_out(survey.left_out)

    @property
    def written(self) -> Settings:
        """The settings as they are written, choices and all."""
        return self._written

    @property
    def settings(self) -> Settings:
        """The settings with the tables of now."""
        return self.with_tables(self._written)

    def with_tables(self, settings: Settings) -> Settings:
        """Other settings, whose choices are the same, with the tables of now."""
        return expanded(settings, self._tables)

    def rewritten(self, settings: Settings) -> None:
        """The configuration is another one from now on; rules that came and choose their tables have none yet."""
        self._written, self._premises = settings, replace(self._premises, settings=settings)
        self._premises.finder.rewritten(settings)
        self._tables = {name: self._tables.get(name, {}) for name in choosing(settings)}
        self._left_out = {key: left for key, left in self._left_out.items() if key[0] in self._tables}

    @property
    def choices(self) -> tuple[Choice, ...]:
        """What is chosen, for the status board."""
        return tuple(
            Choice(
                name,
                rule.regions_used[0],
                str(rule.choice),
                tuple(sorted(self._tables[name])),
                {left.table: (left.reason, left.advice) for left in self._left_out.values() if left.rule == name},
            )
            for name, rule in choosing(self._written).items()
        )

    async def run(self, use: Callable[[], None]) -> None:
        """Look again and again until cancelled, while rules choose; `use` is called when the settings may be others."""
        interval = self._written.coordination.tables.total_seconds()
        waited = 0.0
        while True:
            idle = self._tables and not any(rule.sources for rule in self.settings.rules)
            step = min(interval - waited, _MOST_SECONDS)
            await asyncio.sleep(step)
            waited += step
            if idle:
                self._observer.cycle(None, 0, 0)
            if waited >= interval:
                waited = 0.0
                if self._tables:
                    await self.look_again()
                    use()

    async def look_again(self) -> None:
        """Look once; what fails is reported."""
        service = ServiceId(ServiceKind.ALL_TABLES)
        try:
            await self.look()
            self._observer.service_recovered(service)
        except ReplicatorError as error:
            self._observer.service_failed(service, error)

    async def look(self) -> None:
        """Look for the tables once, take in what is new, leave what is gone."""
        async with self.turn:
            await self._look()

    async def _look(self) -> None:
        chosen = await self._premises.finder.look()
        for name in self._tables:
            service = ServiceId(ServiceKind.TABLES, rule=RuleName(name))
            if name in chosen.failed:
                self._observer.service_failed(service, chosen.failed[name])
            else:
                self._observer.service_recovered(service)
        found = {name: set(tables) for name, tables in chosen.tables.items()}
        self._leave(found)
        news = {name: tables - self._tables[name].keys() for name, tables in found.items()}
        faults = await self._take_in({name: tables for name, tables in news.items() if tables})
        self._tell_left_out([*chosen.left_out, *faults])

    def _leave(self, found: Mapping[str, set[str]]) -> None:
        for name, tables in found.items():
            ours = self._tables[name]
            for table in list(ours):
                ours[table] = 0 if table in tables else ours[table] + 1
                if ours[table] >= _MISSED_LOOKS:
                    del ours[table]
                    self._log.info("table_left", rule=name, table=table)

    async def _take_in(self, news: Mapping[str, set[str]]) -> list[LeftOut]:
        """Begin with new tables; returns those that something is wrong with, or that do not answer yet."""
        if not news:
            return []
        fresh = [rule for rule in expanded(self._written, news).rules if rule.name in news]
        world = await look(self._written.model_copy(update={"rules": fresh}), self._premises.places, thorough=False)
        sound, faults = sift(self._written, news, world)
        left_out = list(faults)
        for name, tables in sound.items():
            for table in tables:
                fault = self._clash(name, table) or await self._refusal(name, table, world)
                if fault is None:
                    self._tables[name][table] = 0
                    self._log.info("table_found", rule=name, table=table)
                else:
                    left_out.append(fault)
        return left_out

    def _clash(self, name: str, table: str) -> LeftOut | None:
        """Whether a table gets in the way of another rule, or another rule in its way."""
        tables = {**self._tables, name: {**self._tables[name], table: 0}}
        problems = target_problems(expanded(self._written, tables))
        advice = "Narrow the glob or the tags of one of the rules, so that they do not meet."
        return self._fault(name, table, f"{problems[0]}.", advice) if problems else None

    async def _refusal(self, name: str, table: str, world: World) -> LeftOut | None:
        rule = choosing(self._written)[name].on(table)
        try:
            for seen in rule_per_source(self._written, rule):
                for refused in (await admit_rule(self._premises, seen)).values():
                    raise refused
            for replaced in (await replaced_tables(self._premises, world, rule)).values():
                raise replaced
        except ReplicatorError as error:
            return self._fault(name, table, error.message, error.worker_advice)
        return None

    def _fault(self, name: str, table: str, reason: str, advice: str) -> LeftOut:
        return LeftOut(name, choosing(self._written)[name].regions_used[0], table, reason, advice)

    def _tell_left_out(self, left_out: Iterable[LeftOut]) -> None:
        """Report a table once for each reason."""
        now = {(left.rule, left.table): left for left in left_out}
        for key, left in now.items():
            if self._left_out.get(key) != left:
                self._log.warning(
                    "table_left_out",
                    rule=left.rule,
                    table=left.table,
                    region=left.region,
                    reason=left.reason,
                    advice=left.advice,
                )
        self._left_out = now
